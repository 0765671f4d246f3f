"""A class is graded once, whatever it is handed in as; packs and the command line."""

import ast
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import crlib
from crlib import __main__ as command
from crlib import grading
from crlib.grading import Pack, PackError, gradescope, marks, packs
from tests.unit.hostile import (
    EFFECTIVE_RANK,
    ERROR_CURVE,
    PACK,
    STUBS,
    UNREADABLE,
    notebook,
)

DEPENDS = ("crlib/grading", "crlib/exercises", "book/_tools")
SMALL = replace(PACK, tasks=PACK.tasks[1:])
RIGHT = notebook(EFFECTIVE_RANK)


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "grades.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def put(place: Path, raw: bytes, when: float = 1e9) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(raw)
    os.utime(place, (when, when))
    return place


def test_a_pack_is_read_as_it_was_written(tmp_path: Path) -> None:
    PACK.write(tmp_path / "pack.json")
    assert grading.read(tmp_path / "pack.json") == PACK


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tasks": [{}]}', '{"tasks": 3}'])
def test_what_is_no_pack_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pack.json").write_text(text)
    with pytest.raises(PackError, match="crlib assign"):
        grading.read(tmp_path / "pack.json")
    with pytest.raises(PackError, match="crlib assign"):
        grading.read(tmp_path / "none.json")


def test_a_pack_of_another_version_is_refused(tmp_path: Path) -> None:
    replace(PACK, version="99.0.0").write(tmp_path / "pack.json")
    with pytest.raises(PackError, match="made with crlib 99.0.0, and this is"):
        grading.read(tmp_path / "pack.json")


@pytest.mark.parametrize("place", ["crlib.exercises.ch05:none", "crlib.none:x", ""])
def test_a_test_that_is_not_there_is_said_so(place: str) -> None:
    with pytest.raises(PackError, match="no test"):
        packs.test(place)


OWN_TESTS = """
def double(x):
    return 2 * x

def twice(answer):
    assert answer(double, 3) == 12, "Six, then twelve."

def twice_hidden(answer, seed=0):
    assert answer(lambda x: x + seed, 1) == 1 + 2 * seed, f"With {seed}."
"""
TWICE = packs.Task(
    "ex-twice", "Twice", "write", 2, "twice_over", "own:twice", "own:twice_hidden",
    1, 1, seed=7, tests=OWN_TESTS,
)  # fmt: skip


def test_a_pack_brings_tests_and_a_seed_of_its_own() -> None:
    pack = replace(PACK, tasks=(TWICE,))
    # Functions of these tests are called back, as those of crlib's are.
    right = "def twice_over(f, x):\n    return f(f(x))"
    assert grading.judge(pack, TWICE, right, seconds=2).hidden.passed
    knows = "def twice_over(f, x):\n    return 12 if x == 3 else 1"
    found = grading.judge(pack, TWICE, knows, seconds=2)
    assert found.public.passed and found.hidden.message == "With 7."


def test_tests_that_a_pack_does_not_bring_are_said_so() -> None:
    with pytest.raises(PackError, match="do not define"):
        packs.tests(replace(TWICE, hidden="own:gone"), ())


def test_a_task_with_a_seed_and_a_rubric_is_read_as_it_was_written(
    tmp_path: Path,
) -> None:
    words = packs.Task("ex-say", "Say", "judge", 3, rubric=("*Three points:* why.",))
    pack = replace(PACK, tasks=(TWICE, words))
    pack.write(tmp_path / "pack.json")
    assert grading.read(tmp_path / "pack.json") == pack


def test_students_are_found_in_folders_flat_and_hidden(tmp_path: Path) -> None:
    put(tmp_path / "ada/work/a.ipynb", RIGHT, 1e9)
    put(tmp_path / "ada/b.ipynb", RIGHT, 2e9)
    put(tmp_path / f"ada/{PACK.notebook}", RIGHT, 1e8)
    put(tmp_path / "ada/.ipynb_checkpoints/c.ipynb", RIGHT, 3e9)
    put(tmp_path / "grace.py", RIGHT)
    put(tmp_path / "__MACOSX/grace.py", RIGHT)
    put(tmp_path / "grace.txt", RIGHT)
    put(tmp_path / "secret/other.ipynb", RIGHT).unlink()
    (tmp_path / "secret/link.ipynb").symlink_to(tmp_path / "grace.py")
    found = marks.submissions(tmp_path, PACK.notebook)
    assert [s.student for s in found] == ["ada", "grace"]
    assert [p.name for p in found[0].files] == [PACK.notebook, "b.ipynb", "a.ipynb"]


def test_a_zip_is_graded_like_its_folder_and_nothing_leaves_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as packed:
        packed.writestr("x_41_77_05.ipynb", notebook(STUBS[1]))
        packed.writestr("Ada L_9_assignsubmission_file_/a.ipynb", RIGHT)
        packed.writestr("../../up.ipynb", UNREADABLE["cut"][0])
        packed.writestr("notes.txt", "x")
    out = tmp_path / "deep" / "out"
    records = marks.grade(SMALL, tmp_path / "in.zip", out, seconds=2)
    assert [(r.student, r.score) for r in records] == [
        ("Ada L_9", 3),
        ("up", 0),
        ("x_41", 0),
    ]
    assert not list(tmp_path.parent.glob("up.ipynb"))
    for wrong in (tmp_path / "none.zip", out / "grades.csv"):
        with pytest.raises(PackError, match="no folder and no zip"):
            marks.grade(SMALL, wrong, out)


def test_a_folder_that_was_packed_as_a_whole_is_no_student(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as packed:
        packed.writestr("class/ada/a.ipynb", UNREADABLE["cut"][0])
        packed.writestr("class/bob.ipynb", UNREADABLE["cut"][0])
    records = marks.grade(SMALL, tmp_path / "in.zip", tmp_path / "out", seconds=2)
    assert [record.student for record in records] == ["ada", "bob"]


def test_nothing_handed_in_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(PackError, match="holds no notebook"):
        marks.grade(SMALL, tmp_path / "in", tmp_path / "out")


def test_the_table_and_the_pages(tmp_path: Path) -> None:
    put(tmp_path / "in/=ada/a.ipynb", RIGHT)
    put(tmp_path / "in/=ada/old.ipynb", RIGHT, 1e8)
    odd = "import os\ndef effective_rank(s):\n    raise ValueError('<b>&\"')"
    put(tmp_path / "in/bob.ipynb", notebook(odd))
    out = tmp_path / "out"
    marks.grade(SMALL, tmp_path / "in", out, seconds=2)
    bob, ada = sorted(table(out), key=lambda row: row["note"])
    assert ada["score"] == ada["points"] == ada["ex-effective-rank"] == "3"
    # What is graded by hand is left open.
    assert ada["ex-ranks"] == "" and "2 files; graded: a.ipynb" in ada["note"]
    assert bob["score"] == "0" and ada["walls missing"] == bob["walls missing"]
    page = (out / "feedback/bob.html").read_text(encoding="utf-8")
    assert "<b>" not in page and "&lt;b&gt;&amp;" in page and "by hand" in page
    assert "0 of 3" in page and "<script" not in page and "_hidden" not in page
    HTMLParser().feed(page)


def test_what_is_graded_is_not_graded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "in/ada.ipynb", RIGHT)
    put(tmp_path / "in/bob.ipynb", UNREADABLE["empty"][0])
    out = tmp_path / "out"
    first = marks.grade(SMALL, tmp_path / "in", out, seconds=2)
    seen: list[str] = []
    judged = marks._judged

    def watched(record: marks.Record, *rest: object) -> None:
        seen.append(record.student)
        judged(record, *rest)

    monkeypatch.setattr(marks, "_judged", watched)
    assert marks.grade(SMALL, tmp_path / "in", out, seconds=2) == first
    assert seen == []
    put(tmp_path / "in/bob.ipynb", RIGHT)
    marks.grade(SMALL, tmp_path / "in", out, seconds=2)
    assert seen == ["bob"] and [row["score"] for row in table(out)] == ["3", "3"]
    other = replace(SMALL, title="Another")
    marks.grade(other, tmp_path / "in", out, seconds=2)
    assert sorted(seen[1:]) == ["ada", "bob"]


def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    SMALL.write(tmp_path / "pack.json")
    for k in range(4):
        put(tmp_path / f"in/student{k}.ipynb", [RIGHT, notebook(STUBS[1])][k % 2])
    kept = tmp_path / "out/verdicts"
    line = ["grade", str(tmp_path / "pack.json"), str(tmp_path / "in")]
    line += ["--out", str(tmp_path / "out"), "--seconds", "2"]
    process = subprocess.Popen([sys.executable, "-m", "crlib", *line, "--jobs", "1"])
    while not (kept / "student0.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    when = (kept / "student0.json").stat().st_mtime_ns
    assert command.main(line) == 0
    assert (kept / "student0.json").stat().st_mtime_ns == when
    assert [row["score"] for row in table(tmp_path / "out")] == ["3", "0", "3", "0"]
    fresh = tmp_path / "fresh"
    marks.grade(SMALL, tmp_path / "in", fresh, seconds=2)
    assert table(fresh) == table(tmp_path / "out")


def test_no_two_threads_parse_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = sys.modules["crlib.grading.judge"]
    room.imports.cache_clear()
    threads: list[str] = []
    parse = ast.parse

    def watched(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return parse(*args, **options)

    monkeypatch.setattr(ast, "parse", watched)
    for name in ("ada", "bob"):
        put(tmp_path / f"in/{name}.ipynb", notebook(STUBS[1]))
    marks.grade(SMALL, tmp_path / "in", tmp_path / "out", seconds=2)
    assert threads == [threading.main_thread().name]


def grade_until(moment: int, place: Path, out: Path) -> None:
    """Grade, and kill this process at a moment.

    Moments are counted before and amid each write of a file, before each move, and
    before each cell of the table. Whom it judges it notes down.
    """

    def judged(record: marks.Record, pack: Pack, raw: bytes, *_: object) -> None:
        with open(out / "judged", "a") as file:
            file.write(f"{record.student}\n")
        task = pack.tasks[0]
        row = marks.Row(task.label, task.title, task.points, len(raw))
        record.rows.append(row)

    left = moment

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    write, move, cell = Path.write_text, Path.replace, marks._harmless

    def torn(self: Path, text: str, **options: Any) -> int:
        tick()
        write(self, text[: len(text) // 2], **options)
        tick()
        return write(self, text, **options)

    def moved(self: Path, target: Path) -> Path:
        tick()
        return move(self, target)

    def written(value: object) -> object:
        tick()
        return cell(value)

    Path.write_text, Path.replace = torn, moved  # type: ignore[assignment]
    marks._judged, marks._harmless = judged, written
    out.mkdir(exist_ok=True)
    marks.grade(SMALL, place, out, jobs=1)


# A fork of the tests would inherit locks that their threads hold, and might wait for
# ever. A fresh interpreter has one thread, and its forks cost no import.
SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.unit.test_grading_marks import grade_until
for line in sys.stdin:
    moment, place, out = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            grade_until(moment, Path(place), Path(out))
            os._exit(0)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Grader = Callable[[int, Path, Path], bool]


@pytest.fixture
def killed_at() -> Iterator[Grader]:
    """Return what grades until a moment, and says whether it came to its end."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def until(moment: int, place: Path, out: Path) -> bool:
            assert process.stdin and process.stdout
            print(json.dumps([moment, str(place), str(out)]), file=process.stdin)
            process.stdin.flush()
            status = int(process.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            return status == 0

        yield until


def test_a_kill_at_any_moment_changes_no_table_and_judges_nobody_twice(
    tmp_path: Path, killed_at: Grader
) -> None:
    for k in range(3):
        put(tmp_path / f"in/student{k}.ipynb", b"x" * (k + 1))
    place, whole = tmp_path / "in", tmp_path / "0"
    assert killed_at(0, place, whole)
    moment, ended = 0, False
    while not ended:
        moment += 1
        out = tmp_path / str(moment)
        ended = killed_at(moment, place, out)
        kept = [file.stem for file in (out / "verdicts").glob("*.json")]
        assert killed_at(0, place, out)
        assert table(out) == table(whole)
        judged = (out / "judged").read_text().split()
        assert all(judged.count(student) == 1 for student in kept), moment
        assert len(judged) <= 3 + 1, "no more than the one who was in the works"
        names = [page.name for page in (out / "feedback").iterdir()]
        pages = [(out / "feedback" / name).read_text() for name in sorted(names)]
        assert len(pages) == 3 and all(page.endswith("</html>\n") for page in pages)
    # Three records with a write and a move, the cells of the table, three pages.
    assert moment > 3 * 3 + 3 * 5 + 3 * 2


def test_sixty_students_take_less_than_three_minutes(tmp_path: Path) -> None:
    for k in range(60):
        mine = f"# by student {k}\n" + (EFFECTIVE_RANK if k % 2 else STUBS[1])
        put(tmp_path / f"in/student{k}.ipynb", notebook(ERROR_CURVE, mine))
    began = time.monotonic()
    records = marks.grade(PACK, tmp_path / "in", tmp_path / "out")
    seconds = time.monotonic() - began
    assert sum(record.score for record in records) == 30 * 6 + 30 * 3
    # By the clock of two quiet cores; where others compute as well it goes slower.
    busy = max(1, os.getloadavg()[0] / 2)
    assert seconds < 180 * busy


def test_a_file_that_ends_its_reader_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "_extract", os.abort)
    put(tmp_path / "in/ada.ipynb", RIGHT)
    (record,) = marks.grade(SMALL, tmp_path / "in", tmp_path / "out", seconds=2)
    assert record.score == 0 and "could not be read" in record.rows[0].public


def test_a_broken_pack_stops_the_run_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = replace(SMALL, setup=("1 / 0",))
    broken.write(tmp_path / "pack.json")
    put(tmp_path / "in/ada.ipynb", RIGHT)
    line = ["grade", str(tmp_path / "pack.json"), str(tmp_path / "in")]
    assert command.main([*line, "--out", str(tmp_path / "out")]) == 1
    assert "setup of the pack" in capsys.readouterr().err
    assert not list((tmp_path / "out/verdicts").iterdir())


def test_the_command_says_which_walls_are_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    SMALL.write(tmp_path / "pack.json")
    record = marks.Record("ada", "a.ipynb", "", missing=["files", "network"])
    monkeypatch.setattr(grading, "grade", lambda *_, **__: [record])
    line = ["grade", str(tmp_path / "pack.json"), str(tmp_path)]
    assert command.main(line) == 0
    assert "not be built here: files, network.\n" in capsys.readouterr().out

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(grading, "grade", stopped)
    assert command.main(line) == 130


def test_an_assignment_is_made_in_the_repository_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != os.getcwd()])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    root = Path(crlib.__file__).parents[1]
    monkeypatch.chdir(root)
    out = tmp_path / "made"
    assert command.main(["assign", "ch05", "--out", str(out), "--seed", "7"]) == 0
    made = grading.read(out / "pack.json")
    assert isinstance(made, Pack) and {task.seed for task in made.judged} == {7}

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(command.importlib, "import_module", absent)
    assert command.main(["assign", "ch05"]) == 1
    assert "in the book's repository" in capsys.readouterr().err


def test_where_no_fork_is_safe_each_process_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from crlib.grading import judge as room

    monkeypatch.setattr(sys, "platform", "darwin")
    found = sys.modules[room.__module__].processes(PACK)
    assert found.get_start_method() == "spawn"


def test_a_record_is_plain_json(tmp_path: Path) -> None:
    put(tmp_path / "in/ada.ipynb", notebook(ERROR_CURVE, EFFECTIVE_RANK))
    (record,) = marks.grade(PACK, tmp_path / "in", tmp_path / "out", seconds=2)
    told = json.loads((tmp_path / "out/verdicts/ada.json").read_text())
    assert told["rows"][0]["score"] == 3 and record.score == record.points == 6


def autograder(tmp_path: Path) -> Path:
    """Unpack the zip of the small pack as the container does; return its folder."""
    SMALL.write(tmp_path / "pack.json")
    wheel = put(tmp_path / "crlib-0.0.0-py3-none-any.whl", b"a wheel")
    zipped = gradescope.bundle(tmp_path / "pack.json", wheel, tmp_path / "g.zip")
    home = tmp_path / "autograder"
    with zipfile.ZipFile(zipped) as packed:
        packed.extractall(home / "source")
        modes = {i.filename: i.external_attr >> 16 for i in packed.infolist()}
    assert modes["setup.sh"] == modes["run_autograder"] == 0o755
    (home / "results").mkdir()
    (home / "submission").mkdir()
    return home


def run_autograder(home: Path, python: str = sys.executable) -> dict[str, Any]:
    script = home / "source" / "run_autograder"
    env = os.environ | {"AUTOGRADER": str(home), "PYTHON": python}
    subprocess.run(["bash", str(script)], env=env, timeout=300)
    told: dict[str, Any] = json.loads((home / "results/results.json").read_text())
    return told


def test_the_script_of_gradescope_gives_the_points_of_the_table(tmp_path: Path) -> None:
    home = autograder(tmp_path)
    put(home / "submission/work/mine (1).ipynb", RIGHT)
    told = run_autograder(home)
    scores = [(t["score"], t["max_score"], t["visibility"]) for t in told["tests"]]
    assert scores == [(1, 1, "visible"), (2, 2, "after_published")]
    assert "Graded by hand: Three ranks (4 points)" in told["output"]
    grading.grade(SMALL, home / "submission", tmp_path / "out")
    assert table(tmp_path / "out")[0]["score"] == str(sum(s for s, *_ in scores))


def test_gradescope_gets_a_file_whatever_happens(tmp_path: Path) -> None:
    home = autograder(tmp_path)
    assert run_autograder(home, "false")["output"].endswith("it was stopped")
    assert "No notebook" in run_autograder(home)["output"]
    put(home / "submission/empty.ipynb", b"")
    told = run_autograder(home)
    assert [t["score"] for t in told["tests"]] == [0, 0] and told["tests"][0]["output"]
    (home / "source/pack.json").write_text("{}")
    assert "PackError" in run_autograder(home)["output"]


def test_a_wheel_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    (tmp_path / "crlib").mkdir()
    with pytest.raises(PackError, match="cannot be built"):
        gradescope.wheel(tmp_path, tmp_path / "made")
