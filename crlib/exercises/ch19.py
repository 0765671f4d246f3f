"""Tests for the exercises of chapter 19, Universal perturbations."""

import math
import random
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from crlib import theory
from crlib.exercises import close

__all__ = [
    "crosses",
    "crosses_hidden",
    "length_for",
    "length_for_hidden",
    "smallest_shift",
    "smallest_shift_hidden",
    "swallowed",
    "swallowed_hidden",
    "without_data",
    "without_data_hidden",
]


def crosses(answer: Callable[..., float]) -> None:
    """Test ``crosses(d, p, rho, r)`` where the law is elementary."""
    close(answer(0.5, 1.0, 2.0, 3), 0.75, "In three dimensions, at d = rho / 4, it")
    close(answer(0.5, 0.5, 2.0, 3), 0.5, "With half of the normal in the space, it")
    close(answer(1.0, 1.0, 2.0, 2), 2 / 3, "On a circle, at d = rho / 2, it")
    close(answer(3.0, 1.0, 2.0, 5), 0.0, "Out of reach, it")


def crosses_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``crosses`` in one dimension, with no share, and in many dimensions."""
    close(answer(1.0, 0.5, 3.0, 1), 1.0, "In one dimension and within reach, it")
    close(answer(2.0, 0.5, 3.0, 1), 0.0, "In one dimension and out of reach, it")
    close(answer(0.1, 0.0, 3.0, 4), 0.0, "Without a share, it")
    rng = random.Random(seed)
    for r in (2, 7, 64, 784):
        d = torch.tensor([0.37], dtype=torch.float64)
        right = float(theory.universal_law(d, 0.8, 2.0, r))
        close(answer(0.37, 0.8, 2.0, r), right, f"In {r} dimensions it")
        # Of the size of a coordinate, where the law is neither zero nor one.
        p, d = rng.random(), torch.tensor([2 * rng.random() / r**0.5]).double()
        right = float(theory.universal_law(d, p, 2.0, r))
        close(answer(float(d), p, 2.0, r), right, f"In {r} dimensions it")


def _length(answer: Callable[..., float], rate: float, d: Tensor, r: int) -> None:
    p = torch.linspace(0.5, 1, len(d), dtype=torch.float64)
    found = answer(rate, d, p, r)
    assert isinstance(found, float | int | Tensor) and float(found) > 0, (
        "It is a positive number."
    )
    share = float(theory.universal_law(d, p, float(found), r).mean())
    assert math.isclose(share, rate, abs_tol=1e-5), (
        f"At your length the expected share is {share:.4f} and should be {rate:.4f}."
    )


def length_for(answer: Callable[..., float]) -> None:
    """Test ``length_for(rate, d, p, r)`` for one input and for three."""
    _length(answer, 0.4, torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64), 5)
    one = torch.ones(1, dtype=torch.float64)
    found = float(answer(0.5, one, one, 16))
    right = 1 / math.sqrt(stats.beta.ppf(0.5, 0.5, 7.5))
    assert math.isclose(found, right, rel_tol=1e-5), (
        f"For one input the length is {found:.5f} and should be {right:.5f}."
    )


def length_for_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``length_for`` at several rates, dimensions and scales."""
    g = torch.Generator().manual_seed(seed)
    for rate, r, scale in ((0.05, 2, 1.0), (0.9, 64, 1e-3), (0.5, 300, 50.0)):
        d = scale * (0.05 + torch.rand(20, generator=g, dtype=torch.float64))
        _length(answer, rate, d, r)


def smallest_shift(answer: Callable[..., float]) -> None:
    """Test ``smallest_shift(scores, share)`` on a few scores."""
    scores = torch.tensor([0.1, 0.4, 2.0, -0.3, -1.0], dtype=torch.float64)
    close(answer(scores, 0.2), 0.1, "For one of five, it")
    close(answer(scores, 0.4), 0.4, "For two of five, it")
    found = answer(scores, 1.0)
    assert found == math.inf, "No shift moves both classes at once: it is infinite."


def smallest_shift_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Test ``smallest_shift`` where the other class is nearer, and at the ends."""
    scores = torch.tensor([5.0, 6, 7, -0.5, -0.2, -0.1], dtype=torch.float64)
    close(answer(scores, 0.5), 0.5, "Where the second class is nearer, it")
    close(answer(scores, 0.34), 0.5, "Three of six are at least 34 percent: it")
    close(answer(scores, 0.0), 0.0, "For nobody, it")
    assert answer(-scores.abs(), 1.0) == 7, "With one class, it reaches the farthest."
    g = torch.Generator().manual_seed(seed)
    for n in (5, 20, 60):
        scores = torch.randn(n, generator=g, dtype=torch.float64)
        for j in (1, n // 3, n // 2, n - 1):
            ways = [scores[scores > 0], -scores[scores <= 0]]
            reach = [float(v.sort().values[j - 1]) for v in ways if len(v) >= j]
            # Half an input short of j: nobody depends on how shares are rounded.
            found, right = (
                float(answer(scores, (j - 0.5) / n)),
                min(reach, default=math.inf),
            )
            assert math.isclose(found, right, rel_tol=1e-9), (
                f"To move {j} of {n} random scores it is {right:.5f}, not {found:.5f}."
            )


def _moves(answer: Callable[..., Tensor], w: Tensor, eps: float, norm: str) -> None:
    found = answer(w, eps, norm)
    assert isinstance(found, Tensor) and found.shape == w[0].shape, (
        f"It is a tensor of shape ({w.shape[1]},)."
    )
    p, dual = (2, 2) if norm == "l2" else (math.inf, 1)
    size = float(found.double().norm(p=p))
    assert size <= eps * (1 + 1e-5), (
        f"Its {norm} norm is {size:.4f}: it leaves the ball of radius {eps}."
    )
    v = torch.linalg.svd(w, full_matrices=False).Vh[0]
    moved, most = abs(float(v @ found.double())), eps * float(v.norm(p=dual))
    assert math.isclose(moved, most, rel_tol=1e-5), (
        f"In {norm} its product with the strongest direction is {moved:.4f} and can be"
        f" {most:.4f}."
    )


def without_data(answer: Callable[..., Tensor]) -> None:
    """Test ``without_data(w, eps, norm)`` on a layer of two rows."""
    w = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    _moves(answer, w, 2.0, "l2")
    _moves(answer, w, 0.1, "linf")


def without_data_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Test ``without_data`` on layers of several shapes, one of rank one."""
    g = torch.Generator().manual_seed(seed)
    for h, m, r in ((4, 9, 1), (3, 20, 3), (12, 5, 5)):
        # No two singular values are near each other: the strongest is well defined.
        left, right = (
            torch.linalg.qr(torch.randn(n, r, generator=g, dtype=torch.float64)).Q
            for n in (h, m)
        )
        w = left * torch.linspace(3, 1, r, dtype=torch.float64) @ right.T
        for norm in ("l2", "linf"):
            _moves(answer, w, 0.3, norm)


def _swallowed(answer: Callable[..., object], scores: Tensor, push: Tensor) -> None:
    found = answer(scores, push)
    assert isinstance(found, tuple | list) and len(found) == 2, "It is a pair."
    label = int(push.argmax())
    assert int(found[0]) == label, (
        f"For the push {push.tolist()} the label is {label}, not {int(found[0])}."
    )
    least = 0.0
    for own in scores.tolist():
        for j, gained in enumerate((push[label] - push).tolist()):
            if j != label:
                least = max(least, (own[j] - own[label]) / gained)
    close(found[1], least, "The factor")


def swallowed(answer: Callable[..., object]) -> None:
    """Test ``swallowed(scores, push)`` with a rival in between, and with none."""
    push = torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64)
    one = torch.tensor([[2.0, -9.0, 1.0]], dtype=torch.float64)
    _swallowed(answer, one, push)
    between = torch.tensor([[4.0, 3.5, 0.0]], dtype=torch.float64)
    _swallowed(answer, between, push)
    _swallowed(answer, torch.eye(3, dtype=torch.float64)[2:], push)


def swallowed_hidden(answer: Callable[..., object], seed: int = 0) -> None:
    """Test ``swallowed`` on random scores of two to nine classes."""
    g = torch.Generator().manual_seed(seed)
    for n, k, scale in ((1, 2, 1.0), (30, 2, 0.1), (40, 5, 3.0), (100, 9, 1.0)):
        # Pushes a step apart, in random order: their largest is unique.
        push = torch.randperm(k, generator=g).double() - k / 3
        scores = scale * torch.randn(n, k, generator=g, dtype=torch.float64)
        _swallowed(answer, scores, push)
