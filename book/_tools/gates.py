"""The gates that an exercise must pass: its tests are tested, the book's and others'.

The stub fails, the solution passes, a wrong answer fails, and so does what no exercise
asks for, each with a sentence. With any seed the further test keeps to that, and draws
other inputs.
"""

import ast
import contextlib
import functools
import importlib
import io
import linecache
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from book._tools.manuscript import Block, Manuscript
from book._tools.notebooks import asks
from crlib import exercises
from crlib.exercises import Outcome
from crlib.grading.packs import OWN

MODULE = "chapter_under_test"
# The book's own, and two that a course may choose.
SEEDS = (0, 1, 2**31 - 1)
# What a function returns that no exercise asks for.
POINTLESS = {
    "None": "None",
    "a list": "[1.0, 2.0]",
    "a NumPy array": "__import__('numpy').ones(3)",
    "what equals everything": "type('Any', (), {'__eq__': lambda *_: True})()",
    "a number that equals all": "type('Any', (float,), {'__eq__': lambda *_: True})()",
}


def asked(book: Manuscript, label: str, kind: str = "public") -> tuple[str, str]:
    """Return the test of an exercise and the function that it asks for.

    Both stand in the last line of the cell of the test:
    ``exercises.check(ch05.build, build)``. A test that the cell defines itself is not
    one of crlib's: ``exercises.check(tail, tail_share)``.
    """
    (cell,) = book.tagged(f"{kind}-test", label)
    test, function = map(ast.unparse, last(cell).args)
    module, _, name = test.rpartition(".")
    home = f"crlib.exercises.{module}" if module else OWN
    return f"{home}:{name}", function


def last(cell: Block) -> ast.Call:
    """Return the call in the last line of the cell of a test."""
    found = ast.parse(cell.body).body[-1]
    assert isinstance(found, ast.Expr) and isinstance(found.value, ast.Call), cell.line
    return found.value


def run(source: str, namespace: dict[str, Any], name: str = "<cell>") -> Any:
    """Execute a cell silently; return the value of its last expression, or None."""
    # Lets inspect.getsource find what a cell defines.
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    module = types.ModuleType(MODULE)
    module.__dict__.update(namespace)
    sys.modules[MODULE] = module
    parsed = ast.parse(source, name)
    value = None
    with contextlib.redirect_stdout(io.StringIO()):
        if parsed.body and isinstance(parsed.body[-1], ast.Expr):
            end = parsed.body.pop()
            assert isinstance(end, ast.Expr)
            exec(compile(parsed, name, "exec"), namespace)
            value = eval(compile(ast.Expression(end.value), name, "eval"), namespace)
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


def exercise_labels(book: Manuscript) -> Iterator[str]:
    """Yield the exercises that ask for a function; the others have nothing to run."""
    for block in book.blocks:
        if block.name == "exercise-start" and asks(block.classes) == "write":
            yield block.label


def hidden_test(
    book: Manuscript, label: str, namespace: dict[str, Any]
) -> Callable[..., None]:
    """Return the further test of an exercise; one of its own is defined first."""
    place, _ = asked(book, label, "hidden")
    module, _, name = place.partition(":")
    if module == OWN:
        run_all(book.tagged("hidden-test", label), namespace)
        found: Callable[..., None] = namespace[name]
    else:
        found = getattr(importlib.import_module(module), name)
    return found


def verdicts(
    book: Manuscript,
    label: str,
    namespace: dict[str, Any],
    seeds: Sequence[int] = SEEDS[:1],
) -> dict[str, Outcome]:
    """Run an exercise's tests on the answer that ``namespace`` defines.

    Args:
        namespace: what the setup cells of the chapter define, and an answer.
        seeds: for the further test.

    Returns:
        what the ``"public"`` test found, and the ``"hidden"`` one with each seed.
    """
    found = {"public": run_all(book.tagged("public-test", label), namespace)}
    test = hidden_test(book, label, namespace)
    function = namespace[asked(book, label)[1]]
    for seed in seeds:
        seeded = functools.partial(test, seed=seed)
        found[f"hidden, seed {seed}"] = exercises.check(seeded, function)
    return found


def answered(names: dict[str, Any], source: str) -> dict[str, Any]:
    """Return ``names``, which stay as they are, with what ``source`` defines."""
    namespace = dict(names)
    run(source, namespace, "<answer>")
    return namespace


def drawn(
    test: Callable[..., None], function: Callable[..., Any], seed: int
) -> list[str]:
    """Return what a test gives to a function and gets of it, as text."""
    found = []

    def watched(*args: Any, **options: Any) -> Any:
        given = [a for a in (*args, *options.values()) if not callable(a)]
        # Before the call: the function may write into its arguments.
        shown = repr(given)
        returned = function(*args, **options)
        found.append(f"{shown} {returned!r}")
        return returned

    exercises.check(functools.partial(test, seed=seed), watched)
    return found


def faults(
    book: Manuscript, label: str, setup: dict[str, Any], wrong: Sequence[str]
) -> list[str]:
    """Return what is wrong with an exercise's tests.

    Args:
        setup: names that the chapter's setup cells define; not changed.
        wrong: sources of wrong answers, one or more.
    """
    found = []
    stub = answered(setup, source_of(book, "exercise", label))
    for kind, outcome in verdicts(book, label, stub).items():
        if outcome.passed or outcome.message != "Not written yet.":
            found.append(f"the stub passes the {kind} test or is misled: {outcome}")
    _, name = asked(book, label)
    for what, value in POINTLESS.items():
        pointless = answered(setup, f"def {name}(*_, **__):\n    return {value}")
        for kind, outcome in verdicts(book, label, pointless).items():
            # A sentence, not the bare text of an exception.
            if outcome.passed or len(outcome.message.split()) < 4:
                found.append(f"{what} passes the {kind} test or is misled: {outcome}")
    # What the stub's and the public test's cells define, a solution may use.
    right = answered(stub, source_of(book, "solution", label))
    for kind, outcome in verdicts(book, label, right, SEEDS).items():
        if not outcome.passed:
            found.append(f"the solution fails the {kind} test: {outcome}")
    test = hidden_test(book, label, right)
    if drawn(test, right[name], SEEDS[0]) == drawn(test, right[name], SEEDS[1]):
        found.append("the hidden test draws nothing from its seed")
    if not wrong:
        found.append("no wrong answer is given: add one that its tests must refuse")
    passed = []
    for source in wrong:
        mistaken = answered(stub, source)
        public, *hidden = verdicts(book, label, mistaken, SEEDS).values()
        passed.append(public.passed)
        if public.passed and any(outcome.passed for outcome in hidden):
            found.append("the wrong answer passes both tests")
    if passed and all(passed):
        found.append("no wrong answer fails the public test: add one that does")
    return [f"{book.path.name}: {label}: {problem}" for problem in found]


def source_of(book: Manuscript, tag: str, label: str) -> str:
    return "\n".join(cell.body for cell in book.tagged(tag, label))
