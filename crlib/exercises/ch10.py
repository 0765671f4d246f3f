"""Tests for the exercises of chapter 10, The bridge between the two papers."""

from collections.abc import Callable

import torch
from torch import Tensor

from crlib import theory
from crlib.exercises import close, gaussian

__all__ = [
    "bypass",
    "bypass_hidden",
    "cheapest",
    "cheapest_hidden",
    "fewest_directions",
    "fewest_directions_hidden",
    "survives",
    "survives_hidden",
]


def _tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _same(found: object, right: Tensor, what: str) -> None:
    assert isinstance(found, Tensor) and found.shape == right.shape, (
        f"{what} is a tensor of shape {tuple(right.shape)}."
    )
    assert torch.allclose(found.double(), right, rtol=1e-6, atol=1e-8), (
        f"{what} is not the shortest one: its length is {float(found.norm()):.4f} and"
        f" should be {float(right.norm()):.4f}."
    )


def survives(answer: Callable[..., float]) -> None:
    """Test ``survives(w, difference)`` where the row space is a coordinate plane."""
    w = _tensor([2.0, 0, 0], [2.0, 1, 0])
    close(answer(w, _tensor(1.0, 0, 0)), 1, "Inside the row space, the fraction")
    close(answer(w, _tensor(0.0, 0, 5)), 0, "Outside the row space, the fraction")
    close(answer(w, _tensor(0.0, 3, 4)), 0.6, "For (0, 3, 4), the fraction")


def survives_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``survives`` on matrices of low rank, one row, and full rank."""
    shapes = ((6, 2, 9), (1, 1, 5), (4, 4, 4), (9, 3, 8))
    for i, (h, k, m) in enumerate(shapes, start=seed):
        w = gaussian(h, k, seed=i) @ gaussian(k, m, seed=i + 10)
        d = gaussian(m, seed=i + 20)
        right = float(theory.surviving_fraction(w, d))
        close(answer(w, d), right, f"For rank {k} of {m} inputs, the fraction")


def _cheapest(
    answer: Callable[..., Tensor], w: Tensor, x: Tensor, others: Tensor, labels: Tensor
) -> None:
    moves = theory.bridge_attack(w, x, others[labels != 0]).e
    _same(answer(w, x, 0, others, labels), moves[moves.norm(dim=1).argmin()], "It")


def cheapest(answer: Callable[..., Tensor]) -> None:
    """Test ``cheapest(w, x, label, others, labels)`` behind a single row."""
    others = _tensor([1.0, 9], [3, 0], [0.5, 0])
    _cheapest(answer, _tensor([1.0, 0]), _tensor(0.0, 0), others, torch.arange(3) < 2)


def cheapest_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``cheapest`` on random layers of low rank and several labels."""
    for i in range(seed, seed + 10):
        w = gaussian(5, 2, seed=i) @ gaussian(2, 12, seed=i + 50)
        others, labels = gaussian(20, 12, seed=i + 100), torch.arange(20) % 3
        _cheapest(answer, w, gaussian(12, seed=i + 150), others, labels)


def _bypass(answer: Callable[..., Tensor], w: Tensor, s: Tensor, seed: int) -> None:
    x, other = gaussian(2, w.shape[1], seed=seed)
    right = theory.bridge_attack(torch.cat([w, s]), x, other).e
    found = answer(w, s, x, other)
    assert isinstance(found, Tensor) and found.shape == x.shape, (
        f"bypass returns a tensor of shape {tuple(x.shape)}."
    )
    for layer, name in ((w, "W"), (s, "S")):
        assert torch.allclose(layer @ (x + found), layer @ other, atol=1e-6), (
            f"After your perturbation {name} still sees a difference."
        )
    _same(found, right, "The perturbation")


def bypass(answer: Callable[..., Tensor]) -> None:
    """Test ``bypass(w, s, x, x_prime)`` where row spaces are orthogonal, or not."""
    _bypass(answer, _tensor([1.0, 0, 0, 0]), _tensor([0.0, 3, 0, 0]), 0)
    _bypass(answer, _tensor([1.0, 0, 0, 0]), _tensor([1.0, 1, 0, 0]), 1)


def bypass_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``bypass`` on random layers and on an identity skip."""
    for i in range(seed, seed + 5):
        _bypass(answer, gaussian(2, 9, seed=i), gaussian(4, 9, seed=i + 10), i)
    eye = torch.eye(6, dtype=torch.float64)
    _bypass(answer, gaussian(2, 6, seed=seed + 5), eye, seed + 6)


def _fewest(
    answer: Callable[..., int], w: Tensor, d: Tensor, radius: float, k: int
) -> None:
    found = answer(w, torch.zeros_like(d), d, radius)
    assert found == k, (
        f"For a difference {tuple(round(v, 2) for v in d.tolist()[:4])} ... and radius"
        f" {radius:.3g} the answer is {k}, not {found}."
    )


def fewest_directions(answer: Callable[..., int]) -> None:
    """Test ``fewest_directions(w, x, x_prime, radius)`` for a diagonal layer."""
    w = torch.diag(_tensor(4.0, 2, 1))
    _fewest(answer, w, _tensor(1.0, 1, 1), 0.5, 3)
    _fewest(answer, w, _tensor(1.0, 1, 1), 1.5, 2)
    _fewest(answer, w, _tensor(1.0, 1, 1), 2.5, 1)
    _fewest(answer, w, _tensor(1.0, 1, 1), 5.0, 0)


def fewest_directions_hidden(answer: Callable[..., int], seed: int = 0) -> None:
    """Test ``fewest_directions`` where the bound is far from the residual."""
    w = torch.diag(_tensor(4.0, 2, 1))
    _fewest(answer, w, _tensor(1.0, 0, 3), 3.5, 1)
    _fewest(answer, w, _tensor(0.0, 0, 3), 3.5, 0)
    for i in range(seed, seed + 10):
        w, d = gaussian(6, 10, seed=i), gaussian(10, seed=i + 50)
        start = torch.zeros_like(d)
        left = [float((w @ d).norm())]
        left += [
            float(theory.bridge_attack(w, start, d, k).residual) for k in range(1, 7)
        ]
        for k in range(6):
            _fewest(answer, w, d, (left[k] + left[k + 1]) / 2, k + 1)
