"""The page that compares with the papers: its overview, verdicts and checks agree."""

import ast
import re
from pathlib import Path

import pytest

from book._tools import manuscript as ms
from tests.book import lints

DEPENDS = ("book",)
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book" / "paper_versus_ours.md"
LINES = ["As reported", "Ours", "Verdict", "Where"]


def entries(text: str) -> dict[str, str]:
    """Return the text of each entry by its label."""
    parts = re.split(r"^\((pvo-[\w-]+)\)=$", text, flags=re.MULTILINE)
    return {
        label: re.split(r"^## ", body, maxsplit=1, flags=re.MULTILINE)[0]
        for label, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def problems(text: str, checks: set[str], glued: set[str]) -> list[str]:
    """Return what is wrong with the page.

    Args:
        text: the page.
        checks: the tags of all check cells.
        glued: what chapters glue, as ``chapter.md::name``.
    """
    overview = re.findall(r"^\| \{ref\}`(pvo-[\w-]+)` \| (.+) \|$", text, re.MULTILINE)
    found = []
    for label, body in entries(text).items():
        lines = re.findall(r"^(\w[\w ]*)\n: ", body, re.MULTILINE)
        if lines != LINES:
            found.append(f"{label} has the lines {lines}: write {LINES}")
        verdict = re.findall(r"^Verdict\n: \*\*(.+)\*\*$", body, re.MULTILINE)
        overview_says = [v for name, v in overview if name == label]
        if verdict != overview_says or len(verdict) != 1:
            found.append(f"{label}: verdict {verdict}, in the overview {overview_says}")
    for label, _ in overview:
        if label not in entries(text):
            found.append(f"{label} stands in the overview only")
    named = re.findall(r"`(check-[\w-]+)`", text)
    found += [f"no cell is tagged {tag}" for tag in named if tag not in checks]
    # Without the format at its end myst-nb takes the name for the format.
    taken = re.findall(r"\{glue:text\}`(\S+::\S+)`", text)
    wanted = {f"{place}:s" for place in glued}
    found += [f"no chapter glues {place}" for place in taken if place not in wanted]
    return found


@pytest.fixture(scope="module")
def checks() -> set[str]:
    tags = {t for book in ms.chapters(ROOT) for cell in book.cells for t in cell.tags}
    return {tag for tag in tags if tag.startswith("check-")}


@pytest.fixture(scope="module")
def glued() -> set[str]:
    return {
        f"{book.path.name}::{ast.literal_eval(call.args[0])}"
        for book in ms.chapters(ROOT)
        for cell in book.cells
        for call in lints.calls(cell, "glue")
    }


def test_the_page_is_right(checks: set[str], glued: set[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(entries(text)) > 20
    assert not problems(text, checks, glued)


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("`check-thm-law`", "`check-thm-raw`"),
        ("{ref}`pvo-cosines` | In part", "{ref}`pvo-cosines` | Same"),
        ("| {ref}`pvo-imagenet` | In part |\n", ""),
        ("(pvo-depth)=\n", ""),
        ("::ch09_cos1:s`", "::ch09_cos3:s`"),
        ("::ch09_cos1:s`", "::ch09_cos1`"),
    ],
)
def test_faults_are_found(
    find: str, replace: str, checks: set[str], glued: set[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert find in text
    assert problems(text.replace(find, replace, 1), checks, glued)
