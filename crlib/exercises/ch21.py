"""Tests for the exercises of chapter 21, The referees' questions."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "confined_distance",
    "confined_distance_hidden",
    "learnt_row_space",
    "learnt_row_space_hidden",
    "slopes",
    "slopes_hidden",
]

Score = Callable[[Tensor], Tensor]


def _normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


class _Counted:
    """A score that counts its questions: one for each point."""

    def __init__(self, score: Score) -> None:
        self.score, self.asked = score, 0

    def __call__(self, z: Tensor) -> Tensor:
        assert z.ndim == 2, f"The score takes points (n, m), not {tuple(z.shape)}."
        self.asked += len(z)
        return self.score(z)


def _slopes(
    answer: Callable[..., Tensor], score: Score, x: Tensor, ways: Tensor, right: Tensor
) -> None:
    counted = _Counted(score)
    found = answer(counted, x.clone(), ways.clone(), 1e-3)
    assert isinstance(found, Tensor) and found.shape == x.shape, (
        f"Return an estimate of the gradient, {tuple(x.shape)}."
    )
    assert counted.asked <= 2 * len(ways), (
        f"{counted.asked} questions for {len(ways)} directions: two each are allowed."
    )
    off = float((found - right).norm())
    assert off < 1e-4, (
        f"With {len(ways)} directions in {len(x)} dimensions the estimate is off by"
        f" {off:.3g}. It is the projection of the gradient on their span."
    )


def slopes(answer: Callable[..., Tensor]) -> None:
    """Test ``slopes(score, x, ways, tau)`` on an affine score."""
    a = torch.tensor([3.0, -1.0, 2.0]).double()
    x = torch.tensor([0.5, 0.5, 0.5]).double()
    ways = torch.eye(3).double()[:2]
    right = torch.tensor([3.0, -1.0, 0.0]).double()
    _slopes(answer, lambda z: z @ a + 1, x, ways, right)


def slopes_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``slopes(...)`` on a curved score, where one side alone is off."""
    for m, q in ((5, 1), (8, 8), (30, 6)):
        a, x = _normal(m, seed=seed), _normal(m, seed=seed + 1)
        ways = torch.linalg.qr(_normal(m, q, seed=seed + 2)).Q.T
        gradient = a + 200 * x
        right = gradient @ ways.T @ ways

        def score(z: Tensor, a: Tensor = a) -> Tensor:
            return z @ a + 100 * z.square().sum(1)

        _slopes(answer, score, x, ways, right)


def _confined(
    answer: Callable[..., float], a: Tensor, b: float, x: Tensor, basis: Tensor
) -> None:
    # Only the part of a inside the span can be used.
    inside = torch.linalg.qr(basis).Q.T @ a
    right = float((b - a @ x).abs() / inside.norm())
    found = float(answer(a.clone(), b, x.clone(), basis.clone()))
    # A Gram matrix squares the condition of the basis, and is an honest way.
    assert abs(found - right) < 1e-6 * max(1, right), (
        f"In {len(x)} dimensions with {basis.shape[1]} allowed it is {right:.4f}, and"
        f" you return {found:.4f}."
    )


def confined_distance(answer: Callable[..., float]) -> None:
    """Test ``confined_distance(a, b, x, basis)`` where one coordinate may move."""
    a, x = torch.tensor([3.0, 4.0]).double(), torch.zeros(2).double()
    _confined(answer, a, 6.0, x, torch.tensor([[1.0], [0.0]]).double())


def confined_distance_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test it on bases that are neither orthogonal nor of length one."""
    for m, s in ((3, 2), (9, 4), (6, 6)):
        basis = 3 * _normal(m, s, seed=seed + m)
        a, x = _normal(m, seed=seed + 1), _normal(m, seed=seed + 2)
        _confined(answer, a, 0.7, x, basis)


def _learnt(
    answer: Callable[..., Tensor], m: int, r: int, h: int, seed: int = 0
) -> None:
    w = _normal(h, r, seed=seed) @ _normal(r, m, seed=seed + 1) / m**0.5
    v, points = _normal(h, seed=seed + 2), _normal(3 * r, m, seed=seed + 3)
    counted = _Counted(lambda z: (z @ w.T).tanh() @ v)
    found = answer(counted, points.clone(), r)
    assert isinstance(found, Tensor) and found.shape == (m, r), (
        f"Return an orthonormal basis ({m}, {r}), one direction a column."
    )
    gram = found.T @ found
    assert torch.allclose(gram, torch.eye(r).double(), atol=1e-6), "Not orthonormal."
    limit = 2 * m * len(points)
    assert counted.asked <= limit, f"{counted.asked} questions: at most {limit}."
    seen = float((w @ found).norm() / w.norm())
    assert seen > 0.999, (
        f"Your {r} directions hold {seen:.1%} of the first layer, and {r} can hold all."
    )


def learnt_row_space(answer: Callable[..., Tensor]) -> None:
    """Test ``learnt_row_space(score, points, rank)`` on one direction."""
    _learnt(answer, m=6, r=1, h=4)


def learnt_row_space_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``learnt_row_space(...)`` on several directions."""
    for m, r, h in ((10, 2, 5), (20, 4, 12)):
        _learnt(answer, m, r, h, seed)
