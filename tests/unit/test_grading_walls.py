"""Walls that this machine lacks are named, and the rest still stands."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from crlib.grading import walls

ALLOWED, REFUSED = 0x7FFF0000, 0x00050001


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A kernel that grants nothing, in place of the one of this machine."""
    fake = SimpleNamespace(
        prctl=lambda *_: -1, syscall=lambda *_: -1, capset=lambda *_: -1
    )
    monkeypatch.setattr(walls, "_LIBC", fake)
    resource = SimpleNamespace(setrlimit=lambda *_: None)
    for name in ("CPU", "FSIZE", "CORE", "NOFILE", "DATA"):
        setattr(resource, f"RLIMIT_{name}", name)
    monkeypatch.setitem(sys.modules, "resource", resource)
    return fake


def test_a_kernel_that_refuses_lacks_every_wall_but_the_split(
    kernel: SimpleNamespace,
) -> None:
    lacking = walls.build(walls.WALLS, 1)
    assert lacking == ["limits", "files", "network", "processes"]
    assert walls.build(["network", "split"], 1) == ["network"]
    assert walls.build(["split"], 1) == []


def test_a_kernel_that_grants_all_lacks_nothing(kernel: SimpleNamespace) -> None:
    kernel.prctl = kernel.capset = lambda *_: 0
    # Its version of Landlock, then a rule set that is then closed.
    answers = {444: [5, -1]}

    def syscall(number: int, *_: Any) -> int:
        return answers[number].pop(0) if number in answers else 0

    kernel.syscall = syscall
    with pytest.raises(OSError):
        walls.build(walls.WALLS, 1)
    assert walls.build([w for w in walls.WALLS if w != "files"], 1) == []
    walls.hide()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_no_wall_of_linux_is_claimed(
    kernel: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(walls, "_LIBC", None)
    monkeypatch.setattr(sys, "platform", platform)
    lacking = walls.build(walls.WALLS, 1)
    assert lacking == ["limits", "files", "network", "processes"]
    walls.hide()


def filtered(
    program: list[tuple[int, int, int, int]], call: int, argument: int = 0
) -> int:
    """Run a filter as the kernel does; return what it says."""
    data = {0: call, 4: walls._NUMBERS["x86_64"]["arch"], 16: argument}
    held, at = 0, 0
    while True:
        code, yes, no, constant = program[at]
        at += 1
        if code == 0x20:
            held = data[constant]
        elif code == 0x06:
            return constant
        else:
            tests = {0x15: held == constant, 0x35: held >= constant}
            tests[0x45] = bool(held & constant)
            at += yes if tests[code] else no


@pytest.mark.parametrize(
    ("call", "argument", "said"),
    [
        (0, 0, ALLOWED),  # read
        (41, 0, REFUSED),  # socket
        (57, 0, REFUSED),  # fork
        (56, 0x11, REFUSED),  # clone, a process
        (56, 0x10F00, ALLOWED),  # clone, a thread
        (435, 0, 0x00050026),  # clone3
        (62, 77, ALLOWED),  # a signal to itself
        (62, 1, REFUSED),
        (62, 0xFFFFFFFF, REFUSED),  # to all
        (302, 0, ALLOWED),  # its own limits
        (302, 77, ALLOWED),
        (302, 1, REFUSED),
        (0x40000000, 0, REFUSED),  # the second numbering
    ],
)
def test_the_filter_of_system_calls(
    monkeypatch: pytest.MonkeyPatch, call: int, argument: int, said: int
) -> None:
    monkeypatch.setattr(walls.platform, "machine", lambda: "x86_64")
    program = walls._program({"network", "processes"}, 77)
    assert program is not None and filtered(program, call, argument) == said


def test_the_filter_stops_what_it_was_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls.platform, "machine", lambda: "x86_64")
    program = walls._program({"network"}, 77)
    assert program is not None and filtered(program, 57) == ALLOWED
    monkeypatch.setattr(walls.platform, "machine", lambda: "riscv64")
    assert walls._program({"network"}, 77) is None


def test_both_processors_have_the_same_walls() -> None:
    one, other = walls._NUMBERS.values()
    assert one.keys() == other.keys() and len(one["network"]) == len(other["network"])
    # arm64 has no fork and no vfork of its own.
    assert len(one["processes"]) == len(other["processes"]) + 2
