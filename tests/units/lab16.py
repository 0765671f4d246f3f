"""Lab 16: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab16 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # All polynomials of the degree, and not the harmonic ones.
    Mutation("thm-lab16-floor", "setup", "- less", "- 0 * less"),
    # A sample catches two functions.
    Mutation("thm-lab16-floor", "setup", "1 - n /", "1 - 2 * n /"),
    # The harmonics of the circle on every sphere.
    Mutation(
        "thm-lab16-floor",
        "crlib.studies.lab16.zonal",
        "(2 * k + d - 2) * u",
        "(2 * k + d - 1) * u",
    ),
    # The moments of a Gaussian in place of those of the sphere.
    Mutation("prop-lab16-nuclear", "setup", "c = 3 * d / (d + 4)", "c = 3"),
    # The root of the eigenvalue is left out.
    Mutation("prop-lab16-nuclear", "setup", "values.abs().sqrt()", "values.abs()"),
    # The Frobenius norm in place of the nuclear norm.
    Mutation("prop-lab16-nuclear", "check", '"nuc"', '"fro"'),
]

WRONG = {
    # All monomials of the degree.
    "ex-lab16-floor": """
def kernel_floor(d, q, n):
    return max(0, 1 - n / math.comb(d + q - 1, q))
""",
}


def test_its_dimension_is_that_of_the_study() -> None:
    (dimension,) = defined("lab16", "dimension")
    for d in (2, 3, 7, 10):
        for q in range(6):
            assert dimension(d, q) == study.dimension(d, q)


def test_the_best_prediction_is_that_of_the_kernel_of_the_degree() -> None:
    (missed,) = defined("lab16", "missed")
    given = study.task(200, 0)
    learned, _ = study.fitted("kernel, degree four", given, 0)
    size = study.DIM**0.5
    (error,) = missed(given.x / size, given.beta[None], study.DEGREE)
    x = study.sphere(40_000, torch.Generator().manual_seed(2))
    scale = study.dimension(study.DIM, study.DEGREE) ** 0.5
    y = scale * study.zonal(x @ given.beta / size, study.DIM, study.DEGREE)
    assert abs((learned(x) - y).square().mean() - error) < 0.05
