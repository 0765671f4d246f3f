"""Chapter 15: mutations of its theorems, wrong answers, its code from scratch."""

import math

import pytest
import torch

from crlib import metrics
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The excess over the k-th entry, not over the next one.
    Mutation(
        "prop-unasked-hill",
        "setup",
        "(s[:k] - s[k]).mean()",
        "(s[:k] - s[k - 1]).mean()",
    ),
    # The gaps without their ranks.
    Mutation(
        "prop-unasked-hill", "setup", "torch.arange(1, k + 1) * (", "torch.ones(k) * ("
    ),
    # The bias forgotten.
    Mutation(
        "prop-unasked-hill",
        "check",
        "found.mean() - k * alpha / (k - 1)",
        "found.mean() - alpha",
    ),
    # The mean in place of the mean square.
    Mutation(
        "prop-unasked-limit",
        "setup",
        "share ** (1 - 2 / alpha)",
        "share ** (1 - 1 / alpha)",
    ),
    # Groups counted alike whatever their size.
    Mutation("prop-unasked-parts", "check", "len(c) / 60 *", "1 / groups *"),
    # Centred by the mean of all in place of that of the group.
    Mutation(
        "prop-unasked-parts",
        "setup",
        "pair - centre, centre",
        "pair - pair.mean(), centre",
    ),
]

WRONG = {
    # The mean in place of the mean square: the exponent of a sum of entries.
    "ex-unasked-limit": """
def limit(alpha, share):
    if alpha <= 2:
        return 0.0
    return math.sqrt(1 - share ** (1 - 1 / alpha))
""",
    # The normal law in place of the Gamma law.
    "ex-unasked-interval": """
def tail_interval(v, k, level):
    reach = stats.norm.ppf((1 + level) / 2) / math.sqrt(k)
    return hill(v, k) * (1 - reach), hill(v, k) * (1 + reach)
""",
    # Each group counted alike, whatever its size.
    "ex-unasked-split": """
def parts(a, b, groups):
    own = [groups == g for g in np.unique(groups)]
    within = np.mean([np.cov(a[o], b[o], bias=True)[0, 1] for o in own])
    means = [[v[o].mean() for o in own] for v in (a, b)]
    return float(within), float(np.cov(*means, bias=True)[0, 1])
""",
}


@pytest.mark.parametrize("k", [1, 7, 49])
def test_the_tail_index_of_hill(k: int) -> None:
    (hill,) = defined("ch15", "hill")
    g = torch.Generator().manual_seed(3)
    for _ in range(10):
        v = torch.randn(50, generator=g) ** 3
        assert math.isclose(hill(v, k), metrics.hill_estimator(v, k), rel_tol=1e-12)
