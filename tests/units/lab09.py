"""Lab 9: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.models import MLP
from crlib.studies import lab09 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Each neuron with a step of its own.
    Mutation(
        "thm-lab09-split",
        "setup",
        "return slope * (step @ w.T)",
        "return eps * slope.abs() * w.abs().sum(1)",
    ),
    # Magnitudes of the parts: neurons would never cancel.
    Mutation(
        "thm-lab09-split",
        "setup",
        "return slope * (step @ w.T)",
        "return (slope * (step @ w.T)).abs()",
    ),
    # The norm of a row that belongs to steps in l2.
    Mutation("thm-lab09-split", "check", "w.abs().sum(1))", "w.norm(dim=1))"),
]

WRONG = {
    # What a neuron gets from the common step, for what it would get from its own.
    "ex-lab09-kept": """
def kept_gain(w, slope):
    parts = slope * (w @ (slope @ w).sign())
    return float((slope @ w).abs().sum() / parts.abs().sum())
""",
}


def test_its_parts_are_those_of_the_study() -> None:
    (parts,) = defined("lab09", "parts")
    g = torch.Generator().manual_seed(0)
    net = MLP((9, 7, 4), mean=0.3, std=0.5, seed=0).double()
    x, y = torch.rand(20, 1, 3, 3, generator=g).double(), torch.arange(20) % 4
    z = (net.normalize(x).flatten(1) @ net.weights[0].T).requires_grad_()
    out = z.relu() @ net.weights[1].T
    loss = torch.nn.functional.cross_entropy(out, y, reduction="sum")
    (slope,) = torch.autograd.grad(loss, z)
    w = net.weights[0] / net.normalize.std
    ours, (theirs, kept) = parts(w, slope, 1.0).sum(0), study.parts(net, x, y)
    assert torch.allclose(ours, theirs)
    alone = float((slope.abs() @ w.abs().sum(1)).sum())
    assert abs(kept - float(ours.sum()) / alone) < 1e-9
