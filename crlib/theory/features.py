r"""How much of the difference between two inputs a classifier keeps, and what it costs.

A linear classifier has logits :math:`f(x) = A x` with one row :math:`a_i` a class.
Where each class has one point, the points are the columns of ``x``, ``(d, n)``, and
point i belongs to class i.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.optimize import lsq_linear
from torch import Tensor

__all__ = [
    "CubeRadii",
    "OneHotAttack",
    "PathIdentity",
    "ProductFactor",
    "Radii",
    "bottleneck_radii",
    "interpolation_radii",
    "one_hot_attack",
    "path_identity",
    "product_factor",
    "prototype_radii",
    "ridge_radii",
    "sign_cube_radii",
]


class Radii(NamedTuple):
    """Distances to pairwise boundaries, ``(n, n)`` each, infinite on the diagonal.

    Attributes:
        radius: from point i to the boundary i|j of the classifier, along its normal;
            negative if point i lies on the wrong side.
        neighbour: the same for the nearest-neighbour classifier, half the distance
            from point i to point j.
    """

    radius: Tensor
    neighbour: Tensor


def _points(x: Tensor, most: int | None = None) -> Tensor:
    if x.ndim != 2 or x.shape[1] < 2 or not x.isfinite().all():
        raise ValueError("x must be finite, (d, n): a column a class, two or more.")
    if most is not None and x.shape[1] > most:
        raise ValueError(
            f"{x.shape[1]} classes need as many features to be told apart one-hot, and"
            f" there are {most}."
        )
    return x.detach().double()


def _factors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q and R of ``x``, refusing columns that are linearly dependent."""
    q, r = torch.linalg.qr(x)
    size = r.diagonal().abs()
    if size.min() <= 1e-13 * size.max():
        raise ValueError("The columns are linearly dependent: nothing interpolates.")
    return q, r


def _radii(a: Tensor, x: Tensor) -> Radii:
    logits = a @ x
    gap = logits.diagonal()[:, None] - logits.T
    radius = gap / torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist")
    neighbour = torch.cdist(x.T, x.T, compute_mode="donot_use_mm_for_euclid_dist") / 2
    own = torch.eye(len(a), dtype=torch.bool, device=a.device)
    if (neighbour[~own] == 0).any():
        raise ValueError("Two columns are equal: no boundary lies between them.")
    return Radii(*(v.masked_fill(own, float("inf")) for v in (radius, neighbour)))


def interpolation_radii(x: Tensor) -> Radii:
    r"""Return the radii of one-hot interpolation with minimum norm.

    :math:`A = X^+` gives :math:`f_j(x_i) = 1\{i = j\}`, and with
    :math:`\theta_{ij}` between :math:`a_i - a_j` and :math:`x_i - x_j`

    .. math:: r_{ij} = \frac{1}{\|a_i - a_j\|}
       = \tfrac12 \|x_i - x_j\| \cos\theta_{ij} .

    For independent standard Gaussian entries
    :math:`r_{ij}^2 \sim \tfrac12 \chi^2_{d-n+1}`, while the nearest neighbour has
    :math:`\tfrac14 \|x_i - x_j\|^2 \sim \tfrac12 \chi^2_d`. Source: ours, from the
    classical marginals of a Wishart matrix, after theorem 1 of Gao et al. 2026 (n = d).

    Args:
        x: ``(d, n)`` of rank n, n from 2 to d.

    Raises:
        ValueError: not a finite matrix of that shape and rank.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.interpolation_radii(2 * torch.eye(2)).radius
        tensor([[   inf, 1.4142],
                [1.4142,    inf]], dtype=torch.float64)
    """
    x = _points(x, most=len(x))
    q, r = _factors(x)
    return _radii(torch.linalg.solve_triangular(r, q.T, upper=True), x)


class OneHotAttack(NamedTuple):
    """A perturbation of the last point.

    Attributes:
        delta: ``(d,)``.
        length: its Euclidean norm.
        bound: :math:`|R_{nn}| + |R_{n-1,n-1}| + |R_{n-1,n}|`, not below the length.
    """

    delta: Tensor
    length: float
    bound: float


def one_hot_attack(x: Tensor) -> OneHotAttack:
    r"""Return the explicit attack on the last point of one-hot interpolation.

    With :math:`X = QR` the last two logits read the last two coordinates of
    :math:`Q^\top x` only. The perturbation :math:`Qb` with

    .. math:: b_n = -R_{nn}, \qquad b_{n-1} = R_{n-1,n-1} - R_{n-1,n},

    and zeros elsewhere gives :math:`x_n` the last two coordinates of
    :math:`x_{n-1}`: its logit n falls from 1 to 0, and n - 1 rises from 0 to 1. Source:
    Gao et al. 2026, theorem 1, for n = d.

    Args:
        x: ``(d, n)`` of rank n, n from 2 to d.

    Raises:
        ValueError: not a finite matrix of that shape and rank.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> round(theory.one_hot_attack(torch.eye(3)).length, 4)
        1.4142
    """
    x = _points(x, most=len(x))
    q, r = _factors(x)
    b = torch.stack([r[-2, -2] - r[-2, -1], -r[-1, -1]])
    bound = r[-1, -1].abs() + r[-2, -2].abs() + r[-2, -1].abs()
    return OneHotAttack(q[:, -2:] @ b, float(b.norm()), float(bound))


def prototype_radii(x: Tensor) -> Radii:
    r"""Return the radii of the prototype classifier :math:`f_j(x) = x_j^\top x`.

    .. math:: r_{ij} = \frac{\|x_i\|^2 - x_i^\top x_j}{\|x_i - x_j\|} .

    Source: ours.

    Args:
        x: ``(d, n)``, n at least 2.

    Raises:
        ValueError: not a finite matrix of that shape.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.prototype_radii(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).radius
        tensor([[   inf, 1.8000],
                [3.2000,    inf]], dtype=torch.float64)
    """
    x = _points(x)
    return _radii(x.T, x)


def ridge_radii(x: Tensor, lam: float) -> Radii:
    r"""Return the radii of ridge regression onto one-hot targets.

    .. math:: A = (X^\top X + \lambda I)^{-1} X^\top

    minimises :math:`\|AX - I\|_F^2 + \lambda \|A\|_F^2`. At :math:`\lambda = 0` it is
    :math:`X^+`, least squares of minimum norm; for large :math:`\lambda` its directions
    are those of the prototypes. Source: ours.

    Args:
        x: ``(d, n)``, n at least 2; more classes than coordinates are allowed.
        lam: not negative.

    Raises:
        ValueError: not a finite matrix of that shape, or ``lam`` out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> theory.ridge_radii(2 * torch.eye(2), 1.0).radius
        tensor([[   inf, 1.4142],
                [1.4142,    inf]], dtype=torch.float64)
    """
    x = _points(x)
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam is {lam}: it must be finite and not negative.")
    if lam == 0:
        return _radii(torch.linalg.pinv(x), x)
    ridge = lam * torch.eye(len(x), dtype=x.dtype, device=x.device)
    return _radii(torch.linalg.solve(x @ x.T + ridge, x).T, x)


def bottleneck_radii(x: Tensor, m: int, generator: torch.Generator) -> Radii:
    r"""Return the radii of one-hot interpolation behind m random features.

    The features are :math:`V^\top x` with m orthonormal columns in V, uniformly drawn;
    the head interpolates them with minimum norm. For independent standard Gaussian
    entries of X, :math:`r_{ij}^2 \sim \tfrac12 \chi^2_{m-n+1}`. Source: ours.

    Args:
        x: ``(d, n)`` of rank n.
        m: number of features, from n to d.
        generator: of the features.

    Raises:
        ValueError: not a finite matrix of that shape and rank, or ``m`` out of range.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> chance = torch.Generator().manual_seed(0)
        >>> found = theory.bottleneck_radii(2 * torch.eye(3), 3, chance)
        >>> round(float(found.radius[0, 1]), 4)
        1.4142
    """
    x = _points(x, most=len(x))
    if not x.shape[1] <= m <= len(x):
        raise ValueError(f"m is {m}: choose it from {x.shape[1]} to {len(x)}.")
    device = generator.device
    g = torch.randn(
        len(x), m, generator=generator, dtype=torch.float64, device=device
    ).to(x.device)
    v, _ = torch.linalg.qr(g)
    q, r = _factors(v.T @ x)
    return _radii(torch.linalg.solve_triangular(r, q.T, upper=True) @ v.T, x)


class ProductFactor(NamedTuple):
    """The last diagonal entry of the QR factor of a product, in two ways.

    Attributes:
        value: :math:`|R_{nn}|` of the product.
        product: the product of the factors' own entries, equal to ``value``.
        column: norm of the product's last column, not below ``value``.
    """

    value: float
    product: float
    column: float


def product_factor(factors: Sequence[Tensor]) -> ProductFactor:
    r"""Return the distance of the last column of a product to the span of the others.

    Peel :math:`G_1 = Q_1 R_1`, :math:`G_2 Q_1 = Q_2 R_2`, and so on. Then
    :math:`G_t \cdots G_1 = Q_t R_t \cdots R_1` and

    .. math:: R_{nn} = \prod_{s \le t} (R_s)_{nn} .

    For independent Gaussian factors the :math:`(R_s)_{nn}^2` are independent
    :math:`\chi^2_{d-n+1}`. Source: ours, after lemma 7 of Gao et al. 2026.

    Args:
        factors: :math:`G_1, \dots, G_t` in the order in which they act: the first
            ``(d, n)``, n from 1 to d, the others ``(d, d)``.

    Raises:
        ValueError: no factors, shapes that do not fit, or a singular product.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> found = theory.product_factor([2 * torch.eye(3), 3 * torch.eye(3)])
        >>> round(found.value, 6), round(found.product, 6)
        (6.0, 6.0)
    """
    if not factors or factors[0].ndim != 2 or factors[0].shape[0] < factors[0].shape[1]:
        raise ValueError("The first factor must be (d, n) with n at most d.")
    if not factors[0].shape[1] or not all(g.isfinite().all() for g in factors):
        raise ValueError("A factor is empty, or holds a NaN or an infinity.")
    d = len(factors[0])
    if any(g.shape != (d, d) for g in factors[1:]):
        raise ValueError(f"The factors after the first must be {(d, d)}.")
    whole = factors[0].detach().double()
    q, r = _factors(whole)
    entries = [r[-1, -1]]
    for factor in factors[1:]:
        g = factor.detach().double()
        whole = g @ whole
        q, r = _factors(g @ q)
        entries.append(r[-1, -1])
    return ProductFactor(
        value=float(torch.linalg.qr(whole).R[-1, -1].abs()),
        product=float(torch.stack(entries).prod().abs()),
        column=float(whole[:, -1].norm()),
    )


class CubeRadii(NamedTuple):
    """Distances of the worst corner, in increasing order.

    Attributes:
        readout: of the linear classifier that computes the last sign exactly.
        hull: of the best linear classifier, half the distance of the classes' hulls.
        neighbour: of the nearest-neighbour classifier; None where d exceeds 12.
    """

    readout: float
    hull: float
    neighbour: float | None


def sign_cube_radii(a: Tensor) -> CubeRadii:
    r"""Return three radii for the corners :math:`x = Az` labelled by :math:`z_d`.

    With :math:`z \in \{-1, 1\}^d`, :math:`A = QR`, and :math:`A_{<d}` the first d - 1
    columns, readout, hull and neighbour are

    .. math:: |R_{dd}| \le \min_{v \in [-1, 1]^{d-1}} \|A_d + A_{<d} v\|
       \le \min_{v \in \{-1, 0, 1\}^{d-1}} \|A_d + A_{<d} v\| .

    Source: the data and the readout are those of Gao et al. 2026, theorem 5; the hull
    is ours. It is found by bounded least squares.

    Args:
        a: ``(d, d)``, invertible, d at least 2.

    Raises:
        ValueError: not a finite, invertible square matrix.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> found = theory.sign_cube_radii(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
        >>> round(found.readout, 4), round(found.hull, 4), round(found.neighbour, 4)
        (3.0, 3.0, 3.1623)
    """
    a = _points(a, most=len(a)).cpu()
    if a.shape[0] != a.shape[1]:
        raise ValueError(f"a is {tuple(a.shape)}: it must be square.")
    _, r = _factors(a)
    rest, last = a[:, :-1].numpy(), a[:, -1].numpy()
    fit = lsq_linear(rest, -last, bounds=(-1, 1), tol=1e-13, method="bvls")
    hull = float((2 * fit.cost) ** 0.5)
    neighbour = None
    if len(a) <= 12:
        d = len(a)
        bits = (torch.arange(2 ** (d - 1))[:, None] >> torch.arange(d - 1)) & 1
        corners = (2 * bits - 1).double() @ a[:, :-1].T
        gap = torch.cdist(corners + a[:, -1], corners - a[:, -1])
        neighbour = float(gap.min()) / 2
    return CubeRadii(float(r[-1, -1].abs()), hull, neighbour)


class PathIdentity(NamedTuple):
    """What a score does along straight paths, ``(N,)`` each.

    Attributes:
        integral: of the slope :math:`\\|\\nabla g\\| \\cos\\theta` along the path.
        difference: of the score between the ends, equal to ``integral``.
        cosine: mean of :math:`\\cos\\theta`.
        crossing: length of the path up to the first zero of the score.
        predicted: integral of :math:`\\cos\\theta` up to there.
    """

    integral: Tensor
    difference: Tensor
    cosine: Tensor
    crossing: Tensor
    predicted: Tensor


def path_identity(
    score: Callable[[Tensor], Tensor], x: Tensor, end: Tensor, *, steps: int = 100
) -> PathIdentity:
    r"""Follow a score g from ``x`` to ``end`` and predict how near its zero is.

    With :math:`L = \|x' - x\|`, :math:`x_s` at length s of the straight path, and
    :math:`\theta_s` between :math:`\nabla g(x_s)` and the path,

    .. math:: g(x') - g(x) = \int_0^L \|\nabla g(x_s)\| \cos\theta_s \, ds .

    Let :math:`\ell` be the first zero of the score on the path and
    :math:`M = \int_0^\ell \cos\theta_s \, ds`. If :math:`c \le \|\nabla g\| \le C`
    on an open set that holds the path and the ball of radius :math:`\tfrac Cc M` about
    x, and no cosine before :math:`\ell` is negative, the distance z of x to the zeros
    of g satisfies :math:`\tfrac cC M \le z \le \tfrac Cc M`. Source: identity and M are
    those of Gao et al. 2026, section 5; the bounds are ours. The integrals use the
    midpoint rule.

    Args:
        score: maps ``(N, ...)`` to ``(N,)``, a gradient can be taken.
        x: ``(N, ...)`` where the score is negative.
        end: ``(N, ...)`` where it is positive.
        steps: number of midpoints.

    Raises:
        ValueError: shapes that differ, no steps, or scores of the wrong sign.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> x, end = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> found = theory.path_identity(lambda z: z.sum(1) - 0.5, x, end)
        >>> round(float(found.crossing), 4), round(float(found.predicted), 4)
        (0.5, 0.3536)
    """
    if x.shape != end.shape or x.ndim < 2 or steps < 1:
        raise ValueError("x and end must be (N, ...) of one shape, steps at least 1.")
    x, way = x.detach(), (end - x).detach()
    length = way.flatten(1).norm(dim=1).double()
    with torch.no_grad():
        nodes = [score(x + k / steps * way).double() for k in range(steps + 1)]
    values = torch.stack(nodes, 1)  # (N, steps + 1)
    if not ((values[:, 0] < 0) & (values[:, -1] > 0)).all():
        raise ValueError("The score must be negative at x and positive at the end.")
    slopes, cosines = [], []
    for k in range(steps):
        z = (x + (k + 0.5) / steps * way).requires_grad_()
        with torch.enable_grad():
            (g,) = torch.autograd.grad(score(z).sum(), z)
        slope = (g * way).flatten(1).sum(1).double()
        slopes.append(slope)
        size = g.flatten(1).norm(dim=1).double() * length
        cosines.append(slope / size.clamp_min(1e-300))
    cosine = torch.stack(cosines, 1)
    first = (values[:, 1:] >= 0).int().argmax(1, keepdim=True)
    before = values.gather(1, first)
    share = before / (before - values.gather(1, first + 1))
    # Steps before the crossing count in full, the one that crosses counts in part.
    counted = torch.arange(steps, device=first.device) < first
    counted = counted.double().scatter(1, first, share)
    return PathIdentity(
        integral=torch.stack(slopes, 1).mean(1),
        difference=values[:, -1] - values[:, 0],
        cosine=cosine.mean(1),
        crossing=length * counted.sum(1) / steps,
        predicted=length * (cosine * counted).sum(1) / steps,
    )
