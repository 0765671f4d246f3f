"""Build the pages of the book: ``python -m book._tools.build [folder]``.

First the pages run, two at once, or their outputs are at hand; then Sphinx makes HTML.
A folder without its own ``_config.yml`` is built with the one of this book, so that a
small book in a temporary folder goes through the same gate. Any warning is a failure.
The whole log is in ``_build/build.log``.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TextIO

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

from book._tools import cache, plans
from book._tools import run as runs
from book._tools.depends import ROOT, Sources, digest, digest_of
from book._tools.units import units

HOME = "html/index.html"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TROUBLE = re.compile(r"WARNING|ERROR|CRITICAL|^[\w. ]*([Ee]rror|Exception)\b.*: *\S")
# Sphinx finds every output. Where it does not, it would run the page once more.
RUNS = re.compile(r"(?P<file>\S+)\.md: Executing notebook")


def made_of(folder: Path, config: Path, keys: list[str]) -> str:
    """Return a digest of all that decides what the pages look like."""
    pages = (".md", ".ipynb", ".yml", ".bib")
    manuscript = [path.name for path in folder.iterdir() if path.suffix in pages]
    return digest(
        digest_of(folder, "book", *sorted(manuscript)),
        digest_of(ROOT, "book/_ext", "book/_static", "book/_tools"),
        digest_of(ROOT, "crlib", "requirements.lock"),
        # The session plans tell them.
        *(str(plans.mistakes(ROOT, unit.name)) for unit in units(ROOT)),
        digest_of(config.parent, config.name),
        *keys,
    )


def forget(build: Path) -> None:
    """Drop the pages.

    Sphinx warns only about the pages it works on: a page that was faulty, or whose
    target went away elsewhere, would pass untouched. Reading all is cheap.
    """
    for name in (".doctrees", "html"):
        shutil.rmtree(build / name, ignore_errors=True)
    build.mkdir(parents=True, exist_ok=True)
    (build / "made-of.txt").unlink(missing_ok=True)


def outputs(pages: list[Path], keys: list[str]) -> tuple[dict[Path, runs.Run], int]:
    """Run pages or find their outputs; return these, and how many pages failed."""
    found: dict[Path, runs.Run] = {}
    missing = []
    for page, key in zip(pages, keys, strict=True):
        known = runs.at_hand(key)
        if known is None:
            missing.append(page)
        else:
            found[page] = known
    if found:
        print(f"  outputs at hand: {len(found)} of {len(pages)} pages", flush=True)
    # Fresh interpreters: a fork would inherit locks that somebody holds.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh) as pool:
        jobs = {pool.submit(runs.outputs, page): page for page in missing}
        failed = 0
        for job in as_completed(jobs):
            page = jobs[job]
            try:
                found[page] = job.result()
                print(f"  {page.stem}: {found[page].seconds:.1f} s", flush=True)
            except runs.PageError as error:
                failed += 1
                print(COLOUR.sub("", str(error)), flush=True)
    return found, failed


def hand_over(folder: Path, found: dict[Path, runs.Run]) -> None:
    """Put outputs where Sphinx looks for them."""
    place = folder / "_build" / ".jupyter_cache"
    shutil.rmtree(place, ignore_errors=True)
    outputs = get_cache(str(place))
    for page, ran in found.items():
        bundle = CacheBundleIn(
            runs.filled(page, ran), str(page), data={"execution_seconds": ran.seconds}
        )
        outputs.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    claims = {page.stem: ran.claims for page, ran in sorted(found.items())}
    (folder / "_build" / "claims.json").write_text(json.dumps(claims, indent=1))


def sphinx(folder: Path, config: Path, builder: str = "html") -> int:
    """Make HTML, or LaTeX; log everything, show trouble; return the status."""
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
        "--builder",
        builder,
        "-W",
        "-n",
        "--keep-going",
    ]
    with (folder / "_build" / "build.log").open("w", encoding="utf-8") as log:
        return follow(book, log)


def follow(command: list[str], log: TextIO) -> int:
    """Run a command, log what it says, and show what a person must know."""
    shown = set()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
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
            wanted = TROUBLE.search(line) or RUNS.search(line)
            if wanted and line not in shown:
                shown.add(line)
                print(f"  {line}", flush=True)
    return process.returncode


def build(folder: Path) -> int:
    """Build the book in ``folder``; return 0 when nothing at all is wrong."""
    folder = folder.resolve()
    config = folder / "_config.yml"
    if not config.exists():
        config = ROOT / "_config.yml"
    started = time.perf_counter()
    print(f"Building the book in {folder}", flush=True)
    cache.trim()
    sources = Sources()
    pages = runs.pages(folder)
    keys = [sources.page(page) for page in pages]
    made = made_of(folder, config, keys)
    stamp, index = (folder / "_build" / name for name in ("made-of.txt", HOME))
    if index.exists() and stamp.exists() and stamp.read_text() == made:
        print(f"Nothing has changed. Open {index.as_uri()}")
        return 0
    forget(folder / "_build")
    found, failed = outputs(pages, keys)
    if failed:
        print(f"The book is NOT built: {failed} of {len(pages)} pages did not run.")
        return 1
    hand_over(folder, found)
    status = sphinx(folder, config)
    seconds = time.perf_counter() - started
    if status or not index.exists():
        log = folder / "_build" / "build.log"
        print(f"The book is NOT built ({seconds:.0f} s). Everything is in {log}")
        return status or 1
    stamp.write_text(made)
    count = len(list(index.parent.glob("book/*.html")))
    print(f"Built {count} pages in {seconds:.0f} s.")
    print(f"Open {index.as_uri()}")
    print("or run `make serve` and open http://localhost:8000")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the pages of the book.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    return build(parser.parse_args().folder)


if __name__ == "__main__":
    sys.exit(main())
