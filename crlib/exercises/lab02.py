"""Tests of the exercise of lab 2, Spiking nets with positive weights."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["spike_time", "spike_time_hidden"]

Answer = Callable[[Tensor, Tensor], Tensor | float]


def _fires(answer: Answer, w: Tensor, t: Tensor) -> None:
    s = float(answer(w.clone(), t.clone()))
    reached = float((w * (s - t).clamp(min=0)).sum())
    assert abs(reached - 1) < 1e-9, (
        f"For w = {w.tolist()} and t = {t.tolist()} you say {s:.4f}. The potential is"
        f" {reached:.4f} then, and not one."
    )
    later = float(answer(w.clone(), t + 2))
    assert abs(later - s - 2) < 1e-9, "All inputs two later: the neuron, too."


def spike_time(answer: Answer) -> None:
    """Test ``spike_time(w, t)`` on two inputs, of which one may come too late."""
    w = torch.tensor([1.0, 1.0], dtype=torch.float64)
    _fires(answer, w, torch.tensor([0.0, 0.5], dtype=torch.float64))
    _fires(answer, w, torch.tensor([5.0, 0.0], dtype=torch.float64))


def spike_time_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``spike_time(w, t)`` on random weights and times."""
    g = torch.Generator().manual_seed(seed)
    for m in (1, 2, 6, 20) * 5:
        w = (1.5 * torch.randn(m, generator=g, dtype=torch.float64)).exp()
        _fires(answer, w, 3 * torch.randn(m, generator=g, dtype=torch.float64))
