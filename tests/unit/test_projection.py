"""The projection lands on the nearest point of ball and box together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crlib.attacks import project
from crlib.attacks.balls import BALLS, L1Ball
from crlib.attacks.base import pick
from tests.unit.support import SEEDS, rng, with_walls

NORMS = ("linf", "l2", "l1")
ORDERS = {"linf": float("inf"), "l2": 2, "l1": 1}
SHAPES = st.sampled_from([(1, 1), (4, 3), (5, 12), (3, 1, 4, 4), (2, 3, 5, 5)])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, str]:
    """Draw any points, centres (often at walls), radii of each size, and a norm."""
    shape = draw(SHAPES)
    g = rng(draw(SEEDS))
    x = with_walls(torch.rand(shape, generator=g), g, draw(st.sampled_from([0, 0.5])))
    reach = draw(st.sampled_from([1e-3, 0.1, 1.0, 10.0]))
    z = x + reach * torch.randn(shape, generator=g)
    sizes = draw(
        st.lists(
            st.sampled_from([0.0, 1e-3, 8 / 255, 0.3, 1.0, 4.0]),
            min_size=shape[0],
            max_size=shape[0],
        )
    )
    norm = draw(st.sampled_from(NORMS))
    # In linf a radius of one holds the whole box, and a larger one is refused.
    most = 1.0 if norm == "linf" else math.inf
    return z, x, torch.tensor(sizes).clamp_max(most), norm


def size(delta: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(delta.flatten(1), ord=ORDERS[norm], dim=1)


@given(cases())
def test_lands_in_ball_and_box(case: tuple[Tensor, Tensor, Tensor, str]) -> None:
    z, x, eps, norm = case
    p = project(z, x, eps=eps, norm=norm)
    assert (size(p - x, norm) <= eps + 1e-6).all()
    assert ((p >= 0) & (p <= 1)).all()
    assert p.shape == x.shape and p.dtype == x.dtype


@given(cases())
def test_leaves_a_point_of_the_set_where_it_is(
    case: tuple[Tensor, Tensor, Tensor, str],
) -> None:
    z, x, eps, norm = case
    inside = project(z, x, eps=0.9 * eps, norm=norm)
    again = project(inside, x, eps=eps, norm=norm)
    torch.testing.assert_close(again, inside, atol=1e-6, rtol=0)


@given(cases())
def test_projecting_twice_changes_nothing(
    case: tuple[Tensor, Tensor, Tensor, str],
) -> None:
    z, x, eps, norm = case
    p = project(z, x, eps=eps, norm=norm)
    torch.testing.assert_close(project(p, x, eps=eps, norm=norm), p, atol=1e-6, rtol=0)


@given(cases(), SEEDS)
def test_no_point_of_the_set_is_nearer(
    case: tuple[Tensor, Tensor, Tensor, str], seed: int
) -> None:
    z, x, eps, norm = case
    p = project(z, x, eps=eps, norm=norm)
    away = (z - p).flatten(1).double()
    for k in range(20):
        other = torch.rand(x.shape, generator=rng(seed + k))
        other = with_walls(other, rng(seed + k), 0.5)
        # The set is convex and holds x: on the way from x it is entered at x.
        short = (eps / size(other - x, norm).clamp_min(1e-12)).clamp_max(1)
        member = x + (other - x) * short.view(-1, *(1,) * (x.ndim - 1))
        inner = (away * (member - p).flatten(1)).sum(1)
        # Far from the set, single precision blurs the nearest point in proportion.
        blur = 1 + away.norm(dim=1) + 0.1 * away.norm(dim=1).square()
        assert (inner <= 2e-6 * blur).all()


@given(cases())
def test_a_sample_does_not_depend_on_the_others(
    case: tuple[Tensor, Tensor, Tensor, str],
) -> None:
    z, x, eps, norm = case
    together = project(z, x, eps=eps, norm=norm)
    for i in range(len(x)):
        alone = project(z[i : i + 1], x[i : i + 1], eps=float(eps[i]), norm=norm)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_radius_zero_gives_the_centre(norm: str) -> None:
    x = torch.rand(3, 4, generator=rng(0))
    z = torch.randn(3, 4, generator=rng(1))
    torch.testing.assert_close(project(z, x, eps=0, norm=norm), x)


@pytest.mark.parametrize("ratio", [1.2, 2.0, 3.0])
def test_l2_is_exact_where_the_walls_are_met_one_after_another(ratio: float) -> None:
    steps = torch.arange(40, dtype=torch.float64)
    room, v = ratio**-steps, ratio**steps
    x = (1 - room)[None]
    for share in (0.1, 0.5, 0.9, 0.999):
        eps = float(share * room.norm())
        low, high = 0.0, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            inside = torch.minimum(middle * v, room).norm() <= eps
            low, high = (middle, high) if inside else (low, middle)
        best = x + torch.minimum(low * v, room)
        p = project(x + v, x, eps=eps, norm="l2")
        torch.testing.assert_close(p, best, atol=1e-6, rtol=0)


def test_l2_is_nearer_than_clipping_after_rescaling() -> None:
    x, z = torch.tensor([[0.9, 0.5]]), torch.tensor([[1.9, 1.5]])
    p = project(z, x, eps=0.4, norm="l2")
    rescaled = (x + 0.4 * (z - x) / (z - x).norm()).clamp(0, 1)
    assert (z - p).norm() < (z - rescaled).norm() - 0.05
    assert (p - x).norm() == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_the_input_is_not_written_to(norm: str) -> None:
    x, z = torch.rand(3, 4, generator=rng(0)), torch.randn(3, 4, generator=rng(1))
    before = x.clone(), z.clone()
    project(z, x, eps=0.1, norm=norm)
    assert x.equal(before[0]) and z.equal(before[1])


@pytest.mark.parametrize("norm", NORMS)
def test_an_empty_batch_stays_empty(norm: str) -> None:
    assert project(torch.rand(0, 3), torch.rand(0, 3), eps=1, norm=norm).shape == (0, 3)


def test_bad_input_is_refused() -> None:
    x = torch.rand(2, 3, generator=rng(0))
    with pytest.raises(ValueError, match="must be alike"):
        project(x[:1], x, eps=1, norm="l2")
    with pytest.raises(ValueError, match="choose one of linf, l2"):
        project(x, x, eps=1, norm="l3")
    with pytest.raises(ValueError, match="not negative"):
        project(x, x, eps=-1, norm="l2")
    with pytest.raises(ValueError, match="normalisation"):
        project(x, x + 2, eps=1, norm="l2")


@pytest.mark.parametrize("reach", [0.1, 1.0, 10.0, 100.0])
def test_l1_is_exact_however_far_the_point(reach: float) -> None:
    g = rng(int(reach))
    x = with_walls(torch.rand(500, 12, generator=g, dtype=torch.float64), g, 0.5)
    v = reach * torch.randn(500, 12, generator=g, dtype=torch.float64)
    eps = 2 * torch.rand(500, generator=g, dtype=torch.float64)
    room = torch.where(v > 0, 1 - x, x)
    low, high = torch.zeros(500, 1).double(), v.abs().amax(1, keepdim=True)
    for _ in range(200):
        middle = (low + high) / 2
        much = (v.abs() - middle).clamp_min(0).minimum(room).sum(1) > eps
        low = torch.where(much[:, None], middle, low)
        high = torch.where(much[:, None], high, middle)
    best = x + v.sign() * (v.abs() - high).clamp_min(0).minimum(room)
    p = project(x + v, x, eps=eps, norm="l1")
    torch.testing.assert_close(p, best, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_a_pixel_a_hair_off_its_wall_has_no_part_in_the_step(
    norm: str, dtype: torch.dtype
) -> None:
    x = torch.full((1, 3), 0.5, dtype=dtype)
    at = torch.tensor([[1.0, 0.5, 0.0]], dtype=dtype)
    hair = torch.tensor([[0.9, 0.5, 0.1]], dtype=dtype)
    beside = at.nextafter(hair)
    assert not beside.equal(at)
    g = torch.tensor([[3.0, 0.5, -3.0]], dtype=dtype)
    ball, length = BALLS[norm](x, torch.tensor([9.0], dtype=dtype)), x[:, 0] / 5
    steps = [lambda z: ball.step_(z, g.clone(), length)]
    if isinstance(ball, L1Ball):
        share = torch.full_like(length, 0.5)
        steps.append(lambda z: ball.sparse_step_(z, g.clone(), length, share))
    for step in steps:
        there, close = step(at.clone()), step(beside.clone())
        torch.testing.assert_close(there, close, rtol=0, atol=1e-6)
        assert there[0, 1] > 0.55


@pytest.mark.parametrize("norm", NORMS)
def test_a_projection_of_very_many_coordinates_is_a_number(norm: str) -> None:
    """In single precision their sum is rounded by more than the tolerance."""
    for seed in (13, 17, 19, 21):
        g = rng(seed)
        x = torch.rand(4, 150_528, generator=g) * 0.9 + 0.05
        v = torch.randn(x.shape, generator=g) * 10 ** (
            -3 * torch.rand(4, 1, generator=g)
        )
        v /= 388
        length = v.norm(ORDERS[norm], dim=1)
        eps = length * (1 - 10 ** (-6 * torch.rand(4, generator=g)))
        moved = project(x + v, x=x, eps=eps, norm=norm) - x
        # To add x and to take it away rounds each coordinate.
        slack = 1e-7 * torch.ones(150_528).norm(ORDERS[norm])
        size = moved.norm(ORDERS[norm], dim=1)
        assert (size <= eps * (1 + 1e-4) + slack).all()
        assert (size >= 0.98 * eps - slack).all()


def test_what_is_not_picked_may_be_no_number() -> None:
    old, new = torch.ones(2, 3), torch.tensor([[math.nan] * 3, [5.0] * 3])
    assert pick(torch.tensor([False, True]), new, old).equal(
        torch.tensor([[1.0] * 3, [5.0] * 3])
    )


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_centre_may_ask_for_a_gradient(norm: str) -> None:
    x = torch.rand(2, 3, generator=rng(0)).requires_grad_()
    assert not project(x + 1, x, eps=0.1, norm=norm).requires_grad
