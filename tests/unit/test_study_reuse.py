"""The study of reuse runs on a small scale, and its table holds what must be."""

from typing import Any

import pytest
import torch

from crlib import data, studies
from crlib.data import Dataset
from crlib.models import LowRankConv2d, LowRankLinear, weight_layers
from crlib.studies import measures, reuse, transfer
from crlib.studies.engine import Config


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "NEXT_EPOCHS", 1)
    monkeypatch.setattr(reuse, "ATTACKED", 20)


@pytest.fixture
def coloured(fashion: Dataset) -> Dataset:
    """Garments of half the side, tinted, in the place of photographs."""
    half = measures.halved(fashion.subset(600, 200)).double()
    tint = torch.tensor([1.0, 0.8, 0.6]).double().view(3, 1, 1)
    x, z = half.x_train * tint, half.x_test * tint
    return data.dataset(x, half.y_train, z, half.y_test)


def configured(experiment: str, way: str, strength: float, **more: Any) -> Config:
    one = {"experiment": experiment, "way": way, "strength": strength, "seed": 1}
    return one | {"data": "sample", "network": "MLP", "epochs": 1, **more}


def test_the_cascade_judges_the_networks_of_the_other_study(
    quick: None, fashion: Dataset
) -> None:
    images = fashion.double()
    found = reuse.run(configured("cascade", "rank", 4), images)
    source, target = (images.of_classes(part) for part in transfer.split(1))
    old = transfer.pretrained("rank", 4, 1, source, epochs=1).model
    for name, learn in (("target", transfer.frozen), ("tuned", transfer.tuned)):
        numbers = reuse.judge(learn(old, target, 1).model, target)
        assert {f"{name} {k}": v for k, v in numbers.items()}.items() <= found.items()
    assert set(found) <= set(studies.published("reuse"))


def test_cut_before_or_after_the_head_the_encoder_is_the_same(
    quick: None, fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Any] = []

    def distances(net: Any, *args: Any) -> dict[str, float]:
        judged.append(net)
        return {}

    monkeypatch.setattr(reuse, "distances", distances)
    monkeypatch.setattr(reuse, "judge", lambda net, images: {})
    for way in reuse.CUT:
        reuse.run(configured("cut", way, 4), fashion.double())
    old, frozen, tuned, whole, later, tuned_later = judged
    for net in (old, frozen, tuned, later, tuned_later):
        assert all(isinstance(layer, LowRankLinear) for layer in net.layers[:-1])
        assert all(torch.linalg.matrix_rank(w) == 4 for w in net.weights[:-1])
    assert not any(isinstance(layer, LowRankLinear) for layer in whole.layers)
    assert all(
        torch.allclose(a, b)
        for a, b in zip(frozen.weights[:-1], later.weights[:-1], strict=True)
    )
    assert not torch.allclose(frozen.weights[-1], later.weights[-1])
    assert not torch.allclose(tuned.weights[0], tuned_later.weights[0])


def test_distances_are_those_of_the_other_study(quick: None, fashion: Dataset) -> None:
    source = fashion.double().of_classes(transfer.split(0)[0])
    net = transfer.pretrained("plain", 0, 0, source, epochs=1).model
    found = reuse.distances(net, source, ("l2", "linf"))
    few = transfer.judge(net, source, attacked=20, norms=("l2", "linf"))
    assert found == pytest.approx({name: few[name] for name in found})


@pytest.mark.parametrize("way", ["plain", "rank, both", "rows, scale-invariant"])
def test_convolutions_on_coloured_images(
    quick: None, coloured: Dataset, way: str
) -> None:
    more = {"data": "CIFAR-10", "network": "ConvNet"}
    config = configured("photographs", way, 4, **more)
    found = reuse.run(config, coloured)
    assert set(found) <= set(studies.published("reuse"))
    for name in ("target", "tuned"):
        assert found[f"{name} l2"] > 0 and 0 <= found[f"{name} cascade l2"] <= 1
    assert found["target linf"] < found["target l2"]
    start, end = (
        reuse.pretrained(config | {"epochs": n}, coloured).model for n in (0, 1)
    )
    low = [m for m in weight_layers(end) if isinstance(m, LowRankConv2d)]
    assert len(low) == (2 if way == "rank, both" else 0)
    assert not torch.equal(weight_layers(start)[0].weight, weight_layers(end)[0].weight)


def test_row_sparsity_leaves_photographs_fewer_rows(
    quick: None, coloured: Dataset
) -> None:
    more = {"data": "CIFAR-10", "network": "ConvNet", "epochs": 6}

    def least(way: str, strength: float) -> float:
        config = configured("photographs", way, strength, **more)
        net = reuse.pretrained(config, coloured).model
        return measures.compressibility(
            [layer.weight.detach().flatten(1) for layer in weight_layers(net)[:-1]]
        )["row error"]

    assert least("rows, scale-invariant", 0.1) < least("plain", 0)


def test_photographs_have_budgets_of_their_own(
    quick: None, coloured: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def cascaded(net: Any, x: Any, y: Any, budgets: Any) -> dict[str, float]:
        asked.append(budgets)
        return {}

    monkeypatch.setattr(reuse, "cascaded", cascaded)
    net = reuse.repair.build({"network": "MLP", "way": "plain", "seed": 0}, coloured)[
        0
    ].double()
    reuse.judge(net, coloured)
    assert asked == [{"l2": 0.25, "linf": 8 / 255}]


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("reuse")
    for name in ("target", "tuned"):
        assert table[f"{name} accuracy"].between(0, 1).all()
        for norm in ("l2", "linf"):
            shares = table[f"{name} cascade {norm}"]
            assert shares.between(0, 1).all()
            # Others were attacked than all that accuracy counts.
            assert (shares <= table[f"{name} accuracy"] + 0.1).all()
    far = table[table["experiment"] != "cascade"]
    assert (far["target linf"] < far["target l2"]).all()
    assert set(table["data"]) == {"sample", "CIFAR-10"}


def test_cut_before_or_after_the_head_the_first_layer_sees_the_same() -> None:
    table = studies.published("reuse")
    before, after = (
        studies.runs(table, experiment="cut", way=way) for way in reuse.CUT
    )
    assert len(before) == len(after) >= 5
    # One encoder while it is frozen, two once it is trained on.
    assert (before["target chi"] - after["target chi"]).abs().max() < 1e-8
    assert (before["tuned chi"] - after["tuned chi"]).abs().max() > 1e-3
    # The plain encoder of the other study, not cut when the old task was judged.
    plain = studies.runs(studies.published("transfer"), way="plain", epochs=14)
    assert (plain["source l2"] - after["source l2"]).abs().max() < 1e-6


def test_the_table_is_of_the_networks_of_the_other_one() -> None:
    table, first = (studies.published(name) for name in ("reuse", "transfer"))
    ours = table[table["experiment"] == "cascade"]
    both = ours.astype({"strength": float}).merge(
        first, on=["way", "strength", "epochs", "seed"]
    )
    assert len(both) == len(ours) > 0
    for name in ("target", "tuned"):
        gap = both[f"{name} accuracy_x"] - both[f"{name} accuracy_y"]
        assert gap.abs().max() < 1e-8
        # One budget, two attackers, the same images.
        told = both[f"{name} cascade l2"] - both[f"{name} robust l2"]
        assert told.abs().max() < 0.05
    # Nearly the budget of the other study, in linf a little more.
    assert (both["target cascade linf"] <= both["target robust linf"] + 0.02).all()
