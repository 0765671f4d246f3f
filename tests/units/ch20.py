"""Chapter 20: mutations of its theorems, wrong answers, its code from scratch."""

import math

import numpy as np
import torch

from crlib import compress, metrics, models
from crlib.studies import interventions, pruned
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The smallest eigenvectors in place of the largest.
    Mutation("thm-ways-kyfan", "setup", ".eigenvectors.flip(1)", ".eigenvectors"),
    # Covariance in place of second moments.
    Mutation(
        "thm-ways-kyfan",
        "setup",
        "moments = z.T @ z / len(z)",
        "moments = torch.cov(z.T)",
    ),
    # The root dropped.
    Mutation("thm-ways-even", "setup", "math.sqrt(k)", "k"),
    # The ratio turned round.
    Mutation("thm-ways-even", "setup", "s[-1] / s[0]", "s[0] / s[-1]"),
    # The whole matrix shrunk, not its strong directions.
    Mutation(
        "thm-ways-clip",
        "setup",
        "s.clamp_max(c)",
        "(s * min(1, c / float(s[0])))",
    ),
    # The windows forgotten, as if it were a fully connected layer.
    Mutation("prop-ways-windows", "setup", "return r * windows", "return r"),
    # The filter's own centre missed.
    Mutation("prop-ways-windows", "check", "torch.eye(9)[4:5]", "torch.eye(9)[3:4]"),
    # The neurons scaled, what reads them not.
    Mutation("prop-ways-rows", "setup", "after.weight.data /= c", "pass"),
    # A direction that the next layer reads most.
    Mutation("prop-ways-unread", "setup", "Vh[-1]", "Vh[0]"),
    # The largest gain as the limit.
    Mutation("prop-ways-unread", "setup", "float(s[-1]) if", "float(s[0]) if"),
    # The adversary pulls the wrong way.
    Mutation("prop-ways-scores", "setup", "x = x - eps * y", "x = x + eps * y"),
    # What is not there is charged like what is: nothing is left out.
    Mutation("prop-ways-scores", "check", "told + (1 - mask) *", "told + 0 *"),
    # Every image weighs the same.
    Mutation("prop-ways-scores", "setup", "* torch.sigmoid(-margin).mean()", "* 0.5"),
]

WRONG = {
    # The scale is not kept.
    "ex-ways-even": """
def even(w, k):
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    return u[:, :k] @ vh[:k]
""",
    # Each row scaled down: in the ball, and not the nearest point.
    "ex-ways-rows": """
def clip_rows(w, c):
    norms = w.abs().sum(1, keepdim=True)
    return w * (c / norms).clamp_max(1)
""",
    # Means over the seeds.
    "ex-ways-front": """
def surely_beaten(small, right, far):
    right, far = right.mean(1), far.mean(1)
    better = (right[:, None] < right) & (far[:, None] < far)
    return (better & (small[:, None] >= small)).any(1)
""",
}


def test_clipping_is_that_of_crlib() -> None:
    (clip,) = defined("ch20", "clip")
    net = models.MLP((9, 7, 5, 3), seed=0).double()
    before = net.weights[:-1]
    with torch.no_grad():
        compress.clip_spectrum(0.4)(net)
    for w, v in zip(before, net.weights[:-1], strict=True):
        assert torch.allclose(clip(w, 0.4), v)


def test_the_best_directions_of_all_pairs_are_the_principal_start() -> None:
    (best,) = defined("ch20", "best_directions")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 12, generator=g).double() * torch.arange(1, 13)
    layer = models.MLP((12, 8, 3), rank=3, seed=0).double().layers[0]
    compress.principal_start(layer, x)
    pairs = (x[:, None] - x).flatten(0, 1)
    inside = metrics.energy_share(layer.right.detach(), best(pairs, 3))
    assert torch.allclose(inside, torch.ones(3).double())


def test_moments_of_unlike_pairs_are_those_of_all_such_pairs() -> None:
    (moments,) = defined("ch20", "unlike_moments")
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 5, generator=g).double(), torch.arange(30) % 3
    z = (x[:, None] - x)[y[:, None] != y]
    assert torch.allclose(moments(x, y), z.T @ z / len(z))


def test_the_front_is_what_no_point_beats() -> None:
    (beaten,) = defined("ch20", "beaten")
    rng = np.random.default_rng(0)
    small, right, far = (rng.integers(0, 4, 40) for _ in range(3))
    for i, found in enumerate(beaten(small, right, far)):
        least = (small <= small[i]) & (right >= right[i]) & (far >= far[i])
        more = (small < small[i]) | (right > right[i]) | (far > far[i])
        assert found == (least & more).any()


def test_the_quotient_is_the_alignment_of_the_study() -> None:
    (quotient,) = defined("ch20", "quotient")
    weights = models.MLP((6, 8, 7, 4), seed=0).double().weights[:-1]
    assert math.isclose(
        quotient(weights[1], weights[0]), interventions._alignment(weights)
    )


def test_what_a_score_hears_is_what_the_study_tells_it() -> None:
    (heard,) = defined("ch20", "heard")
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 9, generator=g).double(), torch.arange(30) % 2
    net = models.MLP((9, 1, 2), seed=0).double()
    # One positive neuron into two logits: a linear classifier where it fires.
    net.layers[0].weight.data.abs_()
    net.layers[1].weight.data = torch.tensor([[0.0], [1.0]]).double()
    x = x.abs()
    model = pruned.Scored(net, "weights", 10).double()
    model.structure = "rows"  # the logits stay as they are
    model.counts = [5]
    torch.nn.functional.cross_entropy(model(x), y).backward()
    w, mask = net.weights[0][0], model.masks()[0][0]
    told = heard(w, mask, x, 2.0 * y - 1, 0.0)
    assert torch.allclose(model.scores[0].grad[0], told)


def test_any_row_norms_can_be_written_and_balancing_undoes_it() -> None:
    (rewritten,) = defined("ch20", "rewritten")
    net = models.MLP((6, 8, 7, 4), seed=0).double()
    other = rewritten(net, 3.0)
    forms = [metrics.balanced(n, rounds=300) for n in (net, other)]
    x = torch.rand(20, 6).double()
    assert torch.allclose(net(x), other(x))
    for w, v in zip(*(form.weights for form in forms), strict=True):
        assert torch.allclose(w, v, rtol=1e-6)
