r"""What a low-rank first layer leaves between two inputs (the bridge theorem).

A network :math:`f = F \circ W` sees of an input only :math:`W x`. Whatever :math:`F`
is, the perturbation :math:`e = P(x' - x)`, with P the projector on the row space of W,
shows it :math:`x'` in place of x.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from crlib import checks

__all__ = [
    "BridgeAttack",
    "bridge_attack",
    "bridge_radius",
    "surviving_fraction",
    "two_probe_radius",
]


class BridgeAttack(NamedTuple):
    """A perturbation that carries a layer's output to another, and how far it errs.

    Attributes:
        e: ``(..., m)``, :math:`P_k (x' - x)`.
        residual: ``(...)``, :math:`\\|W(x + e) - W x'\\|_2`.
        residual_bound: ``(...)``, at least the residual, up to rounding.
    """

    e: Tensor
    residual: Tensor
    residual_bound: Tensor


def surviving_fraction(w: Tensor, difference: Tensor, k: int | None = None) -> Tensor:
    r"""Return the part of a difference that the first layer lets through.

    .. math:: \chi_k = \frac{\|P_k (x' - x)\|_2}{\|x' - x\|_2},

    with :math:`P_k` the projector on the top ``k`` right singular vectors of ``w``.
    For a single row it is the cosine between row and difference. Source: ours (M11),
    after the compression ratio of Gao et al. 2026.

    Args:
        w: ``(h, m)``.
        difference: ``(..., m)``, :math:`x' - x`.
        k: from 1 to min(h, m); beyond the rank, or None, means the whole row space.
            The numbers are taken as given: only singular values below max(h, m)
            roundings of float64 count as zero. A product of float32 factors has a
            row space of its own, from rounding: give its rank as ``k``, or the right
            factor, which has the row space that is meant.

    Returns:
        ``(...)`` float64 in [0, 1]; NaN where the difference is zero.

    Raises:
        ValueError: not a finite matrix, ``k`` out of range, or sizes that differ.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> w, difference = torch.tensor([[2.0, 0.0]]), torch.tensor([3.0, 4.0])
        >>> theory.surviving_fraction(w, difference)
        tensor(0.6000, dtype=torch.float64)
    """
    v, _ = _directions(w, k)
    d = _inputs(difference, w)
    return (d @ v).norm(dim=-1) / d.norm(dim=-1)


def bridge_attack(
    w: Tensor, x: Tensor, x_prime: Tensor, k: int | None = None
) -> BridgeAttack:
    r"""Return the perturbation that shows a network ``x_prime`` in place of ``x``.

    :math:`e = P_k (x' - x)`. With the whole row space :math:`W(x + e) = W x'`, and no
    shorter perturbation does this. With fewer directions

    .. math:: \|W(x + e) - W x'\|_2 \le \sigma_{k+1} \|(I - P_k)(x' - x)\|_2 .

    No box: ``x + e`` may leave [0, 1]. Source: ours (M11).

    Args:
        w: ``(h, m)``.
        x: ``(..., m)``.
        x_prime: ``(..., m)``.
        k: as in :func:`surviving_fraction`.

    Raises:
        ValueError: as in :func:`surviving_fraction`.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> w, x, other = torch.tensor([[2.0, 0.0]]), torch.zeros(2), torch.ones(2)
        >>> theory.bridge_attack(w, x, other).e
        tensor([1., 0.], dtype=torch.float64)
    """
    v, beyond = _directions(w, k)
    d = _inputs(x_prime, w) - _inputs(x, w)
    e = d @ v @ v.T
    residual = ((e - d) @ w.detach().double().T).norm(dim=-1)
    return BridgeAttack(e, residual, beyond * (d - e).norm(dim=-1))


def bridge_radius(
    w: Tensor, x: Tensor, y: Tensor, x_others: Tensor, y_others: Tensor
) -> Tensor:
    r"""Bound the robustness radius of any network behind ``w`` from above.

    .. math:: r(x) \le \min \{\|P(x' - x)\|_2 : y(x') \ne y(x)\},

    the least over the inputs given. The labels are those that the network gives, not
    the true ones. Euclidean, without the box. Source: ours (M11).

    Args:
        w: ``(h, m)``, the first layer; of a low-rank layer its right factor, see
            :func:`surviving_fraction`.
        x: ``(N, m)``.
        y: ``(N,)`` labels that the network gives to ``x``.
        x_others: ``(M, m)``.
        y_others: ``(M,)`` labels that the network gives to ``x_others``.

    Returns:
        ``(N,)`` float64; infinity where no other input is labelled differently.

    Raises:
        ValueError: not a finite matrix, or shapes that do not fit.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> x, others = torch.zeros(1, 2), torch.ones(1, 2)
        >>> y, labels = torch.tensor([0]), torch.tensor([1])
        >>> theory.bridge_radius(torch.tensor([[2.0, 0.0]]), x, y, others, labels)
        tensor([1.], dtype=torch.float64)
    """
    v, _ = _directions(w, None)
    for points, labels in ((x, y), (x_others, y_others)):
        if points.ndim != 2 or labels.shape != points.shape[:1]:
            raise ValueError(
                f"Give inputs (N, m) with labels (N,), not {tuple(points.shape)} with"
                f" {tuple(labels.shape)}."
            )
    # Without the shortcut by matrix products, which loses half of the digits.
    gaps = torch.cdist(
        _inputs(x, w) @ v,
        _inputs(x_others, w) @ v,
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    same = y[:, None] == y_others[None]
    far = gaps.new_full((len(x), 1), torch.inf)
    return torch.cat([gaps.masked_fill(same, torch.inf), far], 1).amin(1)


def two_probe_radius(
    probe_i: Tensor, probe_j: Tensor, x: Tensor, x_prime: Tensor
) -> float:
    r"""Bound the way from class i to beyond class j by the span of their two probes.

    :math:`\|P(x' - x)\|_2` with P the projector on the span of the two vectors: the
    bridge theorem for a layer of two rows. At :math:`x + P(x' - x)` the two logits are
    those of :math:`x'`, so class i has lost if it loses there. Source: Gao et al. 2026,
    theorem 4, as reported.

    Args:
        probe_i: ``(m,)``, gradient of logit i of a linear network.
        probe_j: ``(m,)``, of logit j.
        x: ``(m,)``, labelled i.
        x_prime: ``(m,)``, where j beats i.

    Raises:
        ValueError: shapes that do not fit, or entries that are not finite.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> one, two = torch.eye(3)[0], torch.eye(3)[1]
        >>> x, other = torch.zeros(3), torch.tensor([3.0, 4.0, 12.0])
        >>> round(theory.two_probe_radius(one, two, x, other), 4)
        5.0
    """
    for vector in (probe_i, probe_j, x, x_prime):
        if vector.ndim != 1 or len(vector) != len(probe_i):
            raise ValueError("Give four vectors (m,) of one length.")
    return float(bridge_attack(torch.stack([probe_i, probe_j]), x, x_prime).e.norm())


def _directions(w: Tensor, k: int | None) -> tuple[Tensor, float]:
    """Return the directions kept ``(m, k)`` and the first singular value left out."""
    plain = w.is_floating_point() and w.ndim == 2 and 0 not in w.shape
    if not plain or not torch.isfinite(w).all():
        raise ValueError(
            f"w is {w.dtype} of shape {tuple(w.shape)}: give a finite matrix (h, m) of"
            " floating-point numbers."
        )
    if k is not None and not 1 <= k <= min(w.shape):
        raise ValueError(f"k is {k}: choose it from 1 to {min(w.shape)}, or None.")
    _, s, vh = torch.linalg.svd(w.detach().double(), full_matrices=False)
    # What float32 cannot have meant it may still hold: to drop a direction that a
    # network reads would make a bound that is too small.
    noise = max(w.shape) * torch.finfo(s.dtype).eps * float(s[0])
    rank = int((s > noise).sum())
    kept = rank if k is None else min(k, rank)
    beyond = float(s[kept]) if kept < len(s) else 0.0
    return vh[:kept].T, beyond


def _inputs(x: Tensor, w: Tensor) -> Tensor:
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ValueError(
            f"Inputs (..., {w.shape[1]}) go through this layer, not {tuple(x.shape)}:"
            " flatten images first."
        )
    checks.finite(x)
    return x.detach().double()
