"""The study of adversarial training measures what its names say."""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from crlib import attacks, data, metrics, models, studies, train
from crlib.studies import adversarial, measures, repair
from crlib.studies.engine import Config

GRID = adversarial.STUDY.grids["quick"]
EVERY = [*GRID, *adversarial.STUDY.grids["full"]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    few = measures.halved(data.fashion_mnist_sample().subset(200, 60).double())
    monkeypatch.setattr(adversarial, "small", lambda name, count: few)
    yield


def kept(net: Any, images: data.Dataset) -> float:
    pairs = measures.differences(images.x_test, images.y_test)
    return measures.surviving(net, pairs)


def config(**wanted: Any) -> Config:
    found = next(c for c in EVERY if all(c.get(k) == v for k, v in wanted.items()))
    return {**found, "epochs": 2, "attacked": 20}


def test_a_run_is_a_training_and_its_judgement(quick: None) -> None:
    one = config(train="linf", way="rank, both")
    found = adversarial.STUDY.run(one, "cpu")
    net, images, options = adversarial.build(one)
    fitted = train.fit(net, images, progress=False, **options)
    judged = adversarial.judge(fitted.model, images, ("linf",), attacked=20)
    assert {name: found[name] for name in judged} == judged
    assert fitted.model.weights[0].dtype == torch.float64
    assert found["epoch"] == 2 and found["right"] <= 1
    x, y = images.x_test[:20], images.y_test[:20]
    assert judged["right"] == metrics.accuracy(fitted.model, x, y)


def test_the_adversary_is_that_of_the_norm(quick: None) -> None:
    damage = {"experiment": "damage", "way": "plain"}
    coloured = {"experiment": "photographs", "network": "ConvNet"}
    for eps, norm, wanted in (
        (adversarial.EPS["linf"], "linf", {**damage, "train": "linf"}),
        (adversarial.EPS["l2"], "l2", {**damage, "train": "l2"}),
        (adversarial.EPS["linf"], "linf", {**damage, "train": "TRADES"}),
        (0.1, "linf", {"experiment": "budgets", "eps": 0.1}),
        (8 / 255, "linf", coloured),
    ):
        net, images, options = adversarial.build(config(**wanted))
        x, y = images.x_train[:5], images.y_train[:5]
        moved = options["adversary"](net.double(), x, y, torch.Generator())
        step = (moved - x).flatten(1)
        size = step.norm(dim=1, p=math.inf if norm == "linf" else 2)
        assert (size <= eps + 1e-9).all() and size.max() > 0.5 * eps
        assert options.get("trades") == (6 if "TRADES" in wanted.values() else None)
    assert "adversary" not in adversarial.build(config(train="standard"))[2]


def test_the_adversary_of_trades_does_not_look_at_labels(quick: None) -> None:
    found = []
    for how in ("TRADES", "linf"):
        one = config(experiment="damage", train=how, way="plain")
        net, images, options = adversarial.build(one)
        x, y = images.x_train[:5], images.y_train[:5]
        chance = torch.Generator()
        moved = [
            options["adversary"](net.double(), x, labels, chance.manual_seed(0))
            for labels in (y, (y + 1) % 10)
        ]
        found.append(torch.equal(*moved))
    assert found == [True, False]


@pytest.mark.parametrize("network", ["MLP", "ConvNet"])
def test_on_photographs_the_training_is_that_of_the_repair_with_an_adversary(
    quick: None, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = config(experiment="photographs", network=network, way="rank, both")
    two = [{**one, "checkpoint": rule} for rule in ("last", "robust")]
    last, robust = adversarial.STUDY.run_many(two, "cpu")  # type: ignore[misc]
    net, images, options = adversarial.build(one)
    fitted = train.fit(net, images, progress=False, **options)
    judged = adversarial.judge_photographs(fitted.model, images, attacked=20)
    assert {name: last[name] for name in judged} == judged
    assert last["epoch"] == 2 and robust["epoch"] in (1, 2)
    assert ("chi" in last) == (network == "MLP")
    x, y = images.x_test[:20], images.y_test[:20]
    hit = attacks.worst_case(fitted.model, x, y, eps=0.5, norm="l2", budget="quick")
    assert last["robust l2"] == hit.robust_accuracy
    seen: list[dict[str, Any]] = []
    fit = train.fit

    def watched(*both: Any, **more: Any) -> train.Fit:
        seen.append(more)
        return fit(*both, **more)

    monkeypatch.setattr(train, "fit", watched)
    repair.fitted({**one, "data": "sample"}, images)
    repairs = {name: v for name, v in seen[0].items() if name in options}
    for name in ("epochs", "lr", "batch_size", "schedule", "seed", "constrain_every"):
        assert repairs[name] == options[name]
    assert set(options) - set(repairs) == {"adversary"}


def test_another_budget_is_that_of_training_and_of_judging(quick: None) -> None:
    one = config(experiment="budgets", eps=0.1, way="plain")
    found = adversarial.STUDY.run(one, "cpu")
    net, images, options = adversarial.build(one)
    fitted = train.fit(net, images, progress=False, **options)
    usual = adversarial.judge(fitted.model, images, ("linf",), attacked=20)
    x, y = images.x_test[:20], images.y_test[:20]
    hit = attacks.worst_case(fitted.model, x, y, eps=0.1, budget="quick")
    assert found["robust linf"] == hit.robust_accuracy < usual["robust linf"]
    moved = {name for name, value in usual.items() if found[name] != value}
    assert moved == {"robust linf", "ratio linf"}


def test_the_stopping_rule_leaves_the_training_as_it_is(quick: None) -> None:
    one = {**config(experiment="stopped", way="rank"), "epochs": 3}
    same = {**one, "experiment": "damage", "checkpoint": "last"}
    both = [one, {**one, "checkpoint": "last"}]
    stopped, last = adversarial.STUDY.run_many(both, "cpu")  # type: ignore[misc]
    plain = adversarial.STUDY.run(same, "cpu")
    assert plain == last and 1 <= stopped["epoch"] <= 3
    net, images, options = adversarial.build(same)
    options["checkpoint"] = "robust"
    watched = train.fit(net, images, progress=False, **options)
    losses = [epoch.robust_loss for epoch in watched.history]
    assert stopped["epoch"] == 1 + losses.index(min(losses))


def test_every_way_builds_what_it_names(quick: None) -> None:
    known = set(inspect.signature(train.fit).parameters)
    for way in adversarial.WAYS:
        net, images, options = adversarial.build(config(way=way))
        assert set(options) <= known
        rank = "rank" in way
        assert isinstance(net.layers[0], models.LowRankLinear) == rank
        held = ("orthonormal", "both", "dial")
        assert ("constraint" in options) == way.endswith(held)
        assert ("penalty" in options) == way.startswith(("rows", "Frobenius"))
        assert len(net.weights[0]) == (48 if way == "width" else adversarial.WIDTH)
    left = {
        way: kept(*adversarial.build(config(way=way))[:2])
        for way in ("rank", "rank, principal")
    }
    assert left["rank"] < 0.5 * left["rank, principal"] < 0.5


def test_what_is_kept_is_one_for_a_layer_that_sees_all(quick: None) -> None:
    _, images, _ = adversarial.build(config(way="plain"))
    whole = models.MLP((196, 196, 10)).double()
    assert kept(whole, images) == pytest.approx(1)


def test_a_long_training_is_watched_by_epoch_and_by_rule(quick: None) -> None:
    one = config(experiment="overfitting")
    rules = ("last", "validation", "robust", "epoch 5", "epoch 40")
    rows = adversarial.STUDY.run_many(  # type: ignore[misc]
        [{**one, "epochs": 6, "checkpoint": rule} for rule in rules], "cpu"
    )
    found = dict(zip(rules, rows, strict=True))
    assert not found["epoch 40"]["met"] and found["epoch 5"]["epoch"] == 5
    assert found["validation"]["held loss"] <= found["last"]["held loss"]
    assert found["robust"]["held robust loss"] <= found["last"]["held robust loss"]
    assert found["last"]["held robust loss"] > found["last"]["held loss"]


@pytest.mark.parametrize("name", ["experiment", "train", "way", "network"])
def test_what_it_does_not_know_it_refuses(quick: None, name: str) -> None:
    one = config(experiment="photographs") if name == "network" else GRID[0]
    with pytest.raises(ValueError, match="choose one of"):
        adversarial.build({**one, name: "magic"})


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("adversarial")
    assert len(table) == len(GRID) and table["met"].all()
    assert (table["robust linf"] <= table["right"]).all()
    damage = table[table["experiment"].isin(["damage", "budgets"])]
    assert damage["chi"].between(0, 1).all()
    curve = damage[[f"beyond {eps}" for eps in adversarial.BUDGETS]].to_numpy()
    assert (curve[:, 1:] <= curve[:, :-1]).all() and (curve[:, 0] <= 1).all()
    ratio = damage["robust linf"] / damage["right"]
    assert (ratio - damage["ratio linf"]).abs().max() < 1e-9
    budgets = table.loc[table["experiment"] == "budgets", "eps"]
    assert set(budgets) == set(adversarial.OTHER)
    assert budgets.value_counts().nunique() == 1
    watched = table[table["experiment"] == "overfitting"].groupby("seed")
    for _, rows in watched:
        losses = rows.set_index("checkpoint")["held robust loss"]
        assert losses["robust"] == losses.min()
    coloured = table[table["experiment"] == "photographs"]
    assert (coloured["robust l2"] <= coloured["right"]).all()
    assert (coloured["distance linf"] < coloured["distance l2"]).all()
    assert coloured["chi"].notna().equals(coloured["network"] == "MLP")
    images = studies.published("repair").query("data == 'CIFAR-10'")
    assert set(coloured["fingerprint"]) == set(images["fingerprint"])
