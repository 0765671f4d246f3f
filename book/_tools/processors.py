"""Run pages with the instructions of an older processor, and another order of BLAS.

    python -m book._tools.processors [ch05 ...]

What is trained in float64 and claimed with room must pass on every machine. A page that
does not is named, with the cell that stopped it.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from book._tools import run

PROCESSORS = {
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "another order of BLAS": {"MKL_CBWR": "COMPATIBLE"},
}


def attempt(page: Path, processor: str) -> str:
    """Run a page; return what fails, empty if nothing does."""
    os.environ |= PROCESSORS[processor]
    said = f"{page.stem}, {processor}: "
    try:
        print(f"{said}passed, {run.run(page).seconds:.0f} s", flush=True)
    except run.PageError as error:
        print(f"{said}{error}", flush=True)
        return f"{said}{error}"
    return ""


def faults(names: list[str]) -> list[str]:
    """Return what fails where, one page on each core; without names every page runs."""
    pages = [p for p in run.pages() if not names or p.stem.startswith(tuple(names))]
    if not pages:
        return [f"No page is named {' or '.join(names)}."]
    todo = [(page, processor) for processor in PROCESSORS for page in pages]
    # A process a page, so that no variable of one reaches the next.
    with ProcessPoolExecutor(
        mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        return [said for said in pool.map(attempt, *zip(*todo, strict=True)) if said]


if __name__ == "__main__":
    sys.exit("\n".join(faults(sys.argv[1:])) or 0)
