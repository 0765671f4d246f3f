"""Lab 4: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab04 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The largest entries for a tree.
    Mutation("thm-lab04-tree", "check", "study.tree_weights(w)", "study.largest(w)"),
    # The lightest tree.
    Mutation(
        "thm-lab04-tree", "crlib.studies.lab04.tree_weights", "(2 - w.d", "(1 + w.d"
    ),
    # As many entries as there are vertices.
    Mutation(
        "prop-lab04-floor",
        "crlib.studies.lab04.largest",
        "sum(w.shape) - 1",
        "sum(w.shape)",
    ),
    # The smallest entries.
    Mutation(
        "prop-lab04-floor",
        "crlib.studies.lab04.largest",
        "sum(w.shape) - 1",
        "sum(w.shape) - 1, largest=False",
    ),
    # Products along a path.
    Mutation(
        "prop-lab04-paths", "crlib.studies.lab04.paths", "torch.minimum", "torch.mul"
    ),
    # The worst path.
    Mutation("prop-lab04-paths", "crlib.studies.lab04.paths", "amax(1)", "amin(1)"),
]

WRONG = {
    # Two edges of a cycle too many.
    "ex-lab04-tree": """
def tree_weights(w):
    return w.flatten().topk(sum(w.shape) - 1).values
""",
}


def test_the_tree_of_the_study_is_the_heaviest_of_all() -> None:
    (all_trees,) = defined("lab04", "all_trees")
    trees = all_trees(2, 4)
    assert len(trees) == 32
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        w = torch.rand(2, 4, generator=g, dtype=torch.float64)
        best = max(sum(float(w[edge]) for edge in tree) for tree in trees)
        assert abs(float(study.tree_weights(w).sum()) - best) < 1e-12
