"""What a session on a chapter can count on: its exercises, and their usual mistakes."""

import ast
import io
import tokenize
from pathlib import Path

from book._tools import notebooks
from book._tools.manuscript import Manuscript


def mistakes(root: Path, name: str) -> dict[str, list[str]]:
    """Return the usual mistakes of each exercise, by label.

    The wrong answers in ``tests/units`` make them; the comment before each names it.

    Args:
        root: of the repository.
        name: of a unit, such as ``"ch05"``.
    """
    source = (root / "tests/units" / f"{name}.py").read_text(encoding="utf-8")
    listed = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WRONG"
    )
    assert isinstance(listed, ast.Dict)
    found: dict[str, list[str]] = {}
    said = comments(source)
    last = listed.lineno
    for key, value in zip(listed.keys, listed.values, strict=True):
        assert isinstance(key, ast.Constant) and isinstance(key.value, str)
        assert value.end_lineno
        lines = range(last, value.end_lineno)
        found[key.value] = [said[line] for line in lines if line in said]
        last = value.end_lineno
    return found


def comments(source: str) -> dict[int, str]:
    """Return the comments of some source by their first line, the next lines joined."""
    found: dict[int, str] = {}
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text, line = token.string.lstrip("# "), token.start[0]
            if line == last + 1:
                found[first] += f" {text}"
            else:
                first, found[line] = line, text
            last = line
    return found


def asked(book: Manuscript) -> list[tuple[str, str, str, int, int]]:
    """Return label, title, kind, minutes and points of each exercise of a unit."""
    found = []
    for block in book.blocks:
        if block.name == "exercise-start":
            title, _, minutes, points = notebooks.exercise(block)
            kind = notebooks.asks(block.classes)
            found.append((block.label, title, kind, minutes, points))
    return found
