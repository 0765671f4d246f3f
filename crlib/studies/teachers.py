"""Students of a teacher: tasks whose right answer is known, in float64.

Five experiments share one table. Each turns one thing: the directions that a network
sees, its rank, a penalty on its rows, its width, or a dial at fixed scale.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crlib import attacks, certify, compress, metrics, theory, train
from crlib.data import Dataset, linear_teacher
from crlib.models import MLP, LowRankLinear, Normalize, weight_layers
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import at_checkpoints, judged_trainings

__all__ = ["STUDY", "Job", "build", "judge"]

DIM = 128  # of the inputs, but for the experiment on ranks
INPUTS, CLASSES = 60, 6  # of that one
KEPT = 16  # directions that a network sees in the first experiment
BUDGET = 0.03  # l2, input units
EARLY = 30

# What is asked of each training. Low rank learns slowly; a fit comes before structure.
CHECKPOINTS = {
    "directions": ("last",),
    "ranks": (f"epoch {EARLY}", "last"),
    "rows": ("matched", "last"),
    "widths": ("last",),
    "dials": ("last",),
}


class Job(NamedTuple):
    """A network to train, its data, how, and the part of the data that judges it."""

    net: nn.Module
    data: Dataset
    options: dict[str, Any]
    part: str


def build(config: Config) -> Job:
    """Return what a configuration trains.

    Args:
        config: ``experiment``, ``task``, ``way``, ``strength``, ``points`` and
            ``seed``, as in the grid of the study.

    Raises:
        ValueError: an unknown experiment, task or way.
    """
    experiments = {
        "directions": _directions,
        "ranks": _ranks,
        "rows": _rows,
        "widths": _rows,
        "dials": _dials,
    }
    make = experiments.get(config["experiment"])
    if make is None:
        raise ValueError(
            f"experiment is {config['experiment']!r}: choose one of"
            f" {', '.join(experiments)}."
        )
    net, data, options, part = make(config)
    usual = {"lr": 2e-3, "weight_decay": 0.0, "validation": 0.0, "checkpoint": "last"}
    return Job(net, data, {**usual, "seed": config["seed"], **options}, part)


def judge(net: nn.Module, data: Dataset, *, part: str = "train") -> dict[str, float]:
    """Measure a student on the training or the test points.

    Args:
        net: the trained student.
        data: of the task.
        part: ``"train"`` or ``"test"``: the points whose distances count.

    Returns:
        Named numbers. ``l2`` is the median distance over all points, wrong ones as
        zero, ``l2 right`` over those labelled rightly, ``certificate`` the median
        Lipschitz radius. The row error keeps a tenth of the first layer's rows.
    """
    x, y = data.x_train, data.y_train
    if part == "test":
        x, y = data.x_test, data.y_test
    r = distances(net, x, y)
    rows = metrics.row_norms(weight_layers(net)[0].weight.detach())
    return {
        "train accuracy": metrics.accuracy(net, data.x_train, data.y_train),
        "accuracy": metrics.accuracy(net, data.x_test, data.y_test),
        "l2": float(r.median()),
        "l2 right": float(r[r > 0].median()),
        "robust l2": float((r > BUDGET).double().mean()),
        "certificate": float(certify.lipschitz_radius(net, x, y).median()),
        "row error": metrics.best_k_error(rows, max(1, len(rows) // 10)),
    }


def distances(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return l2 distances ``(N,)`` to the boundary, zero where the label is wrong.

    Exact for a linear student; for others the smaller answer of two attacks.
    """
    if isinstance(net, nn.Sequential):
        normalize: Any
        layer: Any
        normalize, layer = net
        w = layer.weight.detach() / normalize.std
        b = layer.bias.detach() - normalize.mean * w.sum(1)
        return theory.linear_minimal(w, b, x, y, norm="l2")[0]
    # Enough halvings that a candidate on the boundary itself, fooled or not by a
    # rounding, does not matter. The first step of FMN is a standard deviation long.
    walk = attacks.deepfool(net, x, y, steps=10, search_steps=30)
    follow = attacks.fmn(net, x, y, steps=20, step_size=0.1, walk=0, search_steps=30)
    return attacks.minimum_of(walk, follow).distance.double()


def _directions(config: Config) -> Job:
    """Points with a gap, seen through directions that keep a part of the teacher."""
    seed, chi = config["seed"], config["strength"]
    g = torch.Generator().manual_seed(50 + seed)
    star = torch.randn(DIM, generator=g, dtype=torch.float64)
    star /= star.norm()
    far = linear_teacher(
        config["points"], 500, DIM, teacher=star, scale=0.05, gap=0.3, seed=seed
    ).double()
    frame = torch.randn(DIM, KEPT, generator=g, dtype=torch.float64)
    frame -= torch.outer(star, star @ frame)
    other = torch.randn(DIM, generator=g, dtype=torch.float64)
    other -= (other @ star) * star
    frame[:, 0] = chi * star + (1 - chi**2) ** 0.5 * other / other.norm()
    basis = torch.linalg.qr(frame).Q
    seen = replace(
        far,
        x_train=0.5 + (far.x_train - 0.5) @ basis,
        x_test=0.5 + (far.x_test - 0.5) @ basis,
    )
    return Job(
        _mlp((KEPT, 64, 2), seed), seen, {"epochs": 20, "batch_size": 100}, "test"
    )


def _ranks(config: Config) -> Job:
    """Six classes from a teacher of low rank, for students of limited rank."""
    seed, rank, limit = config["seed"], int(config["task"][5:]), config["strength"]
    g = torch.Generator().manual_seed(100 + seed)
    left = torch.randn(CLASSES, rank, generator=g, dtype=torch.float64)
    right = torch.randn(rank, INPUTS, generator=g, dtype=torch.float64)
    drawn = linear_teacher(config["points"], 500, INPUTS, seed=seed).double()
    lesson = replace(
        drawn,
        y_train=((drawn.x_train - 0.5) @ (left @ right).T).argmax(1),
        y_test=((drawn.x_test - 0.5) @ (left @ right).T).argmax(1),
    )
    net: nn.Module
    if config["way"] == "linear":
        layer = LowRankLinear(INPUTS, CLASSES, limit, bias=True, seed=seed)
        net = nn.Sequential(Normalize(0.5, 0.1), layer)
    else:
        # The rank of six classes is six at most: there it is no limit.
        own = None if limit == CLASSES else limit
        net = _mlp((INPUTS, 128, CLASSES), seed, own)
    options = {
        "epochs": 80,
        "lr": 1e-2 if config["way"] == "linear" else 3e-3,
        "batch_size": 250,
        "keep": (EARLY,),
    }
    return Job(net, lesson, options, "test")


def _rows(config: Config) -> Job:
    """Few strong rows by a penalty, or few rows at all."""
    way, strength, seed = config["way"], config["strength"], config["seed"]
    penalties = {
        "plain": None,
        "width": None,
        "rows": compress.group_lasso(strength, scale_invariant=True),
        "plain lasso": compress.group_lasso(strength),
        "squared norm": compress.squared_frobenius(strength),
    }
    if way not in penalties:
        raise ValueError(f"way is {way!r}: choose one of {', '.join(penalties)}.")
    width = strength if way == "width" else 256
    options = {
        "epochs": 300,
        "batch_size": config["points"],
        "penalty": penalties[way],
        "match": 1.0,
    }
    net = _mlp((DIM, width, 2), seed)
    return Job(net, _labelled(config["task"], config["points"], seed), options, "train")


def _dials(config: Config) -> Job:
    """Spectrum or rows of the first layer set by hand, at one Frobenius norm."""
    dials = {"spectrum": compress.spectral_dial, "rows": compress.row_dial}
    if config["way"] not in dials:
        raise ValueError(f"way is {config['way']!r}: choose one of {', '.join(dials)}.")
    options = {
        "epochs": 200,
        "batch_size": config["points"],
        "constraint": dials[config["way"]](config["strength"], frobenius=8.0),
    }
    seed = config["seed"]
    points = _labelled(config["task"], config["points"], seed)
    return Job(_mlp((DIM, 128, 2), seed), points, options, "train")


def _labelled(task: str, points: int, seed: int) -> Dataset:
    """Isotropic points with the labels of a teacher, or of a coin."""
    if task not in ("teacher", "coin"):
        raise ValueError(f"task is {task!r}: choose 'teacher' or 'coin'.")
    drawn = linear_teacher(points, 1000, DIM, seed=seed).double()
    if task == "teacher":
        return drawn
    g = torch.Generator().manual_seed(seed)
    return replace(drawn, y_train=torch.randperm(points, generator=g) % 2)


def _mlp(sizes: tuple[int, ...], seed: int, rank: int | None = None) -> MLP:
    return MLP(sizes, rank=rank, bias=True, mean=0.5, std=0.1, seed=seed)


def _run(configs: list[Config], device: str) -> list[Numbers]:
    net, data, options, part = build(configs[0])
    data = data.to(device)
    fitted = train.fit(net.to(device), data, progress=False, **options)
    return at_checkpoints(fitted, configs, lambda at: judge(at.model, data, part=part))


def _grid(seeds: int) -> list[Config]:
    settings: dict[tuple[str, str, str, int], tuple[float, ...]] = {
        ("directions", "gap", "kept", 1000): (1.0, 0.8, 0.6, 0.4),
        ("ranks", "rank 2", "linear", 1000): (2, 3, 4, 6),
        ("ranks", "rank 6", "linear", 1000): (2, 3, 4, 6),
        ("ranks", "rank 2", "ReLU", 1000): (2, 3, 4, 6),
        ("ranks", "rank 6", "ReLU", 1000): (2, 3, 4, 6),
        ("ranks", "rank 2", "ReLU", 4000): (4, 6),
        ("rows", "coin", "plain", 256): (0,),
        ("rows", "coin", "rows", 256): (0.01, 0.03, 0.1),
        ("rows", "coin", "plain lasso", 256): (1e-3,),
        ("rows", "coin", "squared norm", 256): (1e-3,),
        ("rows", "teacher", "plain", 256): (0,),
        ("rows", "teacher", "rows", 256): (0.03,),
        ("widths", "coin", "width", 256): (8, 32, 128, 256, 512),
        ("dials", "teacher", "spectrum", 256): (0.0, 0.5, 1.0),
        ("dials", "teacher", "rows", 256): (0.0, 0.5, 1.0),
    }
    return [
        {
            "experiment": experiment,
            "task": task,
            "way": way,
            "strength": strength,
            "points": points,
            "seed": seed,
            "checkpoint": rule,
            "data": "generated",
        }
        for (experiment, task, way, points), strengths in settings.items()
        for strength in strengths
        for seed in range(seeds)
        for rule in CHECKPOINTS[experiment]
    ]


STUDY = judged_trainings(
    "teachers",
    _run,
    {"quick": _grid(5), "full": _grid(10)},
    # A seed makes the data: the first task stands for what generates them.
    lambda config: linear_teacher(256, 1000, DIM, seed=0).fingerprint,
)
