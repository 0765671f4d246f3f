"""What an assignment holds, what it hides, and what is refused."""

import contextlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from book._tools import assignment, extras, leaks, notebooks
from book._tools.manuscript import ManuscriptError
from crlib import __main__ as command
from crlib import grading
from crlib.grading import gradescope

DEPENDS = (
    *("ch02", "ch05", "lab03", "book/teaching.md"),
    *("crlib", "_config.yml", "book/_tools", "book/references.bib"),
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def book() -> notebooks.Book:
    return notebooks.load(ROOT)


@pytest.mark.parametrize("name", ["ch02", "lab03"])
def test_gradescopes_program_comes_to_the_same_points(
    name: str, tmp_path: Path
) -> None:
    pack, student, solution = assignment.make(ROOT, name, tmp_path / "made")
    most = sum(task.points for task in grading.read(pack).judged)
    for notebook, score in ((solution, most), (student, 0)):
        (tmp_path / "submission").mkdir(exist_ok=True)
        (tmp_path / "submission" / "x.ipynb").write_bytes(notebook.read_bytes())
        results = tmp_path / "results.json"
        gradescope.main([str(pack), str(tmp_path / "submission"), str(results)])
        told = json.loads(results.read_text(encoding="utf-8"))
        assert sum(test["score"] for test in told["tests"]) == score


def test_gradescopes_zip_gives_no_solution_away(
    book: notebooks.Book, tmp_path: Path
) -> None:
    made, _, _ = assignment.write(book, "ch05", tmp_path)
    # crlib holds the hidden tests, and its wheel is in the zip.
    known = leaks.secrets(book, "ch05", tests=False)
    assert leaks.found([made], known), "a rubric is a solution"
    planted = Path(shutil.copy(made, tmp_path / "wheel.json"))
    zipped = gradescope.bundle(made, planted, tmp_path / "gradescope.zip")
    assert leaks.found([zipped], known), "planted in place of the wheel"
    (tmp_path / "wheel").write_bytes(b"")
    gradescope.bundle(made, tmp_path / "wheel", zipped)
    assert leaks.found([zipped], known) == []


def test_every_open_question_has_room_for_its_answer(tmp_path: Path) -> None:
    pack, student, _ = assignment.make(ROOT, "ch05", tmp_path)
    cells = json.loads(student.read_text(encoding="utf-8"))["cells"]
    asked = [t.label for t in grading.read(pack).tasks if t.kind != "write"]
    rooms = [c["metadata"]["tags"][1] for c in cells
             if c["metadata"].get("tags", [""])[0] == "answer"]  # fmt: skip
    assert asked and rooms == asked


def test_all_assignments_are_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = notebooks.load(ROOT)
    few = [m for m in whole.chapters if m.unit and m.unit.name in ("ch05", "lab03")]
    monkeypatch.setattr(notebooks, "load", lambda _: replace(whole, chapters=few))
    line = ["--all", "--out", str(tmp_path / "all"), "--classroom"]
    assert assignment.main([*line, "--nbgrader", str(tmp_path / "course")]) == 0
    page = (tmp_path / "all" / "index.html").read_text(encoding="utf-8")
    for unit in few:
        assert unit.unit is not None
        link = f"{unit.unit.name}/{unit.unit.notebook}.ipynb"
        assert f'href="{link}"' in page and (tmp_path / "all" / link).exists()
        source = tmp_path / "course" / "source" / unit.unit.name
        assert (source / f"{unit.unit.notebook}.ipynb").exists()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        assignment.main(["ch05", "--all"])
    assert "name a unit, or take --all" in capsys.readouterr().err


def test_a_class_of_github_sees_the_points_of_each_push(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert assignment.main(["lab03", "--out", str(tmp_path), "--classroom"]) == 0
    workflow = tmp_path / "classroom" / ".github" / "workflows" / "points.yml"
    steps = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["grade"][
        "steps"
    ]
    # As the machine of GitHub checks the repository out, in the folder of a class.
    shutil.copytree(tmp_path / "classroom", tmp_path / steps[0]["with"]["path"])
    solution = next((tmp_path / "solution").iterdir())
    shutil.copy(solution, tmp_path / "class" / "student")
    words = steps[-1]["run"].partition("|")[0].split()
    assert words[:3] == ["python", "-m", "crlib"]
    capsys.readouterr()
    with contextlib.chdir(tmp_path):
        assert command.main(words[3:]) == 0
    most = sum(t.points for t in grading.read(tmp_path / "pack.json").judged)
    assert f"{most} of {most} points" in capsys.readouterr().out


def test_a_template_holds_nothing_that_only_the_course_knows(tmp_path: Path) -> None:
    folder = own(tmp_path / "ours", example())
    line = ["ch05", "--out", str(tmp_path / "made"), "--classroom", "--seed", "271828"]
    assert assignment.main([*line, "--extra", str(folder)]) == 0
    template = tmp_path / "made" / "classroom"
    whole = grading.read(tmp_path / "made" / "pack.json")
    given = grading.read(template / ".github" / "pack.json")
    assert [t.label for t in given.judged] == [t.label for t in whole.judged[:-1]]
    assert {t.seed for t in given.judged} == {0}
    assert leaks.found([template], {}, 271828) == []
    whole.write(template / ".github" / "pack.json")
    assert leaks.found([template], {}, 271828) != []


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
