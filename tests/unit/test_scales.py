"""Bounds and closed forms at any scale, of any type, and on the worst inputs."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crlib import metrics, theory
from tests.unit.support import SEEDS, rng
from tests.unit.test_bounds import MATRICES

POWERS = st.sampled_from([-300, -160, -20, -7, 0, 7, 20, 150, 300])
NORMS = ("linf", "l2", "l1", "l0")
# Functions of a matrix whose sides are multiples of it, and those that ignore scale.
BOUNDS: dict[str, Callable[[Tensor], tuple[float, ...]]] = {
    "spectral": lambda w: theory.spectral_norm_bounds(w, 1 + min(w.shape) // 2),
    "rows": lambda w: theory.row_norm_bounds(w, 1 + len(w) // 2),
    "sharp": lambda w: theory.sharp_spectral_bounds(w, 1 + min(w.shape) // 2),
    "entries, small q": lambda w: theory.top_entry_bounds(w.flatten(), 1, q=0.02),
    "entries, large q": lambda w: theory.top_entry_bounds(w.flatten(), 1, q=40),
}
RATIOS: dict[str, Callable[[Tensor], tuple[float, ...]]] = {
    "gain": lambda w: theory.gain_ratio(w, 1 + min(w.shape) // 2),
    "flatness": lambda w: theory.flatness_bounds(w, 1 + w.shape[1] // 2),
}


def matrix(seed: int, kind: str, h: int = 4, m: int = 6) -> Tensor:
    return MATRICES[kind](rng(seed), h, m).double()


@given(SEEDS, st.sampled_from(sorted(MATRICES)), POWERS)
def test_bounds_hold_and_scale_along(seed: int, kind: str, power: int) -> None:
    w = matrix(seed, kind)
    if not w.any() or float(w.abs().max()) > 1e6:
        return
    factor = 10.0**power
    for of in BOUNDS.values():
        low, value, high = of(w * factor)
        assert low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)
        expected = [side * factor for side in of(w)]
        assert [low, value, high] == pytest.approx(expected, rel=1e-6, abs=0)
    for of in RATIOS.values():
        assert of(w * factor) == pytest.approx(of(w), rel=1e-6)
    value, bound, trivial, *rest = theory.structure_times_scale(
        w * factor, 2, norm="l2"
    )
    one = theory.structure_times_scale(w, 2, norm="l2")
    assert value <= min(bound, trivial) * (1 + 1e-9)
    assert rest == pytest.approx(list(one)[3:])


@given(SEEDS, POWERS, POWERS)
def test_alignment_ignores_the_scale_of_both_layers(seed: int, p: int, q: int) -> None:
    g = rng(seed)
    later, earlier = torch.randn(5, 3, generator=g), torch.randn(3, 4, generator=g)
    later, earlier = later.double(), earlier.double()
    for norm in ("l2", "linf"):
        one = theory.interlayer_alignment(later, earlier, 2, norm=norm)
        other = theory.interlayer_alignment(
            later * 10.0**p, earlier * 10.0**q, 2, norm=norm
        )
        assert other == pytest.approx(one, rel=1e-9)
        assert other.low <= other.high <= 1


def test_an_alignment_of_one_has_its_ends_in_order() -> None:
    for seed in range(300):
        g = rng(seed)
        later, earlier = torch.randn(1, 5, generator=g), torch.randn(5, 1, generator=g)
        found = theory.interlayer_alignment(later.abs(), earlier.abs(), 1)
        assert found.low <= found.high <= 1


def test_a_product_of_small_layers_stays_a_bound() -> None:
    tiny = [torch.eye(2).double() * 1e-120] * 3
    found = theory.network_lipschitz(tiny, 1)
    assert 0 < found.aligned <= found.product


@pytest.mark.parametrize("reach", [0.0, 1e-17, 1e-12, 1e-6, 0.99, 1.01, 50.0, 900.0])
@pytest.mark.parametrize("shift", [-800.0, -3.0, 0.0, 3.0, 30.0])
def test_the_logistic_gap_keeps_its_digits(reach: float, shift: float) -> None:
    m = torch.randn(50, generator=rng(0)).double() + shift
    low, value, high = theory.logistic_gap_bounds(m, reach)
    assert low * (1 - 1e-12) <= value <= high * (1 + 1e-12)
    assert high <= reach
    if 0 < reach < 1e-6:
        assert value == pytest.approx(low, rel=2 * reach + 1e-12)


def test_a_spread_that_rounds_to_one_has_an_interval() -> None:
    w = torch.diag(torch.tensor([1.0, 1e-17, 1e-18]).double())
    s = metrics.singular_values(w)
    eps, beta = metrics.best_k_error(s, 2, q=1), metrics.spread(s, 2)
    assert beta == 1 and eps > 0
    low, high = theory.sharp_spectral_interval(2, d=3, eps=eps, beta=beta)
    assert low <= 1 + 1e-12 and high >= 1 - 1e-12


def test_moments_that_leave_the_range_are_refused() -> None:
    for factor in (1e-200, 1e200):
        with pytest.raises(ValueError, match="rescale"):
            theory.random_head_moments(torch.eye(3).double() * factor)


def test_equal_columns_have_no_boundary() -> None:
    x = torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 1.0]])
    for call in (theory.prototype_radii, lambda v: theory.ridge_radii(v, 0.1)):
        with pytest.raises(ValueError, match="equal"):
            call(x)


@given(SEEDS, POWERS, st.sampled_from(NORMS), st.booleans())
def test_a_linear_distance_ignores_the_scale(
    seed: int, power: int, norm: str, box: bool
) -> None:
    g = rng(seed)
    w = torch.randn(3, 5, generator=g, dtype=torch.float64)
    x = torch.rand(4, 5, generator=g, dtype=torch.float64)
    y = (x @ w.T).argmax(1)
    one, _ = theory.linear_minimal(w, None, x, y, norm=norm, box=box)
    other, step = theory.linear_minimal(w * 10.0**power, None, x, y, norm=norm, box=box)
    torch.testing.assert_close(other, one, rtol=1e-9, atol=0)
    lost = ((x + step) @ w.T).topk(2).values
    there = other.isfinite()
    assert ((lost[:, 0] - lost[:, 1]).abs()[there] < 1e-6).all() or norm == "l0"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_walls_at_every_scale_are_climbed(norm: str) -> None:
    # Each coordinate is worth one, and Newton's method meets one wall a round.
    x = 4.0 ** -torch.arange(100, dtype=torch.float64)[None]
    weight = torch.cat([torch.zeros_like(x), -1 / x])
    bias = torch.tensor([0.0, 10.0]).double()
    distance, step = theory.linear_minimal(
        weight, bias, x, torch.tensor([0]), norm=norm
    )
    assert distance.isfinite().all()
    assert float(weight[1] @ step[0]) == pytest.approx(90, rel=1e-9)


BAD = {
    "nan": lambda w: w.clone().fill_(math.nan),
    "inf": lambda w: w.clone().fill_(math.inf),
    "empty": lambda w: w[:0],
    "a vector": lambda w: w[0],
}
CALLS: dict[str, Callable[[Tensor], object]] = {
    **BOUNDS,
    **RATIOS,
    "structure": lambda w: theory.structure_times_scale(w, 1, norm="linf"),
    "neuron": lambda w: theory.neuron_implies_spectral(w, 1),
    "moments": theory.random_head_moments,
    "premises": lambda w: theory.radius_premises(w, torch.ones(3), torch.ones(4)),
    "alignment": lambda w: theory.interlayer_alignment(w, torch.ones(4, 2), 1),
    "network": lambda w: theory.network_lipschitz([w, torch.ones(2, 3)], 1),
    "fraction": lambda w: theory.surviving_fraction(w, torch.ones(4)),
    "attack": lambda w: theory.bridge_attack(w, torch.ones(4), torch.zeros(4)),
    "linear": lambda w: theory.linear_minimal(
        w, None, torch.ones(2, 4) / 3, torch.tensor([0, 1]), norm="l2", box=False
    ),
    "interpolation": lambda w: theory.interpolation_radii(w.t()),
    "prototypes": lambda w: theory.prototype_radii(w.t()),
    "ridge": lambda w: theory.ridge_radii(w.t(), 0.1),
    "one hot": lambda w: theory.one_hot_attack(w.t()),
    "product": lambda w: theory.product_factor([w.t()]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_matrix_is_refused(call: str, bad: str) -> None:
    w = torch.randn(3, 4, generator=rng(1))
    CALLS[call](w)
    if bad == "a vector" and call.startswith(("entries", "flatness")):
        return
    with pytest.raises(ValueError):
        CALLS[call](BAD[bad](w))


@pytest.mark.parametrize("call", CALLS)
def test_whole_numbers_are_refused_or_taken_exactly(call: str) -> None:
    w = (5 * torch.randn(3, 4, generator=rng(1))).to(torch.int64)
    try:
        found = CALLS[call](w)
    except ValueError as error:
        assert "floating-point" in str(error)
    else:
        assert str(found) == str(CALLS[call](w.double()))
