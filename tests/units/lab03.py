"""Lab 3: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab03 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The relation without its boundary.
    Mutation("thm-lab03-corrected", "check", ">= 0.5 * abs(1 - edge)", ">= 0.5"),
    # The sign at the left end.
    Mutation("thm-lab03-corrected", "setup", "+ (mean - t[0])", "- (mean - t[0])"),
    # A variance for a standard deviation.
    Mutation("prop-lab03-ramp", "setup", "* psi**2, t).sqrt()", "* psi**2, t)"),
    Mutation("prop-lab03-ramp", "check", "9 / 80", "3 / 80"),
]

WRONG = {
    # The sign at the left end.
    "ex-lab03-bound": """
def corrected_bound(psi, t):
    weight = psi**2 / torch.trapezoid(psi**2, t)
    mean = torch.trapezoid(t * weight, t)
    edge = (t[-1] - mean) * weight[-1] - (mean - t[0]) * weight[0]
    return 0.5 * float((1 - edge).abs())
""",
}


def test_its_uncertainties_are_those_of_the_study() -> None:
    (spread,) = defined("lab03", "spread")
    g = torch.Generator().manual_seed(0)
    t = torch.rand(50, generator=g, dtype=torch.float64).cumsum(0)
    psi = torch.rand(3, 50, generator=g, dtype=torch.float64)
    theirs = torch.stack(study.spreads(psi, t), 1)
    ours = torch.tensor([spread(row, t) for row in psi], dtype=torch.float64)
    assert torch.allclose(ours, theirs, rtol=1e-12)
