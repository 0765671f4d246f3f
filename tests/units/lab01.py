"""Lab 1: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab01 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The flow for the step: nothing would change.
    Mutation("thm-lab01-balance", "setup", "eta**2 * change", "0 * change"),
    # In and out do not scale alike.
    Mutation("thm-lab01-balance", "setup", "eta**2 * change", "eta * change"),
    # The shorter vector for the longer one.
    Mutation(
        "prop-lab01-floor",
        "crlib.studies.lab01.floor",
        "max(into.std(), out.std())",
        "min(into.std(), out.std())",
    ),
    # The root dropped.
    Mutation("prop-lab01-floor", "crlib.studies.lab01.floor", "** 0.5 if", "** 0.4 if"),
]

WRONG = {
    # Without the root the two norms change places.
    "ex-lab01-balance": """
def balance(w_in, w_out):
    into, out = w_in.norm(dim=1), w_out.norm(dim=0)
    c = torch.where((into > 0) & (out > 0), out / into, torch.ones_like(into))
    return w_in * c[:, None], w_out / c
""",
}


def test_its_steps_are_those_of_the_study() -> None:
    step, both_ways = defined("lab01", "step", "both_ways")
    weights = study.start((6, 5, 4, 3), "He", seed=1)
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 6, generator=g).double(), torch.randint(3, (40,))
    batch = torch.randint(40, (64,), generator=torch.Generator().manual_seed(2))
    once, _ = step(weights, x[batch], y[batch], 0.05)
    theirs = study.descend(weights, x, y, steps=1, seed=2)
    for ours, other in zip(once, theirs, strict=True):
        assert torch.allclose(ours, other, rtol=1e-12)
    for ours, other in zip(both_ways(once), study.energies(once), strict=True):
        assert all(map(torch.equal, ours, other))
