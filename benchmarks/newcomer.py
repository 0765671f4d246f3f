"""Walk the way of a newcomer and time it: a fresh environment, three lines, a page.

    python benchmarks/newcomer.py [--minutes 10] [--source FOLDER]

A clone of the repository, a new virtual environment, ``pip install .``, and a script of
three lines that trains a small network and writes its report. Then the page is opened:
by Chromium or Chrome where there is one, else by a reader of HTML. Fails if a step
does, if the page lacks a section or asks another host for anything, or if it took
longer. It needs nothing but Python and git, and pip asks where its settings say.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = """\
from crlib import data, models, report, train; images = data.fashion_mnist_sample()
net = train.fit(models.MLP((784, 64, 10)), images, epochs=2).model
report(net, images.x_test[:200], images.y_test[:200]).html("report.html")
"""
SECTIONS = ("In words", "Distance to the boundary", "What compression would do")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Page(HTMLParser):
    """Notes headings, open tags, and what a page asks of others."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags, self.asked = "", list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        links = (v or "" for k, v in attrs if k in ("src", "href", "xlink:href"))
        self.asked += [v for v in links if not v.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.text += data


def faults(page: str) -> list[str]:
    """Return what is wrong with a page."""
    read = Page()
    read.feed(page)
    found = [f"no section {name!r}" for name in SECTIONS if name not in read.text]
    found += [f"it asks for {what}" for what in read.asked]
    if "svg" not in read.tags:
        found.append("no picture")
    return found + (["a script"] if "script" in read.tags else [])


def opened(file: Path) -> tuple[str, str]:
    """Return a page as a browser holds it, or as it is, and what opened it."""
    text = file.read_text(encoding="utf-8")
    names = [os.environ.get("CHROMIUM", ""), *BROWSERS]
    browser = next((found for n in names if n and (found := shutil.which(n))), None)
    if browser is None:
        return text, "a reader of HTML"
    call = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*call, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, Path(browser).name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="that it may take")
    parser.add_argument("--source", default=str(ROOT), help="what is cloned")
    args = parser.parse_args()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        python = str(home / "env" / "bin" / "python")
        (home / "mine.py").write_text(LINES, encoding="utf-8")
        steps = {
            "clone": ["git", "clone", "-q", "--depth", "1", f"file://{args.source}"],
            "environment": [sys.executable, "-m", "venv", "env"],
            "pip install .": [*(python, "-m", "pip", "install", "-q"), "./book"],
            "three lines": [python, "mine.py"],
        }
        steps["clone"].append("book")
        # What is at hand here must not stand in for what was installed.
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        for name, call in steps.items():
            started = time.perf_counter()
            subprocess.run(call, cwd=home, env=clean, check=True)
            seconds[name] = time.perf_counter() - started
        started = time.perf_counter()
        page, reader = opened(home / "report.html")
        seconds[f"the page opens in {reader}"] = time.perf_counter() - started
        wrong = faults(page)
    together = sum(seconds.values())
    for name, took in {**seconds, "together": together}.items():
        print(f"{took:7.1f} s  {name}")
    if together > 60 * args.minutes:
        wrong.append(f"it took {together / 60:.1f} minutes, more than {args.minutes:g}")
    print(*(re.sub(r"\s+", " ", fault) for fault in wrong), sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
