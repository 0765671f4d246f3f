"""Where and with what a table was measured, and how its rows are printed."""

import datetime
import platform
from importlib import metadata
from pathlib import Path

import torch
from results import Row, text

import crlib


def processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return named[0] if named else platform.processor() or platform.machine()


def provenance(
    libraries: tuple[str, ...], data: str = "fashion", device: str = "cpu"
) -> dict[str, str]:
    """Return the head of a table; the libraries are those that it compares."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": data,
        "device": f"{device}: {processor(device)}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "crlib": crlib.__version__,
        **{name: metadata.version(name) for name in (*libraries, "torch")},
    }


def table(columns: list[str], found: list[Row], named: int) -> None:
    """Print rows; the first ``named`` columns hold words."""
    lines = [columns] + [[text(row.get(c, "-")) for c in columns] for row in found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for n, cells in enumerate(lines):
        padded = [
            cell.ljust(width) if k < named else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        note = found[n - 1].get("note") if n else ""
        print("  ".join(padded) + (f"  ({note})" if note else ""), flush=True)
