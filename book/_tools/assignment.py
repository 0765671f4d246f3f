"""Make an assignment of a unit: what students get, and what grades them.

    python -m book._tools.assignment ch05 [--out assignments/ch05] [--root .]
        [--seed 7] [--extra FOLDER] [--gradescope] [--nbgrader COURSE] [--classroom]

writes ``pack.json`` for ``crlib grade``, the notebook without solutions under the name
that students keep, and ``solution/`` with the notebook of the solutions. With
``--seed`` the hidden tests draw other inputs; with ``--extra`` exercises of your own
come after those of the unit. With ``--gradescope`` also ``gradescope.zip``, to be
uploaded as an autograder; with ``--nbgrader`` the source of an assignment in a course;
with ``--classroom`` a template repository. ``--all`` takes every chapter and lab, and
adds an index.

What is for students is searched for what they must not see (``leaks``).
"""

import argparse
import ast
import html
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nbformat

from book._tools import extras, leaks, notebooks
from book._tools.gates import asked, last
from book._tools.manuscript import Block, Manuscript, ManuscriptError
from book._tools.notebooks import Book
from crlib.grading import classroom, extract, gradescope, nbgrader
from crlib.grading.packs import OWN, Pack, PackError, Task, read, uses

INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Assignments</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 sans-serif; max-width: 42rem; margin: 2rem auto; }}
td, th {{ text-align: left; padding: 0.3rem 1rem 0.3rem 0; }}
</style>
</head>
<body>
<h1>Assignments</h1>
<table>
<tr><th>Unit</th><th>For students</th><th>Exercises</th><th>Points, judged</th>
<th>Points, by hand</th></tr>
{rows}
</table>
</body>
</html>
"""


def task(book: Manuscript, block: Block, seed: int = 0) -> Task:
    """Return an exercise as the pack has it; its hidden test draws from ``seed``.

    Half of the points are for the public test, rounded down, the rest for the hidden.
    """
    title, _, _, points = notebooks.exercise(block)
    kind, label = notebooks.asks(block.classes), block.label
    found = Task(label, title, kind, points)
    if kind != "write":
        return replace(found, rubric=tuple(notebooks.rubric(book.blocks, label)))
    public, function = asked(book, label)
    hidden, _ = asked(book, label, "hidden")
    solution = "\n".join(cell.body for cell in book.tagged("solution", label))
    return replace(
        found,
        function=function,
        public=public,
        hidden=hidden,
        public_points=points // 2,
        hidden_points=points - points // 2,
        uses=tuple(sorted(uses(extract.program(ast.parse(solution).body, function)))),
        seed=seed,
        tests=own_tests(book, label) if public.startswith(f"{OWN}:") else "",
    )


def own_tests(book: Manuscript, label: str) -> str:
    """Return what the cells of the tests define, without the calls that end them."""
    found = []
    for kind in ("public-test", "hidden-test"):
        (cell,) = book.tagged(kind, label)
        found += cell.body.splitlines()[: last(cell).lineno - 1]
    return "\n".join(found)


def pack(book: Book, unit: Manuscript, seed: int = 0) -> Pack:
    """Return the pack of a unit, with the seed of a course."""
    assert unit.unit
    blocks = [b for b in unit.blocks if b.name == "exercise-start"]
    return Pack(
        unit.unit.name,
        unit.title,
        book.version,
        f"{unit.unit.notebook}.ipynb",
        tuple(cell.body for cell in unit.tagged("setup")),
        tuple(task(unit, block, seed) for block in blocks),
    )


def make(
    root: Path, name: str, out: Path, seed: int = 0, extra: Path | None = None
) -> list[Path]:
    """Write the assignment of a unit of the book under ``root``, as :func:`write`.

    Args:
        extra: a folder with exercises of an instructor's own, see ``extras``.

    Raises:
        ManuscriptError: as there, or an exercise of ``extra`` does not pass the gates.
    """
    book = notebooks.load(root)
    return write(extras.added(book, name, extra) if extra else book, name, out, seed)


def write(book: Book, name: str, out: Path, seed: int = 0) -> list[Path]:
    """Write the assignment of a unit to ``out``; return the files.

    Args:
        seed: of the course, for the hidden tests; it goes into the pack alone.

    Raises:
        ManuscriptError: there is no such unit, or it cannot be derived.
    """
    found = [m for m in book.chapters if m.unit and name in (m.unit.name, m.unit.stem)]
    if not found:
        known = ", ".join(m.unit.name for m in book.chapters if m.unit)
        raise ManuscriptError(
            book.root / "book", 0, f"no unit {name!r}: choose of {known}"
        )
    (unit,) = found
    made = pack(book, unit, seed)
    files = [out / "pack.json", out / made.notebook, out / "solution" / made.notebook]
    files[-1].parent.mkdir(parents=True, exist_ok=True)
    made.write(files[0])
    without = replace(unit, blocks=notebooks.apart(unit.blocks)[0])
    open_questions = {
        task.label: book.labels[task.label].text
        for task in made.tasks
        if task.kind != "write"
    }
    for file, text in zip(files[1:], (without, unit), strict=True):
        notebook = notebooks.Derivation(book, text).notebook()
        if text is without:
            make_room(notebook, open_questions)
        file.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    return files


def make_room(notebook: nbformat.NotebookNode, questions: Mapping[str, str]) -> None:
    """Add a cell for the answer below each question that a hand grades.

    Args:
        notebook: changed in place.
        questions: what a page calls them, such as ``"Exercise 5.4"``, by label.
    """
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        for label, name in questions.items():
            if re.match(rf"#+ {re.escape(name)}:", cell.source):
                room = nbformat.v4.new_markdown_cell(f"*Your answer to {name}:*")
                room.update(id=f"{label}-answer", metadata={"tags": ["answer", label]})
                cells.append(room)
    assert len(cells) == len(notebook.cells) + len(questions), questions
    notebook.cells = cells


def index(packs: Mapping[str, Pack]) -> str:
    """Return a page that lists assignments: the folder of each, and its pack."""
    rows = []
    for folder, made in packs.items():
        judged = sum(task.points for task in made.judged)
        by_hand = sum(task.points for task in made.tasks) - judged
        rows.append(
            f'<tr><td>{made.unit}</td><td><a href="{folder}/{made.notebook}">'
            f"{html.escape(made.title)}</a></td><td>{len(made.tasks)}</td>"
            f"<td>{judged}</td><td>{by_hand}</td></tr>"
        )
    return INDEX.format(rows="\n".join(rows))


def doors(book: Book, files: list[Path], options: argparse.Namespace) -> list[Path]:
    """Make what the chosen doors need of an assignment; return the files."""
    made, student, _ = files
    pack, found = read(made), []
    if options.gradescope:
        with tempfile.TemporaryDirectory() as folder:
            built = gradescope.wheel(book.root, Path(folder))
            zipped = made.with_name("gradescope.zip")
            found.append(gradescope.bundle(made, built, zipped))
    if options.nbgrader:
        found += nbgrader.enter(pack, student, options.nbgrader)
    if options.classroom:
        place = made.with_name("classroom")
        about = {"address": book.url, "ref": book.ref}
        found += classroom.template(pack, student, place, **about)
    return found


def seed(told: str) -> int:
    """Read the seed of a course: a whole number that any generator takes."""
    if not told.isdecimal() or int(told) >= 2**31:
        raise argparse.ArgumentTypeError(f"{told!r}: a whole number, 0 to {2**31 - 1}")
    return int(told)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("unit", nargs="?", help="such as ch05, 05 or lab03")
    parser.add_argument("--all", action="store_true", help="every chapter and lab")
    parser.add_argument("--out", type=Path, help="a folder, else assignments/UNIT")
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository")
    parser.add_argument("--gradescope", action="store_true", help="its zip, too")
    parser.add_argument(
        "--nbgrader", type=Path, metavar="COURSE", help="enter it there"
    )
    parser.add_argument("--classroom", action="store_true", help="a template for it")
    parser.add_argument("--seed", type=seed, default=0, help="of the hidden tests")
    parser.add_argument("--extra", type=Path, help="a folder of exercises of your own")
    options = parser.parse_args(arguments)
    if options.all == bool(options.unit) or (options.all and options.extra):
        parser.error("name a unit, or take --all; --extra is for a unit")
    try:
        book = notebooks.load(options.root)
        if options.all:
            home = options.out or Path("assignments")
            names = [m.unit.name for m in book.chapters if m.unit]
            places = {name: home / name for name in names}
        else:
            number = options.unit.isdecimal()
            name = f"ch{int(options.unit):02d}" if number else options.unit
            places = {name: options.out or Path("assignments") / name}
            if options.extra:
                book = extras.added(book, name, options.extra)
        written, told = [], {}
        for name, place in places.items():
            files = write(book, name, place, options.seed)
            told[name] = read(files[0])
            entered = doors(book, files, options)
            written += [*files, *entered]
            # The zip is the instructor's.
            for_students = [f for f in (files[1], *entered) if f.suffix != ".zip"]
            known = leaks.secrets(book, name)
            for fault in leaks.found(for_students, known, options.seed):
                raise PackError(fault)
        if options.all:
            written.append(home / "index.html")
            written[-1].write_text(index(told), encoding="utf-8")
    except (ManuscriptError, PackError) as error:
        print(error, file=sys.stderr)
        return 1
    print(*written, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
