"""A network read as the steps that it computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crlib.metrics import convolution
from crlib.models import MLP, LowRankConv2d, LowRankLinear, Normalize, evaluating

# Linear, and nothing in them is negative.
POOLS = (
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.CircularPad2d,
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LINEAR = (nn.Linear, LowRankLinear, nn.Conv2d, LowRankConv2d)
KNOWN = (Normalize, *LINEAR, *NORMS, *POOLS, nn.ReLU, nn.LeakyReLU, nn.Flatten)
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
        if isinstance(module, nn.LeakyReLU) and not 0 <= module.negative_slope <= 1:
            raise ValueError(f"{module}: only a slope in [0, 1] can be bounded.")
        if isinstance(module, NORMS) and module.running_mean is None:
            raise ValueError(
                f"{module} keeps no running statistics, so an answer depends on the"
                " rest of the batch: nothing can be bounded."
            )
        try:
            with torch.no_grad(), evaluating(module):
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


@dataclass(frozen=True)
class Bend:
    """``max(v, slope * v)``: a ReLU, or with a slope in (0, 1] a leaky one."""

    slope: float = 0.0

    def __call__(self, v: Tensor) -> Tensor:
        # Apart, because zero times infinity is no number.
        return torch.maximum(v, self.slope * v) if self.slope else v.clamp_min(0)


RELU = Bend()
Steps = list[Affine | Bend]


def _step(layer: Any, shape: tuple[int, ...]) -> Affine | Bend:
    """Return one layer, with inputs of a shape, as it computes in float64."""
    if isinstance(layer, nn.ReLU | nn.LeakyReLU):
        return Bend(getattr(layer, "negative_slope", 0.0))
    if isinstance(layer, nn.Flatten):
        one = torch.ones((), dtype=torch.float64)
        return Affine(
            one, one - 1, lambda v, w: v.flatten(1), lambda g, w: g.view(-1, *shape)
        )
    if isinstance(layer, POOLS):
        return _pool(layer, shape)
    if isinstance(layer, (Normalize, *NORMS)):
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


def steps_of(model: nn.Module, x: Tensor) -> Steps:
    """Return the network as affine maps and bends, in float64.

    Raises:
        ValueError: a module that is not known, weights that are not finite, or steps
            that do not give the model's own logits.
    """
    layers = layers_of(model, x.shape[1:])
    steps = [_step(*layer) for layer in layers]
    for step, (layer, _) in zip(steps, layers, strict=True):
        parts = () if isinstance(step, Bend) else (step.weight, step.bias)
        if not all(part.isfinite().all() for part in parts):
            raise ValueError(
                f"{type(layer).__name__} holds a weight that is NaN or infinite, or a"
                " variance that is not positive: nothing can be proven of it."
            )
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
    v, error = points.double(), torch.zeros_like(points, dtype=torch.float64)
    for step in steps:
        if isinstance(step, Bend):
            v = step(v)
            continue
        size = step.weight.abs()
        error = step.apply(error + v.abs(), size) + step.bias.abs()
        v = step(v)
    if not v.isfinite().all():
        raise ValueError("The logits overflow in float64: scale the weights down.")
    unit = torch.finfo(like.dtype).eps
    # A GPU may shorten its factors to eleven bits.
    slack = 64 * (unit if like.device.type == "cpu" else max(unit, 2**-11)) * error
    known = isinstance(said, Tensor) and said.shape == v.shape
    if not known or not ((said.double() - v).abs() <= slack).all():
        raise ValueError(
            "The model's logits are not those of the layers read from it: a hook, a"
            " patched forward or a parametrisation changes them. Remove it (for a"
            " parametrisation: torch.nn.utils.parametrize.remove_parametrizations), or"
            " bake it into the weights."
        )


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
