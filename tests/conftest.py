"""What all tests share: no window, and the same examples in every run."""

import os

from hypothesis import HealthCheck, settings

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
