"""Chapter 10: mutations of its theorems, wrong answers, its code from scratch."""

import pytest
import torch

from crlib import theory
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The last direction of the row space forgotten.
    Mutation(
        "thm-bridge",
        "crlib.theory.bridge._directions",
        "vh[:kept].T",
        "vh[: kept - 1].T",
    ),
    # The square dropped.
    Mutation(
        "prop-bridge-random",
        "check",
        "stats.kstest((chi**2).numpy()",
        "stats.kstest(chi.numpy()",
    ),
    # The second singular value left out, not the first.
    Mutation(
        "thm-bridge-tail",
        "crlib.theory.bridge._directions",
        "float(s[kept]) if",
        "float(s[kept + 1]) if",
    ),
    # The error without its square.
    Mutation("prop-price-error", "check", "error, eps**2", "error, eps"),
    # The same probe twice.
    Mutation(
        "cor-bridge-probes",
        "crlib.theory.two_probe_radius",
        "[probe_i, probe_j]",
        "[probe_i, probe_i]",
    ),
    # Each part of the way divided by the strongest slope.
    Mutation(
        "thm-curved",
        "crlib.theory.curved_bridge",
        "parts / s, 0",
        "parts / s[:, :1], 0",
    ),
    # A little beyond the goal, which only the equality cases see.
    Mutation(
        "thm-curved",
        "crlib.theory.curved_bridge",
        "inside(x), inside(x_prime)",
        "inside(x), inside(1.0001 * x_prime)",
    ),
]

WRONG = {
    # What the layer makes of the difference, not what it lets through.
    "ex-bridge-survives": """
def survives(w, difference):
    gain = torch.linalg.matrix_norm(w, ord=2)
    return float((w @ difference).norm() / (gain * difference.norm()))
""",
    # The nearest input by the eye, not by the network.
    "ex-bridge-cheapest": """
def cheapest(w, x, label, others, labels):
    differences = others[labels != label] - x
    nearest = differences[differences.norm(dim=1).argmin()]
    return nearest @ (torch.linalg.pinv(w) @ w)
""",
    # The two projections added.
    "ex-bridge-bypass": """
def bypass(w, s, x, x_prime):
    one = theory.bridge_attack(w, x, x_prime).e
    return one + theory.bridge_attack(s, x, x_prime).e
""",
    # The bound in place of the residual.
    "ex-bridge-fewest": """
def fewest_directions(w, x, x_prime, radius):
    for k in range(1, min(w.shape) + 1):
        if theory.bridge_attack(w, x, x_prime, k).residual_bound <= radius:
            return k
    return 0
""",
}


@pytest.mark.parametrize(("h", "k", "m"), [(1, 1, 6), (9, 3, 12), (5, 5, 5)])
def test_bridge(h: int, k: int, m: int) -> None:
    (bridge,) = defined("ch10", "bridge")
    g = torch.Generator().manual_seed(3)
    left, right, both = (
        torch.randn(shape, generator=g, dtype=torch.float64)
        for shape in ((h, k), (k, m), (2, 40, m))
    )
    w, (x, other) = left @ right, both
    assert torch.allclose(bridge(w, x, other), theory.bridge_attack(w, x, other).e)
