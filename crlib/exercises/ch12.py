"""Tests of the exercises of chapter 12."""

import math
import random
from collections.abc import Callable

import pandas
import torch
from torch import Tensor

__all__ = [
    "inflated",
    "inflated_hidden",
    "row_share",
    "row_share_hidden",
    "stories",
    "stories_hidden",
]

Pair = tuple[float, float]


def _share(answer: Callable[[Tensor], Pair], w: Tensor, wanted: Pair) -> None:
    found = answer(w.clone())
    assert len(found) == 2, "Return a pair: the share, and the least one."
    for got, right, name in zip(found, wanted, ("share", "least share"), strict=True):
        assert math.isclose(float(got), right, rel_tol=1e-5), (
            f"The {name} is {right:.4g} here, not {float(got):.4g}."
        )


def row_share(answer: Callable[[Tensor], Pair]) -> None:
    """A matrix whose Frobenius norm is ten, and one of a single row."""
    w = torch.tensor([[4.0, -4.0, 4.0, 4.0], [6.0, 0.0, 0.0, 0.0]])
    _share(answer, w, (1.6, 0.8))
    _share(answer, torch.tensor([[3.0, -4.0]]), (1.4, 1.0))


def row_share_hidden(answer: Callable[[Tensor], Pair], seed: int = 0) -> None:
    """Random matrices, where the strongest row need not have the largest sum."""
    flat = torch.cat([torch.full((1, 9), 1.0), torch.tensor([[4.0] + [0.0] * 8])])
    _share(answer, flat, (9 / 5, 4 / 5))
    g = torch.Generator().manual_seed(seed)
    for _ in range(10):
        w = torch.randn(5, 7, generator=g, dtype=torch.float64)
        frobenius = float((w * w).sum()) ** 0.5
        sums, squares = w.abs().sum(1), (w * w).sum(1)
        wanted = float(sums.max()) / frobenius, float(squares.max()) ** 0.5 / frobenius
        _share(answer, w, wanted)


def _inflated(answer: Callable[[Tensor], Tensor], w: Tensor) -> None:
    rho = [sum(float(v) ** 2 for v in row) ** 0.5 for row in w]
    limit = sum(r * r for r in rho) / sum(rho)
    found = answer(w.clone())
    assert isinstance(found, Tensor) and found.shape == (len(w),), (
        f"Return a tensor of shape ({len(w)},), one truth value a row."
    )
    for i, (got, norm) in enumerate(zip(found, rho, strict=True)):
        assert bool(got) == (norm > limit), (
            f"Row {i} has norm {norm:.3g} and the limit is {limit:.3g}."
        )


def inflated(answer: Callable[[Tensor], Tensor]) -> None:
    """Norms 1, 2, 3, 9: the limit is 95/15."""
    _inflated(answer, torch.diag(torch.tensor([1.0, 2.0, 3.0, 9.0])))
    _inflated(answer, torch.tensor([[3.0, 4.0], [0.0, 1.0]]))


def inflated_hidden(answer: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    """A row between mean and limit, a zero row, and random matrices."""
    _inflated(answer, torch.diag(torch.tensor([1.0, 1.0, 5.0, 9.0])))
    _inflated(answer, torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 3.0]]))
    g = torch.Generator().manual_seed(seed + 1)
    for _ in range(10):
        _inflated(answer, torch.randn(9, 4, generator=g, dtype=torch.float64) ** 3)


Stories = Callable[
    [pandas.DataFrame, tuple[str, float], tuple[str, float], str], dict[str, str]
]


def _table(values: dict[tuple[str, float, str], list[float]]) -> pandas.DataFrame:
    return pandas.DataFrame(
        [
            {
                "way": way,
                "strength": strength,
                "checkpoint": rule,
                "seed": seed,
                "met": value > 0,
                "l2": value,
            }
            for (way, strength, rule), runs in values.items()
            for seed, value in enumerate(runs)
        ]
    )


def _told(answer: Stories, table: pandas.DataFrame, wanted: dict[str, str]) -> None:
    found = answer(table, ("a", 0.1), ("plain", 0), "l2")
    assert set(found) == set(wanted), f"Give one story for each of {sorted(wanted)}."
    for rule, right in wanted.items():
        assert found[rule] == right, f"{rule}: it is {right!r}, not {found[rule]!r}."


def stories(answer: Stories) -> None:
    """Seeds far apart, ratios close together."""
    base = [1.0, 2.0, 4.0, 8.0, 16.0]
    shifted = {
        "first": [0.8, 0.85, 0.8, 0.75, 0.8],
        "second": [1.2, 1.25, 1.2, 1.3, 1.2],
        "third": [1.1, 0.9, 1.0, 1.2, 0.8],
    }
    values = {("plain", 0.0, rule): base for rule in shifted}
    for rule, ratios in shifted.items():
        values["a", 0.1, rule] = [b * r for b, r in zip(base, ratios, strict=True)]
    wanted = {"first": "lower", "second": "higher", "third": "open"}
    _told(answer, _table(values), wanted)


def stories_hidden(answer: Stories, seed: int = 0) -> None:
    """Rows in another order, other settings, checkpoints that were not met."""
    base = [1.0, 2.0, 4.0, 8.0, 16.0]
    rng = random.Random(seed)
    low = [b * rng.uniform(0.7, 0.85) for b in base]
    values = {
        ("plain", 0.0, "last"): base,
        ("a", 0.1, "last"): low,
        ("a", 0.2, "last"): [2 * v for v in base],
        ("plain", 0.0, "matched"): base,
        ("a", 0.1, "matched"): [0.8, 0.0, 0.0, 0.0, 0.0],
        ("plain", 0.0, "validation"): base,
        ("a", 0.1, "validation"): [0.0, *low[1:]],
    }
    table = _table(values).sample(frac=1, random_state=seed + 3)
    wanted = {"last": "lower", "matched": "too few", "validation": "lower"}
    _told(answer, table, wanted)
