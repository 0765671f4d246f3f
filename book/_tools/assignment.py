"""Make an assignment of a unit: what students get, and what grades them.

    python -m book._tools.assignment ch05 [--out assignments/ch05] [--root .]
        [--gradescope]

writes ``pack.json`` for ``crlib grade``, the notebook without solutions under the name
that students keep, and ``solution/`` with the notebook of the solutions. With
``--gradescope`` also ``gradescope.zip``, to be uploaded as an autograder.
"""

import argparse
import ast
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import nbformat

from book._tools import notebooks
from book._tools.manuscript import Block, Manuscript, ManuscriptError
from book._tools.notebooks import Book
from crlib.grading import extract, gradescope
from crlib.grading.packs import Pack, PackError, Task, uses


def asked(book: Manuscript, label: str, kind: str = "public") -> tuple[str, str]:
    """Return the test of an exercise and the function that it asks for.

    Both stand in the cell of the test: ``exercises.check(ch05.build, build)``.
    """
    (cell,) = book.tagged(f"{kind}-test", label)
    last = ast.parse(cell.body).body[-1]
    assert isinstance(last, ast.Expr) and isinstance(last.value, ast.Call), cell.line
    test, function = map(ast.unparse, last.value.args)
    module, _, name = test.rpartition(".")
    return f"crlib.exercises.{module}:{name}", function


def task(book: Manuscript, block: Block) -> Task:
    """Return an exercise as the pack has it.

    Half of the points are for the public test, rounded down, the rest for the hidden.
    """
    title, _, _, points = notebooks.exercise(block)
    kind, label = notebooks.asks(block.classes), block.label
    found = Task(label, title, kind, points)
    if kind != "write":
        return found
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
    )


def pack(book: Book, unit: Manuscript) -> Pack:
    """Return the pack of a unit."""
    assert unit.unit
    blocks = [b for b in unit.blocks if b.name == "exercise-start"]
    return Pack(
        unit.unit.name,
        unit.title,
        book.version,
        f"{unit.unit.notebook}.ipynb",
        tuple(cell.body for cell in unit.tagged("setup")),
        tuple(task(unit, block) for block in blocks),
    )


def make(root: Path, name: str, out: Path) -> list[Path]:
    """Write the assignment of a unit to ``out``; return the files.

    Raises:
        ManuscriptError: there is no such unit, or it cannot be derived.
    """
    book = notebooks.load(root)
    found = [m for m in book.chapters if m.unit and name in (m.unit.name, m.unit.stem)]
    if not found:
        known = ", ".join(m.unit.name for m in book.chapters if m.unit)
        raise ManuscriptError(root / "book", 0, f"no unit {name!r}: choose of {known}")
    (unit,) = found
    made = pack(book, unit)
    files = [out / "pack.json", out / made.notebook, out / "solution" / made.notebook]
    files[-1].parent.mkdir(parents=True, exist_ok=True)
    made.write(files[0])
    without = replace(unit, blocks=notebooks.apart(unit.blocks)[0])
    for file, text in zip(files[1:], (without, unit), strict=True):
        notebook = notebooks.Derivation(book, text).notebook()
        file.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    return files


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("unit", help="such as ch05, 05 or lab03")
    parser.add_argument("--out", type=Path, help="a folder, else assignments/UNIT")
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository")
    parser.add_argument("--gradescope", action="store_true", help="its zip, too")
    options = parser.parse_args(arguments)
    name = options.unit
    if name.isdecimal():
        name = f"ch{int(name):02d}"
    try:
        files = make(options.root, name, options.out or Path("assignments") / name)
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
