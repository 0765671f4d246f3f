"""Make the student edition: the book without its solutions and hidden tests.

    python -m book._tools.student [--out assignments/student] [--pages] [--root .]

writes ``notebooks/``, one for each chapter and lab; with ``--pages`` also ``pages/``,
the book as HTML. The pages show the outputs of the whole book, which runs first if it
has not. What was made is searched for what students must not see (``leaks``).
"""

import argparse
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nbformat

from book._tools import build, leaks, manuscript, notebooks
from book._tools import run as runs
from book._tools.depends import Sources
from book._tools.manuscript import ManuscriptError
from book._tools.notebooks import Book

_SOLUTION = r"^```\{solution-start\}.*?^```\{solution-end\}\n```\n"
_HIDDEN = r"^```\{code-cell\}[^\n]*\n:tags: \[[^\]]*hidden-test[^\]]*\]\n.*?^```\n"
SECRET = re.compile(f"(?ms){_SOLUTION}|{_HIDDEN}")


def write(book: Book, out: Path) -> list[Path]:
    """Write the notebooks without solutions; return them."""
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for unit in book.chapters:
        assert unit.unit
        without = replace(unit, blocks=notebooks.apart(unit.blocks)[0])
        notebook = notebooks.Derivation(book, without).notebook()
        files.append(out / f"{unit.unit.notebook}.ipynb")
        text = nbformat.writes(notebook, indent=1) + "\n"
        files[-1].write_text(text, encoding="utf-8")
    return files


def pages(root: Path, work: Path) -> Path | None:
    """Build the pages; return their folder, None if that failed.

    Args:
        root: the repository.
        work: a folder of our own, where the manuscript without its secrets is put.

    Raises:
        ManuscriptError: something secret has a form that is not known here.
    """
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(root / "book", work / "book", ignore=build_files)
    for file in (*root.glob("*.md"), *root.glob("*.yml")):
        shutil.copy(file, work)
    whole = runs.pages(root)
    sources = Sources()
    found, failed = build.outputs(whole, [sources.page(page) for page in whole])
    if failed:
        return None
    shown = {}
    for page, ran in found.items():
        file = work / "book" / page.name
        file.write_text(SECRET.sub("", page.read_text("utf-8")), encoding="utf-8")
        blocks = leaks.owned(manuscript.read(page))
        secret = [bool(label) for block, label in blocks if block.kind == "cell"]
        cells = zip(ran.cells, secret, strict=True)
        kept = [cell for cell, hidden in cells if not hidden]
        if len(kept) != len(manuscript.read(file).cells):
            raise ManuscriptError(page, 0, "a solution or hidden test is left")
        shown[file] = replace(ran, cells=kept)
    (work / "_build").mkdir()
    build.hand_over(work, shown)
    own = work / "_config.yml"
    status = build.sphinx(work, own if own.exists() else build.ROOT / "_config.yml")
    return None if status else work / "_build" / "html"


def build_files(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("__pycache__", "_tools")]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("assignments/student"))
    parser.add_argument("--pages", action="store_true", help="the book as HTML, too")
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository")
    options = parser.parse_args(arguments)
    try:
        book = notebooks.load(options.root)
        write(book, options.out / "notebooks")
        if options.pages:
            html = pages(options.root.resolve(), options.out.resolve() / "work")
            if html is None:
                print("The pages are NOT built: see above.", file=sys.stderr)
                return 1
            shutil.rmtree(options.out / "pages", ignore_errors=True)
            shutil.move(html, options.out / "pages")
            shutil.rmtree(options.out / "work")
    except ManuscriptError as error:
        print(error, file=sys.stderr)
        return 1
    given = leaks.found([options.out], leaks.secrets(book))
    print(*given, sep="\n", end="\n" if given else "")
    print(f"The student edition is in {options.out}.")
    return 1 if given else 0


if __name__ == "__main__":
    sys.exit(main())
