"""Chapter 12: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import metrics, models
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The plain mean of the norms in place of the one weighted by themselves.
    Mutation(
        "prop-rows-push",
        "setup",
        "star = rho.square().sum() / rho.sum()",
        "star = rho.mean()",
    ),
    # The root of the factor dropped: in and out are exchanged, not balanced.
    Mutation(
        "prop-rows-balanced",
        "setup",
        "(v.norm(dim=0) / w.norm(dim=1)).sqrt()",
        "(v.norm(dim=0) / w.norm(dim=1))",
    ),
]

WRONG = {
    # The strongest row taken for the one of largest sum.
    "ex-rows-share": [
        """
def row_share(w):
    strongest = w[w.norm(dim=1).argmax()]
    share = strongest.abs().sum() / w.norm()
    return float(share), float(strongest.norm() / w.norm())
""",
        # The squared Frobenius norm.
        """
def row_share(w):
    total = w.square().sum()
    return float(w.abs().sum(1).max() / total), float(w.norm(dim=1).max() / total)
""",
    ],
    # The mean of the norms for the limit.
    "ex-rows-giants": [
        """
def inflated(w):
    rho = w.norm(dim=1)
    return rho > rho.mean()
""",
        # Squared norms compared with a limit for norms.
        """
def inflated(w):
    rho = w.norm(dim=1)
    return rho.square() > rho.square().sum() / rho.sum()
""",
    ],
    # Not paired: the scatter of the seeds hides the effect.
    "ex-rows-stories": """
def stories(table, setting, control, column):
    found = {}
    for rule in set(table.checkpoint):
        part = table[(table.checkpoint == rule) & table.met]
        ours, base = (np.log(part[(part.way == w) & (part.strength == s)][column])
                      for w, s in (setting, control))
        mark = interval(ours)
        below = "lower" if mark.high < base.mean() else "open"
        found[rule] = "higher" if mark.low > base.mean() else below
    return found
""",
}


def test_the_balanced_form_is_that_of_crlib() -> None:
    (balanced,) = defined("ch12", "balanced")
    net = models.MLP((6, 8, 7, 4), seed=0).double()
    forms = balanced(net), metrics.balanced(net)
    for w, v in zip(*(form.weights for form in forms), strict=True):
        assert torch.allclose(w, v, rtol=1e-12)
