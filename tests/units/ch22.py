"""Chapter 22: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import data
from crlib.studies import debate
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # Rows and columns swapped in one norm.
    Mutation(
        "thm-debate-side",
        "setup",
        '"columns": (0.5, -0.5)',
        '"columns": (-0.5, -0.5)',
    ),
    # A square root dropped.
    Mutation("thm-debate-side", "check", "math.sqrt(c)", "c ** 0.25"),
    # The floor of the other side.
    Mutation("thm-debate-side", "check", '"linf", size / up', '"linf", size / across'),
    # The Frobenius norm forgotten.
    Mutation("prop-debate-sign", "setup", "v * w.norm() / v.norm()", "v"),
    # The part that carries the norm shrinks with the rest.
    Mutation("prop-debate-sign", "setup", "w + t * (part - w)", "(1 - t) * w"),
]

WRONG = {
    # The columns where the rows count, and the other way round.
    "ex-debate-norms": """
def relative_norms(mask):
    h, m = mask.shape
    scale = (h * m / mask.sum()) ** 0.5
    return scale * mask.sum(0).max() / h, scale * mask.sum(1).max() / m
""",
    # Even rows, and columns as chance has it.
    "ex-debate-scattered": """
def scattered(h, m, n):
    g = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(m, generator=g) for _ in range(h)])
    return order < n
""",
    # Put back the norm that carries, which then never changes.
    "ex-debate-sign": """
def change(w, k, t, scale):
    return 1.0
""",
}


def test_the_patterns_of_the_chapter_are_those_of_the_study() -> None:
    (pattern,) = defined("ch22", "pattern")
    images = data.fashion_mnist_sample().subset(100, 10)
    net, _ = debate.build("scattered", 3, images)
    ours, theirs = pattern("scattered", 256, 784, 1 / 8), net.weights[0] != 0
    for side in (0, 1):
        assert ours.sum(side).equal(theirs.sum(side))
    for kind, first in (("rows", "neurons"), ("columns", "pixels")):
        net, _ = debate.build(first, 3, images)
        kept = int((net.weights[0] != 0).sum())
        assert int(pattern(kind, 256, 784, 1 / 8).sum()) == kept


def test_the_fixed_scale_of_the_chapter_is_a_frobenius_norm() -> None:
    (at_scale_of,) = defined("ch22", "at_scale_of")
    g = torch.Generator().manual_seed(0)
    v, w = torch.randn(2, 5, 7, generator=g).double()
    found = at_scale_of(v, w)
    assert abs(float(found.norm() / w.norm()) - 1) < 1e-12
    assert torch.allclose(found / found.norm(), v / v.norm())
