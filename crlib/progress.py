"""Progress bars that share no lock with another process, and start no thread."""

import threading
from typing import Any

from tqdm.auto import tqdm

__all__ = ["Bar"]


class Bar(tqdm):
    """A bar of tqdm, with its arguments.

    tqdm's own lock is shared by all processes that a program starts. One that is killed
    while it holds the lock leaves the others waiting for ever.
    """

    # No thread that watches over the bars: a fork would inherit its locks.
    monitor_interval = 0
    _lock: Any = threading.RLock()
