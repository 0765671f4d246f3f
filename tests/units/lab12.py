"""Lab 12: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab12 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # A network of h neurons has h kinks, and one piece more.
    Mutation("thm-lab12-pieces", "setup", "math.prod(h + 1 for", "math.prod(h for"),
    # Half the pieces, as if the kinks of one sign did not count.
    Mutation(
        "thm-lab12-pieces", "setup", "math.prod(h + 1 for", "math.prod(h // 2 for"
    ),
    # Layers add to the pieces, they do not multiply them.
    Mutation(
        "thm-lab12-pieces",
        "setup",
        "math.prod(h + 1 for h in widths)",
        "1 + sum(widths)",
    ),
    # A point that survives costs two changes, not four.
    Mutation("thm-lab12-pieces", "check", "pieces([2 * ones + 1]) // 2", "ones // 2"),
    # A first step as steep as the others.
    Mutation(
        "prop-lab12-stable",
        "crlib.studies.lab12.stable",
        "jump[0] /= 2",
        "jump[0] /= 4",
    ),
    # A point costs one change.
    Mutation("prop-lab12-stable", "check", "pieces([h]) // 2", "pieces([h])"),
]

WRONG = {
    # Layers add.
    "ex-lab12-flipped": [
        """
def certainly_flipped(s, widths):
    return max(0, s - (sum(widths) + 1) // 2)
""",
        # One point saved by each piece, where two pieces save one.
        """
def certainly_flipped(s, widths):
    return max(0, s - math.prod(h + 1 for h in widths))
""",
    ],
}


def test_its_sign_changes_are_those_on_a_fine_grid() -> None:
    turns, on_line = defined("lab12", "turns", "on_line")
    g = torch.Generator().manual_seed(5)
    for h in (1, 3, 5):
        w, b, a = torch.randn(3, h, generator=g, dtype=torch.float64)
        net = study.Net(torch.stack([w, 0 * w], 1), b, a, b[0])
        kinks, slopes, value = on_line(w, b, a, float(b[0]))
        ends = kinks[0] - 50, kinks[-1] + 50
        v = torch.linspace(*ends, 400_001, dtype=torch.float64)
        line = torch.stack([v * net.spread[0] + net.middle[0], 0 * v], 1)
        one = net(line) > 0
        assert int((one[1:] != one[:-1]).sum()) == turns(kinks, slopes, value)
