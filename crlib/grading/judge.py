"""Judge one answer: the student's code in one process, the tests in another.

The ``worker`` holds the student's function and stands behind walls. The ``tester``
holds the tests and calls that function through a pipe. It reads plain values only
(``wire``), so that nothing in the worker, neither frames nor patches nor objects,
reaches a test.

Both are fresh processes. On Linux they are forked from a server that has imported what
the setup of the unit needs, and that has never seen a student's code.

What a function does to its arguments stays with the worker. A function that a test
hands over is called back where the test runs; so nothing can be differentiated through
it, and a test that needs that hands over a module of torch.
"""

import ast
import functools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from crlib import exercises
from crlib.grading import walls
from crlib.grading.packs import Pack, PackError, Task
from crlib.grading.tester import GONE, TESTS, examine
from crlib.grading.worker import work

# Of computing, for one answer and both of its tests.
SECONDS = 10
# By the clock, for the first process to import torch on a busy machine.
START = 120
SLOW = "Your code did not end in time: it may take {} seconds of computing."


@dataclass(frozen=True)
class Verdict:
    """What the tests of a task found, with the walls that could not be built."""

    public: exercises.Outcome
    hidden: exercises.Outcome
    missing: tuple[str, ...]


def judge(
    pack: Pack,
    task: Task,
    source: str,
    *,
    seconds: int = SECONDS,
    walled: Collection[str] = walls.WALLS,
) -> Verdict:
    """Judge the function that ``source`` defines for ``task``.

    Args:
        pack: of the unit; its setup runs before the walls go up.
        task: one that asks for a function.
        source: definitions, among them that function.
        seconds: of computing; by the clock, three times as long and five more.
        walled: the walls to build, of ``walls.WALLS``.

    Raises:
        PackError: the setup of the pack or a test of it is at fault.
    """
    context = processes(pack)
    report, told = context.Pipe(duplex=False)
    ours, theirs = context.Pipe()
    job = (pack.setup, source, task.function)
    folder = tempfile.TemporaryDirectory(prefix="crlib-")
    limits = (tuple(walled), seconds, folder.name)
    worker = context.Process(target=work, args=(theirs, *job, *limits), daemon=True)
    tester = context.Process(
        target=examine, args=(told, ours, task, *job, "split" in walled), daemon=True
    )
    # Until the setup has run nobody's clock ticks.
    until = time.monotonic() + START
    found: dict[str, Any] = {}
    try:
        for process in (worker, tester):
            process.start()
        for end in (told, ours, theirs):
            end.close()
        while "hidden" not in found and report.poll(max(0, until - time.monotonic())):
            found |= json.loads(report.recv_bytes())
            if list(found) == ["missing"]:
                until = time.monotonic() + 3 * seconds + 5
    except EOFError:
        found.setdefault("fault", "the process of the tests ended")
    finally:
        late = time.monotonic() >= until
        exitcode = _end(worker)
        _end(tester)
        report.close()
        folder.cleanup()
    if "missing" not in found:
        found.setdefault("fault", "the setup of the pack does not end")
    if "fault" in found:
        raise PackError(f"{pack.unit}, {task.label}: {found['fault']}")
    return _verdict(found, late, exitcode, seconds)


def _verdict(
    found: dict[str, Any], late: bool, exitcode: int | None, seconds: int
) -> Verdict:
    """Put what was reported into sentences for the student."""
    slow = SLOW.format(seconds)
    outcomes = []
    for kind in TESTS:
        passed, message = found.get(kind, (False, slow if late else GONE))
        if message == GONE and exitcode in (-24, -9):
            # SIGXCPU, or SIGKILL for who does not heed it.
            message = slow
        outcomes.append(exercises.Outcome(passed, message))
    public, hidden = outcomes
    return Verdict(public, hidden, tuple(found["missing"]))


def _end(process: Any) -> int | None:
    """End a process that was perhaps never started; return how it ended by itself."""
    if process.pid is None:
        return None
    process.join(0.2)
    code: int | None = process.exitcode
    process.kill()
    process.join()
    return code


def processes(pack: Pack) -> Any:
    """Return the way to start processes here: from a server that has torch, on Linux.

    A fork after ``import torch`` is safe there with one thread. Elsewhere each process
    begins anew, which takes seconds.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *imports("\n".join(pack.setup))])
    return context


@functools.cache
def imports(source: str) -> list[str]:
    """Return the modules that some source imports, without the tests of exercises.

    Python 3.11 may fail where two threads parse at once. So whoever judges in threads
    calls this before, and they find what was found.

    >>> imports("import numpy as np\\nfrom crlib import metrics, exercises")
    ['numpy', 'crlib', 'crlib.metrics']
    """
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "crlib":
                found += inner
    return [name for name in found if not name.startswith("crlib.exercises")]
