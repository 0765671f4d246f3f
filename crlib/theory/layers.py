r"""What a compressible layer can and must do to its operator norms."""

from typing import NamedTuple

import torch
from torch import Tensor

from crlib.metrics import (
    best_k_error,
    operator_norm,
    row_norms,
    singular_values,
    spread,
)

__all__ = ["Bounds", "row_norm_bounds", "spectral_norm_bounds", "top_entry_bounds"]


class Bounds(NamedTuple):
    """A quantity between its two bounds."""

    low: float
    value: float
    high: float


def top_entry_bounds(v: Tensor, k: int, *, q: float = 2) -> Bounds:
    r"""Bound the largest entry of ``v`` by its compressibility and spread (lemma M1).

    With :math:`\epsilon` the relative best-k-term error and :math:`\beta` the spread,

    .. math:: \Big(\frac{1-\epsilon^q}{k}\Big)^{1/q} \|v\|_q \le v_{(1)} \le
       \Big(\frac{1-\epsilon^q}{1+(k-1)(1-\beta)^q}\Big)^{1/q} \|v\|_q .

    The two sides meet if and only if the spread is zero. Source: ours, after the
    first step in the proof of theorem 3.1 of Barsbey et al. 2026.

    Args:
        v: ``(d,)``, not zero.
        k: from 1 to d.
        q: exponent, positive.

    Raises:
        ValueError: not a finite vector, the zero vector, or ``k``, ``q`` out of range.
    """
    beta = spread(v, k)
    head = 1 - best_k_error(v, k, q=q) ** q
    size = float(torch.linalg.vector_norm(v.detach().double(), ord=q))
    return Bounds(
        low=(head / k) ** (1 / q) * size,
        value=float(v.detach().abs().max()),
        high=(head / (1 + (k - 1) * (1 - beta) ** q)) ** (1 / q) * size,
    )


def spectral_norm_bounds(w: Tensor, k: int) -> Bounds:
    r"""Bound :math:`\|W\|_2` by spectral compressibility at its scale (lemma M2).

    .. math:: \sqrt{\frac{1-\epsilon^2}{k}}\, \|W\|_F \le \|W\|_2 \le
       \sqrt{\frac{1-\epsilon^2}{1+(k-1)(1-\beta)^2}}\, \|W\|_F ,

    with :math:`\epsilon, \beta` of the singular values, q = 2. Source: ours.

    Args:
        w: ``(h, m)``, not zero.
        k: from 1 to min(h, m).
    """
    return top_entry_bounds(singular_values(w), k)


def row_norm_bounds(w: Tensor, k: int) -> Bounds:
    r"""Bound :math:`\|W\|_\infty` by neuron compressibility at its scale (lemma M4).

    With :math:`\kappa_i = \|w_i\|_1 / \|w_i\|_2 \in [1, \sqrt m]`, :math:`i^*` the row
    of largest :math:`\ell_2` norm, and :math:`\epsilon, \beta` of the row
    :math:`\ell_2` norms (q = 2),

    .. math:: \kappa_{i^*} \sqrt{\frac{1-\epsilon^2}{k}}\, \|W\|_F \le \|W\|_\infty
       \le \kappa_{\max} \sqrt{\frac{1-\epsilon^2}{1+(k-1)(1-\beta)^2}}\, \|W\|_F .

    Source: ours.

    Args:
        w: ``(h, m)``, not zero.
        k: from 1 to h.
    """
    rows = row_norms(w.double())
    flatness = row_norms(w.double(), p=1) / rows.clamp_min(1e-300)
    low, _, high = top_entry_bounds(rows, k)
    return Bounds(
        low=float(flatness[rows.argmax()]) * low,
        value=operator_norm(w, norm="linf"),
        high=float(flatness.max()) * high,
    )
