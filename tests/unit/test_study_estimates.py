"""The study of cheap numbers measures what its names say."""

import math

import pytest
import torch

from crlib import data, studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import estimates
from tests.unit.support import rng


@pytest.fixture(scope="module")
def few() -> Dataset:
    return data.fashion_mnist_sample().double().subset(300, 1000)


@pytest.mark.parametrize("way", [c["way"] for c in estimates.SETTINGS])
def test_every_way_is_trained_as_it_is_named(
    way: str, few: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "IMAGES", 200)
    monkeypatch.setattr(estimates, "EPOCHS", 1)
    setting = next(c for c in estimates.SETTINGS if c["way"] == way)
    net = estimates.trained({**setting, "seed": 0}, few)
    rank = int(torch.linalg.matrix_rank(net.weights[0], rtol=1e-9))
    assert (rank == 16) == way.startswith("rank")
    if way == "adversarial":
        plain = estimates.trained({"way": "plain", "strength": 0.0, "seed": 0}, few)
        assert not torch.allclose(plain.weights[0], net.weights[0], atol=1e-4)


def test_of_scores_that_are_affine_nearby_the_estimate_is_the_distance() -> None:
    # All hidden neurons are on at every image: the network is affine there.
    net = MLP((9, 6, 6, 3), bias=True, seed=0).double()
    with torch.no_grad():
        for layer in net.layers[:-1]:
            layer.weight /= 20
            layer.bias += 4
        net.layers[-1].weight *= 50
    x = 0.3 + 0.4 * torch.rand(60, 9, generator=rng(0), dtype=torch.float64)
    z = net(x)
    with torch.no_grad():
        net.layers[-1].bias -= z.mean(0)
    found = estimates.judge(net, x, net(x).argmax(1))
    assert found["labelled right"] == 1
    for norm in ("l2", "linf"):
        assert found[f"ratio 0.5 {norm}"] == pytest.approx(1, abs=0.02)
        assert found[f"estimate {norm}"] == pytest.approx(found[norm], rel=0.03)
        assert found[f"ranked by estimate {norm}"] > 0.99
        assert found[f"runner-up {norm}"] >= found[f"estimate {norm}"]
    assert found["certificate"] < found["l2"]


def test_the_contrast_is_one_where_all_directions_are_treated_alike() -> None:
    pairs = torch.randn(40, 6, generator=rng(0), dtype=torch.float64)
    even = torch.linalg.qr(torch.randn(9, 6, generator=rng(1)).double()).Q
    assert estimates._contrast(3 * even, pairs) == pytest.approx(1)
    blind = torch.diag(torch.tensor([3.0, 0, 0, 0, 0, 0])).double()
    seen = pairs[:, 0].square() / pairs.square().sum(1)
    expected = 1 / math.sqrt(float(seen.mean()))
    assert estimates._contrast(blind, pairs) == pytest.approx(expected)


def test_the_table_has_seven_kinds_from_five_seeds() -> None:
    table = studies.published("estimates")
    assert table.groupby("way").size().to_dict() == {
        c["way"]: 5 for c in estimates.SETTINGS
    }
    assert (table["certificate"] < table["l2"]).all()
    assert (table["labelled right"] > 0.6).all()
