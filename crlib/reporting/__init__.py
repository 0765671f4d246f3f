"""One call, one report: how compressible a network is, how robust, what to believe."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from crlib.asking import with_gradients
from crlib.progress import Bar
from crlib.reporting import loading, page, sections
from crlib.reporting.parts import TITLES, Section
from crlib.reporting.subject import Subject, admitted
from crlib.version import __version__

__all__ = ["Report", "report"]

# Of the finished sections in a file: raise it when a section gains or changes a number.
FORMAT = 6


@dataclass(frozen=True)
class Report:
    """What :func:`report` found; shows as tables in a notebook and as text.

    Attributes:
        sections: by name, those that could be had.
        left_out: name to the reason, for the others.
        fingerprint: of weights, inputs and options.
    """

    sections: Mapping[str, Section] = field(repr=False)
    left_out: Mapping[str, str]
    fingerprint: str

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of each section, as plain values."""
        return {name: dict(s.numbers) for name, s in self.sections.items() if s.numbers}

    def html(self, path: str | Path) -> Path:
        """Write one self-contained HTML file; return its path."""
        whole = page.page("Report on a network", self.sections.values(), self.left_out)
        file = Path(path)
        file.write_text(whole, encoding="utf-8")
        return file

    def json(self, path: str | Path) -> Path:
        """Write the numbers as JSON, null for what is infinite; return the path."""
        told = {
            "crlib": __version__,
            "fingerprint": self.fingerprint,
            "left out": dict(self.left_out),
            "seconds": {name: s.seconds for name, s in self.sections.items()},
            "numbers": self.numbers,
        }
        file = Path(path)
        file.write_text(json.dumps(_finite(told), indent=1) + "\n", encoding="utf-8")
        return file

    def _repr_html_(self) -> str:
        return page.body(self.sections.values(), self.left_out)

    def __str__(self) -> str:
        told = []
        for name, title in TITLES.items():
            if name in self.sections:
                section = self.sections[name]
                told += ["", title, "-" * len(title), section.text]
                for table in section.tables:
                    told += _aligned(table.columns, table.rows)
                told += [f"! {section.caution}"] if section.caution else []
        told += [f"Left out: {TITLES[n]}: {why}" for n, why in self.left_out.items()]
        return "\n".join(told).strip()


@with_gradients
def report(
    model: Any,
    x: Tensor | DataLoader[Any],
    y: Tensor | None = None,
    *,
    eps: Mapping[str, float] | None = None,
    attacked: int = 200,
    baseline: Any = None,
    budget: str = "quick",
    seed: int = 0,
    batch_size: int | None = None,
    limit: float | None = None,
    autocast: torch.dtype | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Report:
    """Judge a network on your inputs: compressibility, distances, what to believe.

    Nine sections: the network and its inputs, distances to the boundary, whether the
    attacks can be trusted, the layers, where attacks go, one perturbation for all,
    what pruning, truncation and quantisation would do, a baseline, and the whole in
    words. Each says what its numbers may not be used for.

    Stopped by Ctrl-C it returns the sections that are finished. With ``resume`` they
    are kept in a file, and the same call goes on where it stopped.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1], or a DataLoader of inputs and labels, without ``y``.
        y: ``(N,)`` labels, int64.
        eps: budget of the robust accuracy for each norm among ``"linf"``, ``"l2"`` and
            ``"l1"``, in input units; None means ``{"linf": 8 / 255, "l2": 0.5}``.
        attacked: the first so many inputs are attacked.
        baseline: another network, for paired differences on the same inputs.
        budget: of :func:`crlib.attacks.worst_case`.
        seed: of every draw; the same call gives the same report, but for the seconds.
        batch_size: inputs in memory at once, at most; None means 128, or fewer if these
            keep more than the limit for the gradient.
        limit: gigabytes that a pass may keep for the gradient; None means one, on a GPU
            eight. A network that keeps more for a single input is refused.
        autocast: precision in which the attacks ask the network, such as
            ``torch.bfloat16``; what they report is confirmed in its own precision, in
            which all else is measured. None means its own.
        resume: a file that keeps finished sections; another network, other inputs or
            options begin it anew.
        progress: show a bar with the time left.

    Returns:
        A :class:`Report`.

    Raises:
        ValueError: what nothing can be said about, before any work: a bad option,
            inputs outside [0, 1], labels that do not fit, more memory than the limit,
            probabilities in place of logits, a network that draws at random or has no
            input gradient, accuracy at chance, fewer than twenty attacked inputs that
            are labelled right.

    Example:
        >>> import torch, crlib
        >>> x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
        >>> found = crlib.report(torch.nn.Identity(), x, x.argmax(1), progress=False)
        >>> round(found.numbers["card"]["accuracy"], 2), "layers" in found.left_out
        (1.0, True)
    """
    eps = {"linf": 8 / 255, "l2": 0.5} if eps is None else _budgets(eps)
    if isinstance(x, DataLoader):
        if y is not None:
            raise ValueError("x is a DataLoader, which has the labels: leave y out.")
        x, y = loading.inputs(x, model=model)
    if y is None:
        raise ValueError("Give labels: report(model, x, y), or a DataLoader of both.")
    subject = admitted(
        model,
        x,
        y,
        eps=eps,
        attacked=attacked,
        budget=budget,
        seed=seed,
        batch_size=batch_size,
        limit=limit,
        autocast=autocast,
        baseline=baseline,
    )
    kept = _kept(resume, subject.fingerprint)
    _keep(resume, subject.fingerprint, kept)
    left_out: dict[str, str] = {}
    names = list(sections.SECTIONS)
    with Bar(total=len(names), disable=not progress, desc="report") as bar:
        for n, name in enumerate(names):
            bar.set_postfix_str(TITLES[name])
            try:
                if name not in kept:
                    kept[name] = _timed(subject, name)
                    _keep(resume, subject.fingerprint, kept)
            except sections.LeftOut as reason:
                left_out[name] = str(reason)
            except KeyboardInterrupt:
                left_out |= dict.fromkeys(names[n:], "stopped before it")
                break
            bar.update()
    shown = {"words": sections.words(kept), **kept}
    if "card" in kept:
        shown["card"] = sections.with_seconds(kept)
    return Report(shown, left_out, subject.fingerprint)


def _budgets(eps: Any) -> dict[str, float]:
    """Return the budgets as plain numbers."""
    try:
        found = {norm: float(v) for norm, v in dict(eps).items()}
    except (TypeError, ValueError):
        found = {}
    if not found:
        raise ValueError(
            f'eps is {eps!r}: give a budget for each norm, {{"linf": 8 / 255}}, or'
            " leave it out."
        )
    return found


def _timed(subject: Subject, name: str) -> Section:
    start = time.perf_counter()
    found = sections.SECTIONS[name](subject)
    return replace(found, seconds=round(time.perf_counter() - start, 2))


def _kept(resume: str | Path | None, fingerprint: str) -> dict[str, Section]:
    """Return the sections of a resumed file, none if it is of something else."""
    if resume is None or not Path(resume).exists():
        return {}
    try:
        plain = json.loads(Path(resume).read_text(encoding="utf-8"))
        told = plain["crlib"], plain.get("format", 1), plain["fingerprint"]
        if told != (__version__, FORMAT, fingerprint):
            return {}
        return {s["name"]: Section.of(s) for s in plain["sections"]}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"{resume} is no file of a report that was stopped: name another, or"
            " delete it."
        ) from error


def _keep(
    resume: str | Path | None, fingerprint: str, kept: Mapping[str, Section]
) -> None:
    if resume is None:
        return
    plain = {
        "crlib": __version__,
        "format": FORMAT,
        "fingerprint": fingerprint,
        "sections": [s.plain() for s in kept.values()],
    }
    # A process that is killed while it writes leaves the old file whole.
    part = Path(f"{resume}.part")
    try:
        part.write_text(json.dumps(plain), encoding="utf-8")
        part.replace(resume)
    except OSError as error:
        raise ValueError(f"{resume} cannot be written: {error}.") from error


def _finite(v: Any) -> Any:
    """Return plain values with None for what JSON cannot say."""
    if isinstance(v, Mapping):
        return {k: _finite(w) for k, w in v.items()}
    if isinstance(v, list):
        return [_finite(w) for w in v]
    return None if isinstance(v, float) and v - v != 0 else v


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(columns), *map(list, rows)] if any(columns) else list(map(list, rows))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
