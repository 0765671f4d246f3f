r"""What a network can do beyond its layers: alignment, pairing, the logistic gap."""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crlib import checks
from crlib.metrics import best_k_error, operator_norm, row_norms, unit_scale
from crlib.theory.layers import Bounds

__all__ = [
    "Alignment",
    "GapSlope",
    "NetworkLipschitz",
    "gap_slope",
    "interlayer_alignment",
    "logistic_gap_bounds",
    "margin_drift",
    "network_lipschitz",
    "optimal_pairing",
]

_ORDERS = {"l2": 2, "linf": math.inf}
_UNITS = 12  # so many units have 4096 masks, which can all be tried


class Alignment(NamedTuple):
    """What two neighbouring layers do together, relative to what they do apart.

    Attributes:
        low: lower bound on the largest norm over the masks.
        high: upper bound on it, at most 1.
        dominant: the part of the ``k`` dominant terms, or a bound on it.
        remainder: the part of the terms that were dropped.
        exact: whether ``dominant`` is the maximum, not a bound on it.
    """

    low: float
    high: float
    dominant: float
    remainder: float
    exact: bool


class NetworkLipschitz(NamedTuple):
    """Two upper bounds on the Lipschitz constant of a ReLU network.

    Attributes:
        product: of the layers' operator norms.
        aligned: ``product`` times the alignments of the best pairs.
        pairs: index of the first layer of each of these pairs.
        alignments: one :class:`Alignment` for each pair of neighbours.
    """

    product: float
    aligned: float
    pairs: tuple[int, ...]
    alignments: tuple[Alignment, ...]


class GapSlope(NamedTuple):
    """How fast the logistic gap opens with the budget, and two floors.

    Attributes:
        value: the slope at zero.
        aligned: the part of the strongest direction of the first layer.
        floor: a bound on that part from compressibility and the Frobenius norm.
    """

    value: float
    aligned: float
    floor: float


def interlayer_alignment(
    w_next: Tensor, w: Tensor, k: int, *, norm: str = "l2"
) -> Alignment:
    r"""Bound what a ReLU between two layers lets through (theorem M9, first part).

    .. math:: \max_D \frac{\|W'_k D W_k\|_p}{\|W'\|_p \|W\|_p} \le
       \max_D \frac{\|W' D W\|_p}{\|W'\|_p \|W\|_p} \le A_p =
       \max_D \frac{\|W'_k D W_k\|_p}{\|W'\|_p \|W\|_p} + R_p

    over the masks D, diagonal matrices of zeros and ones, with :math:`R_p = r' + r`.
    l2: :math:`W_k` is the truncated singular value decomposition and
    :math:`r = \sigma_{k+1}/\sigma_1`. linf: :math:`W_k` keeps the k rows of largest
    :math:`\ell_1` norm and :math:`r = \nu_{(k+1)}/\nu_{(1)}`.

    The maximum is found by trying all masks of up to 12 units that matter (linf: at
    most k do). For more units it is replaced by the smaller of two upper bounds: the
    norm of the matrix of the entrywise maxima over D (for l2 in the singular bases;
    exact at k = 1), and :math:`\tfrac12(\|W'_k W_k\|_p + \|W'_k\|_p \|W_k\|_p)`,
    from :math:`D = (I + S)/2` with signs S. The lower side then comes from D = I.

    Source: the upper side after theorem 3.2 of Barsbey et al. 2026; the remainder, the
    lower side, the proof and the two bounds on the maximum are ours.

    Args:
        w_next: ``(o, h)``, the later layer, not zero.
        w: ``(h, m)``, the earlier layer, not zero.
        k: terms kept in each layer, at least 1; a layer with fewer keeps all.
        norm: ``"l2"`` or ``"linf"``.

    Raises:
        ValueError: an unknown norm, shapes that do not fit, a zero layer, or k below 1.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> w_next, w = torch.eye(2)[:1], torch.eye(2)[:, :1]
        >>> round(theory.interlayer_alignment(w_next, w, 1).high, 4)
        1.0
    """
    checks.one_of("norm", norm, tuple(_ORDERS))
    if k < 1:
        raise ValueError(f"k is {k}: keep at least one term.")
    w_next, w = unit_scale(w_next)[0], unit_scale(w)[0]
    size = operator_norm(w_next, norm=norm) * operator_norm(w, norm=norm)
    if w_next.shape[1] != len(w):
        raise ValueError(
            f"Layers {tuple(w.shape)} and {tuple(w_next.shape)} do not follow each"
            " other: the later must take as many inputs as the earlier has outputs."
        )
    if size == 0:
        raise ValueError("A layer is zero: then so is the network, and nothing aligns.")
    # Both factors keep the norm of the product and are as small as k allows.
    if norm == "l2":
        later, earlier = (torch.linalg.svd(v, full_matrices=False) for v in (w_next, w))
        a = later.S[:k, None] * later.Vh[:k]
        b = earlier.U[:, :k] * earlier.S[:k]
        remainder = _ratio(later.S, k) + _ratio(earlier.S, k)
    else:
        later_rows, earlier_rows = (
            row_norms(v, p=1).sort(descending=True) for v in (w_next, w)
        )
        a = w_next[later_rows.indices[:k]]
        kept = earlier_rows.indices[:k]
        a, b = a[:, kept], w[kept]
        remainder = _ratio(later_rows.values, k) + _ratio(earlier_rows.values, k)
    largest, exact = _largest_over_masks(a, b, norm)
    dominant = largest / size
    open_mask = operator_norm(w_next @ w, norm=norm) / size
    high = min(1.0, dominant + remainder)
    return Alignment(
        # On paper low is not above high; a last bit can be.
        low=min(high, max(open_mask, dominant) if exact else open_mask),
        high=high,
        dominant=dominant,
        remainder=remainder,
        exact=exact,
    )


def _ratio(s: Tensor, k: int) -> float:
    return float(s[k] / s[0]) if k < len(s) else 0.0


def _largest_over_masks(a: Tensor, b: Tensor, norm: str) -> tuple[float, bool]:
    """Return the largest ``|a D b|`` over masks D, or a bound on it; whether exact."""
    order, units = _ORDERS[norm], a.shape[1]
    if units <= _UNITS:
        masks = (
            torch.arange(2**units, device=a.device)[:, None]
            >> torch.arange(units, device=a.device)
        ) & 1
        norms = [
            torch.linalg.matrix_norm((a * part[:, None]) @ b, ord=order).max()
            for part in masks.to(a).split(64)
        ]
        return float(torch.stack(norms).max()), True
    # Each entry is a sum over the units; a mask keeps its positive or negative terms.
    open_mask = a @ b
    entries = (a.abs() @ b.abs() + open_mask.abs()) / 2
    by_entries = operator_norm(entries, norm=norm)
    by_signs = operator_norm(open_mask, norm=norm) + operator_norm(
        a, norm=norm
    ) * operator_norm(b, norm=norm)
    return min(by_entries, by_signs / 2), entries.numel() == 1


def optimal_pairing(weights: Sequence[float]) -> tuple[int, ...]:
    r"""Return the non-adjacent indices of largest total weight.

    The maximum-weight independent set on a path, by
    :math:`F(l) = \max\{F(l + 1),\ w_l + F(l + 2)\}` from the end, in linear time.
    Given :math:`w_l = -\log A(l)` these are the pairs of layers that tighten a
    Lipschitz product most (theorem M9, second part). Source: ours, for the optimal
    partition of theorem 3.2 of Barsbey et al. 2026.

    Args:
        weights: numbers of any sign; what is not positive is never chosen.

    Raises:
        ValueError: a weight is NaN.

    Example:
        >>> from crlib import theory
        >>> theory.optimal_pairing([1.0, 3.0, 1.0, 2.0])
        (1, 3)
    """
    if any(math.isnan(w) for w in weights):
        raise ValueError("A weight is NaN: compare numbers only.")
    best = [0.0] * (len(weights) + 2)
    for i in reversed(range(len(weights))):
        best[i] = max(best[i + 1], weights[i] + best[i + 2])
    chosen, i = [], 0
    while i < len(weights):
        if best[i] > best[i + 1]:
            chosen.append(i)
            i += 1
        i += 1
    return tuple(chosen)


def network_lipschitz(
    weights: Sequence[Tensor], k: int, *, norm: str = "l2"
) -> NetworkLipschitz:
    r"""Bound the Lipschitz constant of a ReLU network (theorem M9, second part).

    For pairwise non-adjacent indices S,

    .. math:: L_p \le \prod_l \|W^l\|_p \prod_{l \in S} A_p(l) .

    S is the best such set. Biases do not matter. For the margin of two classes, put
    the difference of the head's rows, ``(1, h)``, in place of the head. Source: after
    theorem 3.2 of Barsbey et al. 2026; proof ours.

    Args:
        weights: the layers' matrices ``(h, m)`` from input to output, none zero.
        k: terms kept in each layer, see :func:`interlayer_alignment`.
        norm: ``"l2"`` or ``"linf"``, on both sides.

    Raises:
        ValueError: no layer, or what :func:`interlayer_alignment` refuses.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> first = torch.diag(torch.tensor([2.0, 1.0]))
        >>> head = torch.tensor([[0.0, 3.0]])
        >>> found = theory.network_lipschitz([first, head], 1)
        >>> round(found.product, 4), round(found.aligned, 4)
        (6.0, 3.0)
    """
    if not weights:
        raise ValueError("Give at least one weight matrix.")
    product = _product([operator_norm(w, norm=norm) for w in weights])
    alignments = tuple(
        interlayer_alignment(w_next, w, k, norm=norm)
        for w, w_next in zip(weights, weights[1:], strict=False)
    )
    gains = [-math.log(a.high) if a.high > 0 else math.inf for a in alignments]
    pairs = optimal_pairing(gains)
    aligned = _product([product, *(alignments[i].high for i in pairs)])
    return NetworkLipschitz(product, aligned, pairs, alignments)


def _product(factors: list[float]) -> float:
    """Multiply; what is not zero stays so, because an underflow would be no bound."""
    product = math.prod(factors)
    return product if 0 in factors else max(product, sys.float_info.min)


def logistic_gap_bounds(margins: Tensor, reach: float) -> Bounds:
    r"""Bound how much an adversary raises the mean logistic loss (theorem M10).

    An adversary who lowers every margin by exactly D raises the mean of
    :math:`\log(1 + e^{-m})` by a gap between

    .. math:: D\, \mathrm{mean}\, s(-m) \ \le\ \Delta \ \le\
       D\, \mathrm{mean}\, s(D - m) \ \le\ D, \qquad s(t) = 1/(1 + e^{-t}) .

    For a linear logit :math:`c^\top x` and no box,
    :math:`D = \varepsilon \|c\|_*` and ``value`` is the exact gap. For a network whose
    margin has the Lipschitz constant L, :math:`D = \varepsilon L` gives an upper half
    only: the gap is at most ``value``, hence at most D (corollary 3.3 of Barsbey et al.
    2026). The lower half and the middle are ours.

    Args:
        margins: ``(N,)``, true logit less the other, before the attack.
        reach: D, not negative.

    Raises:
        ValueError: no margin, a margin that is not finite, or ``reach`` out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> low, value, high = theory.logistic_gap_bounds(torch.zeros(1), 1.0)
        >>> round(low, 4), round(value, 4), round(high, 4)
        (0.5, 0.6201, 0.7311)
    """
    if margins.ndim != 1 or len(margins) == 0 or not torch.isfinite(margins).all():
        raise ValueError("Give a vector of finite margins, at least one.")
    if not 0 <= reach < math.inf:
        raise ValueError(f"reach is {reach}: it must be finite and not negative.")
    m = margins.detach().double()
    zero, wrong = torch.zeros_like(m), (-m).sigmoid()
    if reach <= 1:
        # The difference of two logarithms would lose the digits of a small reach.
        gap = torch.log1p(wrong * math.expm1(reach))
    else:
        gap = zero.logaddexp(reach - m) - zero.logaddexp(-m)
    return Bounds(
        low=reach * float(wrong.mean()),
        value=float(gap.mean()),
        high=reach * float((reach - m).sigmoid().mean()),
    )


def gap_slope(margins: Tensor, inner: Tensor, w: Tensor, k: int) -> GapSlope:
    r"""Return how fast the logistic gap of a network opens, and what ensures it.

    For a margin that is Lipschitz and differentiable at each of the N inputs, no box,
    and the Euclidean norm, the gap :math:`\Delta(\varepsilon)` of
    :func:`logistic_gap_bounds` has at zero the slope

    .. math:: \lim_{\varepsilon \to 0} \Delta / \varepsilon
       = \mathrm{mean}\, s(-m) \|W^\top q\|_2
       \ge \sigma_1\, \mathrm{mean}\, s(-m) |u_1^\top q|
       \ge \sqrt{(1 - \epsilon_k^2) / k}\, \|W\|_F\, \mathrm{mean}\, s(-m) |u_1^\top q|,

    with q the gradient of the margin with respect to :math:`W x`. Source: the limit is
    first-order, as in Simon-Gabriel et al. 2019; the floors are ours.

    Args:
        margins: ``(N,)``, true logit less the other.
        inner: ``(N, h)``, q of each sample.
        w: ``(h, m)``, the first layer.
        k: of the best-k-term error of the singular values, q = 2.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, or ``k`` out of
            range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> w, inner = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]])
        >>> [round(v, 4) for v in theory.gap_slope(torch.zeros(1), inner, w, 1)]
        [5.0, 5.0, 5.0]
    """
    if margins.ndim != 1 or len(margins) == 0 or w.ndim != 2:
        raise ValueError("Give margins (N,), at least one, and a matrix w (h, m).")
    if inner.shape != (len(margins), len(w)):
        raise ValueError(
            f"inner is {tuple(inner.shape)}: give a gradient of {len(w)} numbers for"
            f" each of {len(margins)} margins."
        )
    if not all(v.isfinite().all() for v in (margins, inner, w)):
        raise ValueError("Margins, gradients and weights must be finite.")
    checks.at_least(1, k=k)
    wrong, q = (-margins.detach().double()).sigmoid(), inner.detach().double()
    u, s, _ = torch.linalg.svd(w.detach().double(), full_matrices=False)
    missed = best_k_error(s, k)
    heard = float((wrong * (q @ u[:, 0]).abs()).mean())
    return GapSlope(
        value=float((wrong * (q @ w.detach().double()).norm(dim=1)).mean()),
        aligned=float(s[0]) * heard,
        floor=math.sqrt((1 - missed**2) / k) * float(s.norm()) * heard,
    )


def margin_drift(
    full: Sequence[Tensor], cut: Sequence[Tensor], inputs: Tensor, reach: float = 0.0
) -> Tensor:
    r"""Bound how far a compression moves the margins of a ReLU network near an input.

    With :math:`\tilde W^l = W^l - E^l` and :math:`a^l` what layer l of the full network
    hands on, the margins at every point within ``reach`` of the input differ by at most

    .. math:: \tau = \sqrt 2 \sum_l \Big( \|E^l a^{l-1}\|_2
       + \mathrm{reach}\, \|E^l\|_2 \prod_{i<l} \|W^i\|_2 \Big)
       \prod_{i>l} \|\tilde W^i\|_2 .

    So the compressed network's distance to another label lies between the full one's
    distances to the levels :math:`\tau` and :math:`-\tau` of its margin, as far as
    ``reach``. Equal biases change nothing but the :math:`a^l`; here are none. Source:
    ours; the walk through the layers is standard.

    Args:
        full: the layers' matrices ``(h, m)`` from input to output.
        cut: those of the compressed network, of the same shapes.
        inputs: ``(N, m)``, as the first layer sees them.
        reach: Euclidean, in the same units, not negative.

    Returns:
        ``(N,)`` float64.

    Raises:
        ValueError: layers of other numbers or shapes, or ``reach`` out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> full, cut = [torch.eye(2)], [torch.diag(torch.tensor([1.0, 0.5]))]
        >>> theory.margin_drift(full, cut, torch.tensor([[0.0, 2.0]]))
        tensor([1.4142], dtype=torch.float64)
    """
    if [w.shape for w in full] != [v.shape for v in cut] or not full:
        raise ValueError("Give two networks with layers of the same shapes.")
    if not 0 <= reach < math.inf:
        raise ValueError(f"reach is {reach}: it must be finite and not negative.")
    a, before = inputs.detach().double(), 1.0
    drift = a.new_zeros(len(a))
    for i, (w, v) in enumerate(zip(full, cut, strict=True)):
        w, error = w.detach().double(), (w - v).detach().double()
        after = math.prod(operator_norm(u) for u in cut[i + 1 :])
        far = reach * before * operator_norm(error)
        drift = drift + after * ((a @ error.T).norm(dim=1) + far)
        a, before = (a @ w.T).relu(), before * operator_norm(w)
    return math.sqrt(2) * drift
