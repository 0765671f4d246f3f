"""The study of cuts runs on a small scale, and its networks are what it calls them."""

from itertools import pairwise

import pytest
import torch

from crlib import compress, studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import cuts
from crlib.studies.engine import Config


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setitem(cuts.SETS, "sample", lambda: fashion)


def config(way: str, strength: float = 0, tuning: int = 0) -> Config:
    return {
        "hidden": "12-6-12",
        "way": way,
        "strength": strength,
        "tuning": tuning,
        "epochs": 1,
        "seed": 0,
        "data": "sample",
        "attacked": 20,
    }


def test_one_training_is_cut_in_all_ways(quick: None) -> None:
    wanted = [
        config("full"),
        config("rank", 2),
        config("weights", 0.5, tuning=1),
        config("bits", 3, tuning=1),
        config("global", 0.8),
        config("trained at rank", 2),
        config("other seed"),
    ]
    assert len({str(cuts.STUDY.group(c)) for c in wanted}) == 1
    rows = cuts.STUDY.run_many(wanted, "cpu")
    full, rank, _, _, pruned, _, other = rows
    for row in rows:
        assert 0 <= row["robust"] <= 1 and row["l2"] > 0
    assert full["shown linf"] == full["robust linf"] <= other["shown linf"]
    assert rank["moved"] <= rank["bound"] <= rank["bound by norms"]
    assert "moved" not in full and "moved" not in other
    assert sum(pruned[f"rows {i}"] for i in (1, 2, 3)) < 30
    assert cuts.STUDY.run(wanted[0], "cpu") == full


def test_a_cut_is_what_its_name_says() -> None:
    net = cuts.fresh("16-8-16", 0).double()
    assert [len(w) for w in net.weights] == [16, 8, 16, 10]
    kept = {
        way: [int((w.norm(dim=1) > 0).sum()) for w in cuts.cut(net, way, 0.6).weights]
        for way in ("rows", "epsilon", "fixed ratio", "global")
    }
    assert kept["rows"] == [6, 3, 6, 10]
    assert sum(kept["global"]) == sum(kept["epsilon"])
    assert abs(sum(kept["fixed ratio"]) - sum(kept["epsilon"])) <= 2
    zeros = [int((w == 0).sum()) for w in cuts.cut(net, "weights", 0.5).weights]
    assert zeros == [w.numel() // 2 for w in net.weights[:-1]] + [0]
    for w in cuts.cut(net, "rank", 3).weights[:-1]:
        assert torch.linalg.matrix_rank(w) == 3
    x = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    plain, grid = cuts.cut(net, "bits", 4), cuts.cut(net, "bits, input too", 4)
    assert torch.equal(plain.weights[0], compress.quantise(net, bits=4).weights[0])
    assert torch.equal(grid(x), plain((31 * x).round() / 31))
    with pytest.raises(ValueError, match="way is 'magic': choose one of full, rows"):
        cuts.cut(net, "magic", 1)


def test_fine_tuning_keeps_zeros_and_rank_and_comes_before_rounding(
    fashion: Dataset,
) -> None:
    full = cuts.make(cuts.fresh("12-6-12", 0), config("full", tuning=1), fashion)
    cut = cuts.cut(full, "weights", 0.75)
    tuned = cuts.make(full, config("weights", 0.75, tuning=1), fashion)
    for before, after in zip(cut.weights, tuned.weights, strict=True):
        assert (after[before == 0] == 0).all() and not torch.equal(before, after)
    low = cuts.make(full, config("rank", 2, tuning=1), fashion)
    assert all(torch.linalg.matrix_rank(w) == 2 for w in low.weights[:-1])
    again = cuts.make(full, config("full", tuning=1), fashion)
    coarse = cuts.make(full, config("bits", 3, tuning=1), fashion)
    for w, v in zip(
        compress.quantise(again, bits=3).weights, coarse.weights, strict=True
    ):
        assert torch.equal(w, v)


def test_a_cut_that_changes_nothing_moves_nothing() -> None:
    net = MLP((4, 6, 5, 3), seed=1).double()
    x = torch.rand(30, 4, dtype=torch.float64)
    still = cuts.beside(net, net, x)
    assert still["moved"] == still["bound"] == still["bound by norms"] == 0
    assert still["sure"] == still["same"] == 1
    found = [cuts.beside(net, cuts.cut(net, "bits", b), x) for b in (12, 8, 4)]
    assert all(row["moved"] <= row["bound"] <= row["bound by norms"] for row in found)
    assert all(a["bound"] < b["bound"] for a, b in pairwise(found))
    assert all(row["sure"] <= row["same"] for row in found)


def test_the_table_says_what_the_cuts_keep() -> None:
    table = studies.published("cuts")
    for way in ("fixed ratio", "global"):
        for tolerance in (0.2, 0.8):
            rows, epsilon = (
                studies.runs(table, hidden="128-128-128", way=w, strength=tolerance)
                for w in (way, "epsilon")
            )
            columns = ["rows 1", "rows 2", "rows 3"]
            apart = rows[columns].sum(axis=1) - epsilon[columns].sum(axis=1)
            assert apart.abs().max() <= 2
    moved = table.dropna(subset="moved")
    assert (moved["moved"] <= moved["bound"]).all()
    assert (moved["sure"] <= moved["same"]).all()
    full = studies.runs(table, hidden="128-128-128", way="full", tuning=0)
    assert (full["shown linf"] == full["robust linf"]).all()
