"""Each study runs on a small scale and says what it measured."""

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crlib import data, metrics, results, studies, train
from crlib.claims import Interval
from crlib.data import Dataset
from crlib.studies import StudyError, cifar10, networks, trajectories
from crlib.studies.engine import Config


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setitem(networks.SETS, "sample", lambda: fashion)


def configs(way: str, strength: float) -> list[Config]:
    return [
        {
            "way": way,
            "strength": strength,
            "seed": 0,
            "checkpoint": rule,
            "data": "sample",
            "epochs": 2,
            "judged": 40,
            "attacked": 20,
        }
        for rule in networks.CHECKPOINTS
    ]


def test_one_training_is_judged_at_every_checkpoint(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    fit = train.fit

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return fit(*arguments, **options)

    monkeypatch.setattr(networks.train, "fit", counted)
    rows = networks.STUDY.run_many(configs("plain", 0), "cpu")
    assert count == 1 and len(rows) == 3
    best, matched, last = rows
    assert last["epoch"] == 2 and not matched["met"]
    assert 0 < last["l2"] < 5 and 0 < last["linf"] < 0.5
    assert last["robust l2"] <= 1 and last["universal l2"] <= 1
    assert last["noise moves features"] < last["attack moves features"]
    assert last["certificate"] <= last["l2"]
    assert last["noise in top ten"] < last["attack in top ten"]
    assert networks.STUDY.run(configs("plain", 0)[0], "cpu") == best


def test_every_way_builds_what_it_names(fashion: Dataset) -> None:
    options_of_fit = set(inspect.signature(train.fit).parameters)
    for config in networks.STUDY.grids["quick"]:
        if config["seed"] or config["checkpoint"] != "last":
            continue
        net, options = networks.build(config["way"], config["strength"], 0, fashion)
        assert net(torch.rand(2, 784)).shape == (2, 10)
        assert set(options) <= options_of_fit
        if "penalty" in options:
            assert float(options["penalty"](net).detach()) > 0
    assert len(networks.build("rank", 4, 0, fashion)[0].layers[0].right) == 4
    with pytest.raises(ValueError, match="choose one of plain, learning rate"):
        networks.build("magic", 1, 0, fashion)


def test_a_first_layer_can_start_in_the_principal_directions(
    fashion: Dataset,
) -> None:
    blind, _ = networks.build("rank", 16, 0, fashion)
    net, _ = networks.build("rank, principal", 16, 0, fashion)
    before, after = blind.weights, net.weights
    assert torch.linalg.norm(after[0]) == pytest.approx(
        float(torch.linalg.norm(before[0])), rel=1e-5
    )
    assert all(torch.equal(a, b) for a, b in zip(after[1:], before[1:], strict=True))
    x = fashion.x_train.flatten(1).double()
    centred = x - x.mean(0)
    rows = torch.linalg.svd(after[0].double(), full_matrices=False).Vh[:16].T
    best = torch.linalg.svd(centred, full_matrices=False).S.square()
    kept = metrics.energy_share(centred, rows) @ centred.square().sum(1)
    assert float(kept) == pytest.approx(float(best[:16].sum()), rel=1e-4)


def test_runs_that_share_a_training_share_a_job() -> None:
    study = networks.STUDY
    a, b, c = configs("plain", 0)
    assert study.group(a) == study.group(b) == study.group(c)
    assert study.group(configs("rank", 4)[0]) != study.group(a)


def test_a_trajectory_is_one_training_judged_along_the_way(
    fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = fashion.subset(300, 60)
    monkeypatch.setitem(trajectories.SETS, "sample", lambda: few)
    first = trajectories.STUDY.grids["quick"][0]
    together = [
        config | {"judged": 60, "attacked": 10}
        for config in trajectories.STUDY.grids["quick"]
        if {k: v for k, v in config.items() if k != "checkpoint"}
        == {k: v for k, v in first.items() if k != "checkpoint"}
    ]
    assert len(together) == len(trajectories.CHECKPOINTS)
    rows = dict(
        zip(
            trajectories.CHECKPOINTS,
            trajectories.STUDY.run_many(together, "cpu"),
            strict=True,
        )
    )
    assert rows["epoch 32"]["epoch"] == 32 and "train accuracy" not in rows["epoch 0"]
    assert rows["epoch 32"]["train accuracy"] > rows["epoch 1"]["train accuracy"]
    assert rows["epoch 0"]["tail of entries"] > rows["epoch 32"]["tail of entries"]
    assert rows["epoch 32"]["certificate"] <= rows["epoch 32"]["l2"]
    assert not rows["matched"]["met"] or rows["matched"]["train accuracy"] >= 0.88


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 3, 32, 32, generator=generator)
    y = torch.arange(60) % 10
    made = data._dataset(
        x[:40], y[:40], x[40:], y[40:], name="noise", source="generated"
    )
    monkeypatch.setattr(cifar10, "_images", lambda count: made)


@pytest.mark.parametrize("network", ["small ConvNet", "small ResNet", "small ViT"])
def test_every_network_on_cifar10_is_judged(tiny: None, network: str) -> None:
    few = {"epochs": 2, "judged": 10, "attacked": 4, "augmented": True}
    two = [
        config | few
        for config in cifar10.STUDY.grids["quick"]
        if (config["network"], config["way"], config["seed"]) == (network, "rank", 0)
    ][:2]
    matched, last = cifar10.STUDY.run_many(two, "cpu")
    assert not matched["met"] and last["epoch"] == 2
    assert 0 <= last["accuracy"] <= 1 and 0 <= last["universal linf"] <= 1
    assert last["spectral error"] < 0.9
    again = cifar10.STUDY.run(two[1], "cpu")
    assert again == pytest.approx(last, rel=0, abs=0, nan_ok=True)
    assert cifar10.STUDY.fingerprint(two[0])


def test_a_larger_network_on_cifar10_meets_a_cascade(tiny: None) -> None:
    grid = cifar10.STUDY.grids["large"]
    for network in ("small ViT", "ResNet-10"):
        seeds = [config["seed"] for config in grid if config["network"] == network]
        assert seeds == sorted(seeds) and len(set(seeds)) == 5
    first = [c for c in grid if c["seed"] == 0 and c["network"] == "ResNet-10"]
    assert len({c["way"] for c in first}) == 5
    cheap = {"network": "small ConvNet", "strength": 4, "epochs": 1, "bfloat16": True}
    few = {"judged": 10, "attacked": 4, "cascade": 4}
    one = next(
        c for c in first if c["way"] == "rank, both" and c["checkpoint"] == "last"
    )
    found = cifar10.STUDY.run(one | cheap | few, "cpu")
    assert 0 <= found["accuracy of all"] <= 1
    for norm in cifar10.REPORTED:
        assert 0 <= found[f"cascade {norm}"] <= found["right"]
    # At budgets far above these no more images are right.
    assert found["cascade linf"] <= found["robust linf"]


def test_only_training_steps_are_compiled(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: compiled.append(net))
    net, _ = cifar10.build("small ConvNet", "plain", 0, 0)
    images = cifar10._images(40)
    x = images.x_train[:8]
    # Tried on a copy, in the precision of the training.
    before = net(x)
    assert cifar10._compiles(net, x, low=True)
    assert len(compiled) == 1 and torch.equal(net(x), before)
    assert all(p.grad is None for p in net.parameters())
    fast = cifar10._Fast(net, "cpu", low=False, compiled=True)
    fitted = train.fit(fast, images, epochs=2, batch_size=20, progress=False)
    assert len(compiled) == 2, "once, at the first step"
    fitted.at("last").model(x)
    assert len(compiled) == 2
    plain = train.fit(net, images, epochs=2, batch_size=20, progress=False).model
    assert torch.equal(fitted.model.net(x), plain(x))


def test_where_torch_cannot_compile_it_trains_all_the_same(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(net: torch.nn.Module) -> None:
        raise RuntimeError("Cannot find a working triton installation\nmore")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    net, _ = cifar10.build("small ConvNet", "plain", 0, 0)
    x = torch.rand(4, 3, 32, 32)
    with pytest.warns(UserWarning, match=r"here \(Cannot find a working triton inst"):
        assert not cifar10._compiles(net, x, low=False)
    # On a processor nobody asks.
    few = {"epochs": 1, "judged": 10, "attacked": 4}
    assert cifar10.STUDY.run(cifar10.STUDY.grids["quick"][1] | few, "cpu")["met"]


def test_every_way_on_cifar10_builds_what_it_names() -> None:
    known = set(inspect.signature(train.fit).parameters)
    full = {c["network"]: c for c in cifar10.STUDY.grids["full"]}
    assert set(full) == {"ConvNet", "ResNet-18", "ViT"}
    net, options = cifar10.build("ResNet-10", "rank, both", 8, 0)
    assert sum(p.numel() for p in net.parameters()) == 44_250
    assert options["constraint"]
    for way, strength in (("Frobenius", 1), ("spectral dial", 1), ("plain", 0)):
        net, options = cifar10.build("small ConvNet", way, strength, 0)
        assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
        assert set(options) <= known
    net, _ = cifar10.build("ResNet-18", "plain", 0, 0)
    assert sum(p.numel() for p in net.parameters()) == 11_173_962
    for bad in (("LeNet", "plain"), ("ViT", "magic")):
        with pytest.raises(ValueError, match="is unknown: choose one of"):
            cifar10.build(*bad, 1, 0)


@pytest.mark.parametrize("name", studies.names())
def test_the_table_that_comes_with_crlib_is_the_whole_quick_grid(name: str) -> None:
    study, table = studies.find(name), studies.published(name)
    grid = study.grids["quick"]
    # A grid may hold several experiments, each with parameters of its own.
    rows = (row for _, row in table.iterrows())
    for config, row in zip(grid, rows, strict=True):
        assert dict(row[list(config)]) == config
    assert set(table["study"]) == {name}
    of = table["data"] if "data" in table else table["study"]
    assert (table.groupby(of)["fingerprint"].nunique() == 1).all()
    # An experiment that was made anew has a newer crlib than its neighbours.
    parts = [p for _, p in table.groupby("experiment")] if "experiment" in table else []
    assert all(len(set(part["crlib"])) == 1 for part in parts or [table])
    assert (table["seconds"] > 0).all()
    met = table[table["met"]] if "met" in table else table
    numbers = met.select_dtypes("number")
    words = ("accuracy", "robust", "error")
    rates = [c for c in numbers if any(w in c for w in words) and "loss" not in c]
    assert numbers[rates].min().min() >= 0 and numbers[rates].max().max() <= 1 + 1e-9


LONGER = [
    file.stem.split("-") for file in Path(results.__file__).parent.glob("*-*.csv")
]


@pytest.mark.parametrize("name, profile", LONGER)
def test_the_table_of_a_longer_grid_is_a_part_of_it(name: str, profile: str) -> None:
    grid, table = studies.find(name).grids[profile], studies.published(name, profile)
    for _, row in table.iterrows():
        assert dict(row[list(grid[0])]) in grid
    assert not table.duplicated(list(grid[0])).any()
    for column in ("study", "fingerprint", "crlib"):
        assert table[column].nunique() == 1
    with pytest.raises(StudyError, match="crlib: crlib run .* --profile none"):
        studies.published(name, "none")


def test_the_table_of_another_version_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = dataclasses.replace(studies.find("networks"), version=99)
    monkeypatch.setattr(studies, "find", lambda name: newer)
    with pytest.raises(StudyError, match="the study of 99: run it again"):
        studies.published("networks")
    unknown = dataclasses.replace(newer, name="unknown")
    monkeypatch.setattr(studies, "find", lambda name: unknown)
    with pytest.raises(StudyError, match="No table of other comes with crlib"):
        studies.published("other")


def test_the_runs_of_a_setting_meet_by_seed() -> None:
    table = studies.published("networks").sample(frac=1, random_state=0)
    found = studies.runs(table, way="rank", strength=16.0, checkpoint="last")
    assert list(found.index) == sorted(set(table["seed"]))
    assert set(found["way"]) == {"rank"} and set(found["strength"]) == {16}
    near = studies.runs(table, way="rank", strength=16 + 1e-9, checkpoint="last")
    assert near.equals(found)
    assert studies.runs(table, way="nothing").empty
    with pytest.raises(ValueError, match="Several runs of one seed"):
        studies.runs(table, way="rank", strength=16)
    with pytest.raises(ValueError, match="No column 'path': choose from"):
        studies.runs(table, path="rank")


def test_a_run_done_again_is_compared_with_its_row() -> None:
    row = pandas.Series({"l2": 0.5, "none": 0.0, "way": "rank", "met": True})
    assert studies.apart(row, {"l2": 0.5, "none": 0.0}) == 0
    assert studies.apart(row, {"l2": 0.5 * (1 + 1e-8)}) == pytest.approx(1e-8, rel=1e-3)
    assert studies.apart(row, {"l2": 0.25, "way": "rank", "met": True}) == 0.5
    assert studies.apart(row, {"way": "rows"}) == math.inf
    assert studies.apart(row, {"met": False}) == math.inf
    assert studies.apart(row, {"none": 1e-300}) == 1
    assert studies.apart(row, {"l2": math.nan}) == math.inf
    with pytest.raises(ValueError, match="No column 'linf': choose from"):
        studies.apart(row, {"linf": 0.1})


def test_a_verdict_says_on_which_side_the_interval_lies() -> None:
    around = studies.verdict
    assert around(Interval(0.8, 0.7, 0.9, 5)) == "0.80 [0.70, 0.90] loss"
    assert around(Interval(0.95, 0.8, 1.1, 5)) == "0.95 [0.80, 1.10] open"
    assert around(Interval(1.2, 1.1, 1.3, 5)) == "1.20 [1.10, 1.30] gain"
    # An interval that just reaches the bound says nothing.
    assert around(Interval(0.9, 0.8, 1.0, 5)).endswith("open")
    points = around(
        Interval(-0.1, -0.2, -0.05, 5), 0, spec="+.0f", scale=100, words=("-", "0", "+")
    )
    assert points == "-10 [-20, -5] -"
    assert around(None) == "not met"


@given(
    ends=st.lists(st.floats(0.1, 10), min_size=2, max_size=2),
    share=st.floats(-0.09, 1.09),
    start=st.floats(0.1, 0.5),
)
def test_between_two_fits_the_logarithm_is_linear(
    ends: list[float], share: float, start: float
) -> None:
    fit = start + share * 0.4
    found = studies.between([fit], ([start], [start + 0.4]), ([ends[0]], [ends[1]]))
    known = (1 - share) * math.log(ends[0]) + share * math.log(ends[1])
    assert math.isclose(math.log(found[0]), known, abs_tol=1e-9)


def test_far_outside_two_fits_nothing_is_told() -> None:
    fits, values = ([0.8, 0.8], [0.9, 0.9]), ([2.0, 2.0], [1.0, 1.0])
    assert np.isnan(studies.between([0.78, 0.92], fits, values)).all()
    assert np.isfinite(studies.between([0.795, 0.905], fits, values)).all()
