"""A network read as the steps that it computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crlib.certify.bends import CURVES, Bend, Curve, Highest
from crlib.metrics import convolution
from crlib.models import (
    MLP,
    LowRankConv2d,
    LowRankLinear,
    Normalize,
    Residual,
    ResNet,
    evaluating,
    runs_as,
)

# Linear, and nothing in them is negative.
POOLS = (
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.CircularPad2d,
)
NORMALISERS = (nn.BatchNorm1d, nn.BatchNorm2d)
LINEAR = (nn.Linear, LowRankLinear, nn.Conv2d, LowRankConv2d)
BENDS = (nn.ReLU, nn.LeakyReLU, *CURVES, nn.MaxPool2d)
KNOWN = (Normalize, *LINEAR, *NORMALISERS, *POOLS, *BENDS, nn.Flatten, Residual)
ABSENT = (nn.Identity, nn.Dropout)


def _modules(model: Any) -> list[nn.Module]:
    """Return the layers in the order in which they are applied."""
    if type(model) is MLP:
        layers = [model.normalize, nn.Flatten()]
        for layer in model.layers:
            layers += [layer, nn.ReLU()]
        return layers[:-1]
    if type(model) is ResNet:
        return [layer for part in model.parts() for layer in _modules(part)]
    kinds: tuple[type[Any], ...] = (nn.Sequential, *KNOWN, *ABSENT)
    kind = runs_as(model, kinds)
    if kind is nn.Sequential:
        # Not of children(), which names a module that runs twice once.
        return [layer for child in model for layer in _modules(child)]
    if kind is not None:
        return [] if kind in ABSENT else [model]
    names = ", ".join(kind.__name__ for kind in (MLP, ResNet, *kinds))
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
        _check(module)
        try:
            with torch.no_grad(), evaluating(module):
                if isinstance(module, Residual):
                    sizes = [tuple(part(v).shape[1:]) for part in module.children()]
                    if sizes[0] != sizes[-1]:
                        raise ValueError(
                            "The two branches of a Residual return"
                            f" {sizes[0]} and {sizes[-1]}: make them alike."
                        )
                v = module(v)
        except RuntimeError as error:
            raise ValueError(
                f"The model does not take inputs {tuple(input_shape)}: {error}"
            ) from None
    return found


def _check(layer: nn.Module) -> None:
    """Refuse what a known layer can be set to and no rule covers."""
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
        raise ValueError("nn.Flatten must flatten all but the batch: (1, -1).")
    if isinstance(layer, nn.LeakyReLU) and not 0 <= layer.negative_slope <= 1:
        raise ValueError(f"{layer}: only a slope in [0, 1] can be bounded.")
    if isinstance(layer, nn.GELU) and layer.approximate != "none":
        raise ValueError(f"{layer}: only approximate='none' can be bounded.")
    if isinstance(layer, nn.MaxPool2d) and (layer.ceil_mode or layer.return_indices):
        raise ValueError(
            f"{layer}: it can be bounded without ceil_mode and return_indices."
        )
    if isinstance(layer, nn.AvgPool2d) and (layer.divisor_override or 1) < 0:
        raise ValueError(f"{layer}: only a positive divisor can be bounded.")
    if isinstance(layer, nn.ZeroPad2d) and layer.value:
        raise ValueError(f"{layer} pads with {layer.value}: only zeros can be bounded.")
    if isinstance(layer, NORMALISERS) and layer.running_mean is None:
        raise ValueError(
            f"{layer} keeps no running statistics, so an answer depends on the"
            " rest of the batch: nothing can be bounded."
        )


@dataclass(frozen=True)
class Affine:
    """``apply(v, weight) + bias``; ``back`` is the transpose of ``apply``."""

    weight: Tensor
    bias: Tensor
    apply: Callable[[Tensor, Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, v: Tensor) -> Tensor:
        return self.apply(v, self.weight) + self.bias

    def rounded(self, v: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and what an error of the input becomes with its own."""
        own = self.apply(v.abs(), self.weight.abs()) + self.bias.abs()
        # Errors of many inputs are not all of one sign: their squares add up.
        carried = self.apply(error.square(), self.weight.square()).sqrt()
        return self(v), torch.hypot(carried, own)


@dataclass(frozen=True)
class Sum:
    """The sum of what two lists of steps make of the same input."""

    branches: tuple["Steps", "Steps"]

    def __call__(self, v: Tensor) -> Tensor:
        one, other = (logits_of(steps, v) for steps in self.branches)
        return one + other

    def rounded(self, v: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        one, other = (_rounded(steps, v, error) for steps in self.branches)
        out = one[0] + other[0]
        return out, one[1] + other[1] + out.abs()


Step = Affine | Bend | Curve | Highest | Sum
Steps = list[Step]


def _read(model: nn.Module, shape: Sequence[int]) -> Steps:
    """Return the steps of a network, or of a branch of one, with inputs of a shape."""
    steps: Steps = []
    for layer, inner in layers_of(model, shape):
        step = _step(layer, inner)
        parts = (step.weight, step.bias) if isinstance(step, Affine) else ()
        if not all(part.isfinite().all() for part in parts):
            raise ValueError(
                f"{type(layer).__name__} holds a weight that is NaN or infinite, or a"
                " variance that is not positive: nothing can be proven of it."
            )
        steps.append(step)
    return steps


def _step(layer: Any, shape: tuple[int, ...]) -> Step:
    """Return one layer, with inputs of a shape, as it computes in float64."""
    if isinstance(layer, Residual):
        return Sum((_read(layer.body, shape), _read(layer.shortcut, shape)))
    if isinstance(layer, nn.ReLU | nn.LeakyReLU):
        return Bend(getattr(layer, "negative_slope", 0.0))
    if isinstance(layer, tuple(CURVES)):
        return next(c for kind, c in CURVES.items() if isinstance(layer, kind))
    if isinstance(layer, nn.MaxPool2d):
        return _windows(layer, shape)
    if isinstance(layer, nn.Flatten):
        one = torch.ones((), dtype=torch.float64)
        return Affine(
            one, one - 1, lambda v, w: v.flatten(1), lambda g, w: g.view(-1, *shape)
        )
    if isinstance(layer, POOLS):
        return _pool(layer, shape)
    if isinstance(layer, (Normalize, *NORMALISERS)):
        return Affine(*_scale_and_shift(layer, len(shape)), torch.mul, torch.mul)
    if isinstance(layer, LowRankLinear | LowRankConv2d):
        # Multiplied in float32, the product would carry its rounding.
        weight = layer.left.detach().double() @ layer.right.detach().double()
        weight = weight.view_as(layer.weight)
    else:
        weight = layer.weight.detach().double()
    bias = weight.new_zeros(len(weight))
    if layer.bias is not None:
        bias = layer.bias.detach().double()
    if isinstance(layer, nn.Conv2d | LowRankConv2d):
        forth, back, _ = convolution(layer, shape)
        return Affine(weight, bias.view(-1, 1, 1), forth, back)
    return Affine(weight, bias, lambda v, w: v @ w.T, lambda g, w: g @ w)


def _scale_and_shift(layer: Any, ndim: int) -> tuple[Tensor, Tensor]:
    """Return what a normalisation multiplies by and what it adds, by channel."""
    if isinstance(layer, Normalize):
        scale = 1 / layer.std.double()
        shift = -layer.mean.double() * scale
        if not layer.mean.ndim:
            return scale, shift
    else:
        scale = (layer.running_var.double() + layer.eps).rsqrt()
        if layer.affine:
            scale = scale * layer.weight.detach().double()
        shift = -layer.running_mean.double() * scale
        if layer.affine:
            shift = shift + layer.bias.detach().double()
    channels = (-1,) + (1,) * (ndim - 1)
    return scale.view(channels), shift.view(channels)


def _pool(layer: Any, shape: tuple[int, ...]) -> Affine:
    """Return average pooling or a padding as a linear map without weights."""
    one = torch.ones((), dtype=torch.float64)

    def back(g: Tensor, w: Tensor) -> Tensor:
        pull = torch.func.vjp(layer, g.new_zeros(len(g), *shape))[1]
        images: Tensor = pull(g)[0]
        return images

    return Affine(one, one - 1, lambda v, w: layer(v), back)


def _windows(layer: nn.MaxPool2d, shape: tuple[int, ...]) -> Highest:
    """Return max pooling with the numbers of the pixels that its windows see."""
    *_, height, width = shape
    # Counted from one, so that the zeros of the padding become -1.
    numbers = torch.arange(1.0, height * width + 1, dtype=torch.float64)
    seen = nn.functional.unfold(
        numbers.view(1, 1, height, width),
        layer.kernel_size,
        layer.dilation,
        layer.padding,
        layer.stride,
    )
    *_, rows, columns = layer(torch.zeros(1, *shape)).shape
    return Highest(seen[0].T.long() - 1, (height, width), (rows, columns))


def steps_of(model: nn.Module, x: Tensor) -> Steps:
    """Return the network as affine maps, bends and sums, in float64.

    Raises:
        ValueError: a module that is not known, weights that are not finite, or steps
            that do not give the model's own logits.
    """
    steps = _read(model, x.shape[1:])
    _compare(model, steps, x)
    return steps


def _compare(model: nn.Module, steps: Steps, x: Tensor) -> None:
    """Refuse a model that computes something else than the steps read from it.

    A hook, a patched ``forward`` or a parametrisation can stand between the two. Points
    of the box are asked beside the inputs: a hook may do nothing to the data alone.
    """
    like = next(iter(model.parameters()), x)
    random = torch.rand(4, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    points = torch.cat([x.detach().to(like), random.to(like)])
    with torch.no_grad(), evaluating(model):
        said = model(points)
    # What rounding can do: an error of each sum, carried on to the logits.
    start = points.double()
    v, error = _rounded(steps, start, torch.zeros_like(start))
    if v.ndim != 2 or v.shape[1] < 2:
        raise ValueError(
            f"The model returns {(1, *v.shape[1:])} for one input of"
            f" {tuple(x.shape[1:])}: it must return logits (1, K), K at least 2."
        )
    if not v.isfinite().all():
        raise ValueError("The logits overflow in float64: scale the weights down.")
    unit = torch.finfo(like.dtype).eps
    # A GPU may shorten its factors to eleven bits.
    unit = unit if like.device.type == "cpu" else max(unit, 2**-11)
    slack = 64 * unit * error
    known = isinstance(said, Tensor) and said.shape == v.shape
    if not known or not ((said.double() - v).abs() <= slack).all():
        raise ValueError(
            "The model's logits are not those of the layers read from it: a hook, a"
            " patched forward or a parametrisation changes them. Remove it (for a"
            " parametrisation: torch.nn.utils.parametrize.remove_parametrizations), or"
            " bake it into the weights."
        )


def _rounded(steps: Steps, v: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Carry ``v`` and an error of it, in units of the last place, through steps."""
    for step in steps:
        v, error = step.rounded(v, error)
    return v, error


def logits_of(steps: Steps, x: Tensor) -> Tensor:
    """Return what the steps make of ``x``, ``(N, ...)``."""
    v = x.double()
    for step in steps:
        v = step(v)
    return v


def linear_part(steps: Steps, v: Tensor) -> Tensor:
    """Return what affine steps make of ``v`` without their biases."""
    for step in steps:
        assert isinstance(step, Affine)
        v = step.apply(v, step.weight)
    return v
