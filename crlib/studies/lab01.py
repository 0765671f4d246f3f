"""Lab 1: channels that appear while a deep network of even weights trains."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "SETTINGS",
    "STUDY",
    "descend",
    "energies",
    "floor",
    "logits",
    "network",
    "run",
    "start",
    "task",
    "turning_points",
]

TASKS = ("images", "random labels", "noise")
# A task with its depth; or the scale of the weights that a network starts from.
SETTINGS: list[Config] = [
    *(
        {"part": "channels", "way": way, "task": name, "strength": 10}
        for way in ("even", "He")
        for name in TASKS
    ),
    {"part": "channels", "way": "even", "task": "noise", "strength": 20},
    *(
        {"part": "tie", "way": way, "task": "images", "strength": scale}
        for way, scale in (("even", 1.0), ("He", 1.0), ("uneven", 1.0), ("even", 0.5))
    ),
]


def run(config: Config, images: Dataset) -> Numbers:
    """Return the numbers of one configuration: of channels, or of the tie."""
    part = {"channels": _channels, "tie": _tie}[config["part"]]
    return part(config, images)


def task(name: str, images: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Return 600 inputs ``(600, 196)`` of mean zero and variance one, and labels.

    Args:
        name: ``"images"``, pooled to 14 x 14; ``"random labels"``, the same images;
            ``"noise"``, uniform noise with random labels.
        images: in float64.
        seed: of the choice and of what is random.
    """
    g = torch.Generator().manual_seed(1000 + seed)
    chosen = torch.randperm(len(images.x_train), generator=g)[:600]
    x = torch.nn.functional.avg_pool2d(images.x_train[chosen], 2).flatten(1)
    y = images.y_train[chosen]
    if name != "images":
        y = torch.randint(10, (600,), generator=g)
    if name == "noise":
        x = torch.rand(600, 196, generator=g, dtype=torch.float64)
    return (x - x.mean()) / x.std(), y


def start(sizes: Sequence[int], way: str, seed: int) -> list[Tensor]:
    r"""Return weights ``(h, m)``, in float64, each entry of variance about ``2 / m``.

    Args:
        sizes: of the layers, input first.
        way: ``"even"``, random signs times :math:`\sqrt{2/m}\,(1 + 0.05 g)` with
            Gaussian g; ``"He"``, Gaussian; ``"uneven"``, Gaussian, each row times a
            lognormal factor.
        seed: of the draws.
    """
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    weights = []
    for m, h in pairwise(sizes):
        w = draw(h, m)
        if way == "even":
            w = w.sign() * (1 + 0.05 * draw(h, m))
        if way == "uneven":
            w = w * draw(h, 1).exp()
        weights.append(w * (2 / m) ** 0.5)
    return weights


def logits(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return the logits of a ReLU network without biases."""
    for w in weights[:-1]:
        x = (x @ w.T).relu()
    return x @ weights[-1].T


def descend(
    weights: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    rate: float = 0.05,
    seed: int = 0,
) -> list[Tensor]:
    """Return the weights after plain gradient descent on batches of 64."""
    g = torch.Generator().manual_seed(seed)
    weights = [w.clone().requires_grad_() for w in weights]
    for _ in range(steps):
        batch = torch.randint(len(x), (64,), generator=g)
        loss = torch.nn.functional.cross_entropy(logits(weights, x[batch]), y[batch])
        slopes = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, slope in zip(weights, slopes, strict=True):
                w -= rate * slope
    return [w.detach() for w in weights]


def energies(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return, for each hidden layer, the squared norms into and out of its neurons."""
    return [
        (into.square().sum(1), out.square().sum(0)) for into, out in pairwise(weights)
    ]


def floor(into: Tensor, out: Tensor) -> float:
    r"""Return the least correlation of two vectors that their difference allows.

    With standard deviations s of ``into - out`` and S, the larger one of the two
    vectors, it is :math:`\sqrt{1 - s^2/S^2}`, or -1 where s exceeds S.
    """
    ratio = float((into - out).std() / max(into.std(), out.std()))
    return (1 - ratio**2) ** 0.5 if ratio <= 1 else -1.0


def turning_points(profile: Sequence[float]) -> int:
    """Count the entries that are above both neighbours, or below both."""
    steps = np.diff(profile)
    return int((steps[1:] * steps[:-1] < 0).sum())


def _channels(config: Config, images: Dataset) -> Numbers:
    seed, depth = config["seed"], config["strength"]
    x, y = task(config["task"], images, seed)
    before = start((196, *[32] * depth, 10), config["way"], seed)
    steps = 800 if depth == 10 else 1200
    after = descend(before, x, y, steps=steps, seed=seed)
    profile = [float(into.std() / into.mean()) for into, _ in energies(after)]
    apart = [[float((i - o).std()) for i, o in energies(w)] for w in (before, after)]
    return {
        "train accuracy": float((logits(after, x).argmax(1) == y).double().mean()),
        "correlation before": _correlation(before),
        "correlation": _correlation(after),
        "floor": float(np.mean([floor(*pair) for pair in energies(after)])),
        "kept": float(np.mean(np.divide(apart[1], apart[0]))),
        "unevenness before": float(
            np.mean([float(i.std() / i.mean()) for i, _ in energies(before)])
        ),
        "unevenness": float(np.mean(profile)),
        "bimodality": float(np.mean([_bimodality(i) for i, _ in energies(after)])),
        "turns": turning_points(profile),
    }


def _correlation(weights: Sequence[Tensor]) -> float:
    pairs = energies(weights)
    return float(np.mean([np.corrcoef(into, out)[0, 1] for into, out in pairs]))


def _bimodality(v: Tensor) -> float:
    """Return (skewness^2 + 1) / kurtosis: 5/9 for a uniform law, 1 for two values."""
    z = (v - v.mean()) / v.std(correction=0)
    return float((z.pow(3).mean() ** 2 + 1) / z.pow(4).mean())


def network(way: str, scale: float, seed: int) -> MLP:
    """Return an untrained network whose Frobenius norms depend on ``scale`` alone."""
    net = MLP((784, 128, 128, 128, 10), mean=0.286, std=0.353, seed=seed).double()
    weights = start((784, 128, 128, 128, 10), way, seed)
    with torch.no_grad():
        for old, new in zip(net.weights, weights, strict=True):
            old.copy_(new * scale * (2 * len(new)) ** 0.5 / new.norm())
    return net


def _tie(config: Config, images: Dataset) -> Numbers:
    seed = config["seed"]
    few = images.subset(3000, 200, seed=seed)
    fit = train.fit(
        network(config["way"], config["strength"], seed),
        few,
        epochs=20,
        lr=0.02,
        weight_decay=0.0,
        optimiser="sgd",
        validation=0.0,
        checkpoint="matched",
        match=0.88,
        keep=[0],
        seed=seed,
        progress=False,
    )
    net, x, y = fit.model, images.x_test[:200], images.y_test[:200]
    right = net(x).argmax(1) == y
    near = nearest(net, x, y, ["l2"], steps=40)["l2"]
    first = fit.at("epoch 0").model
    return {
        "epoch": fit.epoch,
        "clean accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "row error before": compressibility(first.weights[:-1])["row error"],
        "row error": compressibility(net.weights[:-1])["row error"],
        "l2": float(near.distance[right].median()),
    }


STUDY = of_sample("lab01", SETTINGS, run)
