"""Studies: experiments too long for a chapter, run once and kept as small tables.

``crlib list`` names them, ``crlib run NAME`` runs one and resumes it, ``crlib results
NAME`` prints its table. :func:`published` reads the tables that come with crlib,
:func:`runs` picks the runs of one setting, :func:`verdict` says what their interval
shows.
"""

import importlib
import math
import pkgutil
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas

from crlib.studies.cluster import cluster
from crlib.studies.compare import between, verdict
from crlib.studies.engine import (
    Study,
    StudyError,
    adopt,
    configurations,
    results,
    sweep,
)

__all__ = [
    "Study",
    "StudyError",
    "adopt",
    "apart",
    "between",
    "cluster",
    "configurations",
    "find",
    "names",
    "published",
    "results",
    "runs",
    "sweep",
    "verdict",
]

# What the studies share; every other module here is a study.
_SHARED = ("cluster", "compare", "engine", "measures")


def names() -> tuple[str, ...]:
    """Return the names of the studies: one a module of this package."""
    return _found()


def _found() -> tuple[str, ...]:
    modules = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(sorted(modules - set(_SHARED)))


def find(name: str) -> Study:
    """Return a study by its name.

    Raises:
        StudyError: there is none of this name.
    """
    if name not in _found():
        raise StudyError(f"No study {name!r}: choose one of {', '.join(_found())}.")
    module: Any = importlib.import_module(f"crlib.studies.{name}")
    study: Study = module.STUDY
    return study


def published(name: str, profile: str = "quick") -> pandas.DataFrame:
    """Return the table of a study that comes with crlib, one row a run.

    Columns as in :func:`results`. ``crlib run NAME --csv FILE`` makes such a table. The
    quick grid is there as a whole, of a longer one maybe only what is finished.

    Args:
        name: of the study.
        profile: the grid that was run.

    Raises:
        StudyError: there is no study of this name, no table of it, or the table was
            made by another version of the study.
    """
    study = find(name)
    stem, command = name, f"crlib run {name}"
    if profile != "quick":
        stem, command = f"{name}-{profile}", f"{command} --profile {profile}"
    file = resources.files("crlib.results") / f"{stem}.csv"
    if not file.is_file():
        raise StudyError(f"No table of {name} comes with crlib: {command}.")
    with file.open(encoding="utf-8") as stream:
        table = pandas.read_csv(stream)
    if set(table["version"]) != {study.version}:
        raise StudyError(
            f"The table of {name} is of version {sorted(set(table['version']))}, the"
            f" study of {study.version}: run it again."
        )
    return table


def runs(table: pandas.DataFrame, **values: Any) -> pandas.DataFrame:
    """Return the runs of one setting from a study's table, one row a seed, by seed.

    Two settings indexed by the seed can be subtracted or divided: pairs of one seed
    meet.

    Args:
        table: as :func:`published` returns it.
        **values: what columns hold, such as ``way="rank", strength=16``.

    Raises:
        ValueError: there is no such column, or several runs of one seed fit.
    """
    unknown = [name for name in values if name not in table]
    if unknown:
        raise ValueError(f"No column {unknown[0]!r}: choose from {list(table)}.")
    fits = np.ones(len(table), dtype=bool)
    for name, value in values.items():
        column = table[name]
        fits &= (
            np.isclose(column, value) if isinstance(value, float) else column == value
        )
    found = table[fits].set_index("seed").sort_index()
    if not found.index.is_unique:
        raise ValueError(f"Several runs of one seed have {values}: name more columns.")
    return found


def apart(row: pandas.Series, numbers: Mapping[str, Any]) -> float:
    """Return how far a run done again is from its row of a table.

    Args:
        row: of one run, such as ``runs(...).loc[seed]``.
        numbers: what the study's function returned now; other columns do not matter.

    Returns:
        The largest relative difference over the numbers, infinite if a word or a truth
        value differs. In float64 another processor stays below ``1e-6``.

    Raises:
        ValueError: a number that the table does not have.
    """
    missing = [name for name in numbers if name not in row]
    if missing:
        raise ValueError(f"No column {missing[0]!r}: choose from {list(row.index)}.")

    def distance(told: Any, found: Any) -> float:
        if isinstance(found, str | bool | np.bool_):
            return 0.0 if told == found else math.inf
        a, b = float(told), float(found)
        if a == b or (math.isnan(a) and math.isnan(b)):
            return 0.0
        apart = abs(a - b) / max(abs(a), abs(b))
        return math.inf if math.isnan(apart) else apart

    return max(distance(row[name], found) for name, found in numbers.items())
