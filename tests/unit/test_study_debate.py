"""The study of the debate runs on a small scale, and its table holds what must be."""

from typing import Any

import pytest
import torch

from crlib import data, studies
from crlib.data import Dataset
from crlib.studies import debate


@pytest.fixture(scope="module")
def few() -> Dataset:
    return data.fashion_mnist_sample().double().subset(400, 200)


@pytest.mark.parametrize("first", debate.FIRST)
def test_a_first_layer_has_its_weights_and_its_scale(first: str, few: Dataset) -> None:
    net, options = debate.build(first, 1, few)
    net = net.double()
    layer: Any = net.layers[0]
    w = net.weights[0]
    counts = {"full": 256 * 784, "row penalty": 256 * 784, "column penalty": 256 * 784}
    if first.startswith("rank"):
        found = layer.left.numel() + layer.right.numel()
        assert found == 24 * (784 + 256)
        assert 0.99 < found / (256 * 784 / 8) < 1
        assert torch.linalg.matrix_rank(w) == 24
    else:
        assert int((w != 0).sum()) == counts.get(first, 256 * 784 // 8)
    full = (256 / 3) ** 0.5
    size = full * 8**-0.5 if first.endswith("small start") else full
    assert float(w.norm()) == pytest.approx(size, rel=0.02)
    assert ("penalty" in options) == first.endswith("penalty")


def test_the_forms_are_what_their_names_say(few: Dataset) -> None:
    def mask(first: str, seed: int = 1) -> torch.Tensor:
        return debate.build(first, seed, few)[0].weights[0] != 0

    assert mask("neurons").shape == (32, 784)
    for first in ("pixels", "pixels by variance"):
        assert mask(first).any(0).sum() == 98 and mask(first).any(1).all()
    scattered = mask("scattered")
    assert (scattered.sum(1) == 98).all() and (scattered.sum(0) == 32).all()
    assert not mask("pixels").equal(mask("pixels", 2))
    assert mask("pixels by variance").equal(mask("pixels by variance", 2))
    varied = few.x_train.flatten(1).var(0)
    chosen = mask("pixels by variance").any(0)
    assert varied[chosen].min() >= varied[~chosen].max()


def test_an_unknown_form_is_refused(few: Dataset) -> None:
    with pytest.raises(ValueError, match="choose one of full, neurons"):
        debate.build("rows", 0, few)


@pytest.mark.parametrize("first", ["neurons", "pixels", "scattered", "rank"])
def test_training_keeps_the_form(first: str, few: Dataset) -> None:
    start, _ = debate.build(first, 0, few)
    net = debate.fitted(first, 0, few, epochs=1).model
    before, after = start.weights[0].double(), net.weights[0]
    assert not torch.allclose(before, after)
    if first == "rank":
        assert torch.linalg.matrix_rank(after) == 24
    else:
        assert (before != 0).equal(after != 0)


def test_a_first_layer_that_sees_all_hides_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    net = debate.MLP((6, 9, 3), seed=0).double()
    pairs = torch.randn(50, 6, generator=g, dtype=torch.float64)
    found = debate.first_layer(net, pairs)
    assert found["chi"] == pytest.approx(1) and found["contrast"] >= 1
    w = net.weights[0]
    assert found["norm linf"] == pytest.approx(float(w.abs().sum(1).max() / w.norm()))
    assert found["norm l1"] == pytest.approx(float(w.abs().sum(0).max() / w.norm()))
    layer: Any = net.layers[0]
    layer.weight.data[:, 0] = 0
    blind = debate.first_layer(net, pairs)
    share = pairs[:, 1:].square().sum(1) / pairs.square().sum(1)
    assert blind["chi"] == pytest.approx(float(share.mean().sqrt()))


def test_a_run_tells_all_that_the_table_has_and_tells_it_again() -> None:
    config = {
        "first": "pixels",
        "seed": 0,
        "data": "sample",
        "images": 300,
        "epochs": 1,
        "attacked": 20,
    }
    rules = (*debate.CHECKPOINTS, debate.CASCADE)
    asked = [{**config, "checkpoint": rule} for rule in rules]
    matched, last, again = debate._run(asked, "cpu")
    assert matched == {"epoch": 0, "met": False}
    assert set(last) | set(again) <= set(studies.published("debate"))
    assert debate._run(asked[1:], "cpu") == [last, again]
    same = ("epoch", "met", "train accuracy", "accuracy")
    assert {k: again[k] for k in same} == {k: last[k] for k in same}
    assert {"linf", "chi"}.isdisjoint(again)
    assert last["column error"] == 0 and float(last["row error"]) > 0
    for norm in debate.EPS:
        assert 0 <= float(last[f"robust {norm}"]) <= 1 and float(last[norm]) >= 0


def test_the_cascade_meets_all_images_at_the_budgets(
    few: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = debate.MLP((784, 12, 10), mean=0.286, std=0.353, seed=0).double()
    clean = float((net(few.x_test[:30]).argmax(1) == few.y_test[:30]).double().mean())
    for eps, left in ((1e-9, clean), (20.0, 0.0)):
        monkeypatch.setitem(debate.EPS, "l2", eps)
        found = debate.at_budgets(net, few, attacked=30, norms=("l2",))
        assert found["robust l2"] == pytest.approx(left) and "robust linf" not in found
    assert found["accuracy"] == debate.metrics.accuracy(net, few.x_test, few.y_test)


def test_the_cascade_met_the_networks_of_the_last_epoch() -> None:
    table = studies.published("debate").set_index(["first", "seed"])
    last = table[table["checkpoint"] == "last"]
    strong = table[table["checkpoint"] == debate.CASCADE]
    assert len(strong) == 35
    last = last.loc[strong.index]
    for same in ("epoch", "train accuracy", "accuracy"):
        assert (last[same] - strong[same]).abs().max() < 1e-8
    for norm in ("linf", "l2"):
        gap = last[f"robust {norm}"] - strong[f"robust {norm}"]
        # Of 200 images FMN may fool two that the quick cascade leaves, at most.
        assert gap.min() >= -0.0101 and gap.mean() > -0.005


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("debate")
    table = table[table["checkpoint"] != debate.CASCADE]
    met = table[table["met"].astype(bool)]
    for norm in debate.EPS:
        assert met[f"robust {norm}"].between(0, 1).all()
    assert (met["contrast"] >= 1).all() and met["chi"].between(0, 1).all()
    # A norm of k rows and c columns over the Frobenius norm lies between two roots.
    for first, k, c in (("neurons", 32, 784), ("pixels", 256, 98)):
        own = met[met["first"] == first]
        assert own["norm linf"].between(k**-0.5, c**0.5).all()
        assert own["norm l1"].between(c**-0.5, k**0.5).all()
    assert (met.loc[met["first"].str.startswith("pixels"), "column error"] == 0).all()
    low = met["first"].str.startswith("rank")
    assert (met.loc[low, "spectral error"] < 1e-6).all()
    last = table[table["checkpoint"] == "last"]
    assert last["met"].all() and (last["epoch"] == last["epochs"]).all()
