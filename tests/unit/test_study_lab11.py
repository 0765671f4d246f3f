"""Lab 11: the study on a small scale, and what its table must hold."""

import math

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab11


def test_more_changes_are_worse() -> None:
    g = torch.Generator().manual_seed(0)
    u = torch.randn(20, 12, generator=g, dtype=torch.float64)
    sums = [lab11.truncated(u, 4, k) for k in range(6)]
    assert all((b < a).all() for a, b in zip(sums, sums[1:], strict=False))
    assert (sums[5] == -math.inf).all()
    falls = [lab11.boxed(u, u - 1, k) for k in range(3)]
    assert torch.allclose(falls[0], u.sum(1)) and torch.allclose(falls[2], falls[0] - 2)


def test_a_mixture_made_alike() -> None:
    mu = lab11.mean_of_length("few", 4)
    assert float(mu.norm()) == pytest.approx(3) and (mu != 0).sum() == 4
    x, y = lab11.mixture(mu, 4000, torch.Generator().manual_seed(0))
    assert ((y[:, None] * x).mean(0) - mu).abs().max() < 0.1
    z, changes = lab11.alike(x, y, mu, torch.Generator().manual_seed(1))
    assert (y[:, None] * z)[:, :4].mean(0).abs().max() < 0.1
    assert torch.equal(changes, (z != x).sum(1))


def test_training_against_changes_withstands_more(fashion: Dataset) -> None:
    x, y, xv, yv = lab11.two_classes(fashion.double())
    assert set(y.tolist()) == {-1.0, 1.0} and x.shape[1] == 784
    robust = []
    for k in (0, 10):
        w, b = lab11.fitted("plain", k, x, y, seed=0)
        score = lab11.worst("plain", 10, w, xv, yv) + yv * b
        robust.append(float((score > 0).double().mean()))
    assert robust[1] > robust[0]


def test_measures_what_its_table_holds(fashion: Dataset) -> None:
    few = fashion.double()
    config = {"part": "mixture", "way": "flat", "strength": 100, "seed": 0}
    found = lab11.run(config, few)
    assert found["clean accuracy"] > found["at will 5"] > found["at will 20"]
    assert found["changes"] == pytest.approx(11.8, rel=0.1) and 5 < found["half"] < 20
    config = {"part": "images", "way": "truncated", "strength": 0, "seed": 0}
    found = lab11.run(config, few)
    for k in lab11.BUDGETS:
        assert found[f"at will {k}"] <= found[f"attacked {k}"] <= 1
    assert 1 <= found["flatness"] <= 28


def test_table() -> None:
    table = studies.published("lab11")
    images = table[table["part"] == "images"]
    assert len(images) == 20
    for k in lab11.BUDGETS:
        # What is guaranteed never exceeds what an attack leaves.
        assert (images[f"at will {k}"] <= images[f"box {k}"]).all()
        assert (images[f"box {k}"] <= images[f"attacked {k}"]).all()
