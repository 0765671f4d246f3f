"""More of a second task: what a cascade leaves, cuts at the end, and photographs.

It goes on where :mod:`crlib.studies.transfer` ends, with its splits, in three
experiments. ``cascade`` trains the networks again that its chapter compares, and the
quick cascade attacks them at the reported budgets. ``cut`` puts a low rank into a plain
encoder, before or after the new task is learnt. ``photographs`` takes small photographs
in the place of garments, and convolutions too. All of it in float64.
"""

import functools
from typing import Any

import torch
from torch import nn

from crlib import attacks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import repair, transfer
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, cascaded, differences, photographs, surviving

__all__ = ["CUT", "EPS", "STUDY", "distances", "judge", "pretrained", "run"]

# A plain encoder, cut to the rank that is the strength.
CUT = ("before the head", "after the head")
ATTACKED = 200
# At half the side a change of each square of four pixels has half the length in l2:
# 0.25 is there what 0.5 is at full size.
EPS = {
    "sample": {"l2": 0.5, "linf": 8 / 255},
    "CIFAR-10": {"l2": 0.25, "linf": 8 / 255},
}
PHOTOS, PHOTO_EPOCHS = 4000, 12


def pretrained(config: Config, source: Dataset) -> train.Fit:
    """Train an encoder with a head on the first task.

    Args:
        config: ``experiment``, ``network``, ``way``, ``strength``, ``epochs`` and
            ``seed``, as in the grid of the study.
        source: the first task.
    """
    seed, way, strength = (config[name] for name in ("seed", "way", "strength"))
    if config["experiment"] != "photographs":
        way, strength = ("plain", 0) if way in CUT else (way, strength)
        return transfer.pretrained(way, strength, seed, source, epochs=config["epochs"])
    sparse = way == "rows, scale-invariant"
    net, options = repair.build(config | ({"way": "plain"} if sparse else {}), source)
    if sparse:
        options["penalty"] = compress.group_lasso(strength, scale_invariant=True)
    fitted = train.fit(
        train.new_head(net, source.classes, seed=seed),
        source,
        epochs=max(1, config["epochs"]),
        lr=2e-3,
        batch_size=64,
        schedule="cosine",
        keep=(0,),
        checkpoint="last",
        seed=seed,
        progress=False,
        **options,
    )
    return fitted if config["epochs"] else fitted.at("epoch 0")


def judge(net: nn.Module, images: Dataset) -> dict[str, float]:
    """Measure a network on the test part of a task.

    Args:
        net: the trained network.
        images: the task, in the precision of the network; its first test images are
            attacked, at the budgets of ``EPS``: grey ones are garments.

    Returns:
        ``accuracy``; ``cascade ...``, what the quick cascade leaves of all attacked, at
        the budget of each norm.
    """
    x, y = (part[:ATTACKED] for part in (images.x_test, images.y_test))
    found = {"accuracy": metrics.accuracy(net, images.x_test, images.y_test)}
    left = cascaded(net, x, y, EPS["sample" if x.shape[1] == 1 else "CIFAR-10"])
    return found | {f"cascade {norm}": share for norm, share in left.items()}


def distances(
    net: nn.Module, images: Dataset, norms: tuple[str, ...]
) -> dict[str, float]:
    """Measure how far a network is from another answer, and what it can see.

    Args:
        net: the trained network.
        images: as in :func:`judge`; the same are attacked.
        norms: of the distances.

    Returns:
        For each norm the median distance over the images labelled right, by FMN;
        ``chi`` of a fully connected network, the surviving fraction.
    """
    x, y = (part[:ATTACKED] for part in (images.x_test, images.y_test))
    near = {
        norm: attacks.fmn(net, x, y, norm=norm, steps=30, search_steps=transfer.FINE)
        for norm in norms
    }
    # What is labelled wrong has no way to go.
    found = {n: float(d.distance[d.distance > 0].median()) for n, d in near.items()}
    if isinstance(net, MLP):
        found["chi"] = surviving(net, differences(images.x_test, images.y_test))
    return found


def run(config: Config, images: Dataset) -> dict[str, float]:
    """Train on five classes, learn the other five in two ways, and judge each."""
    seed, way = config["seed"], config["way"]
    source, target = (images.of_classes(part) for part in transfer.split(seed))
    fitted = pretrained(config, source)
    cut = functools.partial(compress.factorise, rank=max(1, int(config["strength"])))
    old = cut(fitted.model) if way == CUT[0] else fitted.model
    measured = config["experiment"] != "cascade"
    found: dict[str, float] = {}
    if measured:
        hits = metrics.accuracy(old, source.x_test, source.y_test)
        numbers = {"accuracy": hits} | distances(old, source, ("l2",))
        found = _named("source", numbers)
    for name, learn, norms in (
        ("target", transfer.frozen, ("l2", "linf")),
        ("tuned", transfer.tuned, ("l2",)),
    ):
        new = learn(old, target, seed).model
        new = cut(new) if way == CUT[1] else new
        numbers = judge(new, target)
        if measured:
            numbers |= distances(new, target, norms)
        found |= _named(name, numbers)
    return found


def _named(name: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{name} {key}": value for key, value in numbers.items()}


def _images(name: str) -> Dataset:
    return SETS[name]() if name in SETS else photographs(PHOTOS)


def _run(config: Config, device: str) -> Numbers:
    return run(config, _images(config["data"]).to(torch.device(device)))


_GARMENTS: tuple[tuple[str, str, float], ...] = (
    ("cascade", "plain", 0),
    ("cascade", "rank", 16),
    ("cascade", "rank, both", 16),
    ("cascade", "rank", 64),
    *(("cut", way, 16) for way in CUT),
)
_PHOTOGRAPHS: tuple[tuple[str, str, float, int], ...] = tuple(
    (network, *one)
    for network in ("ConvNet", "MLP")
    for one in (
        ("plain", 0, PHOTO_EPOCHS),
        ("rank", repair.RANKS[network], PHOTO_EPOCHS),
        ("rank, both", repair.RANKS[network], PHOTO_EPOCHS),
        ("rows, scale-invariant", 0.1, PHOTO_EPOCHS),
        ("Frobenius", 0.003, PHOTO_EPOCHS),
        ("plain", 0, 0),
    )
)


def _grid(seeds: int) -> list[dict[str, Any]]:
    settings = [
        (experiment, "sample", "MLP", way, k, transfer.EPOCHS)
        for experiment, way, k in _GARMENTS
    ] + [("photographs", "CIFAR-10", *one) for one in _PHOTOGRAPHS]
    names = ("experiment", "data", "network", "way", "strength", "epochs")
    return [
        {**dict(zip(names, setting, strict=True)), "seed": seed}
        for setting in settings
        for seed in range(seeds)
    ]


STUDY = Study(
    name="reuse",
    run=_run,
    grids={"quick": _grid(5), "full": _grid(10)},
    fingerprint=lambda config: _images(config["data"]).fingerprint,
)
