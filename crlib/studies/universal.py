"""One perturbation for all images: found by a search, or drawn blindly.

Two questions share the networks: does a larger scale alone bring universal
perturbations, and does the dimension of the row space decide what chance does?
"""

from typing import Any

import torch
from torch import Tensor

from crlib import attacks, compress, metrics, theory, train
from crlib.attacks import AttackResult
from crlib.models import MLP
from crlib.studies import networks
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    at_checkpoints,
    judged_trainings,
    nearest,
    right_directions,
    row_space,
)

__all__ = ["STUDY", "blind", "build", "judge", "searched", "spaces"]

# Strength is the Frobenius norm of each hidden layer, at singular values that fall
# like the root of their number; or what networks.build takes.
SETTINGS = (
    ("plain", 0.0),
    ("rows, scale-invariant", 0.2),
    ("rank", 16.0),
    ("rank, both", 16.0),
    ("spectral dial", 0.0),
    ("scale", 5.0),
    ("scale", 10.0),
    ("scale", 20.0),
    ("scale", 40.0),
)
CHECKPOINTS = ("matched", "last")
EPS = 20 / 255
LENGTHS = (2.0, 4.0, 8.0)
STRONG = 16
DRAWS = 20


def build(way: str, strength: float, seed: int, images: Any) -> tuple[MLP, Any]:
    """Return a network and the options of :func:`crlib.train.fit` that make it so.

    Args:
        way: one of ``SETTINGS``.
        strength: of the way.
        seed: of the initialisation.
        images: their principal directions are where the first layer can start.
    """
    if way != "scale":
        return networks.build(way, strength, seed, images)
    net, options = networks.build("plain", 0, seed, images)
    return net, options | {
        "constraint": compress.spectral_dial(0.5, frobenius=strength),
        "constrain_every": 10,
        "weight_decay": 0.0,
    }


def blind(
    net: MLP, x: Tensor, near: AttackResult, basis: Tensor, *, seed: int
) -> dict[str, float]:
    """Compare random directions of a subspace with the law, at some lengths.

    Args:
        net: the network.
        x: ``(N, ...)`` images; boundaries are those of the labels it gives them.
        near: the nearest points with another label.
        basis: ``(m, r)``, orthonormal: of the subspace.
        seed: of the directions.

    Returns:
        The median share of the normals in the subspace. For each length the share of
        images that the law expects to change, and the mean share that changes under v
        or -v; ``boxed`` for one end in the box.
    """
    step = (near.x_adv - x).flatten(1)  # (N, m)
    normal = step / step.norm(dim=1, keepdim=True).clamp_min(1e-30)
    share = (normal @ basis).norm(dim=1).clamp_max(1)
    told = net(x).argmax(1)
    g = torch.Generator().manual_seed(seed)
    found = {"share": float(share.median())}
    for length in LENGTHS:
        law = theory.universal_law(near.distance, share, length, basis.shape[1])
        either, boxed = [], []
        for _ in range(DRAWS):
            # Of the subspace alone: another basis of it gives the same direction.
            v = basis @ (basis.T @ torch.randn(len(basis), generator=g, dtype=x.dtype))
            v = (length * v / v.norm()).view_as(x[0])
            moved = [net(x + s * v).argmax(1) != told for s in (1, -1)]
            either.append(float((moved[0] | moved[1]).double().mean()))
            inside = net((x + v).clamp(0, 1)).argmax(1) != told
            boxed.append(float(inside.double().mean()))
        found[f"law {length:g}"] = float(law.mean())
        found[f"hit {length:g}"] = sum(either) / DRAWS
        found[f"boxed {length:g}"] = sum(boxed) / DRAWS
    return found


def spaces(net: MLP) -> dict[str, Tensor]:
    """Return bases of where blind directions are drawn.

    Args:
        net: the network.

    Returns:
        What the first layer sees, all pixels, and, where the layer sees more than
        that many, its sixteen strongest directions; each ``(m, r)``.
    """
    rows = row_space(net)
    found = {"rows": rows, "whole": torch.eye(len(rows), dtype=rows.dtype)}
    if rows.shape[1] > STRONG:
        found["strong"] = right_directions(net.weights[0], STRONG)
    return found


def searched(net: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    """Learn one perturbation; say what it fools, and where the fooled go.

    Args:
        net: the network.
        x: ``(N, ...)`` images: half to learn from, half to judge.
        y: ``(N,)`` labels.

    Returns:
        Fooling rate of the best run, of the worst and of the best of its ends, the
        share of the fooled that get the label which most of them get, and the share
        of the images with that label which keep it.
    """
    found = attacks.universal(net, x, y, eps=EPS, norm="linf")
    with torch.no_grad():
        told = net(x).argmax(1)
        after = net((x + found.delta).clamp(0, 1)).argmax(1)
    counts = after[after != told].bincount(minlength=10)
    top = int(counts.argmax())
    return {
        "universal": found.fooling_rate,
        "worst run": min(found.rates),
        "best run": max(found.rates),
        "to one label": float(counts[top] / counts.sum().clamp_min(1)),
        "that label kept": float((after == told)[told == top].double().mean()),
    }


def judge(
    net: MLP, x: Tensor, y: Tensor, *, attacked: int, blindly: bool, seed: int
) -> dict[str, float]:
    """Measure accuracy, distance, and what one perturbation does to all.

    Args:
        net: the trained network.
        x: ``(N, ...)`` test images in [0, 1].
        y: ``(N,)`` labels.
        attacked: how many of them, the first, are attacked one by one.
        blindly: whether directions are drawn at random, too.
        seed: of the random directions.
    """
    few, labels = x[:attacked], y[:attacked]
    with torch.no_grad():
        told = net(few).argmax(1)
        near = nearest(net, few, told, ("l2",), steps=50)["l2"]
        chance = {
            f"{space} {what}": value
            for space, basis in (spaces(net) if blindly else {}).items()
            for what, value in blind(net, few, near, basis, seed=seed).items()
        }
    pgd = attacks.pgd(net, few, labels, eps=0.03, norm="linf")
    return {
        "accuracy": metrics.accuracy(net, x, y),
        "l2": float(near.distance[told == labels].median()),
        "robust linf": pgd.robust_accuracy,
        **searched(net, x, y),
        **chance,
    }


def _run(configs: list[Config], device: str) -> list[Numbers]:
    first = configs[0]
    images = SETS[first["data"]]().to(device)
    net, options = build(first["way"], first["strength"], first["seed"], images)
    fitted = train.fit(
        net.to(device),
        images,
        epochs=first["epochs"],
        checkpoint="last",
        match=networks.MATCH,
        seed=first["seed"],
        progress=False,
        **options,
    )
    x, y = (part[: first["judged"]] for part in (images.x_test, images.y_test))
    return at_checkpoints(
        fitted,
        configs,
        lambda at: judge(
            at.model,
            x,
            y,
            attacked=first["attacked"],
            # Of scale, and of an early stop, only the search is asked.
            blindly=first["way"] != "scale" and at.epoch == first["epochs"],
            seed=first["seed"],
        ),
    )


def _grid(seeds: int, **more: Any) -> list[Config]:
    return [
        {"way": way, "strength": s, "seed": seed, "checkpoint": rule, **more}
        for way, s in SETTINGS
        for seed in range(seeds)
        for rule in CHECKPOINTS
    ]


STUDY = judged_trainings(
    "universal",
    _run,
    {
        "quick": _grid(5, data="sample", epochs=12, judged=1000, attacked=200),
        "full": _grid(
            10, data="Fashion-MNIST", epochs=12, judged=10_000, attacked=1000
        ),
    },
    lambda config: SETS[config["data"]]().fingerprint,
)
