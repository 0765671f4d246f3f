"""Radii of interpolation and its neighbours: shapes, edges, values by hand."""

import math

import pytest
import torch
from torch import Tensor

from crlib import theory
from tests.unit.support import rng

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])


def points(d: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(d, n, generator=rng(seed))


def test_two_axes_have_the_same_radii_by_every_rule() -> None:
    root = 0.5**0.5
    for found in (
        theory.interpolation_radii(X),
        theory.prototype_radii(X),
        theory.ridge_radii(X, 0),
        theory.ridge_radii(X, 7.5),
        theory.bottleneck_radii(X, 3, rng(0)),
    ):
        assert found.radius.dtype == torch.float64
        for v in found:
            assert v.shape == (2, 2) and v.diagonal().isinf().all()
            assert float(v[0, 1]) == pytest.approx(root)
            assert float(v[1, 0]) == pytest.approx(root)


def test_the_attack_on_two_axes_goes_from_one_to_the_other() -> None:
    found = theory.one_hot_attack(X)
    assert torch.allclose(found.delta, torch.tensor([1.0, -1.0, 0.0]).double())
    assert found.length == pytest.approx(2**0.5)
    assert found.bound == pytest.approx(2)


def test_more_classes_than_coordinates_need_least_squares() -> None:
    x = points(3, 8)
    found = theory.ridge_radii(x, 0)
    assert found.radius.shape == (8, 8)
    near = theory.ridge_radii(x, 1e-10).radius
    off = ~torch.eye(8, dtype=torch.bool)
    assert torch.allclose(near[off], found.radius[off], rtol=1e-5, atol=1e-7)


def test_a_prototype_on_the_wrong_side_has_a_negative_radius() -> None:
    found = theory.prototype_radii(torch.tensor([[1.0, 3.0]])).radius
    assert float(found[0, 1]) == pytest.approx(-1)
    assert float(found[1, 0]) == pytest.approx(3)


def test_all_features_are_no_bottleneck() -> None:
    x = points(9, 4)
    whole, narrow = theory.interpolation_radii(x), theory.bottleneck_radii(x, 9, rng(1))
    assert torch.allclose(whole.radius, narrow.radius)
    assert whole.neighbour.equal(narrow.neighbour)


def test_the_callers_points_stay_as_they_are() -> None:
    x = points(5, 3).requires_grad_()
    before = x.detach().clone()
    theory.interpolation_radii(x)
    theory.one_hot_attack(x)
    assert x.detach().equal(before) and x.grad is None


def test_one_factor_is_its_own_product() -> None:
    g = torch.diag(torch.tensor([2.0, 3.0]))
    assert theory.product_factor([g]) == pytest.approx((3, 3, 3))
    assert theory.product_factor([g, g]) == pytest.approx((9, 9, 9))


def test_a_rectangular_cube_is_read_off() -> None:
    found = theory.sign_cube_radii(torch.diag(torch.tensor([5.0, 7.0, 2.0])))
    assert found == pytest.approx((2, 2, 2))


def test_a_leaning_cube_lies_between() -> None:
    # The last column leans on the first by half: a neighbour flips the sign of none.
    a = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    found = theory.sign_cube_radii(a)
    assert found.readout == pytest.approx(1)
    assert found.hull == pytest.approx(1)
    assert found.neighbour == pytest.approx(1.25**0.5)


def test_a_large_cube_has_no_neighbour() -> None:
    found = theory.sign_cube_radii(points(13, 13))
    assert found.neighbour is None and found.readout <= found.hull


def test_a_linear_score_is_predicted_exactly() -> None:
    w = torch.tensor([3.0, 4.0])
    x, end = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    found = theory.path_identity(lambda z: z @ w - 2, x, end, steps=7)
    assert float(found.difference) == pytest.approx(6)
    assert float(found.integral) == pytest.approx(6)
    assert float(found.cosine) == pytest.approx(0.6)
    assert float(found.crossing) == pytest.approx(2 / 3)
    assert float(found.predicted) == pytest.approx(0.4)  # |g(x)| / |w|


def test_the_first_of_three_crossings_counts() -> None:
    x, end = torch.tensor([[0.0]]), torch.tensor([[1.0]])

    def score(z: Tensor) -> Tensor:
        return -(5 * math.pi * z[:, 0]).cos()

    found = theory.path_identity(score, x, end, steps=300)
    assert float(found.crossing) == pytest.approx(0.1, abs=1e-4)
    assert float(found.predicted) == pytest.approx(0.1, abs=1e-4)


def test_images_are_flattened() -> None:
    x = torch.zeros(3, 1, 4, 4)
    found = theory.path_identity(lambda z: z.flatten(1).sum(1) - 1, x, x + 1, steps=2)
    assert found.cosine.shape == (3,)
    assert torch.allclose(found.cosine, torch.ones(3).double())


def test_a_flat_stretch_has_cosine_zero() -> None:
    x, end = torch.tensor([[-1.0]]), torch.tensor([[1.0]])
    found = theory.path_identity(lambda z: (z.relu() - 0.5).sum(1), x, end, steps=10)
    assert float(found.cosine) == pytest.approx(0.5)
    assert float(found.predicted) == pytest.approx(0.5)


BAD = torch.full((3, 2), math.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.interpolation_radii(torch.ones(3)), "a column a class"),
        (lambda: theory.interpolation_radii(torch.ones(3, 1)), "a column a class"),
        (lambda: theory.prototype_radii(BAD), "finite"),
        (lambda: theory.interpolation_radii(points(2, 3)), "one-hot"),
        (lambda: theory.one_hot_attack(torch.ones(4, 2)), "dependent"),
        (lambda: theory.ridge_radii(X, -1), "not negative"),
        (lambda: theory.ridge_radii(X, math.inf), "finite"),
        (lambda: theory.bottleneck_radii(X, 1, rng(0)), "from 2 to 3"),
        (lambda: theory.bottleneck_radii(X, 4, rng(0)), "from 2 to 3"),
        (lambda: theory.product_factor([]), "first factor"),
        (lambda: theory.product_factor([points(2, 3)]), "first factor"),
        (lambda: theory.product_factor([X, X]), "after the first"),
        (lambda: theory.product_factor([torch.ones(3, 3)]), "dependent"),
        (lambda: theory.sign_cube_radii(X), "square"),
        (lambda: theory.sign_cube_radii(torch.ones(3, 3)), "dependent"),
    ],
)
def test_bad_points_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("x", "end", "steps", "message"),
    [
        (torch.zeros(2, 1), torch.ones(3, 1), 5, "one shape"),
        (torch.zeros(2), torch.ones(2), 5, "one shape"),
        (torch.zeros(2, 1), torch.ones(2, 1), 0, "at least 1"),
        (torch.ones(2, 1), torch.ones(2, 1), 5, "negative at x"),
        (torch.zeros(2, 1), torch.zeros(2, 1), 5, "negative at x"),
    ],
)
def test_bad_paths_are_refused(
    x: Tensor, end: Tensor, steps: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        theory.path_identity(lambda z: z.sum(-1) - 0.5, x, end, steps=steps)


def test_a_path_needs_no_grad_mode_of_the_caller() -> None:
    x, end = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        told = theory.path_identity(lambda z: z.sum(1) - 0.5, x, end)
    assert float(told.difference) == pytest.approx(1)
