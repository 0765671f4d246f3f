"""The walk of a newcomer sees what is wrong with a page, and runs every night."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEPENDS = ("benchmarks", "crlib", ".github")
ROOT = Path(__file__).parents[2]


def walk() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "newcomer", ROOT / "benchmarks" / "newcomer.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NEWCOMER = walk()
GOOD = "".join(f"<h2>{name}</h2>" for name in NEWCOMER.SECTIONS) + "<svg></svg>"


def test_three_lines_are_three_and_ask_for_a_report() -> None:
    assert NEWCOMER.LINES.count("\n") == 3
    ast.parse(NEWCOMER.LINES)
    assert ".html(" in NEWCOMER.LINES
    assert max(map(len, NEWCOMER.LINES.splitlines())) <= 88


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (GOOD, []),
        ("<svg></svg>", [f"no section {n!r}" for n in NEWCOMER.SECTIONS]),
        (GOOD.replace("<svg></svg>", ""), ["no picture"]),
        (GOOD + '<img src="http://a.b/c.png">', ["it asks for http://a.b/c.png"]),
        (GOOD + '<a href="#words">up</a>', []),
        (GOOD + "<script></script>", ["a script"]),
    ],
)
def test_what_is_wrong_with_a_page_is_named(page: str, told: list[str]) -> None:
    assert NEWCOMER.faults(page) == told


def test_without_a_browser_the_page_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NEWCOMER, "BROWSERS", ())
    monkeypatch.delenv("CHROMIUM", raising=False)
    (tmp_path / "r.html").write_text(GOOD)
    assert NEWCOMER.opened(tmp_path / "r.html") == (GOOD, "a reader of HTML")


def test_the_walk_is_a_job_of_the_night() -> None:
    nightly = (ROOT / ".github" / "workflows" / "nightly.yml").read_text()
    assert "python benchmarks/newcomer.py" in nightly


def test_a_walk_that_takes_longer_than_allowed_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(NEWCOMER.subprocess, "run", lambda c, **_: calls.append(c))
    monkeypatch.setattr(NEWCOMER, "opened", lambda file: (GOOD, "nothing"))
    monkeypatch.setattr(sys, "argv", ["newcomer.py", "--minutes", "10"])
    assert NEWCOMER.main() == 0
    assert [c[0] for c in calls][0] == "git" and calls[-1][-1] == "mine.py"
    assert calls[2][1:] == ["-m", "pip", "install", "-q", "./book"]
    monkeypatch.setattr(sys, "argv", ["newcomer.py", "--minutes", "-1"])
    assert NEWCOMER.main() == 1
    assert "minutes, more than -1" in capsys.readouterr().out
