"""Chapter 9: mutations of its theorems, wrong answers, its code from scratch."""

import pytest
import torch

from crlib import theory
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The sine in place of the cosine.
    Mutation(
        "prop-sum",
        "check",
        "r.sum(), (x2 - x1).norm() * cos",
        "r.sum(), (x2 - x1).norm() * (1 - cos**2).sqrt()",
    ),
    # The rival's logit at its own point.
    Mutation(
        "prop-linear",
        "setup",
        "logits.diagonal()[:, None] - logits.T",
        "logits.diagonal()[:, None] - logits.diagonal()",
    ),
    # The whole distance for half of it.
    Mutation("prop-linear", "crlib.theory.features._radii", ") / 2", ")"),
    # The entry above the diagonal forgotten.
    Mutation(
        "thm-one-hot",
        "crlib.theory.one_hot_attack",
        "r[-2, -2] - r[-2, -1]",
        "r[-2, -2]",
    ),
    # One degree of freedom too few.
    Mutation("thm-law", "check", "stats.chi2(d - n + 1)", "stats.chi2(d - n + 2)"),
    # The triangular factor not inverted.
    Mutation(
        "thm-law",
        "crlib.theory.interpolation_radii",
        "solve_triangular(r, q.T, upper=True)",
        "matmul(r, q.T)",
    ),
    # All features for the narrow ones.
    Mutation(
        "prop-bottleneck",
        "crlib.theory.bottleneck_radii",
        "len(x), m, gen",
        "len(x), len(x), gen",
    ),
    # Factors peeled without the basis of the one before.
    Mutation(
        "thm-depth", "crlib.theory.product_factor", "_factors(g @ q)", "_factors(g)"
    ),
    # The depth in the exponent forgotten.
    Mutation("thm-depth", "check", "-t / 2 * (float", "-1 / 2 * (float"),
    # The hull of a cube of twice the side.
    Mutation(
        "prop-cube",
        "crlib.theory.sign_cube_radii",
        "bounds=(-1, 1)",
        "bounds=(-0.5, 0.5)",
    ),
    # A hull that is too large: the neighbour's distance, which no hyperplane keeps.
    Mutation(
        "prop-cube",
        "crlib.theory.sign_cube_radii",
        ".abs()), hull, neighbour",
        ".abs()), neighbour, neighbour",
    ),
    # The ball about x reaches where the slope is not between the two bounds.
    Mutation("prop-path", "check", "(0.0, 0.15)", "(0.0, 0.6)"),
    # The length of the way for the integral of the cosine.
    Mutation(
        "prop-path", "crlib.theory.path_identity", "(cosine * counted)", "counted"
    ),
]

WRONG = {
    # The ratio in place of its square.
    "ex-classes": """
def most_classes(d, ratio):
    return min(d, math.floor(d + 1 - d * ratio + 1e-9))
""",
    # A bias that enters the norm as one more weight.
    "ex-bias": [
        """
def bias_radii(x):
    w = torch.linalg.pinv(torch.cat([x, torch.ones_like(x[:1])]))[:, :-1]
    return 1 / (w[:, None] - w).norm(dim=2)
""",
        # No bias: the distances depend on where the origin is.
        """
def bias_radii(x):
    w = torch.linalg.pinv(x)
    return 1 / (w[:, None] - w).norm(dim=2)
""",
    ],
    # The mean over the corners.
    "ex-worst-corner": """
def worst_corner(w, a):
    return float((a.T @ w)[-1] / w.norm())
""",
    # Sine and cosine exchanged.
    "ex-third": """
def three_points(c):
    s = math.sqrt(1 - c * c)
    return torch.tensor([[s, -s, 0.0], [c, -c, 1.0], [1.0, 1.0, 0.0]])
""",
}


@pytest.mark.parametrize("n", [2, 7, 12])
def test_radii_of_interpolation(n: int) -> None:
    gaussian, radii, pairs = defined("ch09", "gaussian", "radii", "pairs")
    for seed in range(10):
        x = gaussian(12, n, seed)
        found = theory.interpolation_radii(x).radius
        assert torch.allclose(pairs(radii(torch.linalg.pinv(x), x)), pairs(found))
