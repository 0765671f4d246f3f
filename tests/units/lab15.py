"""Lab 15: mutations of its theorem, wrong answers, its code from scratch."""

import torch

from crlib.studies import lab15 as study
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The arithmetic mean.
    Mutation(
        "thm-lab15-split",
        "crlib.studies.lab15.cross_entropy_split",
        "mean = logp.mean(0)",
        "mean = logp.exp().mean(0).log()",
    ),
    # The geometric mean without its normalisation.
    Mutation(
        "thm-lab15-split",
        "crlib.studies.lab15.cross_entropy_split",
        "bias = log_z - mean",
        "bias = -mean",
    ),
    Mutation("thm-lab15-split", "setup", ".log_softmax(-1).exp()", ".exp()"),
    # All of the variance taken from the bias, and not its share.
    Mutation(
        "thm-lab15-split",
        "crlib.studies.lab15.squared_split",
        "- spread / m",
        "- spread",
    ),
]

WRONG = {
    # The arithmetic mean as the centre.
    "ex-lab15-split": """
def split(p, y):
    c = p.mean(0)
    bias = -c[torch.arange(len(y)), y].log().mean()
    return bias, (c * (c.log() - p.log())).sum(2).mean()
""",
}


def test_its_centre_has_the_variance_of_the_study() -> None:
    kl, centre = defined("lab15", "kl", "centre")
    g = torch.Generator().manual_seed(3)
    logp = torch.randn(5, 8, 6, generator=g, dtype=torch.float64).log_softmax(2)
    y = torch.randint(6, (8,), generator=g)
    told = torch.tensor(study.cross_entropy_split(logp, y)[1], dtype=torch.float64)
    assert torch.allclose(kl(centre(logp), logp), told)
