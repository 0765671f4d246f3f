"""The judge: honest answers get their points, hostile ones nothing but a sentence."""

import importlib
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from crlib.grading import PackError, extract, judge, marks
from crlib.grading.tester import GONE, SILENT, Remote
from crlib.grading.worker import defined, serve
from tests.unit import hostile
from tests.unit.hostile import CURVE, EFFECTIVE_RANK, ERROR_CURVE, PACK, RANK, STUBS

DEPENDS = ("crlib/grading", "crlib/exercises")
# Of computing: what is right takes a hundredth.
SECONDS = 2


def handed_in(place: Path, files: dict[str, bytes]) -> Path:
    """Write one folder for each student."""
    for student, raw in files.items():
        folder = place / student
        folder.mkdir(parents=True)
        (folder / f"{student} (1).ipynb").write_bytes(raw)
    return place


def graded(tmp_path: Path, files: dict[str, bytes]) -> dict[str, marks.Record]:
    place = handed_in(tmp_path / "in", files)
    records = marks.grade(PACK, place, tmp_path / "out", seconds=SECONDS)
    return {record.student: record for record in records}


@pytest.fixture(scope="module")
def missing() -> tuple[str, ...]:
    """The walls that this machine lacks."""
    return judge(PACK, CURVE, ERROR_CURVE, seconds=SECONDS).missing


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of things that a student must not reach."""
    (tmp_path / "classmate.py").write_text(EFFECTIVE_RANK)
    (tmp_path / "precious").write_text("x")
    with sqlite3.connect(tmp_path / "gradebook.db") as book:
        book.execute("create table grade (score int)")
        book.execute("insert into grade values (0)")
    return tmp_path


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_honest_answers_get_all_points_in_any_state_of_the_file(tmp_path: Path) -> None:
    for student, record in graded(tmp_path, dict(hostile.HONEST)).items():
        assert record.score == record.points == 6, (student, record)


def test_no_hostile_answer_gets_a_point_or_costs_one(
    tmp_path: Path, missing: tuple[str, ...]
) -> None:
    tried = {
        name: told
        for name, told in hostile.HOSTILE.items()
        if hostile.NEEDS.get(name) not in missing
    }
    files = {
        n: hostile.notebook(ERROR_CURVE, source) for n, (source, _) in tried.items()
    }
    files |= {name: raw for name, (raw, _) in hostile.UNREADABLE.items()}
    files["honest"] = hostile.notebook(ERROR_CURVE, EFFECTIVE_RANK)
    files["half"] = hostile.notebook(ERROR_CURVE, STUBS[1])
    files["stub"] = hostile.notebook(*STUBS)
    records = graded(tmp_path, files)
    for name, (_, said) in tried.items():
        curve, rank, _ = records[name].rows
        assert (curve.score, rank.score) == (3, 0), (name, records[name])
        assert re.search(said, rank.public), (name, rank.public)
    for name, (_, said) in hostile.UNREADABLE.items():
        assert records[name].score == 0 and said in records[name].note, name
        assert said in records[name].rows[1].public
    scores = [records[name].score for name in ("honest", "half", "stub")]
    assert scores == [6, 3, 0]
    assert records["stub"].rows[0].hidden == "Not written yet."
    for name in ("frames", "patched tests", "a secret"):
        assert records[name].rows[1].flags, f"{name} is worth a look"


def test_every_wall_stands(place: Path, port: int, missing: tuple[str, ...]) -> None:
    if missing:
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    for name, (source, said) in hostile.deeds(place, port).items():
        verdict = judge(PACK, RANK, source, seconds=SECONDS)
        assert verdict.missing == ()
        assert not verdict.public.passed and not verdict.hidden.passed, name
        assert said in verdict.public.message, (name, verdict)
    assert (place / "precious").exists() and not (place / "new").exists()


def test_the_half_that_is_right_gets_its_half() -> None:
    flat = "def effective_rank(s):\n    return float(len(s))"
    verdict = judge(PACK, RANK, flat, seconds=SECONDS)
    assert verdict.public.passed and not verdict.hidden.passed
    late = (
        "def effective_rank(s):\n    if len(s) not in (5, 16):\n"
        "        while True:\n            pass\n    return float(len(s))"
    )
    verdict = judge(PACK, RANK, late, seconds=1)
    assert verdict.public.passed
    assert "may take 1 seconds of computing" in verdict.hidden.message


def test_where_no_fork_is_safe_an_answer_is_judged_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = importlib.import_module("crlib.grading.judge")
    monkeypatch.setattr(room, "processes", lambda _: get_context("spawn"))
    verdict = judge(PACK, RANK, EFFECTIVE_RANK, seconds=SECONDS)
    assert verdict.public.passed and verdict.hidden.passed


def test_what_the_setup_computes_is_not_charged_to_the_student() -> None:
    busy = f"import time\nwhile time.process_time() < {SECONDS + 1}: pass"
    slow = replace(PACK, setup=(*PACK.setup, busy))
    assert judge(slow, RANK, EFFECTIVE_RANK, seconds=SECONDS).hidden.passed


def test_a_fault_of_the_pack_is_no_fault_of_the_student() -> None:
    broken = replace(PACK, setup=("1 / 0",))
    with pytest.raises(PackError, match="setup of the pack does not run"):
        judge(broken, RANK, EFFECTIVE_RANK, seconds=SECONDS)
    lost = replace(RANK, hidden="crlib.exercises.ch05:nothing")
    with pytest.raises(PackError, match="There is no test"):
        judge(PACK, lost, EFFECTIVE_RANK, seconds=SECONDS)


# A function of a test, and what it was given.
given: list[Any] = []


def recording(x: torch.Tensor, *, times: int = 1) -> torch.Tensor:
    if times == 3:
        raise KeyError("three")
    given.append(x)
    return times * x


@pytest.fixture
def remote() -> Iterator[Any]:
    """Return a function that serves another one in a thread, as a worker does."""
    ends, threads = [], []

    def served(function: Any) -> Remote:
        ours, theirs = Pipe()
        thread = threading.Thread(target=serve, args=(theirs, function), daemon=True)
        thread.start()
        ends.append(ours)
        threads.append(thread)
        return Remote(ours, __name__)

    yield served
    for end in ends:
        end.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_call_travels_there_and_back(remote: Any) -> None:
    far = remote(lambda x, k=1: {"sum": (x * k).sum(), "shape": tuple(x.shape)})
    found = far.call(torch.ones(2, 3), k=2)
    assert found == {"sum": torch.tensor(12.0), "shape": (2, 3)}
    with_gradient = torch.ones(2, requires_grad=True)
    assert far.call(with_gradient)["sum"].requires_grad


def test_a_function_of_a_test_is_called_where_the_test_is(remote: Any) -> None:
    given.clear()
    far = remote(lambda f, x: f(f(x), times=2))
    assert torch.equal(far.call(recording, torch.ones(2)), 2 * torch.ones(2))
    assert len(given) == 2
    with pytest.raises(KeyError, match="three"):
        remote(lambda f: f(torch.ones(1), times=3)).call(recording)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no"), ValueError),
        (type("Mine", (IndexError,), {})("no"), IndexError),
        (SystemExit("no"), Exception),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "no"), Exception),
    ],
)
def test_errors_keep_their_names_and_nearest_class(
    remote: Any, error: BaseException, kind: type[Exception]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind, match="no") as caught:
        remote(fail).call()
    assert type(caught.value).__name__ == type(error).__name__


def test_an_error_without_a_text_is_an_error(remote: Any) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fail() -> None:
        raise Silent

    with pytest.raises(Exception, match="^$"):
        remote(fail).call()


def test_what_does_not_define_raises_when_called() -> None:
    broken = defined("1 / 0", "f", {})
    with pytest.raises(ZeroDivisionError):
        broken(1, k=2)
    with pytest.raises(KeyError):
        defined("g = 1", "f", {})()
    assert defined("def f():\n    return 3", "f", {})() == 3


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", SILENT),
        (b"junk", SILENT),
        (b'["list"]', SILENT),
        (b'["tuple", "raised", ["list", 1], "x"]', SILENT),
        (b'["tuple", "call", 7, ["tuple"], ["dict"]]', SILENT),
        (b'["tuple", "returned", 1, 2]', SILENT),
        (None, GONE),
    ],
)
def test_a_worker_that_answers_out_of_turn_is_gone(
    sent: bytes | None, why: str
) -> None:
    ours, theirs = Pipe()
    if sent is None:
        theirs.close()
    else:
        theirs.send_bytes(sent)
    far = Remote(ours, __name__)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=re.escape(why)):
            far.call(1)
    assert far.gone == why


def test_a_worker_that_never_gets_ready_is_a_fault_of_the_pack() -> None:
    ours, theirs = Pipe()
    theirs.close()
    with pytest.raises(PackError, match="setup"):
        Remote(ours, __name__).ready()


def test_the_answer_of_the_library_is_flagged_not_judged() -> None:
    theirs = hostile.notebook(
        "def effective_rank(s):\n    return metrics.effective_rank(s)"
    )
    answer = extract.answers(theirs, [RANK])[RANK.label]
    assert answer.flags == ("metrics.effective_rank",)
    may = replace(RANK, uses=("metrics.effective_rank",))
    assert extract.answers(theirs, [may])[RANK.label].flags == ()
    assert judge(PACK, RANK, answer.source, seconds=SECONDS).hidden.passed


def test_a_second_exercise_is_judged_by_its_own_test() -> None:
    verdict = judge(PACK, CURVE, ERROR_CURVE, seconds=SECONDS)
    assert verdict.public.passed and verdict.hidden.passed
