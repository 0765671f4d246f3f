"""What students hand in: honest, clumsy and hostile. Used by the tests of grading.

Everything is handed in for a small pack of two exercises of chapter 5, ``error_curve``
and ``effective_rank``, 3 points each. Each hostile answer is one to ``effective_rank``,
beside a right answer to ``error_curve``.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import crlib
from crlib.grading import Pack, Task

SETUP = ("import math\n\nimport torch", "from crlib import metrics")


def _task(name: str) -> Task:
    place = f"crlib.exercises.ch05:{name}"
    label = f"ex-{name.replace('_', '-')}"
    tests = (name, place, f"{place}_hidden", 1, 2)
    return Task(label, name.capitalize(), "write", 3, *tests)


PACK = Pack(
    "ch05",
    "Measuring compressibility",
    crlib.__version__,
    "05_measuring.ipynb",
    SETUP,
    (
        _task("error_curve"),
        _task("effective_rank"),
        Task("ex-ranks", "Three ranks", "derive", 4),
    ),
)
CURVE, RANK = PACK.judged

ERROR_CURVE = """
def error_curve(v, q):
    powers = v.abs().double().sort().values ** q
    tails = torch.cat([powers.new_zeros(1), powers.cumsum(0)]).flip(0)
    return (tails / tails[0]) ** (1 / q)
"""
EFFECTIVE_RANK = """
def effective_rank(s):
    p = s[s > 0].double() / s.double().sum()
    return float((-(p * p.log()).sum()).exp())
"""
STUBS = (
    """
def error_curve(v, q):
    raise NotImplementedError
""",
    """
def effective_rank(s):
    "The effective rank."
    raise NotImplementedError("Write it.")
""",
)


def notebook(*sources: str, nbformat: int = 4) -> bytes:
    """Return a notebook with these code cells."""
    cells = [{"cell_type": "code", "source": source} for source in sources]
    return json.dumps({"cells": cells, "nbformat": nbformat}).encode()


# Right, though the state of the file is not.
HONEST: Mapping[str, bytes] = {
    "stubs above": notebook(*STUBS, ERROR_CURVE, EFFECTIVE_RANK),
    "a copied cell": notebook(EFFECTIVE_RANK, ERROR_CURVE, EFFECTIVE_RANK, nbformat=99),
    "cells in disorder": notebook(EFFECTIVE_RANK, "1 / 0", ERROR_CURVE),
    "magics": notebook(f"%%time\n!pip list\n{ERROR_CURVE}", f"{EFFECTIVE_RANK}\nmath?"),
    "an old format": json.dumps(
        {
            "worksheets": [
                {
                    "cells": [
                        {"cell_type": "code", "input": [ERROR_CURVE]},
                        {"cell_type": "code", "input": EFFECTIVE_RANK.splitlines(True)},
                    ]
                }
            ]
        }
    ).encode(),
    "a Python file": (ERROR_CURVE + EFFECTIVE_RANK).encode(),
    "a warning": notebook(
        ERROR_CURVE,
        "import warnings\nimport sys",
        EFFECTIVE_RANK.replace(
            "    p =", "    warnings.warn('w')\n    sys.stderr.write('e')\n    p ="
        ),
    ),
    "deeds between cells": notebook(
        "import sys, shutil\nsys.exit(1)",
        "while True:\n    pass",
        ERROR_CURVE,
        "raise KeyboardInterrupt",
        EFFECTIVE_RANK,
        "error_curve(None)",
    ),
    "helpers": notebook(
        "table = {}\ntable['base'] = math.e\nbase = 1\nbase += 1",
        ERROR_CURVE,
        "def shares(s):\n    return s[s > 0].double() / s.double().sum()",
        "def effective_rank(s):\n    p = shares(s)\n"
        "    return table['base'] ** (math.log(base) / math.log(2)"
        " * float(-(p * p.log()).sum()))",
    ),
}

# No notebook: nothing to grade, and a sentence.
UNREADABLE: Mapping[str, tuple[bytes, str]] = {
    "empty": (b" \n", "Your file is empty"),
    "cut": (notebook(ERROR_CURVE, EFFECTIVE_RANK)[:-40], "damaged or no notebook"),
    "a web page": (b"<!doctype html><p>", "Your file is a web page"),
    "deep": (b'{"cells": ' + b"[" * 100_000, "damaged or no notebook"),
    "no cells": (b'{"cells": 3}', "damaged or no notebook"),
}

# Wrong for effective_rank: the answer, and what the student reads.
HOSTILE: Mapping[str, tuple[str, str]] = {
    "equals everything": (
        "class Any:\n    def __eq__(self, other):\n        return True\n"
        "    __float__ = __le__ = __ge__ = __sub__ = lambda *_: 0.0\n"
        "def effective_rank(s):\n    return Any()",
        "Your function returned an Any: return a tensor",
    ),
    "a number that equals all": (
        "class Any(float):\n    def __eq__(self, other):\n        return True\n"
        "def effective_rank(s):\n    return Any()",
        "Your function returned an Any",
    ),
    "frames": (
        "import sys\ndef effective_rank(s):\n    frame = sys._getframe()\n"
        "    while frame := frame.f_back:\n"
        "        for value in frame.f_code.co_consts:\n"
        "            if value == len(s):\n                return value\n    return 0.0",
        "should be",
    ),
    "patched tests": (
        "from crlib.exercises import ch05\ndef effective_rank(s):\n"
        "    ch05.close = ch05.effective_rank = lambda *_: None\n    return 0.0",
        "should be",
    ),
    "patched check": (
        "from crlib import exercises\nexercises.check = lambda *_: exercises.Outcome("
        "True, 'Passed.')\ndef effective_rank(s):\n    return 0.0",
        "should be",
    ),
    "exit": ("def effective_rank(s):\n    raise SystemExit", "code raised SystemExit"),
    "hard exit": (
        "import os\ndef effective_rank(s):\n    os._exit(0)",
        "Your code ended its process",
    ),
    "crash": (
        "import ctypes\ndef effective_rank(s):\n    ctypes.string_at(0)",
        "Your code ended its process",
    ),
    "stubborn loop": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "def effective_rank(s):\n    while True:\n        try:\n"
        "            while True:\n                pass\n"
        "        except BaseException:\n            pass",
        "did not end in time",
    ),
    "loop in a definition": (
        "base = [0 for _ in iter(int, 1)]\ndef effective_rank(s):\n    return base",
        "did not end in time|too much memory|MemoryError",
    ),
    "sleep": (
        "import time\ndef effective_rank(s):\n    time.sleep(1e6)",
        "did not end in time",
    ),
    "memory": (
        "def effective_rank(s):\n    return float(torch.ones(10**11).sum())",
        "can't allocate memory|MemoryError",
    ),
    "output": (
        "def effective_rank(s):\n    print('x' * 10**8)\n    return 0.0",
        "should be",
    ),
    "a large answer": (
        "def effective_rank(s):\n    return 'x' * 10**8",
        "Your code answered out of turn",
    ),
    "an endless list": (
        "def effective_rank(s):\n    x = []\n    x.append(x)\n    return x",
        "RecursionError",
    ),
    "fork bomb": (
        "import os\ndef effective_rank(s):\n    while True:\n        os.fork()",
        "no other processes",
    ),
    "threads that fork": (
        "import threading, os\ndef effective_rank(s):\n    found = []\n"
        "    def fork():\n        try:\n            os.fork()\n"
        "        except OSError as error:\n            found.append(error)\n"
        "    t = threading.Thread(target=fork)\n    t.start()\n    t.join()\n"
        "    raise found[0]",
        "no other processes",
    ),
    "junk": (
        "import os\ndef effective_rank(s):\n    for k in range(3, 64):\n        try:\n"
        "            os.write(k, b'junkjunk')\n        except OSError:\n"
        "            pass\n    return 0.0",
        "Your code answered out of turn",
    ),
    "half a character": (
        "def effective_rank(s):\n    raise ValueError('\\udcff')",
        r"raised ValueError: \?$",
    ),
    "a secret": (
        "import os\ndef effective_rank(s):\n    raise ValueError(sorted(os.environ))",
        r"raised ValueError: \[\]",
    ),
    "higher limits": (
        "import resource\ndef effective_rank(s):\n"
        "    resource.setrlimit(resource.RLIMIT_CPU, (9000, 9000))",
        "not allowed to raise maximum limit",
    ),
    "no Python": ("def effective_rank(s)\n    return 1", "Code cell 2 is no Python"),
    "very deep": (f"def effective_rank(s):\n    return {'-' * 30_000}1", "Code|Your"),
}

# Where the wall is missing, these would harm the machine of the test.
NEEDS: Mapping[str, str] = {
    "fork bomb": "processes",
    "threads that fork": "processes",
    "memory": "limits",
    "higher limits": "limits",
}


def deeds(place: Path, port: int) -> dict[str, tuple[str, str]]:
    """Return answers that do what a wall forbids, and then answer right, by wall.

    Args:
        place: a folder with ``classmate.py``, ``gradebook.db`` and ``precious``.
        port: where somebody listens on this machine.
    """

    def then(deed: str, imports: str = "") -> str:
        return f"import os, sys\n{imports}\n" + EFFECTIVE_RANK.replace(
            "    p =", f"    {deed}\n    p ="
        )

    return {
        "split": (
            "def effective_rank(s):\n    math.isclose = lambda *_, **__: True\n"
            "    return 0.0",
            "",
        ),
        "limits": (then("torch.empty(5 * 2**30, dtype=torch.int8)"), "allocate"),
        "files: a classmate's": (
            f"def effective_rank(s):\n    names = {{'torch': torch}}\n"
            f"    exec(open({str(place / 'classmate.py')!r}).read(), names)\n"
            "    return names['effective_rank'](s)",
            "no other files",
        ),
        "files: the gradebook": (
            then(
                f"db = sqlite3.connect({str(place / 'gradebook.db')!r});"
                " db.execute('update grade set score = 24'); db.commit()",
                "import sqlite3",
            ),
            "unable to open database",
        ),
        "files: write": (
            then(f"open({str(place / 'new')!r}, 'w').write('x')"),
            "no other files",
        ),
        "files: delete": (
            then(f"os.path.exists(f := {str(place / 'precious')!r}) and os.remove(f)"),
            "no other files",
        ),
        "network": (
            then(
                f"socket.create_connection(('127.0.0.1', {port}), 5)", "import socket"
            ),
            "no network",
        ),
        "processes: start": (
            then("os.waitpid(os.spawnlp(os.P_NOWAIT, 'true', 'true'), 0)"),
            "no other processes",
        ),
        # Signal 0 only asks whether one may.
        "processes: signal": (then("os.kill(os.getppid(), 0)"), "no other processes"),
        "processes: limits": (
            then("resource.prlimit(os.getppid(), 0)", "import resource"),
            "no other processes",
        ),
    }
