"""Through every door a solution has all points, half of it half, a stub none."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from book._tools import assignment, leaks, notebooks
from crlib import exercises, grading
from crlib.grading import extract, gradescope, nbgrader, packs
from tests.unit.test_grading_nbgrader import autograded, points, released

# Cells and exercises of its unit decide as well: book/_tools/check.py keys by unit.
DEPENDS = ("_config.yml", "crlib/grading", "book/_tools", "book/references.bib")
ROOT = Path(__file__).parents[2]
BOOK = notebooks.load(ROOT)


@pytest.fixture(scope="module")
def secrets() -> dict[str, frozenset[str]]:
    return leaks.secrets(BOOK)


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
PAGES = [m.path for m in BOOK.chapters]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_solution_half_and_stub_get_their_points_through_every_door(
    secrets: dict[str, frozenset[str]],
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = page.stem.partition("_")[0]
    files = assignment.write(BOOK, name, tmp_path / "made")
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
    graded = [t for t in made.tasks if t.rubric]
    assert f"**{notebooks.RUBRIC}.**" not in student.read_text(encoding="utf-8")
    assert not graded or notebooks.RUBRIC in solution.read_text(encoding="utf-8")
    assert graded or name.startswith("lab"), "no question has a rubric"
    assert all(sum(map(notebooks.worth, t.rubric)) == t.points for t in graded)
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
