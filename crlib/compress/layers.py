"""The layers that are made compressible, and their weights as matrices."""

from collections import Counter
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from crlib.models import LowRankConv2d, LowRankLinear, order_of, weight_layers

LOW_RANK = (LowRankLinear, LowRankConv2d)
# What has weights of another shape: left out, it would be left as it is in silence.
STRANGE = (
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Bilinear,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)


def head_of(model: nn.Module) -> Any:
    """Return the layer with weights that runs last.

    Where the order cannot be read from the code (by ``torch.fx``), it is the one that
    was registered last.

    Raises:
        ValueError: no layer with weights.
    """
    layers, name = weight_layers(model), order_of(model).head
    if not layers:
        raise ValueError("The model has no layer with weights that is known here.")
    return layers[-1] if name is None else model.get_submodule(name)


def hidden(model: nn.Module) -> list[Any]:
    """Return the layers that are made compressible: all with weights but the head.

    Raises:
        ValueError: a layer that is not known, no hidden layer, or one that has a
            parameter of the head.
    """
    refuse_strange(model)
    head = head_of(model)
    layers = [layer for layer in weight_layers(model) if layer is not head]
    if not layers:
        raise ValueError("The model has no hidden layer: its only layer is the head.")
    own = {id(p) for p in head.parameters()}
    if any(id(p) in own for layer in layers for p in layer.parameters()):
        raise ValueError(
            "The head shares a parameter with a hidden layer, so no change would leave"
            " it alone: give it its own, head.weight ="
            " nn.Parameter(head.weight.detach().clone())."
        )
    return layers


def refuse_strange(model: nn.Module) -> None:
    """Refuse a model with weights that no function of this room knows."""
    for name, module in model.named_modules():
        if isinstance(module, STRANGE):
            raise ValueError(
                f"{name or 'The model'} is {type(module).__name__}, which is not known"
                " here: layers are nn.Linear, nn.Conv2d and their low-rank versions."
            )


def refuse_derived(model: nn.Module) -> None:
    """Refuse layers whose weight is computed from other parameters at each pass.

    A change of such a weight is lost in silence.
    """
    known = set(weight_layers(model))
    for name, layer in model.named_modules():
        if layer not in known and not isinstance(layer, _ConvNd):
            continue
        names = ("left", "right") if isinstance(layer, LOW_RANK) else ("weight",)
        for part in (*names, "bias"):
            plain = part in layer._parameters or getattr(layer, part) is None
            if not plain:
                raise ValueError(
                    f"The {part} of {name or 'the model'} is computed from other"
                    " parameters, so a change of it would be lost. Bake it in first:"
                    " torch.nn.utils.parametrize.remove_parametrizations(layer,"
                    f" {part!r}), torch.nn.utils.prune.remove(layer, {part!r}) or"
                    " torch.nn.utils.remove_weight_norm(layer)."
                )


def norms_after(model: nn.Module) -> dict[nn.Module, Any]:
    """Return the batch normalisation that reads a layer, for the layers that have one.

    Raises:
        ValueError: there is batch normalisation, and which layer it follows cannot be
            read from the code; or one behind a layer has no channel for each of its
            rows, or is not alone there.
    """
    order = order_of(model)
    if order.head is None and any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise ValueError(
            "The model has batch normalisation, and torch.fx cannot tell behind which"
            " layer: prune weights, not rows, or write its forward without conditions"
            " on the data."
        )
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    for name in order.norms.values():
        parts = model.get_submodule(name).parameters()
        if name in order.shared or any(owners[id(p)] > 1 for p in parts):
            raise ValueError(
                f"The batch normalisation {name!r} cannot switch rows off: it must read"
                " one layer, alone, with a channel for each row, and have parameters of"
                " its own. Prune weights, not rows."
            )
    return {
        model.get_submodule(layer): model.get_submodule(norm)
        for layer, norm in order.norms.items()
    }


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
    refuse_derived(model)
    layers = hidden(model)
    for layer in layers:
        if isinstance(layer, LOW_RANK):
            raise ValueError("This constraint needs full layers, not low-rank ones.")
    return [layer.weight.data for layer in layers]
