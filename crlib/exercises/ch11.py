"""Tests of the exercises of chapter 11."""

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch

from crlib import theory

__all__ = [
    "rank_needed",
    "rank_needed_hidden",
    "score",
    "score_hidden",
    "verdict",
    "verdict_hidden",
]


def score(answer: Callable[..., float]) -> None:
    """Four inputs of the plane, one of them wrong already."""
    w, star = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0])
    moves = torch.tensor([[0.3, 0.2], [0.1, 0.4], [-0.1, -0.1], [0.4, -0.3]])
    for eps, wanted in ((0.0, 0.75), (0.15, 0.5), (0.25, 0.25), (0.5, 0.0)):
        found = float(answer(w, star, 0.5 + moves, eps))
        assert math.isclose(found, wanted), (
            "The student sees the second coordinate alone: its distances are 0.2, 0.4"
            " and 0.1, and the last input is wrong already. At a budget of"
            f" {eps} the score is {wanted}, not {found:.3g}."
        )


def score_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Random students against the library."""
    g = torch.Generator().manual_seed(seed)
    for eps in (0.0, 0.05, 0.2):
        w, star = torch.randn(2, 12, generator=g, dtype=torch.float64)
        x = 0.5 + 0.1 * torch.randn(300, 12, generator=g, dtype=torch.float64)
        two = torch.stack([-w, w])
        label = ((x - 0.5) @ star > 0).long()
        truth, _ = theory.linear_minimal(
            two, -two.sum(1) / 2, x, label, norm="l2", box=False
        )
        wanted = float((truth > eps).double().mean())
        found = float(answer(w, star, x, eps))
        assert math.isclose(found, wanted, abs_tol=1e-9), (
            f"A random student scores {wanted:.3f} at a budget of {eps}, not"
            f" {found:.3f}."
        )


def rank_needed(answer: Callable[[float, int], int]) -> None:
    """An angle of forty-five degrees keeps half of the directions."""
    for accuracy, d, wanted in ((0.75, 100, 50), (1.0, 100, 100), (2 / 3, 100, 25)):
        found = answer(accuracy, d)
        assert found == wanted, (
            f"An accuracy of {accuracy:.3g} in {d} dimensions needs {wanted}"
            f" directions; you returned {found}."
        )


def rank_needed_hidden(answer: Callable[[float, int], int], seed: int = 0) -> None:
    """The answer suffices, and one direction fewer does not."""
    rng = random.Random(seed)
    for d in (7, 64, 784, rng.randint(8, 500)):
        for accuracy in (0.51, 0.6, 0.8, 0.99, rng.uniform(0.51, 0.99)):
            k = answer(accuracy, d)
            assert k == int(k) and 1 <= k <= d, f"{k} is no rank for d = {d}."

            def reached(k: float, d: int = d) -> float:
                return 1 - math.acos(math.sqrt(k / d)) / math.pi

            assert reached(k) >= accuracy - 1e-9, f"{k} of {d} is too few."
            assert k == 1 or reached(k - 1) < accuracy, f"{k} of {d} is too many."


def verdict(answer: Callable[..., str]) -> None:
    """One case for each of the three answers."""
    plain = [1.0, 1.2, 0.8, 1.1, 0.9]
    cases: Sequence[tuple[list[float], list[float], str]] = (
        ([0.8, 0.9, 0.7, 0.8, 0.7], [1.1, 1.1, 0.9, 1.0, 0.8], "no loss"),
        (
            [0.8, 0.96, 0.64, 0.88, 0.72],
            [0.82, 0.94, 0.66, 0.86, 0.72],
            "not beyond the control",
        ),
        (
            [0.8, 0.96, 0.64, 0.88, 0.72],
            [0.7, 0.85, 0.55, 0.78, 0.63],
            "beyond the control",
        ),
    )
    for control, treated, wanted in cases:
        found = answer(np.array(plain), np.array(control), np.array(treated))
        assert found == wanted, (
            f"For plain {plain}, control {control} and treated {treated} the verdict is"
            f" '{wanted}', not '{found}'."
        )


def verdict_hidden(answer: Callable[..., str], seed: int = 0) -> None:
    """Seeds that scatter more than the effect, and one pair that decides nothing."""
    g = np.random.default_rng(seed)
    plain = g.uniform(0.5, 2.0, 8)
    drop = 0.97 + 0.005 * g.standard_normal(8)
    found = answer(plain, plain, plain * drop)
    assert found == "beyond the control", (
        "Every seed loses three per cent, while seeds differ by a factor of four:"
        " pair the runs before averaging."
    )
    rare = np.ones(8)
    rare[0] = 0.1
    assert answer(plain, plain, plain * rare) == "no loss", (
        "One seed of eight collapsed: the interval includes zero."
    )
    rising = plain * (2 - drop)
    assert answer(plain, 2 * plain, rising) == "no loss", (
        "The treated networks are more robust than the plain ones."
    )
