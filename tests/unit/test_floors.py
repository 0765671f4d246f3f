"""The house has floors: a room imports what lies below it, never beside or above."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import crlib

DEPENDS = ("crlib",)
HOME = Path(crlib.__file__).parent
# From the ground up. A new room is entered on the lowest floor that it can stand on.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("asking", "progress", "version"),
    ("__init__", "checks", "claims", "fetch", "frames", "geometry", "models"),
    ("data", "figures", "metrics"),
    ("attacks", "certify", "compress", "theory"),
    ("exercises", "reporting", "train"),
    ("grading", "studies"),
    ("__main__",),
)
# Files without code of their own.
CELLARS = ("embedded", "results")


def room_of(path: Path) -> str:
    return path.relative_to(HOME).parts[0].removesuffix(".py")


FILES = [p for p in sorted(HOME.rglob("*.py")) if room_of(p) not in CELLARS]


def imported(path: Path) -> Iterator[str]:
    """Yield the rooms that a file imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not isinstance(node, ast.ImportFrom), "imports name the whole way"
            continue
        for name in names:
            if name.partition(".")[0] == "crlib":
                yield [*name.split("."), "__init__"][1]


def floor(room: str) -> int:
    (found,) = (k for k, rooms in enumerate(FLOORS) if room in rooms)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOME)))
def test_a_room_imports_only_from_the_floors_below(path: Path) -> None:
    own = room_of(path)
    for room in set(imported(path)) - {own, *CELLARS}:
        assert floor(room) < floor(own), f"{own} must not import {room}"


def test_every_room_has_one_floor() -> None:
    rooms = [room for rooms in FLOORS for room in rooms]
    assert sorted(rooms) == sorted({room_of(path) for path in FILES})


def test_the_attacks_need_no_theory() -> None:
    rooms = {r for p in FILES if room_of(p) == "attacks" for r in imported(p)}
    assert "theory" not in rooms and rooms >= {"checks", "geometry", "metrics"}
