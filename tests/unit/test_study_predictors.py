"""The study of cheap numbers runs in small, and its table holds what must be."""

import math
from typing import Any

import pytest
import torch

from crlib import metrics, studies
from crlib.models import MLP, LowRankLinear
from crlib.studies import predictors


def config(family: str, way: str, strength: float, how: str = "standard") -> Any:
    return {
        "family": family,
        "train": how,
        "way": way,
        "strength": strength,
        "epochs": 1,
        "seed": 0,
        "data": "sample",
        "attacked": 20,
    }


def test_each_family_is_what_its_name_says() -> None:
    dial, _ = predictors.made(config("dial", "spectral dial", 1))
    s = metrics.singular_values(dial.weights[0])
    assert float(s[1] / s[0]) == pytest.approx(1 / 2, rel=0.3)
    rows, _ = predictors.made(config("dial", "row dial", 1))
    sizes = metrics.row_norms(rows.weights[0]).sort(descending=True).values
    assert float(sizes[3] / sizes[0]) == pytest.approx(1 / 4, rel=1e-6)
    low, _ = predictors.made(config("rank", "rank", 8))
    assert isinstance(low.layers[0], LowRankLinear)
    cut, _ = predictors.made(config("cut", "rows", 0.25))
    plain, images = predictors.made(config("time", "plain", 0))
    assert int((cut.weights[0].norm(dim=1) > 0).sum()) == 96
    assert int((plain.weights[0].norm(dim=1) > 0).sum()) == 128
    kept = cut.weights[0].norm(dim=1) > 0
    assert torch.equal(cut.weights[0][kept], plain.weights[0][kept])
    assert images.x_train.shape == (2000, 1, 14, 14)


def test_a_run_tells_all_that_the_table_has_and_tells_it_again() -> None:
    own = config("rank", "rank", 8)
    found = predictors.STUDY.run(own, "cpu")
    table = studies.published("predictors")
    assert set(found) | set(own) <= set(table)
    assert predictors.STUDY.run(own, "cpu") == found
    assert predictors.STUDY.fingerprint is not None
    assert predictors.STUDY.fingerprint(own) == table["fingerprint"].iloc[0]


def test_the_strongest_rival_is_not_nearer_than_the_nearest() -> None:
    _, images = predictors.made(config("time", "plain", 0))
    net = MLP((196, 10), seed=0).double()
    x, y = images.x_test[:50], images.y_test[:50]
    slopes = predictors._gradients(net, x, y)
    one = metrics.margin(net(x), y).detach() / slopes.norm(dim=1)
    every = metrics.first_order(net, x, y)
    right = one > 0
    assert right.any()
    assert (every[right] <= one[right] * (1 + 1e-9)).all()
    assert (
        predictors._noise(x)
        .flatten(1)
        .norm(dim=1)
        .allclose(torch.ones(50, dtype=torch.float64))
    )


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("predictors")
    for norm in ("l2", "linf"):
        assert (table[f"certificate {norm}"] <= table[norm]).all()
        assert (table[f"first order {norm}"] <= table[f"one rival {norm}"] + 1e-9).all()
    assert (table["linf"] <= table["l2"]).all()
    assert (table["l2"] <= math.sqrt(196) * table["linf"]).all()
    assert table["chi"].between(0, 1).all() and (table["contrast"] >= 0.9).all()
    assert (table["stable rank"] >= 1).all()
    low = table[table["way"] == "rank"]
    assert (low["stable rank"] <= low["strength"] + 1e-9).all()
    full = table[(table["family"] == "dial") & (table["strength"] == 0)]
    assert full["stable rank"].to_numpy() == pytest.approx(128, rel=0.05)
