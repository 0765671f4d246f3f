"""Exercises of an instructor's own, in the manuscript's markup, in a folder elsewhere.

It holds Markdown files with exercises as in a chapter. The cells of the tests define
them and end with the call: ``exercises.check(tail, tail_share)``. A cell tagged
``wrong-answer`` holds an answer that must fail; no notebook shows it. What ``setup``
cells define, tests and answers may use.
"""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from book._tools import gates, manuscript, notebooks
from book._tools.manuscript import Block, Manuscript, ManuscriptError
from book._tools.notebooks import Book

CELLS = ("exercise", "public-test", "hidden-test", "solution", "wrong-answer")


def added(book: Book, name: str, folder: Path) -> Book:
    """Return ``book`` with the exercises of a folder at the end of those of a unit.

    Raises:
        ManuscriptError: there is none, one cannot be read, or does not pass the gates.
    """
    files = sorted(folder.glob("*.md"))
    if not files:
        raise ManuscriptError(folder, 0, "no .md file with exercises is here")
    units = {m.unit.name: m for m in book.chapters if m.unit}
    unit = units.get(name)
    if unit is None:
        # Who makes the assignment says so.
        return book
    own = [manuscript.read(file) for file in files]
    for extra in own:
        for block in extra.blocks:
            if block.label in book.labels:
                taken = f"the book has a label {block.label!r}: choose another"
                raise ManuscriptError(extra.path, block.line, taken)
    blocks = [b for m in own for b in m.blocks if not (b.level == 1 and b.argument)]
    ends = [n for n, b in enumerate(unit.blocks) if b.name == "solution-end"]
    at = max(ends, default=len(unit.blocks) - 1) + 1
    longer = replace(unit, blocks=[*unit.blocks[:at], *blocks, *unit.blocks[at:]])
    chapters = [longer if m is unit else m for m in book.chapters]
    formats = manuscript.number_formats(book.settings)
    labels = manuscript.index(chapters, manuscript.pages(book.root), formats)
    longer_book = replace(book, chapters=chapters, labels=labels)
    for extra in own:
        # What has no form in a notebook is told with the name of this file.
        alone = replace(extra, unit=unit.unit)
        notebooks.Derivation(longer_book, alone).notebook()
        found = list(faults(extra, longer))
        if found:
            told = "; ".join(fault for _, fault in found)
            raise ManuscriptError(extra.path, found[0][0], told)
    return longer_book


def faults(extra: Manuscript, unit: Manuscript) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with the exercises of a file, each with its line.

    Args:
        extra: the file.
        unit: the unit of the book with these exercises in it.
    """
    starts = [b for b in extra.blocks if b.name == "exercise-start"]
    if not starts:
        yield 1, "no exercise is here: see the page on teaching"
    setup = gates.fresh()
    gates.run_all(unit.tagged("setup"), setup)
    for block in starts:
        missing = list(incomplete(extra, block))
        for fault in missing:
            yield block.line, fault
        if notebooks.asks(block.classes) == "write" and not missing:
            wrong = [cell.body for cell in unit.tagged("wrong-answer", block.label)]
            try:
                found = gates.faults(extra, block.label, setup, wrong)
            except Exception as error:
                found = [f"{block.label}: {type(error).__name__}: {error}"]
            for fault in found:
                yield block.line, fault.removeprefix(f"{extra.path.name}: ")


def incomplete(extra: Manuscript, block: Block) -> Iterator[str]:
    """Yield what an exercise lacks."""
    title, _, _, points = notebooks.exercise(block)
    label = block.label
    if not label or not title or not points:
        yield "give the exercise a title, a :label: and points-N in its :class:"
        return
    solved = [b for b in extra.blocks if b.name == "solution-start"]
    if label not in [b.argument for b in solved]:
        yield f"{label} has no solution-start: add it"
    if notebooks.asks(block.classes) != "write":
        told = sum(map(notebooks.worth, notebooks.rubric(extra.blocks, label)))
        if told not in (0, points):
            yield f"{label}: its rubric gives {told} of {points} points"
        return
    found = {kind: len(extra.tagged(kind, label)) for kind in CELLS}
    for kind, count in found.items():
        if not count:
            yield f"{label} has no cell tagged {kind}: add it"
        elif count > 1 and kind.endswith("-test"):
            yield f"{label} has {count} cells tagged {kind}: make them one"
        elif kind.endswith("-test") and not ends_with_check(extra, label, kind):
            yield f"{label}: end its {kind} with exercises.check(test, function)"
    hidden = extra.tagged("hidden-test", label)
    if len(hidden) == 1 and not takes_seed(hidden[0]):
        yield f"{label}: its hidden-test takes a seed, as in def tail(answer, seed=0)"


def ends_with_check(extra: Manuscript, label: str, kind: str) -> bool:
    try:
        gates.asked(extra, label, kind.removesuffix("-test"))
    except (AssertionError, ValueError, SyntaxError):
        return False
    return True


def takes_seed(cell: Block) -> bool:
    try:
        parsed = ast.parse(cell.body)
    except SyntaxError:
        return False
    functions = [n for n in parsed.body if isinstance(n, ast.FunctionDef)]
    return any("seed" in [a.arg for a in f.args.args] for f in functions)
