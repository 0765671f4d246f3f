"""Run the cells of a page, or find what they gave when all they depend on was the same.

    python -m book._tools.run ch05

A page runs in a kernel of its own, without the tests its reader must not see. Kept are
the outputs, the seconds of one core that each cell took, the memory, and the slack of
each claim.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_cache.readers import get_reader
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets.config import Config

from book._tools import cache, manuscript
from book._tools.depends import KERNEL, ROOT, Sources
from book._tools.units import KINDS, Unit

READER = {"name": "myst_nb_md", "type": "plugin"}
# Seconds by the clock after which a cell is interrupted, however busy the machine, and
# those it then has to end.
PATIENCE, GRACE = 600, 30
CELL_SECONDS = 30
# By what a core is slower that shares its caches and its clock: one page took 28 s of a
# quiet one, and 32 s of a busy one.
BUSY = 1.25
# Of the half-width of its interval: a claim with less room holds by a hair.
SLACK = 0.05
MEGABYTES = 1500


class PageError(RuntimeError):
    """A cell failed, or did not end; the message says which, and shows its trace."""


@dataclass(frozen=True)
class Run:
    """What the cells of a page gave and took.

    Attributes:
        cells: for each code cell, its line in the manuscript, the seconds of one core
            it took, and its outputs; of a hidden test there are none.
        megabytes: the most memory the kernel had.
        claims: sentences and slacks of the claims that rest on an interval.
    """

    cells: list[tuple[int, float, list[Any]]]
    megabytes: float
    claims: list[tuple[str, float]]

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds, _ in self.cells)


def read(page: Path) -> NotebookNode:
    """Return a page of the manuscript as the notebook that Sphinx will ask for."""
    notebook: NotebookNode = get_reader(READER)(str(page))
    return notebook


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_hidden(cell: NotebookNode) -> bool:
    return "hidden-test" in cell.metadata.get("tags", [])


def run(page: Path, patience: float = PATIENCE) -> Run:
    """Run the cells of a page.

    Args:
        page: the manuscript.
        patience: seconds by the clock that a cell may take.

    Raises:
        PageError: a cell raised, did not end, or ended its kernel.
    """
    lines = [cell.line for cell in manuscript.read(page).cells]
    notebook = read(page)
    wanted = [
        (line, cell)
        for line, cell in zip(lines, code(notebook), strict=True)
        if not is_hidden(cell)
    ]
    notebook.cells = [cell for _, cell in wanted]
    ran: dict[int, tuple[float, list[Any]]] = {}
    line = 0
    with _client(notebook) as (client, claims, environment):
        try:
            with client.setup_kernel(env=environment):
                for index, (line, cell) in enumerate(wanted):
                    before = _seconds(_pid(client))
                    with _limited(_pid(client), patience):
                        client.execute_cell(cell, index)
                    seconds = round(_seconds(_pid(client)) - before, 3)
                    ran[line] = seconds, cell.outputs
                memory = _megabytes(_pid(client))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise PageError(f"book/{page.name}:{line}: {_said(error)}") from None
        told = [tuple(json.loads(text)) for text in claims.read_text().splitlines()]
    cells = [(line, *ran.get(line, (0.0, []))) for line in lines]
    return Run(cells, round(memory), told)


@contextlib.contextmanager
def _client(
    notebook: NotebookNode,
) -> Iterator[tuple[NotebookClient, Path, dict[str, str]]]:
    """Prepare a kernel in an empty folder, this interpreter's and this crlib's."""
    with tempfile.TemporaryDirectory() as folder:
        claims = Path(folder) / "claims.jsonl"
        claims.touch()
        (Path(folder) / "cells").mkdir()
        environment = os.environ | KERNEL | {"CRLIB_CLAIMS": str(claims)}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
        # In a folder: a port could go to another process as the kernel starts.
        sockets = {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            resources={"metadata": {"path": str(Path(folder) / "cells")}},
            config=Config({"KernelManager": sockets}),
        )
        yield client, claims, environment


@contextlib.contextmanager
def _limited(pid: int, patience: float) -> Iterator[None]:
    """Interrupt a cell that does not end, whose trace then says where it stood.

    A cell that hears no interrupt, in a loop that catches all or in compiled code, ends
    with its kernel.
    """
    limits = [
        threading.Timer(patience, os.killpg, [pid, signal.SIGINT]),
        threading.Timer(patience + GRACE, os.killpg, [pid, signal.SIGKILL]),
    ]
    for limit in limits:
        limit.start()
    try:
        yield
    except DeadKernelError:
        if not limits[1].finished.is_set():
            raise
        message = f"did not end in {patience:.0f} s, nor when it was interrupted"
        raise DeadKernelError(message) from None
    finally:
        for limit in limits:
            limit.cancel()


def _pid(client: NotebookClient) -> int:
    assert client.km is not None
    return int(getattr(client.km.provisioner, "pid"))  # noqa: B009


def _seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _megabytes(pid: int) -> float:
    """Return the most memory a process had, or has where nobody keeps the most."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1000
    except (OSError, StopIteration):
        return float(psutil.Process(pid).memory_info().rss) / 1e6


def _said(error: Exception) -> str:
    return getattr(error, "traceback", "") or str(error)


def at_hand(key: str) -> Run | None:
    """Return what a page of this key gave when it ran, None if it did not."""
    known = cache.get("pages", key)
    return None if known is None else Run(**known)


def outputs(page: Path) -> Run:
    """Return what the cells of a page gave: from the cache, or by running them.

    Raises:
        PageError: as :func:`run`; nothing is kept then.
    """
    key = Sources().page(page)
    known = at_hand(key)
    if known is not None:
        return known
    found = run(page)
    cache.put("pages", key, asdict(found))
    return found


def faults(page: Path, found: Run, slower: float = 1.0) -> list[str]:
    """Return where a page took more than it may, or claims with too little room.

    Seconds are those of one core, which may be slower than a quiet one by a factor.
    """
    unit = Unit.of(page)
    most = (unit.rules if unit else KINDS["ch"]).seconds
    told = [
        f"book/{page.name}:{line}: the cell took {seconds:.0f} s: at most"
        f" {CELL_SECONDS}, more belongs into a study"
        for line, seconds, _ in found.cells
        if seconds > CELL_SECONDS * slower
    ]
    if found.seconds > most * slower:
        told.append(f"book/{page.name}: took {found.seconds:.0f} s: at most {most}")
    told += [
        f"book/{page.name}: {sentence!r} holds by a hair ({slack:.2f} half-widths of"
        " its interval): claim less, or say that it may not be so"
        for sentence, slack in found.claims
        if slack < SLACK
    ]
    if found.megabytes > MEGABYTES:
        told.append(
            f"book/{page.name}: took {found.megabytes:.0f} MB: at most {MEGABYTES}"
        )
    return told


def filled(page: Path, found: Run) -> NotebookNode:
    """Return a page as a notebook with its outputs."""
    notebook = read(page)
    for count, (cell, (_, _, outputs)) in enumerate(
        zip(code(notebook), found.cells, strict=True), start=1
    ):
        cell.outputs = [nbformat.from_dict(output) for output in outputs]
        cell.execution_count = count
    notebook.metadata["language_info"] = {
        "name": "python",
        "pygments_lexer": "ipython3",
    }
    return notebook


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages of the book that have cells to run."""
    found = sorted((root / "book").glob("*.md"))
    return [page for page in found if "```{code-cell}" in page.read_text("utf-8")]


def main() -> int:
    """Run the pages named on the command line, whatever the cache knows."""
    names = sys.argv[1:]
    for page in pages():
        if not any(page.stem.startswith(name) for name in names):
            continue
        try:
            found = run(page)
        except PageError as error:
            print(error)
            return 1
        print(f"{page.stem}: {found.seconds:.1f} s, {found.megabytes:.0f} MB")
        for line, seconds, _ in sorted(found.cells, key=lambda c: -c[1])[:5]:
            print(f"  {seconds:5.1f} s  book/{page.name}:{line}")
        for fault in faults(page, found):
            print(fault)
    return 0


if __name__ == "__main__":
    sys.exit(main())
