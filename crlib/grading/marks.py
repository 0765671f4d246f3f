"""Grade a class: a folder or a zip in, a table and a page for each student out.

What is graded is kept, one file for each student, by the bytes that were handed in and
the pack. A second run after an interruption goes on where the first one stopped.
"""

import csv
import hashlib
import json
import os
import re
import tempfile
import time
import zipfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from crlib.grading import extract, feedback, walls
from crlib.grading.extract import Answer, Unreadable
from crlib.grading.judge import SECONDS, START, judge, processes
from crlib.grading.packs import Pack, PackError, Task
from crlib.version import __version__

SUFFIXES = (".ipynb", ".py")
UNREADABLE = "Your file could not be read in time: is it a notebook?"


@dataclass
class Row:
    """What a student gets for one exercise; ``score`` is None where a hand grades.

    Of it ``open`` is for the public test.
    """

    label: str
    title: str
    points: int
    score: int | None = None
    public: str = ""
    hidden: str = ""
    open: int = 0
    flags: list[str] = field(default_factory=list)


@dataclass
class Record:
    """What a student gets, and for which file."""

    student: str
    file: str
    digest: str
    note: str = ""
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def score(self) -> int:
        return sum(row.score or 0 for row in self.rows)

    @property
    def points(self) -> int:
        """What could be had from the exercises that are judged."""
        return sum(row.points for row in self.rows if row.score is not None)

    def text(self) -> str:
        """Return what a student is told, in lines."""
        lines = [f"{self.score} of {self.points} points. {self.note}".strip()]
        for row in self.rows:
            if row.score is None:
                lines.append(f"{row.title}: {row.points} points, graded by hand")
            else:
                lines.append(f"{row.title}: {row.score} of {row.points}")
                lines.append(f"  open test: {row.public}")
                lines.append(f"  further test: {row.hidden}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Submission:
    """The files of one student, the one to grade first."""

    student: str
    files: tuple[Path, ...]


def grade(
    pack: Pack,
    submitted: Path,
    out: Path,
    *,
    jobs: int = 2,
    seconds: int = SECONDS,
    walled: Collection[str] = walls.WALLS,
) -> list[Record]:
    """Grade what was handed in; write ``grades.csv`` and ``feedback/*.html``.

    Args:
        pack: of the unit.
        submitted: a folder with one folder or file for each student, or a zip of one.
        out: a folder, made if need be; what it holds of an earlier run stays.
        jobs: students at once.
        seconds: of computing, for each answer.
        walled: the walls to build around the answers.

    Returns:
        One record for each student, in the order of their names.

    Raises:
        PackError: nothing was handed in, or the pack is at fault.
    """
    for folder in (out / "verdicts", out / "feedback"):
        folder.mkdir(parents=True, exist_ok=True)

    def one(submission: Submission) -> Record:
        return graded(pack, submission, out, seconds, walled)

    # Here and not in the threads, which must not parse at once.
    processes(pack)

    with opened(submitted) as place:
        found = submissions(place, pack.notebook)
        if not found:
            raise PackError(f"{submitted} holds no notebook: give a folder or a zip.")
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            try:
                records = list(pool.map(one, found))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    write(pack, records, out)
    return records


def submissions(place: Path, notebook: str) -> list[Submission]:
    """Return what students handed in, by name.

    A student is a folder, or a file in a flat folder; of names such as Canvas and
    Moodle give, what stands before the name of the file itself. Of several files the
    one with the name that was given out counts, or else the newest.
    """
    grouped: dict[str, list[Path]] = {}
    for path in sorted(place.rglob("*")):
        parts = path.relative_to(place).parts
        hidden = any(p.startswith((".", "__MACOSX")) for p in parts)
        if path.suffix in SUFFIXES and path.is_file() and not hidden:
            # A link leads to what its maker could not read.
            if not any(p.is_symlink() for p in (path, *path.parents)):
                grouped.setdefault(student(parts), []).append(path)

    def worth(path: Path) -> tuple[bool, float, str]:
        return path.name.endswith(notebook), path.stat().st_mtime, str(path)

    return [
        Submission(name, tuple(sorted(files, key=worth, reverse=True)))
        for name, files in sorted(grouped.items())
    ]


def student(parts: tuple[str, ...]) -> str:
    """Return whose a file is, from its place under the folder that was handed in.

    >>> student(("Ada Lovelace_123_assignsubmission_file_", "ch05.ipynb"))
    'Ada Lovelace_123'
    >>> student(("lovelaceada_LATE_41_1203_05_measuring-2.ipynb",))
    'lovelaceada_41'
    >>> student(("ada", "work", "ch05.ipynb")), student(("grace.ipynb",))
    ('ada', 'grace')
    """
    first = parts[0] if len(parts) > 1 else Path(parts[0]).stem
    moodle = re.match(r"(.+?_\d+)_assignsubmission", first)
    canvas = re.match(r"([^_]+)(?:_LATE)?(_\d+)_\d+_", first)
    if moodle:
        first = moodle[1]
    elif canvas and len(parts) == 1:
        first = canvas[1] + canvas[2]
    return re.sub(r"[^\w .@+-]", "_", first)


@contextmanager
def opened(submitted: Path) -> Iterator[Path]:
    """Give a folder as it is; unpack of a zip what may be a submission."""
    if submitted.is_dir():
        yield submitted
        return
    with tempfile.TemporaryDirectory(prefix="crlib-") as place:
        try:
            with zipfile.ZipFile(submitted) as packed:
                for info in packed.infolist():
                    right = info.filename.endswith(SUFFIXES) and not info.is_dir()
                    if right and info.file_size <= 2 * extract.MOST:
                        inner = Path(packed.extract(info, place))
                        when = time.mktime((*info.date_time, 0, 0, -1))
                        os.utime(inner, (when, when))
        except (OSError, zipfile.BadZipFile) as error:
            raise PackError(f"{submitted} is no folder and no zip ({error}).") from None
        inside = list(Path(place).iterdir())
        # A folder that was packed as a whole.
        whole = len(inside) == 1 and inside[0].is_dir()
        yield inside[0] if whole else Path(place)


def graded(
    pack: Pack,
    submission: Submission,
    out: Path,
    seconds: int,
    walled: Collection[str],
) -> Record:
    """Return the record of a student, from an earlier run if nothing has changed."""
    path = submission.files[0]
    raw = path.read_bytes()
    about = json.dumps([asdict(pack), __version__, seconds, sorted(walled)])
    digest = hashlib.sha256(about.encode() + b"\0" + raw).hexdigest()
    kept = out / "verdicts" / f"{submission.student}.json"
    if kept.exists():
        told: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if told["digest"] == digest:
            rows = [Row(**row) for row in told.pop("rows")]
            return Record(**told, rows=rows)
    record = Record(submission.student, path.name, digest)
    if len(submission.files) > 1:
        record.note = f"{len(submission.files)} files; graded: {path.name}. "
    _judged(record, pack, raw, seconds, walled)
    # A run that is stopped here leaves all of a student's record, or nothing.
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    part.replace(kept)
    return record


def _judged(
    record: Record, pack: Pack, raw: bytes, seconds: int, walled: Collection[str]
) -> None:
    found = extracted(pack, raw, seconds)
    if isinstance(found, str):
        record.note += found
        found = {task.label: Answer(note=found) for task in pack.judged}
    for task in pack.tasks:
        row = Row(task.label, task.title, task.points)
        record.rows.append(row)
        if task.kind != "write":
            continue
        answer = found[task.label]
        row.score, row.flags = 0, list(answer.flags)
        if not answer.source:
            row.public = row.hidden = answer.note
            continue
        verdict = judge(pack, task, answer.source, seconds=seconds, walled=walled)
        row.public, row.hidden = verdict.public.message, verdict.hidden.message
        row.open = task.public_points * verdict.public.passed
        row.score = row.open + task.hidden_points * verdict.hidden.passed
        record.missing = list(verdict.missing)


def extracted(
    pack: Pack, raw: bytes, seconds: int, given: Sequence[tuple[str, str]] = ()
) -> dict[str, Answer] | str:
    """Read a file in a process of its own, which it may crash; return why it cannot.

    With the cells that students were ``given`` also what they wrote to the questions
    that a hand grades (``extract.written``).
    """
    context = processes(pack)
    end, told = context.Pipe(duplex=False)
    job = (told, raw, pack.judged, list(given), seconds)
    reader = context.Process(target=_extract, args=job, daemon=True)
    reader.start()
    told.close()
    try:
        if not end.poll(START + 3 * seconds):
            return UNREADABLE
        found: dict[str, Any] = json.loads(end.recv_bytes())
    except EOFError:
        return UNREADABLE
    finally:
        reader.kill()
        reader.join()
        end.close()
    if "unreadable" in found:
        return str(found["unreadable"])
    return {label: Answer(**answer) for label, answer in found.items()}


def _extract(
    end: Connection,
    raw: bytes,
    tasks: list[Task],
    given: list[tuple[str, str]],
    seconds: int,
) -> None:  # pragma: no cover - a process of its own, which no coverage sees
    walls.build(["limits"], seconds)
    found: dict[str, Any]
    try:
        answers = extract.answers(raw, tasks)
        texts = extract.written(raw, given) if given else {}
        answers |= {label: Answer(text) for label, text in texts.items()}
        found = {label: asdict(answer) for label, answer in answers.items()}
    except Unreadable as error:
        found = {"unreadable": str(error)}
    end.send_bytes(json.dumps(found).encode())


def write(pack: Pack, records: list[Record], out: Path) -> None:
    """Write ``grades.csv`` and a page of feedback for each student."""
    with open(out / "grades.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        labels = [task.label for task in pack.tasks]
        ends = ["flags", "note", "walls missing"]
        table.writerow(["student", "score", "points", *labels, *ends])
        for record in records:
            scores = [row.score for row in record.rows]
            flags = sorted({flag for row in record.rows for flag in row.flags})
            about = [" ".join(flags), record.note, " ".join(record.missing)]
            line = [record.student, record.score, record.points, *scores, *about]
            table.writerow(map(_harmless, line))
    for record in records:
        page = out / "feedback" / f"{record.student}.html"
        page.write_text(feedback.page(pack, record), encoding="utf-8")


def _harmless(cell: object) -> object:
    """Keep a spreadsheet from taking what a student wrote for a formula."""
    text = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@"))
    return f"'{cell}" if text else cell
