"""Tests of the exercise of lab 13, Dilating an accurate network."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["safe_budget", "safe_budget_hidden"]

Answer = Callable[[Tensor], Tensor]


def _budget(answer: Answer, f: Tensor) -> Tensor:
    c = answer(f.clone())
    assert c.shape == f.shape[:1], (
        f"For logits {tuple(f.shape)} return one number a row, {tuple(f.shape[:1])},"
        f" not {tuple(c.shape)}."
    )
    return c


def _is_largest(answer: Answer, f: Tensor) -> None:
    c = _budget(answer, f)
    first, second = f.topk(2, dim=1).indices.T
    rows = torch.arange(len(f))
    for factor, changes in ((0.999, False), (1.001, True)):
        g = torch.zeros_like(f)
        g[rows, first], g[rows, second] = -factor * c, factor * c
        changed = (f + g).argmax(1) != first
        assert (changed == changes).all(), (
            f"A branch with entries of size {factor} times your budget"
            f" {'leaves' if changes else 'changes'} the label of"
            f" {int((changed != changes).sum())} of {len(f)} rows."
        )


def safe_budget(answer: Answer) -> None:
    """Test ``safe_budget(f)`` on one row by hand, and on random ones."""
    c = _budget(answer, torch.tensor([[1.0, 5.0, 2.0]], dtype=torch.float64))
    assert abs(float(c) - 1.5) < 1e-12, (
        "For logits 1, 5 and 2 a branch that takes 1.5 from the 5 and gives it to the 2"
        f" reaches a tie: the budget is 1.5, not {float(c):.3f}."
    )
    g = torch.Generator().manual_seed(0)
    _is_largest(answer, torch.randn(50, 3, generator=g, dtype=torch.float64))


def safe_budget_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it on other numbers of classes, negative logits and large ones."""
    g = torch.Generator().manual_seed(seed + 1)
    for classes, shift, scale in ((2, -5.0, 1.0), (10, 0.0, 30.0), (10, -80.0, 3.0)):
        f = torch.randn(100, classes, generator=g, dtype=torch.float64)
        _is_largest(answer, scale * f + shift)
