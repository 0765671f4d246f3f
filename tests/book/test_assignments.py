"""An assignment of each unit: its solution has all points, what students get none."""

import json
import re
from pathlib import Path

import pytest

from book._tools import assignment, extras, notebooks
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
    graded = [t for t in made.tasks if t.rubric]
    assert f"**{notebooks.RUBRIC}.**" not in student.read_text(encoding="utf-8")
    assert not graded or notebooks.RUBRIC in solution.read_text(encoding="utf-8")
    assert graded or name.startswith("lab"), "no question has a rubric"
    assert all(sum(map(notebooks.worth, t.rubric)) == t.points for t in graded)
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


def test_a_seed_goes_into_the_pack_and_nowhere_else(tmp_path: Path) -> None:
    plain = assignment.make(ROOT, "ch05", tmp_path / "plain")
    seeded = assignment.make(ROOT, "ch05", tmp_path / "seeded", seed=271828)
    assert {t.seed for t in grading.read(plain[0]).judged} == {0}
    assert {t.seed for t in grading.read(seeded[0]).judged} == {271828}
    for one, other in zip(plain[1:], seeded[1:], strict=True):
        assert one.read_bytes() == other.read_bytes()
    place = tmp_path / "in" / "ada"
    place.mkdir(parents=True)
    (place / "x.ipynb").write_bytes(seeded[2].read_bytes())
    (found,) = grading.grade(grading.read(seeded[0]), tmp_path / "in", tmp_path / "out")
    assert found.score == found.points > 0


@pytest.mark.parametrize("told", ["x", "-1", "1.5", str(2**31)])
def test_a_seed_is_a_number_that_generators_take(
    told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        assignment.main(["ch05", "--seed", told])
    assert "a whole number" in capsys.readouterr().err


def example() -> str:
    """Return the file of exercises that the page on teaching shows."""
    page = (ROOT / "book/teaching.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^````md\n(.*?)^````$", page, re.DOTALL | re.MULTILINE)
    return str(found)


def own(place: Path, text: str) -> Path:
    place.mkdir()
    (place / "ours.md").write_text(text, encoding="utf-8")
    return place


def test_exercises_of_your_own_are_assigned_and_graded(tmp_path: Path) -> None:
    folder = own(tmp_path / "ours", example())
    files = assignment.make(ROOT, "ch05", tmp_path / "made", 7, folder)
    pack, student, solution = files
    made = grading.read(pack)
    assert [t.label for t in made.judged][-1] == "ex-tail-share"
    assert made.judged[-1].seed == 7
    told = student.read_text(encoding="utf-8")
    assert "def tail(answer)" in told and "What truncation leaves out" in told
    for secret in ("tail_hidden", "sizes", "squares[k:]", "Square, sort"):
        assert secret not in told, secret
    assert "tail_hidden" not in solution.read_text(encoding="utf-8")
    wrong = re.findall(r"\[wrong-answer, .*?\]\n(.*?)```", example(), re.DOTALL)[0]
    for who, raw in (
        ("full", solution.read_bytes()),
        ("stub", student.read_bytes()),
        ("wrong", wrong.encode()),
    ):
        (tmp_path / "in" / who).mkdir(parents=True)
        name = "x.py" if who == "wrong" else "x.ipynb"
        (tmp_path / "in" / who / name).write_bytes(raw)
    full, none, half = grading.grade(made, tmp_path / "in", tmp_path / "out")
    rows = [next(r for r in x.rows if r.label == "ex-tail-share") for x in (full, half)]
    assert full.score == full.points and rows[0].score == rows[0].points == 4
    assert none.score == half.score == 0
    assert rows[1].public == "Of 3, 0, -4 it is 9/25, not 0.429."
    assert rows[1].hidden.startswith("With k = 2 it is ")


@pytest.mark.parametrize(
    ("find", "replace", "told"),
    [
        ("    raise NotImplementedError", "    return 0.36", "the stub passes"),
        ("return float(squares[k:]", "return float(squares[:k]", "the solution fails"),
        ("sizes = v.abs()", "sizes = v.square()", "the wrong answer passes both"),
        ("[wrong-answer, ex-tail-share]", "[]", "no cell tagged wrong-answer"),
        ("[hidden-test, ex-tail-share]", "[]", "no cell tagged hidden-test"),
        ("(answer, seed=0)", "(answer)", "its hidden-test takes a seed"),
        ("manual_seed(seed)", "manual_seed(3)", "draws nothing from its seed"),
        ("check(tail, tail_share)", "check(tail)", "end its public-test with"),
        (" points-4", "", "points-N"),
        ("```{solution-start} ex-tail-share", "```{note}", "no solution-start"),
        (":label: ex-tail-share", ":label: ex-build", "choose another"),
        ("Write `tail_share", "{nothing}`x` `tail_share", "has no form in a notebook"),
        ("squares = v.square().sort", "squares = w.square().sort", "NameError"),
    ],
)
def test_an_exercise_that_proves_nothing_is_refused(
    book: notebooks.Book, tmp_path: Path, find: str, replace: str, told: str
) -> None:
    assert find in example()
    folder = own(tmp_path / "ours", example().replace(find, replace))
    with pytest.raises(ManuscriptError, match=rf"ours\.md:\d+: .*{told}"):
        extras.added(book, "ch05", folder)


def test_a_folder_without_exercises_is_refused(
    book: notebooks.Book, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ManuscriptError, match=r"no \.md file"):
        extras.added(book, "ch05", tmp_path)
    folder = own(tmp_path / "ours", "# Nothing\n\nNo exercise.\n")
    out = tmp_path / "made"
    line = ["5", "--root", str(ROOT), "--out", str(out), "--extra", str(folder)]
    assert assignment.main(line) == 1
    assert "ours.md:1: no exercise is here" in capsys.readouterr().err
    assert not out.exists()
