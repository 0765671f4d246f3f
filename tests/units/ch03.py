"""Chapter 3: mutations of its theorems, wrong answers, its code from scratch."""

import pytest
import torch

from crlib import attacks, data, models
from crlib.studies import strength
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # All attacks must succeed, in place of one.
    Mutation("prop-upper", "setup", "~successes.any(0)", "~successes.all(0)"),
    # Normalised by the wrong norm.
    Mutation(
        "prop-steepest", "setup", "return g / g.norm()", "return g / g.abs().sum()"
    ),
    # The walls of the box forgotten.
    Mutation("prop-project", "setup", "return less.minimum(room)", "return less"),
    # The scale left out of the probabilities.
    Mutation("prop-scale", "setup", "torch.softmax(a * z, 0)", "torch.softmax(z, 0)"),
    # The gradient itself in place of its sign.
    Mutation("prop-each-rival", "setup", "(x + eps * c.sign())", "(x + eps * c)"),
    # A sample that falls at the budget left standing.
    Mutation(
        "prop-curve",
        "setup",
        "distance[None] > budgets[:, None]",
        "distance[None] >= budgets[:, None]",
    ),
]

WRONG = {
    # Zero in place of the true logit: wrong where all logits are negative.
    "ex-margin-loss": """
def margin_loss(logits, y):
    own = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], 0.0).amax(1) - own
""",
    # The whole point shrunk until it fits.
    "ex-project": """
def project_l1(v, eps):
    size = v.abs().sum(1, keepdim=True)
    return v * (eps / size).clamp_max(1)
""",
    # The middle of the last bracket, at which nothing was tried.
    "ex-bisect": [
        """
def bisect(attack, high, rounds):
    ever = attack(high)
    low = torch.zeros_like(high)
    for _ in range(rounds):
        middle = (low + high) / 2
        fooled = attack(middle) & ever
        high = torch.where(fooled, middle, high)
        low = torch.where(fooled, low, middle)
    return ((low + high) / 2).masked_fill(~ever, math.inf)
""",
        # Who never falls left at the largest budget.
        """
def bisect(attack, high, rounds):
    low = torch.zeros_like(high)
    for _ in range(rounds):
        middle = (low + high) / 2
        fooled = attack(middle)
        high = torch.where(fooled, middle, high)
        low = torch.where(fooled, low, middle)
    return high
""",
    ],
    # A stronger rival taken for a higher report.
    "ex-weak-spots": """
def weak_spots(reports):
    trusted = reports["steps"]
    rivals = ("noise", "one step", "black box")
    found = {name for name in rivals if reports[name] > trusted}
    if max(reports.values()) > reports["clean"]:
        found.add("clean")
    if reports["twice"] < trusted - 0.02:
        found.add("twice")
    if reports["huge"] > 0.1:
        found.add("huge")
    return found
""",
}


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_nearest_point_of_ball_and_box(norm: str) -> None:
    (nearest,) = defined("ch03", "nearest")
    g = torch.Generator().manual_seed(3)
    for eps in (0.1, 0.7, 1.0 if norm == "linf" else 3.0):
        x = torch.rand(20, 9, generator=g, dtype=torch.float64)
        v = x + torch.randn(20, 9, generator=g, dtype=torch.float64)
        ours = torch.stack(
            [nearest(*pair, eps, norm) for pair in zip(v, x, strict=True)]
        )
        known = attacks.project(v, x, eps=eps, norm=norm)
        assert torch.allclose(ours, known, atol=1e-5)


def test_projected_gradient_ascent() -> None:
    (pgd,) = defined("ch03", "pgd")
    g = torch.Generator().manual_seed(4)
    net = models.MLP((12, 20, 4), seed=5)
    x = torch.rand(60, 12, generator=g)
    y = net(x).argmax(1)
    for eps in (0.02, 0.1):
        ours = pgd(net, x, y, eps, 8, eps / 3)
        known = attacks.pgd(net, x, y, eps=eps, steps=8, step_size=eps / 3)
        fooled = net(ours).argmax(1) != y
        assert fooled.equal(known.success)
        assert torch.allclose(ours[fooled], known.x_adv[fooled], atol=1e-6)


def test_a_curve_from_distances() -> None:
    (curve,) = defined("ch03", "curve")
    net = models.MLP((12, 20, 4), seed=6)
    x = torch.rand(60, 12, generator=torch.Generator().manual_seed(7))
    y = net(x).argmax(1)
    distance = attacks.fmn(net, x, y, norm="l2").distance
    budgets = torch.linspace(0, 1, 9)
    known = attacks.robustness_curve(
        net, x, y, eps=budgets.tolist(), norm="l2", attack=attacks.fmn
    )
    assert torch.allclose(curve(distance, budgets).float(), known.accuracy)


def test_adversarial_training_and_a_default_are_those_of_the_study() -> None:
    harden, textbook = defined("ch03", "harden", "textbook")
    photos = data.fashion_mnist_sample().subset(600, 60).double()
    ours, known = harden(photos, 1, 2), strength.harden(photos, 1, 2)
    for a, b in zip(ours.weights, known.weights, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
    x, y = photos.x_test, photos.y_test
    last = strength.last_point(known, x, y, 0.1, 10, 0.02)
    assert textbook(ours, x, y, 0.1, 10, 0.02) == last
