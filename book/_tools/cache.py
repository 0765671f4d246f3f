"""What is computed or proven once: small files, found by a key of all they depend on.

The folder is ``_build/cache``, or the one that ``CRLIB_BOOK_CACHE`` names. It may be
deleted at any time, and copied between machines.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DAYS = 30


def folder() -> Path:
    return Path(os.environ.get("CRLIB_BOOK_CACHE") or ROOT / "_build" / "cache")


def get(kind: str, key: str) -> Any | None:
    """Return what was kept under a key, None if there is nothing."""
    file = folder() / kind / f"{key}.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    os.utime(file)
    return value


def put(kind: str, key: str, value: Any) -> None:
    """Keep a value under a key: whole or not at all, whoever else writes."""
    file = folder() / kind / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(file)


def trim() -> None:
    """Remove what nobody has asked for in a month."""
    for file in folder().glob("*/*"):
        if time.time() - file.stat().st_mtime > DAYS * 24 * 3600:
            file.unlink(missing_ok=True)
