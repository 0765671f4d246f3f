"""Tests for the exercises of chapter 20, Interventions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "clip_rows",
    "clip_rows_hidden",
    "even",
    "even_hidden",
    "surely_beaten",
    "surely_beaten_hidden",
]


def _normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def _matrix(found: object, w: Tensor) -> Tensor:
    assert isinstance(found, Tensor) and found.shape == w.shape, (
        f"Return a matrix of the shape {tuple(w.shape)}, like the one you are given."
    )
    return found


def _even(answer: Callable[[Tensor, int], Tensor], w: Tensor, k: int) -> None:
    found = _matrix(answer(w.clone(), k), w)
    s = torch.linalg.svdvals(found)
    assert s[k:].abs().max() < 1e-9 if k < len(s) else True, (
        f"The rank should be {k}, and singular value {k + 1} is {float(s[k]):.3g}."
    )
    assert abs(float(found.norm() / w.norm()) - 1) < 1e-9, (
        f"The Frobenius norm should stay {float(w.norm()):.4f}, and it is"
        f" {float(found.norm()):.4f}."
    )
    assert float(s[0] - s[k - 1]) < 1e-9 * float(s[0]), "The gains should be equal."
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    # The same directions, each with its own partner.
    paired = (u[:, :k].T @ found @ vh[:k].T).diagonal()
    assert torch.allclose(paired, s[:k]), (
        "Its singular directions should be the first ones of w, in their pairs."
    )


def even(answer: Callable[[Tensor, int], Tensor]) -> None:
    """Test ``even(w, k)`` on a diagonal matrix."""
    _even(answer, torch.diag(torch.tensor([4.0, 3.0, 0.5])).double(), 2)


def even_hidden(answer: Callable[[Tensor, int], Tensor], seed: int = 0) -> None:
    """Test ``even(w, k)`` on wide and tall matrices, at rank one and at full rank."""
    for h, m, k in ((4, 7, 3), (7, 4, 4), (5, 6, 1)):
        _even(answer, 3 * _normal(h, m, seed=seed + k), k)


def _onto(row: Tensor, c: float) -> Tensor:
    """Return the nearest point of an l1 ball, by sorting."""
    if row.abs().sum() <= c:
        return row
    sizes = row.abs().sort(descending=True).values
    thresholds = (sizes.cumsum(0) - c) / torch.arange(1, len(row) + 1)
    t = thresholds[int((sizes > thresholds).sum()) - 1]
    return row.sign() * (row.abs() - t).clamp_min(0)


def _clip(answer: Callable[[Tensor, float], Tensor], w: Tensor, c: float) -> None:
    found = _matrix(answer(w.clone(), c), w)
    right = torch.stack([_onto(row, c) for row in w])
    norm = float(found.abs().sum(1).max())
    assert norm < c * (1 + 1e-7), f"A row has the l1 norm {norm:.4f}, more than {c}."
    off, least = float((found - w).norm()), float((right - w).norm())
    assert abs(off - least) < 1e-6, (
        f"A matrix with such rows lies {least:.4f} from w, and yours {off:.4f}."
    )


def clip_rows(answer: Callable[[Tensor, float], Tensor]) -> None:
    """Test ``clip_rows(w, c)`` with one row inside the ball and one outside."""
    _clip(answer, torch.tensor([[0.2, -0.3, 0.0], [3.0, -1.0, 0.5]]).double(), 2.0)


def clip_rows_hidden(answer: Callable[[Tensor, float], Tensor], seed: int = 0) -> None:
    """Test ``clip_rows(w, c)`` on random matrices, equal entries and tight balls."""
    for h, m, c in ((3, 8, 1.0), (6, 2, 0.01), (2, 30, 10.0)):
        _clip(answer, 2 * _normal(h, m, seed=seed + m), c)
    _clip(answer, torch.full((2, 4), -1.0).double(), 1.0)


Front = Callable[[Any, Any, Any], Any]


def _front(answer: Front, small: Any, right: Any, far: Any) -> None:
    found = np.asarray(answer(small.copy(), right.copy(), far.copy()))
    assert found.shape == small.shape, (
        f"There are {len(small)} points: return as many booleans, not {found.shape}."
    )
    for i in range(len(small)):
        by = [
            j
            for j in range(len(small))
            if small[j] <= small[i]
            and (right[j] > right[i]).all()
            and (far[j] > far[i]).all()
        ]
        assert bool(found[i]) == bool(by), (
            f"Point {i} is beaten in every seed by {by or 'none'}, and you return"
            f" {bool(found[i])}."
        )


def surely_beaten(answer: Front) -> None:
    """Test ``surely_beaten(...)`` on three points: one surely, one on the mean."""
    small = np.array([10, 20, 20])
    right = np.array([[0.9, 0.9], [0.8, 0.8], [0.7, 0.95]])
    far = np.array([[2.0, 2.0], [1.0, 1.0], [1.0, 1.0]])
    _front(answer, small, right, far)


def surely_beaten_hidden(answer: Front, seed: int = 0) -> None:
    """Test ``surely_beaten(...)`` on random points, ties and beaten by several."""
    rng = np.random.default_rng(seed)
    for n, s in ((12, 2), (30, 3)):
        _front(answer, rng.integers(1, 5, n), rng.random((n, s)), rng.random((n, s)))
    # One other point each seed is not one for all.
    small, ones = np.array([1, 1, 1]), np.ones((3, 2))
    right = np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])
    _front(answer, small, right, right)
    _front(answer, small, ones, ones)
