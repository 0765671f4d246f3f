"""Build the pages of the book: ``python -m book._tools.build [folder]``.

A folder without its own ``_config.yml`` is built with the one of this book, so that a
small book in a temporary folder goes through the same gate. Any warning is a failure.
The whole log is in ``_build/build.log``.
"""

import argparse
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
# Networks this small gain nothing from more than one thread.
KERNEL = {"CRLIB_BOOK": "1", "OMP_NUM_THREADS": "1"}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
EVENT = re.compile(
    r"(?P<file>\S+\.(?:md|ipynb)): (?P<what>Execut\S+|Using) (?P<rest>.*)"
)
AHEAD = re.compile(
    r"(?P<what>Executing|Execution Successful): \S*?(?P<name>[\w-]+)\.md$"
)
SECONDS = re.compile(r"in ([\d.]+) seconds")
TROUBLE = re.compile(r"WARNING|ERROR|CRITICAL|^[\w. ]*([Ee]rror|Exception)\b.*: *\S")
# What a kernel prints as it starts, and the wrappers around the error of a cell.
NOISE = re.compile(r"\[IPKernelApp\]|nbclient\S+CellExecutionError|myst_nb\S+Error")


def digest(base: Path, *names: str) -> str:
    """Return a hash of the named files and folders, with their places in ``base``."""
    total = hashlib.sha256()
    for name in names:
        place = base / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(path.relative_to(base).as_posix().encode())
                total.update(path.read_bytes())
    return total.hexdigest()


def fingerprints(folder: Path, config: Path) -> tuple[str, str]:
    """Return what the outputs of cells depend on, and what the pages depend on."""
    profile = os.environ.get("CRLIB_PROFILE", "quick")
    library = digest(ROOT, "crlib", "benchmarks/results", "requirements.lock")
    computed = f"{library} {sys.version_info[:2]} {profile}"
    pages = (".md", ".ipynb", ".yml", ".bib")
    manuscript = [path.name for path in folder.iterdir() if path.suffix in pages]
    made = (
        digest(folder, "book", *sorted(manuscript))
        + digest(ROOT, "book/_ext", "book/_static")
        + digest(config.parent, config.name)
    )
    return computed, made


def forget_what_is_stale(build: Path, computed: str, made: str) -> None:
    """Drop outputs that another crlib computed, and pages unless nothing changed.

    The execution cache knows the text of the cells, not the library they import. And
    Sphinx warns only about the pages it works on: a page that was faulty, or whose
    target went away elsewhere, would pass untouched. Reading all is cheap.
    """
    stamp = build / "made-with.txt"
    old = stamp.read_text().splitlines() if stamp.exists() else []
    if old[:1] != [computed]:
        shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
        (build / "peak.txt").unlink(missing_ok=True)
    if old != [computed, made]:
        shutil.rmtree(build / ".doctrees", ignore_errors=True)
        shutil.rmtree(build / "html", ignore_errors=True)
    build.mkdir(parents=True, exist_ok=True)
    stamp.write_text(f"{computed}\n")


def progress(line: str) -> str | None:
    """Return what a person waits for: pages that run, and whatever is wrong."""
    ahead = AHEAD.search(line)
    if ahead:
        state = "running" if ahead["what"] == "Executing" else "done"
        return f"{ahead['name']}: {state}"
    event = EVENT.search(line)
    if event:
        name = Path(event["file"]).stem
        seconds = SECONDS.search(event["rest"])
        if event["what"] == "Executing":
            return f"{name}: running"
        if event["what"] == "Executed" and seconds:
            return f"{name}: {float(seconds[1]):.1f} s"
        if event["what"] == "Using":
            return f"{name}: outputs at hand"
    if TROUBLE.search(line) and not NOISE.match(line):
        return line
    return None


def run(folder: Path, config: Path) -> int:
    """Run the pages, then build; log everything, show progress; return the status."""
    # The kernel must be this interpreter's, with this interpreter's crlib.
    environment = os.environ | KERNEL
    environment |= {
        "PYTHONUNBUFFERED": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "NO_COLOR": "1",
    }
    ahead = [sys.executable, "-m", "book._tools.execute"]
    ahead += [str(folder), str(timeout(config))]
    book = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(folder),
        "--path-output",
        str(folder),
        "--config",
        str(config),
        "-W",
        "-n",
        "--keep-going",
    ]
    with (folder / "_build" / "build.log").open("w", encoding="utf-8") as log:
        # A page that fails ahead of the build fails in it again, and is reported there.
        # Pages that are still standing were made from what is there now.
        if not (folder / "_build" / "html").exists():
            follow(ahead, environment, log, quiet=True)
            record_peak(folder / "_build" / "peak.txt")
        return follow(book, environment, log)


def record_peak(file: Path) -> None:
    """Write the megabytes of the largest process so far, and in builds before.

    Asked between the run of the pages and Sphinx, that is a kernel.
    """
    # Kilobytes on Linux, bytes on macOS.
    unit = 1e6 if sys.platform == "darwin" else 1e3
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    before = float(file.read_text()) if file.exists() else 0.0
    file.write_text(f"{max(peak, before):.0f}\n")


def timeout(config: Path) -> int:
    """Return the seconds that the configuration gives to a cell."""
    found = re.search(r"^  timeout: (\d+)$", config.read_text(), re.MULTILINE)
    return int(found[1]) if found else 30


def follow(
    command: list[str], environment: dict[str, str], log: TextIO, *, quiet: bool = False
) -> int:
    """Run a command, log what it says, and show what a person waits for."""
    shown = set()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = COLOUR.sub("", raw).rstrip()
            log.write(line + "\n")
            text = progress(line)
            wanted = AHEAD.search(line) if quiet else text
            if text and wanted and text not in shown:
                shown.add(text)
                print(f"  {text}", flush=True)
    return process.returncode


def build(folder: Path) -> int:
    """Build the book in ``folder``; return 0 when nothing at all is wrong."""
    folder = folder.resolve()
    config = folder / "_config.yml"
    if not config.exists():
        config = ROOT / "_config.yml"
    started = time.perf_counter()
    print(f"Building the book in {folder}", flush=True)
    computed, made = fingerprints(folder, config)
    forget_what_is_stale(folder / "_build", computed, made)
    status = run(folder, config)
    index = folder / "_build" / "html" / "index.html"
    seconds = time.perf_counter() - started
    if status or not index.exists():
        log = folder / "_build" / "build.log"
        print(f"The book is NOT built ({seconds:.0f} s). Everything is in {log}")
        return status or 1
    (folder / "_build" / "made-with.txt").write_text(f"{computed}\n{made}\n")
    pages = len(list(index.parent.glob("book/*.html")))
    print(f"Built {pages} pages in {seconds:.0f} s.")
    print(f"Open {index.as_uri()}")
    print("or run `make serve` and open http://localhost:8000")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the pages of the book.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    return build(parser.parse_args().folder)


if __name__ == "__main__":
    sys.exit(main())
