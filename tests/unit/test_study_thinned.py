"""The study of thinned networks trains what it names, cuts it, and attacks the rest."""

from typing import Any

import pytest
import torch

from crlib import compress, data, metrics, studies, train
from crlib.models import MLP
from crlib.studies import interventions, layers, thinned
from crlib.studies.engine import Config

GRID = thinned.STUDY.grids["quick"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few = data.fashion_mnist_sample().subset(300, 60).double()
    monkeypatch.setitem(thinned.SETS, "sample", lambda: few)
    monkeypatch.setattr(interventions, "_part", lambda name: few)
    monkeypatch.setattr(interventions, "EPOCHS", 2)
    monkeypatch.setattr(interventions, "MATCH", 0.2)


def configs(network: str, way: str) -> list[Config]:
    wanted = {"network": network, "way": way, "seed": 0}
    fits = [c for c in GRID if all(c[k] == v for k, v in wanted.items())]
    return [{**c, "attacked": 10} for c in fits]


@pytest.mark.parametrize("network", list(thinned.WAYS))
def test_one_training_is_cut_in_all_ways(quick: None, network: str) -> None:
    some = configs(network, "rows")
    found = thinned.STUDY.run_many(some, "cpu")  # type: ignore[misc]
    assert len({str(thinned.STUDY.group(c)) for c in some}) == 1
    assert all(numbers["met"] for numbers in found)
    for config, numbers in zip(some, found, strict=True):
        assert (numbers["kept"] == 1) == (config["cut"] == "none")
        for norm in thinned.BUDGETS:
            assert numbers[f"robust {norm}"] <= float(numbers["right"]) + 1e-9
    assert thinned.STUDY.run(some[1], "cpu") == found[1]
    print_ = thinned.STUDY.fingerprint
    assert print_ is not None and print_(some[0])


def test_the_networks_are_those_of_two_studies(quick: None) -> None:
    for network in thinned.WAYS:
        one = configs(network, "rows")[0]
        training, images = thinned.fitted(one)
        if network == "layers":
            net, options = layers.build("rows", 0.1, 0)
            options |= {"epochs": 8, "lr": 2e-3, "checkpoint": "last"}
        else:
            net, images, options = interventions.build(one)
        again = train.fit(net, images, **options | {"progress": False}).model
        for w, v in zip(training.model.weights, again.weights, strict=True):
            assert torch.equal(w, v)
        plain, _ = thinned.fitted({**one, "way": "plain"})
        assert not torch.equal(plain.model.weights[0], training.model.weights[0])


def test_a_network_of_another_kind_is_refused(quick: None) -> None:
    one = configs("layers", "plain")[0]
    with pytest.raises(ValueError, match="network is 'ViT'"):
        thinned.fitted({**one, "network": "ViT"})


def test_the_cuts_keep_what_their_names_say() -> None:
    net = MLP((9, 40, 40, 40, 4), seed=0).double()
    with torch.no_grad():
        for layer in list(net.layers)[:-1]:
            layer.weight *= (torch.arange(40) + 1.0)[:, None] ** -1
    assert thinned.cut(net, "none", 1.0) is net and thinned.kept(net) == 1
    assert thinned.kept(thinned.cut(net, "rows", 0.25)) == 0.25
    for how, form in (("error", net), ("balanced error", metrics.balanced(net))):
        wanted = compress.prune_to_error(form, 0.5)
        found = thinned.cut(net, how, 0.5)
        for w, v in zip(found.weights, wanted.weights, strict=True):
            assert torch.equal(w, v)
    left, wanted = thinned.cut(net, "share", 0.5), compress.prune_to_error(net, 0.5)
    assert thinned.kept(left) == pytest.approx(thinned.kept(wanted), abs=0.5 / 40)
    assert len({int((w != 0).any(1).sum()) for w in left.weights[:-1]}) == 1
    with pytest.raises(ValueError, match="cut is 'magic'"):
        thinned.cut(net, "magic", 0.5)


def test_the_table_agrees_with_those_of_its_networks() -> None:
    table = studies.published("thinned")
    met = table[table["met"]]
    robust = met[["robust linf", "robust l2"]].max(axis=1)
    assert (robust <= met["right"] + 1e-9).all()
    assert (met["kept"] == 1).eq(met["cut"] == "none").all()
    others = {name: studies.published(name) for name in thinned.WAYS}

    def apart(theirs: Any, **setting: Any) -> float:
        mine = studies.runs(table, **setting)["accuracy"]
        return float((mine - theirs).abs().max())

    for way, strength in (("plain", 0), ("rows", 0.1)):
        there = studies.runs(others["layers"], way=way, strength=strength)
        for how, name in (("none", "accuracy"), ("rows", "accuracy, 64 rows")):
            assert apart(there[name], network="layers", way=way, cut=how) < 1e-6
    setting = {"way": "rows", "strength": 0, "checkpoint": "last"}
    there = studies.runs(others["interventions"], **setting)
    for how in ("error", "share", "balanced error"):
        theirs = there[f"{how} 0.5"]
        assert apart(theirs, network="interventions", cut=how) < 1e-6
