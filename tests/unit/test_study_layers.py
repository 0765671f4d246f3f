"""The study of layers measures what its names say."""

import inspect
import math
from typing import Any

import pytest
import torch

from crlib import compress, metrics, studies, theory, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import layers


def trained(fashion: Dataset, way: str, strength: float) -> MLP:
    net, options = layers.build(way, strength, 0)
    model: MLP = train.fit(net, fashion, epochs=2, progress=False, **options).model
    return model


@pytest.fixture(scope="module")
def plain(fashion: Dataset) -> tuple[MLP, dict[str, float]]:
    net = trained(fashion, "plain", 0)
    return net, layers.judge(net, fashion, attacked=40)


def config(way: str, strength: float, **more: Any) -> dict[str, Any]:
    fixed = {"seed": 0, "checkpoint": "last", "data": "sample", "lr": 2e-3}
    return {"way": way, "strength": strength, **fixed, **more}


def test_a_run_is_a_training_in_float64_and_its_judgement(
    fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(layers.SETS, "sample", lambda: fashion)
    one = config("rank", 4, epochs=1, attacked=20)
    found = layers.STUDY.run(one, "cpu")
    assert found["met"] and found["epoch"] == 1
    assert found["spectral error 4"] == 0 < found["spectral error 2"]
    assert found["accuracy, 4 directions"] == pytest.approx(float(found["accuracy"]))
    assert found["error at logits"] == 0 == found["error above zero"]
    net, options = layers.build("rank", 4, 0)
    again = train.fit(
        net, fashion, epochs=1, lr=2e-3, checkpoint="last", progress=False, **options
    )
    assert again.model.weights[0].dtype == torch.float64
    judged = layers.judge(again.model, fashion, dominant=4, attacked=20)
    assert {name: found[name] for name in judged} == judged


def test_every_way_builds_what_it_names() -> None:
    known = set(inspect.signature(train.fit).parameters)
    for way in layers.WAYS:
        net, options = layers.build(way, 0.1 if way != "rank" else 3, 0)
        assert set(options) <= known
        if "penalty" in options:
            options["penalty"](net).backward()
            assert net.layers[0].weight.grad is not None
            with torch.no_grad():
                before = float(options["penalty"](net))
                net.layers[0].weight *= 7
                assert float(options["penalty"](net)) == pytest.approx(before)
    assert len(layers.build("rank", 3, 0)[0].layers[0].right) == 3
    with pytest.raises(ValueError, match="choose one of plain, rank"):
        layers.build("magic", 1, 0)


def test_cuts_are_those_of_compress(
    plain: tuple[MLP, dict[str, float]], fashion: Dataset
) -> None:
    net, found = plain
    x, y = fashion.x_test, fashion.y_test
    for k in (8, 64):
        by_rank = compress.truncate(net, rank=k)
        assert found[f"accuracy, {k} directions"] == metrics.accuracy(by_rank, x, y)
        by_rows = compress.prune(net, 1 - k / 256, structure="rows")
        assert found[f"accuracy, {k} rows"] == metrics.accuracy(by_rows, x, y)


def test_norm_and_slack_make_the_published_bound(
    plain: tuple[MLP, dict[str, float]],
) -> None:
    net, found = plain
    first, second = (
        theory.structure_times_scale(w, layers.HEAD, norm="l2") for w in net.weights[:2]
    )
    scale = found["Frobenius"]
    assert found["norm"] * scale == pytest.approx(first.value)
    bound = found["norm"] * found["head"] * found["slack"] * scale
    assert bound == pytest.approx(first.bound)
    factors = [found[f"{name} product"] for name in ("norm", "head", "slack")]
    assert math.prod(factors) == pytest.approx(first.bound * second.bound)
    norm = metrics.operator_norm(net.weights[0], norm="linf")
    assert found["flatness"] * found["row share"] * scale == pytest.approx(norm)
    assert found["trimmed flatness"] < found["flatness"] < 28


def test_the_journey_ends_at_the_logits_of_the_truncated_network(
    plain: tuple[MLP, dict[str, float]], fashion: Dataset
) -> None:
    net, found = plain
    small = compress.truncate(net, rank=layers.HEAD)
    with torch.no_grad():
        small.layers[0].weight.copy_(net.weights[0])
        a, b = (n(fashion.x_test) for n in (net, small))
    a, b = (v - v.mean(1, keepdim=True) for v in (a, b))
    assert found["error at logits"] == pytest.approx(float((a - b).norm() / a.norm()))
    spectrum = metrics.singular_values(net.weights[1])
    promised = metrics.best_k_error(spectrum, layers.HEAD)
    assert found["error at weights"] == pytest.approx(promised)
    assert 0 < found["error above zero"] < 1 and 0 < found["output above zero"] < 1


def test_a_neuron_that_never_fires_counts_as_rare_and_silent(fashion: Dataset) -> None:
    net, _ = layers.build("plain", 0, 0)
    net = net.double()
    with torch.no_grad():
        net.layers[0].weight[:9] = 0
        net.layers[1].weight[:, 9:] = net.layers[1].weight[:, 9:].abs()
        net.layers[1].weight[0] = -100
    found = layers.judge(net, fashion, attacked=10)
    row = net.weights[1][0].norm() ** 2 / net.weights[1].norm() ** 2
    assert found["rare share"] == pytest.approx(float(row))
    assert found["silent share"] < 0.2


def test_the_attack_of_the_gap_is_sound(
    plain: tuple[MLP, dict[str, float]],
) -> None:
    _, found = plain
    robust = [found["unattacked"], *(found[f"robust {eps}"] for eps in layers.BUDGETS)]
    assert robust == sorted(robust, reverse=True) and robust[-1] < 0.1
    assert found["robust, steps 30"] <= found["robust 0.5"] <= found["robust, steps 1"]
    assert found["gap"] > 0


def test_the_table_holds_what_two_chapters_ask() -> None:
    table = studies.published("layers")
    assert table.select_dtypes("number").notna().all(axis=None)
    for strength in (2, 4, 8, 16, 32, 64):
        assert len(studies.runs(table, way="rank", strength=strength)) == 5
    ranks = table[table["way"] == "rank"]
    assert (ranks["effective rank"] <= ranks["strength"] * (1 + 1e-6)).all()
