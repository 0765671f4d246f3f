"""Fully connected networks, made compressible in one way after the other.

Everything is equal but the way: data, width, optimiser, epochs, seeds. One training is
judged at three checkpoints, because each tells its own story.
"""

from typing import Any

import torch
from torch import Tensor

from crlib import attacks, certify, checks, compress, data, metrics, train
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    at_checkpoints,
    compressibility,
    judged_trainings,
    nearest,
    right_directions,
    robustness,
)

__all__ = ["STUDY", "build", "judge"]

# Each is given with a strength: of the penalty, or what its name says.
WAYS = (
    "plain",
    "learning rate",
    "rank",
    "rank, principal",
    "rank, orthonormal",
    "rank, both",
    "width",
    "rows, scale-invariant",
    "group lasso",
    "nuclear, scale-invariant",
    "nuclear norm",
    "nuclear, fixed scale",
    "l1",
    "Frobenius",
    "spectral dial",
    "row dial",
)
CHECKPOINTS = ("validation", "matched", "last")
MATCH = 0.85
EPS = {"l2": 0.5, "linf": 0.03}
FROBENIUS = 10.0


def build(
    way: str,
    strength: float,
    seed: int,
    images: data.Dataset,
    *,
    width: int = 256,
    hidden: int = 3,
    mean: float = 0.286,
    std: float = 0.353,
) -> tuple[MLP, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that make it so.

    Args:
        way: one of ``WAYS``.
        strength: of the way: a learning rate, rank, width, penalty or exponent;
            nothing for plain.
        seed: of the initialisation.
        images: as many inputs as their pixels; their principal directions are where
            the first layer can start.
        width: of the hidden layers, unless the way is a width.
        hidden: how many of them.
        mean: of a pixel, for the normalisation.
        std: of a pixel, likewise.

    Raises:
        ValueError: an unknown way.
    """
    checks.one_of("way", way, WAYS)
    width = int(strength) if way == "width" else width
    net = MLP(
        (images.x_train[0].numel(), *[width] * hidden, 10),
        rank=int(strength) if way.startswith("rank") else None,
        mean=mean,
        std=std,
        seed=seed,
    )
    if way in ("rank, principal", "rank, both"):
        compress.principal_start(net.layers[0], images.x_train)
    penalties = {
        "rows, scale-invariant": compress.group_lasso(strength, scale_invariant=True),
        "group lasso": compress.group_lasso(strength),
        "nuclear, scale-invariant": compress.nuclear_norm(
            strength, scale_invariant=True
        ),
        "nuclear norm": compress.nuclear_norm(strength),
        "nuclear, fixed scale": compress.nuclear_norm(strength),
        "l1": compress.l1(strength),
        "Frobenius": compress.squared_frobenius(strength),
    }
    options: dict[str, Any] = {"penalty": penalties[way]} if way in penalties else {}
    if way == "learning rate":
        options["lr"] = strength
    if way == "nuclear, fixed scale":
        options["constraint"] = compress.fixed_frobenius(net)
    if way in ("rank, orthonormal", "rank, both"):
        options |= {
            "constraint": compress.orthonormal_factors(),
            "constrain_every": 5,
        }
    if way in ("spectral dial", "row dial"):
        dial = compress.spectral_dial if way == "spectral dial" else compress.row_dial
        options |= {
            "constraint": dial(strength, frobenius=FROBENIUS),
            "constrain_every": 10 if way == "spectral dial" else 1,
            # Decay would pull against a scale that is fixed.
            "weight_decay": 0.0,
        }
    return net, options


def judge(
    net: MLP, x: Tensor, y: Tensor, *, attacked: int = 300, seed: int = 0
) -> dict[str, float]:
    """Measure compressibility, accuracy, distances and universal fooling of a network.

    Args:
        net: the trained network.
        x: ``(N, ...)`` test images in [0, 1], for accuracies and what fools many.
        y: ``(N,)`` labels.
        attacked: how many of them, the first, are attacked one by one.
        seed: of the random directions.

    Returns:
        Named numbers. Distances are medians over the attacked images labelled right;
        robust accuracies count all of them; errors and shares of the spectrum are means
        over the hidden layers.
    """
    found: dict[str, float] = {"accuracy": metrics.accuracy(net, x, y)}
    found |= compressibility(net.weights[:-1])
    g = torch.Generator().manual_seed(seed)
    few, labels = x[:attacked], y[:attacked]
    right = net(few).argmax(1) == labels
    near = nearest(net, few, labels, EPS, steps=50)
    found |= robustness(near, right, EPS)
    radius = certify.lipschitz_radius(net, few, labels)
    found["certificate"] = float(radius[right].median())

    delta = (near["l2"].x_adv - few)[right & near["l2"].success]
    noise = torch.randn(few.shape, generator=g, dtype=x.dtype)
    other = few - few[torch.randperm(len(few), generator=g)]
    other = other[other.flatten(1).norm(dim=1) > 0]
    top = right_directions(net.weights[0], 10)
    for name, moved in (("attack", delta), ("difference", other), ("noise", noise)):
        share = metrics.energy_share(moved.double(), top)
        found[f"{name} in top ten"] = float(share.mean())
    found |= _amplification(net, few[right & near["l2"].success], delta, g)

    for norm, eps in (("linf", 20 / 255), ("l2", 1.5)):
        found[f"universal {norm}"] = attacks.universal(
            net, x, y, eps=eps, norm=norm
        ).fooling_rate
    found["top direction l2"] = attacks.top_direction(net, x, y, eps=1.5).fooling_rate
    blind = torch.randn(x.shape, generator=g, dtype=x.dtype)
    blind *= 1.5 / blind.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    changed = net((x + blind).clamp(0, 1)).argmax(1) != net(x).argmax(1)
    found["noise l2"] = float(changed.double().mean())
    return found


def _amplification(
    net: MLP, x: Tensor, delta: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Return how far the features move, for the attack and for noise of its length.

    Both as the median of the relative movement of what the head sees.
    """
    lengths = delta.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    noise *= lengths / noise.flatten(1).norm(dim=1).view_as(lengths)
    with torch.no_grad():
        z = net.features(x)
        moved = {"attack": net.features(x + delta), "noise": net.features(x + noise)}
    return {
        f"{name} moves features": float(
            ((new - z).norm(dim=1) / z.norm(dim=1)).median()
        )
        for name, new in moved.items()
    }


def _run(configs: list[Config], device: str) -> list[Numbers]:
    """Train once; judge at each checkpoint asked for."""
    first = configs[0]
    images = SETS[first["data"]]().to(device)
    net, options = build(first["way"], first["strength"], first["seed"], images)
    fitted = train.fit(
        net.to(device),
        images,
        epochs=first["epochs"],
        checkpoint="last",
        match=MATCH,
        seed=first["seed"],
        progress=False,
        **options,
    )
    x, y = (part[: first["judged"]] for part in (images.x_test, images.y_test))
    return at_checkpoints(
        fitted,
        configs,
        lambda at: judge(
            at.model, x, y, attacked=first["attacked"], seed=first["seed"]
        ),
    )


def _grid(seeds: int, **more: Any) -> list[Config]:
    strengths: dict[str, tuple[float, ...]] = {
        "plain": (0,),
        "learning rate": (3e-4,),
        "rank": (64, 16, 8, 4),
        "rank, principal": (64, 16),
        "rank, orthonormal": (64, 16),
        "rank, both": (64, 16),
        "width": (128, 64, 32, 16),
        "rows, scale-invariant": (0.03, 0.1, 0.2),
        "group lasso": (0.001, 0.003),
        "nuclear, scale-invariant": (0.03, 0.1),
        "nuclear norm": (0.003,),
        "nuclear, fixed scale": (0.001, 0.003, 0.01),
        "l1": (1e-4,),
        "Frobenius": (0.003,),
        "spectral dial": (0, 0.25, 0.5, 1),
        "row dial": (0, 0.5, 1),
    }
    return [
        {"way": way, "strength": s, "seed": seed, "checkpoint": rule, **more}
        for way, own in strengths.items()
        for s in own
        for seed in range(seeds)
        for rule in CHECKPOINTS
    ]


STUDY = judged_trainings(
    "networks",
    _run,
    {
        "quick": _grid(5, data="sample", epochs=20, judged=1000, attacked=300),
        "full": _grid(
            10, data="Fashion-MNIST", epochs=20, judged=10_000, attacked=1000
        ),
    },
    lambda config: SETS[config["data"]]().fingerprint,
    version=2,
)
