"""Tests of the exercise of lab 10, Stochastic networks of infinite width."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["dropout_variance", "dropout_variance_hidden"]

Answer = Callable[[Tensor, float, int], Tensor | float]


def _variance(answer: Answer, s: Tensor, lam: float, h: int) -> None:
    found = float(answer(s.clone(), lam, h))
    m = _descended(s.sort(descending=True).values[:h], lam / h)
    right = lam / h * float(m.sum()) ** 2
    assert math.isclose(found, right, rel_tol=1e-6), (
        f"For s = {s.tolist()}, lam = {lam:g} and h = {h} projected gradient descent"
        f" ends at a variance of {right:.6f}, not {found:.6f}."
    )


def _descended(s: Tensor, c: float) -> Tensor:
    """Minimise the squared distance to ``s`` plus ``c`` times the squared sum."""
    m, step = torch.zeros_like(s), 0.5 / (1 + c * len(s))
    for _ in range(400):
        m = (m - step * (2 * (m - s) + 2 * c * m.sum())).clamp(min=0)
    return m


def dropout_variance(answer: Answer) -> None:
    """Test ``dropout_variance(s, lam, h)`` on three singular values."""
    s = torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64)
    for lam, h in ((1.0, 4), (0.25, 4), (3.0, 50)):
        _variance(answer, s, lam, h)


def dropout_variance_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it on random values, on narrow networks, and far out."""
    g = torch.Generator().manual_seed(seed)
    for h in (1, 2, 3, 8, 40):
        s = torch.randn(6, generator=g, dtype=torch.float64).exp()
        _variance(answer, s, 0.5, h)
    equal = torch.ones(4, dtype=torch.float64)
    _variance(answer, equal, 1.0, 2)  # No more are kept than there are neurons.
    s = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    far = 10**7 * float(answer(s.clone(), 2.0, 10**7))
    assert math.isclose(far, 2 * 3.5**2, rel_tol=1e-3), (
        f"For a very wide network h V should be lam (sum of s)^2, not {far:.4f}."
    )
