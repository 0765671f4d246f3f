"""What the first layer lets through, and what follows for any network behind it."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given

from crlib import metrics, models, theory
from tests.unit.support import SEEDS, rng


def points(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def test_the_fraction_of_a_single_row_is_a_cosine() -> None:
    w, d = torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 0.0])
    assert float(theory.surviving_fraction(w, d)) == pytest.approx(0.6)


def test_the_fraction_grows_with_k_to_one_for_full_rank() -> None:
    w, d = points(0, 5, 5), points(1, 7, 5)
    chi = torch.stack([theory.surviving_fraction(w, d, k) for k in range(1, 6)])
    assert (chi.diff(dim=0) >= -1e-12).all()
    assert torch.allclose(chi[-1], torch.ones(7).double())
    assert torch.equal(chi[-1], theory.surviving_fraction(w, d))


def test_the_fraction_keeps_leading_dimensions_and_ignores_scale() -> None:
    w, d = points(2, 2, 6), points(3, 4, 3, 6)
    chi = theory.surviving_fraction(w, d)
    assert chi.shape == (4, 3)
    assert torch.allclose(chi, theory.surviving_fraction(-7 * w, 0.1 * d))
    assert torch.allclose(
        chi.flatten().square(),
        metrics.energy_share(d.flatten(0, 1), torch.linalg.svd(w).Vh[:2].T),
    )


def test_no_difference_has_no_fraction() -> None:
    assert theory.surviving_fraction(torch.ones(1, 3), torch.zeros(3)).isnan()


def test_a_zero_layer_lets_nothing_through() -> None:
    x = points(4, 3)
    attack = theory.bridge_attack(torch.zeros(2, 3), x, -x)
    assert not attack.e.any() and attack.residual == attack.residual_bound == 0
    assert theory.surviving_fraction(torch.zeros(2, 3), x) == 0


def test_rounding_noise_of_a_product_is_no_direction() -> None:
    left, right = points(5, 30, 3), points(6, 3, 40)
    d = points(7, 40)
    true = theory.surviving_fraction(right, d)
    for k in (None, 3, 30):
        chi = theory.surviving_fraction(left @ right, d, k)
        assert float(chi) == pytest.approx(float(true), rel=1e-9)
    # Of float32 factors the product has a row space of its own: the rank is said.
    rough = left.float() @ right.float()
    chi = theory.surviving_fraction(rough, d, 3)
    assert float(chi) == pytest.approx(float(true), rel=1e-4)
    assert float(theory.surviving_fraction(rough, d)) > float(true)


def test_a_weak_direction_of_float32_is_a_direction() -> None:
    # The head reads the weak output only: the boundary is at distance one half.
    w = torch.zeros(256, 784)
    w[0, 0], w[1, 1] = 1.0, 5e-5
    x, other = torch.zeros(1, 784), torch.eye(784)[1:2]
    label = [(2e4 * (v @ w.T)[:, 1] > 0.5).long() for v in (x, other)]
    assert theory.bridge_radius(w, x, label[0], other, label[1]) == 1.0
    assert theory.bridge_radius(w.double(), x, label[0], other, label[1]) == 1.0
    attack = theory.bridge_attack(w, x, other)
    assert attack.e.norm() == 1 and attack.residual == 0
    assert theory.surviving_fraction(w, other) == 1


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_a_dial_in_float32_lets_through_what_it_does_in_float64(alpha: float) -> None:
    g = rng(0)
    u = torch.linalg.qr(torch.randn(64, 64, generator=g)).Q
    v = torch.linalg.qr(torch.randn(196, 64, generator=g)).Q
    s, d = torch.arange(1, 65) ** -alpha, torch.randn(196, generator=g)
    rough = theory.surviving_fraction((u * s) @ v.T, d)
    fine = theory.surviving_fraction((u.double() * s.double()) @ v.double().T, d)
    assert float(rough) == pytest.approx(float(fine), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(dtype: torch.dtype) -> None:
    w, x = torch.ones(2, 3, dtype=dtype), torch.ones(3)
    calls = (
        lambda: theory.surviving_fraction(w, x),
        lambda: theory.bridge_attack(w, x, 0 * x),
        lambda: theory.bridge_radius(
            w, x[None], torch.zeros(1), x[None], torch.ones(1)
        ),
    )
    for call in calls:
        with pytest.raises(ValueError, match="floating-point numbers"):
            call()


@given(SEEDS)
def test_a_network_behind_the_layer_answers_as_for_the_other_input(seed: int) -> None:
    net = models.MLP((12, 9, 9, 4), rank=3, bias=True, mean=0.3, std=0.5, seed=seed)
    net = net.double()
    x, other = points(seed, 5, 12), points(seed + 1, 5, 12)
    attack = theory.bridge_attack(net.weights[0], x, other)
    assert torch.allclose(net(x + attack.e), net(other), atol=1e-9)
    assert torch.allclose(attack.residual, torch.zeros(5).double(), atol=1e-9)
    assert (attack.e.norm(dim=1) <= (other - x).norm(dim=1)).all()


def test_the_residual_bound_is_met_along_the_first_direction_left_out() -> None:
    w = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    x = torch.zeros(3)
    attack = theory.bridge_attack(w, x, torch.tensor([5.0, 4.0, 0.0]), 1)
    assert torch.equal(attack.e, torch.tensor([5.0, 0, 0]).double())
    assert float(attack.residual) == float(attack.residual_bound) == 8
    attack = theory.bridge_attack(w, x, torch.tensor([5.0, 0.0, 4.0]), 1)
    assert float(attack.residual) == 4 and float(attack.residual_bound) == 8


def test_the_radius_is_the_least_over_other_labels() -> None:
    w = torch.tensor([[1.0, 0.0]])
    x, y = torch.tensor([[0.0, 0.0], [10.0, 0.0]]), torch.tensor([0, 1])
    others = torch.tensor([[0.5, 0.0], [3.0, 99.0], [12.0, 0.0]])
    radius = theory.bridge_radius(w, x, y, others, torch.tensor([0, 1, 2]))
    assert radius.tolist() == [3.0, 2.0]


def test_without_another_label_the_radius_is_infinite() -> None:
    w, x, y = torch.ones(1, 2), torch.ones(3, 2), torch.zeros(3).long()
    assert theory.bridge_radius(w, x, y, x, y).tolist() == [math.inf] * 3
    assert theory.bridge_radius(w, x, y, x[:0], y[:0]).tolist() == [math.inf] * 3
    assert theory.bridge_radius(w, x[:0], y[:0], x, y).shape == (0,)


def test_two_probes_are_a_layer_of_two_rows() -> None:
    probes, (x, other) = points(8, 2, 6), points(9, 2, 6)
    found = theory.two_probe_radius(probes[0], probes[1], x, other)
    assert found == pytest.approx(
        float(theory.bridge_attack(probes, x, other).e.norm())
    )
    e_0, e_1, e_2 = torch.eye(3)
    assert theory.two_probe_radius(e_0, e_1, e_2 * 0, torch.ones(3)) == pytest.approx(
        math.sqrt(2)
    )
    assert theory.two_probe_radius(e_0, 2 * e_0, e_2, 3 * e_0) == pytest.approx(3)


def test_bad_input_is_refused() -> None:
    w, x = torch.ones(2, 3), torch.ones(4, 3)
    for k in (0, 3):
        with pytest.raises(ValueError, match="from 1 to 2"):
            theory.surviving_fraction(w, x, k)
    for bad in (torch.ones(3), torch.ones(0, 3), torch.full((2, 3), math.nan)):
        with pytest.raises(ValueError, match="finite matrix"):
            theory.bridge_attack(bad, x, x)
    for bad in (torch.ones(4, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="flatten images"):
            theory.surviving_fraction(w, bad)
    labels = torch.zeros(4).long()
    for a, b in ((x, labels[:3]), (x[0], labels[0])):
        with pytest.raises(ValueError, match="with labels"):
            theory.bridge_radius(w, a, b, x, labels)
        with pytest.raises(ValueError, match="with labels"):
            theory.bridge_radius(w, x, labels, a, b)
    for bad in (torch.ones(2), torch.ones(1, 3)):
        with pytest.raises(ValueError, match="four vectors"):
            theory.two_probe_radius(x[0], x[1], x[2], bad)


def ring(p: torch.Tensor) -> torch.Tensor:
    return p.norm(dim=1, keepdim=True)


def test_a_path_keeps_the_precision_and_leaves_the_inputs_alone() -> None:
    x, other = points(20, 2, 6, 4).float()
    kept = x.clone().requires_grad_()
    with torch.no_grad():
        found = theory.curved_bridge(ring, kept, other, steps=4)
    assert found.z.dtype == torch.float32 and not found.z.requires_grad
    assert torch.equal(kept, x) and kept.grad is None
    assert torch.allclose(ring(found.z), ring(other), rtol=1e-5)


def test_more_steps_follow_the_path_more_closely() -> None:
    a, x, other = points(21, 3, 5), *points(22, 2, 30, 5)

    def layer(p: torch.Tensor) -> torch.Tensor:
        return (p + (2 * p).sin() / 4) @ a.T

    ends = [theory.curved_bridge(layer, x, other, steps=n).z for n in (5, 50, 500)]
    coarse, fine = ((z - ends[2]).norm(dim=1).mean() for z in ends[:2])
    assert fine < coarse / 3


def test_without_a_slope_the_path_stays() -> None:
    x, other = torch.tensor([[-1.0]]), torch.tensor([[2.0]])
    found = theory.curved_bridge(torch.relu, x, other)
    assert torch.equal(found.z, x) and found.residual == 2
    assert found.length == 0 and found.slope == 0


@pytest.mark.parametrize(
    ("x", "other", "options", "message"),
    [
        (torch.ones(3), torch.ones(3), {}, "flatten images first"),
        (torch.ones(2, 3), torch.ones(3, 3), {}, "of one shape"),
        (torch.full((1, 3), torch.nan), torch.ones(1, 3), {}, "NaN or an infinity"),
        (torch.ones(1, 3), torch.ones(1, 3), {"steps": 0}, "at least one step"),
        (torch.ones(1, 3), torch.ones(1, 3), {"corrections": -1}, "at least one step"),
    ],
)
def test_a_path_refuses_what_it_cannot_walk(
    x: torch.Tensor, other: torch.Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        theory.curved_bridge(ring, x, other, **options)


@pytest.mark.parametrize(
    "inside", [lambda p: p[:, 0], lambda p: p.repeat(1, 2), lambda p: p[:1]]
)
def test_an_inner_layer_must_give_few_numbers_a_row(inside: Any) -> None:
    with pytest.raises(ValueError, match="k at most m"):
        theory.curved_bridge(inside, torch.ones(2, 3), torch.zeros(2, 3))
