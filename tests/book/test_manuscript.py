"""Every chapter, and the book as a whole, against the lints."""

from pathlib import Path

import pytest

from book._tools import manuscript
from tests.book import lints, symbols

DEPENDS = ("book",)
ROOT = Path(__file__).parents[2]
SHELF = lints.shelf(ROOT)


@pytest.mark.parametrize("rule", lints.RULES)
@pytest.mark.parametrize("book", SHELF.chapters, ids=lambda m: m.path.stem)
def test_chapter(book: manuscript.Manuscript, rule: str) -> None:
    problems = lints.lint(book, SHELF, [rule])
    assert not problems, "\n".join(problems)


PAGE_RULES = ("digits", "cells", "tags", "figures", "sliders", "leftovers")
PAGE_RULES += ("sentences", "links", "terms", "cited", "intervals")


@pytest.mark.parametrize("rule", PAGE_RULES)
@pytest.mark.parametrize("page", SHELF.pages, ids=lambda m: m.path.stem)
def test_page(page: manuscript.Manuscript, rule: str) -> None:
    problems = lints.lint(page, SHELF, [rule])
    assert not problems, "\n".join(problems)


def test_cell_lengths() -> None:
    problems = lints.cell_lengths(SHELF.chapters)
    assert not problems, "\n".join(problems)


def test_references() -> None:
    problems = lints.references(SHELF)
    assert not problems, "\n".join(problems)


def test_notation() -> None:
    page = next(page for page in SHELF.pages if page.path.name == "notation.md")
    problems = symbols.problems(page, SHELF.chapters)
    assert not problems, "\n".join(problems)


def test_there_is_a_book() -> None:
    assert SHELF.chapters
