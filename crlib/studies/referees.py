"""Questions that readers of the two papers ask: attacks, queries, width, normalisation.

Plain networks, networks of rank 16 and repaired ones of the same rank, all in float64,
so that a network trained again is its row of the table. Four experiments share it.
Many attacks, some without any gradient of their own, meet the same networks. These are
trained once more for the cascade in l2, and for their distances where the validation
loss is least. Widths and numbers of images change, and the rank with the width. And
batch normalisation stands behind each hidden layer.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crlib import attacks, checks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP, weight_layers
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    cascaded,
    of_sample,
    right_directions,
    row_space,
)

__all__ = [
    "STUDY",
    "asked",
    "build",
    "distances",
    "estimated",
    "fixed_budget",
    "lent",
    "normalised",
    "principal",
    "row_errors",
    "trained",
]

WAYS = ("plain", "rank", "rank, both")
SHARES = ("share", "share, both")  # a rank that grows with the width
RANK, WIDTH, EPOCHS = 16, 256, 8
MATCH = 0.83
ATTACKED = 200
EPS = {"linf": 0.03, "l2": 0.5}
QUERIES = (100, 400, 1600)  # of Square
DIRECTIONS = (1, 2, 4, 8, 16, 32, 64)  # two queries each
STEP = 0.75  # l2, along an estimated gradient
LENT = 1.5  # l2, of a perturbation made on another network
OTHER = 100  # between the seed of a network and that of its surrogates
PROBE = 1e-3  # half the way between two queries
FINE = 30  # halvings, so that a rounding beside the boundary does not matter


def build(config: Config, images: Dataset) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that go with it.

    Args:
        config: ``way``, ``width``, ``norm`` (whether batch normalisation follows each
            hidden layer), ``epochs`` and ``seed``.
        images: their principal directions are where a repaired first layer starts.

    Raises:
        ValueError: an unknown way.
    """
    way, width, seed = config["way"], config["width"], config["seed"]
    checks.one_of("way", way, (*WAYS, *SHARES))
    sizes = (784, width, width, width, 10)
    kept = RANK * width // WIDTH if way in SHARES else RANK
    rank = None if way == "plain" else kept
    net = MLP(sizes, rank=rank, mean=0.286, std=0.353, seed=seed)
    options: dict[str, Any] = {"epochs": config["epochs"], "seed": seed}
    if way.endswith("both"):
        compress.principal_start(net.layers[0], images.x_train)
        options |= {"constraint": compress.orthonormal_factors(), "constrain_every": 5}
    return (normalised(net) if config["norm"] else net), options


def normalised(net: MLP) -> nn.Sequential:
    """Return the same layers with batch normalisation behind each hidden one."""
    layers: list[Any] = list(net.layers)
    *hidden, head = layers
    steps: list[nn.Module] = [net.normalize, nn.Flatten()]
    for layer in hidden:
        steps += [layer, nn.BatchNorm1d(len(layer.weight)), nn.ReLU()]
    return nn.Sequential(*steps, head)


def trained(config: Config, images: Dataset) -> train.Fit:
    """Train the network of a configuration; the last weights count."""
    net, options = build(config, images)
    return train.fit(
        net, images, checkpoint="last", match=MATCH, progress=False, **options
    )


def fixed_budget(net: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the robust accuracy that each of eleven attacks leaves, over all of ``x``.

    Args:
        net: the network.
        x: ``(N, ...)`` images in [0, 1].
        y: ``(N,)`` labels.

    Returns:
        One number an attack, at ``EPS``, and for l2 the mean share of the energy of
        the perturbations that fool in the ten top directions of the first layer, for
        a gradient attack and for Square.
    """
    eps = EPS["linf"]
    far = attacks.fmn(net, x, y, norm="linf", steps=50, search_steps=FINE).distance
    found = {
        "clean": metrics.accuracy(net, x, y),
        "FGSM": attacks.fgsm(net, x, y, eps=eps).robust_accuracy,
        "PGD, cross-entropy": attacks.pgd(
            net, x, y, eps=eps, steps=40, loss="ce"
        ).robust_accuracy,
        "PGD, margin": attacks.pgd(net, x, y, eps=eps, steps=40).robust_accuracy,
        "APGD": attacks.apgd(net, x, y, eps=eps, steps=30).robust_accuracy,
        "cascade": cascaded(net, x, y, {"linf": eps})["linf"],
        "FMN": float((far > eps).double().mean()),
    }
    for queries in QUERIES:
        hit = attacks.square(net, x, y, eps=eps, queries=queries)
        found[f"Square {queries}"] = hit.robust_accuracy
    top = right_directions(net.weights[0], 10)
    for name, hit in (
        ("Square l2", attacks.square(net, x, y, eps=EPS["l2"], norm="l2", queries=400)),
        ("PGD l2", attacks.pgd(net, x, y, eps=EPS["l2"], norm="l2", steps=40)),
    ):
        found[name] = hit.robust_accuracy
        moved = (hit.x_adv - x)[hit.success & (hit.distance > 0)]
        found[f"{name} in top ten"] = float(metrics.energy_share(moved, top).mean())
    return found


def estimated(
    net: Any, x: Tensor, y: Tensor, basis: Tensor | None, count: int
) -> Tensor:
    """Estimate the gradient of the margin from queries alone.

    Two queries, at a thousandth on both sides, for each of ``count`` orthonormal
    directions, drawn uniformly for each image. They stay inside the box.

    Args:
        net: asked for logits only.
        x: ``(N, ...)`` images in [0, 1].
        y: ``(N,)`` labels.
        basis: ``(m, s)``, orthonormal: the subspace of the directions; None means all.
        count: of directions, at most s.

    Returns:
        ``(N, m)``: the projection of the gradient on the directions.
    """
    n, m = len(x), x[0].numel()
    size = m if basis is None else basis.shape[1]
    g = torch.Generator().manual_seed(0)
    drawn = torch.randn(n, size, count, generator=g, dtype=x.dtype)
    ways = torch.linalg.qr(drawn).Q.mT  # (N, count, s)
    if basis is not None:
        ways = ways @ basis.T  # (N, count, m)
    middle = x.flatten(1).clamp(PROBE, 1 - PROBE)[:, None]
    labels = y.repeat_interleave(count)

    def score(z: Tensor) -> Tensor:
        with torch.no_grad():
            logits = net(z.reshape(n * count, *x.shape[1:]))
        return metrics.margin(logits, labels).view(n, count, 1)

    slopes = (score(middle + PROBE * ways) - score(middle - PROBE * ways)) / (2 * PROBE)
    return (slopes * ways).sum(1)


def principal(images: Dataset, count: int) -> Tensor:
    """Return the first principal directions ``(m, count)`` of the training images."""
    flat = images.x_train.flatten(1)
    # With the signs that came: the directions of the table's queries are drawn in them.
    return torch.linalg.eigh(torch.cov(flat.T))[1].flip(1)[:, :count]


def asked(
    net: MLP,
    images: Dataset,
    *,
    attacked: int = ATTACKED,
    directions: Sequence[int] = DIRECTIONS,
) -> dict[str, float]:
    """Measure an attacker who estimates one gradient and takes one step.

    Args:
        net: the network.
        images: the first of the test part are attacked; 16 principal directions of
            the training part are what an attacker with data, but no weights, knows.
        attacked: how many.
        directions: along how many the attacker asks, where a subspace has so many.

    Returns:
        For each subspace and each number of directions the share of the images
        labelled right that fall, ``... fooled``, and the mean cosine with the true
        gradient, ``... cosine``.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    right = net(x).argmax(1) == y
    x, y = x[right], y[right]
    slope, found = _slope(net, x, y), {}
    spaces = {"blind": None, "row space": row_space(net), "data": principal(images, 16)}
    for name, basis in spaces.items():
        size = slope.shape[1] if basis is None else basis.shape[1]
        for count in directions:
            if count > size:
                continue
            guess = estimated(net, x, y, basis, count)
            cosine = torch.cosine_similarity(guess, slope).mean()
            found[f"{name} {count} cosine"] = float(cosine)
            found[f"{name} {count} fooled"] = _after_step(net, x, y, guess, STEP)
    return found


def _slope(net: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient ``(N, m)`` of the margin of the labels."""
    z = x.clone().requires_grad_()
    value = metrics.margin(net(z), y).sum()
    return torch.autograd.grad(value, z)[0].flatten(1)


def _after_step(net: Any, x: Tensor, y: Tensor, slope: Tensor, length: float) -> float:
    """Return the share of wrong labels after a step against a slope ``(N, m)``."""
    step = length * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12)
    moved = (x - step.view_as(x)).clamp(0, 1)
    return 1 - metrics.accuracy(net, moved, y)


def lent(net: Any, others: dict[str, Any], x: Tensor, y: Tensor) -> dict[str, float]:
    """Measure what perturbations made on other networks do to this one.

    Args:
        net: the network that is attacked.
        others: surrogates by name.
        x: ``(N, ...)`` images in [0, 1].
        y: ``(N,)`` labels; images that ``net`` labels wrongly are left out.

    Returns:
        For each surrogate, and for ``net`` as its ``own``, the share of labels that
        fall to one gradient step (``... one step``) and to ten (``... ten steps``) of
        l2 length ``LENT``, and the mean cosine of the gradients (``... cosine``).
    """
    right = net(x).argmax(1) == y
    x, y = x[right], y[right]
    adversary = train.pgd_adversary(eps=LENT, norm="l2", steps=10)
    true, found = _slope(net, x, y), {}
    for name, other in ({"own": net} | others).items():
        slope = _slope(other, x, y)
        climbed = adversary(other, x, y, torch.Generator().manual_seed(0))
        found[f"{name} one step"] = _after_step(net, x, y, slope, LENT)
        found[f"{name} ten steps"] = 1 - metrics.accuracy(net, climbed, y)
        found[f"{name} cosine"] = float(torch.cosine_similarity(slope, true).mean())
    return found


@functools.lru_cache(maxsize=16)
def _surrogate(way: str, seed: int, data: str) -> Any:
    """Train a network of another seed once for all that it is lent to."""
    config = {"way": way, "width": WIDTH, "norm": False, "epochs": EPOCHS, "seed": seed}
    return trained(config, SETS[data]()).model


def distances(net: Any, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the median distance over the images labelled right, in l2 and linf."""
    right = net(x).argmax(1) == y
    found = {}
    for norm in EPS:
        near = attacks.fmn(net, x, y, norm=norm, steps=40, search_steps=FINE)
        found[norm] = float(near.distance[right].median())
    return found


def row_errors(net: Any) -> dict[str, float]:
    """Return the mean row error of the hidden layers, a tenth of the rows kept.

    As the kernels stand, ``raw row error``, and with batch normalisation in them,
    ``folded row error``.
    """
    found = {}
    for name, one in (("raw", net), ("folded", metrics.folded(net))):
        rows = [metrics.row_norms(layer.weight) for layer in weight_layers(one)[:-1]]
        errors = [metrics.best_k_error(r, len(r) // 10) for r in rows]
        found[f"{name} row error"] = sum(errors) / len(errors)
    return found


def run(config: Config, images: Dataset) -> Numbers:
    """Train once, and measure what the experiment asks for."""
    count = config["images"]
    part = images.subset(count, 2000) if count < len(images.x_train) else images
    fitted = trained(config, part)
    net, x, y = fitted.model, images.x_test, images.y_test
    few, labels = x[:ATTACKED], y[:ATTACKED]
    found: dict[str, float] = {
        "train": fitted.history[-1].train_accuracy,
        "accuracy": metrics.accuracy(net, x, y),
        "matched epoch": fitted.at("matched").epoch if "matched" in fitted.kept else 0,
    }
    found |= distances(net, few, labels)
    if found["matched epoch"]:
        at = distances(fitted.at("matched").model, few, labels)
        found |= {f"matched {norm}": far for norm, far in at.items()}
    if config["experiment"] == "cascade":
        found["cascade l2"] = cascaded(net, few, labels, {"l2": EPS["l2"]})["l2"]
        best = fitted.at("validation")
        found["validation epoch"] = best.epoch
        at = distances(best.model, few, labels)
        found |= {f"validation {norm}": far for norm, far in at.items()}
    if config["experiment"] == "normalisation":
        found |= row_errors(net)
    if config["experiment"] == "attacks":
        found |= fixed_budget(net, few, labels) | asked(net, images)
        ways = {"plain": "plain", "alike": config["way"]}
        others = {
            name: _surrogate(way, config["seed"] + OTHER, config["data"])
            for name, way in ways.items()
        }
        found |= lent(net, others, few, labels)
    return found


SETTINGS: list[Config] = [
    {
        "experiment": experiment,
        "way": way,
        "width": width,
        "images": images,
        "norm": experiment == "normalisation",
        "epochs": epochs,
    }
    for experiment, width, images, epochs, ways in (
        ("attacks", WIDTH, 8000, EPOCHS, WAYS),
        ("cascade", WIDTH, 8000, EPOCHS, WAYS),
        ("normalisation", WIDTH, 8000, EPOCHS, WAYS),
        ("scale", 64, 8000, EPOCHS, WAYS),
        ("scale", 512, 8000, EPOCHS, WAYS),
        # As many steps as the others.
        ("scale", WIDTH, 2000, 4 * EPOCHS, WAYS),
        ("scale", 64, 8000, EPOCHS, SHARES),
        ("scale", 512, 8000, EPOCHS, SHARES),
    )
    for way in ways
]
STUDY = of_sample("referees", SETTINGS, run)
