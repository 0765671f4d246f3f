"""Tests of the exercise of lab 9, Attacks on fragile neurons."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["kept_gain", "kept_gain_hidden"]

Answer = Callable[[Tensor, Tensor], Tensor | float]


def _kept(answer: Answer, w: Tensor, slope: Tensor) -> None:
    found = float(answer(w.clone(), slope.clone()))
    # Steps written out: one for all neurons, then one for each.
    common = (slope @ w).sign()
    together = float(slope @ (w @ common))
    alone = sum(
        float(s * (row @ (s * row).sign())) for s, row in zip(slope, w, strict=True)
    )
    assert abs(found - together / alone) < 1e-9, (
        f"For w = {w.tolist()} and slope = {slope.tolist()} the one step gains"
        f" {together:.4f}, separate steps {alone:.4f}: not {found:.4f}."
    )


def kept_gain(answer: Answer) -> None:
    """Test ``kept_gain(w, slope)`` on two neurons that agree, differ, and cancel."""
    w = torch.tensor([[1.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    for slope in ([1.0, 1.0], [1.0, -1.0]):
        _kept(answer, w, torch.tensor(slope, dtype=torch.float64))
    pair = torch.tensor([[1.0, -2.0], [-1.0, 2.0]], dtype=torch.float64)
    _kept(answer, pair, torch.ones(2, dtype=torch.float64))


def kept_gain_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``kept_gain(w, slope)`` on random layers with neurons that are off."""
    g = torch.Generator().manual_seed(seed)
    for h, m in ((1, 5), (6, 4), (20, 30)):
        w = torch.randn(h, m, generator=g, dtype=torch.float64)
        slope = torch.randn(h, generator=g, dtype=torch.float64)
        slope[1::3] = 0
        _kept(answer, w, slope)
