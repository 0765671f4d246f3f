"""Lab 17: the study on a small scale, and what its table must hold."""

from typing import Any

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import lab17


def test_the_gradient_of_a_network_is_that_of_autograd() -> None:
    g = torch.Generator().manual_seed(0)
    for rank in (0, 3):
        weights = lab17.network(10, g, depth=3, rank=rank)
        x = torch.rand(10, generator=g, dtype=torch.float64, requires_grad=True)
        score = lab17.Pair(weights)(x[None])[0, 0]
        (slope,) = torch.autograd.grad(score, x)
        f, mine = lab17.linearised(weights, x.detach())
        assert f == pytest.approx(float(score)) and torch.allclose(mine, slope)
        # Without biases a ReLU network is its own linearisation at zero.
        assert float(slope @ x) == pytest.approx(f)


def test_a_rank_is_that_of_the_first_layer() -> None:
    g = torch.Generator().manual_seed(1)
    first = lab17.network(20, g, rank=4)[0]
    assert torch.linalg.matrix_rank(first) == 4
    full = lab17.network(20, g)[0]
    assert float(full.square().mean()) == pytest.approx(2 / 20, rel=0.05)


def test_distances_of_a_linear_score() -> None:
    w, x = torch.tensor([[3.0, -4.0]]).double(), torch.tensor([1.0, 0.25]).double()
    found = lab17.radii([w], x)
    assert found["l2"] == pytest.approx(0.4 / float(x.norm()))
    assert found["linf"] == pytest.approx(2 / 7)
    assert found["l1"] == pytest.approx(0.5 / 1.25)


def test_a_power_law_has_its_slope() -> None:
    dims = [4, 16, 64]
    assert lab17.slope(dims, [d**-0.5 for d in dims]) == pytest.approx(-0.5)


@pytest.mark.parametrize("side", [7, 14, 28, 56])
def test_a_picture_keeps_its_mean_at_every_side(fashion: Dataset, side: int) -> None:
    small = lab17.resized(fashion, side)
    assert small.x_train.shape[2:] == (side, side)
    assert torch.allclose(small.x_test.mean((1, 2, 3)), fashion.x_test.mean((1, 2, 3)))


def test_what_a_subspace_keeps() -> None:
    g = torch.Generator().manual_seed(0)
    # Two linear scores, so the margin is linear in all of the space.
    net: Any = MLP((6, 2), std=0.35, seed=0).double()
    x = torch.rand(9, 6, generator=g, dtype=torch.float64)
    whole = lab17.kept(net, x, torch.eye(6, dtype=torch.float64))
    assert whole == pytest.approx(dict.fromkeys(whole, 1.0))
    w = (net.weights[0][0] - net.weights[0][1]).detach()
    own = lab17.kept(net, x, (w / w.norm())[:, None])
    assert own["gradient"] == pytest.approx(1) and own["score"] == pytest.approx(1)
    assert own["input"] < 0.9 and own["distance"] == pytest.approx(1)
    blind = torch.linalg.qr(torch.stack([w, x[0]], 1)).Q[:, 1:]  # across the gradient
    assert lab17.kept(net, x, blind)["gradient"] == pytest.approx(0, abs=1e-12)
    basis = torch.linalg.qr(torch.randn(6, 2, generator=g, dtype=torch.float64)).Q
    found = lab17.kept(net, x[:1], basis)
    p = basis @ basis.T
    score = float((p @ w) @ x[0] / (w @ x[0]))
    share = float((p @ w).square().sum() / w.square().sum())
    assert found["score"] == pytest.approx(score)
    assert found["distance"] == pytest.approx(max(score, 0) / share**0.5)


def test_measures_what_its_table_holds(
    fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab17, "NETS", 20)
    few = fashion.double()
    for part, strength in (("size", 16), ("rank", 2), ("depth", 1)):
        found = lab17.run({"part": part, "strength": strength, "seed": 0}, few)
        assert 0.2 < found["l2"] < 2 and found["l1"] < found["l2"]
    for part, strength in (("trained rank", 4), ("trained side", 7)):
        found = lab17.run({"part": part, "strength": strength, "seed": 0}, few)
        assert 0 < found["robust"] <= 1 and found["l2"] > 0
    found = lab17.run({"part": "kept", "strength": 4, "seed": 0}, few)
    assert set(found) <= set(studies.published("lab17"))
    assert 0 < found["random gradient"] < found["gradient"] < 1


def test_table() -> None:
    table = studies.published("lab17")
    assert len(table) == 5 * len(lab17.SETTINGS)
    trained = table[table["part"].str.startswith("trained")]
    assert (trained["robust"] <= trained["clean accuracy"] + 0.1).all()
    ranks = trained[trained["part"] == "trained rank"]
    # A rank of four leaves nothing beyond four singular values.
    assert (ranks[ranks["strength"] == 4]["spectral error"] < 1e-9).all()
