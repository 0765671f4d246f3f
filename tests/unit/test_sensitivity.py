"""Gains, random heads, masks and the rank-one classifier: values and errors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crlib import metrics, theory
from crlib.models import LowRankLinear
from tests.unit.support import SEEDS, rng


def test_a_flat_spectrum_has_ratio_inputs_over_rank() -> None:
    low, value, high = theory.gain_ratio(torch.eye(4, 9), 4)
    assert low == pytest.approx(9 / 4)
    assert value == pytest.approx(9 / 4)
    assert high == pytest.approx(9 / 4)


def test_a_random_head_on_rank_one_varies_the_most() -> None:
    h = 50
    one = torch.zeros(h, 3)
    one[0, 0] = 2
    mean, variance = theory.random_head_moments(one)
    assert mean == pytest.approx(4 / h)
    assert variance == pytest.approx(2 * 16 * (h - 1) / (h**2 * (h + 2)))


def test_an_orthogonal_layer_treats_all_heads_alike() -> None:
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=rng(0), dtype=torch.float64))
    mean, variance = theory.random_head_moments(3 * q)
    assert mean == pytest.approx(9)
    assert variance == pytest.approx(0, abs=1e-9)
    assert variance >= 0


def test_moments_do_not_see_noise_direction_but_the_transpose() -> None:
    w = torch.randn(4, 9, generator=rng(1))
    heads, noise = theory.random_head_moments(w), theory.random_head_moments(w.T)
    assert 4 * heads.mean == pytest.approx(9 * noise.mean)


@pytest.mark.parametrize(("n", "value"), [(1, 1), (64, 4.1213), (1024, 16.0312)])
def test_documented_amplifications(n: int, value: float) -> None:
    low, exact, high = theory.mask_amplification(n)
    assert exact == pytest.approx(value, abs=1e-4)
    assert low <= exact <= high


@pytest.mark.parametrize("n", [0, -2, 3, 12])
def test_only_powers_of_two_have_sylvester_matrices(n: int) -> None:
    with pytest.raises(ValueError, match="powers of two"):
        theory.mask_amplification(n)


def test_the_rank_one_classifier_separates_the_means() -> None:
    mean = torch.tensor([3.0, 0, 4])
    net = theory.rank_one_optimal(mean, torch.tensor([1.0, 1]), noise=2, sigma=7)
    assert net.weight.shape == (2, 3)
    assert int(torch.linalg.matrix_rank(net.weight)) == 1
    assert metrics.operator_norm(net.weight) == pytest.approx(7)
    assert net.distance == pytest.approx(5)
    assert net.robust_accuracy(5) == pytest.approx(0.5)
    assert net.robust_accuracy(0) > net.robust_accuracy(1)


def test_rank_one_refuses_what_has_no_direction() -> None:
    one = torch.ones(2)
    for mean, u in ((one * 0, one), (one, one * 0), (torch.ones(2, 2), one)):
        with pytest.raises(ValueError, match="not zero"):
            theory.rank_one_optimal(mean, u, noise=1)
    for options in ({"noise": 0.0}, {"noise": 1.0, "sigma": -1.0}):
        with pytest.raises(ValueError, match="positive"):
            theory.rank_one_optimal(one, one, **options)


def test_premises_do_not_depend_on_scale() -> None:
    g = rng(2)
    w, c, d = (torch.randn(s, generator=g) for s in ((4, 6), (4,), (6,)))
    one = theory.radius_premises(w, c, d)
    other = theory.radius_premises(5 * w, -3 * c, 0.1 * d)
    assert other == pytest.approx(one, rel=1e-5)


def test_without_alignment_there_is_no_bound() -> None:
    w = torch.diag(torch.tensor([100.0, 1.0]))
    second = torch.tensor([0.0, 1.0])
    got = theory.radius_premises(w, second, second)
    assert got.bound == math.inf
    assert got.ratio == pytest.approx(1)


def test_premises_refuse_what_has_no_boundary() -> None:
    w, c, d = torch.ones(2, 3), torch.tensor([1.0, -1.0]), torch.ones(3)
    with pytest.raises(ValueError, match="no boundary"):
        theory.radius_premises(w, c, d)
    with pytest.raises(ValueError, match="no boundary"):
        theory.radius_premises(w, c.abs(), 0 * d)
    with pytest.raises(ValueError, match="must be"):
        theory.radius_premises(w, d, c)


def test_premises_of_a_float32_product_of_rank_one_are_equal() -> None:
    g = rng(0)
    left, right = torch.randn(8, 1, generator=g), torch.randn(1, 15, generator=g)
    c, d = torch.randn(8, generator=g), torch.randn(15, generator=g)
    rough, fine = (
        theory.radius_premises(w, c, d)
        for w in (left @ right, left.double() @ right.double())
    )
    layer = theory.radius_premises(LowRankLinear(15, 8, 1).weight, c, d)
    for found in (rough, fine, layer):
        assert found.bound == pytest.approx(found.ratio, rel=1e-5)
        assert found.alignment == pytest.approx(1)
    assert rough.bound == pytest.approx(0.2298335, rel=1e-5)


def test_any_direction_is_the_top_one_of_the_identity() -> None:
    second = torch.tensor([0.0, 1.0, 0.0])
    for eye in (torch.eye(3), torch.eye(3).double()):
        got = theory.radius_premises(eye, second, second)
        assert got.ratio == got.alignment == 1
        assert got.bound == pytest.approx(1, rel=1e-6)


@given(SEEDS, st.sampled_from([torch.float32, torch.float64]), st.integers(-20, 20))
def test_no_ratio_exceeds_its_bound(seed: int, dtype: torch.dtype, power: int) -> None:
    g = rng(seed)
    h, m = (int(torch.randint(1, 9, (), generator=g)) for _ in range(2))
    w = torch.randn(h, m, generator=g)
    kind = seed % 4
    if kind == 1:  # of low rank, with the rounding of a product
        w = torch.randn(h, 1, generator=g) @ torch.randn(1, m, generator=g)
    elif kind == 2:  # weak directions that are real
        w = torch.diag(torch.logspace(0, -9, min(h, m)))
    elif kind == 3:  # equal singular values
        w = torch.linalg.qr(torch.randn(max(h, m), min(h, m), generator=g)).Q
    w = w.to(dtype) * 10.0**power
    c = torch.randn(w.shape[0], generator=g) * 10.0 ** -(seed % 12)
    d = torch.randn(w.shape[1], generator=g)
    c[-1] = 1.0
    if not (w.T @ c.to(dtype)).any():
        return
    got = theory.radius_premises(w, c, d)
    assert got.ratio <= min(1.0, got.bound) * (1 + 1e-9)
    assert 0 <= got.alignment <= 1 + 1e-12


def test_the_law_of_universal_directions_at_its_ends() -> None:
    d = torch.tensor([0.0, 1.0, math.inf])
    assert theory.universal_law(d, 0.0, 3.0, 5).tolist() == [1, 0, 0]
    assert theory.universal_law(d, 1.0, 0.0, 5).tolist() == [1, 0, 0]
    assert theory.universal_law(d[:0], 1.0, 1.0, 5).shape == (0,)
    for bad in ((-d, 1.0, 1.0, 2), (d, 1.5, 1.0, 2), (d, 1.0, -1.0, 2), (d, 1.0, 1, 0)):
        with pytest.raises(ValueError, match=r"distance|share|length|dimension"):
            theory.universal_law(*bad)
