"""Penalties: numbers to add to the loss."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.compress.layers import hidden, matrices

Penalty = Callable[[Any], Tensor]


def group_lasso(
    strength: float,
    *,
    p: float = 2,
    scale_invariant: bool = False,
    side: str = "rows",
) -> Penalty:
    r"""Penalise the norms of rows, so that few neurons stay strong; or of columns.

    :math:`\lambda \sum_l \sum_i \|w_i\|_p`, each layer divided by :math:`\|W\|_F` if
    ``scale_invariant``. The plain form also shrinks the scale of the weights; the
    other cannot (Barsbey et al. 2026, as used for ResNet-18).

    Args:
        strength: :math:`\lambda`, not negative.
        p: norm of a row (column): 2, or 1, which pairs with linf (l1) attacks.
        scale_invariant: divide by the Frobenius norm.
        side: ``"rows"``, one a neuron or filter; or ``"columns"``, one an input, of a
            convolution one a channel and place in its window.

    Raises:
        ValueError: a strength that is negative, or another side.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2, 2))
        >>> model.layers[0].weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> float(compress.group_lasso(0.5)(model).detach())
        3.0
        >>> columns = compress.group_lasso(0.5, p=1, side="columns")
        >>> float(columns(model).detach())
        4.0
    """
    checks.not_negative(strength=strength)
    checks.one_of("side", side, ("rows", "columns"))
    within = 1 if side == "rows" else 0

    def penalty(model: nn.Module) -> Tensor:
        parts = []
        for w in matrices(model):
            norms = torch.linalg.vector_norm(w, ord=p, dim=within).sum()
            parts.append(norms / torch.linalg.norm(w) if scale_invariant else norms)
        return strength * torch.stack(parts).sum()

    return penalty


def _spectrum(w: Tensor) -> Tensor:
    """Return singular values through the smaller Gram matrix: quick, and to 1e-3."""
    gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    squares = torch.linalg.eigvalsh(gram)
    # A root has no slope at zero: singular values below 1e-3 of the largest stay put.
    return squares.clamp_min(1e-6 * float(squares.detach()[-1]) + 1e-30).sqrt()


def _near_one(w: Tensor) -> Tensor:
    """Return a matrix times the power of two, exact, that brings its entries to one."""
    exponent = math.frexp(float(w.detach().abs().max()))[1]
    return w * 2.0 ** -max(exponent, -100)


def nuclear_norm(strength: float, *, scale_invariant: bool = False) -> Penalty:
    r"""Penalise the sum of singular values, so that few directions stay strong.

    :math:`\lambda \sum_l \|W\|_*`, each layer divided by :math:`\|W\|_F` if
    ``scale_invariant``. A singular value below a thousandth of the largest counts as
    that thousandth and has no gradient: where many are zero, the penalty is a little
    above its formula, and its scale-invariant form does not quite hold the scale.

    Args:
        strength: :math:`\lambda`, not negative.
        scale_invariant: divide by the Frobenius norm.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2, 2))
        >>> model.layers[0].weight.data = torch.tensor([[0.0, 4.0], [1.0, 0.0]])
        >>> round(float(compress.nuclear_norm(0.5)(model).detach()), 4)
        2.5
    """
    checks.not_negative(strength=strength)

    def penalty(model: nn.Module) -> Tensor:
        parts = []
        for w in matrices(model):
            nuclear = _spectrum(w).sum()
            parts.append(nuclear / torch.linalg.norm(w) if scale_invariant else nuclear)
        return strength * torch.stack(parts).sum()

    return penalty


def l1(strength: float) -> Penalty:
    r"""Penalise :math:`\lambda \sum_l \sum_{ij} |W_{ij}|`: sparsity without structure.

    Args:
        strength: :math:`\lambda`, not negative.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2, 2))
        >>> model.layers[0].weight.data = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
        >>> float(compress.l1(0.5)(model).detach())
        4.0
    """
    checks.not_negative(strength=strength)
    return lambda model: (
        strength * torch.stack([w.abs().sum() for w in matrices(model)]).sum()
    )


def squared_frobenius(strength: float) -> Penalty:
    r"""Penalise :math:`\lambda \sum_l \|W\|_F^2`: scale alone, the control of the rest.

    Args:
        strength: :math:`\lambda`, not negative.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2, 2))
        >>> model.layers[0].weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> float(compress.squared_frobenius(0.5)(model).detach())
        13.0
    """
    checks.not_negative(strength=strength)
    return lambda model: (
        strength * torch.stack([w.square().sum() for w in matrices(model)]).sum()
    )


def top_spread(strength: float, *, share: float = 0.05) -> Penalty:
    r"""Penalise the variance of the largest row norms of each layer.

    The spread :math:`\beta` of the dominant terms is what an operator norm has beyond
    its compressibility; this lowers it (Barsbey et al. 2026, as reported).

    Args:
        strength: :math:`\lambda`, not negative.
        share: of the rows that count as dominant, at least two of them.

    Raises:
        ValueError: ``share`` is not in (0, 1].

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2, 2))
        >>> model.layers[0].weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> float(compress.top_spread(0.5)(model).detach())
        2.0
    """
    checks.not_negative(strength=strength)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: a part of the rows, in (0, 1].")

    def penalty(model: nn.Module) -> Tensor:
        parts = []
        for w in matrices(model):
            count = min(len(w), max(2, math.ceil(share * len(w))))
            top = torch.linalg.vector_norm(w, dim=1).topk(count).values
            parts.append(top.var(correction=0))
        return strength * torch.stack(parts).sum()

    return penalty


def alignment(strength: float) -> Penalty:
    r"""Penalise how far neighbouring layers hand on each other's top directions.

    .. math:: \lambda \sum_l
       \frac{\|W^{l+1} W^l\|_2}{\|W^{l+1}\|_2\, \|W^l\|_2}

    over neighbours that fit. Each term lies in [0, 1]; 1 means that the direction which
    one layer stretches most is the one that the next stretches most. A layer of zeros
    hands nothing on: its terms are 0. Between convolutions these are directions among
    the channels: the flattened kernel makes them, and in :math:`W^{l+1}` each output
    has a row for each place of its window. (The interlayer alignment of Barsbey et al.
    2026 without its maximum over ReLU patterns; for convolutions the reading is ours.)

    Args:
        strength: :math:`\lambda`, not negative.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2, 2, 2))
        >>> for layer in model.layers:
        ...     layer.weight.data = torch.diag(torch.tensor([2.0, 1.0]))
        ...
        >>> round(float(compress.alignment(0.5)(model).detach()), 4)
        0.5
    """
    checks.not_negative(strength=strength)

    def penalty(model: nn.Module) -> Tensor:
        weights = [_near_one(layer.weight) for layer in hidden(model)]
        pairs = [
            (w.flatten(1), _by_channel(v))
            for w, v in zip(weights, weights[1:], strict=False)
        ]
        parts = [
            _spectrum(after @ before)[-1]
            / (_spectrum(after)[-1] * _spectrum(before)[-1])
            for before, after in pairs
            if after.shape[1] == before.shape[0] and before.any() and after.any()
        ]
        return strength * torch.stack([*parts, weights[0].new_zeros(())]).sum()

    return penalty


def _by_channel(weight: Tensor) -> Tensor:
    """Return a kernel ``(h, c, a, b)`` as ``(h a b, c)``, a matrix as it is."""
    return weight.movedim(1, -1).flatten(0, -2)


def total(*penalties: Penalty) -> Penalty:
    """Add penalties up.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2, 2))
        >>> model.layers[0].weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> both = compress.total(compress.l1(0.5), compress.squared_frobenius(0.5))
        >>> float(both(model).detach())
        17.0
    """
    return lambda model: torch.stack([p(model) for p in penalties]).sum()
