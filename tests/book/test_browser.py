"""The built pages in a real browser, from a file, with no other host in reach."""

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from book._tools.units import Unit
from tests.book import pages


@pytest.fixture(scope="module")
def driver() -> Iterator[Browser]:
    with pages.browser() as found:
        yield found


# The share of each page that is open code, measured on the way.
OPEN: dict[Path, float] = {}


@pytest.mark.parametrize("page", pages.pages(), ids=lambda p: p.stem)
def test_page_in_a_browser(driver: Browser, page: Path) -> None:
    with pages.opened(driver, page) as (tab, trouble):
        problems = [*pages.mathematics(tab), *pages.overflow(tab)]
        OPEN[page] = pages.open_code(tab)
        if (unit := Unit.of(page)) is not None:
            if unit.kind == "ch":
                problems += pages.something_to_move(tab)
            problems += pages.slider_by_keyboard(tab)
            problems += pages.questions_by_keyboard(tab)
            problems += pages.cards_by_keyboard(tab)
            problems += pages.pages_by_keyboard(tab)
        problems += pages.accessibility(tab, dark=False)
        problems += pages.darken(tab)
        problems += [*pages.accessibility(tab, dark=True), *trouble]
    assert not problems, "\n".join(problems)


def test_a_page_is_text_before_it_is_code() -> None:
    shares = {page.stem: OPEN[page] for page in pages.chapters() if page in OPEN}
    if not shares:
        pytest.skip("no chapter was opened")
    dearest = max(shares, key=lambda name: shares[name])
    assert shares[dearest] <= 0.35, f"{dearest}: {shares[dearest]:.0%} is open code"
    if len(shares) > 10:
        assert statistics.median(shares.values()) <= 0.20, shares
