"""Tests of the exercise of lab 16, Hierarchical learning."""

import math
from collections.abc import Callable

import torch

__all__ = ["kernel_floor", "kernel_floor_hidden"]

Answer = Callable[[int, int, int], float]


def _is(answer: Answer, d: int, q: int, n: int, right: float) -> None:
    found = answer(d, q, n)
    assert math.isclose(found, right, abs_tol=1e-9), (
        f"With d = {d}, q = {q} and n = {n} the floor is {right:.4f}, and you say"
        f" {found:.4f}."
    )


def kernel_floor(answer: Answer) -> None:
    """Test ``kernel_floor(d, q, n)`` where the dimension is known otherwise."""
    _is(answer, 7, 1, 3, 1 - 3 / 7)
    _is(answer, 2, 4, 1, 1 - 1 / 2)
    _is(answer, 3, 4, 3, 1 - 3 / 9)


def kernel_floor_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it beyond the dimension, and against a count of independent harmonics."""
    _is(answer, 3, 2, 9, 0.0)
    g = torch.Generator().manual_seed(seed)
    d = int(torch.randint(3, 7, (1,), generator=g))
    x = torch.randn(120, d, generator=g, dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    u = x @ x.T
    # Harmonics of degree three around 120 axes, on d coordinates.
    rank = int(torch.linalg.matrix_rank(u**3 - 3 / (d + 2) * u, rtol=1e-9))
    n = int(torch.randint(1, rank, (1,), generator=g))
    _is(answer, d, 3, n, 1 - n / rank)
