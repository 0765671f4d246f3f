"""One layer, one number of weights, many structures: who helps, against which norm.

The first layer of a network keeps about an eighth of its weights: as few neurons, as
few pixels, scattered, or as few directions from one of two starts. Two more networks
are full and come near to few rows or few columns by a penalty. All else is equal, the
Frobenius norm of the first layer at the start too; but two forms once more start with
the entries of a full layer, so at a smaller norm. Distances are measured in four
norms, in float64, so that a network trained again is its row of the table. The full
layer and the forms of one size meet the cascade, too, after the last epoch.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from crlib import attacks, checks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP, LowRankLinear
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    at_checkpoints,
    cascaded,
    differences,
    judged_trainings,
    robustness,
)

__all__ = [
    "CASCADE",
    "EPS",
    "FEW",
    "FIRST",
    "RANK",
    "SAME",
    "STUDY",
    "at_budgets",
    "build",
    "first_layer",
    "fitted",
    "judge",
]

FIRST = (
    "full",
    "neurons",
    "pixels",
    "pixels by variance",
    "scattered",
    "rank",
    "rank, principal",
    "row penalty",
    "column penalty",
    "neurons, small start",
    "scattered, small start",
)
SMALL = ", small start"
SAME = FIRST[:7]  # the full layer, and the forms of one size and one scale
DIM, WIDTH = 784, 256
SHARE = 1 / 8  # of the neurons, of the pixels, or of the weights one by one
RANK = 24  # of which the factors have an eighth of the weights, but for 128
PENALTY = 0.1
MATCH = 0.82
FEW = {"neurons": round(SHARE * WIDTH), "pixels": round(SHARE * DIM)}
EPS = {"linf": 0.03, "l2": 0.5, "l1": 4.0, "l0": 5.0}  # input units; l0 in pixels
CHECKPOINTS = ("matched", "last")
CASCADE = "last, cascade"  # the last weights once more, at fixed budgets
# Halvings enough that a rounding beside the boundary does not matter.
FINE = 30


def build(first: str, seed: int, images: Dataset) -> tuple[MLP, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that keep its form.

    Args:
        first: one of ``FIRST``, the form of the first layer.
        seed: of the initialisation and of what is kept at random.
        images: their variance or principal directions decide what is kept, if it is
            not chance.

    Raises:
        ValueError: an unknown form.
    """
    checks.one_of("first", first, FIRST)
    form = first.removesuffix(SMALL)
    width = FEW["neurons"] if form == "neurons" else WIDTH
    device = images.x_train.device
    net = MLP((DIM, width, WIDTH, WIDTH, 10), mean=0.286, std=0.353, seed=seed)
    net = net.to(device)
    if first.startswith("rank"):
        low = LowRankLinear(DIM, WIDTH, RANK, bias=False, seed=seed)
        net.layers[0] = low.to(device)
        if first == "rank, principal":
            compress.principal_start(net.layers[0], images.x_train)
        return net, {}
    if first.endswith("penalty"):
        side = "rows" if first == "row penalty" else "columns"
        lasso = compress.group_lasso(PENALTY, scale_invariant=True, side=side)
        return net, {"penalty": lasso}
    layer: Any = net.layers[0]
    weight = layer.weight.data
    weight *= _kept(form, seed, images).to(weight)
    if form == first:
        # The mean Frobenius norm of the full layer, whatever is left of it.
        weight *= math.sqrt(WIDTH / 3) / weight.norm()
    return net, {"constraint": compress.keep_zeros(net)}


def _kept(form: str, seed: int, images: Dataset) -> Tensor:
    """Return which weights of the first layer stay, to be spread over ``(h, m)``."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(DIM, dtype=torch.bool)
    if form == "pixels":
        mask[torch.randperm(DIM, generator=g)[: FEW["pixels"]]] = True
    elif form == "pixels by variance":
        varied = images.x_train.flatten(1).double().var(0)
        mask[varied.argsort(descending=True)[: FEW["pixels"]].cpu()] = True
    elif form == "scattered":
        # A cyclic pattern has equally many in each row and column, shuffled or not.
        period = round(1 / SHARE)
        steps = torch.randperm(WIDTH, generator=g)[:, None]
        mask = (steps + torch.randperm(DIM, generator=g)) % period == 0
    else:
        mask[:] = True
    return mask


def first_layer(net: MLP, pairs: Tensor) -> dict[str, float]:
    r"""Measure the first layer alone.

    Args:
        net: the trained network.
        pairs: ``(n, m)`` differences of images of unlike labels.

    Returns:
        ``Frobenius``; ``norm ...``, the operator norms over it; ``chi``, the root mean
        square share of the differences in the row space; ``contrast``, the operator
        norm in l2 over the factor by which the layer stretches the differences, as a
        ratio of median lengths; ``... error``, the best-k errors with an eighth of
        the rows or columns, or 24 directions.
    """
    w = net.weights[0]
    size = float(w.norm())
    found = {"Frobenius": size}
    for norm in ("linf", "l2", "l1"):
        found[f"norm {norm}"] = metrics.operator_norm(w, norm=norm) / size
    _, spectrum, directions = torch.linalg.svd(w, full_matrices=False)
    seen = directions[spectrum > 1e-9 * spectrum[0]].T  # (m, rank)
    found["chi"] = float(metrics.energy_share(pairs, seen).mean().sqrt())
    stretch = (pairs @ w.T).norm(dim=1).median() / pairs.norm(dim=1).median()
    found["contrast"] = found["norm l2"] * size / float(stretch)
    few = (SHARE * len(w), SHARE * w.shape[1], min(RANK, len(spectrum)))
    sizes = (metrics.row_norms(w), metrics.row_norms(w.T), spectrum)
    names = ("row", "column", "spectral")
    for name, values, k in zip(names, sizes, few, strict=True):
        found[f"{name} error"] = metrics.best_k_error(values, round(k))
    return found


def judge(
    net: MLP,
    images: Dataset,
    *,
    attacked: int = 200,
    norms: tuple[str, ...] = tuple(EPS),
) -> dict[str, float]:
    """Measure accuracy, distances, robust accuracies and the first layer.

    Args:
        net: the trained network.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked.
        norms: of the attacks.

    Returns:
        Named numbers. Distances are medians over the images labelled right by FMN; in
        l0 a mean by sigma-zero, for a median of counts hardly moves. ``robust ...`` is
        the share of all attacked images whose distance exceeds ``EPS``.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    right = net(x).argmax(1) == y
    near = {
        norm: attacks.sigma_zero(net, x, y, steps=60)
        if norm == "l0"
        else attacks.fmn(net, x, y, norm=norm, steps=30, search_steps=FINE)
        for norm in norms
    }
    found = {"accuracy": metrics.accuracy(net, images.x_test, images.y_test)}
    found |= robustness(near, right, EPS)
    if "l0" in near:
        found["l0"] = float(near["l0"].distance[right].double().mean())
    return found | first_layer(net, differences(images.x_test, images.y_test))


def at_budgets(
    net: MLP,
    images: Dataset,
    *,
    attacked: int = 200,
    norms: tuple[str, ...] = ("linf", "l2"),
) -> dict[str, float]:
    """Measure accuracy and what the quick cascade leaves of it at ``EPS``.

    Args:
        net: the trained network.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked.
        norms: of the attacks.

    Returns:
        ``accuracy``, over all test images, and ``robust ...``, over all attacked ones.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    found = {"accuracy": metrics.accuracy(net, images.x_test, images.y_test)}
    left = cascaded(net, x, y, {norm: EPS[norm] for norm in norms})
    return found | {f"robust {norm}": share for norm, share in left.items()}


@functools.cache
def _part(name: str, count: int) -> Dataset:
    return SETS[name]().subset(count, 1000)


def fitted(first: str, seed: int, images: Dataset, epochs: int) -> train.Fit:
    """Train one network of the study; both checkpoints are kept."""
    net, options = build(first, seed, images)
    return train.fit(
        net,
        images,
        epochs=epochs,
        batch_size=64,
        checkpoint="last",
        match=MATCH,
        seed=seed,
        progress=False,
        **options,
    )


def _run(configs: list[Config], device: str) -> list[Numbers]:
    """Train once; judge at each checkpoint asked for."""
    one = configs[0]
    images = _part(one["data"], one["images"]).to(device)
    trained = fitted(one["first"], one["seed"], images, one["epochs"])

    def numbers(config: Config) -> Numbers:
        rule, measure = config["checkpoint"], judge
        if rule == CASCADE:
            rule, measure = "last", at_budgets
        [found] = at_checkpoints(
            trained,
            [{**config, "checkpoint": rule}],
            lambda at: measure(at.model, images, attacked=one["attacked"]),
        )
        return found

    return [numbers(config) for config in configs]


def _grid(seeds: int, **more: Any) -> list[Config]:
    return [
        {"first": first, "seed": seed, "checkpoint": rule, **more}
        for first in FIRST
        for seed in range(seeds)
        for rule in (*CHECKPOINTS, CASCADE)
        if rule != CASCADE or first in SAME
    ]


STUDY = judged_trainings(
    "debate",
    _run,
    {
        "quick": _grid(5, data="sample", images=4000, epochs=12, attacked=200),
        "full": _grid(
            10, data="Fashion-MNIST", images=60_000, epochs=12, attacked=1000
        ),
    },
    lambda config: SETS[config["data"]]().fingerprint,
)
