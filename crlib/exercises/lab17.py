"""Tests of the exercise of lab 17, Random networks."""

import math
import random
from collections.abc import Callable

import torch

__all__ = ["median_radius", "median_radius_hidden"]

Answer = Callable[[int, int, float], float]


def _is(answer: Answer, d: int, k: int, size: float, right: float, rel: float) -> None:
    found = float(answer(d, k, size))
    assert math.isclose(found, right, rel_tol=rel), (
        f"With d = {d}, rank {k} and an input of length {size} the median is"
        f" {right:.4f}, and you say {found:.4f}."
    )


def median_radius(answer: Answer) -> None:
    """Test ``median_radius(d, k, size)`` on the circle and on the sphere."""
    # On a circle the angle is uniform; on a sphere the height is.
    _is(answer, 2, 1, 1.0, math.sqrt(0.5), 1e-6)
    _is(answer, 3, 3, 2.0, 1.0, 1e-6)
    _is(answer, 3, 1, 2.0, 1.0, 1e-6)


def median_radius_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it on many coordinates, against random directions."""
    _is(answer, 10_000, 7, 1.0, 0.67449 / 100, 1e-3)
    g, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    for k in (1, 3, 8):
        d, size = rng.randint(12, 40), rng.uniform(0.5, 3)
        seen = torch.linalg.qr(torch.randn(20_000, d, k, generator=g)).Q
        w = (seen @ torch.randn(20_000, k, 1, generator=g))[:, :, 0]
        near = w[:, 0].abs() / w.norm(dim=1)  # An input along an axis.
        _is(answer, d, k, size, size * float(near.median()), 0.05)
