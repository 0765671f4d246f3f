"""Tests for the exercises of chapter 16, Compressing a trained network."""

import itertools
import random
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "largest_rank",
    "largest_rank_hidden",
    "narrowed",
    "narrowed_hidden",
    "survives",
    "survives_hidden",
]


def _rank(answer: Callable[[int, int], int], h: int, m: int, right: int) -> None:
    found = answer(h, m)
    assert isinstance(found, int), f"For h = {h}, m = {m} the rank is not an integer."
    assert found == right, f"For h = {h}, m = {m} it is {found} and should be {right}."


def largest_rank(answer: Callable[[int, int], int]) -> None:
    """Test ``largest_rank(h, m)`` on two layers."""
    _rank(answer, 128, 784, 110)
    _rank(answer, 3, 5, 1)


def largest_rank_hidden(answer: Callable[[int, int], int], seed: int = 0) -> None:
    """Test ``largest_rank(h, m)`` against counting, with ties and tiny matrices."""
    rng = random.Random(seed)
    drawn = [(rng.randint(13, 400), rng.randint(13, 400)) for _ in range(20)]
    for h, m in (*itertools.product(range(1, 13), repeat=2), *drawn):
        saves = [k for k in range(1, min(h, m) + 1) if k * (h + m) < h * m]
        _rank(answer, h, m, max(saves, default=0))


def _narrow(
    answer: Callable[..., tuple[Tensor, Tensor]], w1: Tensor, w2: Tensor
) -> None:
    first, second = answer(w1.clone(), w2.clone())
    alive = [i for i in range(len(w1)) if w1[i].any() and w2[:, i].any()]
    for found, right, name in (
        (first, w1[alive], "first"),
        (second, w2[:, alive], "second"),
    ):
        assert isinstance(found, Tensor) and found.shape == right.shape, (
            f"The {name} matrix should have the shape {tuple(right.shape)}."
        )
        assert found.equal(right), f"The {name} matrix has other entries."


def narrowed(answer: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Test ``narrowed(w1, w2)`` with a dead row and an unread neuron."""
    w1 = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0], [1.0, 1.0]])
    w2 = torch.tensor([[1.0, 5.0, 0.0, 2.0], [2.0, 1.0, 0.0, 1.0]])
    _narrow(answer, w1, w2)


def narrowed_hidden(
    answer: Callable[..., tuple[Tensor, Tensor]], seed: int = 0
) -> None:
    """Test ``narrowed(w1, w2)`` where entries cancel, and where all or none go."""
    cancels = torch.tensor([[1.0, -1.0], [-2.0, -3.0]])
    _narrow(answer, cancels, torch.tensor([[1.0, -4.0], [-1.0, -1.0]]))
    _narrow(answer, torch.zeros(3, 2), torch.ones(1, 3))
    g = torch.Generator().manual_seed(seed)
    for _ in range(10):
        w1 = torch.randn(6, 4, generator=g) * (torch.rand(6, 1, generator=g) < 0.6)
        w2 = torch.randn(3, 6, generator=g) * (torch.rand(1, 6, generator=g) < 0.6)
        _narrow(answer, w1, w2)


def _survive(
    answer: Callable[[Tensor, Tensor], Tensor], logits: Tensor, moved: Tensor
) -> None:
    found = answer(logits.clone(), moved.clone())
    assert isinstance(found, Tensor) and found.shape == moved.shape, (
        f"The answer has the shape {tuple(moved.shape)}, one entry a sample."
    )
    best = logits.sort(dim=1, descending=True).values
    right = (best[:, 0] - best[:, 1]) / 2**0.5 > moved
    assert not (found & ~right).any(), "A label is promised that can change."
    assert not (right & ~found).any(), "A label that must survive is not promised."


def survives(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Test ``survives(logits, moved)`` on either side of the threshold."""
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0], [5.0, 1.0, 0.0]])
    _survive(answer, logits, torch.tensor([0.6, 0.8, 2.7]))


def survives_hidden(answer: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Test ``survives(logits, moved)`` on random logits, and with two classes."""
    g = torch.Generator().manual_seed(seed)
    for classes in (2, 10):
        logits = torch.randn(200, classes, generator=g, dtype=torch.float64) - 3
        _survive(answer, logits, torch.rand(200, generator=g, dtype=torch.float64))
