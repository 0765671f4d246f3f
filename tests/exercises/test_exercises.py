"""The tests of the exercises are tested: stub, solution and a wrong answer."""

from functools import cache
from pathlib import Path
from typing import Any

import chapter_code
import manuscript
import pytest
from wrong_answers import WRONG

ROOT = Path(__file__).parents[2]
CHAPTERS = {book.path.stem: book for book in manuscript.chapters(ROOT)}
EXERCISES = [
    (name, label)
    for name, book in CHAPTERS.items()
    for label in chapter_code.exercise_labels(book)
]


@cache
def setup(name: str) -> dict[str, Any]:
    namespace = chapter_code.fresh()
    chapter_code.run_all(CHAPTERS[name].tagged("setup"), namespace)
    return namespace


@pytest.mark.parametrize(("name", "label"), EXERCISES)
def test_exercise(name: str, label: str) -> None:
    book = CHAPTERS[name]
    problems = chapter_code.faults(book, label, setup(name), WRONG.get(label))
    assert not problems, "\n".join(problems)


def test_every_wrong_answer_has_its_exercise() -> None:
    assert set(WRONG) <= {label for _, label in EXERCISES}
