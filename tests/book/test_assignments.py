"""An assignment of each unit: its solution has all points, what students get none."""

import json
import re
from pathlib import Path

import pytest

from book._tools import assignment, notebooks
from book._tools.manuscript import Manuscript, ManuscriptError
from crlib import grading

DEPENDS = ("book", "crlib", "_config.yml")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def book() -> notebooks.Book:
    return notebooks.load(ROOT)


def read(book: notebooks.Book, name: str) -> Manuscript:
    (found,) = (m for m in book.chapters if m.unit and m.unit.name == name)
    return found


def given_away(unit: Manuscript, notebook: Path) -> list[str]:
    """Return the labels of exercises whose solution or hidden test a notebook shows."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    found = ["words"] if "**Solution of" in text else []
    for cell in unit.cells:
        secret = {"solution", "hidden-test"} & set(cell.tags)
        if secret and (cell.body in text or re.search(r"_hidden\b", text)):
            found += [tag for tag in cell.tags if tag.startswith("ex-")]
    return found


UNITS = [m.unit.name for m in notebooks.load(ROOT).chapters if m.unit]


@pytest.mark.parametrize("name", UNITS)
def test_the_solution_has_all_points_and_the_stub_none(
    book: notebooks.Book, name: str, tmp_path: Path
) -> None:
    files = assignment.make(ROOT, name, tmp_path / "made")
    pack, student, solution = files
    assert not given_away(read(book, name), student)
    for who, notebook in (("solution", solution), ("stub", student)):
        (tmp_path / "in" / who).mkdir(parents=True)
        (tmp_path / "in" / who / "x.ipynb").write_bytes(notebook.read_bytes())
    made = grading.read(pack)
    assert made.judged, "nothing to judge"
    assert all(t.public_points + t.hidden_points == t.points for t in made.judged)
    full, none = grading.grade(made, tmp_path / "in", tmp_path / "out")
    assert full.score == full.points == sum(t.points for t in made.judged), full
    assert none.score == 0
    for record in (full, none):
        assert all(not row.flags for row in record.rows), record
    assert {row.public for row in none.rows} <= {"Not written yet.", ""}


def test_a_solution_that_is_given_away_is_found(
    book: notebooks.Book, tmp_path: Path
) -> None:
    _, student, solution = assignment.make(ROOT, "ch05", tmp_path)
    unit = read(book, "ch05")
    assert "words" in given_away(unit, solution)
    planted = json.loads(student.read_text(encoding="utf-8"))
    planted["cells"].append({"source": [unit.tagged("solution", "ex-build")[0].body]})
    student.write_text(json.dumps(planted), encoding="utf-8")
    assert given_away(unit, student) == ["ex-build"]


def test_an_unknown_unit_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ManuscriptError, match="no unit 'ch77': choose of ch01, "):
        assignment.make(ROOT, "ch77", tmp_path)
    line = ["77", "--root", str(ROOT), "--out", str(tmp_path)]
    assert assignment.main(line) == 1
    assert "no unit 'ch77'" in capsys.readouterr().err
