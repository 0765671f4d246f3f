"""Chapter 2: mutations of its theorems, wrong answers, its code from scratch."""

import math

import pytest
import torch

from crlib import theory
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The norm of the attack for its dual.
    Mutation("thm-dual", "setup", '"linf": 1, "l2": 2', '"linf": math.inf, "l2": 2'),
    # The water-filling rules of l2 and linf exchanged.
    Mutation(
        "thm-box",
        "crlib.geometry.halfspace_step",
        'size if norm == "l2" else sign.abs()',
        'sign.abs() if norm == "l2" else size',
    ),
    # The room towards the wrong wall.
    Mutation(
        "thm-box",
        "crlib.geometry.halfspace_step",
        "room_towards(x, c)",
        "room_towards(x, -c)",
    ),
    # The normal of the rival alone, not of the difference.
    Mutation(
        "prop-rivals",
        "crlib.theory.linear_minimal",
        "weight[rival] - weight[y]",
        "weight[rival] + 0 * weight[y]",
    ),
    # The budget times the size of the perturbation, the dual norm forgotten.
    Mutation("thm-loss", "setup", "m - eps * dual_norm(w, norm)", "m - eps"),
    # A step of half the length.
    Mutation("cor-fgsm", "crlib.attacks.fgsm", "step_size=eps,", "step_size=eps / 2,"),
    # The root dropped.
    Mutation(
        "prop-noise",
        "setup",
        "math.exp(-d / (2 * s**2))",
        "math.exp(-d / s**2)",
    ),
    # Squares where the flatness has a norm.
    Mutation(
        "prop-flat",
        "setup",
        "w.abs().sum(-1) / torch.linalg.vector_norm(w, dim=-1)",
        "w.abs().sum(-1) / torch.linalg.vector_norm(w, dim=-1) ** 2",
    ),
    # The strongest direction left out of the row space.
    Mutation("prop-lowrank", "setup", "return vh[:k].T", "return vh[1 : k + 1].T"),
]

WRONG = {
    # The norm of the attack itself in place of its dual.
    "ex-distance": """
def distance(w, b, x, y, norm):
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    margin = y * (x @ w + b)
    return margin.clamp_min(0) / torch.linalg.vector_norm(w, ord=order)
""",
    # Sorted by gain, which is the rule for l0.
    "ex-knapsack": """
def knapsack(c, m, room):
    spent, left = 0.0, float(m)
    for i in (c.abs() * room).argsort(descending=True):
        size, available = float(c[i].abs()), float(room[i])
        if size > 0 and size * available >= left:
            return spent + left / size
        spent, left = spent + available, left - size * available
    return math.inf
""",
    # The second guess.
    "ex-rival": """
def nearest_rival(weight, bias, x, y):
    logits = x @ weight.T + bias
    return logits.scatter(1, y[:, None], -math.inf).argmax(1)
""",
    # The right l1 norm with the wrong l2 norm.
    "ex-normal": """
def normal(d, kappa):
    return torch.full((d,), kappa / d)
""",
    # The Euclidean norm of the weights.
    "ex-robust-loss": """
def robust_loss(w, b, x, y, eps):
    worst = y * (x @ w + b) - eps * w.norm()
    return torch.nn.functional.softplus(-worst).mean()
""",
}


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_water_filling(norm: str) -> None:
    (fill,) = defined("ch02", "fill")
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        x = torch.rand(1, 9, generator=g, dtype=torch.float64)
        c = torch.randn(9, generator=g, dtype=torch.float64)
        room = torch.where(c > 0, 1 - x[0], x[0])
        m = float(0.8 * torch.rand((), generator=g) * (c.abs() * room).sum())
        two = torch.stack([torch.zeros_like(c), c])
        offset = torch.tensor([m + float(x[0] @ c), 0.0], dtype=torch.float64)
        label = torch.tensor([0])
        distance, delta = theory.linear_minimal(two, offset, x, label, norm=norm)
        moves = fill(c, m, room, norm)
        order = math.inf if norm == "linf" else 2
        assert torch.isclose(torch.linalg.vector_norm(moves, ord=order), distance[0])
        assert norm == "linf" or torch.allclose(moves, delta[0].abs(), atol=1e-9)
