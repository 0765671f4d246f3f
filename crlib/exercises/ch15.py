"""Tests for the exercises of chapter 15, Compressibility nobody asked for."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from crlib.exercises import close

__all__ = [
    "limit",
    "limit_hidden",
    "parts",
    "parts_hidden",
    "tail_interval",
    "tail_interval_hidden",
]


def limit(answer: Callable[[float, float], float]) -> None:
    """Test ``limit(alpha, share)`` on either side of two."""
    close(answer(4.0, 0.25), math.sqrt(0.5), "The limit for alpha = 4, share = 1/4")
    close(answer(1.5, 0.1), 0.0, "The limit for alpha = 1.5, share = 0.1")


def limit_hidden(answer: Callable[[float, float], float], seed: int = 0) -> None:
    """Test ``limit(alpha, share)`` at two, for no tail at all, and near the edges."""
    for alpha, share in ((2.0, 0.3), (1.0, 0.999)):
        close(answer(alpha, share), 0.0, f"The limit for alpha = {alpha}")
    rng = random.Random(seed)
    for share in (0.01, 0.5, 0.9, rng.uniform(0.05, 0.95)):
        close(
            answer(math.inf, share),
            math.sqrt(1 - share),
            f"The limit without a tail for share = {share}",
        )
        for alpha in (2.1, 3.0, 10.0, rng.uniform(2.05, 9)):
            right = math.sqrt(1 - share ** (1 - 2 / alpha))
            what = f"The limit for alpha = {alpha}, share = {share}"
            close(answer(alpha, share), right, what)


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
        close(end, right, f"The {name} end for k = {k}, level = {level}")


def _pareto(alpha: float, n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    # Never zero: 1 - U lies in (0, 1].
    u = 1 - torch.rand(n, generator=g, dtype=torch.float64)
    return u.pow(-1 / alpha)


def tail_interval(answer: Callable[..., Sequence[float]]) -> None:
    """Test ``tail_interval(v, k, level)`` on one sample."""
    _ends(answer, _pareto(2.0, 500, 0), 20, 0.95)


def tail_interval_hidden(answer: Callable[..., Sequence[float]], seed: int = 0) -> None:
    """Test ``tail_interval(v, k, level)`` with signs, few terms, and by coverage."""
    for k, level in ((1, 0.9), (3, 0.5), (100, 0.99)):
        v = _pareto(1.2, 400, seed + k)
        _ends(answer, torch.where(torch.arange(400) % 2 == 0, v, -v), k, level)
    ends = [answer(_pareto(1.7, 100, seed + i), 5, 0.9) for i in range(400)]
    hits = sum(float(low) <= 1.7 <= float(high) for low, high in ends)
    # Binomial: the deviation allowed is four standard deviations.
    assert abs(hits - 360) <= 24, f"The interval covers {hits} times in 400, not 360."


Parts = Callable[[np.ndarray, np.ndarray, np.ndarray], Sequence[float]]


def _parts(answer: Parts, a: Any, b: Any, groups: Any) -> None:
    a, b, groups = (np.asarray(v) for v in (a, b, groups))
    found = answer(a.copy(), b.copy(), groups.copy())
    assert len(found) == 2, "Return a pair: within, and between."
    within = between = 0.0
    for label in set(groups.tolist()):
        own = groups == label
        mean_a, mean_b = a[own].mean(), b[own].mean()
        within += float(((a[own] - mean_a) * (b[own] - mean_b)).sum()) / len(a)
        between += own.mean() * (mean_a - a.mean()) * (mean_b - b.mean())
    close(found[0], within, "The part within the groups")
    close(found[1], float(between), "The part between the groups")


def parts(answer: Parts) -> None:
    """Test ``parts(a, b, groups)`` on three points in two groups."""
    _parts(answer, [1.0, 3.0, 5.0], [2.0, 0.0, 7.0], [0, 0, 1])


def parts_hidden(answer: Parts, seed: int = 0) -> None:
    """Test ``parts(a, b, groups)`` on names, groups of one point, and one group."""
    _parts(answer, [1.0, 3.0, 5.0, 0.0], [2.0, 0.0, 7.0, 1.0], ["x", "y", "y", "y"])
    rng = np.random.default_rng(seed)
    for count in (1, 2, 5, 30):
        a, b = rng.standard_normal((2, 30))
        _parts(answer, a + 3, b - a, rng.integers(count, size=30) ** 2 - 4)
