"""The study of universal perturbations on a small scale."""

import pytest
import torch

from crlib import attacks, studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import networks, universal
from tests.unit.support import rng


def test_every_way_builds_what_it_names(fashion: Dataset) -> None:
    for config in universal.STUDY.grids["quick"][::10]:
        way, strength = config["way"], config["strength"]
        net, options = universal.build(way, strength, config["seed"], fashion)
        twin, _ = networks.build("plain", 0, config["seed"], fashion)
        if way == "scale":
            assert net.weights[0].equal(twin.weights[0])
            with torch.no_grad():
                options["constraint"](net)
            for w in net.weights[:-1]:
                assert float(w.norm()) == pytest.approx(strength, rel=1e-5)


def test_blind_directions_follow_the_law_where_the_network_is_affine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(universal, "DRAWS", 400)
    net = MLP((6, 2, 2), seed=0).double()
    score = torch.tensor([3.0, -2.9, 0, 0, 0, 0], dtype=torch.float64)
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.eye(2, 6))
        net.layers[1].weight.copy_(torch.stack([score[:2], -score[:2]]))
    # Far from zero, where ReLU is the identity.
    x = 100 + torch.rand(40, 1, 1, 6, generator=rng(0), dtype=torch.float64)
    d = x.flatten(1) @ score / score.norm()
    near = attacks.AttackResult(
        x_adv=x - (d[:, None] * score / score.norm()).view_as(x),
        distance=d,
        success=d > 0,
        n_forward=d,
        n_backward=d,
        zero_gradient=d < 0,
        right=d > 0,
        norm="l2",
    )
    bases = universal.spaces(net)
    assert {name: basis.shape for name, basis in bases.items()} == {
        "rows": (6, 2),
        "whole": (6, 6),
    }
    rows, whole = (universal.blind(net, x, near, b, seed=0) for b in bases.values())
    assert rows["share"] == pytest.approx(1)
    for found in (rows, whole):
        for length in (4, 8):
            law, hit = (found[f"{what} {length}"] for what in ("law", "hit"))
            assert hit == pytest.approx(law, abs=0.08) and 0.1 < law < 0.9
    assert rows["law 4"] > whole["law 4"] + 0.1


def test_strong_directions_are_drawn_where_the_layer_sees_more() -> None:
    net = MLP((40, 20, 2), seed=0).double()
    bases = universal.spaces(net)
    assert {b.shape[1] for b in bases.values()} == {20, 40, 16}
    stretch = (net.weights[0] @ bases["strong"]).norm(dim=0)
    assert torch.allclose(stretch, torch.linalg.svdvals(net.weights[0])[:16])


@pytest.mark.parametrize("way", ["rank", "scale"])
def test_a_run_tells_what_the_table_has(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(universal, "DRAWS", 2)
    config = {"way": way, "strength": 5.0, "seed": 0, "checkpoint": "last"}
    config |= {"data": "sample", "epochs": 1, "judged": 40, "attacked": 10}
    found = universal.STUDY.run(config, "cpu")
    assert set(found) <= set(studies.published("universal"))
    assert 0 <= found["universal"] <= 1
    # Blindly drawn is at the end, and never where scale is the question.
    assert ("rows law 2" in found) == (way == "rank")
    early = universal.STUDY.run_many(
        [config | {"checkpoint": rule} for rule in universal.CHECKPOINTS], "cpu"
    )
    assert [row["met"] for row in early] == [False, True]
    assert early[1] == found


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("universal")
    met = table[table["met"]]
    rates = met[["universal", "worst run", "best run"]]
    assert rates.ge(0).all(axis=None) and rates.le(1).all(axis=None)
    assert (met["worst run"] <= met["best run"]).all()
    # A pair of ends reaches what one end reaches, but for the box.
    drawn = met[(met["way"] != "scale") & (met["checkpoint"] == "last")]
    assert (drawn["rows law 2"] <= drawn["rows law 4"]).all()
    assert (drawn["whole law 2"] <= drawn["rows law 2"]).all()
    full = drawn[~drawn["way"].str.startswith("rank")]
    assert full["strong share"].le(full["rows share"] + 1e-9).all()
