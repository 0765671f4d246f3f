"""Tests for the exercises of the book: each takes the function a learner wrote.

``check(test, answer)`` runs one and says what it found; ``grade(test, answer)`` raises
instead. A test is a function of one argument that asserts; the text of a failed
assertion is what the learner reads. A further test, ``NAME_hidden``, also takes a
``seed`` and draws inputs from it.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["Outcome", "check", "close", "gaussian", "grade", "plain"]


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
    included; an interruption by the user is. What the answer returns is refused before
    the test sees it, unless it is :func:`plain`.

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


def grade(test: Callable[[Any], None], answer: Any) -> None:
    """Run ``test`` on ``answer`` as :func:`check` does, and raise if it fails.

    For graders such as nbgrader, to which a cell without an error has passed.

    Raises:
        AssertionError: the answer fails; the text is the sentence of :func:`check`.
    """
    found = check(test, answer)
    if not found.passed:
        raise AssertionError(found.message)


def plain(value: Any) -> Any:
    """Return ``value`` if it cannot pretend: made of numbers, strings and tensors.

    An object of a class of its own may equal whatever it is compared with. So numbers,
    strings, None, tensors and NumPy arrays pass by their very type. Lists, tuples, sets
    and dictionaries of such are built anew, which turns a named tuple into a tuple.

    Raises:
        TypeError: anything else; the text is a sentence for the learner.
    """
    # An array of objects may hold anything.
    if type(value) in _PLAIN and getattr(value, "dtype", None) != np.dtype(object):
        return value
    if isinstance(value, tuple):
        return tuple(plain(item) for item in tuple.__iter__(value))
    if type(value) in (list, set, frozenset):
        return type(value)(plain(item) for item in value)
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    raise TypeError(
        f"Your function returned {_named(value)}: return a tensor, a number, a string,"
        " or a list, tuple, set or dictionary of them."
    )


def close(found: Any, right: float, what: str) -> None:
    """Assert that an answer is a number, and right to six digits.

    Args:
        found: what the learner's function returned.
        right: what it should have returned.
        what: begins the sentence for the learner: ``"For (1, 2) the bound"``.

    Raises:
        AssertionError: it is not.
    """
    one = isinstance(found, int | float | Tensor) or getattr(found, "ndim", 1) == 0
    assert one, f"{what} is not a number."
    near = math.isclose(float(found), right, rel_tol=1e-6, abs_tol=1e-6)
    assert near, f"{what} is {float(found):.6g} and should be {right:.6g}."


def gaussian(*shape: int, seed: int) -> Tensor:
    """Return standard normal numbers in double precision, always the same of a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


_PLAIN_ARRAYS = {Tensor, Parameter, np.ndarray}
_PLAIN = {type(None), bool, int, float, complex, str} | _PLAIN_ARRAYS
_PLAIN |= set(np.sctypeDict.values()) - {np.object_, np.void}


class _Watched:
    """A learner's function; remembers what came of the last call."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.raised: BaseException | None = None
        self.refused: TypeError | None = None
        self.returned: list[Any] = []

    def call(self, *args: Any, **options: Any) -> Any:
        self.returned = []
        try:
            found = self.answer(*args, **options)
        except BaseException as error:
            self.raised = error
            raise
        try:
            found = plain(found)
        except TypeError as error:
            self.refused = error
            raise
        self.returned = [found]
        return found


def _explain(error: BaseException, watched: _Watched) -> str:
    """Say whose fault it was: of the code, or of what it returned."""
    what = f"{type(error).__name__}: {error}"
    if watched.raised is error:
        return f"Your code raised {what}"
    if watched.refused is not None:
        return str(watched.refused)
    if watched.returned and watched.returned[0] is None:
        return "Your function returned None: did you forget `return`?"
    if isinstance(error, AssertionError):
        return str(error) or "An assertion of the test failed."
    if not watched.returned:
        return f"The test cannot use what your code gives: {what}"
    kind = _named(watched.returned[0])
    return f"The test cannot use what your function returned, {kind} ({what})"


def _named(value: Any) -> str:
    """Return the kind of a value in words: ``a list``, ``a Tensor of shape (3,)``."""
    name = type(value).__name__.replace("ndarray", "NumPy array")
    article = "an" if name[:1] in tuple("AEIOUaeiou") else "a"
    shape = f" of shape {tuple(value.shape)}" if type(value) in _PLAIN_ARRAYS else ""
    return f"{article} {name}{shape}"
