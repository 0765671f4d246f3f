"""Each study runs on a small scale and says what it measured."""

from typing import Any

import pytest
import torch

from crlib import train
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
    assert last["robust l2"] <= last["accuracy"] + 1e-9
    assert last["certificate"] <= last["l2"]
    assert last["noise in top ten"] < last["attack in top ten"]
    assert networks.STUDY.run(configs("plain", 0)[0], "cpu") == best


def test_every_way_builds_what_it_names() -> None:
    for config in networks.STUDY.grids["quick"]:
        net, options = networks.build(config["way"], config["strength"], config["seed"])
        assert net(torch.rand(2, 784)).shape == (2, 10)
        assert set(options) <= {
            "penalty",
            "constraint",
            "constrain_every",
            "weight_decay",
        }
        if "penalty" in options:
            assert float(options["penalty"](net).detach()) > 0
    assert len(networks.build("rank", 4, 0)[0].layers[0].right) == 4
    with pytest.raises(ValueError, match="choose one of plain, rank"):
        networks.build("magic", 1, 0)


def test_runs_that_share_a_training_share_a_job() -> None:
    study = networks.STUDY
    a, b, c = configs("plain", 0)
    assert study.group(a) == study.group(b) == study.group(c)
    assert study.group(configs("rank", 4)[0]) != study.group(a)
