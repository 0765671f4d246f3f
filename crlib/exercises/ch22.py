"""Tests for the exercises of chapter 22, The debate."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

from crlib import metrics

__all__ = [
    "change",
    "change_hidden",
    "relative_norms",
    "relative_norms_hidden",
    "scattered",
    "scattered_hidden",
]


def _norms(answer: Callable[[Tensor], tuple[float, float]], mask: Tensor) -> None:
    w, full = mask.double(), torch.ones(mask.shape, dtype=torch.float64)
    w *= full.norm() / w.norm()
    found = answer(mask.clone())
    assert len(found) == 2, "Return two numbers: for linf, then for l1."
    for norm, value in zip(("linf", "l1"), found, strict=True):
        right = metrics.operator_norm(w, norm=norm) / metrics.operator_norm(
            full, norm=norm
        )
        # A learner who counts in single precision is right, too.
        assert abs(float(value) - right) < 1e-5 * right, (
            f"A pattern {tuple(mask.shape)} with {int(mask.sum())} entries has in"
            f" {norm} {right:.4f} of the norm of the full one, and you return"
            f" {float(value):.4f}."
        )


def relative_norms(answer: Callable[[Tensor], tuple[float, float]]) -> None:
    """Test ``relative_norms(mask)`` on two rows of eight."""
    mask = torch.zeros(8, 12, dtype=torch.bool)
    mask[:2] = True
    _norms(answer, mask)


def relative_norms_hidden(
    answer: Callable[[Tensor], tuple[float, float]], seed: int = 0
) -> None:
    """Test ``relative_norms(mask)`` on columns, on chance, and on the full pattern."""
    g = torch.Generator().manual_seed(seed)
    columns = torch.zeros(6, 10, dtype=torch.bool)
    columns[:, 3] = True
    for mask in (
        columns,
        torch.rand(7, 9, generator=g) < 0.3,
        torch.ones(3, 5, dtype=torch.bool),
    ):
        _norms(answer, mask)


def _scattered(
    answer: Callable[[int, int, int], Tensor], h: int, m: int, n: int
) -> None:
    found = answer(h, m, n)
    assert isinstance(found, Tensor) and found.shape == (h, m), (
        f"For h = {h} and m = {m} return a tensor ({h}, {m})."
    )
    assert found.dtype == torch.bool, "Return a mask: True where an entry stays."
    rows, columns = (found.sum(side) for side in (1, 0))
    assert (rows == n).all(), (
        f"Each row keeps {n}: yours keep {int(rows.min())} to {int(rows.max())}."
    )
    assert (columns == h * n // m).all(), (
        f"Each column keeps {h * n // m}: yours keep {int(columns.min())} to"
        f" {int(columns.max())}."
    )


def scattered(answer: Callable[[int, int, int], Tensor]) -> None:
    """Test ``scattered(h, m, n)`` on a small square."""
    _scattered(answer, 4, 4, 2)


def scattered_hidden(answer: Callable[[int, int, int], Tensor], seed: int = 0) -> None:
    """Test ``scattered(h, m, n)`` on wide, tall and full patterns."""
    for h, m, n in ((4, 12, 3), (12, 8, 2), (16, 16, 1), (3, 3, 3), (32, 98, 49)):
        _scattered(answer, h, m, n)
    rng = random.Random(seed)
    for _ in range(10):
        n, q, p = (rng.randint(1, 7) for _ in range(3))
        _scattered(answer, p * q, n * q, n)


def _change(answer: Callable[..., float], w: Tensor, k: int, t: float) -> None:
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    kept = torch.where(torch.arange(len(s)) < k, 1.0, 1 - t)
    v = u * (s * kept) @ vh
    for scale, factor in (("free", 1.0), ("fixed", float(w.norm() / v.norm()))):
        right = factor * metrics.operator_norm(v) / metrics.operator_norm(w)
        found = float(answer(w.clone(), k, t, scale))
        assert abs(found - right) < 1e-9, (
            f"With k = {k}, t = {t} and {scale} scale the norm becomes {right:.4f}"
            f" times itself, and you return {found:.4f}."
        )


def change(answer: Callable[..., float]) -> None:
    """Test ``change(w, k, t, scale)`` on a diagonal matrix."""
    _change(answer, torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()), 1, 1.0)


def change_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``change(w, k, t, scale)`` on random matrices, and where t is zero."""
    g = torch.Generator().manual_seed(seed)
    for h, m, k, t in ((5, 8, 2, 0.5), (7, 4, 1, 0.9), (6, 6, 6, 0.7), (4, 9, 2, 0)):
        _change(answer, torch.randn(h, m, generator=g).double(), k, t)
