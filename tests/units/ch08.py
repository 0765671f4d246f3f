"""Chapter 8: mutations of its theorems, wrong answers, its code from scratch."""

import pytest
import torch

from crlib import theory
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    Mutation(
        "prop-gain-ratio", "crlib.theory.gain_ratio", "w.shape[1] /", "w.shape[0] /"
    ),
    # The fourth moment of a Gaussian for that of a coordinate on the sphere.
    Mutation("thm-random-head", "setup", "(h**2 * (h + 2))", "h**3"),
    # The factor two forgotten.
    Mutation("thm-random-head", "setup", "float(2 * excess", "float(excess"),
    # Both sides of the boundary counted.
    Mutation("prop-score", "check", "(40 - 1) / 2) / 2", "(40 - 1) / 2)"),
    # Noise to one side only.
    Mutation("prop-noise-slope", "check", "torch.cat([a, -a,", "torch.cat([a, a,"),
    # Inputs for neurons.
    Mutation("prop-noise-slope", "check", "len(w) ** 0.5", "w.shape[1] ** 0.5"),
    # A mask of signs in place of zeros and ones.
    Mutation("prop-never", "check", "< 0.5).double()", "< 0.5).double() * 2"),
    # The gain in the flat direction, which is only a lower bound of the norm.
    Mutation(
        "thm-mask",
        "crlib.theory.mask_amplification",
        "value=(root + math.sqrt(n + 8)) / 4",
        "value=(root + 1 / root) / 2",
    ),
    # The norm of Sylvester's masked matrix taken for a bound of all: n = 4 beats it.
    Mutation(
        "thm-mask",
        "crlib.theory.mask_amplification",
        "high=(1 + root) / 2",
        "high=(root + math.sqrt(n + 8)) / 4",
    ),
    # A block of Sylvester's construction without its minus sign.
    Mutation("thm-mask", "setup", "torch.cat([h, -h], 1)", "torch.cat([h, h], 1)"),
    # The complement of the projector.
    Mutation(
        "prop-off-data",
        "check",
        "inner = w @ basis @ basis.T",
        "inner = w - w @ basis @ basis.T",
    ),
    # The budget taken off after the scaling by the noise.
    Mutation(
        "thm-rank-one",
        "crlib.theory.rank_one_optimal",
        "return RankOne(sigma * torch.outer(u, mean / distance), u, distance, noise)",
        "return RankOne(sigma * torch.outer(u, mean), u, distance / noise, 1.0)",
    ),
    # The premise on the budget dropped: beyond the mean a constant answer is better.
    Mutation("thm-rank-one", "check", "1.5, 2):", "1.5, 2, 2.5):"),
    # The alignment in place of its inverse.
    Mutation(
        "thm-premises",
        "crlib.theory.radius_premises",
        "* loss / alignment",
        "* loss * alignment",
    ),
]

WRONG = {
    # The law for h that grows without end.
    "ex-typical": """
def typical(h, k):
    from scipy import stats

    return float(stats.chi2.median(k) / k)
""",
    # Keeps what is positive in the matrix, whatever the vectors.
    "ex-best-mask": [
        """
def best_mask(w, a, b):
    return (w > 0).to(w.dtype)
""",
        # The largest entries kept, as pruning does.
        """
def best_mask(w, a, b):
    return (w.abs() >= w.abs().median()).to(w.dtype)
""",
    ],
    # The length of w forgotten.
    "ex-any-direction": [
        """
def robust_accuracy(w, mean, noise, eps):
    from scipy import stats

    return float(stats.norm.cdf((float(w @ mean) - eps) / noise))
""",
        # The variance for the deviation.
        """
def robust_accuracy(w, mean, noise, eps):
    from scipy import stats

    return float(stats.norm.cdf((float(w @ mean / w.norm()) - eps) / noise**2))
""",
    ],
}


def test_moments_of_a_random_head() -> None:
    (head_moments,) = defined("ch08", "head_moments")
    g = torch.Generator().manual_seed(3)
    for h, m in ((1, 5), (6, 3), (9, 9)):
        w = torch.randn(h, m, generator=g, dtype=torch.float64)
        assert head_moments(w) == pytest.approx(theory.random_head_moments(w))
