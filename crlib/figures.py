"""One style for all figures, and the plots that several chapters draw.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; every series
also has a marker and a line style of its own, because colour is not enough.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from torch import Tensor

__all__ = ["COLOURS", "band", "images", "series", "spectrum", "style"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def style() -> AbstractContextManager[None]:
    """Set the book's style; with ``with style():`` only inside the block."""
    settings: dict[Any, Any] = {
        **sns.axes_style("ticks"),
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.dpi": 110,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.figsize": (6.4, 3.8),
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "legend.frameon": False,
        "lines.markersize": 5,
    }
    before = {key: mpl.rcParams[key] for key in settings}
    mpl.rcParams.update(settings)
    return _Restore(before)


class _Restore(AbstractContextManager[None]):
    def __init__(self, before: dict[Any, Any]) -> None:
        self.before = before

    def __exit__(self, *_: object) -> None:
        mpl.rcParams.update(self.before)


def series(index: int) -> dict[str, Any]:
    """Return colour, marker and line style of the ``index``-th series of a plot."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index % len(_LINES)],
    }


def band(
    ax: Axes, x: Sequence[float] | Tensor, runs: Any, *, label: str, index: int = 0
) -> None:
    """Draw the mean over runs with its 95 % interval as a band.

    Args:
        ax: axes to draw on.
        x: ``(B,)``.
        runs: ``(S, B)``, one row a seed, S at least 2.
        label: for the legend.
        index: which series of the plot this is: colour, marker and line style.
    """
    from crlib.claims import interval

    rows = np.asarray(runs, dtype=float)
    marks = [interval(column) for column in rows.T]
    look = series(index)
    ax.plot(x, [m.mean for m in marks], label=label, **look)
    low, high = [m.low for m in marks], [m.high for m in marks]
    ax.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def spectrum(ax: Axes, spectra: Mapping[str, Tensor], *, relative: bool = True) -> None:
    """Draw sorted magnitudes against their rank, on logarithmic axes.

    Args:
        ax: axes to draw on.
        spectra: label to ``(d,)`` entries, in any order.
        relative: divide each by its largest entry.
    """
    for (label, v), index in zip(spectra.items(), count(), strict=False):
        s = v.detach().abs().sort(descending=True).values
        s = s / s[0] if relative else s
        look = series(index)
        every = np.unique(np.geomspace(1, len(s), 9).astype(int) - 1).tolist()
        ax.loglog(range(1, len(s) + 1), s, label=label, markevery=every, **look)
    ax.set(xlabel="rank of the entry", ylabel="magnitude" + " / largest" * relative)
    ax.legend()


def images(
    rows: Mapping[str, Tensor],
    *,
    titles: Sequence[str] = (),
    signed: Sequence[str] = (),
) -> plt.Figure:
    """Draw rows of images on one grid, each row named at its left.

    Args:
        rows: name to ``(n, C, H, W)``, the same n in each; values in [0, 1].
        titles: one a column.
        signed: names of the rows that hold perturbations, drawn on a diverging map
            around zero with one scale for the row.

    Returns:
        The figure.
    """
    n = len(next(iter(rows.values())))
    fig, axes = plt.subplots(
        len(rows), n, figsize=(1.15 * n, 1.2 * len(rows)), squeeze=False
    )
    for line, (name, batch) in zip(axes, rows.items(), strict=True):
        reach = float(batch.abs().max()) or 1.0
        look = (
            {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
            if name in signed
            else {"cmap": "gray", "vmin": 0, "vmax": 1}
        )
        for ax, image in zip(line, batch.detach(), strict=True):
            ax.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), **look)
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=9)
    return fig
