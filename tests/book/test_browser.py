"""The built pages in a real browser, from a file, with no other host in reach."""

from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
from playwright.sync_api import Browser

PAGES = pages.pages()


@pytest.fixture(scope="module")
def driver() -> Iterator[Browser]:
    with pages.browser() as found:
        yield found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_desktop(driver: Browser, page: Path, mode: str) -> None:
    with pages.opened(driver, page, dark=mode == "dark") as (tab, trouble):
        shown = tab.evaluate("document.documentElement.dataset.theme")
        problems = [
            *pages.mathematics(tab),
            *pages.accessibility(tab, dark=mode == "dark"),
            *trouble,
        ]
    assert shown == mode
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_phone(driver: Browser, page: Path) -> None:
    with pages.opened(driver, page, width=375) as (tab, trouble):
        problems = [*pages.overflow(tab), *pages.mathematics(tab), *trouble]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", pages.chapters(), ids=lambda p: p.stem)
def test_chapter_by_keyboard(driver: Browser, page: Path) -> None:
    with pages.opened(driver, page) as (tab, trouble):
        problems = [
            *pages.slider_by_keyboard(tab),
            *pages.questions_by_keyboard(tab),
            *trouble,
        ]
    assert not problems, "\n".join(problems)
