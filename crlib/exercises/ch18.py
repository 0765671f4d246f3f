"""Tests for the exercises of chapter 18, Transfer."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = [
    "best_radius",
    "best_radius_hidden",
    "enough_directions",
    "enough_directions_hidden",
    "head_spread",
    "head_spread_hidden",
    "head_step",
    "head_step_hidden",
]


def _normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def _spread(answer: Callable[[Tensor], Tensor], c: Tensor) -> None:
    found = answer(c.clone())
    assert isinstance(found, Tensor) and found.shape == (len(c),), (
        f"The head has {len(c)} rows: return a tensor ({len(c)},), one number a label."
    )
    for y, row in enumerate(c):
        right = max(float((other - row).norm()) for other in c)
        assert abs(float(found[y]) - right) < 1e-9, (
            f"For label {y} it is {right:.4f}, and you return {float(found[y]):.4f}."
        )


def head_spread(answer: Callable[[Tensor], Tensor]) -> None:
    """Test ``head_spread(c)`` on three points of a line."""
    _spread(answer, torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.6, 0.8]]).double())


def head_spread_hidden(answer: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    """Test ``head_spread(c)`` on random heads, two classes and equal rows."""
    for k, h in ((2, 3), (5, 4), (10, 16)):
        _spread(answer, 3 * _normal(k, h, seed=seed + k))
    _spread(answer, torch.ones(3, 4).double())


def _step(
    answer: Callable[..., Tensor], c: Tensor, features: Tensor, y: Tensor, rate: float
) -> None:
    head = c.clone().requires_grad_()
    cross_entropy(features @ head.T, y).backward()
    assert head.grad is not None
    right = c - rate * head.grad
    found = answer(c.clone(), features.clone(), y.clone(), rate)
    assert isinstance(found, Tensor) and found.shape == c.shape, (
        f"The head has the shape {tuple(c.shape)}, before the step and after it."
    )
    off = float((found - right).abs().max())
    assert off < 1e-9, (
        f"With {len(y)} samples, {len(c)} classes and rate {rate} an entry is off by"
        f" {off:.3g}. Is it the gradient of the mean?"
    )


def head_step(answer: Callable[..., Tensor]) -> None:
    """Test ``head_step(c, features, y, rate)`` on two samples."""
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    _step(answer, torch.zeros(3, 2).double(), features, torch.tensor([0, 2]), 0.5)


def head_step_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``head_step(...)`` on random samples, one and many, at any rate."""
    for n, k, h, rate in ((1, 2, 3, 1.0), (40, 5, 7, 0.1), (9, 3, 2, 4.0)):
        y = torch.arange(n) % k
        c, features = _normal(k, h, seed=seed), _normal(n, h, seed=seed + 1)
        _step(answer, c, features, y, rate)


def _radius(answer: Callable[..., float], w: Tensor, x: Tensor, y: Tensor) -> None:
    onto = torch.linalg.pinv(w, rtol=1e-9) @ w
    ways = [
        float(((x[i] - x[j]) @ onto).norm())
        for i, j in itertools.combinations(range(len(x)), 2)
        if y[i] != y[j]
    ]
    found, right = float(answer(w.clone(), x.clone(), y.clone())), min(ways) / 2
    assert abs(found - right) < 1e-8, (
        f"For a layer {tuple(w.shape)} and {len(x)} inputs it is {right:.4f}, and you"
        f" return {found:.4f}."
    )


def best_radius(answer: Callable[..., float]) -> None:
    """Test ``best_radius(w, x, y)`` where one coordinate is seen."""
    x = torch.tensor([[0.0, 0.0], [3.0, 0.5], [1.0, 9.0]]).double()
    w = torch.tensor([[2.0, 0.0]]).double()
    _radius(answer, w, x, torch.tensor([0, 1, 0]))


def best_radius_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``best_radius(w, x, y)`` at low rank, at full rank, and on many inputs."""
    for h, m, k in ((4, 7, 2), (7, 4, 4), (5, 9, 5)):
        w = _normal(h, k, seed=seed) @ _normal(k, m, seed=seed + 1)
        x = _normal(20, m, seed=seed + 2)
        _radius(answer, w, x, torch.arange(20) % 3)


def _enough(
    answer: Callable[..., int], x: Tensor, y: Tensor, kept: float, means: str = ""
) -> None:
    middle = x - x.mean(0)
    ways = torch.linalg.svd(middle, full_matrices=False).Vh
    pairs = [
        x[i] - x[j] for i, j in itertools.combinations(range(len(x)), 2) if y[i] != y[j]
    ]
    shares = [
        sum(float((ways[:r] @ d).norm() ** 2 / d.norm() ** 2) for d in pairs)
        / len(pairs)
        for r in range(1, len(ways) + 1)
    ]
    right = 1 + next(i for i, share in enumerate(shares) if share**0.5 >= kept)
    found = answer(x.clone(), y.clone(), kept)
    assert isinstance(found, int), "Return an integer: the number of directions."
    assert found == right, (
        f"For {len(x)} inputs of {x.shape[1]} numbers and kept = {kept} it is {right},"
        f" and you return {found}.{means}"
    )


def enough_directions(answer: Callable[..., int]) -> None:
    """Test ``enough_directions(x, y, kept)`` where the labels lie along a weak one."""
    x = torch.tensor([[4.0, 0, 0], [-4.0, 0, 0], [4.0, 2, 1], [-4.0, 2, 1]]).double()
    y = torch.tensor([0, 0, 1, 1])
    hint = " Are pairs of one label left out, and is it a mean of shares?"
    _enough(answer, x, y, 0.9, hint)
    _enough(answer, x, y, 0.6, hint)


def enough_directions_hidden(answer: Callable[..., int], seed: int = 0) -> None:
    """Test ``enough_directions(x, y, kept)`` on clouds, far from zero too."""
    for n, m, k, kept in ((20, 8, 2, 0.8), (24, 12, 3, 0.9), (9, 30, 3, 0.95)):
        spread = torch.linspace(2, 0.3, m).double()
        x, y = _normal(n, m, seed=seed + n) * spread + 5, torch.arange(n) % k
        # Inputs vary most along the first axis, classes along the last ones.
        x[:, 0] = 8 * (x[:, 0] - 5).sign()
        x[:, -k:] += 3 * torch.eye(k).double()[y]
        _enough(answer, x, y, kept)
