"""Chapter 11: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import theory
from crlib.studies import teachers
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The root dropped from the part orthogonal to the teacher.
    Mutation(
        "prop-teacher-student",
        "setup",
        "(scale * math.sqrt(1 - chi**2))",
        "(scale * (1 - chi**2))",
    ),
    # The flatness left out of the reach in linf.
    Mutation(
        "prop-teacher-student",
        "check",
        "eps * float(w.abs().sum() / w.norm())",
        "eps",
    ),
    # A whole turn in place of half of one.
    Mutation(
        "cor-teacher-round",
        "check",
        "math.acos(chi) / math.pi",
        "math.acos(chi) / 6.28",
    ),
    # The square of the cosine in place of the cosine.
    Mutation(
        "prop-teacher-behind",
        "check",
        "float(best.norm() / star.norm())",
        "float(best.norm() / star.norm()) ** 2",
    ),
]

WRONG = {
    # The distance without its sign: a wrong input counted as robust.
    "ex-teacher-score": """
def score(w, star, x, eps):
    r = ((x - 0.5) @ w).abs() / w.norm()
    return float((r > eps).double().mean())
""",
    # The share of directions taken for the cosine, not for its square.
    "ex-teacher-rank": """
def rank_needed(accuracy, d):
    chi = math.cos(math.pi * (1 - accuracy))
    return max(1, math.ceil(chi * d - 1e-9))
""",
    # The control asked, the plain network not.
    "ex-teacher-verdict": """
def verdict(plain, control, treated):
    if interval(np.log(treated / plain)).mean > 0:
        return "no loss"
    below = interval(np.log(treated / control)).high < 0
    return "beyond the control" if below else "not beyond the control"
""",
}


def test_the_exact_score_of_a_linear_student() -> None:
    (signed_distance,) = defined("ch11", "signed_distance")
    g = torch.Generator().manual_seed(3)
    for d in (2, 9, 40):
        w = torch.randn(d, generator=g, dtype=torch.float64)
        x = 0.5 + torch.randn(50, d, generator=g, dtype=torch.float64)
        y = torch.randint(2, (50,), generator=g)
        two = torch.stack([-w, w])
        known, _ = theory.linear_minimal(
            two, -two.sum(1) / 2, x, y, norm="l2", box=False
        )
        assert torch.allclose(signed_distance(w, x, y).clamp_min(0), known)


def test_the_tasks_are_those_of_the_study() -> None:
    seen_through, lesson, task = defined("ch11", "seen_through", "lesson", "task")
    for experiment, name, strength, points, ours in (
        ("directions", "gap", 0.8, 1000, seen_through(0.8, 3)),
        ("ranks", "rank 2", 4, 1000, lesson(2, 3)[1]),
        ("rows", "coin", 0, 256, task("coin", 3)),
        ("rows", "teacher", 0, 256, task("teacher", 3)),
    ):
        way = "ReLU" if experiment == "ranks" else "plain"
        own = {"experiment": experiment, "task": name, "way": way, "seed": 3}
        theirs = teachers.build({**own, "strength": strength, "points": points}).data
        for part in ("x_train", "x_test", "y_train", "y_test"):
            assert torch.allclose(getattr(ours, part), getattr(theirs, part))
