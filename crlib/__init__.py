"""The library behind the book *Compressibility and Adversarial Robustness*.

Importing ``crlib`` costs milliseconds: torch is imported when a module that computes
with it is first used (``crlib.attacks``, ``crlib.models``, ...).
"""

import importlib
import math
import os
import re
from typing import Any, TypeVar

from crlib.version import __version__

T = TypeVar("T")

__all__ = ["__version__", "by_profile", "profile", "report", "require"]

_ROOMS = (
    "attacks",
    "certify",
    "claims",
    "compress",
    "data",
    "exercises",
    "figures",
    "frames",
    "grading",
    "metrics",
    "models",
    "reporting",
    "studies",
    "theory",
    "train",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"crlib.{name}")
    if name == "report":
        return importlib.import_module("crlib.reporting").report
    raise AttributeError(f"module 'crlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])


def profile() -> str:
    """Return the compute profile, ``"quick"`` or ``"full"``.

    It is read from the environment variable ``CRLIB_PROFILE`` (default ``quick``).

    Raises:
        ValueError: the variable holds anything else.
    """
    value = os.environ.get("CRLIB_PROFILE", "quick")
    if value not in ("quick", "full"):
        raise ValueError(
            f"CRLIB_PROFILE is {value!r}: set it to 'quick' (two cores, minutes) or"
            " 'full' (a GPU or an evening)."
        )
    return value


def by_profile(*, quick: T, full: T) -> T:
    """Return ``quick`` or ``full`` by the compute profile: sizes and seeds only."""
    return quick if profile() == "quick" else full


def require(version: str) -> None:
    """Check that this crlib can run a notebook written for ``version``.

    Major and minor number must agree, and this crlib must not be older: 0.2.1 runs a
    notebook of 0.2.0, not the other way round, and 0.2.0.dev1, which precedes 0.2.0,
    neither that nor a notebook of 0.2.0.dev2.

    Args:
        version: the version the book carries, such as ``"0.1.0"``.

    Raises:
        ImportError: this crlib is another one, or older.
        ValueError: no version.
    """
    wanted, found = _order(version), _order(__version__)
    if wanted[:2] != found[:2] or found < wanted:
        raise ImportError(
            f"This notebook was written for crlib {version} and found {__version__}."
            " Install the matching release, or open the notebook that came with"
            " this one."
        )


def _order(version: str) -> tuple[float, ...]:
    """Return numbers that order versions; one in development precedes its release."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(?:\.dev(\d+))?", version)
    if match is None:
        raise ValueError(f"{version!r} is no version: write it as '0.1.0'.")
    *release, dev = match.groups()
    return (*map(int, release), math.inf if dev is None else int(dev))
