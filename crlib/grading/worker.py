"""The student's side: a process that runs a student's function when it is called."""

import importlib
import os
import pickle
import sys
from collections.abc import Callable, Collection
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any

import torch

from crlib.grading import walls, wire


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
    namespace = prepared(setup)
    if "optim" in source:
        # An optimizer imports it at its first step, when files are out of reach.
        importlib.import_module("torch._dynamo")
    # Secrets of whoever grades stand there.
    os.environ.clear()
    os.chdir(folder)
    link.send_bytes(wire.encode(("ready", walls.build(walled, seconds))))
    serve(link, defined(source, name, namespace))


def _alone(link: Connection) -> None:  # pragma: no cover
    """Let go of everything but the pipe: open files, and what is printed."""
    if os.name == "posix":
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        keep = link.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, 4096)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")


def prepared(setup: Collection[str]) -> dict[str, Any]:  # pragma: no cover
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
                raise wire.revived(*rest)
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
            reply = wire.encode(wire.raised(error))
        link.send_bytes(reply)


class _Received(pickle.Unpickler):
    """Reads what the tester sent; a function of the test becomes a call back."""

    def __init__(self, data: bytes, call_back: Callable[[int], Any]) -> None:
        super().__init__(BytesIO(data))
        self.call_back = call_back

    def persistent_load(self, place: int) -> Any:
        return self.call_back(place)
