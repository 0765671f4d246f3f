"""The repair of low rank, where it could fail: other images, convolutions, other norms.

A full network, one of low rank from a random start, and one that starts in the
principal directions of what its layers see and is kept even. On garments and on small
photographs, fully connected and convolutional, against four norms and after rounding
to eight bits. Convolutions have each half of the repair alone as well, and fully
connected networks on photographs a group lasso and a penalty that only shrinks. All of
it in float64, so that a network trained again is its row.
"""

from typing import Any

import torch
from torch import nn

from crlib import attacks, checks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP, ConvNet
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    at_checkpoints,
    judged_trainings,
    robustness,
    small,
    start_principal,
)

__all__ = ["EPS", "STUDY", "WAYS", "build", "fitted", "judge", "trained"]

WAYS = ("plain", "rank", "rank, both")
HALVES = ("rank, principal", "rank, orthonormal")  # of the repair, in convolutions
PENALTIES = {  # as strong as in the study of networks
    "group lasso": compress.group_lasso(0.003),
    "Frobenius": compress.squared_frobenius(0.003),
}
RANKS = {"MLP": 16, "ConvNet": 4}
SEEN = 200  # images whose windows give principal directions
MATCH = {("sample", "MLP"): 0.83, ("sample", "ConvNet"): 0.8} | {
    ("CIFAR-10", network): 0.4 for network in RANKS
}
EPS = {
    "sample": {"linf": 0.03, "l2": 0.5, "l1": 4.0, "l0": 5.0},
    "CIFAR-10": {"linf": 0.01, "l2": 0.2, "l1": 2.0, "l0": 2.0},
}
CHECKPOINTS = ("matched", "last")
# Halvings enough that a rounding beside the boundary does not matter.
FINE = 30


def build(config: Config, images: Dataset) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that go with it.

    Args:
        config: ``network``, ``way`` and ``seed``, as in the grid of the study.
        images: a repaired network starts in their directions: the first layer of an
            MLP in those of the images, each low-rank convolution in those of the
            windows that it looks through.

    Raises:
        ValueError: an unknown network or way.
    """
    network, way = config["network"], config["way"]
    checks.one_of("network", network, tuple(RANKS))
    checks.one_of("way", way, (*WAYS, *HALVES, *PENALTIES))
    x = images.x_train
    options: dict[str, Any] = {
        "rank": RANKS[network] if way.startswith("rank") else None,
        "mean": float(x.mean()),
        "std": float(x.std()),
        "seed": config["seed"],
    }
    net: Any
    if network == "MLP":
        net = MLP((x[0].numel(), 128, 128, 128, 10), **options)
    else:
        channels, height, width = x.shape[1:]
        net = ConvNet((8, 16, 32), image=(channels, height, width), **options)
    if way in ("rank, principal", "rank, both"):
        if network == "MLP":
            compress.principal_start(net.layers[0].to(x.device), x)
        else:
            start_principal(net.to(x), x[:SEEN])
    if way in ("rank, orthonormal", "rank, both"):
        return net, {
            "constraint": compress.orthonormal_factors(),
            "constrain_every": 5,
        }
    return net, {"penalty": PENALTIES[way]} if way in PENALTIES else {}


def judge(
    net: Any, images: Dataset, eps: dict[str, float], *, attacked: int
) -> dict[str, float]:
    """Measure accuracy, and distances in four norms and after rounding.

    Args:
        net: the trained network.
        images: whose test part judges.
        eps: for each norm the budget of a robust accuracy, in input units.
        attacked: how many test images, the first, are attacked.

    Returns:
        ``accuracy``; for each norm the median distance over the images labelled right,
        by FMN, in l0 a mean by sigma-zero, and ``robust ...`` over all attacked.
        ``int8 ...``: accuracy and l2 distance after rounding each row to eight bits.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    with torch.no_grad():
        right = net(x).argmax(1) == y
    near = {
        norm: attacks.fmn(net, x, y, norm=norm, steps=30, search_steps=FINE)
        for norm in ("linf", "l2", "l1")
    }
    near["l0"] = attacks.sigma_zero(net, x, y, steps=60)
    found = {"accuracy": metrics.accuracy(net, images.x_test, images.y_test)}
    found |= robustness(near, right, eps)
    found["l0"] = float(near["l0"].distance[right].double().mean())
    small = compress.quantise(net, bits=8)
    far = attacks.fmn(small, x, y, norm="l2", steps=30, search_steps=FINE).distance
    found["int8 accuracy"] = metrics.accuracy(small, images.x_test, images.y_test)
    found["int8 l2"] = float(far[far > 0].median())
    return found


def trained(
    net: nn.Module, options: dict[str, Any], config: Config, images: Dataset
) -> train.Fit:
    """Train a network by the schedule of the study; both checkpoints are kept.

    Args:
        net: whose weights change.
        options: more of :func:`crlib.train.fit`.
        config: ``data``, ``network``, ``epochs`` and ``seed``.
        images: to train on.
    """
    return train.fit(
        net.to(images.x_train.device),
        images,
        epochs=config["epochs"],
        lr=2e-3,
        batch_size=64,
        schedule="cosine",
        checkpoint="last",
        match=MATCH[config["data"], config["network"]],
        seed=config["seed"],
        progress=False,
        **options,
    )


def fitted(config: Config, images: Dataset) -> train.Fit:
    """Train one network of the study."""
    return trained(*build(config, images), config, images)


def _run(configs: list[Config], device: str) -> list[Numbers]:
    one = configs[0]
    images = small(one["data"], one["images"]).to(device)
    eps, attacked = EPS[one["data"]], one["attacked"]
    return at_checkpoints(
        fitted(one, images),
        configs,
        lambda at: judge(at.model, images, eps, attacked=attacked),
    )


def _grid(seeds: int, **more: Any) -> list[Config]:
    cases = [(name, network, way) for name in EPS for network in RANKS for way in WAYS]
    cases += [("CIFAR-10", "MLP", way) for way in PENALTIES]
    cases += [(name, "ConvNet", way) for name in EPS for way in HALVES]
    return [
        {
            "data": name,
            "network": network,
            "way": way,
            "seed": seed,
            "checkpoint": rule,
            **more,
        }
        for name, network, way in cases
        for seed in range(seeds)
        for rule in CHECKPOINTS
    ]


STUDY = judged_trainings(
    "repair",
    _run,
    {
        "quick": _grid(5, images=4000, epochs=12, attacked=100),
        "full": _grid(10, images=10_000, epochs=20, attacked=1000),
    },
    lambda config: small(config["data"], config["images"]).fingerprint,
)
