"""Tests of the exercise of lab 11, Sparse attacks and truncation."""

import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

__all__ = ["worst_trimmed", "worst_trimmed_hidden"]

Answer = Callable[[Tensor, int, int], Tensor | float]


def _least(answer: Answer, u: Tensor, t: int, s: int) -> None:
    d, best = len(u), math.inf
    # To lower a sum, an entry is sent far down.
    for places in combinations(range(d), s):
        changed = u.clone()
        changed[list(places)] = -1e6
        best = min(best, float(changed.sort().values[t : d - t].sum()))
    found = float(answer(u.clone(), t, s))
    assert math.isclose(found, best, rel_tol=1e-9, abs_tol=1e-9), (
        f"For u = {u.tolist()}, t = {t} and s = {s} all choices of entries give"
        f" {best:.4f} at least, and you say {found:.4f}."
    )


def worst_trimmed(answer: Answer) -> None:
    """Test ``worst_trimmed(u, t, s)`` on five entries."""
    u = torch.tensor([3.0, -1.0, 4.0, 1.0, 5.0], dtype=torch.float64)
    _least(answer, u, 1, 0)
    _least(answer, u, 1, 1)
    _least(answer, u, 2, 1)


def worst_trimmed_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it on random entries of all signs."""
    g = torch.Generator().manual_seed(seed)
    for d, t, s in ((5, 2, 2), (7, 2, 1), (8, 3, 3), (9, 3, 2), (4, 0, 0)):
        for _ in range(5):
            u = torch.randn(d, generator=g, dtype=torch.float64)
            _least(answer, u, t, s)
