"""Tests for the exercises of chapter 6, Structure times scale."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from crlib import metrics, theory
from crlib.exercises import close

__all__ = [
    "first_useful",
    "first_useful_hidden",
    "layer_with",
    "layer_with_hidden",
    "published_bound",
    "published_bound_hidden",
    "shares",
    "shares_hidden",
]


def published_bound(answer: Callable[..., float]) -> None:
    """Test ``published_bound(s, k)`` on two spectra that can be done by hand."""
    close(answer(torch.ones(9), 4), 1.0, "For nine ones and k = 4, the bound")
    s = torch.tensor([4.0, 2.0, 2.0, 0.0])
    close(answer(s, 2), 1.5 * 24**0.5, "For 4, 2, 2, 0 and k = 2, the bound")


def published_bound_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``published_bound`` on random spectra, and where it is infinite."""
    g = torch.Generator().manual_seed(seed)
    for k in range(1, 8):
        w = torch.randn(7, 9, generator=g, dtype=torch.float64)
        s = metrics.singular_values(w)
        right = theory.structure_times_scale(w, k, norm="l2").bound
        close(answer(s, k), right, f"For a random spectrum and k = {k}, the bound")
    found = answer(torch.tensor([2.0, 0.0]), 2)
    assert found == math.inf, f"With a zero k-th value the bound is inf, not {found}."


def _useful(answer: Callable[..., int | None], right: int | None, *args: float) -> None:
    found = answer(*args)
    assert found == right and type(found) is type(right), (
        f"For d, eps, beta = {args} the answer is {right}, not {found}."
    )


def first_useful(answer: Callable[..., int | None]) -> None:
    """Test ``first_useful(d, eps, beta)`` on a common and on an impossible case."""
    _useful(answer, 28, 400, 0.05, 0.3)
    _useful(answer, None, 4, 0.0, 0.9)


def first_useful_hidden(answer: Callable[..., int | None], seed: int = 0) -> None:
    """Test ``first_useful`` at ties, at the ends, and without a head."""
    _useful(answer, 20, 400, 0.0, 0.0)
    _useful(answer, 3, 9, 0.0, 0.0)
    _useful(answer, 1, 1, 0.0, 0.0)
    _useful(answer, 9, 9, 0.1, 0.7)
    _useful(answer, None, 9, 0.1, 0.71)
    _useful(answer, None, 100, 0.5, 1.0)
    _useful(answer, 1, 16, 0.75, 0.0)
    rng = random.Random(seed)
    for _ in range(20):
        d, eps, beta = rng.randint(2, 500), rng.random(), rng.random()
        least = math.ceil((1 - eps) * math.sqrt(d) / (1 - beta))
        _useful(answer, least if least <= d else None, d, eps, beta)


def _shares(
    answer: Callable[..., Tensor], factors: Tensor, gaps: Tensor, right: Tensor
) -> None:
    found = answer(factors.clone(), gaps.clone())
    assert isinstance(found, Tensor) and found.shape == right.shape, (
        f"Return a tensor of {len(right)} shares."
    )
    for i, (share, value) in enumerate(zip(found, right, strict=True), 1):
        close(share, float(value), f"The share of factor {i}")


def shares(answer: Callable[..., Tensor]) -> None:
    """Test ``shares(factors, gaps)`` where each factor is a power of the gap."""
    gaps = torch.tensor([1.0, 2.0, 5.0, 9.0]).double()
    factors = torch.stack([gaps**0.5, gaps**1.5, 3 + 0 * gaps], 1)
    _shares(answer, factors, gaps, torch.tensor([0.25, 0.75, 0.0]))


def shares_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``shares`` on factors that pull against each other."""
    g = torch.Generator().manual_seed(seed + 1)
    for _ in range(5):
        factors = 0.5 + torch.rand(12, 3, generator=g, dtype=torch.float64)
        factors[:, 0] = 1 / factors[:, 1:].prod(1) ** 2
        gaps = 0.5 + torch.rand(12, generator=g, dtype=torch.float64)
        table = torch.cat([factors, gaps[:, None]], 1).log().T
        covariances = torch.cov(table)[-1, :-1]
        _shares(answer, factors, gaps, covariances / covariances.sum())


def _layer(answer: Callable[..., Tensor], t: float, h: int, m: int) -> None:
    w = answer(t, h, m)
    order = f"For t = {t:.3f}, h = {h}, m = {m}"
    assert isinstance(w, Tensor) and w.shape == (h, m), (
        f"{order}: return a tensor of shape ({h}, {m})."
    )
    close(w.norm(), 1.0, f"{order}: the Frobenius norm")
    close(metrics.operator_norm(w, norm="linf"), t, f"{order}: the norm")


def layer_with(answer: Callable[..., Tensor]) -> None:
    """Test ``layer_with(t, h, m)`` on either side of one."""
    _layer(answer, 0.8, 4, 9)
    _layer(answer, 2.0, 4, 9)


def layer_with_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``layer_with`` over the whole range, ends included."""
    rng = random.Random(seed)
    for h, m in ((2, 2), (5, 3), (3, 20), (rng.randint(2, 9), rng.randint(2, 9))):
        for t in torch.linspace(h**-0.5, m**0.5, 9).tolist():
            _layer(answer, min(max(t, h**-0.5), m**0.5), h, m)
        _layer(answer, h**-0.5, h, m)
        _layer(answer, m**0.5, h, m)
        for _ in range(3):
            _layer(answer, rng.uniform(h**-0.5, m**0.5), h, m)
