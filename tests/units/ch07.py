"""Chapter 7: mutations of its theorems, wrong answers, its code from scratch."""

import math

import pytest
import torch

from crlib import metrics, theory
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # No masks: the layers multiplied as if there were no ReLU.
    Mutation(
        "lem-masks",
        "setup",
        "product((0.0, 1.0), repeat=h)",
        "product((1.0,), repeat=h)",
    ),
    # The remainders multiplied.
    Mutation(
        "thm-alignment",
        "crlib.theory.interlayer_alignment",
        "_ratio(later.S, k) + _ratio(",
        "_ratio(later.S, k) * _ratio(",
    ),
    # The mean of the two parts in place of the larger one.
    Mutation(
        "prop-masks", "setup", "torch.maximum(plus, minus)", "((plus + minus) / 2)"
    ),
    # A bound a tenth too small, which only a case of equality sees.
    Mutation(
        "prop-masks",
        "setup",
        "(whole + left * right) / 2)",
        "0.9 * (whole + left * right) / 2)",
    ),
    # The whole of a layer given to both of its pairs.
    Mutation(
        "thm-every-pair",
        "crlib.theory.pairs._searched",
        "[(1 - after, own)",
        "[(1.0, 1.0)",
    ),
    # Only the open mask.
    Mutation(
        "thm-every-pair",
        "crlib.theory.pairs._Pair",
        "torch.arange(2**units)",
        "torch.arange(2**units - 1, 2**units)",
    ),
    # A path that cancels.
    Mutation("prop-path-norm", "crlib.theory.path_norm", ".abs() @ reach", " @ reach"),
    # The probability of being right for that of being wrong.
    Mutation(
        "thm-gap-slope",
        "crlib.theory.gap_slope",
        "(-margins.detach().double())",
        "margins.detach().double()",
    ),
    # As if the first k terms were everything.
    Mutation(
        "thm-gap-slope", "crlib.theory.gap_slope", "(1 - missed**2) / k", "1 - missed"
    ),
    # A layer used in two pairs.
    Mutation("thm-pairs", "crlib.theory.optimal_pairing", "best[i + 2]", "best[i + 1]"),
    # The probability of being right for that of being wrong.
    Mutation(
        "thm-gap", "crlib.theory.logistic_gap_bounds", "(-m).sigmoid()", "m.sigmoid()"
    ),
    # Half the reach.
    Mutation(
        "cor-gap",
        "crlib.theory.logistic_gap_bounds",
        "wrong * math.expm1(reach)",
        "wrong * math.expm1(reach / 2)",
    ),
    # Factors added.
    Mutation("prop-rescale", "check", "math.prod(factors)", "sum(factors)"),
]

WRONG = {
    # The absolute values of all products.
    "ex-worst-mask": """
def worst_mask(v, u):
    return float((v * u).abs().sum())
""",
    # Greedy: the least alignment first.
    "ex-best-pairs": """
def best_pairs(alignments):
    result, free = 1.0, set(range(len(alignments)))
    for i in sorted(free, key=lambda i: alignments[i]):
        if i in free and alignments[i] < 1:
            result *= alignments[i]
            free -= {i - 1, i, i + 1}
    return result
""",
    # The arithmetic mean of the norms.
    "ex-even-norms": """
def balanced(weights):
    norms = [metrics.operator_norm(w) for w in weights]
    common = sum(norms) / len(norms)
    return [w * common / size for w, size in zip(weights, norms)]
""",
}


@pytest.mark.parametrize("k", [1, 2, 5])
def test_alignment(k: int) -> None:
    (alignment,) = defined("ch07", "alignment")
    g = torch.Generator().manual_seed(3)
    for _ in range(10):
        w = torch.randn(6, 4, generator=g, dtype=torch.float64)
        w_next = torch.randn(3, 6, generator=g, dtype=torch.float64)
        found = theory.interlayer_alignment(w_next, w, k, norm="l2")
        assert alignment(w_next, w, k) == pytest.approx(
            (found.dominant, found.remainder)
        )


def test_bounds_without_masks() -> None:
    (without_masks,) = defined("ch07", "without_masks")
    g = torch.Generator().manual_seed(4)
    for units in (13, 30):
        b = torch.randn(units, 4, generator=g, dtype=torch.float64)
        a = torch.randn(3, units, generator=g, dtype=torch.float64)
        found = theory.interlayer_alignment(a, b, units, norm="linf")
        sizes = [metrics.operator_norm(v, norm="linf") for v in (a, b)]
        assert found.dominant * math.prod(sizes) == pytest.approx(
            without_masks(a, b, "linf")
        )
