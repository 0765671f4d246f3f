"""The built pages: alternative texts, no leftovers, no host, the right numbers."""

from pathlib import Path

import pytest

from book._tools import manuscript, notebooks
from book._tools.units import Unit
from tests.book import pages

PAGES = pages.pages()
CONFIG = manuscript.config(pages.ROOT)


def test_the_book_is_built() -> None:
    built = {page.stem for page in PAGES}
    wanted = {page.path.stem for page in manuscript.pages(pages.ROOT)}
    assert wanted and wanted <= built, "run `make book` first"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_page(page: Path) -> None:
    problems = [
        *pages.pictures(page),
        *pages.leftovers(page),
        *pages.complaints(page),
        *pages.weight(page),
        *pages.hosts(page),
        *pages.buttons(page, CONFIG["repository"]["url"]),
    ]
    assert not problems, "\n".join(problems)


def test_nothing_secret_is_served() -> None:
    books = manuscript.chapters(pages.ROOT)
    hidden = [cell.body for book in books for cell in book.tagged("hidden-test")]
    problems = list(pages.secrets(pages.HTML, hidden))
    assert hidden and not problems, "\n".join(problems)


def test_numbers_equal_those_of_the_notebooks() -> None:
    shown = {}
    for page in pages.chapters():
        for element in pages.article(page).find_all(id=True):
            title = element.find(class_="caption-number")
            if title is not None:
                shown[element["id"]] = title.get_text(" ", strip=True)
    labels = notebooks.labels(pages.ROOT)
    compared = {label: labels[label] for label in labels if label in shown}
    assert len(compared) > 20
    assert compared == {label: shown[label] for label in compared}


@pytest.mark.parametrize("page", pages.chapters(), ids=lambda p: p.stem)
def test_title_carries_the_number_of_the_chapter(page: Path) -> None:
    heading = pages.article(page).find("h1")
    unit = Unit.of(page)
    assert heading and unit
    assert heading.get_text(" ", strip=True).startswith(f"{unit.label}.")
