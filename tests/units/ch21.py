"""Chapter 21: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import models
from crlib.studies import referees
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The dimension of the space in place of what is left of it.
    Mutation("thm-referees-queries", "setup", "(s - q) / 2", "s / 2"),
    # Signs of slopes in place of slopes.
    Mutation(
        "thm-referees-queries", "setup", "slopes[..., None]", "slopes[..., None].sign()"
    ),
    # No square root.
    Mutation(
        "thm-referees-confined",
        "setup",
        ".norm(dim=-1)[:, 0]",
        ".square().sum(-1)[:, 0]",
    ),
    # One over the mean in place of the mean of one over.
    Mutation("thm-referees-confined", "check", "(s - 2) / (m - 2)", "s / m"),
    # l1 in and l2 out.
    Mutation("prop-referees-form", "setup", "w.norm(dim=1)", "w.abs().sum(1)"),
    # Raw kernels.
    Mutation("prop-referees-form", "setup", "metrics.folded(net)", "net"),
    # The variance in place of its root.
    Mutation("prop-referees-form", "crlib.metrics._fold", "rsqrt()", "reciprocal()"),
]

WRONG = {
    # One side only.
    "ex-referees-slopes": [
        """
def slopes(score, x, ways, tau):
    return (score(x + tau * ways) - score(x[None])) / tau @ ways
""",
        # Two steps taken, and one divided by.
        """
def slopes(score, x, ways, tau):
    return (score(x + tau * ways) - score(x - tau * ways)) / tau @ ways
""",
    ],
    # Columns that are taken for orthonormal.
    "ex-referees-confined": [
        """
def confined_distance(a, b, x, basis):
    units = basis / basis.norm(dim=0)
    return float((b - a @ x).abs() / (units.T @ a).norm())
""",
        # The distance without the restriction.
        """
def confined_distance(a, b, x, basis):
    return float((b - a @ x).abs() / a.norm())
""",
    ],
    # The principal directions of the points, which know nothing of the network.
    "ex-referees-learn": """
def learnt_row_space(score, points, rank):
    return torch.linalg.svd(points, full_matrices=False).Vh[:rank].T
""",
}


def test_the_estimate_of_the_study_is_that_of_the_chapter() -> None:
    (estimate,) = defined("ch21", "estimate")
    net = models.MLP((16, 12, 3), seed=0).double()
    g = torch.Generator().manual_seed(0)
    x = torch.rand(9, 1, 4, 4, generator=g).double()
    y = net(x).argmax(1)
    basis = torch.linalg.qr(torch.randn(16, 5, generator=g).double()).Q
    found = referees.estimated(net, x, y, basis, 5)
    # Five directions of five: any orthonormal ones give the whole projection.
    z = x.clamp(referees.PROBE, 1 - referees.PROBE).requires_grad_()
    first, second = net(z).topk(2, dim=1).values.T
    slope = torch.autograd.grad((first - second).sum(), z)[0].flatten(1)
    ways = basis.T.expand(9, 5, 16)
    right = estimate((ways @ slope[..., None])[..., 0], ways)
    assert torch.allclose(found, right, atol=1e-6)
