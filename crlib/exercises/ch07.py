"""Tests for the exercises of chapter 7, From layers to networks."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from crlib import metrics
from crlib.exercises import close

__all__ = [
    "balanced",
    "balanced_hidden",
    "best_pairs",
    "best_pairs_hidden",
    "worst_mask",
    "worst_mask_hidden",
]


def worst_mask(answer: Callable[[Tensor, Tensor], float]) -> None:
    """Test ``worst_mask(v, u)`` on two and three neurons."""
    ones = torch.ones(2)
    close(answer(ones, torch.tensor([1.0, -1.0])), 1.0, "For (1, 1), (1, -1): it")
    v, u = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, -2.0])
    close(answer(v, u), 6.0, "For (1, 2, 3), (1, 1, -2): it")


def worst_mask_hidden(answer: Callable[[Tensor, Tensor], float], seed: int = 0) -> None:
    """Test ``worst_mask(v, u)`` against all masks of eight neurons."""
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
    g = torch.Generator().manual_seed(seed)
    for _ in range(20):
        v, u = torch.randn(2, 8, generator=g)
        right = float((masks @ (v * u)).abs().max())
        found = answer(v, u)
        assert isinstance(found, float | int | Tensor), "The result is not a number."
        assert math.isclose(float(found), right, rel_tol=1e-4), (
            f"On random vectors it is {float(found):.4f} and should be {right:.4f}."
        )


def best_pairs(answer: Callable[[Sequence[float]], float]) -> None:
    """Test ``best_pairs(alignments)`` on short networks."""
    close(answer([0.5]), 0.5, "For one pair, the product")
    close(answer([0.5, 0.3, 0.5]), 0.25, "For 0.5, 0.3, 0.5, the product")
    close(answer([0.5, 0.1, 0.5]), 0.1, "For 0.5, 0.1, 0.5, the product")
    close(answer([1.2, 1.5]), 1.0, "For alignments above one, the product")


def best_pairs_hidden(
    answer: Callable[[Sequence[float]], float], seed: int = 0
) -> None:
    """Test ``best_pairs(alignments)`` against all sets, and on a deep network."""
    close(answer([]), 1.0, "Without pairs, the product")
    g = torch.Generator().manual_seed(seed + 1)
    for n in range(1, 10):
        values = (1.2 * torch.rand(n, generator=g)).tolist()
        sets = itertools.chain.from_iterable(
            itertools.combinations(range(n), size) for size in range(n)
        )
        right = min(
            (
                math.prod(values[i] for i in s)
                for s in [*sets, tuple(range(n))]
                if all(b - a > 1 for a, b in itertools.pairwise(s))
            ),
        )
        close(answer(values), right, f"For {n} random pairs, the product")
    close(answer([0.9] * 400), 0.9**200, "For four hundred pairs, the product")


def _run(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    for w in weights[:-1]:
        x = (x @ w.T).relu()
    return x @ weights[-1].T


def _balance(
    answer: Callable[..., Sequence[Tensor]], scales: Sequence[float], seed: int = 0
) -> None:
    g = torch.Generator().manual_seed(seed + len(scales))
    sizes = (4, 6, 5, 3, 2)[: len(scales) + 1]
    weights = [
        scale * torch.randn(h, m, generator=g, dtype=torch.float64)
        for scale, m, h in zip(scales, sizes, sizes[1:], strict=False)
    ]
    found = answer([w.clone() for w in weights])
    assert isinstance(found, list | tuple) and len(found) == len(weights), (
        f"Return {len(weights)} weights for {len(weights)} layers."
    )
    x = torch.randn(20, 4, generator=g, dtype=torch.float64)
    assert torch.allclose(_run(found, x), _run(weights, x), rtol=1e-6), (
        "The network computes another function: the factors must have product one."
    )
    norms = [metrics.operator_norm(w) for w in found]
    assert max(norms) <= min(norms) * (1 + 1e-6), (
        f"The norms are not equal: they run from {min(norms):.4f} to {max(norms):.4f}."
    )


def balanced(answer: Callable[..., Sequence[Tensor]]) -> None:
    """Test ``balanced(weights)`` on two layers."""
    _balance(answer, (1.0, 9.0))


def balanced_hidden(answer: Callable[..., Sequence[Tensor]], seed: int = 0) -> None:
    """Test ``balanced(weights)`` on one and on four layers of very different size."""
    _balance(answer, (3.0,), seed)
    _balance(answer, (0.01, 5.0, 1.0, 40.0), seed)
