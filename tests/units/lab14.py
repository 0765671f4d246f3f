"""Lab 14: mutations of its theorem, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab14 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The eigenvalues of the matrix itself.
    Mutation(
        "thm-lab14-flow",
        "setup",
        "float(torch.linalg.eigvalsh((j + j.T) / 2)[-1])",
        "float(torch.linalg.eigvals(j).real.max())",
    ),
    # The symmetric part without its half.
    Mutation("thm-lab14-flow", "setup", "(j + j.T) / 2", "(j + j.T)"),
    # A whole step at a time.
    Mutation("thm-lab14-flow", "setup", "2)) / n) ** n", "2)) / n)"),
    # The stretch of one step only.
    Mutation("thm-lab14-flow", "setup", "** (n / 2)", "** 0.5"),
]

WRONG = {
    # The eigenvalues of the matrix itself.
    "ex-lab14-growth": """
def growth(j, time):
    return math.exp(time * float(torch.linalg.eigvals(j).real.max()))
""",
}


def test_its_logarithmic_norm_is_that_of_the_study() -> None:
    (log_norm,) = defined("lab14", "log_norm")
    g = torch.Generator().manual_seed(2)
    j = torch.randn(5, 4, 4, generator=g, dtype=torch.float64)
    told = torch.tensor([log_norm(one) for one in j], dtype=torch.float64)
    assert torch.allclose(study.log_norm(j), told)
