"""Print the book: ``python -m book._tools.pdf`` makes ``_build/latex/book.pdf``.

The pages run, or their outputs are at hand, as for the pages; then Sphinx writes LaTeX,
and latexmk sets it. Proofs and solutions stand open; a slider shows one frame; code
that a page folds is left out. Whatever the manuscript has and the LaTeX lacks is a
fault, and so is a number that differs from that of the pages.

With ``--written`` nothing is set: the LaTeX is written and counted, which needs none.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from book._tools import build, manuscript, notebooks
from book._tools import run as runs
from book._tools.depends import ROOT, Sources
from book._tools.manuscript import Manuscript
from book._tools.units import Unit

# Points that a line may stick out: less nobody sees.
OVERFULL = 3.0
MISSING = """There is no {tool}: on Debian, apt-get install texlive-xetex \
texlive-latex-extra texlive-fonts-recommended texlive-plain-generic latexmk \
fonts-freefont-otf fonts-dejavu-core tex-gyre"""


# A chapter of the LaTeX, with the page it was made from.
CHAPTER = re.compile(
    r"\\chapter\{(?:[^{}]|\{[^{}]*\})*\}\s*\\label\{\\detokenize\{(?P<page>[^}:]+)[:}]"
)
# Of a proof sphinx-proof writes no title, and LaTeX would take what follows for one.
PROOF = re.compile(
    r"(?P<open>\\begin\{sphinxadmonition\}\{note\})\n(?P<start>\\sphinxAtStartPar\n)"
    r"(?:Proof\. |\\sphinxstylestrong\{Proof\}\s*\\sphinxAtStartPar\n)"
)
ENTITLED = r"\g<open>{Proof}\n\g<start>"


def numbered(tex: str) -> str:
    """Give each chapter of the LaTeX the number of its unit, other pages none.

    And each proof its title.
    """

    def before(match: re.Match[str]) -> str:
        unit = Unit.of(match["page"])
        if unit is None:
            return "\\crpage\n" + match[0]
        return f"\\crunit{{{unit.rules.word.title()}}}{{{unit.label}}}\n" + match[0]

    tex = PROOF.sub(ENTITLED, CHAPTER.sub(before, tex))
    return tex.replace("\\part{", "\\crpart\\part{")


def missing(
    tex: str, books: list[Manuscript], numbers: dict[str, str]
) -> Iterator[str]:
    """Yield what the manuscript has and the LaTeX lacks.

    Args:
        tex: the LaTeX, its chapters numbered.
        books: the units.
        numbers: the number of each label on the pages, such as Fig. 2.1.
    """
    for book in books:
        name, blocks = book.path.stem, list(manuscript.walk(book.blocks))
        if tex.count(f"{{{book.number}}}\n\\chapter") != 1:
            yield f"{name}: no chapter numbered {book.number}"
        figures = [str(cell.figure["name"]) for cell in book.cells if cell.figure]
        figures += [str(b.label) for b in blocks if b.name == "explore"]
        for figure in figures:
            if f"\\label{{\\detokenize{{book/{name}:{figure}}}}}" not in tex:
                yield f"{name}: no figure {figure}"
        for block in blocks:
            stated = block.name.startswith(("prf:", "exercise-start"))
            if stated and block.label and block.name != "prf:proof":
                head = f"{{note}}{{{numbers[block.label]}"
                if not re.search(re.escape(head) + r"[ }]", tex):
                    yield f"{name}: no {numbers[block.label]}, {block.label}"
    for what, found, wanted in (
        ("proofs", tex.count("{note}{Proof}"), "prf:proof"),
        ("solutions", tex.count("{note}{Solution to "), "solution-start"),
    ):
        every = (b for book in books for b in manuscript.walk(book.blocks))
        count = sum(block.name == wanted for block in every)
        if found != count:
            yield f"{found} {what}, and the manuscript has {count}"


def misnumbered(aux: str, numbers: dict[str, str]) -> Iterator[str]:
    """Yield the labels to which LaTeX gave another number than the pages have.

    Args:
        aux: what LaTeX wrote about its labels.
        numbers: as in :func:`missing`.
    """
    written = re.compile(
        r"\\newlabel\{(?:equation:)?(?:\\detokenize \{)?(?:equation:)?"
        r"book/\w+:(?P<label>[\w-]+)\}+\{\{(?P<number>[^}]*)\}"
    )
    seen = 0
    for match in written.finditer(aux):
        known = re.search(r"(?:Fig\. |\()([\w.]+)", numbers.get(match["label"], ""))
        seen += known is not None
        if known and known[1] != match["number"]:
            label, number = match["label"], match["number"]
            yield f"{label}: {number} in print, {known[1]} on the page"
    if not seen:
        yield "LaTeX numbered no figure and no equation"


def overfull(log: str, limit: float = OVERFULL) -> Iterator[str]:
    """Yield each line of a LaTeX log about a line that sticks out further."""
    for match in re.finditer(r"Overfull \\hbox \(([\d.]+)pt too wide\)[^\n]*", log):
        if float(match[1]) > limit:
            yield match[0]


def lacking(log: str) -> Iterator[str]:
    """Yield each character that a font lacks, once."""
    found = re.findall(r"Missing character: (There is no [^\n]*)", log)
    yield from sorted(set(found))


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


def write(folder: Path) -> list[str] | None:
    """Write the LaTeX into a folder; return what it lacks, None if that failed."""
    sources, pages = Sources(), runs.pages(ROOT)
    (ROOT / "_build").mkdir(exist_ok=True)
    found, failed = build.outputs(pages, [sources.page(page) for page in pages])
    if failed:
        print(f"{failed} of {len(pages)} pages did not run.")
        return None
    build.hand_over(ROOT, found)
    shutil.rmtree(folder, ignore_errors=True)
    if build.sphinx(ROOT, ROOT / "_config.yml", "latex"):
        return None
    tex = numbered((folder / "book.tex").read_text(encoding="utf-8"))
    (folder / "book.tex").write_text(tex, encoding="utf-8")
    return list(missing(tex, manuscript.chapters(ROOT), notebooks.labels(ROOT)))


def judge(folder: Path) -> list[str]:
    """Return the faults of the print that latexmk has set in a folder."""
    log = (folder / "book.log").read_text(encoding="utf-8", errors="replace")
    aux = (folder / "book.aux").read_text(encoding="utf-8", errors="replace")
    return [
        *(f"sticks out: {line}" for line in overfull(log)),
        *lacking(log),
        *misnumbered(aux, notebooks.labels(ROOT)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the book.")
    parser.add_argument("--written", action="store_true", help="set nothing")
    only = parser.parse_args().written
    lost = next((t for t in ("latexmk", "xelatex") if not shutil.which(t)), None)
    if lost and not only:
        print(MISSING.format(tool=lost))
        return 1
    started, folder = time.perf_counter(), ROOT / "_build" / "latex"
    faults = write(folder)
    if faults is None:
        print(f"The book is NOT printed. See {ROOT / '_build' / 'build.log'}")
        return 1
    if not only:
        status = typeset(folder)
        if status:
            print(f"The book is NOT printed. Everything is in {folder}")
            return status
        faults += judge(folder)
    for fault in faults:
        print(f"  {fault}")
    done = "written and counted, not set" if only else "printed"
    seconds = time.perf_counter() - started
    print(f"{folder}: {done} in {seconds:.0f} s, {len(faults)} faults.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
