"""Lab 17: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab17 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # A degree of freedom for every coordinate.
    Mutation("thm-lab17-first", "check", "stats.chi2(d - 1)", "stats.chi2(d)"),
    # The part along the input is left in.
    Mutation(
        "thm-lab17-first", "setup", "v - torch.outer(v @ x, x) / (x @ x)", "v.clone()"
    ),
    # A distance without the part of the gradient along the input.
    Mutation("thm-lab17-first", "setup", "(f**2 + size**2", "(size**2"),
    # The rank in place of the dimension.
    Mutation("thm-lab17-rank", "check", "(d - 1) / 2", "max(k - 1, 1) / 2"),
    # One matrix for all, that nobody turned.
    Mutation(
        "thm-lab17-rank",
        "setup",
        "torch.linalg.qr(draw).Q",
        "torch.linalg.qr(draw[:1]).Q",
    ),
]

WRONG = {
    # The layer sees k directions, so k coordinates count.
    "ex-lab17-median": """
def median_radius(d, k, size):
    return size * math.sqrt(stats.beta(0.5, (k - 0.99) / 2).median())
""",
}


def test_its_radius_is_that_of_the_study() -> None:
    (radius,) = defined("lab17", "radius")
    g = torch.Generator().manual_seed(3)
    for _ in range(20):
        weights = study.network(12, g)
        x = torch.rand(12, generator=g, dtype=torch.float64)
        f, slope = study.linearised(weights, x)
        size, across = x.norm(), slope - x * (x @ slope) / (x @ x)
        mine = radius(f, size, across.square().sum())
        found = study.radii(weights, x)["l2"]
        assert abs(float(mine) / float(size) / found - 1) < 1e-9
