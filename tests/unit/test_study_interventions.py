"""The study of interventions runs on few images, and its table holds what must be."""

from typing import Any

import pytest
import torch

from crlib import compress, data, metrics, models, studies, train
from crlib.studies import interventions

GRID = interventions.STUDY.grids["quick"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few = data.fashion_mnist_sample().subset(300, 60).double()
    monkeypatch.setattr(interventions, "_part", lambda name: few)
    monkeypatch.setattr(interventions, "EPOCHS", 2)
    monkeypatch.setattr(interventions, "MATCH", 0.3)
    universal = interventions.attacks.universal
    monkeypatch.setattr(
        interventions.attacks,
        "universal",
        lambda *a, **options: universal(*a, **options | {"epochs": 1}),
    )


def config(way: str, strength: float) -> dict[str, Any]:
    return {"way": way, "strength": strength, "seed": 0, "data": "sample"}


def trained(way: str, strength: float) -> models.MLP:
    net, images, options = interventions.build(config(way, strength))
    model: models.MLP = train.fit(net, images, **options).model
    return model


@pytest.mark.parametrize("way", ["plain", "rank, condition"])
def test_a_training_is_judged_at_both_checkpoints(quick: None, way: str) -> None:
    configs = [
        {**config(way, 0.03), "checkpoint": rule} for rule in ("matched", "last")
    ]
    found = interventions._run(configs, "cpu")
    table = studies.published("interventions")
    assert all(set(numbers) <= set(table) for numbers in found)
    assert found[1]["met"] and ("kept 0.5" in found[1]) == (way == "plain")
    assert found == interventions._run(configs, "cpu")


def test_each_constraint_holds_what_it_names(quick: None) -> None:
    for way in ("clipped", "scaled"):
        weights = trained(way, 0.7).weights[:-1]
        assert all(metrics.operator_norm(w) <= 0.7 * (1 + 1e-9) for w in weights)
    # Clipping evens a spectrum out, and scaling leaves it.
    even, uneven = (
        metrics.stable_rank(metrics.singular_values(trained(way, 0.7).weights[0]))
        for way in ("clipped", "scaled")
    )
    assert even > 1.5 * uneven
    s = metrics.singular_values(trained("rank, both", 0).weights[0])
    assert float(s[0] / s[interventions.RANK - 1]) == pytest.approx(1, rel=1e-6)


def test_the_condition_penalty_is_the_spread_of_the_squared_spectrum() -> None:
    net = models.MLP((9, 7, 6, 3), rank=4, seed=0).double()
    squares = [torch.linalg.svdvals(w)[:4].square() for w in net.weights[:-1]]
    right = sum(2 * float(a.std(correction=0)) for a in squares)
    found = float(interventions.condition(0.5)(net).detach())
    assert found == pytest.approx(0.5 * right)
    with torch.no_grad():
        compress.orthonormal_factors()(net)
    penalty = interventions.condition(1.0)(net)
    penalty.backward()
    assert float(penalty.detach()) < 1e-5
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_a_frobenius_denominator_divides_by_the_stable_ranks_too() -> None:
    net = models.MLP((9, 7, 6, 5, 3), seed=0).double()
    w = net.weights[:-1]
    sizes = [metrics.stable_rank(metrics.singular_values(v)) for v in w]
    right = sum(
        interventions._alignment([before, after]) / (sizes[i] * sizes[i + 1]) ** 0.5
        for i, (before, after) in enumerate(zip(w, w[1:], strict=False))
    )
    found = float(interventions.by_frobenius(0.5)(net).detach())
    assert found == pytest.approx(0.5 * right, rel=1e-9)


def test_without_its_top_direction_a_layer_has_the_rest() -> None:
    for rank in (None, 4):
        net = models.MLP((9, 7, 6, 3), rank=rank, seed=0).double()
        cut = interventions.without_top(net)
        for w, v in zip(net.weights[:-1], cut.weights[:-1], strict=True):
            s = torch.linalg.svdvals(w)
            assert torch.allclose(torch.linalg.svdvals(v)[:3], s[1:4])
        assert cut.weights[-1].equal(net.weights[-1])


def test_the_measured_alignment_is_the_penalised_one() -> None:
    net = models.MLP((9, 7, 6, 5, 3), seed=0).double()
    x, y = torch.rand(30, 20).double(), torch.arange(30) % 3
    found = interventions.structure(_wide(), x, y)
    assert 0 < found["alignment"] <= 1
    sums = float(compress.alignment(1.0)(net).detach())
    assert interventions._alignment(net.weights[:-1]) == pytest.approx(sums / 2, 1e-3)


def _wide() -> models.MLP:
    return models.MLP((20, 20, 20, 3), seed=1).double()


def test_at_an_open_mask_the_alignment_in_use_is_that_of_the_weights() -> None:
    net = _wide()
    for layer in list(net.layers)[:-1]:
        layer.weight.data.abs_()
    found = interventions.in_use(net, torch.rand(4, 20).double())
    assert found == pytest.approx(interventions._alignment(net.weights[:-1]))


def test_pruning_without_error_keeps_the_network(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interventions, "EPSILONS", (0.0,))
    net, images, _ = interventions.build(config("plain", 0))
    net = net.double()
    found = interventions.pruned(net, images)
    whole = metrics.accuracy(net, images.x_test, images.y_test)
    for name in ("", "balanced "):
        assert found[f"{name}kept 0.0"] == 1
        assert found[f"{name}error 0.0"] == pytest.approx(whole)
    assert found["as many 0.0"] == pytest.approx(whole)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of"):
        interventions.build(config("magic", 0))


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("interventions")
    table = table[table.met]
    for name in ("accuracy", "alignment", "labels without top", "beta", "top seen"):
        assert table[name].between(0, 1).all()
    clipped = table[table.way.isin(["clipped", "scaled"])]
    assert (clipped["norm"] <= clipped.strength * (1 + 1e-9)).all()
    both = table[table.way == "rank, both"]
    assert (both["condition"] - 1).abs().max() < 1e-6
    full = table[~table.way.str.startswith("rank")]
    # A larger error leaves fewer rows.
    assert (full["kept 0.5"] <= full["kept 0.2"]).all()
    assert (table["train accuracy"] >= interventions.MATCH)[
        table.checkpoint == "matched"
    ].all()
