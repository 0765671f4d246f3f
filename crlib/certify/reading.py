"""A network read as the steps that it computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crlib.metrics import convolution
from crlib.models import MLP, LowRankLinear, Normalize

KNOWN = (Normalize, nn.Linear, LowRankLinear, nn.Conv2d, nn.ReLU, nn.Flatten)
ABSENT = (nn.Identity, nn.Dropout)


def _modules(model: nn.Module) -> list[nn.Module]:
    """Return the layers in the order in which they are applied."""
    if type(model) is MLP:
        layers = [model.normalize, nn.Flatten()]
        for layer in model.layers:
            layers += [layer, nn.ReLU()]
        return layers[:-1]
    for kind in (nn.Sequential, *ABSENT, *KNOWN):
        # A subclass may compute something else: its forward must be the known one.
        if isinstance(model, kind) and type(model).forward is kind.forward:
            if kind is nn.Sequential:
                return [
                    layer for child in model.children() for layer in _modules(child)
                ]
            return [] if kind in ABSENT else [model]
    names = ", ".join(kind.__name__ for kind in (MLP, nn.Sequential, *KNOWN, *ABSENT))
    raise ValueError(
        f"{type(model).__name__} is not a module that can be bounded: use {names}."
    )


def layers_of(
    model: nn.Module, input_shape: Sequence[int]
) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """Return each layer with the shape of its input, without the batch."""
    found = []
    modules = _modules(model)
    like = next(iter(model.parameters()), torch.zeros(()))
    v = like.new_zeros(1, *input_shape)
    for module in modules:
        found.append((module, tuple(v.shape[1:])))
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (
            1,
            -1,
        ):
            raise ValueError("nn.Flatten must flatten all but the batch: (1, -1).")
        try:
            with torch.no_grad():
                v = module(v)
        except RuntimeError as error:
            raise ValueError(
                f"The model does not take inputs {tuple(input_shape)}: {error}"
            ) from None
    if v.ndim != 2 or v.shape[1] < 2:
        raise ValueError(
            f"The model returns {tuple(v.shape)} for one input of"
            f" {tuple(input_shape)}: it must return logits (1, K), K at least 2."
        )
    return found


@dataclass(frozen=True)
class Affine:
    """``apply(v, weight) + bias``; ``back`` is the transpose of ``apply``."""

    weight: Tensor
    bias: Tensor
    apply: Callable[[Tensor, Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, v: Tensor) -> Tensor:
        return self.apply(v, self.weight) + self.bias


RELU = None
Steps = list[Affine | None]


def _affine(layer: Any, shape: tuple[int, ...]) -> Affine | None:
    """Return one layer, with inputs of a shape, as it computes in float64."""
    if isinstance(layer, nn.ReLU):
        return RELU
    if isinstance(layer, nn.Flatten):
        one = torch.ones((), dtype=torch.float64)
        return Affine(
            one, one - 1, lambda v, w: v.flatten(1), lambda g, w: g.view(-1, *shape)
        )
    if isinstance(layer, Normalize):
        channels = (-1,) + (1,) * (len(shape) - 1) if layer.mean.ndim else ()
        scale = 1 / layer.std.double().view(channels)
        shift = -layer.mean.double().view(channels) * scale
        return Affine(scale, shift, torch.mul, torch.mul)
    if isinstance(layer, LowRankLinear):
        # Multiplied in float32, the product would carry its rounding.
        weight = layer.left.detach().double() @ layer.right.detach().double()
    else:
        weight = layer.weight.detach().double()
    bias = weight.new_zeros(len(weight))
    if layer.bias is not None:
        bias = layer.bias.detach().double()
    if isinstance(layer, nn.Conv2d):
        forth, back, _ = convolution(layer, shape)
        return Affine(weight, bias.view(-1, 1, 1), forth, back)
    return Affine(weight, bias, lambda v, w: v @ w.T, lambda g, w: g @ w)


def steps_of(model: nn.Module, x: Tensor) -> Steps:
    """Return the network as affine maps and ReLUs, in float64."""
    return [_affine(*layer) for layer in layers_of(model, x.shape[1:])]


def logits_of(steps: Steps, x: Tensor) -> Tensor:
    """Return what the steps make of ``x``, ``(N, ...)``."""
    v = x.double()
    for step in steps:
        v = v.clamp_min(0) if step is RELU else step(v)
    return v
