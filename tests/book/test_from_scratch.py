"""What a chapter writes from scratch equals the function of crlib on random inputs."""

import math
from pathlib import Path
from typing import Any

import chapter_code
import manuscript
import pytest
import torch

from crlib import attacks, certify, compress, metrics, models, theory

BOOKS = {
    book.path.stem: book for book in manuscript.chapters(Path(__file__).parents[2])
}


def defined(slug: str, *names: str) -> list[Any]:
    """Return functions of a chapter: its setup cells and the cells that define them."""
    book = next(book for key, book in BOOKS.items() if key.startswith(slug))
    namespace = chapter_code.fresh()
    chapter_code.run_all(book.tagged("setup"), namespace)
    for name in names:
        if name not in namespace:
            cells = [c for c in book.cells if f"def {name}(" in c.body]
            chapter_code.run_all(cells[:1], namespace)
    return [namespace[name] for name in names]


@pytest.mark.parametrize("q", [0.5, 1, 2, 3])
def test_best_k_error_and_spread(q: float) -> None:
    best_k_error, spread = defined("ch05", "best_k_error", "spread")
    g = torch.Generator().manual_seed(0)
    for d in (1, 2, 17):
        v = torch.randn(d, generator=g, dtype=torch.float64)
        for k in range(1, d + 1):
            ours = best_k_error(v, k, q)
            assert math.isclose(ours, metrics.best_k_error(v, k, q=q), abs_tol=1e-12)
            assert math.isclose(spread(v, k), metrics.spread(v, k), abs_tol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_water_filling(norm: str) -> None:
    (fill,) = defined("ch02", "fill")
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        x = torch.rand(1, 9, generator=g, dtype=torch.float64)
        c = torch.randn(9, generator=g, dtype=torch.float64)
        room = torch.where(c > 0, 1 - x[0], x[0])
        m = float(0.8 * torch.rand((), generator=g) * (c.abs() * room).sum())
        two = torch.stack([torch.zeros_like(c), c])
        offset = torch.tensor([m + float(x[0] @ c), 0.0], dtype=torch.float64)
        label = torch.tensor([0])
        distance, delta = theory.linear_minimal(two, offset, x, label, norm=norm)
        moves = fill(c, m, room, norm)
        order = math.inf if norm == "linf" else 2
        assert torch.isclose(torch.linalg.vector_norm(moves, ord=order), distance[0])
        assert norm == "linf" or torch.allclose(moves, delta[0].abs(), atol=1e-9)


def test_one_step_of_the_gradient() -> None:
    (one_step,) = defined("ch01", "one_step")
    g = torch.Generator().manual_seed(2)
    net = models.MLP((12, 20, 4), seed=3)
    x = torch.rand(50, 12, generator=g)
    y = net(x).argmax(1)
    for eps in (0.01, 0.1):
        assert torch.equal(
            one_step(net, x, y, eps), attacks.fgsm(net, x, y, eps=eps).x_adv
        )


def test_certificates() -> None:
    intervals, relaxed = defined("ch04", "interval_margins", "relaxed_margins")
    g = torch.Generator().manual_seed(4)
    for seed in range(5):
        net = models.MLP((6, 11, 4), bias=True, mean=0.4, std=0.2, seed=seed).double()
        x = torch.rand(8, 6, generator=g, dtype=torch.float64)
        y = net(x).argmax(1)
        boxes = intervals(net, x, y, 0.1)
        torch.testing.assert_close(boxes, certify.interval_bounds(net, x, y, eps=0.1))
        both = torch.maximum(boxes, relaxed(net, x, y, 0.1))
        torch.testing.assert_close(both, certify.crown_bounds(net, x, y, eps=0.1))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_alignment(k: int) -> None:
    (alignment,) = defined("ch07", "alignment")
    g = torch.Generator().manual_seed(3)
    for _ in range(10):
        w = torch.randn(6, 4, generator=g, dtype=torch.float64)
        w_next = torch.randn(3, 6, generator=g, dtype=torch.float64)
        found = theory.interlayer_alignment(w_next, w, k, norm="l2")
        assert alignment(w_next, w, k) == pytest.approx(
            (found.dominant, found.remainder)
        )


def test_bounds_without_masks() -> None:
    (without_masks,) = defined("ch07", "without_masks")
    g = torch.Generator().manual_seed(4)
    for units in (13, 30):
        b = torch.randn(units, 4, generator=g, dtype=torch.float64)
        a = torch.randn(3, units, generator=g, dtype=torch.float64)
        found = theory.interlayer_alignment(a, b, units, norm="linf")
        sizes = [metrics.operator_norm(v, norm="linf") for v in (a, b)]
        assert found.dominant * math.prod(sizes) == pytest.approx(
            without_masks(a, b, "linf")
        )


@pytest.mark.parametrize("n", [2, 7, 12])
def test_radii_of_interpolation(n: int) -> None:
    gaussian, radii, pairs = defined("ch09", "gaussian", "radii", "pairs")
    for seed in range(10):
        x = gaussian(12, n, seed)
        found = theory.interpolation_radii(x).radius
        assert torch.allclose(pairs(radii(torch.linalg.pinv(x), x)), pairs(found))


def test_published_and_sharp_spectral_bounds() -> None:
    published, sharp, slack = defined("ch06", "published", "sharp", "slack")
    g = torch.Generator().manual_seed(3)
    for q in (0.5, 1, 2):
        w = torch.randn(9, 12, generator=g, dtype=torch.float64)
        s = metrics.singular_values(w)
        for k in range(1, 9):
            theirs = theory.structure_times_scale(w, k, norm="l2")
            bound = published(k, 9, theirs.eps, theirs.beta) * float(s.norm())
            assert math.isclose(bound, theirs.bound)
            assert math.isclose(math.prod(slack(s, k)) * theirs.value, theirs.bound)
            eps, beta = metrics.best_k_error(s, k, q=q), metrics.spread(s, k)
            ours = sharp(k, 9, eps, beta, q)
            right = theory.sharp_spectral_interval(k, d=9, eps=eps, beta=beta, q=q)
            assert ours == pytest.approx(right, rel=1e-9)


def test_moments_of_a_random_head() -> None:
    (head_moments,) = defined("ch08", "head_moments")
    g = torch.Generator().manual_seed(3)
    for h, m in ((1, 5), (6, 3), (9, 9)):
        w = torch.randn(h, m, generator=g, dtype=torch.float64)
        assert head_moments(w) == pytest.approx(theory.random_head_moments(w))


@pytest.mark.parametrize(("h", "k", "m"), [(1, 1, 6), (9, 3, 12), (5, 5, 5)])
def test_bridge(h: int, k: int, m: int) -> None:
    (bridge,) = defined("ch10", "bridge")
    g = torch.Generator().manual_seed(3)
    w = torch.randn(h, k, generator=g) @ torch.randn(k, m, generator=g)
    x, other = torch.randn(2, 40, m, generator=g)
    assert torch.allclose(bridge(w, x, other), theory.bridge_attack(w, x, other).e)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_nearest_point_of_ball_and_box(norm: str) -> None:
    (nearest,) = defined("ch03", "nearest")
    g = torch.Generator().manual_seed(3)
    for eps in (0.1, 0.7, 3.0):
        x = torch.rand(20, 9, generator=g, dtype=torch.float64)
        v = x + torch.randn(20, 9, generator=g, dtype=torch.float64)
        ours = torch.stack(
            [nearest(*pair, eps, norm) for pair in zip(v, x, strict=True)]
        )
        known = attacks.project(v, x, eps=eps, norm=norm)
        assert torch.allclose(ours, known, atol=1e-5)


def test_projected_gradient_ascent() -> None:
    (pgd,) = defined("ch03", "pgd")
    g = torch.Generator().manual_seed(4)
    net = models.MLP((12, 20, 4), seed=5)
    x = torch.rand(60, 12, generator=g)
    y = net(x).argmax(1)
    for eps in (0.02, 0.1):
        ours = pgd(net, x, y, eps, 8, eps / 3)
        known = attacks.pgd(net, x, y, eps=eps, steps=8, step_size=eps / 3)
        fooled = net(ours).argmax(1) != y
        assert fooled.equal(known.success)
        assert torch.allclose(ours[fooled], known.x_adv[fooled], atol=1e-6)


def test_a_curve_from_distances() -> None:
    (curve,) = defined("ch03", "curve")
    net = models.MLP((12, 20, 4), seed=6)
    x = torch.rand(60, 12, generator=torch.Generator().manual_seed(7))
    y = net(x).argmax(1)
    distance = attacks.fmn(net, x, y, norm="l2").distance
    budgets = torch.linspace(0, 1, 9)
    known = attacks.robustness_curve(
        net, x, y, eps=budgets.tolist(), norm="l2", attack=attacks.fmn
    )
    assert torch.allclose(curve(distance, budgets).float(), known.accuracy)


def test_the_exact_score_of_a_linear_student() -> None:
    (signed_distance,) = defined("ch11", "signed_distance")
    g = torch.Generator().manual_seed(3)
    for d in (2, 9, 40):
        w = torch.randn(d, generator=g, dtype=torch.float64)
        x = 0.5 + torch.randn(50, d, generator=g, dtype=torch.float64)
        y = torch.randint(2, (50,), generator=g)
        two = torch.stack([-w, w])
        known, _ = theory.linear_minimal(
            two, -two.sum(1) / 2, x, y, norm="l2", box=False
        )
        assert torch.allclose(signed_distance(w, x, y).clamp_min(0), known)


def test_pruning_truncation_and_quantisation() -> None:
    without_small, truncated, rounded, keep_rows = defined(
        "ch16", "without_small", "truncated", "rounded", "keep_rows"
    )
    for seed in range(5):
        net = models.MLP((12, 20, 9, 4), seed=seed).double()
        for share in (0, 0.3, 0.9):
            cut = compress.prune(net, share).weights
            for w, v in zip(net.weights[:-1], cut[:-1], strict=True):
                assert without_small(w, share).equal(v)
        for k in (1, 4):
            cut = compress.truncate(net, rank=k).weights
            for w, v in zip(net.weights[:-1], cut[:-1], strict=True):
                assert torch.allclose(truncated(w, k), v, atol=1e-12)
        for bits in (2, 5, 8):
            cut = compress.quantise(net, bits=bits).weights
            for w, v in zip(net.weights, cut, strict=True):
                assert torch.allclose(rounded(w, bits), v, atol=1e-12)
        for eps in (0, 0.4, 0.9):
            cut = compress.prune_to_error(net, eps).weights
            for w, v in zip(net.weights[:-1], cut[:-1], strict=True):
                assert keep_rows(w, eps).equal(v.norm(dim=1) > 0)


def test_the_spectral_dial() -> None:
    (turned,) = defined("ch13", "turned")
    for seed, alpha in enumerate((0, 0.5, 2)):
        net = models.MLP((12, 20, 9, 4), seed=seed).double()
        before = [w.clone() for w in net.weights[:-1]]
        compress.spectral_dial(alpha, frobenius=7)(net)
        for w, v in zip(before, net.weights[:-1], strict=True):
            assert torch.allclose(turned(w, alpha, 7), v, atol=1e-12)


@pytest.mark.parametrize("k", [1, 7, 49])
def test_the_tail_index_of_hill(k: int) -> None:
    (hill,) = defined("ch15", "hill")
    g = torch.Generator().manual_seed(3)
    for _ in range(10):
        v = torch.randn(50, generator=g) ** 3
        assert math.isclose(hill(v, k), metrics.hill_estimator(v, k), rel_tol=1e-12)
