"""A pytest plugin for nbval: the pages show what the notebooks computed.

    pytest -p book._tools.nbval_plugin --nbval-lax --nbval-current-env chapters

A chapter takes minutes, and is the same code as notebook and as page. The outputs of a
notebook whose cells all pass go into the cache of the build, which then runs nothing of
that chapter. And a kernel that dies as it starts is started again: it is told its ports
before it takes them, and now and then another process is faster.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_cache.base import CacheBundleIn
from nbformat import NotebookNode
from nbval import kernel
from nbval.plugin import IPyNbCell, IPyNbFile

from book._tools import build, execute

BEGAN = pytest.StashKey[float]()


def persistent(start: Callable[..., Any], tries: int = 3) -> Callable[..., Any]:
    """Return ``start`` so that only its last try may fail with a RuntimeError."""

    def started(*args: Any, **options: Any) -> Any:
        for _ in range(tries - 1):
            try:
                return start(*args, **options)
            except RuntimeError as error:
                print(f"A kernel starts again: {error}")
        return start(*args, **options)

    return started


def with_history(running: Any, source: str, allow_stdin: bool | None = None) -> str:
    """Execute a cell as a notebook does: without a history, no ``;`` hides a result."""
    return running.kc.execute(source, allow_stdin=allow_stdin, stop_on_error=False)


def shown(page: NotebookNode) -> list[NotebookNode]:
    """Return the code cells of a page without the tests its reader must not see."""
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    return [c for c in code if "hidden-test" not in c.metadata.get("tags", [])]


def keep(root: Path, name: str, cells: list[IPyNbCell], seconds: float) -> None:
    """Let the page of a notebook have its outputs, if all cells have passed."""
    file = root / "book" / f"ch{name}.md"
    if not file.exists():
        return
    page = execute.read(file)
    # The first cell installs crlib: only the notebook has it.
    wanted, ran = shown(page), cells[1:]
    if [cell.source for cell in wanted] != [item.cell.source for item in ran]:
        return
    for number, (cell, item) in enumerate(zip(wanted, ran, strict=True), start=2):
        outputs = item.test_outputs
        if outputs is None or any(out.output_type == "error" for out in outputs):
            return
        cell.outputs, cell.execution_count = outputs, number
    page.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    bundle = CacheBundleIn(page, str(file), data={"execution_seconds": seconds})
    execute.cache(root).cache_notebook_bundle(
        bundle, check_validity=False, overwrite=True
    )


def pytest_configure(config: pytest.Config) -> None:
    kernel.start_new_kernel = persistent(kernel.start_new_kernel)
    kernel.RunningKernel.execute_cell_input = with_history
    os.environ.update(build.KERNEL)
    if not hasattr(config, "workerinput"):
        root = config.rootpath
        computed, made = build.fingerprints(root, root / "_config.yml")
        build.forget_what_is_stale(root / "_build", computed, made)
        # Made now: two workers that finish at once would both make its tables.
        assert execute.cache(root).db


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        build.record_peak(config.rootpath / "_build" / "peak.txt")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Iterator[None]:
    notebook = item.parent
    if not isinstance(notebook, IPyNbFile):
        return (yield)
    began = notebook.stash.setdefault(BEGAN, time.perf_counter())
    done = yield
    if nextitem is None or nextitem.parent is not notebook:
        cells = [cell for cell in item.session.items if cell.parent is notebook]
        seconds = time.perf_counter() - began
        keep(item.config.rootpath, notebook.path.stem, cells, seconds)
    return done
