"""Let tests import the tools of the book and each other; fix what hypothesis draws."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
FOLDERS = (
    TESTS,
    TESTS / "book",
    TESTS / "exercises",
    TESTS / "canary",
    TESTS / "theory",
)
sys.path[:0] = [str(TESTS.parent / "book" / "_tools"), *map(str, FOLDERS)]

# No window opens when a chapter's cell draws.
os.environ.setdefault("MPLBACKEND", "Agg")

# "fixed" draws the same examples every time; HYPOTHESIS_PROFILE=wide looks further.
COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile(
    "fixed", derandomize=True, database=None, max_examples=60, **COMMON
)
settings.register_profile("wide", max_examples=1000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
