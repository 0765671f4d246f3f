"""Grids of runs that resume: each finished run is one small file.

A study maps a configuration to numbers. :func:`sweep` runs it on a grid, in parallel
if asked, and writes every finished run atomically into a folder. A second call finds
what is there and runs the rest, whatever interrupted the first. :func:`results` reads a
folder back as a table, and refuses to mix runs of different versions or data. A table
may grow for years: which crlib made a row stands in the row.
"""

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pandas
import torch

from crlib.progress import Bar
from crlib.version import __version__

__all__ = ["Study", "StudyError", "adopt", "configurations", "results", "sweep"]

PROVENANCE = (
    "study",
    "version",
    "crlib",
    "fingerprint",
    "device",
    "torch",
    "seconds",
    "date",
)

Config = dict[str, Any]
Grid = Mapping[str, Sequence[Any]] | Sequence[Config]
Numbers = Mapping[str, float | int | str | bool]


class StudyError(RuntimeError):
    """A sweep cannot go on, or results do not fit; the message says what to do."""


@dataclass(frozen=True)
class Study:
    """An experiment as a function of a configuration.

    Attributes:
        name: of the study and of its folder.
        run: maps a configuration and a device to named numbers; all chance comes from
            the configuration's ``seed``.
        grids: for each profile, the values of every parameter, ``seed`` among them,
            or the configurations one by one.
        version: raise it when ``run``, or what it calls, changes what it returns.
        fingerprint: maps a configuration to the fingerprint of its data, which its
            parameter ``data`` alone decides; None for data that the seed generates.
        run_many: does many configurations as one job and returns their numbers in
            order; used for those that ``group`` maps to one value.
        group: the value that runs of one job share.
        job_size: most runs in one job.
    """

    name: str
    run: Callable[[Config, str], Numbers]
    grids: Mapping[str, Grid]
    version: int = 1
    fingerprint: Callable[[Config], str] | None = None
    run_many: Callable[[list[Config], str], list[Numbers]] | None = None
    group: Callable[[Config], Any] = field(default=lambda config: None)
    job_size: int = 30


def configurations(grid: Mapping[str, Sequence[Any]]) -> list[Config]:
    """Return every combination of the values of ``grid``, in the order of its keys."""
    return [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]


def sweep(
    study: Study,
    grid: Grid,
    out: str | Path,
    *,
    device: str = "cpu",
    jobs: int = 1,
    backend: str = "loky",
    progress: bool = True,
) -> pandas.DataFrame:
    """Run a study on a grid; return the table of all its runs.

    Runs already in ``out`` are not repeated. A run is written when it is finished, by
    a rename, so a file is either whole or absent. On one device the same seed gives
    the same numbers, bit for bit on a CPU: every job uses one thread.

    Args:
        study: what to run.
        grid: values of each parameter, or the configurations themselves.
        out: folder of the results; made if absent.
        device: handed to the study.
        jobs: runs at the same time; -1 for all cores.
        backend: of joblib: ``"loky"`` here; ``"dask"`` on a cluster, inside
            :func:`crlib.studies.cluster`.
        progress: show a bar with the time left.

    Raises:
        StudyError: the folder cannot be written, or a run failed. What was finished
            stays, and the next call goes on from there.
    """
    folder = _writable(Path(out) / study.name)
    runs = _runs(study, grid)
    todo = [run for run in runs if _read(folder / f"{run.key}.json") is None]
    # joblib registers a cluster's backend only where it is named this way.
    with joblib.parallel_config(backend, n_jobs=jobs):
        work = joblib.Parallel(return_as="generator_unordered")(
            joblib.delayed(_job)(study, part, device) for part in _parts(study, todo)
        )
    bar = Bar(
        total=len(runs),
        initial=len(runs) - len(todo),
        desc=study.name,
        disable=not progress,
    )
    failures = []
    with bar, contextlib.closing(work):
        for rows, failure in work:
            for key, row in rows:
                _write(folder / f"{key}.json", row)
                bar.update()
            if failure:
                failures.append(failure)
    if failures:
        raise StudyError(
            f"{len(failures)} of the jobs failed; the finished runs are kept in"
            f" {folder}. The first: {failures[0]}"
        )
    found = [_read(folder / f"{run.key}.json") for run in runs]
    return _frame([row for row in found if row is not None])


def results(out: str | Path, study: Study) -> pandas.DataFrame:
    """Read the finished runs of a study as a table, one row a run.

    Columns are the parameters, the numbers, and the provenance: study, version, crlib,
    fingerprint, device, torch, seconds, date.

    Raises:
        StudyError: nothing is there, or runs of different versions of the study, or of
            different data under one configuration, would be mixed.
    """
    folder = Path(out) / study.name
    rows = [row for file in sorted(folder.glob("*.json")) if (row := _read(file))]
    if not rows:
        raise StudyError(f"No finished run of {study.name} in {folder}.")
    return _frame(rows)


def adopt(study: Study, grid: Grid, file: str | Path, out: str | Path) -> int:
    """Take the rows of a table for finished runs; return how many runs it had.

    So a long study goes on where its folder is not: on another machine, or from the
    part that comes with crlib. A run that is in ``out`` already is left as it is.

    Args:
        study: what was run.
        grid: as for :func:`sweep`; rows of other configurations do not matter.
        file: CSV, as ``crlib run NAME --csv FILE`` writes it.
        out: folder of the results; made if absent.

    Raises:
        StudyError: the folder cannot be written; the file is no such table, has no run
            of the grid or two rows for one, or is of another version of the study or
            of other data.
    """
    folder = _writable(Path(out) / study.name)
    try:
        # A fingerprint of digits alone is no number.
        table = pandas.read_csv(file, dtype={"fingerprint": str})
    except (OSError, ValueError) as error:
        raise StudyError(f"{file} cannot be read as a table: {error}") from error
    if missing := set(PROVENANCE) - set(table):
        raise StudyError(f"{file} has no column {min(missing)!r}: no table of runs.")
    table["fingerprint"] = table["fingerprint"].fillna("")
    # A number that a run does not have is empty in the table.
    rows = [
        {name: value for name, value in row.items() if not pandas.isna(value)}
        for row in table.to_dict("records")
    ]
    found = 0
    for run in _runs(study, grid):
        fits = [row for row in rows if _is_of(row, run.config)]
        if len(fits) > 1:
            raise StudyError(f"{file} has {len(fits)} rows of {run.config}.")
        for row in fits:
            now = {"study": study.name, "version": study.version}
            for name, value in {**now, "fingerprint": run.fingerprint}.items():
                if str(row[name]) != str(value):
                    raise StudyError(
                        f"{file} is of {name} {row[name]}, this of {value}: run it all"
                        " again."
                    )
            place = folder / f"{run.key}.json"
            if _read(place) is None:
                provenance = {name: row.pop(name) for name in PROVENANCE}
                numbers = {name: row[name] for name in row if name not in run.config}
                parts = {"numbers": numbers, "provenance": provenance}
                _write(place, {"config": run.config, **parts})
            found += 1
    if not found:
        raise StudyError(f"{file} has no run of this grid of {study.name}.")
    return found


def _is_of(row: Mapping[str, Any], config: Config) -> bool:
    """Tell whether a row of a table, which has nine digits, is of a configuration."""
    return all(
        row.get(name) == (float(f"{value:.9g}") if isinstance(value, float) else value)
        for name, value in config.items()
    )


def _frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    told: dict[str, str] = {}
    for row in rows:
        provenance, of = row["provenance"], str(row["config"].get("data", "the data"))
        for name in ("study", "version", f"fingerprint of {of}"):
            value = str(provenance[name.partition(" ")[0]])
            if told.setdefault(name, value) != value:
                raise StudyError(
                    f"The runs differ in {name}: {told[name]} and {value}. Move"
                    " the old ones to another folder."
                )
    return pandas.DataFrame(
        [{**row["config"], **row["numbers"], **row["provenance"]} for row in rows]
    )


class _Run(NamedTuple):
    """A configuration, the name of its file, and the fingerprint of its data."""

    key: str
    config: Config
    fingerprint: str


def _runs(study: Study, grid: Grid) -> list[_Run]:
    wanted = configurations(grid) if isinstance(grid, Mapping) else list(grid)
    prints = _fingerprints(study, wanted)
    return [_Run(_key(study, c, p), c, p) for c, p in zip(wanted, prints, strict=True)]


def _fingerprints(study: Study, configs: list[Config]) -> list[str]:
    """Ask once for each data set: a fingerprint can cost as much as loading it."""
    if study.fingerprint is None:
        return [""] * len(configs)
    known: dict[Any, str] = {}
    for config in configs:
        if config.get("data") not in known:
            known[config.get("data")] = study.fingerprint(config)
    return [known[config.get("data")] for config in configs]


def _key(study: Study, config: Config, fingerprint: str) -> str:
    """Name a run by all that decides its numbers."""
    parts = {
        "config": config,
        "study": study.name,
        "version": study.version,
        "crlib": __version__,
        "fingerprint": fingerprint,
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _parts(study: Study, todo: list[_Run]) -> list[list[_Run]]:
    """Group runs into jobs: one each, or as many as the study does together."""
    if study.run_many is None:
        return [[run] for run in todo]
    groups: dict[str, list[_Run]] = {}
    for run in todo:
        groups.setdefault(json.dumps(study.group(run.config)), []).append(run)
    return [
        group[i : i + study.job_size]
        for group in groups.values()
        for i in range(0, len(group), study.job_size)
    ]


def _job(
    study: Study, runs: list[_Run], device: str
) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """Run one job; return its rows with their keys, and what went wrong."""
    configs = [run.config for run in runs]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        if study.run_many is None:
            numbers = [study.run(config, device) for config in configs]
        else:
            numbers = study.run_many(configs, device)
        # Here, where it is a failed job: later it would end all others.
        json.dumps([dict(found) for found in numbers])
        if len(numbers) != len(runs):
            raise ValueError(f"{len(numbers)} rows of numbers for {len(runs)} runs.")
    except Exception as error:
        return [], f"{configs[0]}: {type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)
    seconds = (time.perf_counter() - started) / len(runs)
    rows = []
    for run, found in zip(runs, numbers, strict=True):
        provenance = {
            "study": study.name,
            "version": study.version,
            "crlib": __version__,
            "fingerprint": run.fingerprint,
            "device": _device_name(device),
            "torch": torch.__version__,
            "seconds": round(seconds, 3),
            "date": datetime.now(UTC).date().isoformat(),
        }
        row = {"config": run.config, "numbers": dict(found), "provenance": provenance}
        rows.append((run.key, row))
    return rows, ""


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return "cpu, one thread"


def _writable(folder: Path) -> Path:
    """Make the folder, remove what a killed run left half written, and try to write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.part"):
            # Another process may be writing it now: only old ones are left over.
            if time.time() - stale.stat().st_mtime > 3600:
                stale.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written ({error.strerror}): choose another folder with"
            " --out, or free some space. Nothing was lost."
        ) from error
    return folder


def _write(file: Path, row: dict[str, Any]) -> None:
    """Write to a file of another name, then rename: whole or not at all."""
    text = json.dumps(row, indent=1)
    name = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, suffix=".part", delete=False, encoding="utf-8"
        ) as part:
            name = part.name
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
        os.replace(name, file)
    except OSError as error:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise StudyError(
            f"{file.parent} cannot be written ({error.strerror}): the runs finished so"
            " far are kept. Free some space and start again."
        ) from error


def _read(file: Path) -> dict[str, Any] | None:
    try:
        row = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and "numbers" in row else None
