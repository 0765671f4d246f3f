"""What every test keeps to: limits, skips for a known cause, and no forks."""

import ast
import re
import tomllib

import pytest

from book._tools import check, depends

DEPENDS = ("tests", "pyproject.toml", "book/_tools")
FILES = sorted((depends.ROOT / "tests").rglob("*.py"))
TEXT = {file: file.read_text(encoding="utf-8") for file in FILES}


def forks(text: str) -> list[int]:
    """Return the lines that fork, or begin a process by a fork.

    In a process of many threads, as that of the tests is, the child waits for ever for
    a lock that one of them held.
    """
    return [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr in ("fork", "forkpty")
    ]


def test_nothing_forks() -> None:
    assert forks("import os\nif not os.fork():\n    pass\n") == [2]
    found = {str(file): forks(text) for file, text in TEXT.items()}
    assert not {name: lines for name, lines in found.items() if lines}


def test_what_a_test_may_miss_belongs_to_its_key() -> None:
    skips = re.compile(r"importorskip\(\s*\"(\w+)|find_spec\(\"(\w+)\"\) is None")
    named = {a or b for text in TEXT.values() for a, b in skips.findall(text)}
    assert {"distributed", "nbgrader", "safetensors"} <= named <= {*depends.OPTIONAL}


def test_a_test_ends_before_its_step_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it fails by its name, and the others of its step are judged."""
    limits: dict[str, float] = {}

    def note(name: str, folders: str, limit: float, *options: str) -> None:
        limits.update(dict.fromkeys(folders.split(), limit))

    monkeypatch.setattr(check, "tests", note)
    for _, prepare in check.steps(quick=False):
        if "tests" in prepare.__code__.co_names:
            prepare()
    config = tomllib.loads((depends.ROOT / "pyproject.toml").read_text())
    default = config["tool"]["pytest"]["ini_options"]["timeout"]
    assert limits.keys() >= {"tools", "book", "unit", "units", "canary"}
    for folder, limit in limits.items():
        place = depends.ROOT / "tests" / folder
        texts = [text for file, text in TEXT.items() if file.is_relative_to(place)]
        own = re.findall(r"mark\.timeout\((\d+)\)", "".join(texts))
        assert max([default, *map(int, own)]) < limit, folder
