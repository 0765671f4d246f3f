"""Tests of the exercise of lab 3, Conjugate variables."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["corrected_bound", "corrected_bound_hidden"]

Answer = Callable[[Tensor, Tensor], Tensor | float]


def _bound(
    answer: Answer, low: float, high: float, centre: float, width: float
) -> None:
    t = torch.linspace(low, high, 4001, dtype=torch.float64)
    psi = 3 * (-((t - centre) ** 2) / (4 * width**2)).exp()
    found = float(answer(psi.clone(), t.clone()))
    weight = psi**2 / torch.trapezoid(psi**2, t)
    # By parts: what Cauchy and Schwarz bound the product by.
    mean = torch.trapezoid(t * weight, t)
    slope = -(t - centre) / (2 * width**2)
    right = float(torch.trapezoid((t - mean) * slope * weight, t).abs())
    assert abs(found - right) < 1e-4, (
        f"For a Gaussian at {centre:g} of width {width:g} on [{low:g}, {high:g}] the"
        f" bound is {right:.4f}, not {found:.4f}."
    )


def corrected_bound(answer: Answer) -> None:
    """Test ``corrected_bound(psi, t)`` on a Gaussian in the middle."""
    _bound(answer, -1.0, 1.0, 0.0, 0.2)
    _bound(answer, -0.3, 0.3, 0.0, 0.2)


def corrected_bound_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``corrected_bound(psi, t)`` on Gaussians off the middle."""
    for low, high, centre, width in (
        (0.0, 1.0, 0.2, 0.3),
        (-2.0, 0.5, 0.0, 0.7),
        (1.0, 3.0, 3.0, 0.5),
    ):
        _bound(answer, low, high, centre, width)
    rng = random.Random(seed)
    for _ in range(5):
        low = rng.uniform(-2, 2)
        high = low + rng.uniform(1, 2)
        _bound(answer, low, high, rng.uniform(low, high), rng.uniform(0.3, 0.8))
