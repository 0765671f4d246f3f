"""Chapter 19: mutations of its theorems, wrong answers, its code from scratch."""

from tests.units import Mutation
from tests.units.every import *

MUTATIONS = [
    # The class that is pushed down, not the one pushed up.
    Mutation(
        "prop-universal-untouched",
        "check",
        "safe = int((w @ push).argmax())",
        "safe = int((w @ push).argmin())",
    ),
    # The sum of both classes in place of the larger.
    Mutation("prop-universal-two", "check", "float(max(down, up))", "float(down + up)"),
    # The norm itself in place of its dual.
    Mutation("prop-universal-two", "check", "(math.inf, 1))", "(math.inf, math.inf))"),
    # The dimension of the inputs in place of that of the subspace.
    Mutation(
        "thm-universal-law",
        "check",
        "universal_law(d, share, 0.9, r)",
        "universal_law(d, share, 0.9, m)",
    ),
    # The coordinate in place of its square.
    Mutation("thm-universal-law", "crlib.theory.universal_law", "u.square()", "u"),
]

WRONG = {
    # The coordinate taken for its square.
    "ex-universal-law": """
def crosses(d, p, rho, r):
    if d > rho * p:
        return 0.0
    return 1.0 if r == 1 else float(stats.beta.sf(d / (rho * p), 0.5, (r - 1) / 2))
""",
    # The Gaussian rule at the median distance.
    "ex-universal-length": """
def length_for(rate, d, p, r):
    return float((d / p).median()) * r**0.5 / stats.norm.ppf(1 - rate / 2)
""",
    # Both classes counted together.
    "ex-universal-shift": """
def smallest_shift(scores, share):
    need = math.ceil(share * len(scores))
    return float(scores.abs().sort().values[need - 1]) if need else 0.0
""",
    "ex-universal-blindfold": [
        # The direction itself, stretched until its largest entry meets the wall.
        """
def without_data(w, eps, norm):
    v = torch.linalg.svd(w, full_matrices=False).Vh[0]
    return eps * v / (v.norm() if norm == "l2" else v.abs().max())
""",
        # The mean row in place of the strongest direction.
        """
def without_data(w, eps, norm):
    v = w.mean(0)
    return eps * (v / v.norm() if norm == "l2" else v.sign())
""",
    ],
    # Only the label that an input had is passed, no rival in between.
    "ex-universal-dominant": """
def swallowed(scores, push):
    label = int(push.argmax())
    rows, told = torch.arange(len(scores)), scores.argmax(1)
    behind = scores[rows, told] - scores[:, label]
    gained = (push[label] - push[told]).clamp_min(1e-12)
    return label, float((behind / gained).max())
""",
}
