"""What stands behind the effects of the experiments, in small networks and float64.

Four experiments share one table. Who holds the norm of row-sparse networks, and what
of it is only a way of writing. Whether a nuclear norm helps by clearing away weights
that see no image. How the degree of fit moves the distance of one network. What a
nuclear norm does to a network with one hidden layer, as in the first paper.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crlib import attacks, certify, compress, metrics, models, train
from crlib.data import Dataset
from crlib.studies import networks
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, halved, right_directions

__all__ = [
    "KEPT",
    "MATCH",
    "STOPS",
    "STUDY",
    "build",
    "cut_and_attacked",
    "holders",
    "kept_parts",
    "once_more",
]

LASSOS = {
    "plain": lambda strength: None,
    "rows, scale-invariant": lambda s: compress.group_lasso(s, scale_invariant=True),
    "group lasso": compress.group_lasso,
}
SCALES = (
    "free scale",
    "fixed scale",
    "free scale, projected",
    "fixed scale, projected",
)
STOPS = (1, 3, 6, 12)
MATCH = 0.8  # training accuracy of a network with one hidden layer
KEPT = 8  # directions, where such a network is cut
# Halvings enough that a rounding beside the boundary does not matter.
FINE = 30


def build(config: Config) -> tuple[Any, Dataset, dict[str, Any]]:
    """Return a network, its data in float64, and the options of the training.

    Args:
        config: ``experiment``, ``way``, ``strength``, ``seed`` and ``data``, as in the
            grid of the study.

    Raises:
        ValueError: an unknown experiment or way.
    """
    makers = {"rows": _rows, "unseen": _unseen, "fit": _fit, "one": _one}
    if config["experiment"] not in makers:
        raise ValueError(
            f"experiment is {config['experiment']!r}: choose one of"
            f" {', '.join(makers)}."
        )
    net, images, options = makers[config["experiment"]](config)
    usual = {"checkpoint": "last", "seed": config["seed"], "progress": False}
    return net, images, usual | options


def _rows(config: Config) -> tuple[Any, Dataset, dict[str, Any]]:
    way, strength = config["way"], config["strength"]
    if way not in LASSOS:
        raise ValueError(f"way is {way!r}: choose one of {', '.join(LASSOS)}.")
    net = models.MLP(
        (784, 128, 128, 128, 10), mean=0.286, std=0.353, seed=config["seed"]
    )
    images = _part(config["data"], 4000, 1000)
    return net, images, {"epochs": 12, "penalty": LASSOS[way](strength)}


def _unseen(config: Config) -> tuple[Any, Dataset, dict[str, Any]]:
    way = config["way"]
    if way not in SCALES:
        raise ValueError(f"way is {way!r}: choose one of {'; '.join(SCALES)}.")
    net = models.MLP((196, 64, 10), mean=0.29, std=0.35, seed=config["seed"]).double()
    images = _halved(config["data"])
    span = seen(images)
    acts: list[Callable[[Any], None]] = []
    if way.endswith("projected"):
        onto = span @ span.T

        def project(net: Any) -> None:
            w = net.layers[0].weight.data
            w.copy_(w @ onto)

        project(net)
        acts.append(project)
    if way.startswith("fixed"):
        acts.append(compress.fixed_frobenius(net))
    return (
        net,
        images,
        {
            "epochs": 12,
            "batch_size": 240,
            "validation": 0,
            "penalty": compress.nuclear_norm(config["strength"]),
            "constraint": lambda net: [act(net) for act in acts],
        },
    )


def _fit(config: Config) -> tuple[Any, Dataset, dict[str, Any]]:
    images = _part(config["data"], 1500, 300)
    c, h, w = images.x_train.shape[1:]
    net = models.ConvNet(
        (8, 16, 32), image=(c, h, w), mean=0.4, std=0.3, seed=config["seed"]
    )
    options = {
        "epochs": STOPS[-1],
        "keep": STOPS,
        "batch_size": 64,
        "lr": 5e-3,
        "schedule": "cosine",
        "validation": 0,
    }
    return net, images, options


def _one(config: Config) -> tuple[Any, Dataset, dict[str, Any]]:
    images = _part(config["data"], 4000, 1000)
    net, options = networks.build(
        config["way"], config["strength"], config["seed"], images, hidden=1
    )
    return net, images, options | {"epochs": 12, "match": MATCH}


@functools.cache
def _part(name: str, count: int, tested: int) -> Dataset:
    return SETS[name]().subset(count, tested)


@functools.cache
def _halved(name: str) -> Dataset:
    return halved(_part(name, 3600, 1000))


def seen(images: Dataset, share: float = 0.99) -> Tensor:
    """Return the fewest principal directions ``(d, k)`` that hold so much energy.

    Args:
        images: their training part, as the networks of this study normalise it.
        share: of the energy, in (0, 1).
    """
    inputs = (images.x_train.flatten(1).double() - 0.29) / 0.35
    values, vectors = torch.linalg.eigh(inputs.T @ inputs)
    held = values.flip(0).cumsum(0) / values.sum()
    return vectors.flip(1)[:, : int((held < share).sum()) + 1]


def without(net: models.MLP, layer: int, neurons: Tensor) -> models.MLP:
    """Return a copy with some neurons of a hidden layer set to zero."""
    net = copy.deepcopy(net)
    layers: Any = net.layers
    layers[layer].weight.data[neurons] = 0
    return net


def holders(net: models.MLP, images: Dataset) -> dict[str, float]:
    """Measure who holds the norm of a network, as trained and in balanced form.

    Args:
        net: three hidden layers of ReLUs without biases.
        images: what it was trained on; three hundred test images give the certificate.

    Returns:
        Named numbers. ``idle``: share of the squared norm of the last hidden layer in
        neurons that fire on under one training image in a hundred. ``strongest fires``:
        share of the images on which its strongest fires. ``off data``: share of the
        first layer, balanced, off the hundred strongest directions of the images.
    """
    few, labels = images.x_test[:300], images.y_test[:300]
    with torch.no_grad():
        h = net.normalize(images.x_train).flatten(1)
        for w in net.weights[:-1]:
            z = h @ w.T
            h = z.relu()
    fires, rho = (z > 0).double().mean(0), net.weights[-2].norm(dim=1)
    found = {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "idle": float(rho[fires < 0.01].square().sum() / rho.square().sum()),
        "strongest fires": float(fires[rho.argmax()]),
    }
    form = metrics.balanced(net)
    for name, one in (("", net), ("balanced ", form)):
        rows = [metrics.row_norms(w) for w in one.weights[:-1]]
        errors = [metrics.best_k_error(r, 13) for r in rows]
        radius = certify.lipschitz_radius(one, few, labels)
        found[f"{name}row error"] = sum(errors) / len(errors)
        found[f"{name}certificate"] = float(radius[radius > 0].median())
    pixels = images.x_train.flatten(1)
    top = torch.linalg.eigh(torch.cov(pixels.T))[1].flip(1)[:, :100]
    w = form.weights[0]
    found["off data"] = float(1 - (w @ top).square().sum() / w.square().sum())
    return found


def kept_parts(net: models.MLP, images: Dataset) -> dict[str, float]:
    """Measure what is left without some neurons: accuracies, universal fooling.

    Args:
        net: as in :func:`holders`.
        images: whose test part judges.

    Returns:
        ``lost ...``: points of accuracy without a part. ``by norm``, ``by balanced
        norm``: accuracy with the sixteen strongest of the last hidden layer.
        ``fooled ...``: fooling rate of one universal perturbation of 20/255 in linf,
        found anew for each network.
    """
    x, y = images.x_test, images.y_test
    order = [
        metrics.row_norms(w).argsort(descending=True, stable=True)
        for w in net.weights[:-1]
    ]
    form = metrics.balanced(net)

    def right(one: models.MLP) -> float:
        return metrics.accuracy(one, x, y)

    def sixteen(measure: Tensor) -> float:
        return right(without(net, 2, measure.argsort(stable=True)[:-16]))

    cases = {
        "whole": net,
        "strong": without(net, 0, order[0][:4]),
        "giants": without(net, 2, order[2][:4]),
        "weak": without(net, 0, order[0][64:]),
    }
    found = {
        "lost first": right(net) - right(without(net, 0, order[0][:1])),
        "lost third": right(net) - right(without(net, 2, order[2][:1])),
        "lost half": right(net) - right(cases["weak"]),
        "by norm": sixteen(metrics.row_norms(net.weights[2])),
        "by balanced norm": sixteen(metrics.row_norms(form.weights[2])),
    }
    for name, one in cases.items():
        found[f"fooled {name}"] = attacks.universal(
            one, x, y, eps=20 / 255, norm="linf"
        ).fooling_rate
    return found


def _cleared(net: models.MLP, images: Dataset) -> dict[str, float]:
    """Measure the distance, and the share of the first layer that sees no image."""
    x, y = images.x_test[:200], images.y_test[:200]
    near = attacks.fmn(net, x, y, norm="l2", steps=20, search_steps=FINE)
    right = net(x).argmax(1) == y
    w, span = net.weights[0], seen(images)
    return {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "l2": float(near.distance[right].median()),
        "unseen": 1 - float((w @ span).square().sum() / w.square().sum()),
    }


def _along(fitted: train.Fit, images: Dataset) -> dict[str, float]:
    """Measure fit and distance of one training at four epochs."""
    x, y = images.x_test[:100], images.y_test[:100]
    found, budget = {}, None
    for epoch in STOPS:
        at = fitted.at(f"epoch {epoch}")
        near = attacks.fmn(at.model, x, y, norm="l2", steps=40, search_steps=FINE)
        far = near.distance
        budget = float(far[far > 0].median()) if budget is None else budget
        found[f"fit {epoch}"] = at.history[epoch - 1].train_accuracy
        found[f"right {epoch}"] = float((far > 0).double().mean())
        found[f"l2 {epoch}"] = float(far[far > 0].median())
        # At the budget that is the median distance of the first epoch.
        found[f"robust {epoch}"] = float((far > budget).double().mean())
    for norm in ("l2", "linf"):
        found |= once_more(fitted.model, x[:50], y[:50], norm)
    return found | _stretches(fitted.model, tuple(x.shape[1:]))


def once_more(net: Any, x: Tensor, y: Tensor, norm: str) -> dict[str, float]:
    """Attack a network with FMN, then with more, and compare.

    Args:
        net: a trained network.
        x: ``(N, C, H, W)`` images in [0, 1].
        y: ``(N,)`` labels.
        norm: of the attacks.

    Returns:
        ``mean ...``, ``median ...``: distance with DeepFool beside FMN, to that of FMN
        alone, over the images labelled right. ``follow ...``, ``cascade ...``: robust
        accuracy at the median distance, by FMN and by the quick cascade.
    """
    follow = attacks.fmn(net, x, y, norm=norm, steps=60, walk=0, search_steps=FINE)
    walk = attacks.deepfool(net, x, y, norm=norm, search_steps=FINE)
    best = attacks.minimum_of(walk, follow).distance
    right = best > 0
    # A little inside, so that no image lies on the budget itself.
    eps = 0.999 * float(follow.distance[right].median())
    hit = attacks.worst_case(net, x, y, eps=eps, norm=norm, budget="quick")
    return {
        f"mean {norm}": float((best[right] / follow.distance[right]).mean()),
        f"median {norm}": float(best[right].median() / follow.distance[right].median()),
        f"follow {norm}": float((follow.distance > eps).double().mean()),
        f"cascade {norm}": hit.robust_accuracy,
    }


def _stretches(net: Any, shape: tuple[int, ...]) -> dict[str, float]:
    """Return the norm of each convolution over that of its flattened kernel."""
    size, found = shape[1], {}
    for k, layer in enumerate(list(net)[1:-2:2], 1):
        flat = metrics.operator_norm(layer.weight.detach().flatten(1))
        here = (layer.in_channels, size, size)
        norm = metrics.layer_operator_norm(layer, here, tol=0.01)
        found[f"stretch {k}"] = norm / flat
        size = -(-size // layer.stride[0])
    return found


def cut_and_attacked(net: models.MLP, images: Dataset) -> dict[str, float]:
    """Measure a network with one hidden layer: cut to few directions, and attacked.

    Args:
        net: trained.
        images: whose test part judges; the first two hundred are attacked.

    Returns:
        ``accuracy``, and ``accuracy when cut`` to ``KEPT`` singular directions. ``l2``:
        median distance by FMN over the images labelled right; ``attack in top ten``:
        the mean share of its energy in ten right singular directions, and ``difference
        in top ten`` that of differences of two images. ``features moved``: median
        movement of the hidden layer under the attack, over its length. ``spectral
        error`` with as many singular values kept as in the cut.
    """
    x, y = images.x_test[:200], images.y_test[:200]
    near = attacks.fmn(net, x, y, norm="l2", steps=20, search_steps=FINE)
    with torch.no_grad():
        right = net(x).argmax(1) == y
        moved = net.features(near.x_adv) - net.features(x)
    hit = right & near.success
    delta, other = ((u - x).flatten(1) for u in (near.x_adv, x.roll(1, 0)))
    w = net.weights[0].detach()
    top = right_directions(w, 10)
    values = metrics.singular_values(w)
    cut = compress.truncate(net, rank=KEPT)
    return {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "accuracy when cut": metrics.accuracy(cut, images.x_test, images.y_test),
        "l2": float(near.distance[right].median()),
        "attack in top ten": float(metrics.energy_share(delta[hit], top).mean()),
        "difference in top ten": float(metrics.energy_share(other, top).mean()),
        "features moved": float((moved.norm(dim=1) / delta.norm(dim=1))[hit].median()),
        "spectral error": metrics.best_k_error(values, KEPT),
    }


def _at_both(fitted: train.Fit, images: Dataset) -> dict[str, Any]:
    """Measure a training at its last epoch and, ``matched ...``, where it met a fit."""
    found: dict[str, Any] = {
        "images": len(images.x_train),
        "epochs": len(fitted.history),
        "fit": fitted.history[-1].train_accuracy,
    }
    found |= cut_and_attacked(fitted.model, images)
    if "matched" in fitted.kept:
        at = cut_and_attacked(fitted.at("matched").model, images)
        found |= {f"matched {name}": value for name, value in at.items()}
    return found


def _run(config: Config, device: str) -> Numbers:
    net, images, options = build(config)
    images = images.to(device)
    fitted = train.fit(net.to(device), images, **options)
    if config["experiment"] == "unseen":
        return _cleared(fitted.model, images)
    if config["experiment"] == "fit":
        return _along(fitted, images)
    if config["experiment"] == "one":
        return _at_both(fitted, images)
    found = holders(fitted.model, images)
    if config["way"] != "group lasso":
        found |= kept_parts(fitted.model, images)
    return found


def _grid(seeds: int, name: str) -> list[Config]:
    settings: list[tuple[str, str, float]] = [
        ("rows", "plain", 0),
        ("rows", "rows, scale-invariant", 0.1),
        ("rows", "group lasso", 0.003),
        ("fit", "plain", 0),
    ]
    settings += [("unseen", way, s) for way in SCALES for s in (0, 0.003, 0.01, 0.03)]
    settings.append(("one", "plain", 0))
    settings += [("one", "nuclear, fixed scale", s) for s in (0, 0.003, 0.01)]
    return [
        {
            "experiment": experiment,
            "way": way,
            "strength": strength,
            "seed": seed,
            "data": name,
        }
        for experiment, way, strength in settings
        for seed in range(seeds)
    ]


STUDY = Study(
    name="mechanisms",
    run=_run,
    grids={"quick": _grid(5, "sample"), "full": _grid(10, "Fashion-MNIST")},
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
