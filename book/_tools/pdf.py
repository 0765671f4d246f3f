"""Print the book: ``python -m book._tools.pdf`` makes ``_build/latex/book.pdf``.

The pages run, or their outputs are at hand, as for the pages; then Sphinx writes LaTeX,
and latexmk sets it. Proofs and solutions stand open; a slider shows one frame.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from book._tools import build
from book._tools import run as runs
from book._tools.depends import ROOT, Sources

# Points that a line may stick out: less nobody sees.
OVERFULL = 3.0
MISSING = """There is no {tool}: on Debian, apt-get install texlive-xetex \
texlive-latex-extra texlive-fonts-recommended texlive-plain-generic latexmk \
fonts-freefont-otf xindy tex-gyre"""


def overfull(log: str, limit: float = OVERFULL) -> Iterator[str]:
    """Yield each line of a LaTeX log about a line that sticks out further."""
    for match in re.finditer(r"Overfull \\hbox \(([\d.]+)pt too wide\)[^\n]*", log):
        if float(match[1]) > limit:
            yield match[0]


def typeset(folder: Path) -> int:
    """Set the LaTeX in a folder; return the status of latexmk."""
    command = ["latexmk", "-xelatex", "-interaction=nonstopmode", "-quiet", "book.tex"]
    environment = os.environ | {"LATEXOPTS": "", "max_print_line": "1000"}
    ran = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "latexmk.log").write_text(ran.stdout + ran.stderr, encoding="utf-8")
    return ran.returncode


def main() -> int:
    for tool in ("latexmk", "xelatex"):
        if not shutil.which(tool):
            print(MISSING.format(tool=tool))
            return 1
    started, sources, pages = time.perf_counter(), Sources(), runs.pages(ROOT)
    (ROOT / "_build").mkdir(exist_ok=True)
    found, failed = build.outputs(pages, [sources.page(page) for page in pages])
    if failed:
        print(f"The book is NOT printed: {failed} of {len(pages)} pages did not run.")
        return 1
    build.hand_over(ROOT, found)
    folder = ROOT / "_build" / "latex"
    shutil.rmtree(folder, ignore_errors=True)
    status = build.sphinx(ROOT, ROOT / "_config.yml", "latex") or typeset(folder)
    if status:
        print(f"The book is NOT printed. Everything is in {folder}")
        return status
    log = (folder / "book.log").read_text(encoding="utf-8", errors="replace")
    wide = list(overfull(log))
    for line in wide:
        print(f"  {line}")
    print(f"Printed {folder / 'book.pdf'} in {time.perf_counter() - started:.0f} s.")
    print(f"{len(wide)} lines stick out by more than {OVERFULL} points.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
