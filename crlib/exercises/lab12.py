"""Tests of the exercise of lab 12, The mathematics of adversarial attacks."""

import math
import random
from collections.abc import Callable

import torch

__all__ = ["certainly_flipped", "certainly_flipped_hidden"]

Answer = Callable[[int, list[int]], int]


def _is(answer: Answer, s: int, widths: list[int], right: int) -> None:
    found = answer(s, list(widths))
    assert found == right, (
        f"With s = {s} and widths {widths} at least {right} points are flipped, and you"
        f" say {found}."
    )


def certainly_flipped(answer: Answer) -> None:
    """Test ``certainly_flipped(s, widths)`` on one hidden layer."""
    _is(answer, 8, [4], 6)
    _is(answer, 8, [1], 7)
    _is(answer, 8, [16], 0)


def certainly_flipped_hidden(answer: Answer, seed: int = 0) -> None:
    """Test it on deep networks, and against tents that are folded."""
    _is(answer, 20, [3, 3], 12)
    _is(answer, 3, [40, 40], 0)
    rng = random.Random(seed)
    for _ in range(10):
        widths = [rng.randint(1, 6) for _ in range(rng.randint(1, 4))]
        pieces = math.prod(h + 1 for h in widths)
        s = rng.randint(1, pieces)
        _is(answer, s, widths, max(0, s - pieces // 2))
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    v = t
    for depth in (1, 2, 3):
        v = 2 * v.relu() - 4 * (v - 0.5).relu()  # Two neurons fold the interval.
        one = v > 0.5
        peaks = int((one[1:] & ~one[:-1]).sum())
        assert answer(30, [2] * depth) <= 30 - peaks, (
            f"A network of {depth} hidden layers of width two can say one on {peaks}"
            " pieces of a line: that many points may survive."
        )
