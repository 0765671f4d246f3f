"""Claims the book makes, as assertions that read as sentences, and their numbers."""

import json
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import SupportsFloat

import numpy as np
from scipy import stats

__all__ = [
    "ClaimError",
    "Interval",
    "Verdict",
    "claim",
    "every",
    "glue",
    "interval",
    "median_interval",
    "wilson",
]


class ClaimError(AssertionError):
    """A sentence of the book does not hold for the numbers just computed."""


@dataclass(frozen=True)
class Verdict:
    """Whether an interval is where a claim says, and by how much.

    Attributes:
        slack: the room between the interval and the bound, in half-widths of the
            interval: negative where the claim fails, near zero where it barely holds;
            infinite where the interval is a point or has an end at infinity.
    """

    slack: float

    def __bool__(self) -> bool:
        return bool(self.slack > 0)

    def __float__(self) -> float:
        return float(bool(self))

    def __and__(self, other: "Verdict") -> "Verdict":
        """Return the verdict that both hold: its slack is the smaller one."""
        return every((self, other))


def claim(
    sentence: str, holds: SupportsFloat | Verdict | bool, detail: str = ""
) -> None:
    """Print ``sentence`` if it holds, refuse to go on if it does not.

    A :class:`Verdict` also leaves its slack in the file that the environment variable
    ``CRLIB_CLAIMS`` names, a line of JSON each.

    Args:
        sentence: a statement of the text, in words.
        holds: a boolean, or a boolean array or tensor of one element, or a
            :class:`Verdict`.
        detail: numbers to show behind the sentence.

    Raises:
        ClaimError: ``holds`` is false (or NaN).

    Example:
        >>> claim("Three is odd.", 3 % 2 == 1)
        ✓ Three is odd.
    """
    if isinstance(holds, Verdict) and (file := os.environ.get("CRLIB_CLAIMS")):
        with open(file, "a", encoding="utf-8") as record:
            record.write(json.dumps([sentence, round(holds.slack, 4)]) + "\n")
    value = float(holds.item() if hasattr(holds, "item") else holds)
    suffix = f" ({detail})" if detail else ""
    if not value > 0:
        raise ClaimError(f"This does not hold here: {sentence}{suffix}")
    _say(f"✓ {sentence}{suffix}")


def _say(text: str) -> None:
    """Print, also where a sign is missing: a file on Windows is often cp1252."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.replace("✓", "OK:").encode(encoding, "backslashreplace")
        text = plain.decode(encoding)
    print(text)


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict that all hold: its slack is the smallest.

    Raises:
        ValueError: there is none to look at.

    Example:
        >>> gaps = interval([1.0, 1.1]), interval([1.0, 1.5])
        >>> bool(every(gap.above(0) for gap in gaps))
        False
    """
    listed = list(verdicts)
    if not listed:
        raise ValueError("No verdict at all: a claim about nothing holds of anything.")
    # What fails comes first: a slack may be NaN, which min would pass over.
    return min(listed, key=lambda verdict: (bool(verdict), verdict.slack))


def glue(name: str, text: str) -> None:
    """Make ``text`` available to the prose of the book under ``name``.

    In a book build the value enters the sentence that refers to it; in a notebook it
    is printed, because the prose there shows only the name.

    Args:
        name: such as ``"ch01_full_accuracy"``.
        text: the formatted value, such as ``"85.1 %"``.
    """
    if os.environ.get("CRLIB_BOOK"):
        from myst_nb import glue as myst_glue

        myst_glue(name, _Inline(text), display=False)
    else:
        _say(f"‹{name}› = {text}")


@dataclass(frozen=True)
class _Inline:
    """A string that a page shows without quotation marks."""

    text: str

    def __repr__(self) -> str:
        # The invisible word joiner keeps the page from reading "1.00" as a number and
        # writing it as 1.0.
        return f"\u2060{self.text}"


@dataclass(frozen=True)
class Interval:
    """A mean with a two-sided confidence interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def above(self, bound: float) -> Verdict:
        """Return whether the whole interval lies above ``bound``.

        Example:
            >>> gap = interval([2.0, 2.2, 2.4])
            >>> bool(gap.above(1)), bool(gap.above(2))
            (True, False)
        """
        return self._verdict(self.low - bound)

    def below(self, bound: float) -> Verdict:
        """Return whether the whole interval lies below ``bound``."""
        return self._verdict(bound - self.high)

    def differs(self, value: float = 0.0) -> Verdict:
        """Return whether ``value`` lies outside the interval, on either side."""
        return self._verdict(max(self.low - value, value - self.high))

    def _verdict(self, room: float) -> Verdict:
        half = (self.high - self.low) / 2
        if 0 < half < math.inf:
            return Verdict(room / half)
        # Runs that all agree leave no doubt: any room is as much as one likes. An end
        # at infinity leaves none to measure: what counts is on which side it lies.
        return Verdict(math.inf if room > 0 else -math.inf)

    def format(self, spec: str = ".3g", scale: float = 1.0) -> str:
        """Return ``mean [low, high]`` with each number times ``scale`` in ``spec``."""
        mean, low, high = (
            format(scale * v, spec) for v in (self.mean, self.low, self.high)
        )
        return f"{mean} [{low}, {high}]"


def interval(samples: Iterable[SupportsFloat], level: float = 0.95) -> Interval:
    r"""Return the mean of independent runs with Student's confidence interval.

    :math:`\bar v \pm t_{n-1,(1+\mathrm{level})/2}\, s/\sqrt n`.

    Args:
        samples: one number a run (at least two), such as paired differences by seed.
        level: coverage, in (0, 1).

    Raises:
        ValueError: fewer than two samples, a sample that is not finite, or a level
            outside (0, 1).
    """
    values = np.array([float(v) for v in samples])
    if len(values) < 2:
        raise ValueError("An interval needs at least two runs: add seeds.")
    if not np.isfinite(values).all():
        raise ValueError("A run's value is not finite: look at it before averaging.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: give a coverage between 0 and 1.")
    mean = values.mean()
    half = stats.t.ppf((1 + level) / 2, len(values) - 1)
    half *= values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(mean), float(mean - half), float(mean + half), len(values))


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    r"""Return a share with Wilson's score interval, which lies in [0, 1].

    With :math:`p = \mathrm{hits} / n` and the normal quantile z, its ends are
    :math:`\frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}` (Wilson 1927).

    Args:
        hits: how many of ``n``.
        n: number of independent samples, at least 1.
        level: coverage, in (0, 1).

    Returns:
        An :class:`Interval` whose ``mean`` is the share itself.

    Raises:
        ValueError: numbers out of range.

    Example:
        >>> print(wilson(9, 10))
        0.9 [0.596, 0.982]
    """
    if not 0 <= hits <= n or n < 1 or not 0 < level < 1:
        raise ValueError(
            f"{hits} of {n} at level {level}: hits lie between 0 and n, n is at least"
            " 1, a level between 0 and 1."
        )
    p, z = hits / n, NormalDist().inv_cdf((1 + level) / 2)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = ((p + z * z / (2 * n) + s * half) / (1 + z * z / n) for s in (-1, 1))
    # All or none of the samples: that end is exact, but for its rounding.
    return Interval(p, 0.0 if hits == 0 else low, 1.0 if hits == n else high, n)


def median_interval(samples: Iterable[SupportsFloat], level: float = 0.95) -> Interval:
    r"""Return the median of independent samples with an interval of no distribution.

    The interval :math:`[v_{(l)}, v_{(n+1-l)}]` of sorted samples holds the median with
    probability :math:`1 - 2 P(\mathrm{Bin}(n, 1/2) < l)`, at least, whatever they are
    drawn from; l is the largest for which that is ``level`` (order statistics, David
    and Nagaraja 2003, section 7.1). Infinite samples are allowed: what no attack
    reached has a distance too.

    Args:
        samples: at least six for a level of 0.95.
        level: coverage, in (0, 1).

    Returns:
        An :class:`Interval` whose ``mean`` is the median.

    Raises:
        ValueError: too few samples for the level, a NaN, or a level outside (0, 1).

    Example:
        >>> print(median_interval(range(1, 21)))
        10.5 [6, 15]
    """
    values = np.sort(np.array([float(v) for v in samples]))
    if np.isnan(values).any() or not 0 < level < 1:
        raise ValueError("A sample is NaN, or the level is not between 0 and 1.")
    n = len(values)
    least = int(stats.binom.ppf((1 - level) / 2, n, 0.5)) if n else 0
    # The quantile itself may already hold too much: P(Bin < l) is what counts.
    if least and 2 * stats.binom.cdf(least - 1, n, 0.5) > 1 - level:
        least -= 1
    if least < 1:
        raise ValueError(
            f"{n} samples cannot hold their median at level {level}: give more."
        )
    low, high = values[least - 1], values[n - least]
    return Interval(float(np.median(values)), float(low), float(high), n)
