"""What a chapter writes from scratch equals the function of crlib on random inputs."""

import math
from pathlib import Path
from typing import Any

import chapter_code
import manuscript
import pytest
import torch

from crlib import attacks, metrics, models, theory

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
