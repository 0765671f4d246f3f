"""Tests of the exercises of chapter 9, feature compression and dimension."""

import itertools
import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from crlib import theory
from crlib.exercises import gaussian

__all__ = [
    "bias_radii",
    "bias_radii_hidden",
    "most_classes",
    "most_classes_hidden",
    "three_points",
    "three_points_hidden",
    "worst_corner",
    "worst_corner_hidden",
]


def most_classes(answer: Callable[[int, float], int]) -> None:
    """Three cases by hand."""
    for d, ratio, wanted in ((64, 0.5, 49), (100, 0.1, 100), (8, 1.0, 1)):
        n = answer(d, ratio)
        assert n == wanted, (
            f"In {d} dimensions a ratio of {ratio} allows {wanted} classes, not {n}:"
            " the mean of the squared cosine is (d - n + 1) / d."
        )


def most_classes_hidden(answer: Callable[[int, float], int], seed: int = 0) -> None:
    """Every n of several dimensions, against the definition."""
    rng = random.Random(seed)
    ratios = (0.01, 0.3, 0.75, 0.9, rng.uniform(0.05, 1), rng.uniform(0.05, 1))
    for d, ratio in itertools.product((1, 5, 33, 256, rng.randint(2, 99)), ratios):
        allowed = [n for n in range(1, d + 1) if (d - n + 1) / d >= ratio**2]
        assert answer(d, ratio) == max(allowed), f"Wrong for d = {d}, ratio {ratio}."


def bias_radii(answer: Callable[[Tensor], Tensor]) -> None:
    """Two points on a line, and a triangle in the plane."""
    line = answer(torch.tensor([[0.0, 4.0]]))
    assert line.shape == (2, 2), f"Two points have a 2 x 2 result, not {line.shape}."
    assert math.isclose(float(line[0, 1]), 2, rel_tol=1e-5), (
        f"Points at 0 and 4 have their boundary at 2; you returned {line[0, 1]:.4g}."
    )
    corners = answer(torch.tensor([[-1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))
    for i, j, wanted in ((0, 1, 1.0), (0, 2, 4 / 13**0.5), (2, 1, 4 / 13**0.5)):
        found = float(corners[i, j])
        assert math.isclose(found, wanted, rel_tol=1e-4), (
            f"In the triangle (-1, 0), (1, 0), (0, 2) the distance of corner {i} to its"
            f" boundary with corner {j} is {wanted:.4g}, not {found:.4g}."
        )


def bias_radii_hidden(answer: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    """Random points, against a projection, and moved far away."""
    for d, n in ((6, 3), (6, 6), (6, 7)):
        x = gaussian(d, n, seed=seed + n)
        found = answer(x)
        for i, j in itertools.permutations(range(n), 2):
            middle = (x[:, i] + x[:, j]) / 2
            others = [k for k in range(n) if k not in (i, j)]
            across = x[:, i] - x[:, j]
            if others:
                q, _ = torch.linalg.qr(x[:, others] - middle[:, None])
                across = across - q @ (q.T @ across)
            wanted = float(across.norm()) / 2
            assert math.isclose(float(found[i, j]), wanted, rel_tol=1e-6), (
                f"With {n} points in {d} dimensions a distance is {wanted:.5g}, and you"
                f" returned {float(found[i, j]):.5g}."
            )
        # No farther: rounding would pass for a rank.
        moved = answer(x + 1)
        off = ~torch.eye(n, dtype=torch.bool)
        assert torch.allclose(moved[off], found[off]), (
            "A free bias makes the distances independent of the origin."
        )


def worst_corner(answer: Callable[[Tensor, Tensor], float]) -> None:
    """A matrix whose corners can be listed by hand."""
    a = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    for w, wanted in (([0.0, 1.0], 3.0), ([3.0, 4.0], 1.8), ([4.0, 1.0], -0.2425356)):
        found = float(answer(torch.tensor(w), a))
        assert math.isclose(found, wanted, rel_tol=1e-4), (
            f"With A = diag(1, 3) and w = {w} the corners with last sign 1 are (1, 3)"
            f" and (-1, 3): the smaller distance is {wanted:.4g}, not {found:.4g}."
        )


def worst_corner_hidden(
    answer: Callable[[Tensor, Tensor], float], seed: int = 0
) -> None:
    """All corners of small cubes, and a large one against the hull."""
    for i in range(seed, seed + 10):
        a, w = gaussian(6, 6, seed=i), gaussian(6, seed=100 + i)
        z = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=5))).double()
        z = torch.cat([z, torch.ones(32, 1).double()], 1)
        wanted = float((z @ a.T @ w).min() / w.norm())
        found = float(answer(w, a))
        assert math.isclose(found, wanted, rel_tol=1e-6), (
            f"Enumeration of a random cube gives {wanted:.5g}, and you {found:.5g}."
        )
    a = gaussian(30, 30, seed=seed + 1)
    readout = torch.linalg.inv(a)[-1]
    found, truth = float(answer(readout, a)), theory.sign_cube_radii(a).readout
    assert math.isclose(found, truth, rel_tol=1e-5), (
        "The exact readout has the same distance at every corner."
    )


def three_points(answer: Callable[[float], Tensor]) -> None:
    """One ratio: shape, distance of the two points, and what interpolation keeps."""
    _test_points(answer, 0.25)


def three_points_hidden(answer: Callable[[float], Tensor], seed: int = 0) -> None:
    """Tiny ratios, others, and no compression at all."""
    rng = random.Random(seed)
    for c in (0.001, 0.6, 0.9, 1.0, rng.uniform(0.02, 0.98), rng.uniform(0.02, 0.98)):
        _test_points(answer, c)


def _test_points(answer: Callable[[float], Tensor], c: float) -> None:
    x = answer(c)
    assert x.shape == (3, 3), f"Return a matrix (3, 3), not {tuple(x.shape)}."
    r = theory.interpolation_radii(x)
    half = float(r.neighbour[0, 1])
    assert math.isclose(half, 1, rel_tol=1e-4), (
        f"The first two points are {2 * half:.4g} apart, and 2 was asked for."
    )
    found = float(r.radius[0, 1])
    assert math.isclose(found, c, rel_tol=1e-3), (
        f"For c = {c} the distance to the boundary is {found:.4g}."
    )
