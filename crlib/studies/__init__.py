"""Studies: experiments too long for a chapter, run once and kept as small tables.

``crlib list`` names them, ``crlib run NAME`` runs one and resumes it, ``crlib results
NAME`` prints its table.
"""

import importlib
from typing import Any

from crlib.studies.engine import Study, StudyError, configurations, results, sweep

__all__ = [
    "Study",
    "StudyError",
    "configurations",
    "find",
    "names",
    "results",
    "sweep",
]

_MODULES = ("networks",)


def names() -> tuple[str, ...]:
    """Return the names of the studies."""
    return _MODULES


def find(name: str) -> Study:
    """Return a study by its name.

    Raises:
        StudyError: there is none of this name.
    """
    if name not in _MODULES:
        raise StudyError(f"No study {name!r}: choose one of {', '.join(_MODULES)}.")
    module: Any = importlib.import_module(f"crlib.studies.{name}")
    study: Study = module.STUDY
    return study
