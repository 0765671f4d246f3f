"""A new unit is complete but for what only its author knows."""

import shutil
from pathlib import Path

import pytest

from book._tools import manuscript, skeleton
from book._tools.units import Unit, units
from tests.book import lints

SAMPLE = Path(__file__).parents[1] / "canary" / "sample"
DEPENDS = ("tests/canary/sample",)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLE, tmp_path / "small")
    for name in ("crlib/exercises", "tests/units"):
        (tmp_path / "small" / name).mkdir(parents=True)
    toc = "  - file: book/ch07_sample\n- caption: Back matter\n"
    (tmp_path / "small/_toc.yml").write_text(toc)
    return tmp_path / "small"


def test_a_unit_names_itself() -> None:
    lab = Unit.of("book/lab03_spiking_nets.html")
    assert lab and (lab.name, lab.label, lab.notebook) == (
        "lab03",
        "L3",
        "lab03_spiking_nets",
    )
    chapter = Unit.of(Path("book/ch05_measuring.md"))
    assert chapter and (chapter.name, chapter.label) == ("ch05", "5")
    assert chapter.notebook == "05_measuring" and chapter < lab
    assert Unit.of("book/changelog.md") is None


@pytest.mark.parametrize("kind", ["ch", "lab"])
def test_a_skeleton_lacks_nothing_but_its_words(root: Path, kind: str) -> None:
    assert skeleton.main([kind, "spiking_nets"], root) == 0
    unit = max(u for u in units(root) if u.kind == kind)
    assert unit.number == {"ch": 8, "lab": 1}[kind]
    shelf = lints.shelf(root)
    book = next(m for m in shelf.chapters if m.unit == unit)
    problems = lints.lint(book, shelf)
    left = [p for p in problems if "TODO" not in p and "no cell tagged claim" not in p]
    assert not left and any("TODO" in p for p in problems)
    for name, text in skeleton.files(unit).items():
        if name.endswith(".py"):
            compile(text, name, "exec")
    assert f"book/{unit.stem}\n" in (root / "_toc.yml").read_text()


PLACES = {
    "part1.md": "[A sample](ch07_sample.md)\n: What it is,\n  in short.\n",
    "part6.md": "[Last](lab01_last.md)\n: The last.\n\n[All](all.md)\n: Of them.\n",
    "session_plans.md": "```{session} ch07\n- *Vote:* why?\n```\n\n## More\n",
    "labs_together.md": "| Lab | Claim |\n|---|---|\n| [1](lab01_last.md) | So. |\n\n",
}


def test_a_unit_is_named_where_every_unit_is(root: Path) -> None:
    skeleton.main(["lab", "last"], root)
    for name, text in PLACES.items():
        (root / "book" / name).write_text(text)
    skeleton.main(["lab", "new_one"], root)
    skeleton.main(["ch", "new_two"], root)
    found = {name: (root / "book" / name).read_text() for name in PLACES}
    two = "\n[New two](ch08_new_two.md)\n: TODO what it adds to the thread.\n"
    assert found["part1.md"] == PLACES["part1.md"] + two
    one = "\n[New one](lab02_new_one.md)\n: TODO what it adds to the thread.\n\n[All]"
    assert one in found["part6.md"]
    plan = "- *Vote:* TODO\n- *Board:* TODO\n- *Notebook:* TODO\n```\n\n## More\n"
    assert f"\n\n```{{session}} ch08\n{plan}" in found["session_plans.md"]
    row = "| So. |\n| [2](lab02_new_one.md) | TODO"
    assert row in found["labs_together.md"]


def test_numbers_are_given_once(root: Path) -> None:
    skeleton.main(["lab", "later", "--number", "4"], root)
    with pytest.raises(SystemExit):
        skeleton.main(["lab", "again", "--number", "4"], root)
    skeleton.main(["lab", "between", "--number", "2"], root)
    contents = (root / "_toc.yml").read_text()
    assert [u.name for u in units(root)] == ["ch07", "lab02", "lab04"]
    # One part, in order.
    assert contents.count("VI Neighbours") == 1
    assert "book/lab02_between\n  - file: book/lab04_later\n" in contents


def test_a_lab_counts_with_its_letter(root: Path) -> None:
    skeleton.main(["lab", "spiking_nets"], root)
    books = manuscript.chapters(root)
    labels = manuscript.index(books, [], manuscript.NUMBER_FORMATS)
    assert labels["ex-spiking-nets-1"].text == "Exercise L1.1"
