"""Tests of the exercise of lab 4, Deep graph persistence."""

from collections.abc import Callable
from itertools import combinations, product

import torch
from torch import Tensor

__all__ = ["tree_weights", "tree_weights_hidden"]

Answer = Callable[[Tensor], Tensor]


def _pieces(edges: tuple[tuple[int, int], ...], h: int, m: int) -> int:
    names = list(range(h + m))
    for i, j in edges:
        old, new = names[h + j], names[i]
        names = [new if name == old else name for name in names]
    return len(set(names))


def _heaviest(answer: Answer, w: Tensor) -> None:
    h, m = w.shape
    choices = combinations(product(range(h), range(m)), h + m - 1)
    trees = [
        torch.stack([w[edge] for edge in edges]).sort(descending=True).values
        for edges in choices
        if _pieces(edges, h, m) == 1
    ]
    best = max(trees, key=lambda v: float(v.sum()))
    found = torch.as_tensor(answer(w.clone()), dtype=w.dtype).flatten()
    assert len(found) == len(best), (
        f"A spanning tree of {h} outputs and {m} inputs has {len(best)} edges, and you"
        f" return {len(found)}."
    )
    found = found.sort(descending=True).values
    assert torch.allclose(found, best), (
        f"For w = {w.tolist()} you return {found.tolist()}. The heaviest of all"
        f" {len(trees)} spanning trees has the weights {best.tolist()}."
    )


def tree_weights(answer: Answer) -> None:
    """Test ``tree_weights(w)`` on a layer whose large weights close a cycle."""
    w = torch.tensor([[0.9, 0.8, 0.1], [0.7, 0.6, 0.2]], dtype=torch.float64)
    _heaviest(answer, w)


def tree_weights_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``tree_weights(w)`` against all 432 trees of random layers."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(10):
        _heaviest(answer, torch.rand(3, 4, generator=g, dtype=torch.float64))
