"""Tests of the exercise of lab 6, Rank diminishing."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["safe_ranks", "safe_ranks_hidden"]

Answer = Callable[[Sequence[Tensor], float], Sequence[int]]


def safe_ranks(answer: Answer) -> None:
    """Test ``safe_ranks(weights, tol)`` on layers that undo each other's preference."""
    first = torch.diag(torch.tensor([1.0, 1e-3], dtype=torch.float64))
    second = torch.diag(torch.tensor([1e-3, 1.0], dtype=torch.float64))
    found = list(answer([first, second], 1e-2))
    assert found == [1, 0], (
        f"For diag(1, 0.001), then diag(0.001, 1), you count {found}. The product is"
        " 0.001 times the identity, and the product of the norms is one: [1, 0]."
    )
    found = list(answer([2 * first, 3 * first], 1e-2))
    assert found == [1, 1], f"Factors of the layers do not matter: [1, 1], not {found}."


def safe_ranks_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``safe_ranks(weights, tol)`` on random chains."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(20):
        chain = []
        for _ in range(4):
            scales = torch.logspace(0, -3, 6, dtype=torch.float64)
            w = torch.randn(6, 6, generator=g, dtype=torch.float64)
            chain.append(w * scales[torch.randperm(6, generator=g)])
        found = [int(n) for n in answer([w.clone() for w in chain], 1e-2)]
        assert len(found) == 4, f"For four layers you return {len(found)} counts."
        product = torch.eye(6, dtype=torch.float64)
        norms = 1.0
        for n, w in zip(found, chain, strict=True):
            product, norms = w @ product, norms * float(torch.linalg.svdvals(w)[0])
            right = int((torch.linalg.svdvals(product) > 1e-2 * norms).sum())
            assert n == right, (
                f"On a random chain you count {found}; where you count {n} there are"
                f" {right} above 0.01 times the product of the norms."
            )
