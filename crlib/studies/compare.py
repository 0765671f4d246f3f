"""How a chapter reads a table: what an interval says, and distances at an equal fit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crlib.claims import Interval

__all__ = ["between", "verdict"]


def verdict(
    mark: Interval | None,
    even: float = 1.0,
    *,
    spec: str = ".2f",
    scale: float = 1.0,
    words: Sequence[str] = ("loss", "open", "gain"),
) -> str:
    """Return an interval with the word for where it lies.

    Args:
        mark: the interval, or None where nothing was measured.
        even: the value that means no effect, in the units of ``mark``.
        spec: format of each number, as in :meth:`crlib.claims.Interval.format`.
        scale: factor of each number.
        words: for an interval below ``even``, around it, and above it.

    Returns:
        Such as ``"0.83 [0.78, 0.89] loss"``; ``"not met"`` for None.

    Example:
        >>> from crlib import claims, studies
        >>> studies.verdict(claims.interval([0.8, 0.9, 0.85]))
        '0.85 [0.73, 0.97] loss'
    """
    if mark is None:
        return "not met"
    below, around, above = words
    word = below if mark.below(even) else above if mark.above(even) else around
    return f"{mark.format(spec, scale)} {word}"


def between(
    fit: ArrayLike, fits: Sequence[ArrayLike], values: Sequence[ArrayLike]
) -> NDArray[np.float64]:
    r"""Return a positive quantity at a degree of fit, log-linear between two.

    With the share :math:`s = (f - f_0)/(f_1 - f_0)` of the way it is
    :math:`v_0^{1-s} v_1^s`.

    Args:
        fit: ``(n,)`` degrees of fit where it is asked for.
        fits: two ``(n,)`` degrees of fit where it was measured.
        values: what was measured there, two ``(n,)``, positive.

    Returns:
        ``(n,)`` values, NaN more than a tenth of the way outside.

    Example:
        >>> from crlib import studies
        >>> studies.between([0.9], ([0.8], [1.0]), ([4.0], [1.0])).round(6).tolist()
        [2.0]
    """
    start, end = (np.asarray(f, dtype=float) for f in fits)
    first, last = (np.asarray(v, dtype=float) for v in values)
    share = (np.asarray(fit, dtype=float) - start) / (end - start)
    found = first * (last / first) ** share
    return np.where((share >= -0.1) & (share <= 1.1), found, np.nan)
