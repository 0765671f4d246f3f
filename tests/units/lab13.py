"""Lab 13: mutations of its theorem, and wrong answers."""

from tests.units import Mutation
from tests.units.every import *

MUTATIONS = [
    # As if the entries of the branch had one sign.
    Mutation(
        "thm-lab13-sum",
        "crlib.studies.lab13.width_of",
        "change.amax(1) - change.amin(1)",
        "change.abs().amax(1)",
    ),
    # The whole gap: what one logit loses the other gains.
    Mutation("thm-lab13-sum", "check", "gap(f) / 2", "gap(f)"),
    # The two bounds exchanged.
    Mutation(
        "thm-lab13-sum", "check", "a + b <= both + 1e-12", "a + b >= both - 1e-12"
    ),
    # The gap to the third largest.
    Mutation(
        "thm-lab13-sum",
        "setup",
        "f.topk(2, dim=1).values",
        "f.topk(3, dim=1).values[:, ::2]",
    ),
]

WRONG = {
    # Forgets that what one logit loses another one may gain.
    "ex-lab13-budget": """
def safe_budget(f):
    top = f.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]
""",
}
