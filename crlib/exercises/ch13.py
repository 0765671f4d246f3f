"""Tests for the exercises of chapter 13, Few strong directions."""

from collections.abc import Callable

import torch
from torch import Tensor

from crlib import metrics

__all__ = [
    "cleared",
    "cleared_hidden",
    "concentration",
    "concentration_hidden",
    "dialled",
    "dialled_hidden",
]


def _normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def dialled(answer: Callable[[Tensor, float], Tensor]) -> None:
    """Test ``dialled(w, alpha)`` on a diagonal matrix."""
    w = torch.diag(torch.tensor([4.0, 3.0], dtype=torch.float64))
    flat = answer(w, 0)
    assert torch.allclose(flat, torch.eye(2).double() * 12.5**0.5), (
        "A flat spectrum of a diagonal matrix with 4 and 3: both become the root of"
        f" 12.5, and the norm stays 5. You returned {flat.tolist()}."
    )


def dialled_hidden(answer: Callable[[Tensor, float], Tensor], seed: int = 0) -> None:
    """Test scale, spectrum and singular vectors on random matrices."""
    for h, m, alpha in ((5, 9, 0.5), (9, 5, 1), (4, 4, 2), (3, 8, 0)):
        w = 3 * _normal(h, m, seed=seed)
        found = answer(w, alpha)
        assert torch.allclose(found.norm(), w.norm()), "The Frobenius norm moved."
        s = torch.linalg.svdvals(found)
        profile = torch.arange(1, min(h, m) + 1).double() ** -alpha
        assert torch.allclose(s / s[0], profile), (
            f"The spectrum of a {h} x {m} matrix is not that of exponent {alpha}."
        )
        u, _, vh = torch.linalg.svd(w, full_matrices=False)
        core = u.T @ found @ vh.T
        assert torch.allclose(core, torch.diag(s), atol=1e-9), (
            "The singular vectors are not those of w, in their order."
        )


def cleared(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Test ``cleared(w, x)`` with one input in the plane."""
    w = torch.tensor([[1.0, 5.0]], dtype=torch.float64)
    x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    found = answer(w, x)
    assert torch.allclose(found, torch.tensor([[1.0, 0.0]]).double()), (
        "The only input looks along the first axis: the second weight is not reached."
        f" You returned {found.tolist()}."
    )


def cleared_hidden(answer: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Test on inputs that depend on each other, fewer and more than columns."""
    for n, k in ((4, 4), (4, 2), (20, 3)):
        w = _normal(5, 9, seed=seed)
        x = _normal(n, k, seed=seed + 1) @ _normal(k, 9, seed=seed + 2)
        found = answer(w, x)
        assert torch.allclose(x @ found.T, x @ w.T, atol=1e-8), (
            "The outputs on the inputs changed."
        )
        least = torch.linalg.lstsq(x, x @ w.T, driver="gelsd").solution.T
        assert torch.allclose(found, least, atol=1e-6), (
            f"With {n} inputs in {k} dimensions a smaller matrix does the same."
        )


def _shares(w: Tensor, delta: Tensor, k: int) -> Tensor:
    v = torch.linalg.svd(w, full_matrices=False).Vh[:k].T
    return metrics.energy_share(delta, v)


def concentration(answer: Callable[..., float]) -> None:
    """Test ``concentration(w, delta, x, k)`` in the plane."""
    w = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    delta = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    found = float(answer(w, delta, x, 1))
    assert abs(found - 2) < 1e-6, (
        "All of the perturbations and half of the difference lie along the first"
        f" direction: the ratio is 2, not {found:.3g}."
    )


def concentration_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test on random vectors of very different lengths."""
    for i, k in enumerate((1, 3, 6), start=seed):
        w = _normal(6, 12, seed=i)
        lengths = torch.logspace(-2, 2, 7).double()[:, None]
        delta, x = (_normal(7, 12, seed=seed + j) * lengths for j in (9, 8))
        pairs = torch.stack([a - b for i, a in enumerate(x) for b in x[:i]])
        wanted = float(_shares(w, delta, k).mean() / _shares(w, pairs, k).mean())
        found = float(answer(w, delta, x, k))
        assert abs(found - wanted) < 1e-6 * wanted, (
            f"With vectors of different lengths it is {wanted:.4f}, not {found:.4f}:"
            " the mean is over shares, and over all pairs."
        )
