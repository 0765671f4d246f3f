"""Tests for the exercises of chapter 5, Measuring compressibility."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

from crlib import metrics
from crlib.exercises import close

__all__ = [
    "build",
    "build_hidden",
    "effective_rank",
    "effective_rank_hidden",
    "error_curve",
    "error_curve_hidden",
]


def _same_curve(answer: Callable[..., Tensor], v: Tensor, q: float) -> None:
    found = answer(v.clone(), q)
    assert isinstance(found, Tensor), "error_curve returns a tensor."
    assert len(found) == len(v) + 1, (
        f"A vector with {len(v)} entries has {len(v) + 1} errors, from k = 0 on;"
        f" there are {len(found)}."
    )
    for k in range(len(v) + 1):
        close(found[k], metrics.best_k_error(v, k, q=q), f"For k = {k}, the error")


def error_curve(answer: Callable[..., Tensor]) -> None:
    """Test ``error_curve(v, q)`` on sorted, positive entries and q = 2."""
    _same_curve(answer, torch.tensor([4.0, 3.0, 1.0]), 2)


def error_curve_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``error_curve(v, q)`` on any order, signs, ties, zeros and exponents."""
    g = torch.Generator().manual_seed(seed)
    vectors = (torch.randn(12, generator=g), torch.tensor([0.0, -2, 2, 0, 1]))
    for v in vectors:
        for q in (0.5, 1.0, 2.0, 3.0):
            _same_curve(answer, v, q)


def effective_rank(answer: Callable[[Tensor], float]) -> None:
    """Test ``effective_rank(s)`` on flat spectra."""
    close(answer(torch.ones(16)), 16.0, "The effective rank of sixteen ones")
    close(answer(3 * torch.ones(5)), 5.0, "The effective rank of five threes")


def effective_rank_hidden(answer: Callable[[Tensor], float], seed: int = 0) -> None:
    """Test ``effective_rank(s)`` with zeros and with uneven spectra."""
    close(answer(torch.tensor([2.0, 2, 0, 0])), 2.0, "With two zeros, the rank")
    close(answer(torch.tensor([7.0])), 1.0, "The rank of a single value")
    g = torch.Generator().manual_seed(seed + 2)
    for _ in range(10):
        s = torch.rand(20, generator=g) ** 3
        close(answer(s), metrics.effective_rank(s), "On a random spectrum, the rank")


def _to_order(
    answer: Callable[..., Tensor], k: int, eps: float, beta: float, d: int
) -> None:
    v = answer(k, eps, beta, d)
    order = f"k = {k}, eps = {eps}, beta = {beta}, d = {d}"
    assert isinstance(v, Tensor) and v.shape == (d,), (
        f"For {order}: not a vector with d entries."
    )
    s = v.double().abs().sort(descending=True).values
    close(s[0], 1.0, f"For {order}: the largest entry")
    close(metrics.best_k_error(s, k), eps, f"For {order}: the error")
    close(metrics.spread(s, k), beta, f"For {order}: the spread")
    reach = ((1 - eps**2) / (1 + (k - 1) * (1 - beta) ** 2)) ** 0.5
    close(reach * float(s.norm()), 1.0, f"For {order}: the upper side of the sandwich")


def build(answer: Callable[..., Tensor]) -> None:
    """Test ``build(k, eps, beta, d)`` where there is room for the tail."""
    _to_order(answer, 3, 0.2, 0.5, 10)
    _to_order(answer, 4, 0.5, 0.0, 20)


def build_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``build`` at the edges, and that it refuses where no vector exists."""
    _to_order(answer, 1, 0.6, 0.0, 5)
    _to_order(answer, 5, 0.0, 0.9, 6)
    _to_order(answer, 6, 0.1, 0.7, 200)
    _to_order(answer, 2, 0.5**0.5, 0.0, 4)
    rng = random.Random(seed)
    for _ in range(5):
        k, eps, beta = rng.randint(2, 6), rng.uniform(0, 0.6), rng.uniform(0, 0.5)
        _to_order(answer, k, eps, beta, k + rng.randint(40, 200))
    try:
        answer(2, 0.9, 0.5, 4)
    except ValueError:
        return
    raise AssertionError(
        "For k = 2, eps = 0.9, beta = 0.5, d = 4 no such vector exists: the tail would"
        " exceed the k-th entry. Raise ValueError."
    )
