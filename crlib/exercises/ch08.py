"""Tests for the exercises of chapter 8, Average and worst case."""

import random
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from crlib import theory
from crlib.exercises import close

__all__ = [
    "any_direction",
    "any_direction_hidden",
    "best_mask",
    "best_mask_hidden",
    "typical",
    "typical_hidden",
]


def typical(answer: Callable[[int, int], float]) -> None:
    """Test ``typical(h, k)`` where half of the directions are strong, and at rank 1."""
    close(answer(20, 10), 1.0, "For h = 20, k = 10 the quotient")
    one = 200 * stats.beta.median(0.5, 99.5)
    close(answer(200, 1), one, "For h = 200, k = 1 the quotient")


def typical_hidden(answer: Callable[[int, int], float], seed: int = 0) -> None:
    """Test ``typical(h, k)`` at full rank and on small layers."""
    close(answer(7, 7), 1.0, "With k = h the sensitivity is constant; the quotient")
    close(answer(1, 1), 1.0, "For h = k = 1 the quotient")
    # One direction of two: the squared cosine of a uniform angle has median 1/2.
    close(answer(2, 1), 1.0, "For h = 2, k = 1 the quotient")
    # Two of four: a Beta(1, 1) law is uniform.
    close(answer(4, 2), 1.0, "For h = 4, k = 2 the quotient")
    # Two of three: a coordinate of the sphere is uniform, its square has median 1/4.
    close(answer(3, 2), 1.5 * 0.75, "For h = 3, k = 2 the quotient")
    rng = random.Random(seed)
    for _ in range(5):
        h = rng.randint(5, 300)
        k = rng.randint(1, h - 1)
        right = h / k * stats.beta.median(k / 2, (h - k) / 2)
        close(answer(h, k), right, f"For h = {h}, k = {k} the quotient")


def _largest(answer: Callable[..., Tensor], w: Tensor, a: Tensor, b: Tensor) -> None:
    found = answer(w.clone(), a.clone(), b.clone())
    assert isinstance(found, Tensor) and found.shape == w.shape, (
        f"A mask for a matrix {tuple(w.shape)} has the same shape."
    )
    found = found.to(w.dtype)
    assert ((found == 0) | (found == 1)).all(), "A mask holds zeros and ones only."
    best = float((b[:, None] * w * a).clamp_min(0).sum())
    close(b @ (found * w) @ a, best, "The number b^T (M o W) a")


def best_mask(answer: Callable[..., Tensor]) -> None:
    """Test ``best_mask(w, a, b)`` with positive vectors, and on the Hadamard matrix."""
    w = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 2.0]])
    _largest(answer, w, torch.ones(3), torch.ones(2))
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    h = torch.kron(h, h)
    ones = torch.ones(4, dtype=torch.float64)
    _largest(answer, h, ones, ones)
    norm = float(torch.linalg.matrix_norm(answer(h, ones, ones) * h / 2, ord=2))
    close(norm, theory.mask_amplification(4).value, "The norm for the Hadamard matrix")


def best_mask_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``best_mask(w, a, b)`` with vectors of any signs, and zeros."""
    g = torch.Generator().manual_seed(seed)
    for h, m in ((3, 5), (6, 2), (1, 4)):
        w = torch.randn(h, m, generator=g, dtype=torch.float64)
        a = torch.randn(m, generator=g, dtype=torch.float64)
        b = torch.randn(h, generator=g, dtype=torch.float64)
        _largest(answer, w, a, b)
        _largest(answer, w, -a, b)
        b[0] = 0
        _largest(answer, w, a, b)


def any_direction(answer: Callable[..., float]) -> None:
    """Test ``robust_accuracy`` for directions of length one."""
    mean = torch.tensor([3.0, 4.0])
    right = float(stats.norm.cdf(4 / 2))
    close(answer(mean / 5, mean, 2.0, 1.0), right, "Along the mean it")
    right = float(stats.norm.cdf((3 - 1) / 2))
    first = torch.tensor([1.0, 0.0])
    close(answer(first, mean, 2.0, 1.0), right, "Along the first input it")


def any_direction_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``robust_accuracy`` for directions of any length and sign."""
    g = torch.Generator().manual_seed(seed + 1)
    for eps in (0.0, 0.3, 2.0):
        mean, w = (torch.randn(6, generator=g, dtype=torch.float64) for _ in range(2))
        right = float(stats.norm.cdf((float(w @ mean / w.norm()) - eps) / 0.7))
        for scale in (1.0, 0.01, 30.0):
            close(answer(scale * w, mean, 0.7, eps), right, f"At eps = {eps} it")
    best = theory.rank_one_optimal(mean, torch.ones(2), noise=0.7)
    close(answer(5 * mean, mean, 0.7, 0.5), best.robust_accuracy(0.5), "Along mu it")
