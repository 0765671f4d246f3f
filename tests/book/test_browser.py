"""The built pages in a real browser, from a file, with no other host in reach."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.book import pages


@pytest.fixture(scope="module")
def driver() -> Iterator[Browser]:
    with pages.browser() as found:
        yield found


@pytest.mark.parametrize("page", pages.pages(), ids=lambda p: p.stem)
def test_page_in_a_browser(driver: Browser, page: Path) -> None:
    with pages.opened(driver, page) as (tab, trouble):
        problems = [*pages.mathematics(tab), *pages.overflow(tab)]
        if page in pages.chapters():
            problems += pages.slider_by_keyboard(tab)
            problems += pages.questions_by_keyboard(tab)
        problems += pages.accessibility(tab, dark=False)
        problems += pages.darken(tab)
        problems += [*pages.accessibility(tab, dark=True), *trouble]
    assert not problems, "\n".join(problems)
