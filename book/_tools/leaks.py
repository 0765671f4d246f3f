"""Search what students get for solutions and hidden tests.

    python -m book._tools.leaks PLACE... [--root .]

A place is a file, a folder or a zip: notebooks with their metadata and outputs, built
pages with their search index and their sources, wheels. The book itself shows its
solutions; this is for what an instructor hands out (``assignment``, ``student``).

A line of a solution or of a hidden test, or a cell as a whole, is compared by its
letters and digits only. So markup, escapes and colours of syntax do not hide it. A line
that the book shows elsewhere, or that crlib holds, is no secret.
"""

import argparse
import ast
import html
import io
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from book._tools import notebooks
from book._tools.manuscript import Block, Manuscript
from book._tools.notebooks import Book

ZIPS = (".zip", ".whl")
PICTURES = (".png", ".jpg", ".svg", ".woff", ".woff2", ".ttf", ".ico", ".gz")
# Letters and digits: a shorter line, such as "return x", says nothing.
SHORTEST = 24


def squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def secrets(book: Book, *names: str, tests: bool = True) -> dict[str, frozenset[str]]:
    """Return the secret lines of units, squeezed, by ``unit, label``.

    Args:
        book: with the manuscripts and, beside them, the tests of the exercises.
        names: of units, such as ``"ch05"``; none for all.
        tests: whether hidden tests are secret; crlib itself holds them.
    """
    public = _public(book, tests)
    found = {}
    for unit in book.chapters:
        if unit.unit and (not names or unit.unit.name in names):
            for label, texts in _hidden(unit, tests).items():
                bodies = texts + [_test(book.root, text) for text in texts]
                lines = {line for body in bodies for line in _pieces(body)}
                secret = {line for line in lines if line not in public}
                found[f"{unit.unit.name}, {label}"] = frozenset(secret)
    return {what: lines for what, lines in found.items() if lines}


def _public(book: Book, tests: bool) -> str:
    """Return what is no secret, squeezed: the rest of the book, and crlib."""
    blocks = [
        f"{block.argument}\n{block.body}"
        for unit in book.chapters
        for block, label in owned(unit)
        if not label
    ]
    files = sorted((book.root / "crlib").rglob("*.py"))
    # crlib holds the tests; they are public where they are no secret.
    files = [f for f in files if not tests or "exercises" not in f.parts]
    return squeezed("".join([*blocks, *(f.read_text("utf-8") for f in files)]))


def owned(unit: Manuscript) -> Iterator[tuple[Block, str]]:
    """Yield each block with the exercise that it solves or tests; nothing elsewhere."""
    label = ""
    for block in unit.blocks:
        if block.name == "solution-start":
            label = block.argument
        elif block.name == "solution-end":
            label = ""
        elif "hidden-test" in block.tags:
            yield block, f"{block.tags[1]}, the hidden test"
        elif "wrong-answer" in block.tags:
            yield block, f"{block.tags[1]}, the wrong answer"
        else:
            yield block, label


def _hidden(unit: Manuscript, tests: bool) -> dict[str, list[str]]:
    """Return what a unit hides from students, by the label of the exercise."""
    found: dict[str, list[str]] = {}
    for block, label in owned(unit):
        if label and (tests or "hidden-test" not in block.tags):
            found.setdefault(label, []).append(block.body)
    return found


def _test(root: Path, cell: str) -> str:
    """Return the source of the hidden test that a cell calls, or nothing."""
    called = re.search(r"\b((?:ch|lab)\d\d)\.(\w+_hidden)\b", cell)
    file = root / "crlib" / "exercises" / f"{called[1]}.py" if called else root
    if called is None or not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8")
    tests = [node for node in ast.parse(text).body if _named(node) == called[2]]
    return "\n".join(ast.get_source_segment(text, test) or "" for test in tests)


def _named(node: ast.stmt) -> str:
    return node.name if isinstance(node, ast.FunctionDef) else ""


def _pieces(text: str) -> set[str]:
    """Return what of a text looks the same on a page and in a notebook, squeezed.

    Formulas and roles do not. A short text that has neither counts as a whole.
    """
    odd = r"\$[^$]*\$|\{[\w:]+\}`[^`]*`|\\\S*"
    lines = [p for line in text.splitlines() for p in re.split(odd, line)]
    whole = [] if re.search(odd, text) else [text]
    pieces = {squeezed(piece) for piece in [*lines, *whole]}
    return {piece for piece in pieces if len(piece) >= SHORTEST}


def found(
    places: Iterable[Path], known: Mapping[str, frozenset[str]], seed: int = 0
) -> list[str]:
    """Return one line for each secret that a place gives away.

    Args:
        places: files, folders or zips.
        known: what :func:`secrets` found.
        seed: of a course, if it has one. Of five digits and more it is found anywhere,
            else where a pack holds it.
    """
    # Of a JSON each key and each value is a line.
    number = rf"\b{seed}\b" if seed > 9999 else rf"(?m)^seed\n{seed}$"
    told = []
    for place in places:
        for name, text in texts(place):
            shown = squeezed(text)
            for what, lines in known.items():
                given = sorted(line for line in lines if line in shown)
                if given:
                    told.append(f"{name} gives away {what}: {given[0][:60]}...")
            if seed and re.search(number, text):
                told.append(f"{name} gives away the seed of the course.")
    return told


def texts(place: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file that can be read as text."""
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.is_file():
                yield from _texts(str(path), path.read_bytes())
    else:
        yield from _texts(str(place), place.read_bytes())


def _texts(name: str, raw: bytes) -> Iterator[tuple[str, str]]:
    if name.endswith(ZIPS):
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            for inner in packed.namelist():
                yield from _texts(f"{name}: {inner}", packed.read(inner))
    elif not name.endswith(PICTURES):
        if name.endswith(".inv"):
            # Sphinx packs its labels after four lines of words.
            raw = zlib.decompress(raw.split(b"\n", 4)[4])
        yield name, _plain(name, raw.decode(errors="replace"))


def _plain(name: str, text: str) -> str:
    if name.endswith((".html", ".htm")):
        # Colours of syntax stand within a line.
        return html.unescape(re.sub(r"<[^>]*>", "", text))
    if name.endswith((".ipynb", ".json")):
        try:
            return "\n".join(_strings(json.loads(text)))
        except ValueError:
            return text
    return text


def _strings(told: Any) -> Iterator[str]:
    """Yield all texts of a JSON, keys and numbers too; the lines of a cell as one."""
    if isinstance(told, dict):
        for key, value in told.items():
            yield key
            yield from _strings(value)
    elif isinstance(told, list):
        if all(isinstance(item, str) for item in told):
            yield "".join(told)
        else:
            for item in told:
                yield from _strings(item)
    else:
        yield str(told)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path, help="files, folders or zips")
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository")
    parser.add_argument("--seed", type=int, default=0, help="of the course")
    parser.add_argument("--wheel", action="store_true", help="crlib's tests are known")
    options = parser.parse_args(arguments)
    book = notebooks.load(options.root)
    known = secrets(book, tests=not options.wheel)
    told = found(options.places, known, options.seed)
    print(*told, sep="\n", end="\n" if told else "")
    print(f"{len(known)} secrets, {len(told)} given away.")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
