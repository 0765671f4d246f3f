"""Every law holds on thousands of cases and fails under each of its mistakes."""

import pytest

from tests.mutated import mutated
from tests.theory import (
    laws_bridge,  # noqa: F401
    laws_composition,  # noqa: F401
    laws_features,  # noqa: F401
    laws_layers,  # noqa: F401
    laws_pairs,  # noqa: F401
    laws_sensitivity,  # noqa: F401
)
from tests.theory.law import LAWS, Law, Mistake


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_law_holds(law: Law) -> None:
    law.holds()


@pytest.mark.parametrize(
    ("law", "mistake"),
    [(law, mistake) for law in LAWS for mistake in law.mistakes],
    ids=lambda v: v.name if isinstance(v, Law) else f"{v.find} -> {v.replace}",
)
def test_law_notices(law: Law, mistake: Mistake) -> None:
    with (
        mutated(mistake.where, mistake.find, mistake.replace),
        pytest.raises(AssertionError),
    ):
        law.holds()
