"""The library behind the book *Compressibility and Adversarial Robustness*.

Importing ``crlib`` costs milliseconds: torch is imported when a module that computes
with it is first used (``crlib.attacks``, ``crlib.models``, ...).
"""

import importlib
import os
from types import ModuleType
from typing import TypeVar

from crlib.version import __version__

T = TypeVar("T")

__all__ = ["__version__", "by_profile", "profile", "require"]

_ROOMS = (
    "attacks",
    "certify",
    "claims",
    "compress",
    "data",
    "exercises",
    "figures",
    "frames",
    "metrics",
    "models",
    "studies",
    "theory",
    "train",
)


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"crlib.{name}")
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
    """Check that this crlib is the one a notebook was written for.

    Args:
        version: the version the book carries, such as ``"0.1.0"``.

    Raises:
        ImportError: the major or minor number differs.
    """
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise ImportError(
            f"This notebook was written for crlib {version} and found {__version__}."
            " Install the matching release, or open the notebook that came with"
            " this one."
        )
