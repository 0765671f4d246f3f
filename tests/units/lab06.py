"""Lab 6: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.models import MLP
from crlib.studies import lab06 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Sums of matrices, as along a skip connection.
    Mutation("prop-lab06-rank", "setup", "(w @ j)", "(w + j)"),
    # Against its own largest singular value.
    Mutation(
        "thm-lab06-safe",
        "crlib.studies.lab06.safe_counts",
        "tol * most",
        "tol * torch.linalg.svdvals(product)[0]",
    ),
    # The norm of one layer for all.
    Mutation(
        "thm-lab06-safe",
        "crlib.studies.lab06.safe_counts",
        "most * metrics",
        "metrics",
    ),
]

WRONG = {
    # Against its own largest singular value.
    "ex-lab06-safe": """
def safe_ranks(weights, tol):
    j, found = torch.eye(weights[0].shape[1], dtype=weights[0].dtype), []
    for w in weights:
        j = w @ j
        s = torch.linalg.svdvals(j)
        found.append(int((s > tol * s[0]).sum()))
    return found
""",
}


def test_its_jacobians_are_those_of_the_study_and_of_autograd() -> None:
    (along,) = defined("lab06", "along")
    net = MLP((784, 12, 11, 10), mean=0.286, std=0.353, seed=0).double()
    g = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 28, 28, generator=g, dtype=torch.float64)
    x = net.normalize(image).flatten()
    ours = along(net.weights, x)
    weights, inside, q = study.reduced(net, image)
    for mine, theirs in zip(ours, study.jacobians(weights, inside), strict=True):
        assert torch.allclose(mine, theirs[0] @ q.T)
    exact = torch.autograd.functional.jacobian(net.features, image)
    assert torch.allclose(ours[-1], exact.reshape(11, 784) * 0.353)
