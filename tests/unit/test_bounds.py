"""The bounds hold on every kind of vector and matrix, and are met where they say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crlib import metrics, theory
from crlib.theory import Bounds
from tests.theory.matrices import KINDS
from tests.unit.support import SEEDS, rng
from tests.unit.test_metrics import vectors

SLACK = 1e-9
MATRICES = KINDS | {
    "few rows": lambda g, h, m: (
        torch.randn(h, m, generator=g) * 10.0 ** -torch.arange(h)[:, None]
    ),
    "heavy": lambda g, h, m: torch.rand(h, m, generator=g).clamp_min(1e-3) ** -2,
    "orthogonal": lambda g, h, m: (
        torch.linalg.svd(torch.randn(h, m, generator=g))[0] @ torch.eye(h, m)
    ),
}
CASES = st.tuples(
    SEEDS, st.sampled_from(list(MATRICES)), st.integers(1, 8), st.integers(1, 8)
)


def matrix(case: tuple[int, str, int, int]) -> Tensor:
    seed, kind, h, m = case
    return MATRICES[kind](rng(seed), h, m)


def check(bounds: Bounds) -> None:
    low, value, high = bounds
    assert low <= value * (1 + SLACK)
    assert value <= high * (1 + SLACK)


@given(vectors(), st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.data())
def test_the_top_entry_lies_between_its_bounds(
    v: Tensor, q: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(v)))
    bounds = theory.top_entry_bounds(v, k, q=q)
    check(bounds)
    assert bounds.value == float(v.double().abs().max())


@given(CASES, st.data())
def test_the_spectral_norm_lies_between_its_bounds(
    case: tuple[int, str, int, int], data: st.DataObject
) -> None:
    w = matrix(case)
    bounds = theory.spectral_norm_bounds(w, data.draw(st.integers(1, min(w.shape))))
    check(bounds)
    assert bounds.value == pytest.approx(metrics.operator_norm(w))


@given(CASES, st.data())
def test_the_row_norm_lies_between_its_bounds(
    case: tuple[int, str, int, int], data: st.DataObject
) -> None:
    w = matrix(case)
    bounds = theory.row_norm_bounds(w, data.draw(st.integers(1, len(w))))
    check(bounds)
    assert bounds.value == metrics.operator_norm(w, norm="linf")


@given(vectors(), st.sampled_from([1.0, 2.0]), st.data())
def test_the_formulas_are_those_of_the_lemma(
    v: Tensor, q: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(v)))
    s = v.double().abs().sort(descending=True).values
    total, tail = s.pow(q).sum(), s[k:].pow(q).sum()
    low = ((total - tail) / k) ** (1 / q)
    high = ((total - tail) / (1 + (k - 1) * (s[k - 1] / s[0]) ** q)) ** (1 / q)
    bounds = theory.top_entry_bounds(v, k, q=q)
    assert bounds.low == pytest.approx(float(low), rel=1e-6)
    assert bounds.high == pytest.approx(float(high), rel=1e-6)


@given(SEEDS, st.integers(1, 6), st.integers(0, 6), st.sampled_from([1.0, 2.0]))
def test_without_spread_all_three_meet(seed: int, k: int, rest: int, q: float) -> None:
    g = rng(seed)
    head = torch.full((k,), 2.0, dtype=torch.float64)
    tail = 2 * torch.rand(rest, generator=g, dtype=torch.float64)
    v = torch.cat([head, tail])[torch.randperm(k + rest, generator=g)]
    low, value, high = theory.top_entry_bounds(v, k, q=q)
    assert low == pytest.approx(value, rel=1e-9)
    assert high == pytest.approx(value, rel=1e-9)


def test_with_spread_they_do_not() -> None:
    low, value, high = theory.top_entry_bounds(torch.tensor([3.0, 2.0, 1.0]), 3)
    assert low < value - 0.01 and high > value + 0.01


def test_equal_singular_values_meet_the_spectral_bounds() -> None:
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=rng(0), dtype=torch.float64))
    low, value, high = theory.spectral_norm_bounds(3 * q, 5)
    assert low == pytest.approx(3, rel=1e-9)
    assert value == pytest.approx(3, rel=1e-9)
    assert high == pytest.approx(3, rel=1e-9)


@pytest.mark.parametrize("kept", [1, 3])
def test_equal_flat_rows_meet_the_row_bounds(kept: int) -> None:
    w = torch.randn(kept, 6, generator=rng(0), dtype=torch.float64).sign()
    w = torch.cat([w, torch.zeros(2, 6)])
    low, value, high = theory.row_norm_bounds(w, kept)
    assert low == pytest.approx(6, rel=1e-9)
    assert value == 6
    assert high == pytest.approx(6, rel=1e-9)


@given(CASES)
def test_bounds_scale_with_the_matrix(case: tuple[int, str, int, int]) -> None:
    w = matrix(case).double()
    for bounds in (theory.spectral_norm_bounds, theory.row_norm_bounds):
        one, ten = bounds(w, 1), bounds(-10 * w, 1)
        for a, b in zip(one, ten, strict=True):
            assert b == pytest.approx(10 * a, rel=1e-9)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="zero"):
        theory.top_entry_bounds(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="from 1 to 3"):
        theory.top_entry_bounds(torch.ones(3), 0)
    with pytest.raises(ValueError, match="exponent"):
        theory.top_entry_bounds(torch.ones(3), 1, q=math.inf)
    with pytest.raises(ValueError, match="from 1 to 2"):
        theory.spectral_norm_bounds(torch.ones(2, 3), 3)
    for w in (torch.zeros(2, 2), torch.ones(2), torch.full((2, 2), math.nan)):
        for bounds in (theory.spectral_norm_bounds, theory.row_norm_bounds):
            with pytest.raises(ValueError):
                bounds(w, 1)


@given(CASES, st.data())
def test_structure_times_scale_bounds_the_norms(
    case: tuple[int, str, int, int], data: st.DataObject
) -> None:
    w = matrix(case)
    h, m = w.shape
    k = data.draw(st.integers(1, min(h, m)))
    k_row = data.draw(st.none() | st.integers(1, m))
    for found in (
        theory.structure_times_scale(w, k, norm="l2"),
        theory.structure_times_scale(w, k, norm="linf", k_row=k_row),
    ):
        assert found.value <= min(found.bound, found.trivial) * (1 + SLACK)
        assert found.vacuous == (found.bound > found.trivial)


@given(CASES, st.data())
def test_structure_times_scale_is_vacuous_for_few_directions(
    case: tuple[int, str, int, int], data: st.DataObject
) -> None:
    w = matrix(case)
    d = min(w.shape)
    k = data.draw(st.integers(1, d))
    found = theory.structure_times_scale(w, k, norm="l2")
    few, limit = k * (1 - found.beta), (1 - found.eps) * d**0.5
    assert found.vacuous == (few < limit) or few == pytest.approx(limit)


def test_structure_times_scale_has_the_documented_values() -> None:
    w = torch.diag(torch.tensor([4.0, 2.0, 2.0, 0.0])).double()
    found = theory.structure_times_scale(w, 2, norm="l2")
    assert (found.value, found.eps, found.beta, found.eps_row) == (4, 0.25, 0.5, 0)
    assert found.bound == pytest.approx(0.75 / 0.5 * 2 / 2 * 24**0.5)
    rows = theory.structure_times_scale(w, 2, norm="linf", k_row=1)
    assert rows.eps_row == 0
    assert rows.bound == pytest.approx(0.75 / 0.5 * 4**0.5 / 2 * 24**0.5)
    assert rows.trivial == pytest.approx(4**0.5 * 24**0.5)
    assert theory.structure_times_scale(w, 2, norm="linf").bound > rows.bound


def test_a_spread_of_one_leaves_no_bound() -> None:
    w = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    found = theory.structure_times_scale(w, 2, norm="linf")
    assert found.bound == math.inf and found.vacuous


@given(CASES, st.sampled_from([0.5, 1.0, 1.5, 2.0]), st.data())
def test_the_spectral_norm_lies_in_the_sharp_interval(
    case: tuple[int, str, int, int], q: float, data: st.DataObject
) -> None:
    w = matrix(case)
    k = data.draw(st.integers(1, min(w.shape)))
    bounds = theory.sharp_spectral_bounds(w, k, q=q)
    check(bounds)
    assert bounds.value == pytest.approx(metrics.operator_norm(w))


def test_the_sharp_interval_has_the_documented_values() -> None:
    low, high = theory.sharp_spectral_interval(5, d=400, eps=0.05, beta=0.3)
    assert low == pytest.approx((4 + 0.49 + (4.7 * 0.05 / 0.95) ** 2) ** -0.5)
    assert high == pytest.approx((2.96 + (0.05 / 0.95 * 3.8) ** 2 / 395) ** -0.5)
    assert theory.sharp_spectral_interval(3, d=3, eps=0, beta=0) == pytest.approx(
        (3**-0.5, 3**-0.5)
    )
    low, _ = theory.sharp_spectral_interval(1, d=9, eps=0.2, beta=0)
    assert low == pytest.approx((1 + 0.25**2) ** -0.5)
    assert theory.spectral_floor(5, eps=0.05, q=1) == pytest.approx(0.19**0.5)


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (0, {"d": 3, "eps": 0.1, "beta": 0}, "from 1 to d = 3"),
        (4, {"d": 3, "eps": 0.1, "beta": 0}, "from 1 to d = 3"),
        (2, {"d": 3, "eps": 1.0, "beta": 0}, r"eps = 1.0 must lie in \[0, 1\)"),
        (2, {"d": 3, "eps": 0.1, "beta": 1.5}, "beta = 1.5"),
        (2, {"d": 3, "eps": 0.1, "beta": 0, "q": 3}, "q is 3"),
        (1, {"d": 3, "eps": 0.1, "beta": 0.5}, "No spectrum"),
        (2, {"d": 3, "eps": 0.5, "beta": 0}, "No spectrum"),
        (2, {"d": 2, "eps": 0.1, "beta": 0}, "No spectrum"),
    ],
)
def test_impossible_spectra_are_refused(
    k: int, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        theory.sharp_spectral_interval(k, **options)


@given(CASES, st.data())
def test_flatness_lies_between_its_bounds(
    case: tuple[int, str, int, int], data: st.DataObject
) -> None:
    w = matrix(case)
    bounds = theory.flatness_bounds(w, data.draw(st.integers(1, w.shape[1])))
    check(bounds)
    rows = w.double()[w.double().norm(dim=1) > 0]
    kappa = rows.abs().sum(1) / rows.norm(dim=1)
    assert bounds.value == pytest.approx(float(kappa.max()))


def test_zero_rows_have_no_flatness() -> None:
    w = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert theory.flatness_bounds(w, 2).value == pytest.approx(1.4)
    assert theory.flatness_bounds(w, 2).high == pytest.approx(2**0.5)


@given(CASES, st.data())
def test_strong_neurons_imply_strong_directions(
    case: tuple[int, str, int, int], data: st.DataObject
) -> None:
    w = matrix(case).double()
    k = data.draw(st.integers(0, min(w.shape)))
    spectrum, rows = theory.neuron_implies_spectral(w, k)
    assert spectrum <= rows + 1e-7


def test_bad_input_of_the_layer_bounds_is_refused() -> None:
    w = torch.ones(2, 3)
    with pytest.raises(ValueError, match="norm is 'l1'"):
        theory.structure_times_scale(w, 1, norm="l1")
    with pytest.raises(ValueError, match="k_row"):
        theory.structure_times_scale(w, 1, norm="l2", k_row=1)
    with pytest.raises(ValueError, match="k_row is 4.*from 1 to 3"):
        theory.structure_times_scale(w, 1, norm="linf", k_row=4)
    with pytest.raises(ValueError, match="k_row is 0.*from 1 to 3"):
        theory.flatness_bounds(w, 0)
    with pytest.raises(ValueError, match="zero"):
        theory.flatness_bounds(torch.zeros(2, 3), 1)
    with pytest.raises(ValueError, match="q is 3"):
        theory.sharp_spectral_bounds(w, 1, q=3)
    with pytest.raises(ValueError, match="from 0 to 2"):
        theory.neuron_implies_spectral(w, 3)
    for bad in ({"k": 0, "eps": 0.1}, {"k": 1, "eps": 1.1}):
        with pytest.raises(ValueError, match="at least 1"):
            theory.spectral_floor(**bad)
    with pytest.raises(ValueError, match="q is 0"):
        theory.spectral_floor(1, eps=0.1, q=0)
    for zero in (torch.zeros(2, 2), torch.ones(2), torch.full((2, 2), math.nan)):
        with pytest.raises(ValueError):
            theory.structure_times_scale(zero, 1, norm="linf")
        with pytest.raises(ValueError):
            theory.sharp_spectral_bounds(zero, 1)
