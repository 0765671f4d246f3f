"""Run pages with the instructions of an older processor, and another order of BLAS.

    python -m book._tools.processors [ch05 ...]

What is trained in float64 and claimed with room must pass on every machine. A page that
does not is named, with the cell that stopped it.
"""

import os
import sys

from book._tools import run

PROCESSORS = {
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "another order of BLAS": {"MKL_CBWR": "COMPATIBLE"},
}


def faults(names: list[str]) -> list[str]:
    """Return what fails where; without names every page runs."""
    found = []
    for processor, variables in PROCESSORS.items():
        os.environ |= variables
        for page in run.pages():
            if names and not page.stem.startswith(tuple(names)):
                continue
            try:
                seconds = run.run(page).seconds
                print(f"{page.stem}, {processor}: passed, {seconds:.0f} s", flush=True)
            except run.PageError as error:
                found.append(f"{page.stem}, {processor}: {error}")
                print(found[-1], flush=True)
        for name in variables:
            del os.environ[name]
    return found


if __name__ == "__main__":
    sys.exit(1 if faults(sys.argv[1:]) else 0)
