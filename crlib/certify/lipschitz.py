"""The Lipschitz bound, and the radius that follows from it."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.certify.reading import (
    LINEAR,
    POOLS,
    Affine,
    Step,
    Steps,
    Sum,
    layers_of,
    logits_of,
    steps_of,
)
from crlib.metrics import layer_operator_norm, margin, symbol_norm
from crlib.models import LowRankConv2d


def lipschitz_bound(
    model: nn.Module, input_shape: Sequence[int], *, norm: str = "l2"
) -> float:
    r"""Bound how much the logits move per unit of input, everywhere.

    The product of the layers' operator norms, so that
    :math:`\|z(x) - z(x')\| \le L \|x - x'\|` with ``norm`` on both sides (Szegedy et
    al. 2014). ReLU, leaky or not, and flattening count 1, GELU and the like their
    steepest slope, normalisation its largest factor, average pooling and padding in l2
    the root of the linf norm times the l1 norm. Max pooling counts 1 in linf, and where
    no windows overlap; else c in l1 and the root of c in l2, with c the number of
    windows that see a pixel, at most. A residual block counts the sum of what its two
    branches do. The l2 norm of a convolution with zero padding is bounded by
    :func:`crlib.metrics.symbol_norm`. With another padding it is the estimate of
    :func:`crlib.metrics.layer_operator_norm` divided by ``1 - tol``, an upper bound
    that fails with probability at most 1e-9.

    Args:
        model: made of known modules, see above.
        input_shape: of one input, ``(d,)`` or ``(C, H, W)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        ValueError: a module that is not known, a shape that does not fit, or an
            unknown norm.

    Example:
        >>> import torch
        >>> from crlib import certify
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2))
        >>> model.layers[0].weight.data = torch.eye(2)
        >>> round(certify.lipschitz_bound(model, (2,)), 6)
        1.0
    """
    checks.one_of("norm", norm, ("linf", "l2", "l1"))
    input_shape = checks.shape(input_shape)
    steps = steps_of(model, torch.zeros(0, *input_shape))
    return _product(model, steps, input_shape, norm)


def _product(
    model: nn.Module, steps: Steps, input_shape: Sequence[int], norm: str
) -> float:
    """Bound how much a network, or a branch of one, can stretch a difference."""
    layers = layers_of(model, input_shape)
    norms = [
        _norm(layer, step, shape, norm)
        for (layer, shape), step in zip(layers, steps, strict=True)
    ]
    # Only a layer that is zero makes the bound zero, never an underflow.
    return math.prod(norms) if 0 in norms else max(math.prod(norms), sys.float_info.min)


def _norm(
    layer: Any,
    step: Step,
    shape: tuple[int, ...],
    norm: str,
    tol: float = 1e-3,
) -> float:
    """Bound how much one layer can stretch a difference of its inputs."""
    if isinstance(step, Sum):
        branches = zip((layer.body, layer.shortcut), step.branches, strict=True)
        return sum(_product(*branch, shape, norm) for branch in branches)
    if not isinstance(step, Affine):
        return step.stretch(norm)
    if isinstance(layer, nn.Flatten):
        return 1.0
    if isinstance(layer, POOLS):
        ones = torch.ones(1, *shape, dtype=torch.float64)
        row = step.apply(ones, step.weight)
        column = step.back(torch.ones_like(row), step.weight)
        sizes = {"linf": float(row.max()), "l1": float(column.max())}
        return sizes.get(norm, math.sqrt(sizes["linf"] * sizes["l1"]))
    if not isinstance(layer, LINEAR):
        return float(step.weight.abs().max())
    if not isinstance(layer, nn.Conv2d | LowRankConv2d) or norm != "l2":
        return layer_operator_norm(layer, shape, norm=norm)
    if getattr(layer, "padding_mode", "zeros") == "zeros":
        return symbol_norm(layer, shape)
    return layer_operator_norm(layer, shape, tol=tol) / (1 - tol)


def lipschitz_radius(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    batch_size: int = 512,
) -> Tensor:
    r"""Certify a radius by margin and Lipschitz bound.

    A difference of two logits moves by at most :math:`\|e_y - e_k\|_*` times the
    move of the logits, with the dual norm: the radius is the margin over
    :math:`\sqrt 2 L` for l2 (Tsuzuku et al. 2018), :math:`2 L` for linf, L for l1.

    Args:
        model: made of known modules, see above.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        batch_size: inputs in memory at once, at most.

    Returns:
        ``(N,)`` in float64; 0 where the label is wrong already, infinity where the
        logits are the same for all inputs.

    Raises:
        ValueError: bad input, or a model that :func:`lipschitz_bound` refuses.

    Example:
        >>> import torch
        >>> from crlib import certify
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2))
        >>> model.layers[0].weight.data = torch.eye(2)
        >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
        >>> certify.lipschitz_radius(model, x, y, norm="linf").round(decimals=4)
        tensor([0.1000], dtype=torch.float64)
    """
    checks.inputs(x)
    checks.labels(y, len(x))
    checks.at_least(1, batch_size=batch_size)
    parts = x.split(batch_size)
    logits = torch.cat([logits_of(steps_of(model, part), part) for part in parts])
    checks.labels(y, len(x), classes=logits.shape[1])
    bound = lipschitz_bound(model, x.shape[1:], norm=norm)
    pair = {"l2": math.sqrt(2), "linf": 2.0, "l1": 1.0}[norm]
    room = margin(logits, y).clamp_min(0)
    if bound == 0:
        return room.masked_fill(room > 0, math.inf)
    return room / (pair * bound)
