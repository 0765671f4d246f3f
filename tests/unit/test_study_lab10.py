"""Lab 10: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab10


def test_the_best_head_has_no_slope(fashion: Dataset) -> None:
    z, y = lab10.random_features(fashion.double(), 30, 0)
    z[:, 3] = 0
    head = lab10.best_head(z, y, lam=0.5).requires_grad_()
    loss = (z @ head.T - y).square().sum(1).mean()
    loss = loss + 0.5 * (z.square() @ head.square().sum(0)).mean()
    parts = lab10.split(z, head.detach(), y, lam=0.5)
    assert float(loss.detach()) == pytest.approx(sum(parts))
    (slope,) = torch.autograd.grad(loss, head)
    assert float(slope.abs().max()) < 1e-10
    assert (head[:, 3] == 0).all() and torch.isfinite(head).all()


def test_masks_have_mean_one() -> None:
    drawn = lab10.mask(torch.Size([200, 100]), torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0.0, 2.0}
    assert float(drawn.mean()) == pytest.approx(1, abs=0.02)


def test_training_lowers_the_loss_it_trains(fashion: Dataset) -> None:
    few = fashion.double()
    x, y = lab10.pooled(few.x_train[:100]), few.y_train[:100]
    for way in ("dropout", "none"):
        before, after = lab10.trained(way, 8, x, y, 0, epochs=20)
        losses = []
        for net in (before, after):
            z = net.features(x).detach()
            parts = lab10.split(z, net.weights[1], lab10.targets(y))
            losses.append(sum(parts) if way == "dropout" else parts[0])
        assert losses[1] < losses[0]
    again = lab10.trained(way, 8, x, y, 0, epochs=20)[1]
    assert torch.equal(again.weights[0], after.weights[0])


def test_measures_what_its_table_holds(fashion: Dataset) -> None:
    few = fashion.double()
    config = {"part": "features", "way": "random", "strength": 16, "seed": 0}
    found = lab10.run(config, few)
    assert 0 < found["variance"] and found["variance"] + found["bias"] < 1
    found = lab10.run({**config, "part": "trained", "way": "dropout"}, few)
    assert found["variance"] < found["variance before"]
    assert 0 < found["changed"] < 1 and found["linf"] < found["l2"]


def test_table() -> None:
    table = studies.published("lab10")
    for h in lab10.WIDTHS:
        found = studies.runs(table, part="features", way="random", strength=h)
        # Answering zero has an expected loss of one.
        assert len(found) == 5 and (found["bias"] + found["variance"] < 1).all()
