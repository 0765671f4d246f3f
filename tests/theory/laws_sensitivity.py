"""Average and worst case: gains, heads, masks, and when compressibility hurts."""

import math

import torch
from scipy import stats
from torch import Tensor

from crlib import metrics, theory
from tests.theory.law import Mistake, at_most, equal, law
from tests.theory.matrices import integer, many


def directions(g: torch.Generator, n: int, size: int) -> Tensor:
    """Draw ``n`` points of the unit sphere."""
    a = torch.randn(n, size, generator=g, dtype=torch.float64)
    return a / a.norm(dim=1, keepdim=True)


def flat(g: torch.Generator, h: int, m: int, k: int) -> Tensor:
    """Return a matrix with ``k`` singular values of one and no others."""
    left, _ = torch.linalg.qr(torch.randn(h, k, generator=g, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(m, k, generator=g, dtype=torch.float64))
    return left @ right.T


def hadamard(n: int) -> Tensor:
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < n:
        h = torch.kron(two, h)
    return h


@law(
    Mistake("crlib.theory.gain_ratio", "w.shape[1]", "w.shape[0]"),
    Mistake("crlib.theory.gain_ratio", "side**2", "side"),
)
def worst_over_mean_gain_lies_between_its_bounds() -> None:
    for w, g in many():
        low, value, high = theory.gain_ratio(w, integer(g, 1, min(w.shape)))
        at_most(low, value, w)
        at_most(value, high, w)
        equal(value, w.shape[1] / metrics.stable_rank(metrics.singular_values(w)))


@law(Mistake("crlib.theory.gain_ratio", "w.shape[1] /", "w.shape[1] ** 2 /"))
def equal_singular_values_meet_both_bounds_of_the_gain_ratio() -> None:
    g = torch.Generator().manual_seed(0)
    for k in range(1, 9):
        for side in theory.gain_ratio(flat(g, 12, 9, k), k):
            equal(side, 9 / k)


@law(
    Mistake("crlib.theory.random_head_moments", "total / h,", "total,"),
    Mistake("crlib.theory.random_head_moments", "2 * (h + 2))", "2 * (h + 1))"),
    Mistake("crlib.theory.random_head_moments", "h * float", "(h + 1) * float"),
)
def a_random_head_has_these_moments() -> None:
    # Exact, from the fourth moments of a coordinate on the sphere: 3 / (h (h + 2))
    # for one, 1 / (h (h + 2)) for a pair.
    for w, _ in many():
        mean, variance = theory.random_head_moments(w)
        a, h = w @ w.T, len(w)
        trace, square = float(a.trace()), float(a.square().sum())
        equal(mean, trace / h)
        second = (trace**2 + 2 * square) / (h * (h + 2))
        assert abs(second - mean**2 - variance) <= 1e-9 * second, w


@law(
    Mistake("crlib.theory.random_head_moments", "2 * max", "4 * max"),
    Mistake("crlib.theory.random_head_moments", "total / h,", "total / (h + 2),"),
)
def a_random_head_on_a_flat_layer_follows_a_beta_law() -> None:
    g = torch.Generator().manual_seed(1)
    h, draws = 30, 20_000
    for k in (1, 5, 20):
        w = flat(g, h, 25, k)
        sensitivity = (directions(g, draws, h) @ w).square().sum(1)
        beta = stats.beta(k / 2, (h - k) / 2)
        assert stats.kstest(sensitivity.numpy(), beta.cdf).pvalue > 1e-3, k
        mean, variance = theory.random_head_moments(w)
        equal(mean, beta.mean())
        equal(variance, beta.var())


@law(
    Mistake("crlib.theory.mask_amplification", "math.sqrt(n + 8)", "math.sqrt(n + 4)"),
    Mistake("crlib.theory.mask_amplification", "1 / root", "2 / root"),
)
def the_hadamard_mask_amplifies_by_this_much() -> None:
    for power in range(9):
        n = 2**power
        w = hadamard(n) / math.sqrt(n)
        cut = w * (w > 0)
        low, value, high = theory.mask_amplification(n)
        equal(metrics.operator_norm(w), 1)
        equal(metrics.operator_norm(cut), value)
        equal(float(cut.sum()) / n, low)
        at_most(low, value)
        at_most(value, high)


@law(Mistake("crlib.theory.mask_amplification", "high=(1 + root)", "high=(0.2 + root)"))
def no_mask_amplifies_more() -> None:
    # For a power of two n at least min(h, m) the bound can only be too high; the
    # exact one is asserted too.
    for w, g in many():
        size = min(w.shape)
        kept = torch.rand(w.shape, generator=g) < torch.rand((), generator=g)
        grown = metrics.operator_norm(w * kept) / metrics.operator_norm(w)
        at_most(grown, (1 + math.sqrt(size)) / 2, w)
        at_most(grown, theory.mask_amplification(1 << (size - 1).bit_length()).high)
    for n in (1, 2, 4):
        # All masks of the best matrices of these sizes.
        w = hadamard(n) / math.sqrt(n)
        low, value, high = theory.mask_amplification(n)
        masks = range(2 ** (n * n))
        bits = torch.tensor([[b >> i & 1 for i in range(n * n)] for b in masks])
        cut = w * bits.view(-1, n, n)
        best = float(torch.linalg.matrix_norm(cut, ord=2).max())
        at_most(value, best)
        at_most(best, high)


@law(
    Mistake("crlib.theory.rank_one_optimal", "distance, noise)", "1.0, noise)"),
    Mistake("crlib.theory.rank_one_optimal", "mean / distance", "mean.abs()"),
)
def the_rank_one_radius_is_gaussian() -> None:
    g = torch.Generator().manual_seed(2)
    mean = torch.randn(7, generator=g, dtype=torch.float64)
    net = theory.rank_one_optimal(mean, torch.randn(4, generator=g), noise=0.8)
    x = mean + 0.8 * torch.randn(20_000, 7, generator=g, dtype=torch.float64)
    normal = net.weight.T @ net.head
    radius = x @ normal / normal.norm()
    spread = stats.norm(net.distance, net.noise)
    assert stats.kstest(radius.numpy(), spread.cdf).pvalue > 1e-3
    for eps in (0.0, 0.5, 1.0):
        share = float((radius > eps).double().mean())
        assert abs(share - net.robust_accuracy(eps)) < 0.015


@law(Mistake("crlib.theory.rank_one_optimal", "/ u.norm()", "/ u.norm() / 2"))
def the_rank_one_classifier_has_rank_one_and_its_head_aligned() -> None:
    for w, g in many(300):
        mean, u = w[0] + 1e-3, torch.randn(len(w), generator=g)
        net = theory.rank_one_optimal(mean, u, noise=1, sigma=3)
        equal(float(net.weight.norm()), 3)
        equal(metrics.operator_norm(net.weight), 3)
        got = theory.radius_premises(net.weight, net.head, mean)
        for value in (got.ratio, got.alignment, got.bound):
            equal(value, 1)


@law(
    Mistake("crlib.theory.radius_premises", "* loss / alignment", "* loss"),
    Mistake("crlib.theory.radius_premises", "parts[top].norm()", "parts.norm()"),
    Mistake("crlib.theory.radius_premises", "w.T @ c", "w.T @ c.abs()"),
    Mistake("crlib.theory.radius_premises", "float(sigma[0]) ** 2 / mean", "9 / mean"),
)
def the_radii_are_at_most_what_the_premises_allow() -> None:
    for w, g in many():
        c = torch.randn(len(w), generator=g, dtype=torch.float64)
        d = torch.randn(w.shape[1], generator=g, dtype=torch.float64)
        if not (w.T @ c).any():
            continue
        got = theory.radius_premises(w, c, d)
        at_most(got.ratio, min(1.0, got.bound), w)
        at_most(got.signal, got.worst, w)
        equal(got.worst, theory.gain_ratio(w, 1).value)
        b, x, other = -float(c @ w @ d) / 3, 0 * d, d
        normal = w.T @ c
        reach = [abs(float(normal @ v) + b) / normal.norm() for v in (x, other)]
        assert float(normal @ x + b) * float(normal @ other + b) <= 0
        equal(got.ratio, float(sum(reach) / d.norm()))


@law(
    Mistake("crlib.theory.radius_premises", "parts[real].norm()", "c.norm()"),
    Mistake("crlib.theory.radius_premises", "math.sqrt(signal / worst)", "signal"),
)
def at_rank_one_the_radii_reach_the_bound() -> None:
    for w, g in many(300):
        w = flat(g, len(w) + 1, w.shape[1] + 1, 1)
        c = directions(g, 1, len(w))[0]
        d = directions(g, 1, w.shape[1])[0]
        got = theory.radius_premises(w, c, d)
        equal(got.ratio, got.bound)
        equal(got.alignment, 1)


@law(
    Mistake("crlib.theory.universal_law", "(dimension - 1) / 2", "dimension / 2"),
    Mistake("crlib.theory.universal_law", "u.square()", "u"),
    Mistake("crlib.theory.universal_law", "length * p", "length"),
)
def a_coordinate_of_the_sphere_has_the_law_of_universal_directions() -> None:
    # Closed forms: an angle is uniform on the circle, a coordinate on the sphere.
    def tail(u: float) -> dict[int, float]:
        four = u * math.sqrt(1 - u * u) + math.asin(u)
        return {2: 2 / math.pi * math.acos(u), 3: 1 - u, 4: 1 - 2 / math.pi * four}

    for step in range(1, 40):
        u, length, share = step / 40, 0.1 * step, 1 - step / 50
        for r, value in tail(u).items():
            d = torch.tensor([u * length * share], dtype=torch.float64)
            equal(float(theory.universal_law(d, share, length, r)), value, (u, r))
    ends = torch.tensor([0.0, 0.5, 0.500001, math.inf], dtype=torch.float64)
    assert theory.universal_law(ends, 0.5, 1.0, 1).tolist() == [1, 1, 0, 0]
