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


@pytest.mark.parametrize("page", pages.pages(), ids=lambda p: p.stem)
def test_page_in_a_browser(driver: Browser, page: Path) -> None:
    with pages.opened(driver, page) as (tab, trouble):
        problems = [*pages.mathematics(tab), *pages.overflow(tab)]
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


def test_a_page_is_text_before_it_is_code(driver: Browser) -> None:
    shares: dict[str, dict[str, float]] = {"ch": {}, "lab": {}}
    for page in pages.chapters():
        with pages.opened(driver, page) as (tab, _):
            unit = Unit.of(page)
            assert unit is not None
            shares[unit.kind][page.stem] = pages.open_code(tab)
    for kind, found in shares.items():
        dearest = max(found, key=lambda name: found[name])
        assert found[dearest] <= 0.35, f"{dearest}: {found[dearest]:.0%} is open code"
        assert statistics.median(found.values()) <= 0.20, f"{kind}: {found}"
