"""Constraints: changes of the weights in place, after a step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.compress.layers import (
    LOW_RANK,
    dense,
    hidden,
    matrices,
    norms_after,
    refuse_derived,
)

Constraint = Callable[[Any], None]


def fixed_frobenius(model: nn.Module) -> Constraint:
    r"""Keep :math:`\|W\|_F` of every hidden layer as it is in ``model`` now.

    A low-rank layer has both of its factors scaled by the root.

    Args:
        model: fixes the norms; give the model that will be trained.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 4, 2))
        >>> keep, before = compress.fixed_frobenius(model), model.weights[0].norm()
        >>> model.layers[0].weight.data *= 3
        >>> keep(model)
        >>> bool(torch.isclose(model.weights[0].norm(), before))
        True
    """
    refuse_derived(model)
    norms = [float(torch.linalg.norm(w.detach())) for w in matrices(model)]

    def constraint(changed: nn.Module) -> None:
        refuse_derived(changed)
        for layer, norm in zip(hidden(changed), norms, strict=True):
            size = torch.linalg.norm(layer.weight.detach())
            scale = torch.where(size > 0, norm / size, 1.0)
            if isinstance(layer, LOW_RANK):
                layer.left.data *= scale.sqrt()
                layer.right.data *= scale.sqrt()
            else:
                layer.weight.data *= scale

    return constraint


def _profile(count: int, alpha: float, frobenius: float, like: Tensor) -> Tensor:
    s = torch.arange(1, count + 1, dtype=like.dtype, device=like.device) ** -alpha
    return s * frobenius / torch.linalg.norm(s)


def spectral_dial(alpha: float, *, frobenius: float = 10.0) -> Constraint:
    r"""Give every hidden layer singular values :math:`\propto i^{-\alpha}`.

    Singular vectors stay and :math:`\|W\|_F` is fixed: spectral compressibility
    changes and scale does not. 0 is a flat spectrum.

    Args:
        alpha: exponent, not negative.
        frobenius: :math:`\|W\|_F` of each layer, positive.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> from crlib.metrics import singular_values
        >>> model = MLP((3, 3, 2))
        >>> with torch.no_grad():
        ...     compress.spectral_dial(1.0, frobenius=7.0)(model)
        ...
        >>> (singular_values(model.weights[0]) / 6).round(decimals=4)
        tensor([1.0000, 0.5000, 0.3333], dtype=torch.float64)
    """
    checks.not_negative(alpha=alpha, frobenius=frobenius)

    def constraint(model: nn.Module) -> None:
        for weight in dense(model):
            u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            s = _profile(len(s), alpha, frobenius, s)
            weight.copy_((u * s @ vh).view_as(weight))

    return constraint


def row_dial(alpha: float, *, frobenius: float = 10.0) -> Constraint:
    r"""Give every hidden layer row norms :math:`\propto i^{-\alpha}`.

    Rows keep their directions and their order by norm, and :math:`\|W\|_F` is fixed.

    Args:
        alpha: exponent, not negative.
        frobenius: :math:`\|W\|_F` of each layer, positive.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((3, 3, 2))
        >>> with torch.no_grad():
        ...     compress.row_dial(1.0, frobenius=7.0)(model)
        ...
        >>> (model.weights[0].detach().norm(dim=1) / 6).sort(descending=True).values
        tensor([1.0000, 0.5000, 0.3333])
    """
    checks.not_negative(alpha=alpha, frobenius=frobenius)

    def constraint(model: nn.Module) -> None:
        for weight in dense(model):
            rows = weight.flatten(1)
            norms = torch.linalg.vector_norm(rows, dim=1)
            target = torch.empty_like(norms)
            order = norms.argsort(descending=True)
            target[order] = _profile(len(rows), alpha, frobenius, norms)
            scale = torch.where(norms > 0, target / norms, 0.0)
            weight.copy_((rows * scale[:, None]).view_as(weight))

    return constraint


def clip_spectrum(most: float) -> Constraint:
    r"""Keep every singular value of the hidden layers at or below ``most``.

    Args:
        most: largest allowed singular value, not negative.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> from crlib.metrics import singular_values
        >>> model = MLP((3, 3, 2))
        >>> with torch.no_grad():
        ...     compress.clip_spectrum(0.1)(model)
        ...
        >>> round(float(singular_values(model.weights[0]).max()), 4)
        0.1
    """
    checks.not_negative(most=most)

    def constraint(model: nn.Module) -> None:
        for weight in dense(model):
            u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            weight.copy_((u * s.clamp_max(most) @ vh).view_as(weight))

    return constraint


def orthonormal_factors() -> Constraint:
    r"""Make the factors of low-rank layers orthonormal up to one scale.

    Each factor is replaced by the nearest matrix with orthonormal columns (rows), and
    both are scaled so that :math:`\|AB\|_F` stays: the spread of the singular values
    becomes zero (after Savostianova et al. 2023).

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> from crlib.metrics import singular_values
        >>> model = MLP((6, 6, 2), rank=2)
        >>> with torch.no_grad():
        ...     compress.orthonormal_factors()(model)
        ...
        >>> s = singular_values(model.weights[0])
        >>> round(float(s[1] / s[0]), 4)
        1.0
    """

    def constraint(model: nn.Module) -> None:
        refuse_derived(model)
        layers = [layer for layer in hidden(model) if isinstance(layer, LOW_RANK)]
        if not layers:
            raise ValueError("The model has no low-rank layer.")
        for layer in layers:
            norm = torch.linalg.norm(layer.weight.detach())
            scale = (norm / math.sqrt(len(layer.right))).sqrt()
            for factor in (layer.left, layer.right):
                u, _, vh = torch.linalg.svd(factor.data, full_matrices=False)
                factor.data.copy_(scale * (u @ vh))

    return constraint


def keep_zeros(model: nn.Module) -> Constraint:
    """Keep what is zero in ``model`` now at zero: fine-tuning after pruning.

    Args:
        model: the pruned model; weights and biases of its hidden layers count, and
            channels that the batch normalisation behind them switches off.

    Example:
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = compress.prune(MLP((2, 4, 2)), 0.5)
        >>> keep = compress.keep_zeros(model)
        >>> model.layers[0].weight.data += 1
        >>> keep(model)
        >>> int((model.weights[0] == 0).sum())
        4
    """

    def parts(of: nn.Module) -> list[Tensor]:
        refuse_derived(of)
        return [p.data for layer in hidden(of) for p in layer.parameters()]

    def norms(of: nn.Module) -> list[Any]:
        after = norms_after(of) if rows else {}
        return [norm for norm in after.values() if norm.affine]

    masks = [part != 0 for part in parts(model)]
    # Without a row that is zero there is no channel to keep off.
    rows = any((w == 0).all(1).any() for w in matrices(model))
    channels = [(n.weight != 0) | (n.bias != 0) for n in norms(model)]

    def constraint(changed: nn.Module) -> None:
        for part, mask in zip(parts(changed), masks, strict=True):
            part.mul_(mask)
        for norm, mask in zip(norms(changed), channels, strict=True):
            norm.weight.data.mul_(mask)
            norm.bias.data.mul_(mask)

    return constraint
