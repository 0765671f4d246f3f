"""Lab 8: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.models import MLP
from crlib.studies import lab08 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Each class a factor of its own.
    Mutation("thm-lab08-scale", "setup", "s * net(x)", "net(x) * s ** torch.arange(4)"),
    # The loss where all classes are alike, without its logarithm.
    Mutation("thm-lab08-scale", "check", "math.log(4)", "4"),
    # All points for those that are wrong.
    Mutation("thm-lab08-scale", "check", "m[wrong].square().sum()", "m.square().sum()"),
    # The loss for its square.
    Mutation("thm-lab08-scale", "setup", "/ loss.detach().square()", "/ loss.detach()"),
    # A shift for a factor.
    Mutation("cor-lab08-none", "setup", "s * net(x)", "s + net(x)"),
]

WRONG = {
    # Loss over the gradient of the loss.
    "ex-lab08-radius": """
def first_order_radius(model, x, y):
    z = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(z), y, reduction="none")
    (g,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach() / g.flatten(1).norm(dim=1)
""",
}


def test_its_uncertainties_are_those_of_the_study() -> None:
    uncertainties, scaled = defined("lab08", "uncertainties", "scaled")
    g = torch.Generator().manual_seed(0)
    net = MLP((9, 5, 3), bias=True, seed=0).double()
    x, y = torch.rand(20, 1, 3, 3, generator=g).double(), torch.arange(20) % 3
    for s in (0.2, 5.0):
        ours = uncertainties(scaled(net, s), x, y)
        theirs = study.conjugates(study.scaled(net, s), x, y)
        assert torch.allclose(ours, torch.tensor(theirs, dtype=ours.dtype), rtol=1e-12)
