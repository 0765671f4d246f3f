"""Chapter 16: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import compress, models
from crlib.studies import cuts
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # One row short: the error is exceeded.
    Mutation("prop-prune-eps", "setup", "k = 1 + int(", "k = int("),
    # Only the last error counted.
    Mutation(
        "thm-compress-error",
        "setup",
        "local = local + tail *",
        "local = tail *",
    ),
    # The root of two forgotten, and the way to the farthest point.
    Mutation(
        "thm-level-sets",
        "crlib.theory.margin_drift",
        "math.sqrt(2) * drift",
        "drift",
    ),
    Mutation(
        "thm-level-sets",
        "crlib.theory.margin_drift",
        ".norm(dim=1) + far)",
        ".norm(dim=1))",
    ),
]

WRONG = {
    # Factors as large as the matrix counted as a saving.
    "ex-compress-factors": [
        """
def largest_rank(h, m):
    return h * m // (h + m)
""",
        # One factor counted, and two stored.
        """
def largest_rank(h, m):
    return max(k for k in range(min(h, m) + 1) if k * m < h * m)
""",
    ],
    # A sum in place of a count: entries may cancel.
    "ex-compress-narrow": [
        """
def narrowed(w1, w2):
    alive = (w1.sum(1) != 0) & (w2.sum(0) != 0)
    return w1[alive], w2[:, alive]
""",
        # Dead rows go, and neurons that nobody reads stay.
        """
def narrowed(w1, w2):
    alive = w1.abs().sum(1) != 0
    return w1[alive], w2[:, alive]
""",
    ],
    # The change of one logit taken for that of a difference.
    "ex-compress-survive": """
def survives(logits, moved):
    first, second = logits.topk(2, dim=1).values.T
    return first - second > 2 * moved
""",
}


def test_pruning_truncation_and_quantisation() -> None:
    without_small, truncated, rounded, keep_rows = defined(
        "ch16", "without_small", "truncated", "rounded", "keep_rows"
    )
    for seed in range(5):
        net = models.MLP((12, 20, 9, 4), seed=seed).double()
        for share in (0, 0.3, 0.9):
            cut = compress.prune(net, share).weights
            for w, v in zip(net.weights[:-1], cut[:-1], strict=True):
                assert without_small(w, share).equal(v)
        for k in (1, 4):
            cut = compress.truncate(net, rank=k).weights
            for w, v in zip(net.weights[:-1], cut[:-1], strict=True):
                assert torch.allclose(truncated(w, k), v, atol=1e-12)
        for bits in (2, 5, 8):
            cut = compress.quantise(net, bits=bits).weights
            for w, v in zip(net.weights, cut, strict=True):
                assert torch.allclose(rounded(w, bits), v, atol=1e-12)
        for eps in (0, 0.4, 0.9):
            cut = compress.prune_to_error(net, eps).weights
            for w, v in zip(net.weights[:-1], cut[:-1], strict=True):
                assert keep_rows(w, eps).equal(v.norm(dim=1) > 0)


def test_the_bound_of_the_study_is_that_of_the_chapter() -> None:
    (error_bound,) = defined("ch16", "error_bound")
    for seed in range(5):
        net = models.MLP((12, 20, 9, 4), mean=0.3, std=0.4, seed=seed).double()
        x = torch.rand(50, 12, dtype=torch.float64)
        for cut in (compress.prune(net, 0.5), compress.quantise(net, bits=6)):
            found = cuts.beside(net, cut, x)
            h = net.normalize(x)
            local, coarse = error_bound(net.weights, cut.weights, h)
            assert torch.isclose(local.median(), torch.tensor(found["bound"]).double())
            assert abs(float(coarse.median()) / found["bound by norms"] - 1) < 1e-9
            gap = net(x).topk(2, dim=1).values.diff(dim=1).abs().flatten()
            sure = (gap > 2**0.5 * local).double().mean()
            assert found["sure"] == float(sure)
