"""Run the code of pages into the cache of the build, one page a core.

Sphinx runs one page after the other. What fails here it runs once more, and reports.
"""

import logging
import multiprocessing
import sys
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.cache.main import JupyterCacheBase
from jupyter_cache.executors import load_executor
from jupyter_cache.readers import get_reader
from nbformat import NotebookNode

READER = {"name": "myst_nb_md", "type": "plugin"}


def cache(folder: Path) -> JupyterCacheBase:
    """Return the cache of the build, where outputs are found by the code of a page."""
    return get_cache(str(folder / "_build" / ".jupyter_cache"))


def read(page: Path) -> NotebookNode:
    """Return a page of the manuscript as a notebook."""
    notebook: NotebookNode = get_reader(READER)(str(page))
    return notebook


def main(folder: Path, timeout: int) -> None:
    outputs = cache(folder)
    for page in sorted(folder.glob("book/*.md")):
        if "```{code-cell}" in page.read_text(encoding="utf-8"):
            outputs.add_nb_to_project(str(page), read_data=READER)
    # Its workers report one level above the chatter of multiprocessing.
    multiprocessing.log_to_stderr(logging.INFO + 1)
    load_executor("local-parallel", outputs).run_and_cache(timeout=timeout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
