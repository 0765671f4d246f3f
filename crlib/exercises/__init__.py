"""Tests for the exercises of the book: each takes the function a learner wrote.

``check(test, answer)`` runs one and says what it found. A test is a function of one
argument that asserts; the text of a failed assertion is what the learner reads.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["Outcome", "check"]


def __getattr__(name: str) -> ModuleType:
    if importlib.util.find_spec(f"crlib.exercises.{name}"):
        return importlib.import_module(f"crlib.exercises.{name}")
    raise AttributeError(f"module 'crlib.exercises' has no attribute {name!r}")


@dataclass(frozen=True)
class Outcome:
    """What a test found: ``passed``, and a sentence for the learner."""

    passed: bool
    message: str

    def __repr__(self) -> str:
        return ("✓ " if self.passed else "✗ ") + self.message


def check(test: Callable[[Any], None], answer: Any) -> Outcome:
    """Run ``test`` on a learner's ``answer`` and report; never raises.

    Args:
        test: a function of this package that asserts things about its argument.
        answer: what the learner wrote, usually a function.

    Returns:
        An :class:`Outcome`, which shows itself as one line under the cell.
    """
    try:
        test(answer)
    except NotImplementedError:
        return Outcome(False, "Not written yet.")
    except AssertionError as error:
        return Outcome(False, str(error) or "An assertion of the test failed.")
    except Exception as error:
        return Outcome(False, f"Your code raised {type(error).__name__}: {error}")
    return Outcome(True, "Passed.")
