"""Lab 11: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab11 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Forgets the true entries that come back from below.
    Mutation(
        "thm-lab11-worst", "crlib.studies.lab11.truncated", "(t - k, dim", "(t, dim"
    ),
    # Forgets the largest entries that are set.
    Mutation(
        "thm-lab11-worst", "crlib.studies.lab11.truncated", "(t + k, dim", "(t, dim"
    ),
    # One change more than is left out does no harm.
    Mutation("thm-lab11-worst", "crlib.studies.lab11.truncated", "-math.inf", "0.0"),
    # All of what is above the other class, and not half of it.
    Mutation("thm-lab11-alike", "setup", "0.5 * (1 - (-2", "1.0 * (1 - (-2"),
    Mutation("thm-lab11-alike", "setup", "0.5 * (2 *", "1.0 * (2 *"),
    Mutation(
        "thm-lab11-alike",
        "crlib.studies.lab11.alike",
        "chance = 0.5 *",
        "chance = 1.0 *",
    ),
    # Nobody is right more often than by chance, however few the changes.
    Mutation("thm-lab11-alike", "check", "0.5 + (count > s).double().mean()", "0.5"),
    # The flatness without its root of two pi.
    Mutation("thm-lab11-alike", "check", "/ math.sqrt(2 * math.pi)", "/ math.pi"),
]

WRONG = {
    # Forgets the true entries that come back from below.
    "ex-lab11-worst": """
def worst_trimmed(u, t, s):
    return u.sort().values[t : len(u) - t - s].sum()
""",
}


def test_truncated_sums_are_those_of_the_study() -> None:
    (kept_sum,) = defined("lab11", "kept_sum")
    g = torch.Generator().manual_seed(1)
    u = torch.randn(30, 11, generator=g, dtype=torch.float64)
    for t in range(6):
        assert torch.allclose(kept_sum(u, t), study.truncated(u, t))
