"""What the tests of a unit are about: its manuscript, and what stands in it."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from book._tools import gates, manuscript
from tests.units import mutating

ROOT = Path(__file__).parents[2]


@cache
def _read(name: str) -> manuscript.Manuscript:
    found = list((ROOT / "book").glob(f"{name}_*.md"))
    assert len(found) == 1, f"{len(found)} manuscripts are called book/{name}_*.md"
    return manuscript.read(found[0])


def _book(module: Any) -> manuscript.Manuscript:
    return _read(module.__name__.rpartition(".")[2])


@pytest.fixture(scope="module")
def book(request: pytest.FixtureRequest) -> manuscript.Manuscript:
    return _book(request.module)


@pytest.fixture(scope="module")
def setup(book: manuscript.Manuscript) -> dict[str, Any]:
    """The names that the setup cells define."""
    namespace = gates.fresh()
    gates.run_all(book.tagged("setup"), namespace)
    return namespace


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a theorem, a mutation, an exercise."""
    if "book" not in metafunc.fixturenames:
        return
    found = _book(metafunc.module)
    for name, values in (
        ("label", mutating.labels(found)),
        ("mutation", metafunc.module.MUTATIONS),
        ("exercise", list(gates.exercise_labels(found))),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=str)
