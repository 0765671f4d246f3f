"""Run every check, cheapest first, and stop at the first that fails.

The last line is a pytest summary that adds up all pytest runs.
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from book._tools import chromium

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("book/_tools", "book/_ext")
LIMITS = "tests/book/test_limits.py"
PAGE_TESTS = [
    "tests/book/test_pages.py",
    "tests/book/test_browser.py",
    "tests/canary/test_page_canaries.py",
]
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)")


def pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", *arguments]


def steps() -> list[tuple[str, list[str]]]:
    python = sys.executable
    return [
        ("style", [python, "-m", "ruff", "check", "."]),
        ("types of crlib", [python, "-m", "mypy"]),
        ("types of the tools", [python, "-m", "mypy", "--explicit-package-bases", *TOOLS]),
        (
            "unit tests and exercises with coverage",
            pytest(
                "tests/unit",
                "tests/theory",
                "tests/exercises",
                "tests/gpu",
                "-n2",
                "--cov=crlib",
                "--cov-branch",
                "--cov-report=term-missing:skip-covered",
                "--cov-fail-under=95",
            ),
        ),
        (
            "canaries, manuscript",
            pytest(
                "tests/canary",
                "tests/book",
                "-n2",
                *(f"--ignore={path}" for path in (LIMITS, *PAGE_TESTS)),
            ),
        ),
        (
            "notebooks",
            pytest(
                "-p",
                "book._tools.nbval_plugin",
                "--nbval-lax",
                "--nbval-current-env",
                "-n2",
                "--dist=loadfile",
                "--nbval-cell-timeout=120",
                "chapters",
            ),
        ),
        ("book", [python, "-m", "book._tools.build"]),
        ("limits of time and memory", pytest(LIMITS)),
        ("pages", pytest(*PAGE_TESTS, "-n2")),
    ]


def run(command: list[str], totals: Counter[str]) -> int:
    """Run a step, show its output as it comes, add up what pytest counts."""
    # One thread a process: two workers on two cores gain nothing from more.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    last = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if re.search(r" in [\d.]+s", line) and COUNT.search(line):
                last = line
    for number, outcome in COUNT.findall(last):
        totals[outcome] += int(number)
    return process.returncode


def find_browser() -> bool:
    """Tell the page tests which browser to use; False if a required one is missing."""
    browser = chromium.install()
    if browser:
        os.environ["CHROMIUM"] = browser
        return True
    print("No Chromium found and none could be installed: browser tests are SKIPPED.")
    return os.environ.get("CI", "").lower() != "true"


def summary(totals: Counter[str], seconds: float) -> str:
    """Return the totals in the form of pytest's own last line."""
    order = ("failed", "error", "errors", "passed", "skipped", "xfailed", "xpassed")
    counts = ", ".join(f"{totals[name]} {name}" for name in order if totals[name])
    return f" {counts or 'no tests ran'} in {seconds:.2f}s ".center(80, "=")


def main() -> int:
    totals: Counter[str] = Counter()
    began = time.perf_counter()
    for name, command in steps():
        print(f"--- {name}", flush=True)
        start = time.perf_counter()
        if name == "pages" and not find_browser():
            totals["failed"] += 1
            status = 1
        else:
            status = run(command, totals)
        verdict = "FAILED" if status else "passed"
        print(f"--- {name}: {verdict}, {time.perf_counter() - start:.0f} s", flush=True)
        if status:
            if not (totals["failed"] or totals["error"] or totals["errors"]):
                totals["failed"] += 1
            print(summary(totals, time.perf_counter() - began), flush=True)
            return 1
    print(summary(totals, time.perf_counter() - began), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
