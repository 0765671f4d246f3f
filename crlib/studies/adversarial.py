"""Adversarial training of networks that were made compressible, in float64.

Two experiments share one table. What compressibility costs under standard and under
adversarial training, and whether the repair of its directions holds. And what a long
adversarial training on few images does along the way, by epoch and by stopping rule.
"""

import functools
from typing import Any

from crlib import attacks, checks, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import networks
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    at_checkpoints,
    differences,
    halved,
    judged_trainings,
    surviving,
)

__all__ = ["BUDGETS", "EPS", "STOPS", "STUDY", "UNIVERSAL", "build", "judge"]

TRAININGS = ("standard", "linf", "l2")
WAYS = (
    "plain",
    "rank",
    "rank, principal",
    "rank, orthonormal",
    "rank, both",
    "width",
    "rows, scale-invariant",
)
WIDTH = 128
EPS = {"linf": 0.05, "l2": 1.0}  # of training and of judging, input units
STEPS = 3  # of the inner attack
BUDGETS = (0.0125, 0.025, 0.0375, 0.05, 0.075, 0.1, 0.15, 0.2)  # linf
UNIVERSAL = 20 / 255
STOPS = (5, 10, 20, 40)  # epochs of the long training
RULES = (*(f"epoch {stop}" for stop in STOPS), "last", "validation", "robust")
# Halvings enough that a rounding beside the boundary does not matter.
FINE = 30


def build(config: Config) -> tuple[MLP, Dataset, dict[str, Any]]:
    """Return a network, its data in float64, and the options of the training.

    Args:
        config: ``experiment``, ``train``, ``way``, ``strength``, ``images``,
            ``epochs``, ``seed`` and ``data``, as in the grid of the study.

    Raises:
        ValueError: an unknown experiment, training or way.
    """
    checks.one_of("train", config["train"], TRAININGS)
    checks.one_of("experiment", config["experiment"], ("damage", "overfitting"))
    images = _part(config["data"], config["images"])
    checks.one_of("way", config["way"], WAYS)
    net, options = networks.build(
        config["way"],
        config["strength"],
        config["seed"],
        images,
        width=WIDTH,
        mean=0.29,
        std=0.35,
    )
    options |= {"epochs": config["epochs"], "seed": config["seed"], "lr": 2e-3}
    norm = config["train"]
    if norm != "standard":
        options["adversary"] = train.pgd_adversary(
            eps=EPS[norm], norm=norm, steps=STEPS
        )
    if config["experiment"] == "damage":
        return net, images, options | {"schedule": "cosine", "checkpoint": "last"}
    long = {"validation": 0.2, "keep": STOPS, "checkpoint": "robust"}
    return net, images, options | long


@functools.cache
def _part(name: str, count: int) -> Dataset:
    return halved(SETS[name]().subset(count, 1000))


def judge(
    net: Any, images: Dataset, norms: tuple[str, ...], *, attacked: int = 200
) -> dict[str, float]:
    """Measure accuracy, robust accuracy, distances, one perturbation, the row space.

    Args:
        net: the trained network.
        images: whose test part judges.
        norms: of the attacks.
        attacked: how many test images, the first, the cascade attacks; half of them
            get distances.

    Returns:
        Named numbers. ``right`` is the clean accuracy on the attacked images,
        ``robust ...`` what the quick cascade leaves of it at ``EPS``, ``ratio ...``
        the quotient. ``distance ...`` is a median over images labelled right by FMN,
        ``beyond ...`` the share of images whose linf distance exceeds a budget.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    few, labels = x[: attacked // 2], y[: attacked // 2]
    found = {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "right": metrics.accuracy(net, x, y),
        "chi": surviving(net, differences(images.x_test, images.y_test)),
    }
    for norm in norms:
        hit = attacks.worst_case(net, x, y, eps=EPS[norm], norm=norm, budget="quick")
        found[f"robust {norm}"] = hit.robust_accuracy
        found[f"ratio {norm}"] = hit.robust_accuracy / found["right"]
        far = attacks.fmn(
            net, few, labels, norm=norm, steps=20, search_steps=FINE
        ).distance
        found[f"distance {norm}"] = float(far[far > 0].median())
        if norm == "linf":
            for eps in BUDGETS:
                found[f"beyond {eps}"] = float((far > eps).double().mean())
    many, goals = images.x_test[: 2 * attacked], images.y_test[: 2 * attacked]
    found["universal"] = attacks.universal(
        net, many, goals, eps=UNIVERSAL, norm="linf", epochs=3
    ).fooling_rate
    return found


def _watch(at: train.Fit, images: Dataset, attacked: int) -> dict[str, float]:
    """Measure one epoch of a long training: losses held out, and robust accuracy."""
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    hit = attacks.worst_case(at.model, x, y, eps=EPS["linf"], budget="quick")
    epoch = at.history[at.epoch - 1]
    return {
        "accuracy": metrics.accuracy(at.model, images.x_test, images.y_test),
        "right": metrics.accuracy(at.model, x, y),
        "robust linf": hit.robust_accuracy,
        "held loss": epoch.validation_loss,
        "held robust loss": epoch.robust_loss,
    }


def _run(configs: list[Config], device: str) -> list[Numbers]:
    first = configs[0]
    net, images, options = build(first)
    images = images.to(device)
    fitted = train.fit(net.to(device), images, progress=False, **options)
    attacked = first["attacked"]
    if first["experiment"] == "overfitting":
        return at_checkpoints(fitted, configs, lambda at: _watch(at, images, attacked))
    norms = ("linf", "l2") if first["train"] == "l2" else ("linf",)
    return at_checkpoints(
        fitted, configs, lambda at: judge(at.model, images, norms, attacked=attacked)
    )


def _grid(seeds: int, **more: Any) -> list[Config]:
    plain, rank, both = ("plain", 0), ("rank", 16), ("rank, both", 16)
    four = (plain, rank, both, ("rank, both", 64))
    parts = (("rank, principal", 16), ("rank, orthonormal", 16))
    controls = (("rows, scale-invariant", 0.1), ("width", 48))
    plan = (
        ("damage", "standard", 12, four, ("last",)),
        ("damage", "linf", 12, (*four, *parts), ("last",)),
        ("damage", "linf", 24, (plain, rank, both), ("last",)),
        ("overfitting", "linf", 60, (plain,), RULES),
        ("damage", "l2", 12, (plain, rank, both), ("last",)),
        ("damage", "linf", 12, controls, ("last",)),
    )
    return [
        {
            "experiment": experiment,
            "train": how,
            "way": way,
            "strength": strength,
            "epochs": epochs,
            "images": 600 if experiment == "overfitting" else 2000,
            "seed": seed,
            "checkpoint": rule,
            **more,
        }
        for experiment, how, epochs, ways, rules in plan
        for way, strength in ways
        for seed in range(seeds)
        for rule in rules
    ]


STUDY = judged_trainings(
    "adversarial",
    _run,
    {
        "quick": _grid(5, data="sample", attacked=200),
        "full": _grid(10, data="Fashion-MNIST", attacked=1000),
    },
    lambda config: SETS[config["data"]]().fingerprint,
)
