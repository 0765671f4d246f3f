"""Chapter 5: mutations of its theorems, wrong answers, its code from scratch."""

import math

import pytest
import torch

from crlib import metrics
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The smallest entries kept.
    Mutation(
        "prop-best-k",
        "setup",
        "v.abs().sort(descending=True).values ** q",
        "v.abs().sort(descending=False).values ** q",
    ),
    # The error for the share of the tail.
    Mutation(
        "prop-exponent",
        "check",
        "metrics.best_k_error(v, 3, q=q) ** q for",
        "metrics.best_k_error(v, 3, q=q) for",
    ),
    # The head shared among one instead of k.
    Mutation(
        "lem-sandwich",
        "crlib.theory.top_entry_bounds",
        "low=(head / k) ** (1 / q) * size",
        "low=head ** (1 / q) * size",
    ),
    # The spread for its complement.
    Mutation(
        "lem-sandwich",
        "crlib.theory.top_entry_bounds",
        "(k - 1) * (1 - beta) ** q",
        "(k - 1) * beta**q",
    ),
    # Row norms for singular values.
    Mutation(
        "prop-spectral",
        "crlib.theory.spectral_norm_bounds",
        "top_entry_bounds(singular_values(w), k)",
        "top_entry_bounds(row_norms(w), k)",
    ),
    # The least flat row for the flattest.
    Mutation(
        "prop-neuron",
        "crlib.theory.row_norm_bounds",
        "flatness.max()",
        "flatness.min()",
    ),
    # Roots of the singular values.
    Mutation("thm-eckart-young", "setup", "s[:k]) @", "s[:k].sqrt()) @"),
    # Squared row norms.
    Mutation(
        "prop-rows-spectrum",
        "check",
        "rho, sigma = metrics.row_norms(w), ",
        "rho, sigma = metrics.row_norms(w) ** 2, ",
    ),
    # The root dropped.
    Mutation("prop-renormalise", "check", "(1 - eps**2) ** -0.5", "(1 - eps**2) ** -1"),
    # What goes into the neuron scaled, what goes out not.
    Mutation("prop-gauge", "check", "(v / c.T) @", "v @"),
]

WRONG = {
    # The root of the quotient forgotten.
    "ex-error-curve": """
def error_curve(v, q):
    powers = v.abs().double().sort().values ** q
    tails = torch.cat([powers.new_zeros(1), powers.cumsum(0)]).flip(0)
    return tails / tails[0]
""",
    # The entropy itself.
    "ex-effective-rank": """
def effective_rank(s):
    p = s[s > 0].double() / s.double().sum()
    return float(-(p * p.log()).sum())
""",
    # An error of eps taken as a share of the head instead of the whole.
    "ex-build": """
def build(k, eps, beta, d):
    head = torch.full((k,), 1 - beta, dtype=torch.float64)
    head[0] = 1
    entry = float(head.norm()) * eps / math.sqrt(d - k)
    if entry > 1 - beta:
        raise ValueError("d is too small for this tail")
    return torch.cat([head, torch.full((d - k,), entry, dtype=torch.float64)])
""",
}


@pytest.mark.parametrize("q", [0.5, 1, 2, 3])
def test_best_k_error_and_spread(q: float) -> None:
    best_k_error, spread = defined("ch05", "best_k_error", "spread")
    g = torch.Generator().manual_seed(0)
    for d in (1, 2, 17):
        v = torch.randn(d, generator=g, dtype=torch.float64)
        for k in range(1, d + 1):
            ours = best_k_error(v, k, q)
            assert math.isclose(ours, metrics.best_k_error(v, k, q=q), abs_tol=1e-12)
            assert math.isclose(spread(v, k), metrics.spread(v, k), abs_tol=1e-12)
