"""What a report is made of: sections of tables, pictures, numbers and a caution."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crlib import figures
from crlib.claims import Interval

__all__ = [
    "TITLES",
    "Picture",
    "Section",
    "Table",
    "bars",
    "canvas",
    "canvases",
    "number",
    "picture",
    "rows",
]

# The sections, in the order of the page.
TITLES = {
    "words": "In words",
    "card": "Network and inputs",
    "distances": "Distance to the boundary",
    "trust": "Can the numbers be trusted?",
    "layers": "Compressibility of the layers",
    "attention": "Where attacks go",
    "universal": "One perturbation for all inputs",
    "compressed": "What compression would do",
    "against": "Against the baseline",
}


@dataclass(frozen=True)
class Table:
    """A caption, the names of the columns, and rows of text."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A drawing as SVG, what it shows, and the same in words for who cannot see it."""

    caption: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        name: in :data:`TITLES`, and in the numbers of the report.
        text: sentences for the reader, a paragraph a line.
        caution: what its numbers may not be used for.
        numbers: plain values, as they go into the JSON file.
        tables: in the order of the page.
        pictures: in the order of the page.
        seconds: that it took.
    """

    name: str
    text: str
    caution: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """What stands above it."""
        return TITLES[self.name]

    def plain(self) -> dict[str, Any]:
        """Return the section as plain values, for a file."""
        return asdict(self)

    @staticmethod
    def of(plain: Mapping[str, Any]) -> "Section":
        """Return the section that :meth:`plain` wrote down."""
        parts = {
            "tables": tuple(Table(**t) for t in plain["tables"]),
            "pictures": tuple(Picture(**p) for p in plain["pictures"]),
        }
        return Section(**{**plain, **parts})


def number(v: float | Interval, spec: str = ".3g") -> str:
    """Return a number or an interval as a reader wants it."""
    return v.format(spec) if isinstance(v, Interval) else format(v, spec)


# A second cue beside colour.
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")


def canvas(height: float = 3.6) -> tuple[Figure, Axes]:
    """Return an empty figure in the style of the book, which nobody has to close."""
    fig, (ax,) = canvases(1, height)
    return fig, ax


def canvases(n: int, height: float = 3.6) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with n axes side by side, in the same way."""
    with figures.style():
        fig = Figure(figsize=(6.0, height))
        return fig, list(fig.subplots(1, n, squeeze=False)[0])


def bars(ax: Axes, values: Mapping[str, float], spec: str = ".2g") -> None:
    """Draw numbers as bars, the first on top, each with its number at its end."""
    for i, v in enumerate(values.values()):
        length = v if math.isfinite(v) else 0.0
        look: dict[str, Any] = {
            "color": figures.COLOURS[i % 7],
            "hatch": HATCHES[i % 7],
        }
        ax.barh(i, length, edgecolor="white", **look)
        ax.text(length, i, f" {v:{spec}}", va="center", fontsize=9)
    ax.set_yticks(range(len(values)), labels=list(values))
    ax.margins(x=0.15)
    ax.invert_yaxis()


def picture(fig: Figure, caption: str, alt: str) -> Picture:
    """Return a figure as a drawing whose letters are paths."""
    out = StringIO()
    # The same numbers give the same file: no date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": "crlib", "svg.fonttype": "path"}):
        fig.savefig(
            out,
            format="svg",
            bbox_inches="tight",
            metadata={"Date": None, "Creator": None},
        )
    svg = out.getvalue()
    return Picture(caption, alt, svg[svg.index("<svg") :])


def rows(lines: Iterable[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of lines that have the same names."""
    listed = list(lines)
    columns = list(listed[0]) if listed else []
    return columns, [[line[c] for c in columns] for line in listed]
