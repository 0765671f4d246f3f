"""nbgrader as a format and a gradebook, with our judge.

A *course* is a folder as nbgrader knows it. :func:`enter` puts an assignment into its
``source``; nbgrader makes ``release`` of it and the table of its gradebook.
:func:`grade` judges what was handed in. For each student it writes into ``submitted`` a
fresh copy of the released notebook that holds the answers, and the verdicts beside it.
``nbgrader autograde`` then asks :func:`verdicts`, where it would run the cells. So no
file of a student reaches nbgrader, and its gradebook, its formgrader and its feedback
work as ever.

Nothing here imports nbgrader; ``pip install '.[nbgrader]'`` in the repository
brings the one that was tried.
"""

import json
import re
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from crlib.grading import marks
from crlib.grading.judge import SECONDS
from crlib.grading.marks import Record
from crlib.grading.packs import Pack, PackError

__all__ = ["enter", "grade", "laundered", "shown", "source", "verdicts"]

FURTHER = "# The further test, on other inputs, runs when this is graded."
# nbgrader puts what its settings say between the two lines, or nothing.
REGION = "### BEGIN SOLUTION\n### END SOLUTION"
CONFIG = '''"""Settings of a course whose assignments crlib judges."""

from nbgrader.converters import Autograde
from nbgrader.preprocessors import Execute

c = get_config()
steps = Autograde.class_traits()["autograde_preprocessors"].default()
c.Autograde.autograde_preprocessors = [
    "crlib.grading.nbgrader.verdicts" if step is Execute else step for step in steps
]
# The stub stands in the cell already.
c.ClearSolutions.code_stub = {"python": ""}
c.ClearSolutions.text_stub = ""
'''


def enter(pack: Pack, notebook: Path, course: Path) -> list[Path]:
    """Put an assignment into a course, which need not exist; return what was written.

    Args:
        pack: of the unit.
        notebook: what students get.
        course: a folder.

    Raises:
        PackError: the course has settings of its own that do not ask for our verdicts.
    """
    settings = course / "nbgrader_config.py"
    if settings.exists():
        _settled(course)
    else:
        course.mkdir(parents=True, exist_ok=True)
        settings.write_text(CONFIG, encoding="utf-8")
    file = course / "source" / pack.unit / pack.notebook
    file.parent.mkdir(parents=True, exist_ok=True)
    told = json.loads(notebook.read_text(encoding="utf-8"))
    _write(source(told, pack), file)
    return [file, settings]


def _settled(course: Path) -> None:
    """Refuse a course in which nbgrader would run the cells: all would pass."""
    settings = course / "nbgrader_config.py"
    if not settings.exists() or "crlib.grading.nbgrader" not in settings.read_text():
        raise PackError(
            f"{settings} does not ask crlib for its verdicts: use a course of its own,"
            f" or write there\n{CONFIG}"
        )


def source(notebook: Mapping[str, Any], pack: Pack) -> dict[str, Any]:
    """Return what students get as nbgrader's source: with its marks on the cells.

    A test is a graded cell, named ``LABEL-open`` or ``LABEL-further``; the cell of the
    further one is empty. An answer is a solution cell named ``LABEL``.
    """
    tasks = {task.label: task for task in pack.tasks}
    made = deepcopy(dict(notebook))
    cells = []
    for cell in made["cells"]:
        kind, label = ([*cell["metadata"].get("tags", []), "", ""])[:2]
        cells.append(cell)
        if label not in tasks or kind not in ("exercise", "public-test", "answer"):
            continue
        task = tasks[label]
        if kind == "public-test":
            _mark(cell, f"{label}-open", points=task.public_points)
            further: dict[str, Any] = {"cell_type": "code", "id": f"{label}-further"}
            further |= {"metadata": {}, "source": FURTHER}
            further |= {"execution_count": None, "outputs": []}
            _mark(further, f"{label}-further", points=task.hidden_points)
            cells.append(further)
            continue
        cell["source"] = f"{_text(cell)}\n{REGION}"
        _mark(cell, label, solution=True, points=task.points * (kind == "answer"))
    made["cells"] = cells
    return made


def _mark(
    cell: dict[str, Any], name: str, *, points: int, solution: bool = False
) -> None:
    told: dict[str, Any] = {"grade_id": name, "schema_version": 3, "task": False}
    told |= {"solution": solution, "locked": not solution, "grade": points > 0}
    cell["metadata"]["nbgrader"] = told | ({"points": points} if points else {})


def grade(
    pack: Pack,
    submitted: Path,
    course: Path,
    out: Path,
    *,
    jobs: int = 2,
    seconds: int = SECONDS,
) -> list[Record]:
    """Judge what was handed in, and hand it to an nbgrader course.

    Where an answer or a verdict of a student has changed, what nbgrader made of the old
    one is removed from ``autograded``, so that it is read anew. Marks that a hand gave
    are in nbgrader's gradebook and stay.

    Args:
        pack: of the unit.
        submitted: a folder or a zip, as for ``crlib.grading.grade``.
        course: nbgrader's, in which the assignment has been generated.
        out: a folder for the table, the pages and the verdicts of ``crlib.grading``.
        jobs: students at once.
        seconds: of computing, for each answer.

    Returns:
        One record for each student, in the order of their names.

    Raises:
        PackError: nothing was handed in, the assignment was not generated, the course
            has other settings, or the pack is at fault.
    """
    _settled(course)
    release = course / "release" / pack.unit / pack.notebook
    if not release.exists():
        raise PackError(
            f"{release} is not there: type `nbgrader generate_assignment {pack.unit}`"
            f" in {course} first."
        )
    blank = json.loads(release.read_text(encoding="utf-8"))
    given = questions(blank)
    records = marks.grade(pack, submitted, out, jobs=jobs, seconds=seconds)
    with marks.opened(submitted) as place:
        found = marks.submissions(place, pack.notebook)
        for submission, record in zip(found, records, strict=True):
            raw = submission.files[0].read_bytes()
            answers = marks.extracted(pack, raw, seconds, given)
            # What cannot be read has no answers, and its verdicts say so.
            told = {} if isinstance(answers, str) else answers
            texts = {label: a.source for label, a in told.items() if a.source}
            _hand_over(pack, record, laundered(blank, texts), course)
    return records


def questions(notebook: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the cells of a released notebook: of which open question, and its source.

    To a question belong the cell of its answer and the one before, which asks it.
    """
    cells = notebook["cells"]
    marked = [cell["metadata"].get("nbgrader", {}) for cell in cells]
    names = [
        str(m["grade_id"]) if m.get("grade") and m.get("solution") else ""
        for m in marked
    ]
    owners = [a or b for a, b in zip(names, [*names[1:], ""], strict=True)]
    return [(name, _text(cell)) for name, cell in zip(owners, cells, strict=True)]


def laundered(
    notebook: Mapping[str, Any], answers: Mapping[str, str]
) -> dict[str, Any]:
    """Return a fresh copy of a released notebook with a student's answers in it.

    Nothing else of what the student handed in comes along. In Markdown no tag and no
    link is left, since the browser of whoever grades shows it.
    """
    made = deepcopy(dict(notebook))
    for cell in made["cells"]:
        about = cell["metadata"].get("nbgrader", {})
        answer = answers.get(about.get("grade_id", ""))
        if answer and about.get("solution"):
            # Half of a surrogate pair has no place in a file.
            text = answer.encode(errors="replace").decode()
            markdown = cell["cell_type"] == "markdown"
            cell["source"] = _harmless(text) if markdown else text
    return made


def _harmless(markdown: str) -> str:
    r"""Take tags and links apart, and what MathJax has for links.

    >>> print(_harmless(r"$a<b$, <script>, [x](javascript:0), $\href{y}{z}$"))
    $a< b$, < script>, [x] (javascript:0), $href{y}{z}$
    """
    text = re.sub(r"<(?=[\w/!?])", "< ", markdown)
    text = re.sub(r"\](?=[(:])", "] ", text)
    return re.sub(r"\\(?=href|require|csname)", "", text)


def _hand_over(
    pack: Pack, record: Record, notebook: dict[str, Any], course: Path
) -> None:
    told = {}
    for task, row in zip(pack.tasks, record.rows, strict=True):
        if row.score is not None:
            passed = row.open == task.public_points
            told[f"{task.label}-open"] = "" if passed else row.public
            passed = row.score - row.open == task.hidden_points
            told[f"{task.label}-further"] = "" if passed else row.hidden
    name = record.student
    files: dict[Path, Any] = {
        course / "submitted" / name / pack.unit / pack.notebook: notebook,
        course / "verdicts" / pack.unit / f"{name}.json": told,
    }
    if all(_read(file) == content for file, content in files.items()):
        return
    # First: a run that is stopped between the two leaves nothing stale behind.
    shutil.rmtree(course / "autograded" / name / pack.unit, ignore_errors=True)
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(content, file)


def verdicts(notebook: Any, resources: Any) -> tuple[Any, Any]:
    """Write our verdicts into a notebook, where nbgrader would run its cells.

    nbgrader's settings name this function; it is called in the folder of the course.

    Raises:
        FileNotFoundError: the student was not judged.
    """
    about = resources["nbgrader"]
    file = Path("verdicts", about["assignment"], f"{about['student']}.json")
    told = _read(file)
    if told is None:
        raise FileNotFoundError(
            f"{file} is not there: judge what was handed in with `crlib grade PACK"
            " SUBMITTED --nbgrader COURSE` before `nbgrader autograde`."
        )
    return shown(notebook, told), resources


def shown(notebook: Any, told: Mapping[str, str]) -> Any:
    """Set the outputs of a notebook: an error where a test did not pass, else none.

    nbgrader takes a cell without output for passed, and a number or anything on stderr
    for something else.
    """
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        cell["outputs"] = []
        about = cell["metadata"].get("nbgrader", {})
        if about.get("grade") and not about.get("solution"):
            message = told[about["grade_id"]]
            # nbformat's own kind of dictionary, where it is one.
            error = type(cell)(output_type="error", ename="Not passed", evalue=message)
            error["traceback"] = [message]
            cell["outputs"] = [error] if message else []
    return notebook


def _text(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])


def _read(file: Path) -> Any:
    """Return what a file of JSON holds, None if it is not there or was cut."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(told: Any, file: Path) -> None:
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
