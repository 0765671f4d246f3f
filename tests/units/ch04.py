"""Chapter 4: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import certify, models
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Two logits move, and only one is counted.
    Mutation("thm-lipschitz", "setup", '"linf": 2.0', '"linf": 1.0'),
    # The root squared.
    Mutation("thm-lipschitz", "setup", '"l2": math.sqrt(2)', '"l2": 2.0'),
    # One layer for all.
    Mutation("prop-product", "setup", "math.prod(metrics", "max(metrics"),
    # What goes into the neuron scaled, what goes out not.
    Mutation("prop-product", "setup", "second[:, i] /= c", "second[:, i] /= 1"),
    # The weights with their signs.
    Mutation("thm-interval", "setup", "half @ w.abs().T", "half @ w.T"),
    # The last layer's half-widths halved.
    Mutation("thm-interval", "setup", "c.abs() * half).sum", "c.abs() * half / 2).sum"),
    # The chord through zero.
    Mutation("prop-triangle", "setup", "(rise - fall).clamp", "(rise + fall).clamp"),
    # The intercept of the chord forgotten.
    Mutation("prop-triangle", "setup", "- (down * fall[:, None]).sum(2)", ""),
    # The switch does not open the upper side.
    Mutation("prop-bigm", "setup", "-np.inf, b + big)", "-np.inf, b)"),
    # The logits' offset with the wrong sign.
    Mutation("prop-bigm", "setup", "-np.inf, -e)", "-np.inf, e)"),
    # The noise level forgotten.
    Mutation("thm-smooth", "setup", "sigma * stats.norm.ppf(p)", "stats.norm.ppf(p)"),
    # The probability for its quantile.
    Mutation("prop-smooth-linear", "setup", "stats.norm.ppf(p)", "stats.norm.cdf(p)"),
    # The counted share for its lower bound.
    Mutation(
        "prop-smooth-linear",
        "crlib.certify.smooth_certify",
        "stats.beta.ppf(alpha, hits, n - hits + 1)",
        "hits / n",
    ),
]

WRONG = {
    # The ends of the input taken as they are, whatever the sign of a weight.
    "ex-box-layer": """
def box_layer(w, b, low, high):
    return (low @ w.T + b).relu(), (high @ w.T + b).relu()
""",
    # The square root forgotten: the two norms change places.
    "ex-balance": """
def balance(first, second):
    c = second.norm(dim=0) / first.norm(dim=1)
    return c[:, None] * first, second / c
""",
    # The counted share for its lower bound.
    "ex-votes": """
def radius_from(hits, n, sigma, alpha):
    share = hits / n
    return sigma * stats.norm.ppf(share) if share > 0.5 else 0.0
""",
}


def test_certificates() -> None:
    intervals, relaxed = defined("ch04", "interval_margins", "relaxed_margins")
    g = torch.Generator().manual_seed(4)
    for seed in range(5):
        net = models.MLP((6, 11, 4), bias=True, mean=0.4, std=0.2, seed=seed).double()
        x = torch.rand(8, 6, generator=g, dtype=torch.float64)
        y = net(x).argmax(1)
        boxes = intervals(net, x, y, 0.1)
        torch.testing.assert_close(boxes, certify.interval_bounds(net, x, y, eps=0.1))
        both = torch.maximum(boxes, relaxed(net, x, y, 0.1))
        torch.testing.assert_close(both, certify.crown_bounds(net, x, y, eps=0.1))
