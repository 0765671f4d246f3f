"""Lab 5: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab05 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

KERNEL = "crlib.studies.lab05.kernel"
MUTATIONS = [
    # One factor's weights for all.
    Mutation("thm-lab05-kernel", KERNEL, "+ degree * u", "+ u"),
    # The factor two of a ReLU's half mean square.
    Mutation("thm-lab05-kernel", "setup", "2**0.5 * z.relu()", "z.relu()"),
    # One factor's weights for all.
    Mutation("thm-lab05-tail", KERNEL, "+ degree * u", "+ u"),
    # A kink at the opposite point for every degree.
    Mutation("thm-lab05-tail", "setup", "if degree > 1", "if degree > 3"),
    # A bias: no longer homogeneous.
    Mutation("prop-lab05-euler", "setup", "(x @ w.T).relu()", "(x @ w.T + 1).relu()"),
    # The degree forgotten.
    Mutation("prop-lab05-euler", "check", ", degree * m)", ", m)"),
]

WRONG = {
    # Only one of the factors moves.
    "ex-lab05-kernel": """
def product_kernel(u, degree):
    bent = (math.pi - u.arccos()) / math.pi
    first = (1 - u**2).sqrt() / math.pi + u * bent
    return first**degree + u * bent * first ** (degree - 1)
""",
}


def test_its_network_is_that_of_the_study() -> None:
    (logits,) = defined("lab05", "logits")
    for degree in study.WIDTHS:
        net = study.ProductNet(degree, 0)
        g = torch.Generator().manual_seed(0)
        x = torch.rand(5, 784, generator=g, dtype=torch.float64)
        ours = logits(
            [layer.weight for layer in net.factors], net.head.weight, net.normalize(x)
        )
        assert torch.allclose(ours, net(x), rtol=1e-12)
