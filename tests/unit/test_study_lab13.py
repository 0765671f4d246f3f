"""Lab 13: the study on a small scale, and what its table must hold."""

import math

import torch

from crlib import studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import lab13


def test_a_frozen_backbone_stays_and_the_branch_moves(fashion: Dataset) -> None:
    few = fashion.subset(128, 20)
    old = MLP((784, 8, 10)).double()
    net = lab13.Dilated(old, MLP((784, 4, 10), seed=1).double())
    start = net.branch.weights[0].clone()
    found, _ = lab13.constrained(net, few, 0.0, 0, epochs=2)
    for kept, given in zip(found.backbone.weights, old.weights, strict=True):
        assert torch.equal(kept, given)
    assert not torch.equal(found.branch.weights[0], start)
    assert torch.equal(net.branch.weights[0], start), "the caller's net stays"
    assert torch.allclose(found(few.x_test), old(few.x_test) + found.branch(few.x_test))
    assert lab13.first_layer(found).shape == (12, 784)


def test_the_multiplier_rises_under_a_limit_that_is_not_met(fashion: Dataset) -> None:
    few = fashion.subset(256, 20)
    net = MLP((784, 8, 10)).double()
    most = [
        lab13.constrained(net, few, limit, 0, epochs=1)[1]
        for limit in (math.inf, 9.0, 0.0)
    ]
    assert most[0] == most[1] == 0 < most[2]


def test_each_way_trains_what_it_says(fashion: Dataset) -> None:
    few = fashion.subset(128, 20)
    old = MLP((784, lab13.HIDDEN, lab13.HIDDEN, 10)).double()
    assert lab13.fitted("backbone", old, few, 0) == (old, 0.0)
    frozen = {}
    for way in ("dilated", "dilated, all trained"):
        net, _ = lab13.fitted(way, old, few, 0)
        frozen[way] = torch.equal(net.backbone.weights[0], old.weights[0])
    assert frozen == {"dilated": True, "dilated, all trained": False}


def test_table() -> None:
    table = studies.published("lab13")
    assert len(table) == 5 * len(lab13.SETTINGS)
    backbone = studies.runs(table, way="backbone")
    assert (backbone[["width", "repaired", "multiplier"]] == 0).all(axis=None)
    for _, rows in table.groupby("seed"):
        assert rows["deficit"].nunique() == 1, "one backbone a seed"
    # What is told for certain to keep its label keeps it.
    assert (table["sure"] <= table["same"]).all()
    assert (table["robust 0.1"] <= table["borrowed"]).all()
