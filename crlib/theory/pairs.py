r"""Every pair of neighbouring layers counts: each layer is split between its two pairs.

A layer :math:`W = U S V^\top` is :math:`U S^t` after :math:`S^{1-t} V^\top`. The second
part goes to the pair with the layer before, the first to the pair with the layer after.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linprog
from torch import Tensor

from crlib.metrics import unit_scale

__all__ = ["EveryPair", "every_pair", "path_norm"]

_UNITS = 12  # so many units have 4096 masks, which can all be tried


class EveryPair(NamedTuple):
    """A bound on the Lipschitz constant of a ReLU network in which every pair counts.

    Attributes:
        bound: on the Lipschitz constant.
        product: of the layers' spectral norms.
        exponents: t of each layer, 1 for the first and 0 for the last.
        slack: by what factor ``bound`` may exceed the least over all exponents; NaN
            where the exponents were given or not all masks were tried.
        exact: whether all masks were tried between all layers.
    """

    bound: float
    product: float
    exponents: tuple[float, ...]
    slack: float
    exact: bool


class _Layer(NamedTuple):
    """A singular value decomposition, scaled to the norm one, without what is zero."""

    u: Tensor
    log_s: Tensor
    vh: Tensor


def every_pair(
    weights: Sequence[Tensor],
    exponents: Sequence[float] | None = None,
    *,
    tolerance: float = 1e-6,
) -> EveryPair:
    r"""Bound the Lipschitz constant of a ReLU network by all pairs of its layers.

    .. math:: \mathrm{Lip}_2 \le \prod_{l<L} \max_D
       \|S_{l+1}^{1 - t_{l+1}} V_{l+1}^\top D\, U_l S_l^{t_l}\|_2 = e^{\Psi(t)}

    for all exponents :math:`t_l \in [0, 1]` with :math:`t_1 = 1` and :math:`t_L = 0`,
    and :math:`\Psi` is convex. Biases do not matter. Without ``exponents`` the least is
    searched by cutting planes. Between layers of more than 12 units the maximum is
    replaced by the smaller of two bounds, as in :func:`interlayer_alignment`; the
    search then stays with the one that is smaller at one half.

    Source: ours; one half everywhere is Virmaux & Scaman 2018, zeros and ones contain
    the pairs of theorem 3.2 of Barsbey et al. 2026.

    Args:
        weights: the layers' matrices ``(h, m)`` from input to output, none zero.
            Singular values below the rounding of the largest are left out.
        exponents: t of the layers between first and last, or None for the best.
        tolerance: on the logarithm of the bound, where the search ends.

    Raises:
        ValueError: no layer, a zero layer, layers that do not fit, or exponents that
            are not one for each inner layer and in [0, 1].

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
        >>> stretch = torch.diag(torch.tensor([4.0, 1.0]))
        >>> found = theory.every_pair([stretch, turn @ stretch, turn @ stretch])
        >>> round(found.product, 4), found.bound < 50
        (64.0, True)
    """
    if not weights:
        raise ValueError("Give at least one weight matrix.")
    for w, after in itertools.pairwise(weights):
        if after.shape[1] != len(w):
            raise ValueError(
                f"Layers {tuple(w.shape)} and {tuple(after.shape)} do not follow each"
                " other: the later must take as many inputs as the earlier has outputs."
            )
    inner = max(0, len(weights) - 2)
    if exponents is not None and (
        len(exponents) != inner or not all(0 <= t <= 1 for t in exponents)
    ):
        raise ValueError(
            f"exponents are {list(exponents)}: give one in [0, 1] for each of the"
            f" {inner} layers between the first and the last."
        )
    layers, logs = zip(*(_decomposed(w) for w in weights), strict=True)
    pairs = [_Pair(a, b) for a, b in itertools.pairwise(layers)]
    start = [0.5] * inner if exponents is None else list(exponents)
    best, log, slack = _searched(pairs, start, tolerance if exponents is None else None)
    exact = all(pair.exact for pair in pairs)
    known = not inner or (exact and exponents is None)
    return EveryPair(
        bound=_exp(log + sum(logs)),
        product=_exp(sum(logs)),
        exponents=(1.0, *best, 0.0) if len(weights) > 1 else (1.0,),
        slack=math.exp(slack) if known else math.nan,
        exact=exact,
    )


def _exp(log: float) -> float:
    """Return the exponential, infinity where it is out of range."""
    return math.exp(log) if log < 709 else math.inf


def _decomposed(w: Tensor) -> tuple[_Layer, float]:
    unit, scale = unit_scale(w)
    if w.ndim != 2 or 0 in w.shape or not unit.isfinite().all():
        raise ValueError("Give finite weight matrices (h, m), not empty.")
    u, s, vh = torch.linalg.svd(unit, full_matrices=False)
    if not s[0] > 0:
        raise ValueError("A layer is zero: then so is the network, and nothing aligns.")
    kept = s > max(w.shape) * torch.finfo(s.dtype).eps * s[0]
    layer = _Layer(u[:, kept], (s[kept] / s[0]).log(), vh[kept])
    return layer, float(s[0].log()) + math.log(scale)


class _Pair:
    r"""The largest :math:`\|S'^a V'^\top D U S^b\|_2` over the masks, or a bound."""

    def __init__(self, earlier: _Layer, later: _Layer) -> None:
        self.earlier, self.later = earlier, later
        units = len(earlier.u)
        self.exact = units <= _UNITS
        if self.exact:
            masks = (
                torch.arange(2**units)[:, None] >> torch.arange(units)
            ) & 1  # (2**h, h)
            masks = masks.to(earlier.u)
            self.products = (later.vh * masks[:, None]) @ earlier.u  # (2**h, k', k)
            return
        open_mask = later.vh @ earlier.u
        entries = (later.vh.abs() @ earlier.u.abs() + open_mask.abs()) / 2
        self.products = torch.stack([entries, open_mask])
        sizes = self._norms(0.5, 0.5)
        self.by_entries = bool(sizes[0] <= (sizes[1] + 1) / 2)

    def _norms(self, a: float, b: float) -> Tensor:
        return torch.linalg.matrix_norm(self._weighed(self.products, a, b), ord=2)

    def _weighed(self, products: Tensor, a: float, b: float) -> Tensor:
        left, right = (a * self.later.log_s).exp(), (b * self.earlier.log_s).exp()
        return left[:, None] * products * right

    def least(self, a: float, b: float) -> float:
        """Return the logarithm, by the smaller bound where there are two."""
        sizes = self._norms(a, b)
        size = sizes.max() if self.exact else min(sizes[0], (sizes[1] + 1) / 2)
        return math.log(float(size)) if size > 0 else -math.inf

    def cut(self, a: float, b: float) -> tuple[float, float, float]:
        """Return the logarithm of one convex bound, and its slopes in a and b."""
        if self.exact:
            chosen = self.products[int(self._norms(a, b).argmax())]
        else:
            chosen = self.products[0 if self.by_entries else 1]
        u, s, vh = torch.linalg.svd(self._weighed(chosen, a, b), full_matrices=False)
        size = float(s[0])
        slopes = (
            float(u[:, 0] ** 2 @ self.later.log_s),
            float(vh[0] ** 2 @ self.earlier.log_s),
        )
        if self.exact or self.by_entries:
            return math.log(size), *slopes
        share = size / (size + 1)
        return math.log((size + 1) / 2), share * slopes[0], share * slopes[1]


def _searched(
    pairs: Sequence[_Pair], start: Sequence[float], tolerance: float | None
) -> tuple[tuple[float, ...], float, float]:
    """Minimise by Kelley's cutting planes, one family for each pair.

    Returns:
        The exponents, the logarithm there, and how far it may be above the least.
    """
    n = len(start)

    if not pairs:
        return (), 0.0, 0.0

    def ends(t: Sequence[float]) -> list[tuple[float, float]]:
        """The exponents (of the later, of the earlier layer) in each pair."""
        whole = [1.0, *t, 0.0]
        return [(1 - after, own) for own, after in itertools.pairwise(whole)]

    def value(t: Sequence[float]) -> float:
        return sum(p.least(a, b) for p, (a, b) in zip(pairs, ends(t), strict=True))

    t = list(start)
    best, log = tuple(t), value(t)
    # Where nothing passes between two layers, nothing does with another split.
    if tolerance is None or n == 0 or log == -math.inf:
        return best, log, 0.0
    rows, right, floor = [], [], -math.inf
    for _ in range(200):
        for i, (pair, (a, b)) in enumerate(zip(pairs, ends(t), strict=True)):
            height, slope_a, slope_b = pair.cut(a, b)
            row = [0.0] * (n + len(pairs))  # the exponents, then one height a pair
            if i > 0:
                row[i - 1] += slope_b
            if i < n:
                row[i] -= slope_a
            row[n + i] = -1.0
            rows.append(row)
            right.append(sum(c * x for c, x in zip(row, t, strict=False)) - height)
        found = linprog(
            [0.0] * n + [1.0] * len(pairs),
            rows,
            right,
            bounds=[(0, 1)] * n + [(-1e3, 0)] * len(pairs),
        )
        floor, t = float(found.fun), [float(v) for v in found.x[:n]]
        if value(t) < log:
            best, log = tuple(t), value(t)
        if log - floor < tolerance:
            break
    return best, log, max(0.0, log - floor)


def path_norm(weights: Sequence[Tensor]) -> float:
    r"""Return the l1 path norm, a bound on the Lipschitz constant in the maximum norm.

    .. math:: \mathrm{Lip}_\infty \le \||W^L| \cdots |W^1| \mathbf{1}\|_\infty
       = \inf \prod_l \|W^l\|_\infty,

    the least over the gauges: all positive factors on the hidden units, taken back in
    the next layer. No gauge changes it. Source: after Neyshabur et al. 2015.

    Args:
        weights: the layers' matrices ``(h, m)`` from input to output.

    Raises:
        ValueError: no layer.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.path_norm([torch.diag(torch.tensor([100.0, 1.0])),
        ...                   torch.diag(torch.tensor([0.01, 1.0]))])
        1.0
    """
    if not weights:
        raise ValueError("Give at least one weight matrix.")
    reach = weights[0].new_ones(weights[0].shape[1]).double()
    for w in weights:
        reach = w.detach().double().abs() @ reach
    return float(reach.max())
