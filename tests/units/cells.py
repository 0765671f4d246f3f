"""Functions that the cells of a chapter define, outside a notebook."""

from pathlib import Path
from typing import Any

from book._tools.gates import fresh, run_all
from book._tools.manuscript import read

ROOT = Path(__file__).parents[2]


def defined(name: str, *functions: str) -> list[Any]:
    """Return functions of a unit: its setup cells and the cells that define them.

    Args:
        name: of the unit, such as ``"ch05"``.
        functions: the names that some cell defines with ``def``.
    """
    (path,) = (ROOT / "book").glob(f"{name}_*.md")
    book = read(path)
    namespace = fresh()
    run_all(book.tagged("setup"), namespace)
    for function in functions:
        if function not in namespace:
            cells = [c for c in book.cells if f"def {function}(" in c.body]
            run_all(cells[:1], namespace)
    return [namespace[function] for function in functions]
