"""Lab 18: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab18 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The largest dropped term covers the others, as for a matrix.
    Mutation("thm-lab18-dropped", "setup", "values[k:].sum()", "values[k:].max()"),
    # Squares add up, as for orthogonal terms.
    Mutation("thm-lab18-dropped", "setup", "values[k:].sum()", "values[k:].norm()"),
    # A term too few is dropped.
    Mutation("thm-lab18-dropped", "setup", "values[k:]", "values[k + 1 :]"),
    # Terms that are not of length one.
    Mutation("thm-lab18-dropped", "check", "f / f.norm(dim=0)", "f"),
]

WRONG = {
    # The largest dropped one, as for a singular value decomposition.
    "ex-lab18-dropped": """
def dropped_terms(weights, k):
    rest = weights.abs().sort(descending=True).values[k:]
    return rest[0] if len(rest) else 0.0
""",
}


def test_its_sum_of_products_is_what_the_study_finds_again() -> None:
    (product,) = defined("lab18", "product")
    g = torch.Generator().manual_seed(1)
    factors = [torch.randn(n, 2, generator=g, dtype=torch.float64) for n in (6, 5, 4)]
    factors = [f / f.norm(dim=0) for f in factors]
    whole = product(torch.tensor([2.0, 1.0]).double(), factors)
    found = study.cp(whole, 2, seed=0, sweeps=300)
    again = product(torch.ones(2).double(), found)
    assert float((again - whole).norm() / whole.norm()) < 1e-3
