"""Lab 4: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab04


def test_shuffles_move_what_they_say() -> None:
    g = torch.Generator().manual_seed(0)
    w = torch.rand(6, 9, generator=g, dtype=torch.float64)
    moved = {name: shuffle(w, g) for name, shuffle in lab04.SHUFFLES.items()}
    for v in moved.values():
        assert not torch.equal(v, w) and v.shape == w.shape
        assert torch.equal(v.flatten().sort().values, w.flatten().sort().values)
    for name, dim in (("rows", 1), ("columns", 0)):
        assert torch.equal(moved[name].sort(dim).values, w.sort(dim).values)


def test_a_tree_spans_also_where_weights_are_zero() -> None:
    w = torch.zeros(3, 4, dtype=torch.float64)
    assert lab04.tree_weights(w).tolist() == [0] * 6
    w[0], w[:, 0] = 1, 1
    assert lab04.tree_weights(w).tolist() == [1] * 6
    assert lab04.persistence(lab04.tree_weights(w)) == pytest.approx((1 / 6) ** 0.5)


def test_persistence_ignores_a_common_factor(fashion: Dataset) -> None:
    few = fashion.double()
    net = lab04.fitted("start", few, 0)
    double = [2 * w for w in net.weights]
    assert lab04.deep(double) == pytest.approx(lab04.deep(net.weights))
    for a, b in zip(
        lab04.normalised(double), lab04.normalised(net.weights), strict=True
    ):
        assert torch.allclose(a, b)


def test_table() -> None:
    table = studies.published("lab04")
    for way in ("start", *lab04.PENALTIES):
        found = studies.runs(table, way=way)
        assert len(found) == 5
        for n in (1, 2, 3):
            assert (found[f"NP {n}"] >= found[f"floor {n}"]).all()
