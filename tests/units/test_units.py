"""Each unit: the checks of its theorems, their mutations, and its exercises' tests."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from book._tools import manuscript
from tests import units
from tests.units import Mutation, cells, mutating

ROOT = Path(__file__).parents[2]
BOOKS = {book.path.stem.partition("_")[0]: book for book in manuscript.chapters(ROOT)}
LABELS = [(name, label) for name in BOOKS for label in mutating.labels(BOOKS[name])]
EXERCISES = [
    (name, label) for name in BOOKS for label in cells.exercise_labels(BOOKS[name])
]


@cache
def setup(name: str) -> dict[str, Any]:
    namespace = cells.fresh()
    cells.run_all(BOOKS[name].tagged("setup"), namespace)
    return namespace


@pytest.mark.parametrize(("name", "label"), LABELS)
def test_check_is_green(name: str, label: str) -> None:
    mutating.check(BOOKS[name], label)


@pytest.mark.parametrize(("name", "label"), LABELS)
def test_label_has_a_mutation(name: str, label: str) -> None:
    own = units.of(name).MUTATIONS
    assert label in {m.label for m in own}, f"add one to tests/units/{name}.py"


@pytest.mark.parametrize(
    ("name", "mutation"),
    [(name, mutation) for name in BOOKS for mutation in units.of(name).MUTATIONS],
    ids=lambda v: v if isinstance(v, str) else f"{v.label}: {v.find} -> {v.replace}",
)
def test_mutation_is_caught(name: str, mutation: Mutation) -> None:
    assert (name, mutation.label) in LABELS, "nothing is stated here: take it out"
    with pytest.raises(AssertionError):
        mutating.check(BOOKS[name], mutation.label, mutation)


@pytest.mark.parametrize(("name", "label"), EXERCISES)
def test_exercise(name: str, label: str) -> None:
    wrong = units.of(name).WRONG.get(label)
    problems = cells.faults(BOOKS[name], label, setup(name), wrong)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", BOOKS)
def test_every_wrong_answer_has_its_exercise(name: str) -> None:
    assert set(units.of(name).WRONG) == {label for n, label in EXERCISES if n == name}
