"""Chapter 16: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import compress, models
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
]

WRONG = {
    # Factors as large as the matrix counted as a saving.
    "ex-compress-factors": """
def largest_rank(h, m):
    return h * m // (h + m)
""",
    # A sum in place of a count: entries may cancel.
    "ex-compress-narrow": """
def narrowed(w1, w2):
    alive = (w1.sum(1) != 0) & (w2.sum(0) != 0)
    return w1[alive], w2[:, alive]
""",
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
