"""What the first paper advises, in convolutions: evenness, alignment, cuts, a teacher.

Small convolutional networks on garments and on photographs: a row penalty with control
of the spread, the penalty on alignment, and pruning to an error beside a fixed share.
Networks of low rank, fully connected ones too, learn from a full network of the same
training (distillation, Hinton, Vinyals and Dean 2015). All of it in float64.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crlib import attacks, checks, compress, metrics, train
from crlib.compress.layers import matrices
from crlib.data import Dataset
from crlib.studies import interventions, repair
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    at_checkpoints,
    cascaded,
    judged_trainings,
    robustness,
    small,
)

__all__ = ["EPSILONS", "STUDY", "WAYS", "build", "fitted", "judge", "pruned", "toward"]

# The strengths are those of the study of interventions. Of eight filters a twentieth
# is less than one: a quarter of them count as the strongest.
SHARE = 0.25
ROWS = compress.group_lasso(interventions.ROWS, scale_invariant=True)
PENALTIES = {
    "rows": ROWS,
    "rows, beta": compress.total(ROWS, compress.top_spread(0.3, share=SHARE)),
    "alignment": compress.alignment(0.1),
}
WAYS = ("plain", "rank", *PENALTIES)
# The weights of the labels and of the teacher are one to nine.
TEMPERATURE, TEACHING = 4.0, 9.0
EPS = {"linf": 0.03, "l2": 0.5}
BUDGETS = {"linf": 8 / 255}  # as reported
EPSILONS = interventions.EPSILONS  # of pruning to an error
IMAGES = 4000


def toward(
    teacher: nn.Module, x: Tensor, *, seed: int = 0, batch_size: int = 64
) -> Callable[[Any], Tensor]:
    r"""Penalise the distance of outputs from a teacher's, on images drawn at each call.

    :math:`9\, T^2 \, \mathrm{KL}(\mathrm{softmax}(t/T) \,\|\, \mathrm{softmax}(f/T))`,
    a mean over the images, with logits t of the teacher and f of the network, T = 4:
    distillation at temperature T (Hinton, Vinyals and Dean 2015).

    Args:
        teacher: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(n, ...)`` images to draw from.
        seed: of the draws.
        batch_size: images a call.
    """
    generator = torch.Generator().manual_seed(seed)

    def penalty(model: Any) -> Tensor:
        batch = x[torch.randint(len(x), (batch_size,), generator=generator)]
        with torch.no_grad():
            goal = (teacher(batch) / TEMPERATURE).log_softmax(1)
        own = (model(batch) / TEMPERATURE).log_softmax(1)
        apart = nn.functional.kl_div(own, goal, log_target=True, reduction="batchmean")
        return TEACHING * TEMPERATURE**2 * apart

    return penalty


def build(config: Config, images: Dataset) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that go with it.

    Args:
        config: ``network``, ``way``, ``taught``, ``seed``, ``data`` and ``epochs``, as
            in the grid of the study.
        images: to train on. A teacher has learnt from the same ones, on the processor.

    Raises:
        ValueError: an unknown network or way.
    """
    way, seed = config["way"], config["seed"]
    checks.one_of("way", way, WAYS)
    as_repaired = way if way in repair.WAYS else "plain"
    net, _ = repair.build(config | {"way": as_repaired}, images)
    parts = [PENALTIES[way]] if way in PENALTIES else []
    if config["taught"]:
        x = images.x_train
        teacher = _teacher(config["data"], config["network"], seed, config["epochs"])
        parts.append(toward(teacher.to(x.device), x, seed=seed))
    return net, {"penalty": compress.total(*parts)} if parts else {}


def fitted(config: Config, images: Dataset) -> train.Fit:
    """Train one network of the study."""
    return repair.trained(*build(config, images), config, images)


@functools.cache
def _teacher(name: str, network: str, seed: int, epochs: int) -> Any:
    """Return the plain network of the same training, at its end."""
    own = {"data": name, "network": network, "seed": seed, "epochs": epochs}
    return fitted(own | {"way": "plain", "taught": False}, small(name, IMAGES)).model


def judge(net: Any, images: Dataset, *, attacked: int) -> dict[str, float]:
    """Measure accuracy, distances, and what the penalties are named after.

    Args:
        net: the trained network.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked.

    Returns:
        ``accuracy``; ``linf`` and ``l2``, median distances by FMN over the images
        labelled right; ``cascade``, what the quick cascade leaves of all attacked at
        ``8/255``; ``beta``: spread of the strongest quarter of the row norms;
        ``alignment`` of neighbours, as the penalty has it; both means.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    with torch.no_grad():
        right = net(x).argmax(1) == y
    near = {
        norm: attacks.fmn(net, x, y, norm=norm, steps=30, search_steps=repair.FINE)
        for norm in EPS
    }
    distances = robustness(near, right, EPS)
    rows = [metrics.row_norms(w) for w in matrices(net)]
    spreads = [metrics.spread(v, max(2, math.ceil(SHARE * len(v)))) for v in rows]
    handed = float(compress.alignment(1.0)(net).detach())
    return {
        **_right(net, images, attacked),
        **{norm: distances[norm] for norm in EPS},
        "beta": sum(spreads) / len(spreads),
        "alignment": handed / (len(rows) - 1),
    }


def _right(net: Any, images: Dataset, attacked: int) -> dict[str, float]:
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    left = cascaded(net, x, y, BUDGETS)
    hits = metrics.accuracy(net, images.x_test, images.y_test)
    return {"accuracy": hits, "cascade": left["linf"]}


def pruned(net: Any, images: Dataset, *, attacked: int) -> dict[str, float]:
    """Prune rows to an error, and about as many by the same share of each layer.

    Args:
        net: with full layers.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked.

    Returns:
        For each error of ``EPSILONS``: ``kept``, the share of all rows that is left to
        an error, and ``kept by share``; ``error ...`` and ``share ...``: accuracy and
        what the cascade leaves.
    """
    found: dict[str, float] = {}
    for eps in EPSILONS:
        cut = compress.prune_to_error(net, eps)
        found[f"kept {eps}"] = _kept(cut)
        alike = compress.prune(net, 1 - _kept(cut), structure="rows")
        found[f"kept by share {eps}"] = _kept(alike)
        for name, one in (("error", cut), ("share", alike)):
            for what, value in _right(one, images, attacked).items():
                found[f"{name} {what} {eps}"] = value
    return found


def _kept(net: Any) -> float:
    left = torch.cat([(w != 0).any(1) for w in matrices(net)])
    return float(left.double().mean())


def _run(configs: list[Config], device: str) -> list[Numbers]:
    one, images = configs[0], small(configs[0]["data"], IMAGES).to(device)

    def judged(at: train.Fit) -> Numbers:
        found = judge(at.model, images, attacked=one["attacked"])
        if one["network"] == "ConvNet" and one["way"] != "rank":
            found |= pruned(at.model, images, attacked=one["attacked"])
        return found

    return at_checkpoints(fitted(one, images), configs, judged)


def _grid(seeds: int, **more: Any) -> list[Config]:
    cases = [("ConvNet", way, False) for way in WAYS]
    cases += [("MLP", way, False) for way in ("plain", "rank")]
    cases += [(n, way, True) for n in repair.RANKS for way in ("plain", "rank")]
    return [
        {
            "data": name,
            "network": network,
            "way": way,
            "taught": taught,
            "seed": seed,
            "checkpoint": rule,
            **more,
        }
        for name in repair.EPS
        for network, way, taught in cases
        for seed in range(seeds)
        for rule in repair.CHECKPOINTS
    ]


STUDY = judged_trainings(
    "advice",
    _run,
    {
        "quick": _grid(5, epochs=12, attacked=100),
        "full": _grid(10, epochs=20, attacked=1000),
    },
    lambda config: small(config["data"], IMAGES).fingerprint,
)
