"""The layers that are made compressible, and their weights as matrices."""

from typing import Any

from torch import Tensor, nn

from crlib.models import LowRankConv2d, LowRankLinear, weight_layers

LOW_RANK = (LowRankLinear, LowRankConv2d)


def hidden(model: nn.Module) -> list[Any]:
    """Return the layers that are made compressible: all with weights but the head."""
    layers = weight_layers(model)[:-1]
    if not layers:
        raise ValueError("The model has no hidden layer: its only layer is the head.")
    return layers


def matrices(model: nn.Module) -> list[Tensor]:
    """Return the weights of the hidden layers as matrices ``(h, m)``, with a graph."""
    return [layer.weight.flatten(1) for layer in hidden(model)]


def stored(layer: Any) -> tuple[Tensor, ...]:
    """Return the parameters that make the weight: one, or two factors."""
    if isinstance(layer, LOW_RANK):
        return layer.left, layer.right
    return (layer.weight,)


def dense(model: nn.Module) -> list[Tensor]:
    """Return the weights of the hidden layers, to be changed in place."""
    layers = hidden(model)
    for layer in layers:
        if isinstance(layer, LOW_RANK):
            raise ValueError("This constraint needs full layers, not low-rank ones.")
    return [layer.weight.data for layer in layers]
