"""An assignment of each unit: its solution has all points, what students get none."""

import contextlib
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from book._tools import assignment, leaks, notebooks
from book._tools.manuscript import ManuscriptError
from crlib import __main__ as command
from crlib import exercises, grading
from crlib.grading import extract, gradescope, nbgrader, packs
from tests.unit.test_grading_nbgrader import autograded, points, released

DEPENDS = ("book", "crlib", "_config.yml", "tests/unit/test_grading_nbgrader.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def book() -> notebooks.Book:
    return notebooks.load(ROOT)


@pytest.fixture(scope="module")
def secrets(book: notebooks.Book) -> dict[str, frozenset[str]]:
    return leaks.secrets(book)


def open_only(pack: grading.Pack, solution: Path) -> bytes:
    """Return the solutions, each of which gives up after the calls of the open test."""
    told = json.loads(solution.read_text(encoding="utf-8"))
    sources = extract.answers(solution.read_bytes(), pack.judged)
    for task in pack.judged:
        space: dict[str, Any] = {"__name__": "notebook"}
        exec("\n\n".join([*pack.setup, sources[task.label].source]), space)
        solved, calls = space[task.function], []

        def counted(*args: Any, **options: Any) -> Any:
            calls.append(1)  # noqa: B023
            return solved(*args, **options)  # noqa: B023

        assert exercises.check(packs.test(task.public), counted).passed
        source = GIVES_UP.format(name=task.function, most=len(calls))
        told["cells"].append({"cell_type": "code", "source": source})
    return json.dumps(told).encode()


GIVES_UP = """
solved_{name} = {name}
calls_{name} = [0]
def {name}(*args, **options):
    calls_{name}[0] += 1
    if calls_{name}[0] > {most}:
        raise ValueError("enough")
    return solved_{name}(*args, **options)
"""
UNITS = [m.unit.name for m in notebooks.load(ROOT).chapters if m.unit]


@pytest.mark.parametrize("name", UNITS)
def test_solution_half_and_stub_get_their_points_through_every_door(
    book: notebooks.Book,
    secrets: dict[str, frozenset[str]],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = assignment.write(book, name, tmp_path / "made")
    pack, student, solution = files
    course = tmp_path / "course"
    made = grading.read(pack)
    source, _ = nbgrader.enter(made, student, course)
    assert leaks.found([student, source], secrets) == []
    release = course / "release" / name / made.notebook
    release.parent.mkdir(parents=True)
    release.write_text(json.dumps(released(json.loads(source.read_text("utf-8")))))
    handed_in = {
        "half": open_only(made, solution),
        "solution": solution.read_bytes(),
        "stub": student.read_bytes(),
    }
    for who, raw in handed_in.items():
        (tmp_path / "in" / who).mkdir(parents=True)
        (tmp_path / "in" / who / "x.ipynb").write_bytes(raw)
    assert made.judged, "nothing to judge"
    assert all(t.public_points + t.hidden_points == t.points for t in made.judged)
    where = (tmp_path / "in", course, tmp_path / "out")
    half, full, none = nbgrader.grade(made, *where)
    assert full.score == full.points == sum(t.points for t in made.judged), full
    assert half.score == sum(t.public_points for t in made.judged), half
    assert none.score == 0
    for record in (full, half, none):
        assert all(not row.flags for row in record.rows), record
        told = gradescope.results(made, record)["tests"]
        assert sum(test["score"] for test in told) == record.score
        assert sum(test["max_score"] for test in told) == record.points
        shown = autograded(course, record.student, name, made.notebook, monkeypatch)
        assert points(shown) == record.score
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8") as table:
        scores = [int(row["score"]) for row in csv.DictReader(table)]
    assert scores == [half.score, full.score, none.score]
    assert {row.public for row in none.rows} <= {"Not written yet.", ""}


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


def test_every_solution_is_a_secret_and_seen_where_it_is_shown(
    book: notebooks.Book,
) -> None:
    known = leaks.secrets(book, tests=False)
    exercises_of = {
        f"{m.unit.name}, {block.label}"
        for m in book.chapters
        for block in m.blocks
        if m.unit and block.name == "exercise-start"
    }
    assert set(known) == exercises_of
    told = leaks.found([ROOT / "chapters"], known)
    seen = {line.partition("gives away ")[2].partition(":")[0] for line in told}
    assert seen == exercises_of


def test_an_unknown_unit_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ManuscriptError, match="no unit 'ch77': choose of ch01, "):
        assignment.make(ROOT, "ch77", tmp_path)
    line = ["77", "--root", str(ROOT), "--out", str(tmp_path)]
    assert assignment.main(line) == 1
    assert "no unit 'ch77'" in capsys.readouterr().err
