"""Networks cut after training: what pruning, truncation and rounding leave of them.

One training is cut in many ways. Each cut network is judged by itself and beside the
full one, as it comes and after fine-tuning. All is in float64, so another processor
finds the same numbers.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from crlib import attacks, compress, metrics, train
from crlib.attacks import AttackResult
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS

__all__ = ["STUDY", "beside", "cut", "fresh", "judge", "make"]

# Each is given with a strength: a share, a rank, bits, or a tolerance.
CUTS = ("rows", "weights", "rank", "bits", "epsilon", "fixed ratio", "global")
WAYS = ("full", *CUTS, "bits, input too", "trained at rank", "other seed")
EPS = 0.5
# Budgets of the attacks whose points are shown to other networks.
SHOWN = {"l2": 1.0, "linf": 0.05}


class _Grid(nn.Module):
    """Rounds inputs to 32 levels; the gradient through it is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (31 * x).round() / 31


def fresh(hidden: str, seed: int, rank: int | None = None) -> MLP:
    """Return an untrained network.

    Args:
        hidden: widths of the hidden layers, such as ``"64-8-64"``.
        seed: of the initialisation.
        rank: of the hidden layers, None for full ones.
    """
    widths = [int(width) for width in hidden.split("-")]
    return MLP((784, *widths, 10), rank=rank, mean=0.29, std=0.35, seed=seed)


def cut(net: MLP, way: str, strength: float) -> MLP:
    """Return a compressed copy of a trained network.

    Args:
        net: with full layers.
        way: ``"rows"`` and ``"weights"`` prune a share of each layer, ``"rank"``
            factorises, ``"bits"`` rounds the weights, ``"bits, input too"`` the input
            as well. ``"epsilon"`` prunes rows to a relative error; ``"fixed ratio"``
            and ``"global"`` then keep as many rows as it does, of each layer the same
            share or those of longest norm anywhere.
        strength: of the way.

    Raises:
        ValueError: an unknown way.
    """
    if way == "rows":
        found = compress.prune(net, strength, structure="rows")
    elif way == "weights":
        found = compress.prune(net, strength)
    elif way == "rank":
        found = compress.factorise(net, rank=int(strength))
    elif way in ("bits", "bits, input too"):
        found = compress.quantise(net, bits=int(strength))
        if way != "bits":
            found.normalize = nn.Sequential(_Grid(), found.normalize)
    elif way in ("epsilon", "fixed ratio", "global"):
        found = compress.prune_to_error(net, strength)
        if way != "epsilon":
            share = 1 - sum(_rows(found)) / sum(len(w) for w in net.weights[:-1])
            scope = "layer" if way == "fixed ratio" else "global"
            found = compress.prune(net, share, structure="rows", scope=scope)
    else:
        raise ValueError(f"way is {way!r}: choose one of {', '.join(WAYS)}.")
    made: MLP = found
    return made


def make(full: MLP, config: Mapping[str, Any], images: Dataset) -> MLP:
    """Return the network of a configuration, given the full one of its seed.

    Rounded weights do not move: a step is shorter than half the way to the next level.
    So a network is fine-tuned before it is rounded, and after any other cut.

    Args:
        full: trained.
        config: as in the grids: way, strength, tuning and what :func:`fresh` needs.
        images: to train with.
    """
    way, strength, epochs = config["way"], config["strength"], config["tuning"]
    hidden, seed = config["hidden"], config["seed"]
    if way == "other seed":
        return _trained(fresh(hidden, seed + 1), images, seed + 1, config["epochs"])
    if way == "trained at rank":
        net = fresh(hidden, seed, int(strength))
        return _trained(net, images, seed, config["epochs"])
    if epochs and way in ("full", "bits"):
        full = _tuned(full, images, seed, epochs)
    net = full if way == "full" else cut(full, way, strength)
    if epochs and way in ("rows", "weights", "rank"):
        zeros = None if way == "rank" else compress.keep_zeros(net)
        net = _tuned(net, images, seed, epochs, constraint=zeros)
    return net


def _trained(net: MLP, images: Dataset, seed: int, epochs: int, **options: Any) -> MLP:
    found: MLP = train.fit(
        net,
        images,
        epochs=epochs,
        checkpoint="last",
        seed=seed,
        progress=False,
        **options,
    ).model
    return found


def _tuned(net: MLP, images: Dataset, seed: int, epochs: int, **options: Any) -> MLP:
    return _trained(net, images, seed, epochs, lr=5e-4, schedule="cosine", **options)


def judge(
    net: MLP,
    images: Dataset,
    shown: Mapping[str, AttackResult],
    *,
    attacked: int = 300,
) -> dict[str, float]:
    """Measure accuracy, distance, robust accuracies, norms and rows of a network.

    Args:
        net: any that :func:`make` returns.
        images: the accuracy is over all test images.
        shown: by norm, what attacks on the full network found for the first test
            images.
        attacked: how many of them, the first, are attacked one by one.

    Returns:
        Named numbers. The distance is the median over the attacked images labelled
        right, infinite if most of these were not fooled; robust accuracies count all
        of them.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    near = attacks.minimum_of(
        attacks.fmn(net, x, y, steps=20, walk=0), attacks.deepfool(net, x, y, steps=5)
    ).distance
    many = images.x_test[:600], images.y_test[:600]
    fooled = attacks.universal(net, *many, eps=20 / 255, epochs=5).fooling_rate
    through = attacks.pgd(net, x, y, eps=SHOWN["linf"], norm="linf")
    via = {
        f"shown {norm}": attacks.transfer(found, net, x, y).robust_accuracy
        for norm, found in shown.items()
    }
    return {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "l2": float(near[near > 0].median()),
        "robust": float((near > EPS).double().mean()),
        "robust linf": through.robust_accuracy,
        **via,
        "universal": fooled,
        "norms": math.prod(metrics.operator_norm(w) for w in net.weights),
        **{f"rows {i}": n for i, n in enumerate(_rows(net), 1)},
    }


def _rows(net: MLP) -> list[int]:
    """Return how many rows of each hidden layer are not zero."""
    return [int((w.norm(dim=1) > 0).sum()) for w in net.weights[:-1]]


@torch.no_grad()
def beside(full: MLP, net: MLP, x: Tensor) -> dict[str, float]:
    r"""Measure how far a cut moves the logits, and bound it in two ways.

    The bound is :math:`\sum_l \|E^l a^{l-1}\|_2 \prod_{i>l} \|\tilde W^i\|_2` for each
    image; the bound by norms knows only the norms of the layers and of the input.

    Args:
        full: without biases.
        net: a cut of it, with weights of the same shapes.
        x: ``(N, ...)`` images.

    Returns:
        Medians over the images of the movement, of both bounds, and of the gap between
        the two largest logits of the full network; the share of images whose label the
        bound guarantees, and of those whose label stays.
    """
    h = full.normalize(x).flatten(1)
    local, start, relative = torch.zeros_like(h[:, 0]), h.norm(dim=1), 0.0
    before, after = full.weights, net.weights
    for i, (w, v) in enumerate(zip(before, after, strict=True)):
        behind = math.prod(metrics.operator_norm(u) for u in after[i + 1 :])
        local += behind * (h @ (w - v).T).norm(dim=1)
        relative += metrics.operator_norm(w - v) / metrics.operator_norm(w)
        h = (h @ w.T).relu()
    coarse = start * math.prod(metrics.operator_norm(w) for w in before) * relative
    z, moved = full(x), net(x)
    first, second = z.topk(2, dim=1).values.T
    return {
        "moved": float((z - moved).norm(dim=1).median()),
        "bound": float(local.median()),
        "bound by norms": float(coarse.median()),
        "gap": float((first - second).median()),
        "sure": float((first - second > 2**0.5 * local).double().mean()),
        "same": float((moved.argmax(1) == z.argmax(1)).double().mean()),
    }


def _run(configs: list[Config], device: str) -> list[Numbers]:
    """Train one network; make and judge all its cuts."""
    first = configs[0]
    images = SETS[first["data"]]().to(device)
    net = fresh(first["hidden"], first["seed"]).to(device)
    full = _trained(net, images, first["seed"], first["epochs"])
    few = images.x_test[: first["attacked"]], images.y_test[: first["attacked"]]
    shown = {
        norm: attacks.pgd(full, *few, eps=eps, norm=norm) for norm, eps in SHOWN.items()
    }

    def measured(config: Config) -> Numbers:
        made = make(full, config, images)
        found = judge(made, images, shown, attacked=config["attacked"])
        if config["way"] in CUTS and not config["tuning"]:
            found |= beside(full, made, images.x_test)
        return found

    return [measured(config) for config in configs]


def _grid(seeds: int, **more: Any) -> list[Config]:
    rules = ("epsilon", "fixed ratio", "global")
    once: dict[str, tuple[float, ...]] = {
        "full": (0,),
        "trained at rank": (16,),
        "other seed": (0,),
        "rows": (0.25, 0.5, 0.75),
        "weights": (0.75, 0.9, 0.95),
        "rank": (127, 120, 64, 32, 16, 8),
        "bits": (12, 8, 6, 4, 3),
        "bits, input too": (4,),
        **dict.fromkeys(rules, (0.2, 0.4, 0.6, 0.7, 0.8)),
    }
    tuned: dict[str, tuple[float, ...]] = {
        "full": (0,),
        "rows": (0.25, 0.5, 0.75),
        "weights": (0.75, 0.9, 0.95),
        "rank": (32, 16, 8),
        "bits": (8, 4, 3),
    }
    narrow: dict[str, tuple[float, ...]] = {
        "full": (0,),
        **dict.fromkeys(rules, (0.5,)),
        "rows": (0.94,),
    }
    return [
        {
            "hidden": hidden,
            "way": way,
            "strength": strength,
            "tuning": tuning,
            "epochs": epochs,
            "seed": seed,
            **more,
        }
        for hidden, epochs, tuning, ways in (
            ("128-128-128", 8, 0, once),
            ("128-128-128", 8, 2, tuned),
            ("64-8-64", 5, 0, narrow),
        )
        for way, strengths in ways.items()
        for strength in strengths
        for seed in range(seeds)
    ]


STUDY = Study(
    name="cuts",
    run=lambda config, device: _run([config], device)[0],
    run_many=_run,
    group=lambda config: [config["hidden"], config["seed"]],
    job_size=100,
    grids={
        "quick": _grid(5, data="sample", attacked=300),
        "full": _grid(10, data="Fashion-MNIST", attacked=1000),
    },
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
