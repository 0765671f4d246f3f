r"""Average and worst case: what a layer does to chance, and what to an adversary."""

import math
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from crlib import checks
from crlib.metrics import singular_values, unit_scale
from crlib.theory.layers import Bounds, spectral_norm_bounds

__all__ = [
    "Moments",
    "Premises",
    "RankOne",
    "gain_ratio",
    "mask_amplification",
    "radius_premises",
    "random_head_moments",
    "rank_one_optimal",
    "universal_law",
]


class Moments(NamedTuple):
    """Mean and variance of a random quantity."""

    mean: float
    variance: float


def gain_ratio(w: Tensor, k: int) -> Bounds:
    r"""Return the largest over the mean squared gain of ``w``, between its bounds (M7).

    For a uniform on the unit sphere the mean of :math:`\|W a\|^2` is
    :math:`\|W\|_F^2 / m`, and

    .. math:: \frac{m (1 - \epsilon^2)}{k} \le
       \frac{\max_a \|W a\|^2}{\mathrm{E} \|W a\|^2} = \frac{m}{\mathrm{srank}(W)} \le
       \frac{m (1 - \epsilon^2)}{1 + (k-1)(1-\beta)^2} ,

    with error and spread of the singular values (q = 2). Source: ours.

    Args:
        w: ``(h, m)``, not zero.
        k: from 1 to min(h, m).

    Raises:
        ValueError: not a finite matrix, the zero matrix, or ``k`` out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> low, value, high = theory.gain_ratio(torch.tensor([[2.0, 0.0]]), 1)
        >>> round(low, 6), round(value, 6), round(high, 6)
        (2.0, 2.0, 2.0)
    """
    w, _ = unit_scale(w)
    sides = spectral_norm_bounds(w, k)
    scale = w.shape[1] / float(w.square().sum())
    return Bounds(*(side**2 * scale for side in sides))


def random_head_moments(w: Tensor) -> Moments:
    r"""Return mean and variance of :math:`\|W^\top c\|^2` for a random head c (M8).

    For c uniform on the unit sphere of :math:`\mathbb R^h`

    .. math:: \mathrm{E} = \frac{\|W\|_F^2}{h}, \qquad \mathrm{Var} =
       \frac{2 (h \sum_i \sigma_i^4 - \|W\|_F^4)}{h^2 (h + 2)} .

    For noise at the input, :math:`\|W a\|^2`, give the transpose. Source: ours; moments
    of a quadratic form on the sphere.

    Args:
        w: ``(h, m)``.

    Raises:
        ValueError: not a finite matrix, or one whose moments float64 cannot hold.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> found = theory.random_head_moments(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
        >>> round(found.mean, 4), round(found.variance, 4)
        (2.0, 2.0)
    """
    squares, h = singular_values(w).square(), len(w)
    total = float(squares.sum())
    if w.any() and not 1e-150 < total < 1e150:
        raise ValueError("The moments leave the range of float64: rescale w.")
    excess = h * float(squares.square().sum()) - total**2
    # On paper excess is never negative: there are at most h singular values.
    return Moments(total / h, 2 * max(excess, 0.0) / (h**2 * (h + 2)))


def universal_law(
    distance: Tensor, share: Tensor | float, length: float, dimension: int
) -> Tensor:
    r"""Return how likely a random direction of a subspace carries each input across.

    An input lies at distance d from an affine boundary with unit normal n, and
    :math:`p = \|P_S n\|` for a subspace S of dimension r. For v uniform on the sphere
    of radius :math:`\rho` in S, v or -v crosses the boundary with probability

    .. math:: \Pr\big(B \ge (d / (\rho p))^2\big), \qquad
       B \sim \mathrm{Beta}\big(\tfrac12, \tfrac{r-1}{2}\big) ,

    and for r = 1 if :math:`d \le \rho p`. The mean over inputs is the expected fooling
    rate of the pair, so the best pair reaches at least that. Source: ours, after Fawzi
    et al. 2016; the law of a coordinate on the sphere.

    Args:
        distance: ``(N,)`` d in input units, at least 0; infinity is never reached.
        share: p in [0, 1], a number or ``(N,)``.
        length: :math:`\rho` in input units, at least 0.
        dimension: r, at least 1.

    Returns:
        ``(N,)`` float64 in [0, 1].

    Raises:
        ValueError: one of them is out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.universal_law(torch.tensor([0.0, 0.5, 2.0]), 1.0, 1.0, 3)
        tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    d, p = (torch.as_tensor(v, dtype=torch.float64).cpu() for v in (distance, share))
    p = p.expand(d.shape)
    if not (d >= 0).all():
        raise ValueError("A distance is negative or NaN.")
    if not ((p >= 0) & (p <= 1 + 1e-9)).all():
        raise ValueError("share must lie in [0, 1]: it is the norm of P_S n.")
    checks.not_negative(length=length)
    checks.at_least(1, dimension=dimension)
    # A boundary at the input is crossed by any step, one out of reach by none.
    u = torch.where(d == 0, 0, d / (length * p)).clamp_max(2)
    if dimension == 1:
        return (u <= 1).double()
    law = stats.beta(0.5, (dimension - 1) / 2)
    return torch.from_numpy(law.sf(u.square().numpy())).view_as(d)


def mask_amplification(n: int) -> Bounds:
    r"""Return how much a mask can raise the operator norm of an n x n matrix (M6c).

    Let H be Sylvester's Hadamard matrix and M the mask of its positive entries. All
    singular values of :math:`W = H / \sqrt n` are one, and

    .. math:: \frac12 \Big(\sqrt n + \frac1{\sqrt n}\Big) \le \|M \circ W\|_2 =
       \frac{\sqrt n + \sqrt{n + 8}}{4} \le \frac{1 + \sqrt n}{2} .

    The left side is the gain in the flat direction. The right side bounds
    :math:`\|M \circ W\|_2 / \|W\|_2` for every mask and every matrix with n columns or
    n rows, and is attained for powers of four, by a Hadamard matrix of equal row sums.
    Source: the Schur norm of a matrix of signs (Holbrook et al. 2024), which is
    gamma_2 in Linial et al. 2007; the step to masks is ours.

    Args:
        n: a power of two.

    Raises:
        ValueError: ``n`` is no power of two.

    Example:
        >>> from crlib import theory
        >>> theory.mask_amplification(1)
        Bounds(low=1.0, value=1.0, high=1.0)
    """
    if n < 1 or n & (n - 1):
        raise ValueError(f"n is {n}: Sylvester's matrices exist for powers of two.")
    root = math.sqrt(n)
    return Bounds(
        low=(root + 1 / root) / 2,
        value=(root + math.sqrt(n + 8)) / 4,
        high=(1 + root) / 2,
    )


class RankOne(NamedTuple):
    r"""A classifier :math:`\mathrm{sign}(c^\top W x)` of rank one, and its radii.

    The signed distance of :math:`x = y \mu + \xi` to the boundary,
    :math:`y \mu^\top x / \|\mu\|`, is Gaussian with mean ``distance`` and standard
    deviation ``noise``.
    """

    weight: Tensor
    head: Tensor
    distance: float
    noise: float

    def robust_accuracy(self, eps: float) -> float:
        r"""Return :math:`\Phi((\|\mu\| - \varepsilon) / s)`, exact for l2, no box."""
        return float(stats.norm.cdf((self.distance - eps) / self.noise))


def rank_one_optimal(
    mean: Tensor, u: Tensor, *, noise: float, sigma: float = 1.0
) -> RankOne:
    r"""Return the rank-one classifier that no other can beat (M12).

    Let :math:`x = y \mu + \xi` with :math:`y = \pm 1` equally likely and
    :math:`\xi \sim N(0, s^2 I)`. With :math:`W = \sigma u \mu^\top / \|\mu\|` and
    c = u the classifier has the l2 robust accuracy

    .. math:: \Phi\Big(\frac{\|\mu\| - \varepsilon}{s}\Big) ,

    which for :math:`\varepsilon \le \|\mu\|` is the largest of all classifiers, linear
    or not. Source: ours for the rank; the optimum is known (Bhagoji et al. 2019).

    Args:
        mean: ``(m,)`` mean of the class +1, not zero.
        u: ``(h,)`` any direction, not zero; it is scaled to length one.
        noise: s, positive.
        sigma: the one singular value, positive.

    Raises:
        ValueError: a zero vector, or a number that is not positive.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> mean, u = torch.tensor([3.0, 4.0]), torch.ones(2)
        >>> best = theory.rank_one_optimal(mean, u, noise=5.0)
        >>> best.distance, best.robust_accuracy(5.0)
        (5.0, 0.5)
    """
    if mean.ndim != 1 or u.ndim != 1 or not mean.any() or not u.any():
        raise ValueError("mean and u must be vectors (m,) and (h,) that are not zero.")
    if not (noise > 0 and sigma > 0):
        raise ValueError(f"noise is {noise}, sigma {sigma}: both must be positive.")
    mean, u = mean.detach().double(), u.detach().double()
    distance, u = float(mean.norm()), u / u.norm()
    return RankOne(sigma * torch.outer(u, mean / distance), u, distance, noise)


class Premises(NamedTuple):
    """What makes a compressible layer fragile: both sides and what enters them.

    ``ratio``: sum of the two radii over the distance of the two inputs, at most 1.
    ``alignment``: of the head with the top left singular vectors, without the part of
    the head that no output of the layer reaches, at most 1. ``signal``: gain along the
    difference, relative to the mean gain. ``worst``: the largest gain, likewise.
    ``bound``: upper bound on ``ratio``; infinite for alignment zero.
    """

    ratio: float
    alignment: float
    signal: float
    worst: float
    bound: float


def radius_premises(w: Tensor, head: Tensor, difference: Tensor) -> Premises:
    r"""Bound the radii of a linear score by alignment, signal gain and largest gain.

    Let :math:`c^\top W x + b` have different signs at x and x', :math:`d = x' - x`. The
    l2 distances to the boundary satisfy

    .. math:: \frac{r(x) + r(x')}{\|d\|} = \frac{|c^\top W d|}{\|W^\top c\| \|d\|} \le
       \frac1\alpha \sqrt{\frac{\gamma(d)}{m / \mathrm{srank}(W)}} ,

    where :math:`\alpha = |u_1^\top c| / \|Q c\|` with the projector Q onto the column
    space of W, and :math:`\gamma(d) = m \|W d\|^2 / (\|W\|_F^2 \|d\|^2)`. At rank one
    the two sides are equal. Where several singular values are the largest,
    :math:`|u_1^\top c|` is the length of the part of c in the span of all of them: any
    choice of :math:`u_1` is allowed, and this one is the best. Singular values that
    rounding to the type of W can have made are left out of Q; what they could add is
    added to the bound. Nothing depends on the scale of W, c or d. Source: ours.

    Args:
        w: ``(h, m)``.
        head: ``(h,)`` c.
        difference: ``(m,)`` d, not zero.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, or
            :math:`W^\top c` or d is zero.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> w = torch.tensor([[2.0, 0.0]])
        >>> found = theory.radius_premises(w, torch.ones(1), torch.tensor([3.0, 4.0]))
        >>> round(found.ratio, 4), round(found.bound, 4)
        (0.6, 0.6)
    """
    if w.ndim != 2 or head.shape != w.shape[:1] or difference.shape != w.shape[1:]:
        raise ValueError(
            f"w {tuple(w.shape)}, head {tuple(head.shape)} and difference"
            f" {tuple(difference.shape)} must be (h, m), (h,) and (m,)."
        )
    if not all(v.isfinite().all() for v in (w, head, difference)):
        raise ValueError("w, head or difference holds a NaN or an infinity.")
    noise = torch.finfo(w.dtype).eps if w.is_floating_point() else 0.0
    w, c, d = (unit_scale(v)[0] for v in (w, head, difference))
    normal = w.T @ c
    if not normal.any() or not d.any():
        raise ValueError("W^T c or the difference is zero: there is no boundary.")
    u, sigma, _ = torch.linalg.svd(w, full_matrices=False)
    mean = float(w.square().sum()) / w.shape[1]
    # Rounding each entry moves the singular values by about this, finding them by more.
    noise *= float(torch.linalg.matrix_norm(w.abs(), ord=2))
    noise += max(w.shape) * torch.finfo(w.dtype).eps * float(sigma[0])
    parts = u.T @ c
    top, real = sigma >= sigma[0] - noise, sigma > noise
    # The part of c outside the column space never enters the score.
    reached = float(parts[real].norm())
    alignment = float(parts[top].norm()) / reached if reached else 0.0
    signal = float((w @ d).square().sum() / d.square().sum()) / mean
    worst = float(sigma[0]) ** 2 / mean
    bound = math.inf
    if alignment:
        # The top values are equal up to rounding: the least of them is safe.
        loss = float(sigma[0] / sigma[top][-1])
        rest = float((sigma * parts)[~real].norm()) / float(sigma[0]) / reached
        bound = (math.sqrt(signal / worst) + rest) * loss / alignment
    return Premises(
        ratio=float((normal @ d).abs() / (normal.norm() * d.norm())),
        alignment=alignment,
        signal=signal,
        worst=worst,
        bound=bound,
    )
