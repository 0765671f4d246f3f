"""Our side: a process that holds the tests and calls the function of the worker."""

import json
import pickle
import traceback
from collections.abc import Collection
from io import BytesIO
from multiprocessing.connection import Connection
from types import FunctionType
from typing import Any

import torch

from crlib import exercises
from crlib.grading import packs, walls, wire, worker
from crlib.grading.packs import PackError, Task

TESTS = ("public", "hidden")
GONE = "Your code ended its process: by a crash, by an exit, or by too much memory."
SILENT = "Your code answered out of turn."
WALLED = " (Here your code has no network, no other files and no other processes.)"


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
        tests = packs.tests(task, setup)
        remote = Remote(link, task.public.partition(":")[0])
        say(missing=remote.ready())
        function = remote.call
        if not split:
            function = worker.defined(source, name, worker.prepared(setup))
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
                    error = wire.revived(*rest)
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
                reply = wire.raised(failure)
            self._send(reply, lent)

    def _send(self, value: Any, lent: list[FunctionType]) -> None:
        buffer = BytesIO()
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

    def __init__(self, buffer: BytesIO, lent: list[FunctionType], home: str) -> None:
        super().__init__(buffer)
        self.lent, self.home = lent, home

    def persistent_id(self, value: Any) -> int | None:
        # The pickle of a tensor names functions too, but functions of torch.
        if not isinstance(value, FunctionType) or value.__module__ != self.home:
            return None
        self.lent.append(value)
        return len(self.lent) - 1
