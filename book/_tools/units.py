"""The units of the book: chapters ``chNN_slug`` and labs ``labNN_slug``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_STEM = re.compile(r"(ch|lab)(\d\d)_([a-z0-9_]+)")


@dataclass(frozen=True)
class Kind:
    """What a unit of one kind is called, and what it must have.

    Attributes:
        word: in a sentence.
        label: before the number, as in theorem L3.1.
        questions: to predict, at least.
        objectives: of its card, at least.
        exercises: at least; of a chapter, those that ask for a function.
        asks: the other kinds of exercise, of which it has one or more each.
        failures: shown under "What could go wrong", at least.
        sections: titles that it has.
        lines: of its manuscript, at most.
        median: of the lines of its cells whose code stays open, at most.
        seconds: of one core, at most.
    """

    word: str
    label: str
    questions: int
    objectives: int
    exercises: int
    asks: tuple[str, ...]
    failures: int
    sections: tuple[str, ...]
    lines: int
    median: int
    seconds: int


KINDS = {
    "ch": Kind(
        word="chapter",
        label="",
        questions=5,
        objectives=3,
        exercises=3,
        asks=("derive", "judge", "change"),
        failures=2,
        sections=("What could go wrong", "What to remember", "Background"),
        lines=2000,
        median=6,
        seconds=120,
    ),
    "lab": Kind(
        word="lab",
        label="L",
        questions=1,
        objectives=1,
        exercises=1,
        asks=(),
        failures=1,
        sections=("The claim", "Verdict", "What could go wrong", "Background"),
        lines=700,
        median=10,
        seconds=30,
    ),
}


@dataclass(frozen=True, order=True)
class Unit:
    """A chapter or a lab; chapters sort before labs."""

    kind: str
    number: int
    slug: str

    @classmethod
    def of(cls, path: str | Path) -> Self | None:
        """Return the unit whose manuscript or page this is, None if it is no unit's."""
        match = _STEM.fullmatch(Path(path).stem)
        return cls(match[1], int(match[2]), match[3]) if match else None

    @property
    def rules(self) -> Kind:
        return KINDS[self.kind]

    @property
    def name(self) -> str:
        """The short name: ``ch05``, ``lab03``."""
        return f"{self.kind}{self.number:02d}"

    @property
    def stem(self) -> str:
        """The name of its manuscript and page: ``ch05_measuring_compressibility``."""
        return f"{self.name}_{self.slug}"

    @property
    def title(self) -> str:
        """Its slug as words, for want of a better title."""
        return self.slug.replace("_", " ").capitalize()

    @property
    def label(self) -> str:
        """Its number as readers see it: ``5``, ``L3``."""
        return f"{self.rules.label}{self.number}"

    @property
    def notebook(self) -> str:
        """The name of its notebook: ``05_slug``, ``lab03_slug``."""
        return self.stem.removeprefix("ch")


def units(root: Path) -> list[Unit]:
    """Return the units of the book under ``root``, in order."""
    found = (Unit.of(path) for path in (root / "book").glob("*.md"))
    return sorted(unit for unit in found if unit)
