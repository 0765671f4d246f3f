"""Tests of the exercise of lab 14, Neural differential equations."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["growth", "growth_hidden"]

Answer = Callable[[Tensor, float], float]


def _stretch(j: Tensor, time: float) -> float:
    return float(torch.linalg.matrix_norm(torch.linalg.matrix_exp(time * j), 2))


def _is(answer: Answer, j: Tensor, time: float, right: float, what: str) -> None:
    found = float(answer(j.clone(), time))
    assert math.isclose(found, right, rel_tol=1e-8), (
        f"For {what} and time {time} the bound is {right:.4f}, and you say {found:.4f}."
    )


def growth(answer: Answer) -> None:
    """Test ``growth(j, time)`` on a rotation, a diagonal and a shear."""
    turn = torch.tensor([[0.0, -3.0], [3.0, 0.0]], dtype=torch.float64)
    _is(answer, turn, 2.0, 1.0, "a rotation")
    fall = torch.diag(torch.tensor([-1.0, -2.0], dtype=torch.float64))
    _is(answer, fall, 1.0, math.exp(-1), "the diagonal matrix -1, -2")
    shear = torch.tensor([[-1.0, 10.0], [0.0, -1.0]], dtype=torch.float64)
    found, true = float(answer(shear, 0.5)), _stretch(shear, 0.5)
    assert found >= true, (
        "The flow of [[-1, 10], [0, -1]] for time 0.5 stretches by"
        f" {true:.3f}, and you allow {found:.3f}."
    )


def growth_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it on random matrices: a bound, and equal where the matrix is symmetric."""
    g = torch.Generator().manual_seed(seed)
    for d in (2, 4, 7):
        j = torch.randn(d, d, generator=g, dtype=torch.float64)
        for time in (0.01, 0.3, 1.0):
            found, true = float(answer(j, time)), _stretch(j, time)
            assert found >= true * (1 - 1e-9), (
                f"A flow stretches by {true:.4f}, and you allow {found:.4f}."
            )
        even = j + j.T - d * torch.eye(d, dtype=torch.float64)
        _is(answer, even, 0.7, _stretch(even, 0.7), "a symmetric matrix")
        top = float(torch.linalg.eigvalsh((j + j.T) / 2)[-1])
        _is(answer, j, 1.0, math.exp(top), "a random matrix")
