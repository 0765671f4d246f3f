"""Lab 10: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab10 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The second moment of the mask for its variance.
    Mutation(
        "prop-lab10-variance",
        "crlib.studies.lab10.split",
        "spread = lam *",
        "spread = (1 + lam) *",
    ),
    # Norms for squared norms.
    Mutation(
        "prop-lab10-variance",
        "crlib.studies.lab10.split",
        "a.square().sum(0)",
        "a.abs().sum(0)",
    ),
    # The square of the number of copies; a mean that is not kept.
    Mutation("prop-lab10-copies", "check", "spread / t]", "spread / t**2]"),
    Mutation("prop-lab10-copies", "setup", "a.repeat(1, t) / t", "a.repeat(1, t)"),
    # Activations of any length in the ridge regression.
    Mutation(
        "thm-lab10-head",
        "crlib.studies.lab10.best_head",
        "unit = z / size.clamp_min(1e-300)",
        "unit = z",
    ),
    # The square dropped.
    Mutation("thm-lab10-head", "setup", "lam * g / (lam + g) ** 2", "lam * g"),
    Mutation("thm-lab10-head", "setup", "c * lam**2 /", "c * lam /"),
    # The width dropped.
    Mutation("thm-lab10-nuclear", "setup", '"nuc") ** 2 / h', '"nuc") ** 2'),
    # The threshold from all singular values.
    Mutation("thm-lab10-nuclear", "setup", "lam * s[:k].sum()", "lam * s.sum()"),
    # Balanced factors whose columns are not equally long.
    Mutation("thm-lab10-nuclear", "setup", "range(h - 1)", "range(0)"),
]

WRONG = {
    # The threshold from all singular values.
    "ex-lab10-variance": """
def dropout_variance(s, lam, h):
    tau = lam * s.sum() / (h + lam * len(s))
    return lam / h * (s - tau).clamp(min=0).sum() ** 2
""",
}


def test_trying_all_masks_is_the_formula_of_the_study() -> None:
    (all_masks,) = defined("lab10", "all_masks")
    g = torch.Generator().manual_seed(4)
    z, a, y = (torch.randn(*s, generator=g).double() for s in ((5, 4), (3, 4), (5, 3)))
    bias, spread = study.split(z, a, y, lam=0.25)
    found = all_masks(z, a, y, 0.2)
    assert torch.allclose(torch.stack(found[:2]), torch.tensor([bias, spread]).double())
