"""Adversarial training of networks that were made compressible, in float64.

Five experiments share one table. What compressibility costs under standard and under
adversarial training, and whether the repair of its directions holds. The same at other
budgets of training. The same at the epoch that a robust stopping rule chooses. The same
on small photographs, fully connected and with convolutions: there networks and schedule
are those of :mod:`crlib.studies.repair`, and the adversary is new. And what a long
adversarial training on few images does along the way, by epoch and by stopping rule.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from crlib import attacks, checks, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import networks, repair
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    at_checkpoints,
    differences,
    judged_trainings,
    small,
    surviving,
)

__all__ = [
    "BUDGETS",
    "EPS",
    "REPORTED",
    "STOPS",
    "STUDY",
    "UNIVERSAL",
    "build",
    "judge",
    "judge_photographs",
]

# Budgets: as damage, trained and judged at another budget, the ``eps`` of its grid.
# Stopped: as damage, but judged at the epoch of least loss on attacked held-out images.
EXPERIMENTS = ("damage", "budgets", "stopped", "photographs", "overfitting")
TRAININGS = ("standard", "linf", "l2", "TRADES")
WAYS = (
    "plain",
    "rank",
    "rank, principal",
    "rank, orthonormal",
    "rank, both",
    "width",
    "rows, scale-invariant",
    "Frobenius",
    "spectral dial",
)
WIDTH = 128
EPS = {"linf": 0.05, "l2": 1.0}  # of training and of judging, input units
REPORTED = {"linf": 8 / 255, "l2": 0.5}  # the same on photographs
STEPS = 3  # of the inner attack
BETA = 6.0  # of TRADES, whose inner attack is one in linf
OTHER = (0.025, 0.1)  # other budgets of training, linf
BUDGETS = (0.0125, 0.025, 0.0375, 0.05, 0.075, 0.1, 0.15, 0.2)  # linf
UNIVERSAL = 20 / 255
STOPS = (5, 10, 20, 40)  # epochs of the long training
RULES = (*(f"epoch {stop}" for stop in STOPS), "last", "validation", "robust")
# Halvings enough that a rounding beside the boundary does not matter.
FINE = 30


def build(config: Config) -> tuple[Any, Dataset, dict[str, Any]]:
    """Return a network, its data in float64, and the options of the training.

    Args:
        config: ``experiment``, ``train``, ``way``, ``strength``, ``images``,
            ``epochs``, ``seed`` and ``data``, as in the grid of the study; for
            photographs ``network`` too, for budgets ``eps``.

    Raises:
        ValueError: an unknown experiment, training, way or network.
    """
    checks.one_of("train", config["train"], TRAININGS)
    checks.one_of("experiment", config["experiment"], EXPERIMENTS)
    images = small(config["data"], config["images"])
    checks.one_of("way", config["way"], WAYS)
    net: Any
    if config["experiment"] == "photographs":
        net, options = repair.build(config, images)
        options |= {"batch_size": 64}
    else:
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
    options |= _against(config["train"], _budgets(config))
    if config["experiment"] != "overfitting":
        return net, images, options | {"schedule": "cosine", "checkpoint": "last"}
    long = {"validation": 0.2, "keep": STOPS, "checkpoint": "robust"}
    return net, images, options | long


def _budgets(config: Config) -> dict[str, float]:
    """Return for each norm the budget of training and of judging."""
    if config["experiment"] == "photographs":
        return REPORTED
    return EPS | ({"linf": config["eps"]} if config["experiment"] == "budgets" else {})


def _against(how: str, budgets: dict[str, float]) -> dict[str, Any]:
    """Return the options of a training that name its adversary."""
    if how == "standard":
        return {}
    norm = "linf" if how == "TRADES" else how
    eps = budgets[norm]
    if how == "TRADES":
        soft = train.pgd_adversary(eps=eps, steps=STEPS, against="prediction")
        return {"adversary": soft, "trades": BETA}
    return {"adversary": train.pgd_adversary(eps=eps, norm=norm, steps=STEPS)}


def _fingerprint(config: Config) -> str:
    if config["data"] in SETS:
        return SETS[config["data"]]().fingerprint
    return small(config["data"], config["images"]).fingerprint


def judge(
    net: Any,
    images: Dataset,
    norms: tuple[str, ...],
    *,
    attacked: int = 200,
    budgets: dict[str, float] = EPS,
) -> dict[str, float]:
    """Measure accuracy, robust accuracy, distances, one perturbation, the row space.

    Args:
        net: the trained network.
        images: whose test part judges.
        norms: of the attacks.
        attacked: how many test images, the first, the cascade attacks; half of them
            get distances.
        budgets: of the cascade, for each norm.

    Returns:
        Named numbers. ``right`` is the clean accuracy on the attacked images,
        ``robust ...`` what the quick cascade leaves of it, ``ratio ...`` the quotient.
        ``distance ...`` is a median over images labelled right by FMN, ``beyond ...``
        the share of images whose linf distance exceeds a budget.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    few, labels = x[: attacked // 2], y[: attacked // 2]
    found = {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "right": metrics.accuracy(net, x, y),
        "chi": surviving(net, differences(images.x_test, images.y_test)),
    }
    for norm in norms:
        found |= _robust(net, x, y, norm, budgets[norm], found["right"])
        far = _distances(net, few, labels, norm)
        found[f"distance {norm}"] = float(far[far > 0].median())
        if norm == "linf":
            for eps in BUDGETS:
                found[f"beyond {eps}"] = float((far > eps).double().mean())
    many, goals = images.x_test[: 2 * attacked], images.y_test[: 2 * attacked]
    found["universal"] = attacks.universal(
        net, many, goals, eps=UNIVERSAL, norm="linf", epochs=3
    ).fooling_rate
    return found


def judge_photographs(
    net: Any, images: Dataset, *, attacked: int = 200
) -> dict[str, float]:
    """Measure accuracy, robust accuracies at reported budgets, and distances.

    Args:
        net: the trained network.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked: by the quick cascade
            at ``REPORTED``, and by FMN.

    Returns:
        Named numbers, as in :func:`judge`; ``chi`` of a fully connected network only.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    found = {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "right": metrics.accuracy(net, x, y),
    }
    if isinstance(net, MLP):
        found["chi"] = surviving(net, differences(images.x_test, images.y_test))
    for norm, eps in REPORTED.items():
        found |= _robust(net, x, y, norm, eps, found["right"])
        far = _distances(net, x, y, norm)
        found[f"distance {norm}"] = float(far[far > 0].median())
    return found


def _robust(
    net: Any, x: Tensor, y: Tensor, norm: str, eps: float, right: float
) -> dict[str, float]:
    hit = attacks.worst_case(net, x, y, eps=eps, norm=norm, budget="quick")
    kept = hit.robust_accuracy
    return {f"robust {norm}": kept, f"ratio {norm}": kept / right}


def _distances(net: Any, x: Tensor, y: Tensor, norm: str) -> Tensor:
    found = attacks.fmn(net, x, y, norm=norm, steps=20, search_steps=FINE)
    return found.distance


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


def _judging(config: Config, images: Dataset) -> Callable[[train.Fit], Numbers]:
    """Return how a training of this experiment is judged, each epoch once."""
    attacked = config["attacked"]
    norms = ("linf", "l2") if config["train"] == "l2" else ("linf",)
    known: dict[int, Numbers] = {}

    def judged(at: train.Fit) -> Numbers:
        if config["experiment"] == "overfitting":
            return _watch(at, images, attacked)
        if config["experiment"] == "photographs":
            return judge_photographs(at.model, images, attacked=attacked)
        budgets = _budgets(config)
        return judge(at.model, images, norms, attacked=attacked, budgets=budgets)

    def once(at: train.Fit) -> Numbers:
        if at.epoch not in known:
            known[at.epoch] = judged(at)
        return known[at.epoch]

    return once


def _run(configs: list[Config], device: str) -> list[Numbers]:
    net, images, options = build(configs[0])
    images = images.to(device)
    if any(config["checkpoint"] == "robust" for config in configs):
        # The training stays the same; held-out images are attacked along the way.
        options["checkpoint"] = "robust"
    fitted = train.fit(net.to(device), images, progress=False, **options)
    return at_checkpoints(fitted, configs, _judging(configs[0], images))


def _grid(
    seeds: int, photographs: Config, *, whole: bool = False, **more: Any
) -> list[Config]:
    plain, rank, both = ("plain", 0), ("rank", 16), ("rank, both", 16)
    three = (plain, rank, both)
    four = (*three, ("rank, both", 64))
    parts = (("rank, principal", 16), ("rank, orthonormal", 16))
    controls = (("rows, scale-invariant", 0.1), ("width", 48))
    eight = (("rank", 8), ("rank, both", 8))
    more_ways = (("spectral dial", 0), ("spectral dial", 1), ("Frobenius", 0.003))
    plan: list[Any] = [
        ("damage", "standard", 12, four, ("last",)),
        ("damage", "linf", 12, (*four, *parts), ("last",)),
        ("damage", "linf", 24, three, ("last",)),
        ("overfitting", "linf", 60, (plain,), RULES),
        ("damage", "l2", 12, three, ("last",)),
        ("damage", "linf", 12, controls, ("last",)),
        ("damage", "linf", 12, (*more_ways, *eight), ("last",)),
        ("damage", "standard", 12, (*more_ways, *eight), ("last",)),
        ("damage", "TRADES", 12, three, ("last",)),
    ]
    if whole:
        # What the quick grid has no time for.
        plan += [("stopped", "linf", 12, three, ("robust",))]
    grey = [
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
    others = [
        row | {"experiment": "budgets", "eps": eps}
        for eps in OTHER
        for row in grey
        if (row["experiment"], row["train"], row["epochs"]) == ("damage", "linf", 12)
        and (row["way"], row["strength"]) in three
    ]
    coloured = [
        {
            "experiment": "photographs",
            "network": network,
            "train": "linf",
            "way": way,
            "strength": 0 if way == "plain" else repair.RANKS[network],
            "seed": seed,
            "checkpoint": rule,
            "data": "CIFAR-10",
            "attacked": more["attacked"],
            **photographs,
        }
        for network in repair.RANKS
        for way in repair.WAYS
        for seed in range(seeds)
        for rule in ("last", "robust")
    ]
    return grey + others + coloured


STUDY = judged_trainings(
    "adversarial",
    _run,
    {
        # The trainings on photographs are those of the study of the repair.
        "quick": _grid(5, {"images": 4000, "epochs": 12}, data="sample", attacked=200),
        "full": _grid(
            10,
            {"images": 10_000, "epochs": 20},
            whole=True,
            data="Fashion-MNIST",
            attacked=1000,
        ),
    },
    _fingerprint,
)
