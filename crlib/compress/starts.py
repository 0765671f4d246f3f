"""Starts: weights set in place before the first step."""

from typing import Any

import torch
from torch import Tensor

from crlib import checks, metrics
from crlib.models import LowRankConv2d, LowRankLinear


def principal_start(layer: Any, x: Tensor) -> None:
    r"""Let a low-rank layer start in the first principal directions of the inputs.

    Its rows then span them, equally strong in the right factor, and
    :math:`\|AB\|_F` stays. Of all row spaces of this dimension it is the one that
    keeps most of the squared differences between two inputs, on the mean. The inputs
    of a convolution are the windows it looks through.

    Args:
        layer: a :class:`crlib.models.LowRankLinear` or
            :class:`crlib.models.LowRankConv2d`, changed in place.
        x: what enters the layer, ``(N, ...)``, flattened to ``(N, m)``; images
            ``(N, c, H, W)`` for a convolution, whose windows need
            ``8 N H W c k^2`` bytes.

    Raises:
        ValueError: another kind of layer, or inputs of another size.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 3, 2), rank=1)
        >>> x = torch.tensor([[0.0, 0.5], [1.0, 0.5], [0.5, 0.5]])
        >>> compress.principal_start(model.layers[0], x)
        >>> bool((model.weights[0][:, 1].abs() < 1e-6).all())
        True
    """
    if not isinstance(layer, LowRankLinear | LowRankConv2d):
        raise ValueError(
            "A principal start needs a models.LowRankLinear or LowRankConv2d, such as"
            f" the first layer of MLP(..., rank=16), not {type(layer).__name__}."
        )
    checks.tensor(x, "x")
    flat = _seen(layer, x)  # (n, m)
    if flat.shape[1] != layer.right.shape[1]:
        raise ValueError(
            f"The layer takes {layer.right.shape[1]} inputs and x has {flat.shape[1]}."
        )
    with torch.no_grad():
        before = torch.linalg.norm(layer.weight)
        right = metrics.principal_directions(flat, len(layer.right)).T.to(layer.right)
        layer.right.copy_(right * torch.linalg.norm(layer.right) / len(right) ** 0.5)
        layer.left.mul_(before / torch.linalg.norm(layer.weight))


def _seen(layer: Any, x: Tensor) -> Tensor:
    """Return the vectors ``(n, m)`` that the right factor meets, in float64."""
    if isinstance(layer, LowRankLinear):
        return x.flatten(1).double()
    if x.ndim != 4:
        raise ValueError(
            f"x is {tuple(x.shape)}: what enters a convolution is (N, C, H, W)."
        )
    windows = torch.nn.functional.unfold(
        x.double(),
        layer.kernel_shape[1],
        padding=layer.padding,
        stride=layer.stride,
    )  # (N, m, places)
    return windows.transpose(1, 2).flatten(0, 1)
