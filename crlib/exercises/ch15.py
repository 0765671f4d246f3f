"""Tests for the exercises of chapter 15, Compressibility nobody asked for."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy import stats
from torch import Tensor

__all__ = [
    "limit",
    "limit_hidden",
    "shared",
    "shared_hidden",
    "tail_interval",
    "tail_interval_hidden",
]


def _close(found: Any, right: float, what: str) -> None:
    number = isinstance(found, int | float) or getattr(found, "ndim", 1) == 0
    assert number, f"{what} is not a number."
    near = math.isclose(float(found), right, rel_tol=1e-6, abs_tol=1e-9)
    assert near, f"{what} is {float(found):.6g} and should be {right:.6g}."


def limit(answer: Callable[[float, float], float]) -> None:
    """Test ``limit(alpha, share)`` on either side of two."""
    _close(answer(4.0, 0.25), math.sqrt(0.5), "The limit for alpha = 4, share = 1/4")
    _close(answer(1.5, 0.1), 0.0, "The limit for alpha = 1.5, share = 0.1")


def limit_hidden(answer: Callable[[float, float], float]) -> None:
    """Test ``limit(alpha, share)`` at two, for no tail at all, and near the edges."""
    for alpha, share in ((2.0, 0.3), (1.0, 0.999)):
        _close(answer(alpha, share), 0.0, f"The limit for alpha = {alpha}")
    for share in (0.01, 0.5, 0.9):
        _close(
            answer(math.inf, share),
            math.sqrt(1 - share),
            f"The limit without a tail for share = {share}",
        )
        for alpha in (2.1, 3.0, 10.0):
            right = math.sqrt(1 - share ** (1 - 2 / alpha))
            what = f"The limit for alpha = {alpha}, share = {share}"
            _close(answer(alpha, share), right, what)


def _ends(
    answer: Callable[..., Sequence[float]], v: Tensor, k: int, level: float
) -> None:
    s = v.double().abs().sort(descending=True).values
    hill = 1 / float((s[:k] / s[k]).log().mean())
    found = answer(v.clone(), k, level)
    assert len(found) == 2, "Return two numbers, low and high."
    for end, tail, name in zip(
        found, ((1 - level) / 2, (1 + level) / 2), ("low", "high"), strict=True
    ):
        right = hill * stats.gamma.ppf(tail, k) / k
        _close(end, right, f"The {name} end for k = {k}, level = {level}")


def _pareto(alpha: float, n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    # Never zero: 1 - U lies in (0, 1].
    u = 1 - torch.rand(n, generator=g, dtype=torch.float64)
    return u.pow(-1 / alpha)


def tail_interval(answer: Callable[..., Sequence[float]]) -> None:
    """Test ``tail_interval(v, k, level)`` on one sample."""
    _ends(answer, _pareto(2.0, 500, 0), 20, 0.95)


def tail_interval_hidden(answer: Callable[..., Sequence[float]]) -> None:
    """Test ``tail_interval(v, k, level)`` with few terms, signs, and by its coverage."""
    for k, level in ((1, 0.9), (3, 0.5), (100, 0.99)):
        v = _pareto(1.2, 400, k)
        _ends(answer, torch.where(torch.arange(400) % 2 == 0, v, -v), k, level)
    ends = [answer(_pareto(1.7, 100, seed), 5, 0.9) for seed in range(400)]
    hits = sum(float(low) <= 1.7 <= float(high) for low, high in ends)
    # Binomial: the deviation allowed is four standard deviations.
    assert abs(hits - 360) <= 24, f"The interval covers {hits} times in 400, not 360."


def _parts(
    answer: Callable[..., Sequence[float]], x: Tensor, y: Tensor, group: Tensor
) -> None:
    found = answer(x.clone(), y.clone(), group.clone())
    assert len(found) == 2, "Return two numbers, within and between."
    dx, dy = x - x.mean(), y - y.mean()
    within = between = 0.0
    for g in group.unique():
        own = group == g
        a, b = dx[own], dy[own]
        within += float(((a - a.mean()) * (b - b.mean())).sum()) / len(x)
        between += float(own.sum() * a.mean() * b.mean()) / len(x)
    _close(found[0], within, "The covariance within groups")
    _close(found[1], between, "The covariance between groups")


def shared(answer: Callable[..., Sequence[float]]) -> None:
    """Test ``shared(x, y, group)`` where the two parts differ in sign."""
    x = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    y = torch.tensor([1.0, 0.0, 3.0, 2.0], dtype=torch.float64)
    _parts(answer, x, y, torch.tensor([0, 0, 1, 1]))


def shared_hidden(answer: Callable[..., Sequence[float]]) -> None:
    """Test ``shared(x, y, group)`` with groups of unequal size, and with one."""
    g = torch.Generator().manual_seed(0)
    for groups in (1, 2, 5):
        x, y = torch.randn(2, 60, generator=g, dtype=torch.float64)
        label = torch.randint(groups, (60,), generator=g) ** 2
        _parts(answer, x + label, y - label, label)
