"""Tests of the exercise of lab 8, The uncertainty principle of networks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crlib import metrics
from crlib.models import MLP

__all__ = ["first_order_radius", "first_order_radius_hidden"]

Answer = Callable[[Any, Tensor, Tensor], Tensor]


def _task(seed: int, *widths: int) -> tuple[Any, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    net = MLP((20, *widths, 4), bias=True, mean=0.5, std=0.3, seed=seed).double()
    x = torch.rand(30, 20, generator=g, dtype=torch.float64)
    with torch.no_grad():
        return net, x, net(x).argmax(1)


class _Times(torch.nn.Module):
    """Multiplies by a number; a module, so that a judge can send it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * z


def _unmoved(answer: Answer, net: Any, x: Tensor, y: Tensor) -> Tensor:
    found = answer(net, x.clone(), y)
    assert found.shape == y.shape, (
        f"One number an input: shape {tuple(y.shape)}, not {tuple(found.shape)}."
    )
    again = answer(torch.nn.Sequential(net, _Times(7)), x.clone(), y)
    assert torch.allclose(found, again, rtol=1e-9), (
        "The radius changes when all logits are multiplied by seven. No label does."
    )
    return found.detach()


def first_order_radius(answer: Answer) -> None:
    """Test ``first_order_radius(model, x, y)`` on a linear network of two classes."""
    net, x, _ = _task(0, 8)
    weight, shift = torch.randn(20, 2, generator=torch.Generator().manual_seed(1)), 0.3
    c = (weight[:, 0] - weight[:, 1]).double()
    linear = torch.nn.Linear(20, 2).double()
    linear.weight.data = weight.T.double()
    linear.bias.data = torch.tensor([shift, 0.0]).double()
    y = linear(x).argmax(1)
    right = (x @ c + shift).abs() / c.norm()
    found = _unmoved(answer, linear, x, y)
    assert torch.allclose(found, right), (
        "Of a linear network of two classes the radius is the distance to the"
        f" hyperplane, {float(right[0]):.4f} for the first input, not"
        f" {float(found[0]):.4f}."
    )
    _unmoved(answer, net, x, net(x).argmax(1))


def first_order_radius_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``first_order_radius(model, x, y)`` along its own direction."""
    for i in range(seed, seed + 3):
        net, x, y = _task(i, 16, 16)
        found = _unmoved(answer, net, x, y)
        z = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(metrics.margin(net(z), y).sum(), z)
        # A small part of the way lowers the margin by the same part, unless a kink of
        # the network lies within it: so it is very small.
        step = 1e-7 * found[:, None] * g / g.norm(dim=1, keepdim=True)
        with torch.no_grad():
            before, after = (metrics.margin(net(v), y) for v in (x, x - step))
        lost = (before - after) / before
        assert torch.allclose(lost, torch.full_like(lost, 1e-7), rtol=1e-3, atol=0), (
            "A tiny part of the way should take the same part of the margin away."
        )
