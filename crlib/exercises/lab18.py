"""Tests of the exercise of lab 18, Tensor methods."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["dropped_terms", "dropped_terms_hidden"]

Answer = Callable[[Tensor, int], Tensor | float]


def _is(answer: Answer, weights: Tensor, k: int, right: float) -> None:
    found = float(answer(weights.clone(), k))
    assert math.isclose(found, right, rel_tol=1e-9, abs_tol=1e-12), (
        f"With the weights {weights.tolist()} and k = {k} the bound is {right:.4f}, and"
        f" you say {found:.4f}."
    )


def dropped_terms(answer: Answer) -> None:
    """Test ``dropped_terms(weights, k)`` on four terms."""
    weights = torch.tensor([3.0, -2.0, 1.0, 0.5], dtype=torch.float64)
    _is(answer, weights, 2, 1.5)
    _is(answer, weights, 0, 6.5)
    _is(answer, weights, 4, 0.0)


def dropped_terms_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it in any order, and against parallel terms, where it is attained."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(5):
        weights = torch.rand(6, generator=g, dtype=torch.float64)
        a, b, c = (torch.randn(5, generator=g, dtype=torch.float64) for _ in range(3))
        one = torch.einsum("a,b,c->abc", a / a.norm(), b / b.norm(), c / c.norm())
        least = weights.sort().values[:3]
        rest = sum(v * one for v in least)
        norm = torch.linalg.matrix_norm(torch.as_tensor(rest).flatten(1), 2)
        _is(answer, weights, 3, float(norm))
