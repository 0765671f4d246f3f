"""Tests of the exercises of chapter 4, certificates and exact answers."""

import math
import random
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from crlib.exercises import gaussian

__all__ = [
    "balance",
    "balance_hidden",
    "box_layer",
    "box_layer_hidden",
    "radius_from",
    "radius_from_hidden",
]

Layer = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def box_layer(answer: Layer) -> None:
    """One neuron by hand."""
    w, b = torch.tensor([[2.0, -1.0]]), torch.tensor([0.5])
    low, high = answer(w, b, torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    assert low.shape == high.shape == (1, 1), "Return two ends of shape (N, h)."
    assert math.isclose(float(high), 2.5, abs_tol=1e-6), (
        "The largest value of max(2 v1 - v2 + 0.5, 0) on the unit square is 2.5, at"
        f" (1, 0); you returned {float(high):.4g}."
    )
    assert math.isclose(float(low), 0.0, abs_tol=1e-6), (
        "The least value is 0, because max(-0.5, 0) = 0 at (0, 1); you returned"
        f" {float(low):.4g}."
    )


def box_layer_hidden(answer: Layer, seed: int = 0) -> None:
    """Random layers against all corners, where the ends are attained."""
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5).double()
    for i in range(seed, seed + 10):
        w, b = gaussian(7, 5, seed=i), gaussian(7, seed=50 + i)
        ends = gaussian(2, 3, 5, seed=100 + i).sort(dim=0).values
        low, high = answer(w, b, ends[0], ends[1])
        corners = ends[0][:, None] + bits * (ends[1] - ends[0])[:, None]
        values = (corners @ w.T + b).relu()
        assert torch.allclose(low, values.amin(1)), "A lower end is not attained."
        assert torch.allclose(high, values.amax(1)), "An upper end is not attained."


def balance(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """One neuron by hand: a row of norm 8 and a column of norm 2."""
    first, second = answer(torch.tensor([[8.0, 0.0]]), torch.tensor([[0.0], [2.0]]))
    assert first.shape == (1, 2) and second.shape == (2, 1), "Keep the shapes."
    norms = float(first.norm()), float(second.norm())
    assert all(math.isclose(n, 4, rel_tol=1e-5) for n in norms), (
        "A row of norm 8 and a column of norm 2 balance at 4 and 4; you returned"
        f" {norms[0]:.4g} and {norms[1]:.4g}."
    )


def balance_hidden(
    answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], seed: int = 0
) -> None:
    """Random networks: equal norms, the same function, the same answer again."""
    for i in range(seed, seed + 10):
        w, v = gaussian(6, 4, seed=i), 9 * gaussian(3, 6, seed=60 + i)
        x = gaussian(50, 4, seed=120 + i)
        first, second = answer(w, v)
        assert torch.allclose(first.norm(dim=1), second.norm(dim=0)), "Not balanced."
        assert torch.allclose(
            (x @ first.T).relu() @ second.T, (x @ w.T).relu() @ v.T
        ), "The function of the network changed."
        again = answer(first, second)
        assert torch.allclose(again[0], first), "Balancing twice changes more."


def radius_from(answer: Callable[[int, int, float, float], float]) -> None:
    """All votes for one label, and too few."""
    found = float(answer(100, 100, 0.5, 0.001))
    wanted = 0.5 * float(stats.norm.ppf(0.001 ** (1 / 100)))
    assert math.isclose(found, wanted, rel_tol=1e-6), (
        "With 100 of 100 votes the bound on p is 0.001 ** (1 / 100): the radius is"
        f" {wanted:.4f}; you returned {found:.4g}."
    )
    assert answer(50, 100, 0.5, 0.001) == 0, "Half of the votes certify nothing."


def radius_from_hidden(
    answer: Callable[[int, int, float, float], float], seed: int = 0
) -> None:
    """No hits, several levels, and coverage under a binomial law."""
    assert answer(0, 100, 0.5, 0.001) == 0, "Without hits nothing is certified."
    rng = random.Random(seed)
    drawn = [
        (n, rng.randint(n // 2, n), rng.uniform(0.001, 0.3)) for n in (20, 99, 800)
    ]
    for n, hits, alpha in (
        (1000, 700, 0.01),
        (200, 199, 0.05),
        (500, 260, 0.3),
        *drawn,
    ):
        low = float(stats.beta.ppf(alpha, hits, n - hits + 1))
        wanted = 0.25 * max(0.0, float(stats.norm.ppf(low)))
        found = float(answer(hits, n, 0.25, alpha))
        assert math.isclose(found, wanted, abs_tol=1e-9), (
            f"{hits} of {n} votes at level {alpha} certify {wanted:.6f}, not"
            f" {found:.6f}."
        )
