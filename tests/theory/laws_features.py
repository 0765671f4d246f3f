"""Feature compression: radii of interpolation, products, sign cubes, paths."""

import itertools
import math
from collections.abc import Iterator

import torch
from scipy import special, stats
from torch import Tensor

from crlib import theory
from crlib.models import MLP
from tests.theory.law import Mistake, at_most, equal, law
from tests.theory.matrices import Generator, many

LIKELY = 1e-3  # fixed seeds: a right statement passes, a wrong one is far below


def points() -> Iterator[tuple[Tensor, Generator]]:
    """Yield matrices of independent columns, two or more, well enough conditioned."""
    for w, g in many():
        x = w if len(w) >= w.shape[1] else w.T
        s = torch.linalg.svdvals(x)
        if x.shape[1] > 1 and s[-1] > 1e-4 * s[0]:
            yield x, g


def gaussian(d: int, n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(d, n, generator=g, dtype=torch.float64)


def follows(sample: list[float], cdf: object) -> None:
    assert stats.kstest(sample, cdf).pvalue > LIKELY


@law(
    Mistake("crlib.theory.interpolation_radii", "q.T, upper=True", "q.T, upper=False"),
    Mistake("crlib.theory.features._radii", "diagonal()[:, None] - logits.T", "T + 0"),
    Mistake("crlib.theory.features._radii", "(x.T, x.T", "(x.T, x.T / 2"),
)
def interpolation_keeps_the_cosine_of_the_way() -> None:
    for x, g in points():
        n = x.shape[1]
        w = torch.linalg.pinv(x)
        found = theory.interpolation_radii(x)
        noise = torch.randn(n, len(x), generator=g, dtype=torch.float64)
        other = w + noise @ (torch.eye(len(x)) - x @ w)
        for i, j in itertools.islice(itertools.permutations(range(n), 2), 6):
            r, half = float(found.radius[i, j]), float(found.neighbour[i, j])
            way, normal = x[:, i] - x[:, j], w[i] - w[j]
            assert math.isclose(half, way.norm() / 2, rel_tol=1e-9)
            cosine = float(way @ normal / (way.norm() * normal.norm()))
            assert math.isclose(r, half * cosine, rel_tol=1e-5)
            assert math.isclose(r, 1 / normal.norm(), rel_tol=1e-5)
            at_most(r, half)
            at_most(1 / float((other[i] - other[j]).norm()), r * (1 + 1e-5))


@law(Mistake("crlib.theory.features._radii", ") / 2", ")"))
def orthogonal_points_lose_nothing() -> None:
    for seed in range(20):
        q, _ = torch.linalg.qr(gaussian(9, 2 + seed % 8, seed))
        found = theory.interpolation_radii(3 * q)
        for r, half in zip(found.radius[0, 1:], found.neighbour[0, 1:], strict=True):
            equal(float(r), float(half))


@law(
    Mistake("crlib.theory.one_hot_attack", "r[-2, -2] - r[-2, -1]", "r[-2, -2]"),
    Mistake("crlib.theory.one_hot_attack", "r[-2, -1].abs()", "0"),
)
def the_explicit_attack_swaps_two_logits() -> None:
    for x, _ in points():
        found = theory.one_hot_attack(x)
        logits = torch.linalg.pinv(x) @ (x[:, -1] + found.delta)
        assert math.isclose(float(logits[-1]), 0, abs_tol=1e-5)
        assert math.isclose(float(logits[-2]), 1, abs_tol=1e-5)
        equal(found.length, float(found.delta.norm()))
        at_most(found.length, found.bound)
        r = float(theory.interpolation_radii(x).radius[-1, -2])
        at_most(r, found.length / 2 * (1 + 1e-9))


@law(
    Mistake("crlib.theory.ridge_radii", "x @ x.T + ridge", "x @ x.T - ridge"),
    Mistake("crlib.theory.prototype_radii", "_radii(x.T, x)", "_radii(2 - x.T, x)"),
)
def ridge_runs_from_interpolation_to_prototypes() -> None:
    for x, _ in itertools.islice(points(), 500):
        x = x / torch.linalg.svdvals(x)[-1]
        n = x.shape[1]
        off = ~torch.eye(n, dtype=torch.bool)
        exact = theory.interpolation_radii(x).radius[off]
        least = theory.ridge_radii(x, 0).radius[off]
        assert torch.allclose(least, exact, rtol=1e-6)
        little = theory.ridge_radii(x, 1e-7).radius[off]
        assert torch.allclose(little, exact, rtol=1e-3, atol=1e-3)
        much = theory.ridge_radii(x, 1e9 * float(x.norm()) ** 2).radius[off]
        rows = theory.prototype_radii(x).radius
        assert torch.allclose(much, rows[off], rtol=1e-4, atol=1e-4)
        way = x[:, 0] - x[:, 1]
        by_hand = (x[:, 0] @ x[:, 0] - x[:, 0] @ x[:, 1]) / way.norm()
        assert torch.isclose(rows[0, 1], by_hand, rtol=1e-9)


@law(
    Mistake(
        "crlib.theory.interpolation_radii",
        "solve_triangular(r, q.T, upper=True)",
        "matmul(r, q.T)",
    ),
    Mistake("crlib.theory.features._radii", "(x.T, x.T", "(x.T, 2 * x.T"),
)
def gaussian_radii_follow_the_exact_law() -> None:
    for d, n in ((10, 10), (20, 10), (30, 2), (16, 15)):
        draws = [theory.interpolation_radii(gaussian(d, n, s)) for s in range(500)]
        r, half = (torch.tensor([v[k][0, 1] for v in draws]) for k in (0, 1))
        follows((2 * r**2).tolist(), stats.chi2(d - n + 1).cdf)
        follows((2 * half**2).tolist(), stats.chi2(d).cdf)
        shares = stats.beta((d - n + 1) / 2, (n - 1) / 2)
        follows(((r / half) ** 2).tolist(), shares.cdf)


@law(
    Mistake("crlib.theory.bottleneck_radii", "len(x), m, gen", "len(x), len(x), gen"),
    Mistake("crlib.theory.bottleneck_radii", "v, _ = torch.linalg.qr(g)", "v = g"),
)
def a_bottleneck_leaves_m_minus_n_plus_one() -> None:
    g = torch.Generator().manual_seed(0)
    for m in (8, 12, 30):
        r = [
            float(theory.bottleneck_radii(gaussian(30, 8, s), m, g).radius[0, 1])
            for s in range(400)
        ]
        follows([2 * v**2 for v in r], stats.chi2(m - 7).cdf)


@law(
    Mistake("crlib.theory.product_factor", "_factors(g @ q)", "_factors(g)"),
    Mistake("crlib.theory.product_factor", "whole = g @ whole", "whole = g"),
)
def the_factors_of_a_product_multiply() -> None:
    for x, g in itertools.islice(points(), 1000):
        d = len(x)
        more = [torch.randn(d, d, generator=g, dtype=torch.float64) for _ in range(2)]
        try:
            value, product, column = theory.product_factor([x, *more])
        except ValueError:
            continue
        assert math.isclose(value, product, rel_tol=1e-4)
        at_most(value, column * (1 + 1e-9))


def _stack(d: int, t: int, seed: int) -> list[Tensor]:
    return [gaussian(d, d, 10 * seed + k) for k in range(t)]


@law(Mistake("crlib.theory.product_factor", ".prod()", ".sum()"))
def depth_multiplies_the_law_and_the_exponent() -> None:
    for t in (1, 2, 3):
        found = [theory.product_factor(_stack(10, t, s)) for s in range(400)]
        logs = [math.log(f.product) for f in found]
        mean = -t / 2 * (float(-special.digamma(1)) + math.log(2))
        half = 4 * math.pi * math.sqrt(t / 8) / 20  # Var log|N(0,1)| = pi^2 / 8
        assert abs(sum(logs) / 400 - mean) < half
        slopes = []
        for seed in range(12):
            ratio = {
                d: sum(
                    math.log(f.product / f.column)
                    for f in (
                        theory.product_factor(_stack(d, t, 500 * d + 12 * k + seed))
                        for k in range(12)
                    )
                )
                / 12
                for d in (8, 64)
            }
            slopes.append((ratio[64] - ratio[8]) / math.log(8))
        exact = t * float(special.digamma(4) - special.digamma(32)) / (2 * math.log(8))
        middle, spread = torch.tensor(slopes).mean(), torch.tensor(slopes).std()
        assert abs(middle - exact) < 3.1 * spread / math.sqrt(12)  # t, 11 d.o.f., 1 %


@law(
    Mistake("crlib.theory.sign_cube_radii", "bounds=(-1, 1)", "bounds=(-2, 2)"),
    Mistake("crlib.theory.sign_cube_radii", "r[-1, -1]", "r[-2, -2]"),
    Mistake("crlib.theory.sign_cube_radii", "gap.min()) / 2", "gap.min())"),
)
def readout_hull_and_neighbour_are_in_order() -> None:
    count = 0
    for x, _ in points():
        d = x.shape[1]
        if len(x) != d or d > 6:
            continue
        count += 1
        found = theory.sign_cube_radii(x)
        assert found.neighbour is not None
        at_most(found.readout, found.hull * (1 + 1e-9))
        at_most(found.hull, found.neighbour * (1 + 1e-9))
        readout = 1 / float(torch.linalg.inv(x)[-1].norm())
        assert math.isclose(found.readout, readout, rel_tol=1e-5)
        steps = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * (d - 1))
        steps = steps.double().reshape(-1, d - 1)
        gaps = (steps @ x[:, :-1].T + x[:, -1]).norm(dim=1)
        assert math.isclose(found.neighbour, gaps.min(), rel_tol=1e-6)
        # The hull's nearest point v certifies itself: its residual w is a classifier
        # whose worst corner is as far.
        for seed in range(5):
            w = gaussian(d, 1, seed)[:, 0]
            v = x.T @ w
            worst = float((v[-1].abs() - v[:-1].abs().sum()) / w.norm())
            at_most(worst, found.hull * (1 + 1e-9))
    assert count > 20
    for d in (2, 7, 20):
        q, _ = torch.linalg.qr(gaussian(d, d, d))
        found = theory.sign_cube_radii(q)
        equal(found.readout, 1)
        equal(found.hull, 1)


@law(
    Mistake(
        "crlib.theory.path_identity", "slopes.append(slope)", "slopes.append(-slope)"
    ),
    Mistake("crlib.theory.path_identity", "(cosine * counted)", "counted"),
    Mistake("crlib.theory.path_identity", "scatter(1, first, share)", "clone()"),
    Mistake("crlib.theory.path_identity", "values[:, 1:] >= 0", "values[:, 1:] < 0"),
)
def paths_add_up_and_bound_the_distance() -> None:
    for seed in range(12):
        d = 2 + seed % 7
        centre = gaussian(d, 1, seed)[:, 0]
        start, end = gaussian(20, d, 100 + seed), gaussian(20, d, 200 + seed)
        start = centre + 3 * start / start.norm(dim=1, keepdim=True)
        end = centre + 0.4 * end / end.norm(dim=1, keepdim=True)
        wave = (seed % 4) * 0.2

        def score(x: Tensor, centre: Tensor = centre, wave: float = wave) -> Tensor:
            depth = 1 - (x - centre).norm(dim=1)
            return depth + wave * depth.sin()

        path = theory.path_identity(score, start, end, steps=150)
        assert torch.allclose(path.integral, path.difference, rtol=2e-3)
        ratio = (1 + wave) / (1 - wave)
        assert (path.predicted / ratio <= 2 * (1 + 1e-3)).all()
        assert (path.predicted * ratio >= 2 * (1 - 1e-3)).all()
        assert (path.predicted <= path.crossing).all()
        way = (end - start) / (end - start).norm(dim=1, keepdim=True)
        assert (score(start + path.crossing[:, None] * way).abs() < 1e-3).all()
        net = MLP((d, 20, 20, 1), bias=True, seed=seed)
        z = gaussian(300, d, 300 + seed).float()
        with torch.no_grad():
            middle = net(z).median()
            low, high = (z[(s * (net(z) - middle) > 0)[:, 0]][:20] for s in (-1, 1))

        def logit(x: Tensor, net: MLP = net, middle: Tensor = middle) -> Tensor:
            return (net(x) - middle)[:, 0]

        walk = theory.path_identity(logit, low, high, steps=150)
        scale = float(walk.difference.abs().max())
        assert torch.allclose(walk.integral, walk.difference, atol=2e-2 * scale)
