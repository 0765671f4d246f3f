"""How far one is: bars that share no lock with another process, and what is kept."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

__all__ = ["Bar", "Kept"]


class Bar(tqdm):
    """A bar of tqdm, with its arguments.

    tqdm's own lock is shared by all processes that a program starts. One that is killed
    while it holds the lock leaves the others waiting for ever.
    """

    # No thread that watches over the bars: a fork would inherit its locks.
    monitor_interval = 0
    _lock: Any = threading.RLock()


@dataclass(frozen=True)
class Kept:
    """Finished parts of one call in a file; nothing is unpickled.

    Attributes:
        path: of the file.
        key: of the call; parts of another are not used.
        source: the generator of the call, if it has one: it draws on from where it was.
    """

    path: Path
    key: str
    source: torch.Generator | None = None

    def parts(self) -> list[Any]:
        """Return what the file keeps of this call.

        Raises:
            ValueError: a file of something else, or a folder that is not there.
        """
        if not self.path.exists():
            if not self.path.parent.is_dir():
                raise ValueError(
                    f"There is no folder {self.path.parent}: make it, or name another."
                )
            return []
        try:
            found = torch.load(self.path, weights_only=True)
            key, parts, state = found["key"], found["parts"], found["state"]
        except Exception as error:  # a file may be anything, also empty
            raise ValueError(
                f"{self.path} keeps no parts of a call: name another, or delete it."
            ) from error
        if key == self.key and self.source is not None:
            self.source.set_state(state)
        return list(parts) if key == self.key else []

    def keep(self, parts: list[Any]) -> None:
        """Write the parts; a process that is killed meanwhile leaves the old file."""
        state = None if self.source is None else self.source.get_state()
        new = Path(f"{self.path}.part")
        torch.save({"key": self.key, "parts": parts, "state": state}, new)
        new.replace(self.path)
