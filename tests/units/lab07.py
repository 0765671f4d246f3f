"""Lab 7: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab07 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Noise that dies too slowly.
    Mutation("thm-lab07-average", "check", "own / k +", "own / k**0.5 +"),
    # The squared norm of the full average for what is shared.
    Mutation("thm-lab07-average", "setup", "- m * own) / (m * (m - 1))", ") / m**2"),
    # Power for amplitude.
    Mutation("cor-lab07-cosine", "check", "- 1) / k).sqrt()", "- 1) / k)"),
    # The root of the mean dropped.
    Mutation("cor-lab07-cosine", "setup", ".sum(1).mean().sqrt()", ".sum(1).mean()"),
]

WRONG = {
    # The full average still holds V / M.
    "ex-lab07-mean-norm": """
def mean_norm(deltas, k):
    own = deltas.square().sum(1).mean()
    both = deltas.mean(0).square().sum()
    return float(own / k + (1 - 1 / k) * both)
""",
}


def test_what_is_shared_is_the_study_s_cosine() -> None:
    (own_and_shared,) = defined("lab07", "own_and_shared")
    g = torch.Generator().manual_seed(0)
    deltas = torch.randn(4, 3, 9, generator=g, dtype=torch.float64)
    deltas /= deltas.norm(dim=2, keepdim=True)
    each = [own_and_shared(deltas[:, i]) for i in range(3)]
    assert all(torch.allclose(own, torch.ones(()).double()) for own, _ in each)
    mean = float(torch.stack([both for _, both in each]).mean())
    assert abs(study.pair_cosine(deltas) - mean) < 1e-12
