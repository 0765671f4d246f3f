"""Run code cells of a chapter outside a notebook."""

import ast
import contextlib
import io
import linecache
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from book._tools.assignment import asked
from book._tools.manuscript import Block, Manuscript, read
from book._tools.notebooks import asks
from crlib.exercises import Outcome

ROOT = Path(__file__).parents[2]
MODULE = "chapter_under_test"
# What a function returns that no exercise asks for.
POINTLESS = {
    "None": "None",
    "a list": "[1.0, 2.0]",
    "a NumPy array": "__import__('numpy').ones(3)",
    "what equals everything": "type('Any', (), {'__eq__': lambda *_: True})()",
    "a number that equals all": "type('Any', (float,), {'__eq__': lambda *_: True})()",
}


def run(source: str, namespace: dict[str, Any], name: str = "<cell>") -> Any:
    """Execute a cell silently; return the value of its last expression, or None."""
    # Lets inspect.getsource find what a cell defines.
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    module = types.ModuleType(MODULE)
    module.__dict__.update(namespace)
    sys.modules[MODULE] = module
    parsed = ast.parse(source, name)
    last = parsed.body[-1] if parsed.body else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()):
        if isinstance(last, ast.Expr):
            parsed.body.pop()
            exec(compile(parsed, name, "exec"), namespace)
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        else:
            exec(compile(parsed, name, "exec"), namespace)
    return value


def fresh() -> dict[str, Any]:
    return {"__name__": MODULE}


def run_all(cells: list[Block], namespace: dict[str, Any]) -> Any:
    value = None
    for cell in cells:
        value = run(cell.body, namespace, f"<cell at line {cell.line}>")
    return value


def defined(name: str, *functions: str) -> list[Any]:
    """Return functions of a unit: its setup cells and the cells that define them.

    Args:
        name: of the unit, such as ``"ch05"``.
        functions: the names that some cell defines with ``def``.
    """
    (path,) = (ROOT / "book").glob(f"{name}_*.md")
    book = read(path)
    namespace = fresh()
    run_all(book.tagged("setup"), namespace)
    for function in functions:
        if function not in namespace:
            cells = [c for c in book.cells if f"def {function}(" in c.body]
            run_all(cells[:1], namespace)
    return [namespace[function] for function in functions]


def exercise_labels(book: Manuscript) -> Iterator[str]:
    """Yield the exercises that ask for a function; the others have nothing to run."""
    for block in book.blocks:
        if block.name == "exercise-start" and asks(block.classes) == "write":
            yield block.label


def verdicts(
    book: Manuscript, label: str, setup: dict[str, Any], answer: str | None = None
) -> dict[str, Outcome]:
    """Run an exercise's tests on an answer, by default on the stub.

    Args:
        setup: names that the chapter's setup cells define; not changed.
        answer: source of the answer.

    Returns:
        what the public and the hidden test found.
    """
    if answer is None:
        answer = "\n".join(c.body for c in book.tagged("exercise", label))
    namespace = dict(setup)
    run(answer, namespace, "<answer>")
    return {
        kind: run_all(book.tagged(f"{kind}-test", label), namespace)
        for kind in ("public", "hidden")
    }


def faults(
    book: Manuscript, label: str, setup: dict[str, Any], wrong: str | None
) -> list[str]:
    """Return what is wrong with an exercise's tests."""
    found = []
    for kind, outcome in verdicts(book, label, setup).items():
        if outcome.passed or outcome.message != "Not written yet.":
            found.append(f"the stub passes the {kind} test or is misled: {outcome}")
    _, name = asked(book, label)
    for what, value in POINTLESS.items():
        answer = f"def {name}(*_, **__):\n    return {value}"
        for kind, outcome in verdicts(book, label, setup, answer).items():
            # A sentence, not the bare text of an exception.
            if outcome.passed or len(outcome.message.split()) < 4:
                found.append(f"{what} passes the {kind} test or is misled: {outcome}")
    # What the stub's and the public test's cells define, a solution may use.
    names = dict(setup)
    run_all(book.tagged("exercise", label), names)
    run_all(book.tagged("public-test", label), names)
    solution = "\n".join(c.body for c in book.tagged("solution", label))
    for kind, outcome in verdicts(book, label, names, solution).items():
        if not outcome.passed:
            found.append(f"the solution fails the {kind} test: {outcome}")
    if wrong is None:
        found.append("no wrong answer in the file of this unit under tests/units")
    elif all(v.passed for v in verdicts(book, label, names, wrong).values()):
        found.append("the wrong answer passes both tests")
    return [f"{book.path.name}: {label}: {problem}" for problem in found]
