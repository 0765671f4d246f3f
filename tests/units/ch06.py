"""Chapter 6: mutations of its theorems, wrong answers, its code from scratch."""

import math

import pytest
import torch

from crlib import metrics, theory
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The number of dominant directions for the number of all.
    Mutation(
        "thm-structure",
        "crlib.theory.structure_times_scale",
        "math.sqrt(min(h, m))",
        "math.sqrt(k)",
    ),
    # The error at q = 2.
    Mutation(
        "prop-exact-when-flat",
        "crlib.theory.structure_times_scale",
        "best_k_error(v, k, q=1)",
        "best_k_error(v, k, q=2)",
    ),
    # The trivial bound of linf without the root of m.
    Mutation(
        "prop-vacuous",
        "crlib.theory.structure_times_scale",
        "trivial = math.sqrt(m)",
        "trivial = 1.0",
    ),
    # A tail as heavy as its largest value allows, where the least is meant.
    Mutation("thm-sharp", "crlib.theory.layers._sharp", "(1 - 2 / q)", "0"),
    # The head filled without a look at what the tail can hold.
    Mutation(
        "thm-sharp",
        "crlib.theory.layers._longest",
        "min(k - 1 + last, room)",
        "k - 1 + last",
    ),
    # A head with a value too short.
    Mutation("thm-sharp", "setup", "extra - (1 - least)", "extra - least"),
    # The error in place of its power.
    Mutation("cor-floor", "crlib.theory.spectral_floor", "1 - eps**q", "1 - eps"),
    # The mean of all values for that of the head.
    Mutation("prop-slack", "setup", "(s[:k] / s[k - 1])", "(s / s[k - 1])"),
    # A root dropped.
    Mutation(
        "prop-within", "crlib.theory.flatness_bounds", "(1 - eps) ** 2 /", "(1 - eps) /"
    ),
]

WRONG = {
    # The error at q = 2.
    "ex-published": """
def published_bound(s, k):
    if s[k - 1] == 0:
        return math.inf
    head = 1 - float(s[k:].norm() / s.norm())
    return float(head * s[0] / s[k - 1] * math.sqrt(len(s)) / k * s.norm())
""",
    # The first k beyond the tie, and no end at d.
    "ex-useful": """
def first_useful(d, eps, beta):
    if beta == 1:
        return None
    return math.floor((1 - eps) * math.sqrt(d) / (1 - beta)) + 1
""",
    # Shares of the variance in place of the covariance.
    "ex-shares": """
def shares(factors, gaps):
    parts = factors.log().var(0)
    return parts / parts.sum()
""",
    # Rescaled at the end, which moves the norm that was to be hit.
    "ex-any-norm": """
def layer_with(t, h, m):
    w = torch.zeros(h, m, dtype=torch.float64)
    if t <= 1:
        w[:, 0] = math.sqrt(max(1 - t**2, 0) / h)
        w[0, 0] = t
    else:
        w[0] = t / m
    return w / w.norm()
""",
}


def test_published_and_sharp_spectral_bounds() -> None:
    published, sharp, slack = defined("ch06", "published", "sharp", "slack")
    g = torch.Generator().manual_seed(3)
    for q in (0.5, 1, 2):
        w = torch.randn(9, 12, generator=g, dtype=torch.float64)
        s = metrics.singular_values(w)
        for k in range(1, 9):
            theirs = theory.structure_times_scale(w, k, norm="l2")
            bound = published(k, 9, theirs.eps, theirs.beta) * float(s.norm())
            assert math.isclose(bound, theirs.bound)
            assert math.isclose(math.prod(slack(s, k)) * theirs.value, theirs.bound)
            eps, beta = metrics.best_k_error(s, k, q=q), metrics.spread(s, k)
            ours = sharp(k, 9, eps, beta, q)
            right = theory.sharp_spectral_interval(k, d=9, eps=eps, beta=beta, q=q)
            assert ours == pytest.approx(right, rel=1e-9)
