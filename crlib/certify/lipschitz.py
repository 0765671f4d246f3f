"""The Lipschitz bound, and the radius that follows from it."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from crlib import checks
from crlib.certify.reading import layers_of, logits_of, steps_of
from crlib.metrics import layer_operator_norm, margin
from crlib.models import Normalize


def lipschitz_bound(
    model: nn.Module, input_shape: Sequence[int], *, norm: str = "l2"
) -> float:
    r"""Bound how much the logits move per unit of input, everywhere.

    The product of the layers' operator norms, so that
    :math:`\|z(x) - z(x')\| \le L \|x - x'\|` with ``norm`` on both sides (Szegedy et
    al. 2014). ReLU and flattening count 1, normalisation the inverse of its smallest
    standard deviation. The l2 norm of a convolution is the estimate of
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
    bound, tol = 1.0, 1e-3
    for layer, shape in layers_of(model, input_shape):
        if isinstance(layer, Normalize):
            bound /= float(layer.std.min())
        elif not isinstance(layer, nn.ReLU | nn.Flatten):
            size = layer_operator_norm(layer, shape, norm=norm, tol=tol)
            estimated = isinstance(layer, nn.Conv2d) and norm == "l2"
            bound *= size / (1 - tol) if estimated else size
    return bound


def lipschitz_radius(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: str = "l2"
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

    Returns:
        ``(N,)`` in float64; 0 where the label is wrong already.

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
    logits = logits_of(steps_of(model, x), x)
    checks.labels(y, len(x), classes=logits.shape[1])
    bound = lipschitz_bound(model, x.shape[1:], norm=norm)
    pair = {"l2": math.sqrt(2), "linf": 2.0, "l1": 1.0}[norm]
    return margin(logits, y).clamp_min(0) / (pair * bound)
