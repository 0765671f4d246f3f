"""Each study runs on a small scale and says what it measured."""

import inspect
from typing import Any

import pytest
import torch

from crlib import metrics, train
from crlib.data import Dataset
from crlib.studies import networks
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
            "judged": 80,
            "attacked": 40,
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
        if options["penalty"] is not None:
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
