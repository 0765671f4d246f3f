"""A pytest plugin for nbval: a kernel that dies as it starts is started again.

A kernel is told its ports before it takes them. Now and then another process is faster.
"""

from collections.abc import Callable
from typing import Any

from nbval import kernel


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


def pytest_configure() -> None:
    kernel.start_new_kernel = persistent(kernel.start_new_kernel)
