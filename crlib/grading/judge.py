"""Judge one answer: the student's code in one process, the tests in another.

The *worker* holds the student's function and stands behind walls. The *tester* holds
the tests and calls that function through a pipe. It reads plain values only (``wire``),
so that nothing in the worker, neither frames nor patches nor objects, reaches a test.

Both are fresh processes. On Linux they are forked from a server that has imported what
the setup of the unit needs, and that has never seen a student's code.

What a function does to its arguments stays with the worker. A function that a test
hands over is called back where the test runs; so nothing can be differentiated through
it, and a test that needs that hands over a module of torch.
"""

import ast
import builtins
import io
import json
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FunctionType
from typing import Any

import torch

from crlib import exercises
from crlib.grading import packs, walls, wire
from crlib.grading.packs import Pack, PackError, Task

TESTS = ("public", "hidden")
# Of computing, for one answer and both of its tests.
SECONDS = 10
# By the clock, for the first process to import torch on a busy machine.
START = 120
SLOW = "Your code did not end in time: it may take {} seconds of computing."
GONE = "Your code ended its process: by a crash, by an exit, or by too much memory."
WALLED = " (Here your code has no network, no other files and no other processes.)"
SILENT = "Your code answered out of turn."


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


def imports(source: str) -> list[str]:
    """Return the modules that some source imports, without the tests of exercises.

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


def work(
    link: Connection,
    setup: Collection[str],
    source: str,
    name: str,
    walled: Collection[str],
    seconds: int,
    folder: str,
) -> None:  # pragma: no cover - a process of its own, which no coverage sees
    """Run a student's function in this process whenever it is called on ``link``."""
    _alone(link)
    namespace = _prepared(setup)
    os.chdir(folder)
    link.send_bytes(wire.encode(("ready", walls.build(walled, seconds))))
    serve(link, defined(source, name, namespace))


def _alone(link: Connection) -> None:  # pragma: no cover
    """Let go of everything but the pipe: files, environment, what is printed."""
    if os.name == "posix":
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        keep = link.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, 4096)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
    os.environ.clear()


def _prepared(setup: Collection[str]) -> dict[str, Any]:  # pragma: no cover
    torch.set_num_threads(1)
    namespace: dict[str, Any] = {"__name__": "notebook"}
    for cell in setup:
        exec(compile(cell, "<setup>", "exec"), namespace)
    return namespace


def defined(source: str, name: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    """Return a student's function; one that raises, if defining it did."""
    try:
        exec(compile(source, "<your notebook>", "exec"), namespace)
        function: Callable[..., Any] = namespace[name]
        return function
    except BaseException as error:
        failure = error

    def broken(*_: Any, **__: Any) -> None:
        raise failure

    return broken


def serve(link: Connection, function: Callable[..., Any]) -> None:
    """Answer calls of ``function`` on ``link`` until it closes."""

    def call_back(place: int) -> Callable[..., Any]:
        def theirs(*args: Any, **options: Any) -> Any:
            link.send_bytes(wire.encode(("call", place, args, options)))
            kind, *rest = _Received(link.recv_bytes(), call_back).load()
            if kind == "raised":
                raise revived(*rest)
            return rest[0]

        return theirs

    while True:
        try:
            args, options = _Received(link.recv_bytes(), call_back).load()
        except EOFError:
            return
        try:
            reply = wire.encode(("returned", function(*args, **options)))
        except BaseException as error:
            reply = wire.encode(raised(error))
        link.send_bytes(reply)


class _Received(pickle.Unpickler):
    """Reads what the tester sent; a function of the test becomes a call back."""

    def __init__(self, data: bytes, call_back: Callable[[int], Any]) -> None:
        super().__init__(io.BytesIO(data))
        self.call_back = call_back

    def persistent_load(self, place: int) -> Any:
        return self.call_back(place)


def examine(
    report: Connection,
    link: Connection,
    task: Task,
    setup: Collection[str],
    source: str,
    name: str,
    split: bool,
) -> None:  # pragma: no cover - a process of its own, which no coverage sees
    """Run the tests of a task on the function behind ``link``; report each at once."""
    walls.hide()
    torch.set_num_threads(1)

    def say(**found: Any) -> None:
        report.send_bytes(json.dumps(found).encode())

    try:
        tests = {kind: packs.test(getattr(task, kind)) for kind in TESTS}
        remote = Remote(link, task.public.partition(":")[0])
        say(missing=remote.ready())
        function = remote.call
        if not split:
            function = defined(source, name, _prepared(setup))
        for kind, test in tests.items():
            outcome = exercises.check(test, function)
            message = remote.gone or outcome.message
            if "PermissionError" in message:
                message += WALLED
            # Half of a surrogate pair has no place in a file.
            text = message[:2000].encode(errors="replace").decode()
            say(**{kind: (outcome.passed and not remote.gone, text)})
    except BaseException:
        say(fault=traceback.format_exc())


class Remote:
    """The function of the worker at the other end of ``link``.

    Attributes:
        home: the module of the tests; its functions are called back here.
        gone: why the worker answers no more, empty while it does.
    """

    def __init__(self, link: Connection, home: str) -> None:
        self.link = link
        self.home = home
        self.gone = ""

    def ready(self) -> list[str]:
        """Wait until the setup has run; return the walls that are missing."""
        try:
            kind, missing = wire.decode(self.link.recv_bytes(wire.MOST))
        except EOFError:
            raise PackError("the setup of the pack does not run") from None
        assert kind == "ready"
        return list(missing)

    def call(self, *args: Any, **options: Any) -> Any:
        """Call it, and lend it the functions among the arguments."""
        lent: list[FunctionType] = []
        self._send((args, options), lent)
        while True:
            try:
                kind, *rest = wire.decode(self.link.recv_bytes(wire.MOST))
                if kind == "returned":
                    (found,) = rest
                    return found
                if kind == "raised":
                    error = revived(*rest)
                else:
                    place, given, named = rest
                    function = lent[place]
            except (EOFError, ConnectionError):
                raise self._lost(GONE) from None
            except (OSError, ValueError, TypeError, LookupError):
                raise self._lost(SILENT) from None
            if kind == "raised":
                raise error
            reply: tuple[Any, ...]
            try:
                reply = ("returned", function(*given, **named))
            except Exception as failure:
                reply = raised(failure)
            self._send(reply, lent)

    def _send(self, value: Any, lent: list[FunctionType]) -> None:
        buffer = io.BytesIO()
        _Sent(buffer, lent, self.home).dump(value)
        try:
            self.link.send_bytes(buffer.getvalue())
        except OSError:
            raise self._lost(GONE) from None

    def _lost(self, why: str) -> Exception:
        self.gone = self.gone or why
        self.link.close()
        return RuntimeError(self.gone)


class _Sent(pickle.Pickler):
    """Pickles what goes to the worker; functions of ``home`` stay here."""

    def __init__(self, buffer: io.BytesIO, lent: list[FunctionType], home: str) -> None:
        super().__init__(buffer)
        self.lent, self.home = lent, home

    def persistent_id(self, value: Any) -> int | None:
        # The pickle of a tensor names functions too, but functions of torch.
        if not isinstance(value, FunctionType) or value.__module__ != self.home:
            return None
        self.lent.append(value)
        return len(self.lent) - 1


def raised(error: BaseException) -> tuple[str, list[str], str]:
    """Return an error as plain values: the names of its classes, and what it says."""
    names = [kind.__name__ for kind in type(error).__mro__]
    try:
        text = str(error)
    except Exception:
        text = ""
    return "raised", names, text[:2000]


def revived(names: list[str], text: str) -> Exception:
    """Return an error of the same name, of the nearest class that Python itself has.

    >>> revived(["Mine", "ValueError", "Exception"], "no")
    Mine('no')
    >>> isinstance(_, ValueError)
    True
    """
    known = (getattr(builtins, str(name), None) for name in names)
    bases = [b for b in known if isinstance(b, type) and issubclass(b, Exception)]
    base = next(iter(bases), Exception)
    try:
        return type(names[0], (base,), {})(str(text))
    except TypeError:
        # A few take more than a text, such as UnicodeDecodeError.
        return type(names[0], (Exception,), {})(str(text))
