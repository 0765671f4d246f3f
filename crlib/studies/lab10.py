"""Lab 10: the variance that dropout leaves in networks of growing width."""

import math

import torch
from torch import Tensor

from crlib import metrics
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import nearest, of_sample

__all__ = [
    "SETTINGS",
    "STUDY",
    "best_head",
    "pooled",
    "random_features",
    "run",
    "split",
    "targets",
    "trained",
]

WIDTHS, TRAINED = (16, 64, 256, 1024, 4096, 16384), (16, 64, 256, 1024)
# Share of neurons that a mask drops, and the variance of an entry of the mask.
DROP = 0.5
LAM = DROP / (1 - DROP)
SETTINGS: list[Config] = [
    *({"part": "features", "way": "random", "strength": h} for h in WIDTHS),
    *(
        {"part": "trained", "way": way, "strength": h}
        for way in ("dropout", "none")
        for h in TRAINED
    ),
]


def run(config: Config, images: Dataset) -> Numbers:
    """Return the numbers of one width: of random features, or of a trained network."""
    part = {"features": _features, "trained": _trained}[config["part"]]
    return part(config, images)


def targets(y: Tensor) -> Tensor:
    """Return labels ``(n,)`` as unit vectors ``(n, 10)`` in float64."""
    return torch.nn.functional.one_hot(y, 10).double()


def split(z: Tensor, a: Tensor, y: Tensor, lam: float = LAM) -> tuple[float, float]:
    r"""Return squared bias and variance of a head under dropout, means over inputs.

    The expected squared loss is their sum; the variance is
    :math:`\frac\lambda n \sum_{ij} \lVert a_j \rVert_2^2 z_{ij}^2`.

    Args:
        z: activations ``(n, h)``.
        a: outgoing weights ``(K, h)``.
        y: targets ``(n, K)``.
        lam: variance of an entry of the mask.
    """
    bias = (z @ a.T - y).square().sum(1).mean()
    spread = lam * (z.square() @ a.square().sum(0)).mean()
    return float(bias), float(spread)


def best_head(z: Tensor, y: Tensor, lam: float = LAM) -> Tensor:
    r"""Return the head ``(K, h)`` of least expected loss, given the activations.

    In the weights :math:`\lVert z_j \rVert a_j` the loss is a ridge regression on the
    activations' unit vectors; a neuron that is silent on all inputs gets zero.

    Args:
        z: activations ``(n, h)``.
        y: targets ``(n, K)``.
        lam: variance of an entry of the mask, positive.
    """
    size = z.norm(dim=0)
    unit = z / size.clamp_min(1e-300)
    eye = torch.eye(len(z), dtype=z.dtype)
    rest = torch.linalg.solve(lam * eye + unit @ unit.T, y)  # (n, K)
    return torch.where(size > 0, (unit.T @ rest).T / size.clamp_min(1e-300), 0.0)


def pooled(x: Tensor) -> Tensor:
    """Return images ``(N, 1, 28, 28)`` as vectors ``(N, 196)``."""
    return torch.nn.functional.avg_pool2d(x, 2).flatten(1)


def random_features(images: Dataset, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return activations ``(200, width)`` of random ReLU neurons, and targets."""
    few = images.subset(min(200, len(images.x_train)), 1, seed=seed)
    x = (few.x_train.flatten(1) - 0.286) / 0.353
    g = torch.Generator().manual_seed(10_000 + seed)
    w = torch.randn(width, 784, generator=g, dtype=x.dtype) / 28
    return (x @ w.T).relu(), targets(few.y_train)


def _features(config: Config, images: Dataset) -> Numbers:
    z, y = random_features(images, config["strength"], config["seed"])
    bias, spread = split(z, best_head(z, y), y)
    return {"bias": bias, "variance": spread}


def trained(
    way: str, width: int, x: Tensor, y: Tensor, seed: int, epochs: int = 60
) -> tuple[MLP, MLP]:
    """Return a network of one hidden layer before and after its training.

    Adam on the squared loss, in batches of 100, with a sampled mask a sample and step
    where ``way`` is ``"dropout"``.

    Args:
        way: or ``"none"``.
        width: of the hidden layer.
        x: inputs ``(n, m)`` in float64.
        y: labels ``(n,)``.
        seed: of start, batches and masks.
        epochs: with a learning rate that falls to zero as a cosine.
    """

    def start() -> MLP:
        sizes = (x.shape[1], width, 10)
        return MLP(sizes, mean=0.286, std=0.331, seed=seed).double()

    net, told = start(), targets(y)
    g = torch.Generator().manual_seed(20_000 + seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    steps = epochs * math.ceil(len(x) / 100)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=g).split(100):
            z = net.features(x[batch])
            if way == "dropout":
                z = z * mask(z.shape, g)
            loss = (net.layers[-1](z) - told[batch]).square().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return start(), net


def mask(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return entries that are zero or ``1 / (1 - DROP)``, with mean one."""
    draw = torch.rand(shape, generator=generator, dtype=torch.float64)
    return (draw >= DROP) / (1 - DROP)


def _trained(config: Config, images: Dataset) -> Numbers:
    way, seed = config["way"], config["seed"]
    few = images.subset(
        min(500, len(images.x_train)), min(500, len(images.x_test)), seed=seed
    )
    x, xv, yv = pooled(few.x_train), pooled(few.x_test), few.y_test
    before, net = trained(way, config["strength"], x, few.y_train, seed)
    told = targets(few.y_train)
    found: dict[str, float] = {}
    for name, of in (("", net), (" before", before)):
        bias, spread = split(of.features(x).detach(), of.weights[1], told)
        found |= {f"bias{name}": bias, f"variance{name}": spread}
    with torch.no_grad():
        z, label = net.features(xv), net(xv).argmax(1)
        g = torch.Generator().manual_seed(30_000 + seed)
        masked = [(z * mask(z.shape, g)) @ net.weights[1].T for _ in range(20)]
    changed = torch.stack([(m.argmax(1) != label) for m in masked])
    found["changed"] = float(changed.double().mean())
    found["clean accuracy"] = metrics.accuracy(net, xv, yv)
    found["srank"] = metrics.stable_rank(metrics.singular_values(net.weights[0]))
    found["srank before"] = metrics.stable_rank(
        metrics.singular_values(before.weights[0])
    )
    x, y = xv[:200], yv[:200]
    right = net(x).argmax(1) == y
    for norm, near in nearest(net, x, y, ["linf", "l2"], steps=40).items():
        found[norm] = float(near.distance[right].median())
    return found


STUDY = of_sample("lab10", SETTINGS, run)
