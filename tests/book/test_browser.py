"""The built pages in a real browser, from a file, with no other host in reach."""

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from book._tools.units import Unit
from crlib.reporting import Report
from crlib.reporting.parts import Section, Table
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
        with pages.opened(driver, page, formulas=False) as (tab, _):
            unit = Unit.of(page)
            assert unit is not None
            shares[unit.kind][page.stem] = pages.open_code(tab)
    for kind, found in shares.items():
        dearest = max(found, key=lambda name: found[name])
        assert found[dearest] <= 0.35, f"{dearest}: {found[dearest]:.0%} is open code"
        assert statistics.median(found.values()) <= 0.20, f"{kind}: {found}"


def test_a_report_on_many_layers_in_a_browser(driver: Browser, tmp_path: Path) -> None:
    meaning = "Such points do not survive in an image of 8 bits: report another number."
    names = [f"1._blocks.{k}._depthwise_conv.1" for k in range(50)]
    columns = ["layer", "shape", *(f"error, rows, {k}" for k in range(7))]
    numbers = [[name, "1152×25", *["0.123"] * 7] for name in names]
    tables = [
        Table("Layers", columns, numbers),
        Table(
            "Checks",
            ["check", "number", "allowed", "means"],
            [["a", "1", "0", meaning]],
        ),
    ]
    found = Report({"layers": Section("layers", "Text.", tables=tables)}, {}, "")
    with pages.opened(driver, found.html(tmp_path / "report.html")) as (tab, trouble):
        problems = [*pages.overflow(tab)]
        tab.set_viewport_size(pages.PHONE)
        box = "document.querySelector('.wide')"
        # Fifty rows scroll in their own box, below the names of their columns.
        assert tab.evaluate(f"{box}.clientHeight") < 700
        tab.evaluate(f"{box}.scrollTop = 500")
        top = tab.evaluate(
            f"{box}.querySelector('th').getBoundingClientRect().top"
            f" - {box}.getBoundingClientRect().top"
        )
        assert 0 <= top < 2
        # The name of a layer leaves room for two numbers beside it.
        cell = f"{box}.querySelectorAll('td')[2].getBoundingClientRect().right"
        assert tab.evaluate(cell) < pages.PHONE["width"]
        # A sentence is not squeezed to a word a line.
        assert tab.evaluate("document.querySelector('td.long').clientWidth") > 200
        tab.set_viewport_size(pages.DESKTOP)
        problems += pages.accessibility(tab, dark=False)
        tab.emulate_media(color_scheme="dark")
        problems += [*pages.accessibility(tab, dark=True), *trouble]
    assert not problems, "\n".join(problems)
