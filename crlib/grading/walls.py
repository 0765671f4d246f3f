"""Walls around a process that is to run a student's code. None can be taken down again.

=============  ==================================================================
``split``      tests and answer in two processes (``judge``), everywhere
``limits``     seconds of computing, memory, size of files; no rights of root
``files``      Landlock: Python's own files may be read, nothing else, nothing written
``network``    seccomp: no sockets
``processes``  seccomp: no new processes; no signals to others, no look into them
=============  ==================================================================

The last three are Linux's. :func:`build` says which could not be built.
"""

import ctypes
import errno
import math
import os
import platform
import struct
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

WALLS = ("split", "limits", "files", "network", "processes")
GIGABYTES = 4

_LINUX = sys.platform == "linux"
_LIBC = ctypes.CDLL(None, use_errno=True) if _LINUX else None


def build(wanted: Collection[str], seconds: int) -> list[str]:
    """Build walls around this process; return those that could not be built.

    Args:
        wanted: names from ``WALLS``.
        seconds: of computing from here on, for the limits.
    """
    if _LIBC is not None:
        # Nothing that is started from here gains rights; the kernel asks for it first.
        _LIBC.prctl(38, 1, 0, 0, 0)
    calls = {"network", "processes"} & set(wanted)
    built = {"split"}
    if "limits" in wanted and _limits(seconds):
        built.add("limits")
    if "files" in wanted and _files():
        built.add("files")
    if calls and _calls(calls):
        built |= calls
    return [name for name in WALLS if name in wanted and name not in built]


def hide() -> None:
    """Keep processes of the same user out of this one's memory."""
    if _LIBC is not None:
        _LIBC.prctl(4, 0, 0, 0, 0)


def _limits(seconds: int) -> bool:
    if sys.platform == "win32":
        return False
    import resource

    # What starting cost, torch above all, is not the student's.
    spent = math.ceil(time.process_time())
    for kind, most in (
        (resource.RLIMIT_CPU, spent + seconds),
        (resource.RLIMIT_FSIZE, 2**20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_DATA, GIGABYTES * 2**30),
    ):
        # A second more at the hard end: for who does not heed the first signal.
        end = most + 1 if kind == resource.RLIMIT_CPU else most
        resource.setrlimit(kind, (most, end))
    if _LIBC is None:
        # macOS does not heed the limit of memory.
        return False
    # Root could raise the limits again.
    header = struct.pack("Ii", 0x20080522, 0)
    return bool(_LIBC.capset(header, bytes(24)) == 0)


# Landlock, for files: include/uapi/linux/landlock.h. Its calls have the same numbers on
# every processor.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_LOOK = 1 | 4 | 8  # execute, read a file, read a folder
_OF_A_FILE = 1 | 2 | 4  # execute, write, read


def readable() -> set[str]:
    """Return what Python reads while it runs: its own files, and crlib."""
    folders = {sys.prefix, sys.base_prefix, str(Path(__file__).parents[1])}
    folders |= {path for path in sys.path if "-packages" in path}
    folders |= {"/usr", "/lib", "/lib64", "/etc/ld.so.cache"}
    folders |= {"/dev/null", "/dev/urandom", "/proc/cpuinfo", "/sys/devices/system/cpu"}
    return {path for path in folders if os.path.exists(path)}


def _files() -> bool:
    if _LIBC is None:
        return False
    abi = _LIBC.syscall(_CREATE, None, 0, 1)
    if abi < 1:
        return False
    # Each version of Landlock can forbid more: moving, truncating, devices.
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = struct.pack("Q", everything)
    rules = _LIBC.syscall(_CREATE, attributes, len(attributes), 0)
    for path in readable():
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights = _LOOK if os.path.isdir(path) else _LOOK & _OF_A_FILE
        if path == "/dev/null":
            rights |= 2
        rule = struct.pack("=Qi", rights, place)
        _LIBC.syscall(_ADD, rules, 1, rule, 0)
        os.close(place)
    built = _LIBC.syscall(_RESTRICT, rules, 0) == 0
    os.close(rules)
    return bool(built)


# seccomp, for system calls. Their numbers differ by processor: syscall_64.tbl for x86,
# include/uapi/asm-generic/unistd.h for arm64. No socket, no pair of them, no io_uring;
# no fork, vfork, execve, execveat, ptrace, look into or change of another's memory,
# tkill, queued signals, pidfd, unshare, setns, mount.
_NUMBERS: dict[str, dict[str, Any]] = {
    "x86_64": {
        "arch": 0xC000003E, "network": (41, 53, 425),
        "processes": (57, 58, 59, 322, 101, 310, 311, 200, 129, 297, 434, 424, 438)
        + (272, 308, 165), "clone": 56, "to self": (62, 234), "limit": 302,
    },
    "aarch64": {
        "arch": 0xC00000B7, "network": (198, 199, 425),
        "processes": (221, 281, 117, 270, 271, 130, 138, 240, 434, 424, 438)
        + (97, 268, 40), "clone": 220, "to self": (129, 131), "limit": 261,
    },
}  # fmt: skip
_CLONE3 = 435
_THREAD = 0x10000

# Instructions of BPF: code, how far to jump if so and if not, a constant.
_Step = tuple[int, int, int, int]
_ALLOW: _Step = (0x06, 0, 0, 0x7FFF0000)


def _refuse(error: int) -> _Step:
    return (0x06, 0, 0, 0x00050000 | error)


def _load(offset: int) -> _Step:
    """Load from struct seccomp_data: 0 the call, 4 the processor, 16 an argument."""
    return (0x20, 0, 0, offset)


def _when(value: int, *then: _Step) -> list[_Step]:
    return [(0x15, 0, len(then), value), *then]


def _program(walls: Collection[str], me: int) -> list[_Step] | None:
    """Return a filter of system calls, None for a processor that is not known."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        return None
    no = _refuse(errno.EPERM)
    # Calls of a second numbering, 32-bit or x32, are refused as a whole.
    program = [_load(4), (0x15, 1, 0, numbers["arch"]), no]
    program += [_load(0), (0x35, 0, 1, 0x40000000), no]
    for wall in sorted(walls):
        for call in numbers[wall]:
            program += _when(call, no)
    if "processes" in walls:
        # Threads are no processes. Of clone3 the flags are out of sight: libc, told
        # that there is none, goes back to clone.
        thread = (0x45, 1, 0, _THREAD)
        program += _when(_CLONE3, _refuse(errno.ENOSYS))
        program += _when(numbers["clone"], _load(16), thread, no, _ALLOW)
        for call in numbers["to self"]:
            program += _when(call, _load(16), (0x15, 1, 0, me), no, _ALLOW)
        itself = [*_when(0, _ALLOW), *_when(me, _ALLOW)]
        program += _when(numbers["limit"], _load(16), *itself, no)
    return [*program, _ALLOW]


def _calls(walls: Collection[str]) -> bool:
    program = _program(walls, os.getpid())
    if _LIBC is None or program is None:
        return False
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    kept = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(kept))
    return bool(_LIBC.prctl(22, 2, ctypes.c_char_p(header), 0, 0) == 0)
