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
    """Run ``test`` on a learner's ``answer`` and report what it found.

    Nothing that the answer does is raised again, an attempt to leave the interpreter
    included; an interruption by the user is.

    Args:
        test: a function of this package that asserts things about its argument.
        answer: what the learner wrote, usually a function.

    Returns:
        An :class:`Outcome`, which shows itself as one line under the cell.
    """
    watched = _Watched(answer)
    try:
        test(watched.call if callable(answer) else answer)
    except NotImplementedError:
        return Outcome(False, "Not written yet.")
    except (Exception, SystemExit) as error:
        return Outcome(False, _explain(error, watched))
    return Outcome(True, "Passed.")


class _Watched:
    """A learner's function; remembers what came of the last call."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.raised: BaseException | None = None
        self.forgot = False

    def call(self, *args: Any, **options: Any) -> Any:
        self.forgot = False
        try:
            found = self.answer(*args, **options)
        except BaseException as error:
            self.raised = error
            raise
        self.forgot = found is None
        if _equals_everything(found):
            raise AssertionError(
                "Your function returned an object that equals everything: return a"
                " number, a tensor, or what the task asks for."
            )
        return found


def _explain(error: BaseException, watched: _Watched) -> str:
    """Say whose fault it was: of the code, or of what it returned."""
    what = f"{type(error).__name__}: {error}"
    if watched.raised is error:
        return f"Your code raised {what}"
    if watched.forgot:
        return "Your function returned None: did you forget `return`?"
    if isinstance(error, AssertionError):
        return str(error) or "An assertion of the test failed."
    return f"The test cannot use what your code gives: {what}"


def _equals_everything(found: Any) -> bool:
    """Whether ``found``, or an item of it, equals two things that differ."""
    if isinstance(found, list | tuple):
        return any(map(_equals_everything, found))
    if isinstance(found, dict):
        return any(map(_equals_everything, found.values()))
    try:
        return all(bool(found == other) for other in (0.123, -98765))
    except Exception:
        # An array compares entry by entry: that is no single yes.
        return False
