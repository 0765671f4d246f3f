"""Lab 8: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import lab08


def test_uncertainties_of_a_level_loss() -> None:
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)).double()
    level = lab08.scaled(MLP((4, 3), seed=0).double(), 1e-9)
    dx, dp = lab08.conjugates(level, x, torch.arange(30) % 3)
    assert dx == pytest.approx(float(x.var(0, correction=0).sum().sqrt()), rel=1e-6)
    assert 0 < dp < 1e-8


def test_a_linear_network_has_its_radius() -> None:
    net = MLP((4, 2), seed=0).double()
    x = torch.rand(10, 4, generator=torch.Generator().manual_seed(0)).double()
    c = net.weights[0][0] - net.weights[0][1]
    y = net(x).argmax(1)
    found = lab08.first_order_radius(lab08.scaled(net, 3.0), x, y)
    assert torch.allclose(found, (x @ c).abs() / c.norm())


def test_trainings_differ_in_their_way_alone(
    fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab08, "EPOCHS", (1,))
    few = fashion.double().subset(200, 20)
    nets = {
        way: lab08.fitted(way, strength, few, 0).model
        for way, strength in (("plain", 0.0), ("decay", 2.0), ("adversarial", 0.5))
    }
    sizes = {way: float(net.weights[0].norm()) for way, net in nets.items()}
    assert sizes["decay"] < sizes["plain"] != sizes["adversarial"]


def test_table() -> None:
    table = studies.published("lab08")
    assert len(table) == 15
    for epoch in lab08.EPOCHS:
        # Robust at a radius: no more than are right.
        assert (table[f"robust {epoch}"] <= 1).all()
        assert (table[f"l2 {epoch}"] > 0).all()
    # A tenth of the logits is a smaller slope, ten times of them a larger one.
    assert (table["dp times 0.1"] < table["dp 32"]).all()
