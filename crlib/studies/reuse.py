"""What the cascade leaves of networks that have learnt a second task.

It goes on where :mod:`crlib.studies.transfer` ends: the networks that its chapter
compares are trained again, on the same splits, and the quick cascade attacks them at
the reported budgets. All of it in float64.
"""

from typing import Any

from torch import nn

from crlib import metrics
from crlib.data import Dataset
from crlib.studies import transfer
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, cascaded

__all__ = ["EPS", "STUDY", "judge", "run"]

ATTACKED = 200
EPS = {"l2": 0.5, "linf": 8 / 255}


def judge(net: nn.Module, images: Dataset) -> dict[str, float]:
    """Measure a network on the test part of a task.

    Args:
        net: the trained network.
        images: the task, in the precision of the network; its first test images are
            attacked.

    Returns:
        ``accuracy``; ``cascade ...``, what the quick cascade leaves of all attacked, at
        the budget of each norm.
    """
    x, y = (part[:ATTACKED] for part in (images.x_test, images.y_test))
    found = {"accuracy": metrics.accuracy(net, images.x_test, images.y_test)}
    left = cascaded(net, x, y, EPS)
    return found | {f"cascade {norm}": share for norm, share in left.items()}


def run(config: Config, images: Dataset) -> Numbers:
    """Train on five classes, learn the other five in two ways, and judge each."""
    way, strength, seed = (config[name] for name in ("way", "strength", "seed"))
    source, target = (images.of_classes(part) for part in transfer.split(seed))
    old = transfer.pretrained(way, strength, seed, source, epochs=config["epochs"])
    return {
        f"{name} {key}": value
        for name, learn in (("target", transfer.frozen), ("tuned", transfer.tuned))
        for key, value in judge(learn(old.model, target, seed).model, target).items()
    }


def _grid(seeds: int) -> list[dict[str, Any]]:
    fixed = {"experiment": "cascade", "data": "sample", "network": "MLP"}
    return [
        {**fixed, "way": way, "strength": k, "epochs": transfer.EPOCHS, "seed": seed}
        for way, k in (
            ("plain", 0),
            ("rank", 16),
            ("rank, both", 16),
            ("rank", 64),
        )
        for seed in range(seeds)
    ]


STUDY = Study(
    name="reuse",
    run=lambda config, device: run(config, SETS[config["data"]]().to(device)),
    grids={"quick": _grid(5), "full": _grid(10)},
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
