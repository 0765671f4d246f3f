"""Chapter 1: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import attacks, models
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Outputs counted in place of inputs.
    Mutation("prop-average-worst", "setup", "w.shape[1] *", "w.shape[0] *"),
    # The largest singular value without its square.
    Mutation("prop-average-worst", "setup", "sigma[0] ** 2 /", "sigma[0] /"),
    # Left singular vectors in place of right ones.
    Mutation("prop-row-space", "setup", ".Vh[:k].T", ".U[:, :k]"),
    # The norm in place of the energy.
    Mutation("cor-random-share", "check", "(k / m)", "(k / m) ** 0.5"),
    # The root dropped.
    Mutation("prop-truncation", "check", "math.sqrt(1 - error**2)", "(1 - error**2)"),
    # The smallest singular values kept.
    Mutation("prop-truncation", "setup", "* sigma[:k] @", "* sigma[-k:] @"),
]

WRONG = {
    # A sample that falls at exactly the budget left standing.
    "ex-falls": """
def robust_accuracies(falls_at, eps):
    return (falls_at[:, None] >= eps[None, :]).float().mean(0)
""",
    # Columns of the third result of the decomposition in place of its rows.
    "ex-share": """
def energy_in(delta, w, k):
    flat = delta.flatten(1)
    columns = torch.linalg.svd(w).Vh[:, :k]
    return (flat @ columns).square().sum(1) / flat.square().sum(1)
""",
    # One sign only.
    "ex-fooling": [
        """
def fooling_rate(net, x, direction, eps):
    step = eps * direction / direction.norm()
    label = net((x + step).clamp(0, 1)).argmax(1)
    return float((label != net(x).argmax(1)).float().mean())
""",
        # Who is fooled by either sign counted: that is not one change for all.
        """
def fooling_rate(net, x, direction, eps):
    step = eps * direction / direction.norm()
    either = torch.zeros(len(x), dtype=torch.bool)
    for sign in (1, -1):
        moved = (x + sign * step).clamp(0, 1)
        either |= net(moved).argmax(1) != net(x).argmax(1)
    return float(either.float().mean())
""",
    ],
    # The square root forgotten.
    "ex-blind": """
def matrix_with(h, m, ratio):
    size = min(h, m)
    sigma = torch.full((size,), (1 - ratio / m) / (size - 1))
    sigma[0] = ratio / m
    w = torch.zeros(h, m)
    w[range(size), range(size)] = sigma
    return w
""",
}


def test_one_step_of_the_gradient() -> None:
    (one_step,) = defined("ch01", "one_step")
    g = torch.Generator().manual_seed(2)
    net = models.MLP((12, 20, 4), seed=3)
    x = torch.rand(50, 12, generator=g)
    y = net(x).argmax(1)
    for eps in (0.01, 0.1):
        assert torch.equal(
            one_step(net, x, y, eps), attacks.fgsm(net, x, y, eps=eps).x_adv
        )
