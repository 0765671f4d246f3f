"""A false claim stops; an interval covers as often as it says."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crlib.claims import (
    ClaimError,
    Interval,
    Verdict,
    claim,
    every,
    glue,
    interval,
    median_interval,
    wilson,
)


@pytest.mark.parametrize("true", [True, np.True_, torch.tensor(True), np.array([True])])
def test_a_true_claim_prints_its_sentence(
    true: object, capsys: pytest.CaptureFixture[str]
) -> None:
    claim("Two is even.", true, "2 % 2 = 0")
    assert capsys.readouterr().out == "✓ Two is even. (2 % 2 = 0)\n"


@pytest.mark.parametrize(
    "false", [False, np.False_, torch.tensor(False), math.nan, torch.tensor([False])]
)
def test_a_false_claim_raises_with_its_sentence(
    false: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClaimError, match="Three is even.") as error:
        claim("Three is even.", false, "3 % 2 = 1")
    assert "3 % 2 = 1" in str(error.value)
    assert isinstance(error.value, AssertionError)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "✓ Two ≤ 2.\n‹a_b› = ½\n"),
        ("cp1252", "OK: Two \\u2264 2.\n‹a_b› = ½\n"),
        ("ascii", "OK: Two \\u2264 2.\n\\u2039a_b\\u203a = \\xbd\n"),
    ],
)
def test_an_output_without_the_signs_is_no_reason_to_stop(
    encoding: str, shown: str
) -> None:
    """Elsewhere the output of a script on Windows is cp1252, which has no tick."""
    code = (
        "from crlib.claims import claim, glue\n"
        "claim('Two \\u2264 2.', True)\nglue('a_b', '\\xbd')"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env=environment | {"PYTHONIOENCODING": encoding},
    )
    assert done.stdout.decode(encoding).replace("\r", "") == shown


def test_a_claim_about_many_values_must_be_reduced_first() -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        claim("All are even.", torch.tensor([True, True]))


def test_glue_prints_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    glue("ch01_accuracy", "85.1 %")
    out = capsys.readouterr().out
    assert "ch01_accuracy" in out and "85.1 %" in out


def test_glue_hands_the_text_to_the_book_so_that_it_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def record(name: str, value: object, display: bool) -> None:
        seen[name] = (repr(value), display)

    monkeypatch.setitem(sys.modules, "myst_nb", SimpleNamespace(glue=record))
    monkeypatch.setenv("CRLIB_BOOK", "1")
    glue("ch01_accuracy", "1.00")
    text, display = seen["ch01_accuracy"]
    assert text.strip("\u2060") == "1.00" and not display
    with pytest.raises(ValueError):
        float(text)
    assert not capsys.readouterr().out


def test_every_verdict_holds_where_the_closest_does() -> None:
    wide, narrow = interval([1.0, 3.0, 2.0]), interval([1.9, 2.0, 2.1])
    both = every(gap.above(1.5) for gap in (wide, narrow))
    assert not both and both.slack == wide.above(1.5).slack
    assert every([narrow.above(1.5)])
    with pytest.raises(ValueError, match="claim about nothing"):
        every([])


def test_no_order_hides_a_verdict_that_fails() -> None:
    good, bad = interval([1.9, 2.0, 2.1]).above(1.5), Verdict(math.nan)
    assert good and not bad
    assert not every([good, bad]) and not every([bad, good])
    assert not good & bad and not bad & good


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "differs"),
    [
        (5, math.inf, True, False, True),
        (1, math.inf, False, False, False),
        (math.inf, math.inf, True, False, True),
        (-math.inf, 0, False, True, True),
        (-math.inf, math.inf, False, False, False),
    ],
)
def test_an_end_at_infinity_lies_on_its_side(
    low: float, high: float, above: bool, below: bool, differs: bool
) -> None:
    """Of one as the bound: what no attack reached lies above any distance."""
    found = Interval(max(low, 0.0), low, high, 10)
    verdicts = found.above(1), found.below(1), found.differs(1)
    assert tuple(map(bool, verdicts)) == (above, below, differs)
    assert all(abs(verdict.slack) == math.inf for verdict in verdicts)
    assert not found.above(math.inf) and not found.differs(math.nan)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_the_interval_is_students(samples: list[float], level: float) -> None:
    found = interval(samples, level)
    assert found.low <= found.mean <= found.high and found.n == len(samples)
    spread = stats.sem(samples)
    if spread > 1e-9:
        low, high = stats.t.interval(
            level, len(samples) - 1, loc=np.mean(samples), scale=spread
        )
        assert found.low == pytest.approx(low, rel=1e-6, abs=1e-6)
        assert found.high == pytest.approx(high, rel=1e-6, abs=1e-6)


def test_the_interval_covers_as_often_as_it_says() -> None:
    runs = np.random.default_rng(0).normal(3, 2, (2000, 5))
    found = [interval(row, 0.9) for row in runs]
    share = np.mean([f.low <= 3 <= f.high for f in found])
    assert share == pytest.approx(0.9, abs=0.02)


def test_an_interval_reads_well() -> None:
    found = interval([torch.tensor(0.5), 0.6, np.float64(0.7)])
    assert str(found) == "0.6 [0.352, 0.848]"
    assert found.format(".1f", scale=100) == "60.0 [35.2, 84.8]"


@pytest.mark.parametrize(
    ("samples", "level", "message"),
    [
        ([], 0.95, "two runs"),
        ([1.0], 0.95, "two runs"),
        ([1.0, math.nan], 0.95, "not finite"),
        ([1.0, math.inf], 0.95, "not finite"),
        ([1.0, 2.0], 0.0, "between 0 and 1"),
        ([1.0, 2.0], 1.0, "between 0 and 1"),
        ([1.0, 2.0], math.nan, "between 0 and 1"),
    ],
)
def test_too_few_runs_or_a_bad_level_are_refused(
    samples: list[float], level: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        interval(samples, level)


def test_a_verdict_knows_its_room() -> None:
    found = interval([2.0, 2.2, 2.4])
    half = (found.high - found.low) / 2
    assert found.above(1).slack == pytest.approx((found.low - 1) / half)
    assert found.below(4).slack == pytest.approx((4 - found.high) / half)
    assert found.differs().slack == pytest.approx(found.low / half)
    assert found.differs(9).slack == pytest.approx((9 - found.high) / half)
    assert found.above(1) and not found.above(2) and not found.below(2)
    assert not found.differs(2.2) and found.differs(2.2).slack == pytest.approx(-1)
    both = found.above(1) & found.below(4)
    assert both.slack == min(found.above(1).slack, found.below(4).slack)
    assert bool(both) is True and float(both) == 1.0
    claim("It lies between.", both)


def test_runs_that_all_agree_leave_no_doubt() -> None:
    same = interval([2.0, 2.0, 2.0])
    assert same.above(1).slack == math.inf and same.above(3).slack == -math.inf
    assert not same.above(2)


def test_a_verdict_leaves_its_slack_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "claims.jsonl"
    monkeypatch.setenv("CRLIB_CLAIMS", str(file))
    found = interval([2.0, 2.2, 2.4])
    claim("It is above one.", found.above(1))
    claim("Two is even.", 2 % 2 == 0)
    (told,) = map(json.loads, file.read_text().splitlines())
    assert told == ["It is above one.", round(found.above(1).slack, 4)]
    with pytest.raises(ClaimError, match="above three"):
        claim("It is above three.", found.above(3))


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 20), (3, 7), (20, 20), (64, 200)])
def test_wilsons_interval_is_scipys(hits: int, n: int, level: float) -> None:
    found = wilson(hits, n, level)
    ends = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1e-12)
    assert found.mean == hits / n and found.n == n
    assert 0 <= found.low <= found.mean <= found.high <= 1


@pytest.mark.parametrize("bad", [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 2, 1.0)])
def test_a_share_that_is_none_is_refused(bad: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="hits lie between 0 and n"):
        wilson(*bad)


@pytest.mark.parametrize(("n", "least"), [(6, 1), (7, 1), (20, 6), (100, 40)])
def test_the_interval_of_a_median_is_of_order_statistics(n: int, least: int) -> None:
    found = median_interval(range(1, n + 1))
    assert (found.low, found.high, found.n) == (least, n + 1 - least, n)
    assert found.mean == (n + 1) / 2
    # It covers by counting, and the next smaller one would not.
    covers = [1 - 2 * stats.binom.cdf(k - 1, n, 0.5) for k in (least, least + 1)]
    assert covers[0] >= 0.95 > covers[1]


def test_the_interval_of_a_median_covers_whatever_the_distribution() -> None:
    draws = np.random.default_rng(0).standard_cauchy((3000, 20))
    found = [median_interval(row) for row in draws]
    share = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.945 < share < 0.972  # 0.9586 by counting; a rank further in gives 0.885


def test_infinite_distances_have_a_median_too() -> None:
    found = median_interval([*range(10), *[math.inf] * 5])
    assert found.mean == 7 and found.high == math.inf
    with pytest.raises(ValueError, match="give more"):
        median_interval(range(5))
    with pytest.raises(ValueError, match="NaN"):
        median_interval([math.nan] * 9)
