"""Matrices of eight kinds, to look for a violation of an inequality."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Generator = torch.Generator


def _low_rank(g: Generator, h: int, m: int) -> Tensor:
    rank = int(torch.randint(1, min(h, m) + 1, (), generator=g))
    return torch.randn(h, rank, generator=g) @ torch.randn(rank, m, generator=g)


def _sparse(g: Generator, h: int, m: int) -> Tensor:
    kept = torch.rand(h, m, generator=g) < 0.3
    kept[0, 0] = True
    return torch.randn(h, m, generator=g) * kept


def _one_row(g: Generator, h: int, m: int) -> Tensor:
    w = torch.zeros(h, m)
    w[int(torch.randint(h, (), generator=g))] = torch.randn(m, generator=g)
    return w


def _exponential(g: Generator, h: int, m: int) -> Tensor:
    u, _, vh = torch.linalg.svd(torch.randn(h, m, generator=g), full_matrices=False)
    decay = 0.1 + 0.9 * float(torch.rand((), generator=g))
    return u * decay ** torch.arange(min(h, m)) @ vh


def _pareto_rows(g: Generator, h: int, m: int) -> Tensor:
    scale = torch.rand(h, 1, generator=g).clamp_min(1e-6) ** -0.7
    return torch.randn(h, m, generator=g) * scale


KINDS: dict[str, Callable[[Generator, int, int], Tensor]] = {
    "gaussian": lambda g, h, m: torch.randn(h, m, generator=g),
    "cauchy": lambda g, h, m: torch.empty(h, m).cauchy_(generator=g),
    "low rank": _low_rank,
    "heavy rows": _pareto_rows,
    "sparse": _sparse,
    "signs": lambda g, h, m: torch.randn(h, m, generator=g).sign(),
    "one row": _one_row,
    "exponential spectrum": _exponential,
}


def many(
    count: int = 3000, *, largest: int = 14, seed: int = 0
) -> Iterator[tuple[Tensor, Generator]]:
    """Yield matrices of every kind in turn, float64, with a generator for the rest."""
    kinds = list(KINDS.values())
    for n in range(count):
        g = torch.Generator().manual_seed(seed * 1_000_003 + n)
        h, m = (int(torch.randint(1, largest + 1, (), generator=g)) for _ in range(2))
        yield kinds[n % len(kinds)](g, h, m).double(), g


def integer(g: Generator, low: int, high: int) -> int:
    """Draw an integer from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=g))
