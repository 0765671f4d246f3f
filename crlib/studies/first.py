"""Pairs of networks, full and of low rank, of nearly equal accuracy: chapter one.

A seed gives one pair. Both are trained alike in float64 and attacked on the same
images, so that a number can speak of the pair as well as of a network.
"""

from typing import Any

import torch
from torch import Tensor

from crlib import attacks, compress, data, metrics, train
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, right_directions

__all__ = ["STUDY", "judge", "trained"]

RANK = 16
NETWORKS = {"full": None, "rank 16": RANK}
# The last is the chosen epoch with its hidden matrices cut to rank 16.
CHECKPOINTS = ("validation", "last", "epoch 3", "truncated")
EPS = {"linf": 0.04, "l2": 1.0}
BUDGETS = {
    "linf": (0.01, 0.02, 0.04, 0.06, 0.1, 0.2),
    "l2": (0.25, 0.5, 1, 1.5, 2.5, 5),
}
COUNTS = (1, 2, 4, 7, 10, 16, 32, 64, 128, 256)


def trained(
    network: str, seed: int, images: data.Dataset, *, epochs: int = 8
) -> train.Fit:
    """Train one network of the pair, with the third epoch kept.

    Args:
        network: one of ``NETWORKS``.
        seed: of the initialisation, the batches and the images held out.
        images: to train on, in whose precision it happens.
        epochs: passes over the images, at least 3.
    """
    sizes = (784, 256, 256, 256, 10)
    net = MLP(sizes, rank=NETWORKS[network], mean=0.29, std=0.35, seed=seed)
    return train.fit(
        net,
        images,
        epochs=epochs,
        lr=2e-3,
        batch_size=64,
        schedule="cosine",
        keep=[3],
        seed=seed,
        progress=False,
    )


def judge(
    net: MLP, twin: MLP, x: Tensor, y: Tensor, *, attacked: int = 600
) -> dict[str, float]:
    """Measure accuracy, robustness, noise, and where the attack meets the first layer.

    Args:
        net: the network to judge.
        twin: the other one of its pair.
        x: ``(N, ...)`` test images in [0, 1].
        y: ``(N,)`` labels.
        attacked: how many of them, the first, are attacked.

    Returns:
        Named numbers. All are shares of the attacked images, but for ``accuracy``,
        which counts all N; energies and gains, means over perturbations; and
        ``fooled of both``, a share of the images that net and twin label right.
    """
    found: dict[str, float] = {"accuracy": metrics.accuracy(net, x, y)}
    x, y = x[:attacked], y[:attacked]
    right = net(x).argmax(1) == y
    found["accuracy of attacked"] = _share(right)
    by_norm = {
        norm: attacks.pgd(net, x, y, eps=eps, norm=norm) for norm, eps in EPS.items()
    }
    for norm, result in by_norm.items():
        found[f"robust {norm}"] = result.robust_accuracy
        found[f"noise {norm}"] = _under_noise(net, x, y, EPS[norm], norm, draws=20)
    fooled = by_norm["linf"].success
    found["hard robust linf"] = _share(~_fooled_hard(net, x, y))
    for i, part in enumerate(fooled.split(100), 1):
        found[f"robust linf, hundred {i}"] = _share(~part)
    both = right & (twin(x).argmax(1) == y)
    found["fooled of both"] = _share(fooled[both])
    found |= _curves(net, x, y)
    attack = (by_norm["l2"].x_adv - x)[right & by_norm["l2"].success]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    difference = (x[order] - x)[y[order] != y]
    return found | _first_layer(
        net.weights[0], {"attack": attack, "difference": difference}
    )


def _fooled_hard(net: MLP, x: Tensor, y: Tensor) -> Tensor:
    """Return which images 60 steps, three restarts and two losses fool, ``(N,)``."""
    fooled = torch.zeros_like(y, dtype=torch.bool)
    for loss in ("margin", "ce"):
        fooled |= attacks.pgd(
            net, x, y, eps=EPS["linf"], loss=loss, steps=60, restarts=3
        ).success
    return fooled


def _curves(net: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return robust accuracies over the budgets, of noise at every second one."""
    found = {}
    for norm, budgets in BUDGETS.items():
        curve = attacks.robustness_curve(net, x, y, eps=budgets, norm=norm, steps=10)
        for eps, robust in zip(budgets, curve.accuracy, strict=True):
            found[f"curve {norm} {eps:g}"] = float(robust)
        for eps in budgets[1::2]:
            found[f"noise curve {norm} {eps:g}"] = _under_noise(
                net, x, y, eps, norm, draws=5
            )
    return found


def _under_noise(
    net: MLP, x: Tensor, y: Tensor, eps: float, norm: str, *, draws: int
) -> float:
    return attacks.random_noise(
        net, x, y, eps=eps, norm=norm, draws=draws
    ).robust_accuracy


def _first_layer(weight: Tensor, changes: dict[str, Tensor]) -> dict[str, float]:
    """Return energies in the top directions of a layer, and gains over noise's.

    Args:
        weight: ``(h, m)``.
        changes: perturbations ``(N, ...)`` of m inputs, by name.
    """
    rank = int(torch.linalg.matrix_rank(weight))
    # Beyond the rank directions are arbitrary.
    counts = [k for k in COUNTS if k <= rank]
    right = right_directions(weight, counts[-1])
    mean = float(weight.square().sum()) / weight.shape[1]
    worst = float(torch.linalg.matrix_norm(weight, 2)) ** 2 / mean
    found = {"worst gain": worst}
    for name, moved in changes.items():
        flat = moved.flatten(1)
        gains = (flat @ weight.T).square().sum(1) / flat.square().sum(1)
        found[f"gain of {name}"] = float(gains.mean()) / mean
        for k in counts:
            share = metrics.energy_share(flat, right[:, :k])
            found[f"{name} in top {k}"] = float(share.mean())
    return found


def _share(chosen: Tensor) -> float:
    return float(chosen.double().mean())


def _run(configs: list[Config], device: str) -> list[Numbers]:
    """Train one pair; judge its networks at each checkpoint asked for."""
    first = configs[0]
    images = SETS[first["data"]]().to(device)
    pair = {
        network: trained(network, first["seed"], images, epochs=first["epochs"])
        for network in NETWORKS
    }
    results: list[Numbers] = []
    for config in configs:
        rule = config["checkpoint"]
        stops = {
            network: fitted.at("validation" if rule == "truncated" else rule)
            for network, fitted in pair.items()
        }
        own = stops.pop(config["network"])
        (twin,) = stops.values()
        net: Any = own.model
        if rule == "truncated":
            net = compress.truncate(net, rank=RANK)
        numbers = judge(
            net, twin.model, images.x_test, images.y_test, attacked=first["attacked"]
        )
        results.append(
            {
                "epoch": own.epoch,
                "met": True,
                "train accuracy": own.history[own.epoch - 1].train_accuracy,
                **numbers,
            }
        )
    return results


def _grid(seeds: int, **more: Any) -> list[Config]:
    return [
        {"network": network, "seed": seed, "checkpoint": rule, **more}
        for network in NETWORKS
        for seed in range(seeds)
        for rule in CHECKPOINTS
        # A network of rank 16 is its own truncation.
        if network == "full" or rule != "truncated"
    ]


STUDY = Study(
    name="first",
    run=lambda config, device: _run([config], device)[0],
    run_many=_run,
    # The networks of a pair share a job, and its checkpoints.
    group=lambda config: {
        k: v for k, v in config.items() if k not in ("network", "checkpoint")
    },
    grids={
        "quick": _grid(5, data="sample", epochs=8, attacked=600),
        "full": _grid(10, data="Fashion-MNIST", epochs=8, attacked=2000),
    },
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
