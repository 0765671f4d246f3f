"""Every chapter, and the book as a whole, against the lints."""

import re
from pathlib import Path

import pytest
import yaml

from book._tools import manuscript
from tests.book import lints, symbols

DEPENDS = ("book", "_toc.yml")
ROOT = Path(__file__).parents[2]
SHELF = lints.shelf(ROOT)


@pytest.mark.parametrize("book", SHELF.chapters, ids=lambda m: m.path.stem)
def test_chapter(book: manuscript.Manuscript) -> None:
    problems = lints.lint(book, SHELF)
    assert not problems, "\n".join(problems)


PAGE_RULES = ["digits", "cells", "tags", "figures", "sliders", "leftovers"]
PAGE_RULES += ["sentences", "links", "terms", "cited", "intervals", "ends", "spellings"]


@pytest.mark.parametrize("page", SHELF.pages, ids=lambda m: m.path.stem)
def test_page(page: manuscript.Manuscript) -> None:
    problems = lints.lint(page, SHELF, PAGE_RULES)
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


def test_every_unit_has_its_place() -> None:
    """A part's page links its units in order, and a chapter has its session plan."""
    plans = (ROOT / "book/session_plans.md").read_text(encoding="utf-8")
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    planned = []
    for part in contents["parts"]:
        files = [Path(entry["file"]).name for entry in part["chapters"]]
        units = [name for name in files if re.match(r"(ch|lab)\d\d_", name)]
        if not units:
            continue
        page = (ROOT / f"book/{files[0]}.md").read_text(encoding="utf-8")
        linked = re.findall(r"^\[.*\]\(((?:ch|lab)\d\d_\w+)\.md\)$", page, re.M)
        assert linked == units, files[0]
        chapters = [name[:4] for name in units if name.startswith("ch")]
        if chapters:
            planned += [f"## {part['caption']}", *chapters]
    assert re.findall(r"^## .*|(?<=^```{session} ).*", plans, re.M) == planned


def test_there_is_a_book() -> None:
    assert SHELF.chapters
