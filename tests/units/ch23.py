"""Chapter 23: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import metrics, models
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # One sample too many is given away on each side.
    Mutation(
        "thm-own-median", "setup", "binom.cdf(l - 1, n, 0.5)", "binom.cdf(l, n, 0.5)"
    ),
    # The same in the library: the next sample in, at the lower end.
    Mutation(
        "thm-own-median",
        "crlib.claims.median_interval",
        "values[least - 1]",
        "values[least]",
    ),
    # The norm of the distance in place of its dual.
    Mutation("prop-own-estimate", "crlib.metrics.first_order", "DUALS[norm]", "norm"),
    # The longest way of all rivals.
    Mutation("prop-own-estimate", "crlib.metrics._one_step", "amin(1)", "amax(1)"),
    # The difference of the means the wrong way round.
    Mutation(
        "prop-own-centre",
        "crlib.compress.compressions.recentre",
        "goals[own] - mean",
        "mean - goals[own]",
    ),
    # The mean of the error forgotten.
    Mutation("prop-own-centre", "check", "(t + e.mean(0))", "t"),
]

WRONG = {
    # A normal law of the logarithms.
    "ex-own-median": """
def median_between(samples, level):
    logs = np.log(np.abs(samples))
    half = stats.norm.ppf((1 + level) / 2) * logs.std(ddof=1) / len(logs) ** 0.5
    return np.exp(logs.mean() - half), np.exp(logs.mean() + half)
""",
    # The rival of the largest score only.
    "ex-own-rival": """
def nearest_rival(net, x, y):
    return metrics.first_order(net, x, y, rivals=1)
""",
    # By the variance in place of its root; the mean left where it was.
    "ex-own-fold": [
        """
def fold(w, b, gamma, beta, mu, v, epsilon):
    scale = gamma / (v + epsilon)
    return scale[:, None] * w, scale * (b - mu) + beta
""",
        """
def fold(w, b, gamma, beta, mu, v, epsilon):
    scale = gamma / (v + epsilon).sqrt()
    return scale[:, None] * w, scale * b - mu + beta
""",
    ],
    # Only what is too large; a NaN, neither above nor below; no input that is right.
    "ex-own-refusal": [
        """
def holds(refuse, x):
    try:
        refuse(torch.tensor([[0.5, 255.0]]))
    except ValueError as error:
        return "[0, 1]" in str(error)
    return False
""",
        """
def holds(refuse, x):
    for v in (-0.1, 1.1):
        try:
            refuse(torch.tensor([[0.5, v]]))
            return False
        except ValueError as error:
            if "[0, 1]" not in str(error):
                return False
        except Exception:
            return False
    refuse(torch.tensor([[0.0, 1.0]]))
    return True
""",
        """
def holds(refuse, x):
    for v in (-0.1, 1.1, math.nan):
        try:
            refuse(torch.tensor([[0.5, v]]))
            return False
        except ValueError as error:
            if "[0, 1]" not in str(error):
                return False
        except Exception:
            return False
    return True
""",
    ],
    # From the old mean to the new one.
    "ex-own-shift": """
def shift_back(w, small, a):
    return (small - w) @ a.mean(0)
""",
}


def test_the_estimate_of_the_chapter_is_that_of_crlib() -> None:
    (estimate,) = defined("ch23", "estimate")
    net = models.MLP((6, 9, 9, 5), bias=True, seed=1).double()
    g = torch.Generator().manual_seed(0)
    x = torch.rand(30, 6, generator=g, dtype=torch.float64)
    y = net(x).argmax(1)
    for norm in ("l2", "linf"):
        found = estimate(net, x, y, norm)
        assert torch.allclose(found, metrics.first_order(net, x, y, norm=norm))
