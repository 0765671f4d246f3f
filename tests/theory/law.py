"""A law is a check of one statement and the mistakes that must make it fail."""

from collections.abc import Callable
from dataclasses import dataclass

SLACK = 1e-9


@dataclass(frozen=True)
class Mistake:
    """Put ``replace`` in place of ``find`` in the source of ``where``."""

    where: str
    find: str
    replace: str


@dataclass(frozen=True)
class Law:
    name: str
    holds: Callable[[], None]
    mistakes: tuple[Mistake, ...]


LAWS: list[Law] = []


def law(*mistakes: Mistake) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function that asserts a statement on many cases.

    Raises:
        ValueError: no mistake is named, so nothing shows that the check can fail.
    """
    if not mistakes:
        raise ValueError("name at least one mistake that the law must notice")

    def register(holds: Callable[[], None]) -> Callable[[], None]:
        LAWS.append(Law(holds.__name__, holds, mistakes))
        return holds

    return register


def at_most(low: float, high: float, what: object = "") -> None:
    """Assert ``low <= high`` up to rounding, relative to the larger of the two."""
    assert low <= high + SLACK * max(abs(low), abs(high), 1e-300), (low, high, what)


def equal(a: float, b: float, what: object = "") -> None:
    """Assert ``a == b`` to 1e-9, relative to the larger of the two."""
    assert abs(a - b) <= SLACK * max(abs(a), abs(b), 1e-300), (a, b, what)
