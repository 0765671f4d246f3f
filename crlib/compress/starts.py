"""Starts: weights set in place before the first step."""

from typing import Any

import torch
from torch import Tensor

from crlib import checks, metrics
from crlib.models import LowRankLinear


def principal_start(layer: Any, x: Tensor) -> None:
    r"""Let a low-rank layer start in the first principal directions of the inputs.

    Its rows then span them, equally strong in the right factor, and
    :math:`\|AB\|_F` stays. Of all row spaces of this dimension it is the one that
    keeps most of the squared differences between two inputs, on the mean.

    Args:
        layer: a :class:`crlib.models.LowRankLinear`, changed in place.
        x: ``(N, ...)`` inputs, flattened to ``(N, m)``.

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
    if not isinstance(layer, LowRankLinear):
        raise ValueError(
            "A principal start needs a models.LowRankLinear, such as the first layer"
            f" of MLP(..., rank=16), not {type(layer).__name__}."
        )
    checks.tensor(x, "x")
    size = x.flatten(1).shape[1]
    if size != layer.right.shape[1]:
        raise ValueError(
            f"The layer takes {layer.right.shape[1]} inputs and x has {size}."
        )
    with torch.no_grad():
        before = torch.linalg.norm(layer.weight)
        right = metrics.principal_directions(x, len(layer.right)).T.to(layer.right)
        layer.right.copy_(right * torch.linalg.norm(layer.right) / len(right) ** 0.5)
        layer.left.mul_(before / torch.linalg.norm(layer.weight))
