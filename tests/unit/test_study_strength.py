"""The study of attacks says what each reports, and the reports keep what must hold."""

import pytest
import torch

from crlib.data import Dataset
from crlib.studies import strength
from crlib.studies.engine import Config


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setitem(strength.SETS, "sample", lambda: fashion)


def config() -> Config:
    grid = strength.STUDY.grids["quick"]
    first = next(c for c in grid if c["network"] == "hardened")
    return first | {"epochs": 3, "judged": 20, "attacked": 6}


def test_every_report_is_a_bound_and_the_minimum_is_the_least(few: None) -> None:
    found = strength.STUDY.run(config(), "cpu")
    reports = {
        name.removeprefix("robust "): float(value)
        for name, value in found.items()
        if name.startswith("robust ")
    }
    assert 0.4 < float(found["accuracy"]) < 1
    ladder = [reports[name] for name in strength.LADDER]
    # One report is a mean of what stands, another one minus a mean of what fell.
    assert reports["together"] <= min(ladder) + 1e-9
    assert max(ladder) <= float(found["accuracy"]) + 1e-9
    assert reports["one step"] == reports["margin 1"]
    assert reports["PGD, five starts"] <= reports["PGD, margin"]
    assert reports["rounded, straight through"] <= found["rounded accuracy"]
    assert reports["noisy, one draw"] <= reports["noisy, one draw, anew"]
    assert float(found["tail FMN, led"]) >= 1
    assert 20 < float(found["passes full cascade"]) < 2000
    assert strength.STUDY.fingerprint is not None
    assert strength.STUDY.fingerprint(config())


def test_a_hardened_network_stands_where_an_undefended_one_falls(
    fashion: Dataset,
) -> None:
    x, y = fashion.x_test[:100], fashion.y_test[:100]
    nets = {
        "undefended": strength.plain(fashion, seed=0, epochs=8),
        "hardened": strength.harden(fashion, seed=0, epochs=8),
    }
    report = {}
    for name, net in nets.items():
        assert net.weights[0].dtype == torch.float64 and not net.training
        attack = strength.LADDER["PGD, margin"]
        report[name] = attack(net, x, y, eps=16 / 255).robust_accuracy
    assert report["hardened"] > report["undefended"] + 0.05
