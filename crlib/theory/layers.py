r"""What a compressible layer can and must do to its operator norms."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from crlib import checks
from crlib.metrics import (
    best_k_error,
    operator_norm,
    row_norms,
    singular_values,
    spread,
    unit_scale,
)

__all__ = [
    "Bounds",
    "Errors",
    "StructureTimesScale",
    "flatness_bounds",
    "neuron_implies_spectral",
    "row_norm_bounds",
    "sharp_spectral_bounds",
    "sharp_spectral_interval",
    "spectral_floor",
    "spectral_norm_bounds",
    "structure_times_scale",
    "top_entry_bounds",
]


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

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.top_entry_bounds(torch.tensor([2.0, 2.0, 2.0, 2.0]), 4)
        Bounds(low=2.0, value=2.0, high=2.0)
    """
    beta = spread(v, k)
    best_k_error(v, k, q=q)
    # In units of the largest entry, (1 - eps^q) |v|_q^q is the q-sum of the k largest.
    size = float(v.detach().abs().max())
    powers = (v.detach().double().abs() / size) ** q
    head = float(powers.topk(k).values.sum())
    return Bounds(
        low=(head / k) ** (1 / q) * size,
        value=size,
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

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> low, value, high = theory.spectral_norm_bounds(2 * torch.eye(4), 4)
        >>> round(low, 6), round(value, 6), round(high, 6)
        (2.0, 2.0, 2.0)
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

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.row_norm_bounds(2 * torch.eye(4), 4)
        Bounds(low=2.0, value=2.0, high=2.0)
    """
    w, scale = unit_scale(w)
    rows = row_norms(w)
    flatness = row_norms(w, p=1) / rows.where(rows > 0, 1.0)
    low, _, high = top_entry_bounds(rows, k)
    return Bounds(
        low=float(flatness[rows.argmax()]) * low * scale,
        value=operator_norm(w, norm="linf") * scale,
        high=float(flatness.max()) * high * scale,
    )


class StructureTimesScale(NamedTuple):
    """Both sides of theorem 3.1 and what its bound is made of.

    Attributes:
        value: the operator norm.
        bound: the upper bound; infinite if the spread is one.
        trivial: what holds for every matrix of this Frobenius norm.
        eps: best-k-term error (q = 1) of singular values or of row l1 norms.
        beta: spread of their k largest.
        eps_row: largest error within a row (q = 1); 0 for ``"l2"``.
    """

    value: float
    bound: float
    trivial: float
    eps: float
    beta: float
    eps_row: float

    @property
    def vacuous(self) -> bool:
        """Whether the bound says less than no assumption at all."""
        return self.bound > self.trivial


def structure_times_scale(
    w: Tensor, k: int, *, norm: str, k_row: int | None = None
) -> StructureTimesScale:
    r"""Return both sides of theorem 3.1 of Barsbey et al. 2026, as reported.

    .. math:: \|W\|_2 \le \frac{1-\epsilon}{1-\beta} \cdot \frac{\sqrt d}{k}\,
       \|W\|_F , \qquad \|W\|_\infty \le \frac{1-\epsilon}{1-\beta} \cdot
       \frac{\sqrt{h k_r} + \sqrt{h m}\, \epsilon_r}{k}\, \|W\|_F ,

    with :math:`d = \min(h, m)` and :math:`\epsilon, \beta` (q = 1) of the singular
    values, resp. of the row :math:`\ell_1` norms; every row is
    :math:`(1, k_r, \epsilon_r)`-compressible. Stated there for h = m. Without
    structure :math:`\|W\|_2 \le \|W\|_F` and
    :math:`\|W\|_\infty \le \sqrt m\, \|W\|_F`; in l2 the bound is vacuous if and only
    if :math:`k (1-\beta) < (1-\epsilon) \sqrt d`.

    Args:
        w: ``(h, m)``, not zero.
        k: dominant directions or rows, from 1 to min(h, m) or h.
        norm: ``"l2"`` or ``"linf"``.
        k_row: dominant entries of a row for ``"linf"``, from 1 to m; None means m, that
            is no assumption on the rows.

    Raises:
        ValueError: a zero or infinite matrix, or an option out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> found = theory.structure_times_scale(2 * torch.eye(4), 4, norm="linf")
        >>> round(found.value, 6), round(found.bound, 6), found.vacuous
        (2.0, 4.0, False)
    """
    checks.one_of("norm", norm, ("l2", "linf"))
    if norm == "l2" and k_row is not None:
        raise ValueError("k_row is about rows: it goes with norm='linf'.")
    w, unit = unit_scale(w)
    v = singular_values(w) if norm == "l2" else row_norms(w, p=1)
    h, m = w.shape
    if norm == "l2":
        eps_row, factor, trivial = 0.0, math.sqrt(min(h, m)), 1.0
    else:
        k_row = m if k_row is None else k_row
        eps_row = _largest_row_error(w, k_row)
        factor = math.sqrt(h * k_row) + math.sqrt(h * m) * eps_row
        trivial = math.sqrt(m)
    eps, beta = best_k_error(v, k, q=1), spread(v, k)
    structure = (1 - eps) * factor / k / (1 - beta) if beta < 1 else math.inf
    scale = float(w.norm()) * unit
    return StructureTimesScale(
        value=operator_norm(w, norm=norm) * unit,
        bound=structure * scale,
        trivial=trivial * scale,
        eps=eps,
        beta=beta,
        eps_row=eps_row,
    )


def _largest_row_error(w: Tensor, k_row: int) -> float:
    if not 1 <= k_row <= w.shape[1]:
        raise ValueError(f"k_row is {k_row}: choose it from 1 to {w.shape[1]}.")
    return max(best_k_error(row, k_row, q=1) for row in w)


def sharp_spectral_interval(
    k: int, *, d: int, eps: float, beta: float, q: float = 1
) -> tuple[float, float]:
    r"""Return the range of :math:`\|W\|_2 / \|W\|_F` at given compressibility (M3).

    For singular values that are strictly :math:`(q, k, \epsilon)`-compressible with
    spread :math:`\beta`, with :math:`b = 1-\beta`, :math:`H = 1 + (k-1) b^q` and
    :math:`c = \epsilon^q / (1-\epsilon^q)`, the ratio lies between the inverse length
    of the longest such spectrum and

    .. math:: \big[1 + (k-1) b^2 + (c H)^{2/q} (d-k)^{1-2/q} \big]^{-1/2} .

    Of the longest one, with largest value one, the head has the sum of q-th powers
    :math:`S = \min\{k - 1 + b^q, (d-k) b^q / c\}`: as many ones as fit, one value
    between, and b for the rest. The tail has :math:`c S`: as many b as fit, one value
    below, and zeros. Both ends are attained. Source: ours.

    Args:
        k: dominant values, from 1 to d.
        d: number of singular values.
        eps: best-k-term error, in [0, 1).
        beta: spread, in [0, 1]; 0 if k is 1.
        q: exponent, in (0, 2].

    Raises:
        ValueError: an argument out of range, or no spectrum is like this.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> low, high = theory.sharp_spectral_interval(4, d=4, eps=0.0, beta=0.0)
        >>> round(low, 6), round(high, 6)
        (0.5, 0.5)
    """
    if not 1 <= k <= d:
        raise ValueError(f"k is {k}: choose it from 1 to d = {d}.")
    if not 0 <= eps < 1 or not 0 <= beta <= 1:
        raise ValueError(f"eps = {eps} must lie in [0, 1), beta = {beta} in [0, 1].")
    _check_exponent(q)
    last = (1 - beta) ** q
    least = eps**q / (1 - eps**q) * (1 + (k - 1) * last)
    # A k-th value below a rounding of the first has a spread of one.
    room = (d - k) * max(1 - beta, 2**-53) ** q
    if least > room * (1 + 1e-9) or (k == 1 and beta > 0):
        raise ValueError(
            f"No spectrum has k = {k}, eps = {eps}, beta = {beta} (q = {q}) and only"
            f" {d} values: the tail would exceed the k-th."
        )
    return _sharp(k, d, eps, 1 - beta, q)


def _check_exponent(q: float) -> None:
    if not 0 < q <= 2:
        raise ValueError(f"q is {q}: these bounds hold for exponents in (0, 2].")


def _sharp(k: int, d: int, eps: float, b: float, q: float) -> tuple[float, float]:
    """The ends of the interval; ``b`` is the k-th value over the first."""
    last, odds = b**q, eps**q / (1 - eps**q)
    shortest = 1 + (k - 1) * b**2
    if k < d:
        shortest += (odds * (1 + (k - 1) * last)) ** (2 / q) * (d - k) ** (1 - 2 / q)
    return _longest(k, d, last, odds).pow(2 / q).sum().item() ** -0.5, shortest**-0.5


def _longest(k: int, d: int, last: float, odds: float) -> Tensor:
    """Return the q-th powers ``(d,)`` of the longest spectrum, ``last`` of the k-th."""
    least = 1 + (k - 1) * last
    # What a full tail allows; a rounding below what every head has.
    room = max(least, (d - k) * last / odds) if odds else math.inf
    head = min(k - 1 + last, room)
    steps = torch.arange(d, dtype=torch.float64)
    more = (head - least - (1 - last) * steps[: k - 1]).clamp(0, 1 - last)
    tail = (odds * head - last * steps[: d - k]).clamp(0, last)
    return torch.cat([torch.ones(1, dtype=torch.float64), last + more, tail])


def sharp_spectral_bounds(w: Tensor, k: int, *, q: float = 1) -> Bounds:
    r"""Bound :math:`\|W\|_2` as sharply as k, error and spread allow (theorem M3).

    :func:`sharp_spectral_interval` at the singular values of ``w``, times
    :math:`\|W\|_F`. With q = 2 it is never wider than :func:`spectral_norm_bounds`.

    Args:
        w: ``(h, m)``, not zero.
        k: from 1 to min(h, m).
        q: exponent, in (0, 2].

    Raises:
        ValueError: a zero or infinite matrix, or an option out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> low, value, high = theory.sharp_spectral_bounds(2 * torch.eye(4), 4)
        >>> round(low, 6), round(value, 6), round(high, 6)
        (2.0, 2.0, 2.0)
    """
    _check_exponent(q)
    w, unit = unit_scale(w)
    s = singular_values(w)
    # Rounding noise for a zero is no small number to a root of it (q < 1).
    s[s < 1e-12 * s[0]] = 0
    # Not one minus the spread, which loses the digits of a small value.
    b = float(s[k - 1] / s[0])
    low, high = _sharp(k, len(s), best_k_error(s, k, q=q), b, q)
    scale = float(s.norm()) * unit
    return Bounds(low=low * scale, value=float(s[0]) * unit, high=high * scale)


def spectral_floor(k: int, *, eps: float, q: float = 2) -> float:
    r"""Return what :math:`\|W\|_2 / \|W\|_F` cannot be below (M2, 0 < q <= 2).

    :math:`\sqrt{(1-\epsilon^q)/k}` for singular values that are
    :math:`(q, k, \epsilon)`-compressible, strictly or not, of any spread. Source: ours.

    Args:
        k: dominant values, at least 1.
        eps: best-k-term error, in [0, 1].
        q: exponent, in (0, 2].

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.spectral_floor(4, eps=0.0)
        0.5
    """
    if k < 1 or not 0 <= eps <= 1:
        raise ValueError(f"k = {k} must be at least 1, eps = {eps} lie in [0, 1].")
    _check_exponent(q)
    return math.sqrt((1 - eps**q) / k)


def flatness_bounds(w: Tensor, k_row: int) -> Bounds:
    r"""Bound the largest flatness of a row by within-row compressibility (M4).

    If every row is :math:`(1, k_r, \epsilon_r)`-compressible with
    :math:`\epsilon_r \le 1 - k_r/m`, then
    :math:`\kappa_i = \|w_i\|_1 / \|w_i\|_2` satisfies

    .. math:: 1 \le \kappa_i \le \Big[\frac{(1-\epsilon_r)^2}{k_r} +
       \frac{\epsilon_r^2}{m - k_r}\Big]^{-1/2} \le \min\Big\{\sqrt m,\
       \sqrt{k_r} + \epsilon_r \sqrt m,\ \frac{\sqrt{k_r}}{1-\epsilon_r}\Big\} ,

    where the second term is dropped for :math:`k_r = m`. The largest error of a row is
    taken for :math:`\epsilon_r`. Source: ours; the second term of the minimum is the
    row step of Barsbey et al. 2026.

    Args:
        w: ``(h, m)``, not zero; zero rows do not count.
        k_row: from 1 to m.

    Raises:
        ValueError: a zero or infinite matrix, or ``k_row`` out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> w = torch.tensor([[3.0, -4.0], [1.0, 0.0]])
        >>> low, value, high = theory.flatness_bounds(w, 2)
        >>> low, round(value, 4), round(high, 4)
        (1.0, 1.4, 1.4142)
    """
    w, _ = unit_scale(w)
    rows = row_norms(w)
    if not rows.any():
        raise ValueError("The zero matrix has no flatness.")
    m, eps = w.shape[1], _largest_row_error(w, k_row)
    tail = eps**2 / (m - k_row) if k_row < m else 0.0
    flatness = row_norms(w, p=1)[rows > 0] / rows[rows > 0]
    return Bounds(
        low=1.0,
        value=float(flatness.max()),
        high=((1 - eps) ** 2 / k_row + tail) ** -0.5,
    )


class Errors(NamedTuple):
    """Best-k-term errors (q = 2) of the singular values and of the row l2 norms."""

    spectrum: float
    rows: float


def neuron_implies_spectral(w: Tensor, k: int) -> Errors:
    r"""Return both errors of :math:`\epsilon_k(\sigma) \le \epsilon_k(\rho)` (M5).

    The k strongest rows are a matrix of rank at most k, and the truncated singular
    value decomposition is nearer. Source: Schur 1923, by whom the eigenvalues of
    :math:`W W^\top` majorise its diagonal; the reading for neurons is ours.

    Args:
        w: ``(h, m)``.
        k: from 0 to min(h, m).

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> w = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
        >>> spectrum, rows = theory.neuron_implies_spectral(w, 1)
        >>> round(rows, 4), spectrum < 1e-6
        (0.7071, True)
    """
    return Errors(
        spectrum=best_k_error(singular_values(w), k),
        rows=best_k_error(row_norms(w.double()), k),
    )
