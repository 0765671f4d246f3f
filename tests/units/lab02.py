"""Lab 2: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab02 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The latest candidate for the earliest.
    Mutation("prop-lab02-time", "setup", "return min(", "return max("),
    # A threshold of zero.
    Mutation(
        "prop-lab02-time", "crlib.studies.lab02.spike_times", "(1 + (w", "(0 + (w"
    ),
    # Weights of any sign.
    Mutation("thm-lab02-times", "check", "size=3).exp()", "size=3).sinh()"),
    # A mean that is none: shifts no longer pass.
    Mutation(
        "thm-lab02-times",
        "crlib.studies.lab02.spike_times",
        "mass = w.cumsum(1)",
        "mass = 1 + w.cumsum(1)",
    ),
    # The dual norm made primal.
    Mutation("cor-lab02-certificate", "setup", "c.abs().sum()", "c.abs().max()"),
    Mutation("cor-lab02-certificate", "setup", '{"linf": 1,', '{"linf": torch.inf,'),
]

WRONG = {
    # Late inputs have not arrived.
    "ex-lab02-spike-time": """
def spike_time(w, t):
    return (1 + (w * t).sum()) / w.sum()
""",
}


def test_subsets_and_sorting_agree() -> None:
    (by_subsets,) = defined("lab02", "by_subsets")
    g = torch.Generator().manual_seed(3)
    for _ in range(20):
        w = torch.rand(5, generator=g, dtype=torch.float64) + 0.01
        t = torch.rand(5, generator=g, dtype=torch.float64)
        assert torch.allclose(study.spike_times(w[None], t[None]), by_subsets(w, t))
