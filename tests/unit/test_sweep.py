"""A sweep resumes, whatever interrupts it, and mixes nothing silently."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from crlib import studies
from crlib.studies import engine
from crlib.studies.cluster import _queue
from crlib.studies.engine import (
    Study,
    StudyError,
    configurations,
    results,
    sweep,
)

GRID = {"width": [1, 2, 3], "seed": [0, 1]}


def noisy(config: dict[str, Any], device: str) -> dict[str, float]:
    g = torch.Generator().manual_seed(config["seed"])
    values = torch.randn(1000, generator=g) * config["width"]
    if os.environ.get("SWEEP_SLOW"):
        time.sleep(0.02)
    return {"mean": float(values.mean()), "threads": torch.get_num_threads()}


def failing(config: dict[str, Any], device: str) -> dict[str, float]:
    if config["width"] == 2:
        raise RuntimeError("no such width")
    return {"mean": 1.0}


def together(configs: list[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    return [{**noisy(c, device), "job": len(configs)} for c in configs]


NOISY = Study("noisy", noisy, {"quick": GRID})
COLUMNS = ["width", "seed", "mean"]


def run(out: Path, study: Study = NOISY, **options: Any) -> Any:
    return sweep(study, study.grids["quick"], out, progress=False, **options)


def test_the_grid_is_every_combination() -> None:
    found = configurations(GRID)
    assert len(found) == 6 and found[0] == {"width": 1, "seed": 0}
    assert found[1] == {"width": 1, "seed": 1}


def test_a_sweep_returns_one_row_a_run_with_provenance(tmp_path: Path) -> None:
    table = run(tmp_path)
    assert len(table) == 6 and set(table["threads"]) == {1}
    for name in ("study", "version", "crlib", "device", "torch", "seconds", "date"):
        assert name in table.columns
    again = results(tmp_path, NOISY).sort_values(["width", "seed"])
    assert again[COLUMNS].values.tolist() == table[COLUMNS].values.tolist()


def test_nothing_finished_is_repeated(tmp_path: Path) -> None:
    first = run(tmp_path)
    calls = []

    def counted(config: dict[str, Any], device: str) -> dict[str, float]:
        calls.append(config)
        return dict(noisy(config, device))

    second = run(tmp_path, replace(NOISY, run=counted))
    assert not calls and second["mean"].equals(first["mean"])
    wider = replace(NOISY, run=counted, grids={"quick": {"width": [3, 4], "seed": [0]}})
    assert len(run(tmp_path, wider)) == 2
    assert calls == [{"width": 4, "seed": 0}]


@pytest.mark.parametrize("options", [{"jobs": 2}, {"jobs": 2, "backend": "threading"}])
def test_parallel_runs_give_the_same_numbers(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    alone = run(tmp_path / "alone")
    both = run(tmp_path / "both", **options)
    assert both["mean"].tolist() == alone["mean"].tolist()


@contextmanager
def two_workers() -> Iterator[Any]:
    """Yield a cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as found:
        yield found


def test_a_dask_cluster_gives_the_same_numbers(tmp_path: Path) -> None:
    alone = run(tmp_path / "alone")
    with two_workers() as found, studies.cluster(found.scheduler_address) as client:
        assert len(client.scheduler_info()["workers"]) == 2
        both = run(tmp_path / "both", backend="dask", jobs=-1)
    assert both["mean"].tolist() == alone["mean"].tolist()


def test_a_lost_worker_loses_no_run(tmp_path: Path) -> None:
    with two_workers() as found, studies.cluster(found.scheduler_address):
        study = replace(NOISY, run=partial(once_fatal, tmp_path / "killed"))
        table = run(tmp_path, study, backend="dask", jobs=-1)
    assert (tmp_path / "killed").exists() and len(table) == 6
    assert table["mean"].tolist() == run(tmp_path / "alone")["mean"].tolist()


def once_fatal(mark: Path, config: dict[str, Any], device: str) -> dict[str, float]:
    """Kill the process of the first run, and do all that come after it."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return noisy(config, device)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("tcp://127.0.0.1:9", "No scheduler answers"),
        ("kubernetes:file.yaml", "is no cluster"),
        ("slurm:absent.yaml", "jobs, cores and memory|pip install"),
    ],
)
def test_a_cluster_that_is_none_is_named(where: str, message: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(StudyError, match=message), studies.cluster(where):
        pass


def test_a_queue_is_asked_for_as_many_jobs_as_its_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Queue:
        def __init__(self, **options: Any) -> None:
            asked.update(options)

        def scale(self, jobs: int) -> None:
            asked["jobs"] = jobs

    fake = SimpleNamespace(SLURMCluster=Queue)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", fake)
    file = tmp_path / "file.yaml"
    file.write_text("jobs: 4\ncores: 2\nmemory: 8GB\n")
    _queue("slurm", str(file))
    assert asked == {"cores": 2, "memory": "8GB", "jobs": 4}
    file.write_text("cores: 2\n")
    with pytest.raises(StudyError, match="jobs, cores and memory"):
        _queue("slurm", str(file))


def test_runs_of_one_group_make_one_job(tmp_path: Path) -> None:
    study = replace(
        NOISY, run_many=together, group=lambda c: c["width"] < 3, job_size=3
    )
    table = run(tmp_path, study)
    assert table["mean"].tolist() == run(tmp_path / "alone")["mean"].tolist()
    assert sorted(table["job"]) == [1, 2, 2, 3, 3, 3] or set(table["job"]) == {1, 2, 3}


def test_a_failing_run_loses_nothing(tmp_path: Path) -> None:
    study = replace(NOISY, run=failing)
    with pytest.raises(StudyError, match="2 of the jobs failed.*no such width"):
        run(tmp_path, study)
    assert len(results(tmp_path, study)) == 4
    assert len(run(tmp_path)) == 6


SCRIPT = """
import sys, time
from pathlib import Path
from crlib.studies import engine
from tests.unit import test_sweep
# A slow disk, so that many a kill meets a file half written.
engine.os.fsync = lambda handle: time.sleep(0.01)
print("begins", flush=True)
test_sweep.run(Path(sys.argv[1]))
"""


def begun(out: Path) -> subprocess.Popen[str]:
    """Return a process that sweeps slowly, in a fresh interpreter.

    A fork would inherit locks that this one's threads hold, and might wait for ever.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"SWEEP_SLOW": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "begins\n"
    return process


def test_a_sweep_killed_again_and_again_ends_like_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    out, chance, counts = tmp_path / "killed", random.Random(0), []
    whole = run(tmp_path / "whole")
    for wanted in range(1, 7):
        child = begun(out)
        # Until it has finished one run more, and is in the midst of the next.
        while len(list(out.rglob("*.json"))) < min(wanted, 5) and child.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        child.kill()
        child.wait()
        counts.append(len(list(out.rglob("*.json"))))
    assert counts == sorted(counts) and len(set(counts)) > 2, "not in its midst"
    for file in (out / "noisy").glob("*.json"):
        json.loads(file.read_text())
    last = run(out)
    assert last[COLUMNS].values.tolist() == whole[COLUMNS].values.tolist()


def test_two_processes_may_share_a_folder(tmp_path: Path) -> None:
    children = [begun(tmp_path / "shared") for _ in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    shared = results(tmp_path / "shared", NOISY).sort_values(["width", "seed"])
    assert shared["mean"].tolist() == run(tmp_path / "alone")["mean"].tolist()


def test_a_full_disk_is_a_clear_error_that_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def full(handle: int) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine.os, "fsync", full)
    with pytest.raises(StudyError, match="No space left on device.*kept"):
        run(tmp_path)
    assert len(results(tmp_path, NOISY)) == 3
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.undo()
    assert len(run(tmp_path)) == 6


def test_an_unwritable_folder_is_refused_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "noisy").write_text("a file where the folder should be")
    with pytest.raises(StudyError, match="choose another folder"):
        run(tmp_path, replace(NOISY, run=failing))


def test_old_leftovers_are_removed_and_damaged_files_run_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    folder = tmp_path / "noisy"
    (folder / "old.part").write_text("{")
    os.utime(folder / "old.part", (0, 0))
    (folder / "new.part").write_text("{")
    next(folder.glob("*.json")).write_text("{")
    assert run(tmp_path)["mean"].tolist() == first["mean"].tolist()
    assert not (folder / "old.part").exists() and (folder / "new.part").exists()


def test_versions_and_data_are_never_mixed(tmp_path: Path) -> None:
    run(tmp_path)
    newer = replace(NOISY, version=2)
    assert len(run(tmp_path, newer)) == 6
    with pytest.raises(StudyError, match="differ in version: [12] and [12]"):
        results(tmp_path, newer)
    for print_ in ("aaa", "bbb"):
        run(tmp_path / "data", replace(NOISY, fingerprint=lambda c, p=print_: p))
    with pytest.raises(StudyError, match="differ in fingerprint"):
        results(tmp_path / "data", NOISY)


def test_a_later_crlib_adds_rows_to_a_table(tmp_path: Path) -> None:
    file = as_csv(run(tmp_path / "then"), tmp_path / "then.csv", crlib="0.0.1")
    longer = {**GRID, "seed": [0, 1, 2, 3]}
    study = replace(NOISY, grids={"quick": longer})
    assert engine.adopt(study, longer, file, tmp_path / "now") == 6
    table = run(tmp_path / "now", study)
    assert len(table) == 12
    assert set(table["crlib"]) == {"0.0.1", engine.__version__}


def test_two_data_sets_may_stand_in_one_table(tmp_path: Path) -> None:
    study = replace(
        NOISY,
        grids={"quick": {**GRID, "data": ["a", "b"]}},
        fingerprint=lambda config: "print of " + config["data"],
    )
    assert len(run(tmp_path, study)) == 12
    assert set(results(tmp_path, study)["fingerprint"]) == {"print of a", "print of b"}


def test_a_fingerprint_is_asked_for_once_a_data_set(tmp_path: Path) -> None:
    asked = []

    def fingerprint(config: dict[str, Any]) -> str:
        asked.append(config["data"])
        return config["data"]

    grid = {**GRID, "data": ["a", "b"]}
    run(tmp_path, replace(NOISY, grids={"quick": grid}, fingerprint=fingerprint))
    assert sorted(asked) == ["a", "b"]


def as_csv(table: Any, file: Path, **changes: Any) -> Path:
    table.assign(**changes).to_csv(file, index=False, float_format="%.9g")
    return file


def test_a_table_stands_for_a_lost_folder(tmp_path: Path) -> None:
    """A run that met nothing has fewer numbers; one third is no finite decimal."""
    calls = []

    def counted(config: dict[str, Any], device: str) -> dict[str, float | bool]:
        calls.append(config)
        met = {"mean": config["share"]} if config["seed"] else {}
        return {"met": bool(met), **met}

    grid = {"share": [1 / 3, 2.0], "seed": [0, 1], "way": ["plain"], "loss": [None]}
    study = replace(
        NOISY, run=counted, grids={"quick": grid}, fingerprint=lambda c: "7"
    )
    first = run(tmp_path / "first", study)
    file = as_csv(first[:3], tmp_path / "three.csv")
    assert engine.adopt(study, grid, file, tmp_path / "again") == 3
    assert len(results(tmp_path / "again", study)) == 3
    again = run(tmp_path / "again", study)
    assert len(calls) == 5 and again["met"].tolist() == first["met"].tolist()
    assert again["mean"].round(9).equals(first["mean"].round(9))
    assert again["fingerprint"].tolist() == ["7"] * 4
    # What is there already is not replaced.
    assert engine.adopt(study, grid, file, tmp_path / "first") == 3
    assert run(tmp_path / "first", study)["mean"].equals(first["mean"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "of version 2, this of 1"),
        ({"fingerprint": "7"}, "of fingerprint 7"),
        ({"study": "other"}, "of study other"),
        ({"width": 1}, "3 rows of"),
        ({"width": 9}, "no run of this grid"),
    ],
)
def test_a_table_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    table = as_csv(run(tmp_path / "first"), tmp_path / "table.csv", **changes)
    with pytest.raises(StudyError, match=message):
        engine.adopt(NOISY, GRID, table, tmp_path / "again")
    assert not list((tmp_path / "again").rglob("*.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("", "cannot be read"), ("a,b\n1,2\n", "no column")],
)
def test_what_is_no_table_of_runs_is_refused(
    tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "table.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(StudyError, match=message):
        engine.adopt(NOISY, GRID, file, tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="No finished run of noisy"):
        results(tmp_path, NOISY)


def test_numbers_that_cannot_be_written_are_a_failed_run(tmp_path: Path) -> None:
    odd = Study("odd", lambda c, _: {"a": np.int64(1) if c["seed"] else 1}, {})
    with pytest.raises(StudyError, match="int64"):
        sweep(odd, {"seed": [1, 0]}, tmp_path, progress=False)
    assert len(list((tmp_path / "odd").glob("*.json"))) == 1
    few = Study("few", odd.run, {}, run_many=lambda c, _: [{"a": 1}])
    with pytest.raises(StudyError, match="1 rows"):
        sweep(few, {"seed": [0, 1]}, tmp_path, progress=False)
