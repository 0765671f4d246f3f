"""Check everything, or what a change can have touched; go on after a fault.

    python -m book._tools.check            # make test
    python -m book._tools.check --quick    # make check: no pages, no canaries

What passed for the very key it has now is not run again (``depends.py``). At the end
stand all faults, each with the command that repeats it, and one line that adds up.
"""

import argparse
import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from book._tools import build, cache, chromium, run
from book._tools.depends import ROOT, Sources, digest, digest_of, missing
from book._tools.units import Unit

PYTHON = ".venv/bin/python"
COVERAGE = (
    "--cov=crlib",
    "--cov-branch",
    "--cov-fail-under=95",
    "--cov-report=term-missing:skip-covered",
)
# They judge the built pages.
JUDGES = ("tests/book/test_pages.py", "tests/book/test_browser.py")
PAGE_CANARIES = "tests/canary/test_page_canaries.py"
DOORS = "tests/book/test_doors.py"
WORKERS = min(os.cpu_count() or 1, 4)


@dataclass(frozen=True)
class Fault:
    """What failed, what it said, and the command that repeats it."""

    what: str
    said: str
    repeat: str


@dataclass
class Step:
    """A command with a limit by the clock, after which it dumps its stacks and ends.

    Attributes:
        proves: for what it names in its reports, the key to keep when that passed: a
            file of tests, such as ``tests/unit/test_data.py``.
        all_or_nothing: further keys, kept when everything passed.
    """

    name: str
    command: list[str]
    limit: float
    proves: dict[str, str] = field(default_factory=dict)
    all_or_nothing: tuple[str, ...] = ()


@dataclass
class Outcome:
    status: int
    faults: list[Fault]
    counts: Counter[str]


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def pytest(*arguments: str) -> list[str]:
    return python("pytest", "-q", *arguments)


TOOLS = ("book/_tools", "book/_ext")
TYPES = python("mypy", "--explicit-package-bases", *TOOLS)
EXAMPLES = pytest("--doctest-modules", "crlib", "-p", "no:cacheprovider")


def shown(command: Iterable[str]) -> str:
    """Return a command as one would type it."""
    words = [PYTHON if word == sys.executable else word for word in command]
    return " ".join(f"'{w}'" if re.search(r"[^\w./=:,+-]", w) else w for w in words)


def follow(command: list[str], limit: float) -> tuple[int, str]:
    """Run a command and show what it says; return its status and its last lines."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    last: list[str] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        began = time.monotonic()
        guard = threading.Timer(limit, end, [process])
        guard.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = [*last[-5:], line.rstrip()]
        guard.cancel()
    if time.monotonic() - began >= limit:
        return 1, f"did not end within {limit:.0f} s; its stacks are above"
    return process.returncode, "\n  ".join(filter(None, last))


def end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started, after a dump of its stacks."""
    with contextlib.suppress(ProcessLookupError):
        # faulthandler answers with the stacks of all threads.
        os.killpg(process.pid, signal.SIGABRT)
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Case:
    """A test of a report: where it stands, and how it ended.

    Attributes:
        place: its file.
        proves: it passed, or was skipped for what the key of its file tells.
    """

    place: str
    kind: str
    proves: bool
    fault: Fault | None = None


def cases(report: Path, command: list[str]) -> Iterator[Case]:
    """Read what a command of pytest reported."""
    # What makes tests of notebooks and of docstrings, also when it is repeated.
    modes = [word for word in command if word.startswith(("--nbval", "--doctest"))]
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        # A file skipped as a whole is reported by its name.
        stem, notebook, _ = (case.get("classname") or name).partition(".ipynb")
        place = stem.replace(".", "/") + (notebook or ".py")
        skip = case.find("skipped")
        for wrong in (*case.findall("failure"), *case.findall("error")):
            # A file that cannot be collected has no test to name.
            node = f"{place}::{name}" if (ROOT / place).exists() else name
            said = (wrong.get("message") or "").strip().splitlines() or ["?"]
            # A cell needs those before it.
            repeat = shown(pytest(*modes, place if notebook else node))
            yield Case(place, "failed", False, Fault(node, said[0][:200], repeat))
            break
        else:
            reason = "" if skip is None else f"{skip.get('message')} {skip.text}"
            known = any(lack in reason for lack in missing())
            kind = "passed" if skip is None else "skipped"
            yield Case(place, kind, skip is None or known)


def perform(step: Step) -> Outcome:
    """Run a step; keep what it proves; return its faults."""
    found: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        tested = "pytest" in step.command
        command = [*step.command, f"--junitxml={report}"] if tested else step.command
        status, said = follow(command, step.limit)
        # Nothing but skipped files: pytest calls that a failure of its own kind.
        status = 0 if tested and status == 5 else status
        if tested and report.exists():
            found = list(cases(report, step.command))
    counts = Counter(case.kind for case in found)
    faults = [case.fault for case in found if case.fault]
    proven = {case.place for case in found}
    if status and not faults:
        faults.append(Fault(step.name, said, shown(step.command)))
        counts["failed"] += 1
        proven.clear()
    proven -= {case.place for case in found if not case.proves}
    for place, key in step.proves.items():
        if place in proven:
            cache.put("proofs", key, place)
    if not status and all(case.proves for case in found):
        for key in step.all_or_nothing:
            cache.put("proofs", key, step.name)
    return Outcome(status, faults, counts)


def proven(key: str) -> bool:
    return cache.get("proofs", key) is not None


@functools.cache
def sources() -> Sources:
    """Return the sources as they are now: they do not change while they are checked."""
    return Sources()


def stale(files: Iterable[Path]) -> dict[str, str]:
    """Return the files of tests that are not proven, with their keys."""
    found = {}
    for file in files:
        key = digest("tests", sources().test(file))
        if not proven(key):
            found[file.relative_to(ROOT).as_posix()] = key
    return found


def tests(name: str, folders: str, limit: float, *options: str) -> Step | None:
    """Return the step that runs what is not proven, None if all is."""
    patterns = ("test_*.py", "ch[0-9][0-9].py", "lab[0-9][0-9].py")
    found = {
        file
        for folder in folders.split()
        for pattern in patterns
        for file in (ROOT / "tests" / folder).glob(pattern)
    }
    apart = {ROOT / name for name in (*JUDGES, PAGE_CANARIES, DOORS)}
    files = sorted(found - apart)
    todo = stale(files)
    print(f"--- {name}: {len(todo)} of {len(files)} files are to be run", flush=True)
    if not todo:
        return None
    if len(todo) > 1:
        # Texts that a file of lints has read serve all of its tests.
        dist = "loadfile" if name == "manuscript" else "worksteal"
        options = (*options, f"-n{WORKERS}", f"--dist={dist}")
    if len(todo) < len(files):
        # Of a part of the tests the coverage says nothing.
        options = tuple(option for option in options if option not in COVERAGE)
    # Three seconds a process, which only notebooks need.
    command = pytest("-p", "no:nbval", *todo, *options)
    return Step(name, command, limit, todo)


def unless_same(name: str, command: list[str], limit: float, *read: str) -> Step | None:
    """Return a step, None if it has passed on these very files, pins and Python."""
    files = digest_of(ROOT, *read, "pyproject.toml", "requirements.lock")
    key = digest(name, *command[1:], files, f"{sys.version_info[:2]}")
    return None if proven(key) else Step(name, command, limit, {}, (key,))


def notebooks() -> Step | None:
    """Return the step that runs by nbval the notebooks whose cells may have changed."""
    keys, version = {}, digest_of(ROOT, "crlib/version.py")
    for page in run.pages():
        unit = Unit.of(page)
        name = f"chapters/{unit.notebook}.ipynb" if unit else ""
        if name and (ROOT / name).exists():
            key = digest("nbval", sources().page(page), version)
            if not proven(key):
                keys[name] = key
    print(f"--- notebooks: {len(keys)} are to be run", flush=True)
    if not keys:
        return None
    options = ["--nbval-lax", "--nbval-current-env", f"-n{WORKERS}", "--dist=loadfile"]
    command = pytest(*options, "--nbval-cell-timeout=600", *keys)
    return Step("notebooks", command, 3600, {}, tuple(keys.values()))


def doors() -> Step | None:
    """Return the step that grades the assignments that may have changed."""
    fixed, keys = sources().test(ROOT / DOORS), {}
    for page in filter(Unit.of, run.pages()):
        key = digest("doors", fixed, *sources().asked(page))
        if not proven(key):
            keys[page.stem] = key
    print(f"--- doors: {len(keys)} units are to be graded", flush=True)
    if not keys:
        return None
    wanted = [f"--page={name}" for name in keys]
    # A worker takes as long to start as to grade a unit.
    several = [f"-n{WORKERS}"] if len(keys) > 2 else []
    command = pytest("-p", "no:nbval", DOORS, *wanted, *several)
    return Step("doors", command, 1800, {}, tuple(keys.values()))


def pages() -> Step | None:
    """Return the step that opens the pages whose HTML changed."""
    html = ROOT / "_build" / "html"
    judges = [sources().test(ROOT / name) for name in JUDGES]
    fixed = digest(*judges, digest_of(html, "_static"))
    keys = {
        page.stem: digest("page", fixed, page.read_bytes())
        for page in sorted(html.glob("book/*.html"))
    }
    keys = {name: key for name, key in keys.items() if not proven(key)}
    files = stale([ROOT / PAGE_CANARIES])
    print(f"--- pages: {len(keys)} are to be opened", flush=True)
    if not keys and not files:
        return None
    wanted = [*JUDGES, *(f"--page={name}" for name in keys)] if keys else []
    command = pytest(*files, *wanted, f"-n{WORKERS}")
    return Step("pages", command, 3600, files, tuple(keys.values()))


def printed() -> Step | None:
    """Return the step that writes the book for print, which needs no LaTeX."""
    keys = [sources().page(page) for page in run.pages()]
    key = digest("print", build.made_of(ROOT, ROOT / "_config.yml", keys))
    if proven(key):
        return None
    return Step("print", python("book._tools.pdf", "--written"), 1800, {}, (key,))


def find_browser() -> bool:
    """Tell the page tests which browser to use; False if a required one is missing."""
    browser = chromium.install()
    if browser:
        os.environ["CHROMIUM"] = browser
        return True
    print("No Chromium found and none could be installed: browser tests are SKIPPED.")
    return os.environ.get("CI", "").lower() != "true"


def steps(quick: bool) -> list[tuple[str, Callable[[], Step | None]]]:
    """Return the steps, cheapest first; each says what it runs when its turn comes."""
    found: list[tuple[str, Callable[[], Step | None]]] = [
        ("style", lambda: Step("style", python("ruff", "check", "."), 300)),
        ("types", lambda: unless_same("types", python("mypy"), 900, "crlib")),
        (
            "types of the tools",
            lambda: unless_same("types of the tools", TYPES, 900, "crlib", *TOOLS),
        ),
        ("tools", lambda: tests("tools", "tools", 1800)),
        ("manuscript", lambda: tests("manuscript", "book", 1800)),
        ("library", lambda: tests("library", "unit theory gpu", 3600, *COVERAGE)),
        ("examples", lambda: unless_same("examples", EXAMPLES, 600, "crlib")),
        ("units", lambda: tests("units", "units", 5400)),
        ("doors", doors),
    ]
    if quick:
        return found
    return [
        *found,
        ("canaries", lambda: tests("canaries", "canary", 1800)),
        ("notebooks", notebooks),
        ("book", lambda: Step("book", python("book._tools.build"), 3600)),
        ("pages", pages),
        ("print", printed),
    ]


def dearest() -> None:
    """Print the cells that took most, of the pages whose outputs are at hand."""
    cells = []
    for page in run.pages():
        known = run.at_hand(sources().page(page))
        if known:
            cells += [(s, f"book/{page.name}:{n}") for n, s, _ in known.cells]
    print("The five dearest cells, in seconds of one core:")
    for seconds, place in sorted(cells, reverse=True)[:5]:
        print(f"  {seconds:5.1f}  {place}")


def summary(counts: Counter[str], seconds: float) -> str:
    """Return the totals in the form of pytest's own last line."""
    order = ("failed", "passed", "skipped")
    told = ", ".join(f"{counts[name]} {name}" for name in order if counts[name])
    return f" {told or 'nothing to run: all is proven'} in {seconds:.2f}s ".center(
        80, "="
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no pages, no canaries")
    quick = parser.parse_args(arguments).quick
    began = time.perf_counter()
    counts: Counter[str] = Counter()
    faults: list[Fault] = []
    built = True
    for name, prepare in steps(quick):
        start = time.perf_counter()
        if name in ("pages", "print") and not built:
            print(f"--- {name}: left out, since the book is not built")
            continue
        if name == "pages" and not find_browser():
            faults.append(
                Fault(name, "CI needs a Chromium", "apt-get install chromium")
            )
            counts["failed"] += 1
            continue
        step = prepare()
        if step is None:
            continue
        outcome = perform(step)
        counts += outcome.counts
        faults += outcome.faults
        built &= not (name == "book" and outcome.status)
        verdict = "FAILED" if outcome.faults else "passed"
        print(f"--- {name}: {verdict}, {time.perf_counter() - start:.0f} s", flush=True)
    if not quick:
        dearest()
    if faults:
        print(f"\n{len(faults)} faults, each with the command that repeats it:")
    for fault in faults:
        print(f"\n* {fault.what}\n  {fault.said}\n  {fault.repeat}")
    print(summary(counts, time.perf_counter() - began), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
