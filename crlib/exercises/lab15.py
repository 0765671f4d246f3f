"""Tests of the exercise of lab 15, Bias or variance?"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["split", "split_hidden"]

Answer = Callable[[Tensor, Tensor], tuple[Tensor | float, Tensor | float]]


def _drawn(m: int, n: int, k: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(m, n, k, generator=g, dtype=torch.float64)).softmax(2)
    return p, torch.randint(k, (n,), generator=g)


def _adds_up(answer: Answer, p: Tensor, y: Tensor) -> None:
    bias, variance = map(float, answer(p.clone(), y.clone()))
    loss = float(-p[:, torch.arange(len(y)), y].log().mean())
    assert math.isclose(bias + variance, loss, rel_tol=1e-9), (
        f"The mean cross-entropy is {loss:.4f}, and your parts {bias:.4f} and"
        f" {variance:.4f} add up to {bias + variance:.4f}."
    )


def split(answer: Answer) -> None:
    """Test ``split(p, y)``: the parts add up, and equal networks have no variance."""
    p, y = _drawn(6, 40, 4, seed=0)
    _adds_up(answer, p, y)
    variance = float(answer(p[:1].repeat(5, 1, 1), y)[1])
    assert abs(variance) < 1e-9, (
        f"Five equal networks have no variance, and you say {variance:.4f}."
    )
    variance = float(answer(p, y)[1])
    assert variance > 0.01, (
        f"The six networks differ, and you say that their variance is {variance:.4f}."
    )


def split_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it by hand on two networks, and on other numbers of classes."""
    p = torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]], dtype=torch.float64)
    y = torch.tensor([0])
    # The geometric means are the roots of 0.4 and of 0.1: two to one.
    bias, variance = map(float, answer(p, y))
    assert math.isclose(bias, math.log(1.5), rel_tol=1e-9), (
        f"For (0.8, 0.2) and (0.5, 0.5) the centre gives 2/3 to the label: the bias is"
        f" {math.log(1.5):.4f}, and you say {bias:.4f}."
    )
    _adds_up(answer, p, y)
    for m, k in ((2, 10), (9, 3)):
        _adds_up(answer, *_drawn(m, 30, k, seed=seed + m))
