"""Make an assignment of a unit: what students get, and what grades them.

    python -m book._tools.assignment ch05 [--out assignments/ch05] [--root .]
        [--gradescope] [--seed 7] [--extra FOLDER]

writes ``pack.json`` for ``crlib grade``, the notebook without solutions under the name
that students keep, and ``solution/`` with the notebook of the solutions. With
``--gradescope`` also ``gradescope.zip``, to be uploaded as an autograder. With
``--seed`` the hidden tests draw other inputs; with ``--extra`` exercises of your own
come after those of the unit.
"""

import argparse
import ast
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import nbformat

from book._tools import extras, notebooks
from book._tools.gates import asked, last
from book._tools.manuscript import Block, Manuscript, ManuscriptError
from book._tools.notebooks import Book
from crlib.grading import extract, gradescope
from crlib.grading.packs import OWN, Pack, PackError, Task, uses


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
    """Write the assignment of a unit to ``out``; return the files.

    Args:
        seed: of the course, for the hidden tests; it goes into the pack alone.
        extra: a folder with exercises of an instructor's own, see ``extras``.

    Raises:
        ManuscriptError: there is no such unit, it cannot be derived, or an exercise of
            ``extra`` does not pass the gates.
    """
    book = notebooks.load(root)
    if extra:
        book = extras.added(book, name, extra)
    found = [m for m in book.chapters if m.unit and name in (m.unit.name, m.unit.stem)]
    if not found:
        known = ", ".join(m.unit.name for m in book.chapters if m.unit)
        raise ManuscriptError(root / "book", 0, f"no unit {name!r}: choose of {known}")
    (unit,) = found
    made = pack(book, unit, seed)
    files = [out / "pack.json", out / made.notebook, out / "solution" / made.notebook]
    files[-1].parent.mkdir(parents=True, exist_ok=True)
    made.write(files[0])
    without = replace(unit, blocks=notebooks.apart(unit.blocks)[0])
    for file, text in zip(files[1:], (without, unit), strict=True):
        notebook = notebooks.Derivation(book, text).notebook()
        file.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    return files


def seed(told: str) -> int:
    """Read the seed of a course: a whole number that any generator takes."""
    if not told.isdecimal() or int(told) >= 2**31:
        raise argparse.ArgumentTypeError(f"{told!r}: a whole number, 0 to {2**31 - 1}")
    return int(told)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("unit", help="such as ch05, 05 or lab03")
    parser.add_argument("--out", type=Path, help="a folder, else assignments/UNIT")
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository")
    parser.add_argument("--gradescope", action="store_true", help="its zip, too")
    parser.add_argument("--seed", type=seed, default=0, help="of the hidden tests")
    parser.add_argument("--extra", type=Path, help="a folder of exercises of your own")
    options = parser.parse_args(arguments)
    name = options.unit
    if name.isdecimal():
        name = f"ch{int(name):02d}"
    try:
        out = options.out or Path("assignments") / name
        files = make(options.root, name, out, options.seed, options.extra)
        if options.gradescope:
            with tempfile.TemporaryDirectory() as place:
                built = gradescope.wheel(options.root, Path(place))
                zipped = files[0].with_name("gradescope.zip")
                files.append(gradescope.bundle(files[0], built, zipped))
    except (ManuscriptError, PackError) as error:
        print(error, file=sys.stderr)
        return 1
    print(*files, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
