"""The check goes on after a fault, names every fault, and hangs for none."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from book._tools import cache, check
from book._tools.check import Step

DEPENDS = ("book/_tools",)
LOOP = "def f():\n    while True:\n        pass\nf()"


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRLIB_BOOK_CACHE", str(tmp_path / "cache"))


def code(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_five_planted_faults_are_all_reported_with_a_command_each(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    planted = [
        (f"step {n}", lambda n=n: Step(f"step {n}", code(f"exit('fault {n}')"), 60))
        for n in range(5)
    ]
    good = ("good", lambda: Step("good", code("print('fine')"), 60))
    monkeypatch.setattr(
        check, "steps", lambda quick: [*planted[:2], good, *planted[2:]]
    )
    assert check.main(["--quick"]) == 1
    out = capfd.readouterr().out
    told = out[out.index("5 faults, each with the command") :]
    for n in range(5):
        assert f"* step {n}" in told and f"fault {n}" in told
    assert told.count("-c ") == 5 and "--- good: passed" in out
    assert "5 failed" in out.splitlines()[-1]


def test_a_step_over_files_is_left_out_until_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    for name in ("pyproject.toml", "requirements.lock", "good.py"):
        (tmp_path / name).write_text("")
    for text, fails in (("1", True), ("2", False), ("3", False)):
        (tmp_path / "good.py").write_text(text)
        step = check.unless_same("types", code(f"exit({fails})"), 60, "good.py")
        assert step is not None and bool(check.perform(step).faults) == fails
        again = check.unless_same("types", code(f"exit({fails})"), 60, "good.py")
        assert (again is None) == (not fails)
        assert check.unless_same("types", code("other"), 60, "good.py") is not None


def test_tests_that_fail_are_named_and_files_that_pass_are_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    bad = "def test_a():\n    pass\n\n\ndef test_b():\n    assert 1 == 2, 'planted'\n"
    (tmp_path / "test_bad.py").write_text(bad)
    (tmp_path / "test_good.py").write_text("def test_c():\n    pass\n")
    proves = {"test_good.py": "good", "test_bad.py": "bad", "test_gone.py": "gone"}
    command = check.pytest("-p", "no:cacheprovider", "--rootdir=.", ".")
    outcome = check.perform(Step("library", command, 120, proves, ("all",)))
    (fault,) = outcome.faults
    assert fault.what == "test_bad.py::test_b" and "planted" in fault.said
    assert fault.repeat.endswith("pytest -q test_bad.py::test_b")
    assert outcome.counts == {"passed": 2, "failed": 1}
    assert [check.proven(key) for key in ("good", "bad", "gone", "all")] == [
        True,
        False,
        False,
        False,
    ]
    (tmp_path / "test_bad.py").write_text("def test_a():\n    pass\n")
    assert not check.perform(Step("library", command, 120, proves, ("all",))).faults
    assert check.proven("bad") and check.proven("all") and not check.proven("gone")


def test_only_units_whose_exercises_changed_are_graded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = [Path(f"book/{name}.md") for name in ("ch01_a", "ch02_b", "intro")]
    asked = {page: [page.stem] for page in pages}
    fake = SimpleNamespace(test=lambda _: "key", asked=asked.__getitem__)
    monkeypatch.setattr(check, "sources", lambda: fake)
    monkeypatch.setattr(check.run, "pages", lambda: pages)

    def wanted() -> list[str]:
        step = check.doors()
        return [w for w in step.command if w.startswith("--page")] if step else []

    first = check.doors()
    assert first and wanted() == ["--page=ch01_a", "--page=ch02_b"]
    for key in first.all_or_nothing:
        cache.put("proofs", key, "doors")
    assert not wanted()
    asked[pages[1]] = ["another exercise"]
    assert wanted() == ["--page=ch02_b"]


def test_a_file_that_cannot_be_collected_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "test_bad.py").write_text("import nowhere_to_be_found\n")
    command = check.pytest("-p", "no:cacheprovider", "--rootdir=.", ".")
    outcome = check.perform(Step("library", command, 120, {"test_bad.py": "bad"}))
    assert outcome.faults and not check.proven("bad")


def test_a_command_that_never_ends_ends_with_its_stacks(
    capfd: pytest.CaptureFixture[str],
) -> None:
    began = time.monotonic()
    outcome = check.perform(Step("endless", code(LOOP), 3))
    assert time.monotonic() - began < 60
    assert "did not end within 3 s" in outcome.faults[0].said
    assert "in f" in capfd.readouterr().out


def test_a_test_that_never_ends_is_a_named_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    body = "def test_loops():\n    while True:\n        pass\n"
    wait = "import subprocess as s\n\n\ndef test_waits():\n    s.run(['sleep', '99'])\n"
    (tmp_path / "test_loop.py").write_text(body)
    (tmp_path / "test_wait.py").write_text(wait)
    command = check.pytest("-p", "no:cacheprovider", "--rootdir=.", "--timeout=3", ".")
    outcome = check.perform(Step("library", command, 120))
    assert sorted(fault.what for fault in outcome.faults) == [
        "test_loop.py::test_loops",
        "test_wait.py::test_waits",
    ]
    assert all("Timeout" in fault.said for fault in outcome.faults)


def test_what_is_kept_is_found_again_until_a_month_has_passed(tmp_path: Path) -> None:
    import os

    cache.put("proofs", "key", {"a": 1})
    assert cache.get("proofs", "key") == {"a": 1} and cache.get("proofs", "no") is None
    cache.trim()
    assert cache.get("proofs", "key")
    os.utime(tmp_path / "cache/proofs/key.json", (0, 0))
    cache.trim()
    assert cache.get("proofs", "key") is None


@pytest.mark.parametrize("whole", [True, False], ids=["file", "test"])
@pytest.mark.parametrize("lacks", [["CUDA"], []])
def test_a_skip_is_no_fault_and_proves_only_what_the_key_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: list[str], whole: bool
) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "missing", lambda: lacks)
    skip = f"pytest.skip('no CUDA device', allow_module_level={whole})"
    body = f"{skip}\n" if whole else f"def test_a():\n    {skip}\n"
    (tmp_path / "test_gpu.py").write_text(f"import pytest\n\n{body}")
    (tmp_path / "test_good.py").write_text("def test_b():\n    pass\n")
    command = check.pytest("-p", "no:cacheprovider", "--rootdir=.", ".")
    proves = {"test_gpu.py": "gpu", "test_good.py": "good"}
    outcome = check.perform(Step("library", command, 120, proves, ("all",)))
    assert not outcome.faults and outcome.counts == {"skipped": 1, "passed": 1}
    assert check.proven("good")
    assert check.proven("gpu") == check.proven("all") == bool(lacks)


def test_a_command_repeats_what_failed_in_a_notebook_or_a_docstring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "chapters").mkdir()
    cells = [nbformat.v4.new_code_cell(text) for text in ("x = 1", "assert x == 2")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "chapters/01_x.ipynb")
    (tmp_path / "crlib").mkdir()
    (tmp_path / "crlib/__init__.py").touch()
    wrong = 'def one():\n    """\n    >>> one()\n    2\n    """\n    return 1\n'
    (tmp_path / "crlib/norms.py").write_text(wrong)
    for options, what, repeat in (
        (
            ["--nbval-lax", "--nbval-current-env", "chapters/01_x.ipynb"],
            "chapters/01_x.ipynb::Cell 1",
            "chapters/01_x.ipynb",
        ),
        (["--doctest-modules", "crlib"], *["crlib/norms.py::crlib.norms.one"] * 2),
    ):
        command = check.pytest("-p", "no:cacheprovider", "--rootdir=.", *options)
        (fault,) = check.perform(Step("step", command, 120)).faults
        assert fault.what == what
        assert fault.repeat.endswith(f"-q {' '.join(options[:-1])} {repeat}")
        # It does repeat it: the fault is there, and no other.
        words = fault.repeat.replace(check.PYTHON, sys.executable).split()
        (again,) = check.perform(Step("again", words, 120)).faults
        assert again.what == what
