"""nbgrader gets clean notebooks and our verdicts; its points are those of the table."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from crlib import __main__ as command
from crlib.grading import PackError, extract, nbgrader
from crlib.grading.marks import Record
from tests.unit import hostile
from tests.unit.hostile import EFFECTIVE_RANK, ERROR_CURVE, PACK, STUBS, notebook

DEPENDS = ("crlib/grading", "crlib/exercises")
QUESTION = "### Exercise 5.4: Three ranks\n\nShow that $r \\le s$."
ROOM = "*Your answer to Exercise 5.4:*"


def cell(kind: str, source: str, *tags: str) -> dict[str, Any]:
    found = {"cell_type": kind, "metadata": {"tags": [*tags]} if tags else {}}
    more = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return found | more | {"id": f"c{abs(hash(source))}", "source": source}


# What students of the small pack are given.
GIVEN: dict[str, Any] = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3", "language": "python",
                                "display_name": "Python 3"}},
    "cells": [
        cell("markdown", "# Measuring"),
        cell("code", "import torch", "setup"),
        cell("code", STUBS[0].strip(), "exercise", "ex-error-curve"),
        cell("code", "exercises.check(a)", "public-test", "ex-error-curve"),
        cell("markdown", QUESTION),
        cell("markdown", ROOM, "answer", "ex-ranks"),
        cell("code", STUBS[1].strip(), "exercise", "ex-effective-rank"),
        cell("code", "exercises.check(b)", "public-test", "ex-effective-rank"),
        cell("markdown", "## Background"),
    ],
}  # fmt: skip


def released(source: Mapping[str, Any]) -> dict[str, Any]:
    """Take out what nbgrader takes out."""
    made = deepcopy(dict(source))
    for each in made["cells"]:
        text = "".join(each["source"])
        each["source"] = text.replace(f"\n{nbgrader.REGION}", "\n")
    return made


RELEASE = released(nbgrader.source(GIVEN, PACK))


def answered(question: str = "", **changes: Any) -> bytes:
    """Return a released notebook with both answers, and a text to the question."""
    made = deepcopy(RELEASE)
    for each in made["cells"]:
        for name, source in (("curve", ERROR_CURVE), ("rank", EFFECTIVE_RANK)):
            if each["metadata"].get("nbgrader", {}).get("grade_id", "x").endswith(name):
                each["source"] = source
        if question and each["source"].startswith(ROOM):
            each["source"] = question
    return json.dumps(made | changes).encode()


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course in which the assignment was generated, without nbgrader."""
    given = tmp_path / "given.ipynb"
    given.write_text(json.dumps(GIVEN))
    file, settings = nbgrader.enter(PACK, given, tmp_path / "course")
    assert json.loads(file.read_text()) == nbgrader.source(GIVEN, PACK)
    compile(settings.read_text(), "settings", "exec")
    release = tmp_path / "course" / "release" / "ch05" / PACK.notebook
    release.parent.mkdir(parents=True)
    release.write_text(json.dumps(RELEASE))
    return tmp_path / "course"


def handed_in(place: Path, files: Mapping[str, bytes]) -> Path:
    for student, raw in files.items():
        (place / student).mkdir(parents=True, exist_ok=True)
        (place / student / "mine (2).ipynb").write_bytes(raw)
    return place


def graded(course: Path, files: Mapping[str, bytes]) -> list[Record]:
    place = handed_in(course.parent / "in", files)
    return nbgrader.grade(PACK, place, course, course.parent / "out", seconds=2)


def autograded(
    course: Path, student: str, unit: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Do with a student's notebook what nbgrader does."""
    file = course / "submitted" / student / unit / name
    about = {"nbgrader": {"assignment": unit, "student": student}}
    with monkeypatch.context() as there:
        there.chdir(course)
        told, _ = nbgrader.verdicts(json.loads(file.read_text()), about)
    return dict(told)


@pytest.fixture
def shown(course: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda who: autograded(course, who, "ch05", PACK.notebook, monkeypatch)


def points(notebook: Mapping[str, Any]) -> int:
    """Return the sum that nbgrader takes from outputs: all for none, nothing for one.

    An answer in words it leaves to a hand.
    """
    found = 0
    for each in notebook["cells"]:
        about = each["metadata"].get("nbgrader", {})
        if about.get("grade") and not about["solution"]:
            kinds = {output["output_type"] for output in each["outputs"]}
            assert kinds <= {"error"}
            found += about["points"] * (not kinds)
    return found


def test_the_cells_carry_the_marks_of_nbgrader() -> None:
    made = nbgrader.source(GIVEN, PACK)
    about = {c["metadata"]["nbgrader"]["grade_id"]: c for c in made["cells"]
             if "nbgrader" in c["metadata"]}  # fmt: skip
    assert list(about) == [
        "ex-error-curve", "ex-error-curve-open", "ex-error-curve-further",
        "ex-ranks",
        "ex-effective-rank", "ex-effective-rank-open", "ex-effective-rank-further",
    ]  # fmt: skip
    told = {name: c["metadata"]["nbgrader"] for name, c in about.items()}
    assert [t.get("points") for t in told.values()] == [None, 1, 2, 4, None, 1, 2]
    assert [t["solution"] for t in told.values()] == [True, False, False, True] + [
        True, False, False
    ]  # fmt: skip
    assert all(t["locked"] is not t["solution"] for t in told.values())
    ids = [c["id"] for c in made["cells"]]
    assert len(set(ids)) == len(ids) == len(GIVEN["cells"]) + 2
    assert "nbgrader" not in json.dumps(GIVEN), "the notebook given is left alone"
    for name in ("ex-error-curve", "ex-ranks", "ex-effective-rank"):
        assert about[name]["source"].endswith(nbgrader.REGION)


def test_a_test_without_points_is_not_graded() -> None:
    found: dict[str, Any] = cell("code", "x", "public-test", "ex-error-curve")
    nbgrader._mark(found, "ex-one-open", points=0)
    assert found["metadata"]["nbgrader"]["grade"] is False
    assert "points" not in found["metadata"]["nbgrader"]


@pytest.mark.parametrize(
    "changed",
    [
        {5: "My proof."},  # in the room for it
        {5: f"{ROOM}\n\nMy proof."},
        {4: f"{QUESTION}\n\nMy proof."},  # in the question itself
        {5: [cell("markdown", "My proof."), cell("code", "a == b")]},  # in its place
    ],
)
def test_what_is_written_to_a_question_is_found(changed: dict[int, Any]) -> None:
    given = nbgrader.questions(RELEASE)
    cells: list[Any] = []
    for k, each in enumerate(GIVEN["cells"]):
        new = changed.get(k, each)
        cells += new if isinstance(new, list) else [
            each | {"source": new} if isinstance(new, str) else each
        ]  # fmt: skip
    cells.append(cell("markdown", "A stray remark at the end."))
    raw = json.dumps({"cells": cells}).encode()
    (text,) = extract.written(raw, given).values()
    assert "My proof." in text and "stray" not in text
    assert ("```python\na == b\n```" in text) == isinstance(changed.get(5), list)


def test_a_blank_notebook_and_a_python_file_say_nothing_to_a_question() -> None:
    given = nbgrader.questions(RELEASE)
    assert extract.written(json.dumps(RELEASE).encode(), given) == {}
    assert extract.written(ERROR_CURVE.encode(), given) == {}


def test_nothing_of_a_student_but_the_answers_reaches_nbgrader(
    course: Path, shown: Any
) -> None:
    mine = json.loads(answered("$a<b$ <script>x</script> [l](javascript:x) \ud800"))
    mine |= {"nbformat": 99, "metadata": {"kernelspec": {"name": "evil"}}}
    mine["cells"].append(deepcopy(mine["cells"][2]))
    mine["cells"][0]["metadata"]["nbgrader"] = {"schema_version": 1, "grade_id": "z"}
    mine["cells"][3]["source"] = "1 + 1  # a test of mine"
    graded(course, {"ada": json.dumps(mine).encode()})
    made = json.loads(
        (course / "submitted/ada/ch05" / PACK.notebook).read_text(encoding="utf-8")
    )
    same = deepcopy(made)
    for new, old in zip(same["cells"], RELEASE["cells"], strict=True):
        if old["metadata"].get("nbgrader", {}).get("solution"):
            assert new["source"] != old["source"]
            new["source"] = old["source"]
    assert same == RELEASE
    text = made["cells"][6]["source"]
    assert "a< b" in text and "<script" not in text and "](" not in text
    text.encode()
    assert points(shown("ada")) == 6


def test_the_points_are_those_of_the_table(course: Path, shown: Any) -> None:
    files = dict(hostile.HONEST)
    files |= {name: raw for name, (raw, _) in hostile.UNREADABLE.items()}
    for name in ("equals everything", "patched check", "exit", "a secret"):
        files[name] = notebook(ERROR_CURVE, hostile.HOSTILE[name][0])
    files["half"] = notebook("def effective_rank(s):\n    return float(len(s))")
    files["stub"] = json.dumps(RELEASE).encode()
    records = {record.student: record for record in graded(course, files)}
    assert set(records) == set(files)
    for student, record in records.items():
        made = shown(student)
        assert points(made) == record.score, (student, record)
    scores = [records[name].score for name in ("stubs above", "half", "exit", "empty")]
    assert scores == [6, 1, 3, 0]
    said = json.dumps(shown("half"))
    assert "should be 2." in said and "Not written yet." in said


def test_only_who_was_graded_anew_is_read_anew(course: Path) -> None:
    graded(course, {"ada": answered(), "bob": answered()})
    for student in ("ada", "bob"):
        (course / "autograded" / student / "ch05").mkdir(parents=True)
    graded(course, {"bob": answered("A proof.")})
    assert (course / "autograded/ada/ch05").exists()
    assert not (course / "autograded/bob/ch05").exists()
    # As after a run that was stopped between the two files.
    (course / "verdicts/ch05/ada.json").write_text('{"ex')
    graded(course, {})
    assert not (course / "autograded/ada/ch05").exists()
    assert len(json.loads((course / "verdicts/ch05/ada.json").read_text())) == 4


def test_who_was_not_judged_gets_no_points(course: Path, shown: Any) -> None:
    graded(course, {"ada": answered()})
    (course / "verdicts/ch05/ada.json").unlink()
    with pytest.raises(FileNotFoundError, match="crlib grade PACK SUBMITTED --nbgr"):
        shown("ada")


def test_a_course_that_would_run_the_cells_is_refused(course: Path) -> None:
    (course / "nbgrader_config.py").write_text("c = get_config()\n")
    with pytest.raises(PackError, match="does not ask crlib"):
        nbgrader.enter(PACK, course.parent / "given.ipynb", course)
    with pytest.raises(PackError, match="does not ask crlib"):
        graded(course, {"ada": answered()})


def test_an_assignment_is_generated_before_it_is_graded(course: Path) -> None:
    (course / "release" / "ch05" / PACK.notebook).unlink()
    with pytest.raises(PackError, match="nbgrader generate_assignment ch05"):
        graded(course, {"ada": answered()})


def test_the_command_tells_a_course(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PACK.write(course.parent / "pack.json")
    place = handed_in(course.parent / "in", {"ada": answered()})
    line = ["grade", str(course.parent / "pack.json"), str(place), "--seconds", "2"]
    line += ["--out", str(course.parent / "out"), "--nbgrader", str(course)]
    assert command.main(line) == 0
    # Of a single student the terminal shows all.
    said = capsys.readouterr().out
    assert "6 of 6 points" in said and "Three ranks: 4 points, graded by hand" in said
    assert (course / "submitted/ada/ch05" / PACK.notebook).exists()


def run(course: Path, *words: str) -> str:
    env = os.environ | {"PYTHONWARNINGS": "ignore"}
    folders = [str(Path(__file__).parents[2]), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    line = [sys.executable, "-m", "nbgrader", *words]
    done = subprocess.run(line, cwd=course, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None,
    reason="nbgrader is not installed: pip install '.[nbgrader]'",
)
def test_nbgrader_itself_comes_to_the_same_points(course: Path) -> None:
    shutil.rmtree(course / "release")
    run(course, "generate_assignment", "ch05")
    made = json.loads((course / "release" / "ch05" / PACK.notebook).read_text())
    for ours, theirs in zip(RELEASE["cells"], made["cells"], strict=True):
        assert "".join(theirs["source"]) == ours["source"]
    files = {
        "all": answered("A proof."),
        "half": notebook("def effective_rank(s):\n    return float(len(s))"),
        "stub": json.dumps(made).encode(),
        "cut": hostile.UNREADABLE["cut"][0],
        "schema 99": answered().replace(b'"schema_version": 3', b'"schema_version": 9'),
    }
    records = {record.student: record for record in graded(course, files)}
    run(course, "autograde", "ch05")
    run(course, "generate_feedback", "ch05")
    run(course, "export")
    with open(course / "grades.csv", newline="") as table:
        found = {
            row["student_id"]: float(row["score"]) for row in csv.DictReader(table)
        }
    assert found == {name: record.score for name, record in records.items()}
    assert [found[name] for name in ("all", "half", "stub")] == [6, 1, 0]
    pages = course / "feedback" / "half" / "ch05"
    said = (pages / PACK.notebook).with_suffix(".html").read_text(encoding="utf-8")
    assert "should be 2." in said and "_hidden" not in said
