"""Tests for the exercises of chapter 14, CIFAR-10."""

import math
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "at_fit",
    "at_fit_hidden",
    "fold",
    "fold_hidden",
    "windows",
    "windows_hidden",
]


def _fold(answer: Callable[..., tuple[Tensor, Tensor]], seed: int, eta: float) -> None:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    kernel, x = draw(5, 3, 3, 3), draw(4, 3, 8, 8)
    gamma, beta, mean = draw(3, 5)
    variance = torch.rand(5, generator=g, dtype=torch.float64) + 0.01
    parts = (kernel, gamma, beta, mean, variance)
    found, bias = answer(*(v.clone() for v in parts), eta)
    assert found.shape == kernel.shape, "The kernel should keep its shape."
    assert bias.shape == beta.shape, "The bias should have one entry a filter."
    known = nn.functional.batch_norm(
        nn.functional.conv2d(x, kernel), mean, variance, gamma, beta, eps=eta
    )
    flat = torch.zeros_like(x)
    at_zero = nn.functional.batch_norm(
        nn.functional.conv2d(flat, kernel), mean, variance, gamma, beta, eps=eta
    )
    assert torch.allclose(
        nn.functional.conv2d(flat, found, bias), at_zero, rtol=1e-4, atol=1e-4
    ), "The answer to a black image is another one: look at the bias."
    assert torch.allclose(
        nn.functional.conv2d(x, found, bias), known, rtol=1e-4, atol=1e-4
    ), "The answer to an image is another one: look at the kernel."


def fold(answer: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Test ``fold(kernel, gamma, beta, mean, variance, eta)`` at torch's eta."""
    _fold(answer, 0, 1e-5)


def fold_hidden(answer: Callable[..., tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Test ``fold(kernel, gamma, beta, mean, variance, eta)`` at large and zero eta."""
    for i, eta in enumerate((0.0, 0.3, 2.0), start=1):
        _fold(answer, seed + i, eta)


def _windows(answer: Callable[..., int], size: int, k: int, s: int, p: int) -> None:
    line = torch.zeros(1, 1, size)
    ones = torch.ones(1, 1, k)
    places = nn.functional.conv1d(line, ones, stride=s, padding=p)
    counts = nn.functional.conv_transpose1d(
        torch.ones_like(places),
        ones,
        stride=s,
        padding=p,
        output_padding=(size + 2 * p - k) % s,
    )
    right = int(counts.max())
    found = answer(size, k, s, p)
    assert found == right, (
        f"For size {size}, k {k}, stride {s}, padding {p} it is {found} and should be"
        f" {right}."
    )


def windows(answer: Callable[..., int]) -> None:
    """Test ``windows(size, k, stride, padding)`` on layers of the chapter."""
    _windows(answer, 32, 3, 1, 1)
    _windows(answer, 32, 3, 2, 1)
    _windows(answer, 32, 4, 4, 0)


def windows_hidden(answer: Callable[..., int], seed: int = 0) -> None:
    """Test ``windows(size, k, stride, padding)`` on short axes, for every layout."""
    for size in range(1, 8):
        for k in range(1, 6):
            for stride in range(1, 5):
                for padding in range((k + 1) // 2):
                    if size + 2 * padding >= k:
                        _windows(answer, size, k, stride, padding)
    rng = random.Random(seed)
    for _ in range(10):
        k = rng.randint(1, 9)
        size, padding = rng.randint(9, 60), rng.randrange((k + 1) // 2)
        _windows(answer, size, k, rng.randint(1, 9), padding)


def _at_fit(
    answer: Callable[..., float],
    fits: Sequence[float],
    distances: Sequence[float],
    level: float,
    right: float,
) -> None:
    found = answer(list(fits), list(distances), level)
    if math.isnan(right):
        assert math.isnan(found), (
            f"For the fits {fits} and level {level} there is no distance: NaN."
        )
    else:
        assert math.isclose(found, right, rel_tol=1e-9), (
            f"For the fits {fits}, distances {distances} and level {level} it is"
            f" {found:.4g} and should be {right:.4g}."
        )


def at_fit(answer: Callable[..., float]) -> None:
    """Test ``at_fit(fits, distances, level)`` between two epochs and at one."""
    _at_fit(answer, (0.2, 0.4, 0.8), (8.0, 4.0, 1.0), 0.6, 2.0)
    _at_fit(answer, (0.2, 0.4, 0.8), (8.0, 4.0, 1.0), 0.4, 4.0)
    _at_fit(answer, (0.2, 0.4, 0.8), (8.0, 4.0, 1.0), 0.9, math.nan)


def at_fit_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``at_fit(fits, distances, level)`` where the fit falls, and at the ends."""
    _at_fit(answer, (0.2, 0.6, 0.4, 0.8), (9.0, 4.0, 7.0, 2.0), 0.4, 6.0)
    _at_fit(answer, (0.5, 0.3, 0.7), (3.0, 5.0, 1.0), 0.4, math.nan)
    _at_fit(answer, (0.5, 0.3, 0.7), (3.0, 5.0, 1.0), 0.5, 3.0)
    _at_fit(answer, (0.5, 0.3, 0.7), (3.0, 5.0, 1.0), 0.7, 1.0)
    rng = random.Random(seed)
    for _ in range(10):
        low, level, high = sorted(rng.uniform(0.1, 0.9) for _ in range(3))
        far, near = rng.uniform(2, 9), rng.uniform(0.5, 2)
        right = far * (near / far) ** ((level - low) / (high - low))
        # Later the fit falls below the level, and passes it again.
        fits, distances = (low / 2, low, high, low, high), (9.0, far, near, 5.0, 0.1)
        _at_fit(answer, fits, distances, level, right)
