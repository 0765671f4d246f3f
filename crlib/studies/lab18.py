"""Lab 18: how much rank a trained network needs, and its first layer as a tensor."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from crlib import attacks, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import halved, of_sample

__all__ = [
    "CUTS",
    "NOISE",
    "SETTINGS",
    "SIDE",
    "STUDY",
    "answers",
    "cp",
    "cut",
    "fitted",
    "needed",
    "noisy",
    "numbers_kept",
    "run",
    "truncated",
]

# Images are 14 by 14 pixels; shares of random labels in percent; ranks of the SVD.
SIDE, WIDTH = 14, 128
NOISE, CUTS = (0, 25, 50, 75, 100), (2, 4, 8, 16)
SETTINGS: list[Config] = [
    *({"part": "noise", "strength": share} for share in NOISE),
    *({"part": "cut", "strength": k} for k in CUTS),
]


def run(config: Config, images: Dataset) -> Numbers:
    """Return the numbers of one network on noisy labels, or of one cut three ways."""
    part = {"noise": _noise, "cut": _cut}[config["part"]]
    return part(config["strength"], config["seed"], halved(images))


def noisy(images: Dataset, share: int, seed: int, n: int = 400) -> Dataset:
    """Return n training images, a share of whose labels was drawn anew.

    Args:
        images: of 14 by 14 pixels.
        share: in percent; a drawn label may be the old one.
        seed: of the images and of the labels.
        n: fewer if there are fewer.
    """
    few = images.subset(min(n, len(images.x_train)), 1, seed=seed)
    g = torch.Generator().manual_seed(180_000 + seed)
    y = few.y_train
    drawn = torch.rand(len(y), generator=g) < share / 100
    y = torch.where(drawn, torch.randint(10, (len(y),), generator=g), y)
    return replace(images, x_train=few.x_train, y_train=y)


def fitted(images: Dataset, seed: int, *, hidden: int, epochs: int) -> train.Fit:
    """Return a network without weight decay, trained in batches of 50.

    Args:
        images: of 14 by 14 pixels.
        seed: of start and batches.
        hidden: number of hidden layers of width 128.
        epochs: all of them are taken.
    """
    sizes = (SIDE * SIDE, *[WIDTH] * hidden, 10)
    return train.fit(
        MLP(sizes, mean=0.29, std=0.32, seed=seed).double(),
        images,
        epochs=epochs,
        batch_size=50,
        weight_decay=0.0,
        validation=0.0,
        checkpoint="last",
        seed=seed,
        progress=False,
    )


def truncated(w: Tensor, k: int) -> Tensor:
    """Return the nearest matrix of rank k."""
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    return (u[:, :k] * s[:k]) @ v[:k]


def answers(net: MLP, weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return labels ``(N,)`` that a network gives with other weights."""
    a = net.normalize(x).flatten(1)
    for w in weights[:-1]:
        a = (a @ w.T).relu()
    return (a @ weights[-1].T).argmax(1)


def needed(net: MLP, images: Dataset, keep: float = 0.95) -> int:
    """Return the least rank of all hidden layers that keeps the training accuracy.

    Args:
        net: without biases.
        images: what it was trained on.
        keep: share of its training accuracy that is to be kept.
    """
    *hidden, head = net.weights
    parts = [torch.linalg.svd(w, full_matrices=False) for w in hidden]
    x, y = images.x_train, images.y_train
    whole = (answers(net, net.weights, x) == y).sum()
    most = max(len(s) for _, s, _ in parts)
    for k in range(1, most):
        weights = [(u[:, :k] * s[:k]) @ v[:k] for u, s, v in parts]
        if (answers(net, [*weights, head], x) == y).sum() >= keep * whole:
            return k
    return most


def _noise(share: int, seed: int, images: Dataset) -> Numbers:
    told = noisy(images, share, seed)
    fit = fitted(told, seed, hidden=2, epochs=90)
    net: MLP = fit.model
    first = metrics.singular_values(net.weights[0])
    x, y = told.x_test[:150], told.y_test[:150]
    with torch.no_grad():
        own = net(x).argmax(1)
    near = attacks.deepfool(net, x, own, norm="l2").distance
    attacked = attacks.pgd(net, x, y, eps=0.02, steps=10)
    return {
        "train accuracy": fit.history[-1].train_accuracy,
        "clean accuracy": metrics.accuracy(net, told.x_test, told.y_test),
        "needed": needed(net, told),
        "l2": float(near.median()),
        "robust": 1 - float(attacked.success.double().mean()),
        "srank": metrics.stable_rank(first),
        "erank": metrics.effective_rank(first),
    }


def cp(tensor: Tensor, rank: int, seed: int, sweeps: int = 30) -> list[Tensor]:
    """Return factors of a tensor of three indices, by alternating least squares.

    Args:
        tensor: ``(a, b, c)`` in float64.
        rank: R.
        seed: of the start.
        sweeps: over the three factors.

    Returns:
        ``(a, R)``, ``(b, R)`` and ``(c, R)``; their sum of products is near the tensor.
    """
    g = torch.Generator().manual_seed(181_000 + seed)
    factors = [
        torch.randn(n, rank, generator=g, dtype=tensor.dtype) for n in tensor.shape
    ]
    ridge = 1e-9 * torch.eye(rank, dtype=tensor.dtype)
    for _ in range(sweeps):
        for mode in range(3):
            a, b = (f for n, f in enumerate(factors) if n != mode)
            columns = torch.einsum("ir,jr->ijr", a, b).flatten(0, 1)  # (i j, R)
            gram = (a.T @ a) * (b.T @ b)
            gram = gram + ridge * gram.diagonal().mean()
            target = tensor.movedim(mode, 0).flatten(1) @ columns
            factors[mode] = torch.linalg.solve(gram, target.T).T
    return factors


def numbers_kept(k: int) -> tuple[int, int]:
    """Return how many numbers an SVD of rank k keeps, and the CP rank that keeps as
    many, to the nearest."""
    numbers = k * (WIDTH + SIDE * SIDE)
    return numbers, round(numbers / (WIDTH + 2 * SIDE))


def cut(way: str, w: Tensor, k: int, seed: int) -> Tensor:
    """Return a first layer ``(128, 196)`` of which about as many numbers are kept.

    Args:
        way: ``"svd"``; ``"cp"``, as a tensor of neurons, rows and columns;
            ``"shuffled"``, as one whose pixels were put in a random order before.
        w: the weights.
        k: rank of the SVD that keeps as many numbers.
        seed: of the start, and of the order.
    """
    if way == "svd":
        return truncated(w, k)
    order = torch.arange(w.shape[1])
    if way == "shuffled":
        g = torch.Generator().manual_seed(182_000 + seed)
        order = torch.randperm(w.shape[1], generator=g)
    rank = numbers_kept(k)[1]
    factors = cp(w[:, order].view(-1, SIDE, SIDE), rank, seed)
    near = torch.empty_like(w)
    near[:, order] = torch.einsum("ar,br,cr->abc", *factors).flatten(1)
    return near


class _Cut(torch.nn.Module):
    """A network with another first layer."""

    def __init__(self, net: MLP, first: Tensor) -> None:
        super().__init__()
        self.net, self.first = net, first

    def forward(self, x: Tensor) -> Tensor:
        a = (self.net.normalize(x).flatten(1) @ self.first.T).relu()
        for layer in self.net.layers[1:-1]:
            a = layer(a).relu()
        logits: Tensor = self.net.layers[-1](a)
        return logits


def _cut(k: int, seed: int, images: Dataset) -> Numbers:
    told = noisy(images, 0, seed, n=1000)
    net: MLP = fitted(told, seed, hidden=1, epochs=30).model
    w = net.weights[0]
    x, y = told.x_test[:150], told.y_test[:150]
    found: dict[str, float] = {}
    ways = {way: cut(way, w, k, seed) for way in ("svd", "cp", "shuffled")}
    for way, first in {"full": w, **ways}.items():
        model = _Cut(net, first)
        attacked = attacks.pgd(model, x, y, eps=0.05, steps=10)
        found |= {
            f"{way} accuracy": metrics.accuracy(model, told.x_test, told.y_test),
            f"{way} robust": 1 - float(attacked.success.double().mean()),
            f"{way} rest": float((first - w).norm() / w.norm()),
        }
    return found


STUDY = of_sample("lab18", SETTINGS, run)
