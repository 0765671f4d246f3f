"""What belongs to one unit of the book: ``ch01.py``, ``lab01.py`` and so on.

Such a file holds ``MUTATIONS``, for each theorem a mistake that its check must notice;
``WRONG``, for each exercise a plausible wrong answer that its tests must refuse, or a
list of them, of which the public test refuses one, each below a comment that names the
mistake; and tests that what the unit writes from scratch equals crlib.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """Put ``replace`` in place of ``find``, which occurs exactly once in ``where``.

    A good one is a mistake one could make: a dual norm made primal, a square root
    dropped, a constant halved. The check must then fail an assertion or a claim; a name
    error would say nothing about the theorem.

    Attributes:
        label: of the theorem.
        where: ``"setup"``, the cells tagged setup, joined by blank lines; ``"check"``,
            the cells tagged check-<label>, joined the same way; or a function such as
            ``"crlib.theory.linear_minimal"`` that these cells call.
    """

    label: str
    where: str
    find: str
    replace: str

    def __str__(self) -> str:
        return f"{self.label}: {self.find} -> {self.replace}"
