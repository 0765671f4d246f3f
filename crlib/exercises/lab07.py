"""Tests of the exercise of lab 7, The essence of adversarial perturbations."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

__all__ = ["mean_norm", "mean_norm_hidden"]

Answer = Callable[[Tensor, int], Tensor | float]


def _over_all(answer: Answer, deltas: Tensor) -> None:
    m = len(deltas)
    for k in range(1, m + 1):
        found = float(answer(deltas.clone(), k))
        means = [deltas[list(few)].mean(0) for few in combinations(range(m), k)]
        right = float(torch.stack(means).square().sum(1).mean())
        assert abs(found - right) < 1e-9 * (1 + right), (
            f"For averages of {k} of {m} you say {found:.4f}; all choices together"
            f" give {right:.4f}."
        )


def mean_norm(answer: Answer) -> None:
    """Test ``mean_norm(deltas, k)`` on two vectors, and on three."""
    _over_all(answer, torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    three = [[1.0, 2.0], [3.0, 0.0], [-1.0, 1.0]]
    _over_all(answer, torch.tensor(three, dtype=torch.float64))


def mean_norm_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``mean_norm(deltas, k)`` on random vectors with a shared part."""
    g = torch.Generator().manual_seed(seed)
    for m in (2, 4, 6):
        deltas = torch.randn(m, 30, generator=g, dtype=torch.float64)
        _over_all(answer, deltas + torch.randn(30, generator=g, dtype=torch.float64))
