"""Each wall around a student's code taken out: what it stops must then succeed."""

from pathlib import Path

import pytest

from crlib.grading import WALLS, judge
from tests.unit import hostile
from tests.unit.hostile import PACK, RANK
from tests.unit.test_grading_judge import place, port

DEPENDS = ("crlib/grading", "crlib/exercises", "tests/unit")
DEEDS = sorted(hostile.deeds(Path("."), 0))
__all__ = ["place", "port"]


@pytest.mark.parametrize("name", DEEDS)
def test_without_its_wall_a_deed_succeeds(name: str, place: Path, port: int) -> None:
    source, _ = hostile.deeds(place, port)[name]
    wall = name.partition(":")[0]
    others = [w for w in WALLS if w != wall]
    verdict = judge(PACK, RANK, source, walled=others)
    assert verdict.public.passed, (name, verdict)


def test_every_wall_has_a_deed() -> None:
    assert {name.partition(":")[0] for name in DEEDS} == set(WALLS)
