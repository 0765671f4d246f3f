"""What ``make gpu`` does, tried without a GPU."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from crlib import studies

DEPENDS = ("benchmarks", "crlib", "tests/gpu", "Makefile")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402


def test_a_tiny_run_leaves_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRLIB_DATA", "/nowhere")
    status = gpu.main(["--tiny", "--device", "cpu", "--out", str(tmp_path)])
    with (tmp_path / "summary.csv").open(encoding="utf-8") as stream:
        told = {row["step"]: row["outcome"] for row in csv.DictReader(stream)}
    logs = {p.stem: p.read_text(encoding="utf-8") for p in tmp_path.glob("*.log")}
    assert status == 0 and list(told) == ["tests", "attacks", "networks"], logs
    assert told["networks"] == "passed", logs["networks"]
    assert told["tests"] in ("passed", "skipped")
    assert gpu.missing() or (tmp_path / "attacks.csv").is_file()
    (row,) = csv.DictReader((tmp_path / "networks.csv").open(encoding="utf-8"))
    assert row["way"] == "rank, both" and row["bfloat16"] == "True"
    assert 0 <= float(row["cascade linf"]) <= float(row["right"]) <= 1


def test_no_network_is_begun_that_would_not_end_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    clock = [0.0]

    def slow(study: Any, job: Any, *rest: Any, **options: Any) -> None:
        begun.append(job[0]["seed"])
        clock[0] += 10

    plan = [[{"way": "plain", "seed": k}] for k in "abcd"]
    monkeypatch.setattr(gpu.time, "time", lambda: clock[0])
    monkeypatch.setattr(studies, "sweep", slow)
    monkeypatch.setattr(gpu, "jobs", lambda tiny: plan)
    gpu.train_networks(tmp_path, "cpu", deadline=30, tiny=True)
    # A third may need twelve seconds, and ten are left.
    assert begun == ["a", "b"]


def test_a_command_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert gpu.within(0.3, log, "-c", "import time; time.sleep(60)") == "stopped"
    assert gpu.within(60, log, "-c", "print('here')") == "passed"
    assert "here" in log.read_text(encoding="utf-8")
    assert gpu.within(60, log, "-c", "raise SystemExit(3)") == "failed"
    assert gpu.within(0, log, "-c", "") == "no time"


def test_the_networks_come_seed_by_seed_with_all_ways_first() -> None:
    order = [(job[0]["seed"], job[0]["way"]) for job in gpu.jobs(tiny=False)]
    assert len(set(order)) == len(order) == 20
    assert [seed for seed, _ in order] == sorted(seed for seed, _ in order)
    assert len({way for _, way in order[:4]}) == 4
    assert all(len(job) == 2 for job in gpu.jobs(tiny=False))
