"""The command crlib runs studies, resumes them and prints their tables."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crlib import __main__ as command
from crlib import studies
from crlib.studies import engine
from tests.unit.test_sweep import two_workers

SMALL = studies.Study(
    "networks",
    lambda config, device: {"double": 2 * config["seed"]},
    {"quick": {"seed": [1, 2]}, "full": {"seed": [1, 2, 3]}},
)


def where(config: dict[str, Any], device: str) -> dict[str, float]:
    """Say which process does a run; slowly, so that no worker does them all."""
    time.sleep(0.3)
    return {"double": 2 * config["seed"], "process": os.getpid()}


WIDE = replace(SMALL, run=where, grids={"quick": {"seed": list(range(6))}})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "find", lambda name: SMALL)


def test_it_names_the_studies(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["list"]) == 0
    assert capsys.readouterr().out.split() == list(studies.names())
    for name in studies.names():
        assert studies.find(name).name == name


def test_it_runs_a_profile_and_prints_the_table(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["networks", "--out", str(tmp_path)]
    assert command.main(["results", *out]) == 1
    assert "No finished run" in capsys.readouterr().err
    assert command.main(["run", *out]) == 0
    assert command.main(["run", *out, "--profile", "full"]) == 0
    assert command.main(["run", *out, "--profile", "vast"]) == 1
    assert "choose one of quick, full" in capsys.readouterr().err
    csv = tmp_path / "table.csv"
    assert command.main(["results", *out, "--csv", str(csv)]) == 0
    shown = capsys.readouterr().out
    assert "double" in shown and len(csv.read_text().splitlines()) == 4
    elsewhere = ["networks", "--out", str(tmp_path / "elsewhere")]
    assert command.main(["run", *elsewhere, "--from", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    without = replace(SMALL, run=lambda config, device: pytest.fail("run again"))
    monkeypatch.setattr(studies, "find", lambda name: without)
    assert command.main(["run", *elsewhere, "--from", str(csv)]) == 0


def test_a_study_runs_on_the_cluster_that_the_flag_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(studies, "find", lambda name: WIDE)
    out = ["run", "networks", "--out", str(tmp_path), "--csv", str(tmp_path / "t.csv")]
    with two_workers() as found:
        assert command.main([*out, "--cluster", found.scheduler_address]) == 0
    table = pd.read_csv(tmp_path / "t.csv")
    assert table["double"].tolist() == [2 * s for s in table["seed"]]
    # Both workers took part, and this process did no run.
    assert len(set(table["process"])) == 2 and os.getpid() not in set(table["process"])
    assert command.main([*out[:-2], "--cluster", "tcp://127.0.0.1:9"]) == 1


def test_errors_and_interruptions_have_a_status(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "sweep", stopped)
    assert command.main(["run", "networks", "--out", str(tmp_path)]) == 130
    assert "What is finished" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["run"])


def test_an_unknown_study_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["run", "unknown"]) == 1
    assert f"choose one of {studies.names()[0]}, " in capsys.readouterr().err


def test_a_cuda_device_is_named_by_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.torch.cuda, "get_device_name", lambda device: "A card")
    assert engine._device_name("cuda:0") == "A card"
