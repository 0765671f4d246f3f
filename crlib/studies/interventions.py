"""What changes to a training move, and whether distances follow.

Small networks without biases, each trained with one intervention, in float64, and
judged at an equal fit and at the end: whether the intervention moved what it is named
after, as trained and in balanced form, and what became of the distances. Networks with
full layers are pruned as well, by rows.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from crlib import attacks, certify, checks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    at_checkpoints,
    judged_trainings,
    right_directions,
    robustness,
)

__all__ = [
    "EPSILONS",
    "STUDY",
    "build",
    "by_frobenius",
    "condition",
    "judge",
    "pruned",
    "structure",
    "without_top",
]

# Each is given with a strength: what its name limits or penalises.
WAYS = (
    "plain",
    "clipped",
    "scaled",
    "rows",
    "alignment",
    "alignment, Frobenius",
    "rank",
    "rank, alignment",
    "rank, condition",
    "rank, both",
)
WIDTH, RANK, ROWS = 128, 16, 0.1  # ROWS is the strength of the row penalty
EPOCHS, MATCH = 15, 0.85
EVERY = 5  # steps between two constraints
EPS = {"l2": 0.5, "linf": 0.03}
UNIVERSAL = 20 / 255
ATTACKED = 200
EPSILONS = (0.2, 0.5)  # of pruning to an error
# Halvings enough that a rounding beside the boundary does not matter.
FINE = 30


def build(config: Config) -> tuple[MLP, Dataset, dict[str, Any]]:
    """Return a network, its data in float64, and the options of the training.

    Args:
        config: ``way``, ``strength``, ``seed`` and ``data``, as in the grid of the
            study. In ``rows`` the strength is that of the control of the spread, and
            the row penalty stays.

    Raises:
        ValueError: an unknown way.
    """
    way, strength, seed = config["way"], config["strength"], config["seed"]
    checks.one_of("way", way, WAYS)
    rank = RANK if way.startswith("rank") else None
    sizes = (784, WIDTH, WIDTH, WIDTH, 10)
    net = MLP(sizes, rank=rank, mean=0.286, std=0.353, seed=seed)
    images = _part(config["data"])
    penalties = {
        "rows": compress.total(
            compress.group_lasso(ROWS, scale_invariant=True),
            compress.top_spread(strength),
        ),
        "alignment": compress.alignment(strength),
        "alignment, Frobenius": by_frobenius(strength),
        "rank, alignment": compress.alignment(strength),
        "rank, condition": condition(strength),
    }
    constraints = {
        "clipped": compress.clip_spectrum(strength),
        "scaled": _scaled(strength),
        "rank, both": compress.orthonormal_factors(),
    }
    if way == "rank, both":
        compress.principal_start(net.layers[0], images.x_train)
    return (
        net,
        images,
        {
            "epochs": EPOCHS,
            "match": MATCH,
            "checkpoint": "last",
            "seed": seed,
            "progress": False,
            "penalty": penalties.get(way),
            "constraint": constraints.get(way),
            "constrain_every": EVERY,
        },
    )


@functools.cache
def _part(name: str) -> Dataset:
    return SETS[name]().subset(4000, 1000)


def condition(strength: float) -> Callable[[Any], Tensor]:
    r"""Penalise how uneven the singular values of low-rank hidden layers are.

    :math:`\lambda \sum_l \|S^\top S - \tfrac1r \|S\|_F^2 I\|_F` for the core S of
    :math:`W = U S V^\top` with orthonormal U and V (Schotthoefer et al. 2025, as
    reported): :math:`\sqrt r` times the standard deviation of the squared singular
    values. Here U and V are not kept, and the traces come from the factors.

    Args:
        strength: :math:`\lambda`, not negative.
    """
    checks.not_negative(strength=strength)

    def penalty(model: Any) -> Tensor:
        parts = []
        for layer in model.layers[:-1]:
            left, right = layer.left, layer.right  # (h, r), (r, m)
            # Its eigenvalues are the squared singular values of the product.
            gram = (left.T @ left) @ (right @ right.T)
            square = gram.trace().square() / len(gram)
            # A root has no slope at zero, where the layer is even.
            parts.append(((gram @ gram).trace() - square).clamp_min(1e-12).sqrt())
        return strength * torch.stack(parts).sum()

    return penalty


def by_frobenius(strength: float) -> Callable[[Any], Tensor]:
    r"""Penalise the alignment of neighbours with Frobenius norms in its denominator.

    :math:`\lambda \sum_l \|W^{l+1} W^l\|_2 / (\|W^{l+1}\|_F \|W^l\|_F)` over hidden
    layers: :func:`crlib.compress.alignment` with each term over the root of the product
    of the two stable ranks. So a term falls by less alignment or by more even layers.

    Args:
        strength: :math:`\lambda`, not negative.
    """
    checks.not_negative(strength=strength)

    def penalty(model: Any) -> Tensor:
        w = [layer.weight for layer in model.layers[:-1]]
        parts = [
            torch.linalg.matrix_norm(after @ before, 2) / (after.norm() * before.norm())
            for before, after in zip(w, w[1:], strict=False)
        ]
        return strength * torch.stack(parts).sum()

    return penalty


def _scaled(most: float) -> Callable[[Any], None]:
    """Keep the spectral norm at or below ``most`` by shrinking the whole layer."""

    def constraint(model: Any) -> None:
        for layer in model.layers[:-1]:
            norm = metrics.operator_norm(layer.weight)
            layer.weight.data *= min(1.0, most / norm)

    return constraint


def structure(net: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    """Measure what the interventions are named after, from the weights.

    Args:
        net: without biases.
        x: ``(N, ...)`` images, for the certificate.
        y: ``(N,)`` labels.

    Returns:
        Means over the hidden layers, or over neighbours among them. ``norm``: spectral.
        ``condition``: first over sixteenth singular value. ``stable rank``. ``beta``:
        spread of the strongest twentieth of the row norms. ``row error``: with a tenth
        of the rows kept. ``alignment``: as the penalty has it. ``certificate``: median
        over the images that have one.
    """
    weights = net.weights[:-1]
    spectra = [metrics.singular_values(w) for w in weights]
    rows = [metrics.row_norms(w) for w in weights]
    radius = certify.lipschitz_radius(net, x, y)
    return {
        "norm": _mean([float(s[0]) for s in spectra]),
        "condition": _mean([float(s[0] / s[RANK - 1]) for s in spectra]),
        "stable rank": _mean([metrics.stable_rank(s) for s in spectra]),
        "beta": _mean([metrics.spread(v, WIDTH // 20) for v in rows]),
        "row error": _mean([metrics.best_k_error(v, WIDTH // 10) for v in rows]),
        "alignment": _alignment(weights),
        "certificate": float(radius[radius > 0].median()),
    }


def _alignment(weights: Sequence[Tensor]) -> float:
    return _mean(
        [
            metrics.operator_norm(after @ before)
            / (metrics.operator_norm(after) * metrics.operator_norm(before))
            for before, after in zip(weights, weights[1:], strict=False)
        ]
    )


def without_top(net: MLP) -> MLP:
    """Return a copy whose hidden layers have lost their first singular direction."""
    net = copy.deepcopy(net)
    layers: Any = net.layers
    for layer in layers[:-1]:
        top = torch.linalg.svd(layer.weight.detach(), full_matrices=False).U[:, :1]
        part = getattr(layer, "left", layer.weight).data
        part -= top @ (top.T @ part)
    return net


def strongest(net: MLP, x: Tensor) -> dict[str, float]:
    """Measure whether the first singular direction of each layer is of any use.

    Args:
        net: without biases.
        x: ``(N, ...)`` images.

    Returns:
        ``top seen``: share of the energy of what enters a hidden layer in the right
        one, a mean over the layers. Without these directions: ``labels without top``,
        the share of labels that stay, and ``alignment without top``.
    """
    shares, h = [], net.normalize(x).flatten(1)
    with torch.no_grad():
        for w in net.weights[:-1]:
            top = right_directions(w, 1)
            inside = (h @ top).square().sum() / h.square().sum()
            shares.append(float(inside))
            h = (h @ w.T).relu()
        cut = without_top(net)
        same = (cut(x).argmax(1) == net(x).argmax(1)).double().mean()
    return {
        "top seen": _mean(shares),
        "labels without top": float(same),
        "alignment without top": _alignment(cut.weights[:-1]),
    }


def in_use(net: MLP, x: Tensor) -> float:
    r"""Return the mean alignment of neighbours through the ReLUs of given images.

    :math:`\|W' D W\|_2 / (\|W'\|_2 \|W\|_2)` with the mask D of the neurons that
    fire at an image.

    Args:
        net: without biases.
        x: ``(N, ...)`` images.
    """
    found, h = [], net.normalize(x).flatten(1)
    with torch.no_grad():
        for before, after in zip(net.weights[:-2], net.weights[1:-1], strict=True):
            h = (h @ before.T).relu()
            size = metrics.operator_norm(before) * metrics.operator_norm(after)
            found += [
                metrics.operator_norm((after * fires) @ before) / size
                for fires in (h > 0).to(after)
            ]
    return _mean(found)


def judge(net: MLP, images: Dataset) -> dict[str, float]:
    """Measure accuracy, distances and structure, the latter in two ways of writing.

    Args:
        net: the trained network.
        images: whose test part judges.

    Returns:
        ``accuracy``; for each norm the median distance over the images labelled right,
        and ``robust ...`` over all attacked; ``universal``: fooling rate of one linf
        perturbation; what :func:`structure` has, of the network as trained and,
        ``balanced ...``, in balanced form; ``alignment in use``; what :func:`strongest`
        has.
    """
    x, y = images.x_test[:ATTACKED], images.y_test[:ATTACKED]
    right = net(x).argmax(1) == y
    near = {
        norm: attacks.fmn(net, x, y, norm=norm, steps=30, search_steps=FINE)
        for norm in EPS
    }
    found = {"accuracy": metrics.accuracy(net, images.x_test, images.y_test)}
    found |= robustness(near, right, EPS)
    found["universal"] = attacks.universal(
        net,
        images.x_test[:500],
        images.y_test[:500],
        eps=UNIVERSAL,
        norm="linf",
        epochs=5,
    ).fooling_rate
    found |= structure(net, x, y)
    form = structure(metrics.balanced(net), x, y)
    found |= {f"balanced {name}": value for name, value in form.items()}
    found["alignment in use"] = in_use(net, x[:20])
    return found | strongest(net, images.x_test)


def pruned(net: MLP, images: Dataset) -> dict[str, float]:
    """Prune rows to an error, and as many by a fixed share; as trained and balanced.

    Args:
        net: with full layers, without biases.
        images: whose test part judges.

    Returns:
        For each error of ``EPSILONS``, of the network as trained and, ``balanced ...``,
        in balanced form: ``kept``, the share of the rows that are left, and accuracies,
        ``error`` with a fixed error in each layer, ``share`` with as many rows and a
        fixed share of each. ``as many``: by a fixed share, as trained, with as many as
        the balanced form keeps.
    """
    found: dict[str, float] = {}
    for eps in EPSILONS:
        for name, one in (("", net), ("balanced ", metrics.balanced(net))):
            cut = compress.prune_to_error(one, eps)
            kept = _mean(
                [float((w != 0).any(1).double().mean()) for w in cut.weights[:-1]]
            )
            found[f"{name}kept {eps}"] = kept
            found[f"{name}error {eps}"] = _right(cut, images)
            found[f"{name}share {eps}"] = _right(_by_share(one, kept), images)
        found[f"as many {eps}"] = _right(_by_share(net, kept), images)
    return found


def _by_share(net: MLP, kept: float) -> Any:
    return compress.prune(net, 1 - kept, structure="rows")


def _right(net: Any, images: Dataset) -> float:
    return metrics.accuracy(net, images.x_test, images.y_test)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _run(configs: list[Config], device: str) -> list[Numbers]:
    net, images, options = build(configs[0])
    images = images.to(device)
    fitted = train.fit(net.to(device), images, **options)

    def judged(at: train.Fit) -> Numbers:
        found = judge(at.model, images)
        full = not configs[0]["way"].startswith("rank")
        return found | (pruned(at.model, images) if full else {})

    return at_checkpoints(fitted, configs, judged)


def _grid(seeds: int, name: str) -> list[Config]:
    settings: list[tuple[str, float]] = [
        ("plain", 0),
        ("rows", 0),
        ("rows", 0.03),
        ("rows", 0.3),
        ("clipped", 2),
        ("clipped", 1),
        ("scaled", 1),
        ("alignment", 0.1),
        ("rank", 0),
        ("rank, alignment", 0.3),
        ("rank, condition", 0.03),
        ("rank, both", 0),
        ("alignment, Frobenius", 0.1),
    ]
    return [
        {
            "way": way,
            "strength": strength,
            "seed": seed,
            "data": name,
            "checkpoint": rule,
        }
        for way, strength in settings
        for seed in range(seeds)
        for rule in ("matched", "last")
    ]


STUDY = judged_trainings(
    "interventions",
    _run,
    {"quick": _grid(5, "sample"), "full": _grid(10, "Fashion-MNIST")},
    lambda config: SETS[config["data"]]().fingerprint,
)
