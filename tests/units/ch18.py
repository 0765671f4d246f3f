"""Chapter 18: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import data, models, theory, train
from crlib.studies import transfer
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The whole difference, also what the first layer cannot see.
    Mutation(
        "thm-transfer-ceiling",
        "setup",
        "seen = x @ torch.linalg.svd(w, full_matrices=False).Vh.T",
        "seen = x",
    ),
    # The farthest input of another label.
    Mutation(
        "thm-transfer-ceiling",
        "setup",
        "far.masked_fill(y[:, None] == y, torch.inf).amin(1)",
        "far.amax(1)",
    ),
    # The nearest row of the head in place of the farthest.
    Mutation(
        "thm-transfer-head",
        "setup",
        "(c[:, None] - c).norm(dim=2).amax(1)",
        "(c[:, None] - c).norm(dim=2).topk(2, largest=False).values[:, 1]",
    ),
    # The norm of the head without the root of two.
    Mutation("thm-transfer-head", "check", "math.sqrt(2) *", "1 *"),
    # One dimension too many.
    Mutation("thm-transfer-two", "setup", "(k - 1) / 2", "k / 2"),
    # The length of the step forgotten: right in l2, wrong in linf.
    Mutation("thm-transfer-two", "setup", "(step @ a)", "(units(step) @ a)"),
]

WRONG = {
    # One bound for all labels.
    "ex-transfer-spread": """
def head_spread(c):
    return (2**0.5 * torch.linalg.matrix_norm(c, 2)).expand(len(c))
""",
    # The sum over the samples in place of their mean.
    "ex-transfer-step": """
def head_step(c, features, y, rate):
    error = (features @ c.T).softmax(1)
    error[torch.arange(len(y)), y] -= 1
    return c - rate * error.T @ features
""",
    # A mean over the inputs where the closest pair decides.
    "ex-transfer-radius": """
def best_radius(w, x, y):
    return float(theory.bridge_radius(w, x, y, x, y).mean() / 2)
""",
    # The share of the variance: labels play no part.
    "ex-transfer-enough": """
def enough_directions(x, y, kept):
    s = torch.linalg.svdvals(x - x.mean(0)) ** 2
    return int((s.cumsum(0) / s.sum() < kept**2).sum()) + 1
""",
}


def test_ceilings_are_the_bridge_radius() -> None:
    (ceilings,) = defined("ch18", "ceilings")
    g = torch.Generator().manual_seed(0)
    for h, m in ((2, 9), (6, 6), (5, 8)):
        w, x = (torch.randn(n, m, generator=g).double() for n in (h, 30))
        y = torch.arange(30) % 4
        right = theory.bridge_radius(w, x, y, x, y)
        assert torch.allclose(ceilings(w, x, y), right, rtol=1e-9)


def test_the_bound_of_the_study_is_that_of_the_chapter() -> None:
    (spread,) = defined("ch18", "spread")
    net = models.MLP((784, 12, 9, 5), mean=0.29, std=0.35, seed=0).double()
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 1, 28, 28, generator=g).double(), torch.arange(40) % 5
    images = data.dataset(x, y, x, y)
    found = transfer.inherited(net, images)
    adversary = train.pgd_adversary(eps=transfer.EPS["l2"], norm="l2", steps=10)
    bad = adversary(net, x, y, torch.Generator().manual_seed(0))
    moved = (net.features(bad) - net.features(x)).norm(dim=1).detach()
    bound = (spread(net.weights[-1])[y] * moved).mean()
    assert abs(float(bound) / found["gap bound"] - 1) < 1e-9
    assert found["gap"] <= found["gap bound"]
