"""Which code of a page stays open, and the bar that the rest folds under.

Open stays what is from scratch, what computes, and what shows a failure. Folded is what
only draws, fills numbers into sentences, or states in code what the page says in words.
"""

import ast
from collections.abc import Iterator, Sequence

FIGURE, SLIDER, SETUP = "Code of the figure", "Code of the slider", "Set-up"
CHECK, NUMBERS = "Code of the check", "Code of the numbers"
TABLE, CODE = "Code of the table", "Code"
DRAWING = {"plt", "ax", "axes"}
# An author keeps a cell open that a rule would fold, where its code makes the point.
OPEN = "open"


def bar(source: str, tags: Sequence[str], *, figure: bool = False) -> str | None:
    """Return what the folded code of a cell is called, None where it stays open.

    Args:
        source: of the cell.
        tags: of the cell.
        figure: whether its output is a numbered figure.
    """
    exercise = {"exercise", "solution", "public-test", "hidden-test"}
    if OPEN in tags or "failure" in tags or exercise & set(tags):
        return None
    try:
        body = ast.parse(source).body
    except SyntaxError:  # A magic.
        return None
    if not body:
        return None
    tree = ast.walk(ast.Module(body, []))
    names = {node.id for node in tree if isinstance(node, ast.Name)}
    called = set(calls(body))
    if any(tag.startswith("check-") for tag in tags):
        return CHECK
    if "slider" in called:
        return SLIDER
    if figure or DRAWING & names:
        return FIGURE
    defines = any(isinstance(s, ast.FunctionDef | ast.ClassDef) for s in body)
    if isinstance(body[0], ast.Import | ast.ImportFrom) and not defines:
        return SETUP
    if {"print", "DataFrame"} & called and not defines:
        return TABLE
    if "studies" in names or {"glue", "claim"} & called and not defines:
        return NUMBERS
    return None


def calls(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Yield the names that calls are made by: ``slider`` for ``frames.slider()``."""
    for node in ast.walk(ast.Module(list(body), [])):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", ""))
