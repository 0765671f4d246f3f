"""The pack of a unit: its setup, its exercises, and what each is worth, as one JSON.

It is derived from the manuscript (``crlib assign``), which only the repository has; to
judge, the pack is enough.
"""

import ast
import functools
import importlib
import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import crlib

# The module of tests that a pack brings along; see Task.tests.
OWN = "own"
# Rooms of crlib that hold answers to exercises.
ROOMS = "attacks certify compress exercises metrics models theory train".split()


class PackError(ValueError):
    """A pack that cannot be used, or a fault of its own setup or tests."""


@dataclass(frozen=True)
class Task:
    """An exercise.

    Attributes:
        label: as in the manuscript, such as ``"ex-build"``.
        title: as a page shows it.
        kind: ``"write"`` is judged here; anything else is graded by hand.
        points: in all.
        function: the name of the function to write, empty if there is none.
        public, hidden: tests, as ``"crlib.exercises.ch05:build"``; ``"own:tail"`` is
            in ``tests``.
        public_points, hidden_points: what each test is worth.
        uses: what of crlib the solution itself calls, as ``"metrics.spread"``.
        seed: what the hidden test draws its inputs from; 0 in the book, a secret of
            whoever grades elsewhere.
        tests: source of tests that crlib does not hold.
        rubric: of what is graded by hand: what a full answer says, and for how much.
    """

    label: str
    title: str
    kind: str
    points: int
    function: str = ""
    public: str = ""
    hidden: str = ""
    public_points: int = 0
    hidden_points: int = 0
    uses: tuple[str, ...] = ()
    seed: int = 0
    tests: str = ""
    rubric: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pack:
    """What a unit asks for.

    Attributes:
        unit: its short name, such as ``"ch05"``.
        title: of the unit.
        version: of crlib that it was made with.
        notebook: the name of the file that students are given.
        setup: the cells that define what every exercise may use.
        tasks: in the order of the page.
    """

    unit: str
    title: str
    version: str
    notebook: str
    setup: tuple[str, ...]
    tasks: tuple[Task, ...]

    @property
    def judged(self) -> list[Task]:
        """The exercises that ask for a function."""
        return [task for task in self.tasks if task.kind == "write"]

    def write(self, path: Path) -> None:
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Pack:
    """Read a pack.

    Raises:
        PackError: no pack, or one of another version of crlib.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tasks = map(_task, raw["tasks"])
        pack = Pack(**{**raw, "setup": tuple(raw["setup"]), "tasks": tuple(tasks)})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PackError(
            f"{path} is no pack ({type(error).__name__}: {error}): make one with"
            " `crlib assign UNIT` in the book's repository."
        ) from None
    try:
        crlib.require(pack.version)
    except ImportError:
        raise PackError(
            f"The pack was made with crlib {pack.version}, and this is"
            f" {crlib.__version__}: install that one, or make the pack anew."
        ) from None
    return pack


def _task(raw: dict[str, Any]) -> Task:
    lists = {name: tuple(raw.get(name, ())) for name in ("uses", "rubric")}
    return Task(**{**raw, **lists})


def tests(task: Task, setup: Collection[str]) -> dict[str, Callable[[Any], None]]:
    """Return the ``"public"`` and the ``"hidden"`` test of a task, the latter seeded.

    Args:
        task: one that asks for a function.
        setup: of its pack, which tests of its own may use.

    Raises:
        PackError: there is no such test.
    """
    places = (task.public, task.hidden)
    if task.tests:
        own: dict[str, Any] = {"__name__": OWN}
        for cell in (*setup, task.tests):
            exec(compile(cell, f"<tests of {task.label}>", "exec"), own)
        names = [place.partition(":")[2] for place in places]
        if not set(names) <= set(own):
            raise PackError(f"The tests of {task.label} do not define {names}.")
        public, hidden = (own[name] for name in names)
    else:
        public, hidden = map(test, places)
    return {"public": public, "hidden": functools.partial(hidden, seed=task.seed)}


def test(place: str) -> Callable[[Any], None]:
    """Return the test that stands at ``"module:name"``.

    Raises:
        PackError: there is none.
    """
    module, _, name = place.partition(":")
    try:
        found: Callable[[Any], None] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PackError(f"There is no test {place!r} ({error}).") from None
    return found


def uses(source: str) -> set[str]:
    """Return what of crlib some source names, as ``"metrics.spread"``.

    >>> sorted(uses("from crlib.metrics import spread\\ncrlib.theory.mixed_norm(w)"))
    ['metrics.spread', 'theory.mixed_norm']
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node).removeprefix("crlib.")]
        elif isinstance(node, ast.Import):
            # Of crlib.metrics as m nobody sees what m is asked for.
            names = [f"{alias.name}.*" for alias in node.names if alias.asname]
        elif isinstance(node, ast.ImportFrom) and node.module == "crlib":
            names = [f"{alias.name}.*" for alias in node.names if alias.asname]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            room, _, rest = name.removeprefix("crlib.").partition(".")
            if room in ROOMS and rest:
                found.add(f"{room}.{rest.partition('.')[0]}")
    return found
