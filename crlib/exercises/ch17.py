"""Tests for the exercises of chapter 17, Adversarial training."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "learnt_behind",
    "learnt_behind_hidden",
    "robust_ridge",
    "robust_ridge_hidden",
    "robust_weights",
    "robust_weights_hidden",
    "trades_loss",
    "trades_loss_hidden",
]


def _same_way(found: object, right: Tensor, about: str) -> None:
    assert isinstance(found, Tensor) and found.shape == right.shape, (
        f"{about}: return a tensor of the shape {tuple(right.shape)}."
    )
    assert ((found == 0) == (right == 0)).all(), (
        f"{about}: other coordinates should have the weight zero."
    )
    length = found.norm() * right.norm()
    assert length > 0 and float(found @ right) >= (1 - 1e-9) * float(length), (
        f"{about}: the direction should be {right.tolist()}, up to a positive factor."
    )


def _soft(
    answer: Callable[[Tensor, Tensor, float], Tensor], mu: Tensor, s: Tensor, eps: float
) -> None:
    right = mu.sign() * (mu.abs() - eps).clamp(min=0) / s**2
    _same_way(answer(mu.clone(), s.clone(), eps), right, f"At budget {eps}")


def robust_weights(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Test ``robust_weights(mu, s, eps)`` on three coordinates."""
    mu = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    _soft(answer, mu, torch.ones(3).double(), 0.3)
    _soft(answer, mu, torch.tensor([2.0, 1.0, 1.0]).double(), 0.1)


def robust_weights_hidden(
    answer: Callable[[Tensor, Tensor, float], Tensor], seed: int = 0
) -> None:
    """Test ``robust_weights(mu, s, eps)`` on random means, and without a budget."""
    g = torch.Generator().manual_seed(seed)
    for eps in (0.0, 0.4, 0.8):
        mu = torch.randn(20, generator=g, dtype=torch.float64)
        s = 0.2 + torch.rand(20, generator=g, dtype=torch.float64)
        _soft(answer, mu, s, eps)


def _ridge(
    answer: Callable[[Tensor, Tensor, float], Tensor],
    mu: Tensor,
    cov: Tensor,
    eps: float,
) -> None:
    w = answer(mu.clone(), cov.clone(), eps)
    assert isinstance(w, Tensor) and w.shape == mu.shape, (
        f"Return a tensor of the shape {tuple(mu.shape)}."
    )
    off = (cov @ w + eps * w / w.norm().clamp_min(1e-30) - mu).norm() / mu.norm()
    assert off < 1e-6, (
        "w should solve (cov + lam I) w = mu with lam = eps / |w|: the two sides"
        f" differ by {float(off):.2g}, relative to mu."
    )


def robust_ridge(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Test ``robust_ridge(mu, cov, eps)`` on uneven noise."""
    cov = torch.diag(torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64))
    mu = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    _ridge(answer, mu, cov, 0.5)


def robust_ridge_hidden(
    answer: Callable[[Tensor, Tensor, float], Tensor], seed: int = 0
) -> None:
    """Test ``robust_ridge(mu, cov, eps)`` from no budget to nearly all of the mean."""
    g = torch.Generator().manual_seed(seed)
    for part in (0.0, 1e-3, 0.5, 0.99):
        root = torch.randn(6, 6, generator=g, dtype=torch.float64)
        mu = torch.randn(6, generator=g, dtype=torch.float64)
        cov = root @ root.T + 0.1 * torch.eye(6).double()
        _ridge(answer, mu, cov, part * float(mu.norm()))


Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _trades(answer: Loss, clean: Tensor, moved: Tensor, y: Tensor, beta: float) -> None:
    found = answer(clean.clone(), moved.clone(), y.clone(), beta)
    p, q = clean.log_softmax(1), moved.log_softmax(1)
    right = (
        functional.cross_entropy(clean, y) + beta * (p.exp() * (p - q)).sum(1).mean()
    )
    assert isinstance(found, Tensor) and found.numel() == 1, (
        "The loss is one number, the mean over the batch."
    )
    assert abs(float(found) - float(right)) <= 1e-6 * max(1.0, float(right)), (
        f"At beta {beta} the loss is {float(found):.6f} and should be"
        f" {float(right):.6f}."
    )


def trades_loss(answer: Loss) -> None:
    """Test ``trades_loss(clean, moved, y, beta)`` on two inputs of three classes."""
    clean = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.5]], dtype=torch.float64)
    y = torch.tensor([0, 2])
    _trades(answer, clean, clean, y, 6.0)
    _trades(answer, clean, clean.flip(1), y, 0.0)
    _trades(answer, clean, clean.flip(1), y, 6.0)


def trades_loss_hidden(answer: Loss, seed: int = 0) -> None:
    """Test ``trades_loss(clean, moved, y, beta)`` on random and on large logits."""
    g = torch.Generator().manual_seed(seed)
    for scale in (1.0, 30.0):
        clean, moved = scale * torch.randn(2, 16, 10, generator=g, dtype=torch.float64)
        _trades(answer, clean, moved, torch.arange(16) % 10, 3.0)


Learn = Callable[[Tensor, float, str, Tensor, Tensor], tuple[Tensor, Tensor]]


def _margin(w: Tensor, mu: Tensor, eps: float, norm: str) -> float:
    dual = w.abs().sum() if norm == "linf" else w.norm()
    return float((w @ mu - eps * dual) / w.norm().clamp_min(1e-30))


def _learnt(
    answer: Learn, mu: Tensor, eps: float, norm: str, a: Tensor, w: Tensor
) -> None:
    found = answer(mu.clone(), eps, norm, a.clone(), w.clone())
    shapes = [tuple(v.shape) for v in found]
    assert shapes == [tuple(a.shape), tuple(w.shape)], (
        f"Return a and W, of the shapes {tuple(a.shape)} and {tuple(w.shape)}."
    )
    head, rows = (v.detach() for v in found)
    least = mu - mu.clamp(-eps, eps) if norm == "linf" else mu * (1 - eps / mu.norm())
    got, best = _margin(rows.T @ head, mu, eps, norm), float(least.norm())
    assert got >= 0.99 * best, (
        f"At rank {len(a)}, {norm}, budget {eps}: the robust margin of W^T a is"
        f" {got:.4f} and should come within one percent of {best:.4f}."
    )


def _starts(mu: Tensor, rank: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    draw = torch.randn(rank, len(mu) + 1, generator=g, dtype=torch.float64)
    return draw[:, 0], draw[:, 1:] / len(mu) ** 0.5


def learnt_behind(answer: Learn) -> None:
    """Test ``learnt_behind(mu, eps, norm, a, W)`` in l2, with two directions of six."""
    mu = torch.tensor([1.0, -1.0, 0.5, 0.5, 0.2, 0.0], dtype=torch.float64)
    a, w = _starts(mu, 2, torch.Generator().manual_seed(0))
    _learnt(answer, mu, 0.5, "l2", a, w)


def learnt_behind_hidden(answer: Learn, seed: int = 0) -> None:
    """Test ``learnt_behind(mu, eps, norm, a, W)`` in both norms, from three ranks."""
    g = torch.Generator().manual_seed(seed)
    mu = torch.randn(20, generator=g, dtype=torch.float64)
    for norm, eps, rank in (("l2", 1.0, 1), ("linf", 0.8, 1), ("linf", 0.8, 3)):
        _learnt(answer, mu, eps, norm, *_starts(mu, rank, g))
