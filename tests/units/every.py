"""The tests that every unit has. Each file of a unit imports them all."""

from typing import Any

import pytest

from book._tools import gates, run
from book._tools.manuscript import Manuscript
from tests.units import Mutation, mutating


# Its cells have limits of their own.
@pytest.mark.timeout(3600)
def test_it_runs_within_its_limits(book: Manuscript) -> None:
    """Every cell passes; outputs that are at hand for the same key have passed."""
    faults = run.faults(book.path, run.outputs(book.path), run.BUSY)
    assert not faults, "\n".join(faults)


def test_check_is_green(book: Manuscript, label: str) -> None:
    mutating.check(book, label)


def test_mutation_is_caught(book: Manuscript, mutation: Mutation) -> None:
    assert mutation.label in mutating.labels(book), "nobody states this: take it out"
    with pytest.raises(AssertionError):
        mutating.check(book, mutation.label, mutation)


def test_every_label_has_a_mutation(
    book: Manuscript, request: pytest.FixtureRequest
) -> None:
    stated = set(mutating.labels(book))
    missing = stated - {m.label for m in request.module.MUTATIONS}
    assert not missing, f"add a mutation of {sorted(missing)} to this file"


def test_exercise(
    book: Manuscript,
    exercise: str,
    setup: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    wrong = request.module.WRONG.get(exercise, [])
    answers = [wrong] if isinstance(wrong, str) else wrong
    problems = gates.faults(book, exercise, setup, answers)
    assert not problems, "\n".join(problems)


def test_every_wrong_answer_has_its_exercise(
    book: Manuscript, request: pytest.FixtureRequest
) -> None:
    assert set(request.module.WRONG) <= set(gates.exercise_labels(book))
