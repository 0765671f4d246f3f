"""Lab 17: distances to the boundary in random networks, and in trained ones."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from crlib import attacks, geometry, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import of_sample, row_space

__all__ = [
    "DEPTHS",
    "DIMS",
    "NORMS",
    "RANKS",
    "SETTINGS",
    "SIDES",
    "STUDY",
    "TRAINED",
    "Pair",
    "fitted",
    "kept",
    "linearised",
    "network",
    "radii",
    "ratios",
    "resized",
    "run",
    "slope",
]

# A rank of 0 is a full one.
DIMS, RANKS, DEPTHS = (64, 256, 1024), (1, 4, 16, 64, 0), (1, 4, 8)
TRAINED, SIDES = (4, 8, 32, 0), (7, 14, 28, 56)
WIDTH, NETS = 256, 300
NORMS = ("l1", "l2", "linf")
SETTINGS: list[Config] = [
    *({"part": "size", "strength": d} for d in DIMS),
    *({"part": "rank", "strength": k} for k in RANKS),
    *({"part": "depth", "strength": n} for n in DEPTHS),
    *({"part": "trained rank", "strength": k} for k in TRAINED),
    # A side of 28 is a full rank.
    *({"part": "trained side", "strength": side} for side in SIDES if side != 28),
    *({"part": "kept", "strength": k} for k in TRAINED if k),
]


def run(config: Config, images: Dataset) -> Numbers:
    """Return distances of random networks, or of a trained one, over those of inputs.

    A distance is divided by the norm of the input and multiplied by the root of the
    dimension. The part ``kept`` has what :func:`kept` measures, and for a random
    subspace of the same dimension, ``random ...``.
    """
    part, strength, seed = config["part"], config["strength"], config["seed"]
    if part == "size":
        return _random(seed, d=strength)
    if part == "rank":
        return _random(seed, rank=strength)
    if part == "depth":
        return _random(seed, depth=strength)
    if part == "kept":
        return _kept(images, seed, strength)
    if part == "trained rank":
        return _trained(images, seed, rank=strength)
    return _trained(images, seed, side=strength)


def network(
    d: int, g: torch.Generator, *, depth: int = 2, rank: int = 0
) -> list[Tensor]:
    """Return the weights of a random ReLU network of one score, without biases.

    Args:
        d: inputs.
        g: source of the weights, Gaussian as He says.
        depth: hidden layers of width 256.
        rank: of the first layer, which then sees a random subspace; 0 for a full one.
    """

    def gaussian(h: int, m: int) -> Tensor:
        return torch.randn(h, m, generator=g, dtype=torch.float64)

    if rank:
        seen = torch.linalg.qr(gaussian(d, rank)).Q
        weights = [gaussian(WIDTH, rank) @ seen.T * math.sqrt(2 / rank)]
    else:
        weights = [gaussian(WIDTH, d) * math.sqrt(2 / d)]
    weights += [gaussian(WIDTH, WIDTH) * math.sqrt(2 / WIDTH) for _ in range(depth - 1)]
    return [*weights, gaussian(1, WIDTH) / math.sqrt(WIDTH)]


def linearised(weights: Sequence[Tensor], x: Tensor) -> tuple[float, Tensor]:
    """Return the score of a network at an input ``(d,)``, and its gradient there."""
    masks, a = [], x
    for w in weights[:-1]:
        a = w @ a
        masks.append(a > 0)
        a = a.relu()
    slope = weights[-1][0]
    score = float(slope @ a)
    for w, mask in zip(weights[-2::-1], masks[::-1], strict=True):
        slope = (slope * mask) @ w
    return score, slope


def radii(weights: Sequence[Tensor], x: Tensor) -> dict[str, float]:
    """Return for each norm the distance of the linearised score over the input's."""
    score, slope = linearised(weights, x)
    return {
        norm: abs(score)
        / float(geometry.norm_of(slope[None], geometry.DUALS[norm]))
        / float(geometry.norm_of(x[None], norm))
        for norm in NORMS
    }


def slope(dims: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a line through logarithms."""
    u = torch.tensor(dims, dtype=torch.float64).log()
    v = torch.tensor(values, dtype=torch.float64).log()
    u = u - u.mean()
    return float((u * v).sum() / u.square().sum())


class Pair(torch.nn.Module):
    """The two logits ``(f, -f)`` of a score."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        for w in self.weights[:-1]:
            x = (x @ w.T).relu()
        score = x @ self.weights[-1].T  # (N, 1)
        return torch.cat([score, -score], 1)


def _random(seed: int, *, d: int = 784, depth: int = 2, rank: int = 0) -> Numbers:
    g = torch.Generator().manual_seed(170_000 + seed)
    found: list[dict[str, float]] = []
    reached = []
    for n in range(NETS):
        weights = network(d, g, depth=depth, rank=rank)
        x = torch.rand(d, generator=g, dtype=torch.float64)
        found.append(radii(weights, x))
        if n < 30:
            net = Pair(weights)
            y = net(x[None]).argmax(1)
            walked = attacks.deepfool(net, x[None], y, norm="l2", steps=20)
            far = float(walked.distance[0]) / float(x.norm())
            reached.append(far / found[-1]["l2"])
    medians = {
        norm: float(torch.tensor([row[norm] for row in found]).double().median())
        for norm in NORMS
    }
    numbers = {norm: value * math.sqrt(d) for norm, value in medians.items()}
    # Infinite if most networks give one label everywhere, as at rank one.
    return numbers | {"found": float(torch.tensor(reached).double().median())}


def resized(images: Dataset, side: int) -> Dataset:
    """Return images of 28 by 28 pixels as images of another side: 7, 14 or 56."""

    def scaled(x: Tensor) -> Tensor:
        if side > 28:
            times = side // 28
            return x.repeat_interleave(times, 2).repeat_interleave(times, 3)
        return torch.nn.functional.avg_pool2d(x, 28 // side)

    return replace(images, x_train=scaled(images.x_train), x_test=scaled(images.x_test))


def _fresh(side: int, rank: int, seed: int) -> MLP:
    # Without a mean to subtract the network is homogeneous, as in the theorem.
    sizes = (side * side, 128, 128, 10)
    return MLP(sizes, rank=rank or None, std=0.35, seed=seed).double()


def fitted(images: Dataset, seed: int, *, side: int = 28, rank: int = 0) -> MLP:
    """Return a network trained for eight epochs on images of this side.

    Args:
        images: of this side; 2000 of them are trained on.
        seed: of the start and the batches.
        side: of an image.
        rank: of both hidden layers; 0 for full ones.
    """
    few = images.subset(min(2000, len(images.x_train)), 100, seed=seed)
    fit = train.fit(
        _fresh(side, rank, seed),
        few,
        epochs=8,
        validation=0.0,
        checkpoint="last",
        seed=seed,
        progress=False,
    )
    net: MLP = fit.model
    return net


def ratios(net: MLP, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return labels ``(N,)`` and distances to another one, as :math:`r \sqrt d / |x|`.

    The distances are in l2, as an attack found them.
    """
    with torch.no_grad():
        y = net(x).argmax(1)
    near = attacks.deepfool(net, x, y, norm="l2", steps=20)
    flat = x.flatten(1)
    return y, near.distance / flat.norm(dim=1) * math.sqrt(flat.shape[1])


def _trained(images: Dataset, seed: int, *, side: int = 28, rank: int = 0) -> Numbers:
    images = resized(images, side)
    net = fitted(images, seed, side=side, rank=rank)
    x, y = images.x_test[:200], images.y_test[:200]
    own, ratio = ratios(net, x)
    distance = ratio * x.flatten(1).norm(dim=1) / side
    before = []
    for n, some in enumerate(x.split(5)):
        before.append(ratios(_fresh(side, rank, 1000 * (seed + 1) + n), some)[1])
    first = metrics.singular_values(net.weights[0])
    # The same share of a picture at every side.
    withstands = (own == y) & (distance > 0.5 * side / 28)
    return {
        "l2": float(ratio.median()),
        "before": float(torch.cat(before).median()),
        "clean accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "robust": float(withstands.double().mean()),
        "srank": metrics.stable_rank(first),
        "spectral error": metrics.best_k_error(first, 4),
    }


def kept(net: MLP, x: Tensor, basis: Tensor) -> dict[str, float]:
    r"""Return what a subspace keeps of a network's score, and of its gradient.

    The network has no biases and subtracts no mean, so its score, the margin of its
    label over the runner-up, is :math:`w \cdot x` with the gradient :math:`w` at
    :math:`x`. In the subspace it is :math:`Pw \cdot Px`.

    Args:
        net: as :func:`fitted` returns it.
        x: images ``(N, ...)``.
        basis: orthonormal columns ``(d, k)``.

    Returns:
        Medians over the images. ``gradient``: :math:`|Pw|^2 / |w|^2`; ``input``: the
        same of :math:`x`; ``score``: :math:`Pw \cdot Px / w \cdot x`; ``distance``:
        score over the root of gradient, the factor of the linearised distance, zero
        where the score turns its sign.
    """
    z = x.clone().requires_grad_()
    first, second = net(z).topk(2, dim=1).values.T
    (slope,) = torch.autograd.grad((first - second).sum(), z)
    w, flat = slope.flatten(1), x.flatten(1)
    a, b = w @ basis, flat @ basis  # (N, k)
    gradient = a.square().sum(1) / w.square().sum(1)
    score = (a * b).sum(1) / (w * flat).sum(1)
    numbers = {
        "gradient": gradient,
        "input": b.square().sum(1) / flat.square().sum(1),
        "score": score,
        "distance": score.clamp_min(0) / gradient.sqrt(),
    }
    return {name: float(value.median()) for name, value in numbers.items()}


def _kept(images: Dataset, seed: int, rank: int) -> Numbers:
    full, low = (fitted(images, seed, rank=k) for k in (0, rank))
    x = images.x_test[:200]
    g = torch.Generator().manual_seed(171_000 + seed)
    draw = torch.randn(x[0].numel(), rank, generator=g, dtype=x.dtype)
    blind = kept(full, x, torch.linalg.qr(draw).Q)
    own = kept(full, x, row_space(low))
    return own | {f"random {name}": value for name, value in blind.items()}


STUDY = of_sample("lab17", SETTINGS, run)
