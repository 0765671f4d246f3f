"""Alignment, pairing, Lipschitz products and the logistic gap."""

import math

import pytest
import torch

from crlib import certify, metrics, models, theory

G = torch.Generator().manual_seed(0)
W = torch.randn(5, 7, generator=G)
NEXT = torch.randn(3, 5, generator=G)
IDENTITY = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, -1.0]])
ABSOLUTE = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0]])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_aligned_pair_has_alignment_one(norm: str) -> None:
    found = theory.interlayer_alignment(IDENTITY[1], IDENTITY[0], 2, norm=norm)
    assert found.exact and found.remainder == 0
    assert found.low == pytest.approx(1) and found.high == pytest.approx(1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_absolute_value_has_alignment_one_half(norm: str) -> None:
    found = theory.interlayer_alignment(ABSOLUTE[1], ABSOLUTE[0], 2, norm=norm)
    assert found.low == pytest.approx(0.5) and found.high == pytest.approx(0.5)


def test_what_is_dropped_is_in_the_remainder() -> None:
    found = theory.interlayer_alignment(
        torch.diag(torch.tensor([2.0, 1.0])), torch.diag(torch.tensor([3.0, 4.0])), 1
    )
    assert found.remainder == pytest.approx(1 / 2 + 3 / 4)
    assert found.dominant == pytest.approx(0) and found.high == 1
    assert found.low == pytest.approx(6 / 8)


def test_a_layer_with_fewer_terms_keeps_all() -> None:
    few = theory.interlayer_alignment(NEXT[:1], W, 5)
    many = theory.interlayer_alignment(NEXT[:1], W, 50)
    assert few == many and few.remainder == 0


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_scale_and_type_do_not_matter(norm: str) -> None:
    before = theory.interlayer_alignment(NEXT, W, 2, norm=norm)
    after = theory.interlayer_alignment(NEXT.double() * 8, -W / 4, 2, norm=norm)
    assert before == pytest.approx(after)


def test_one_term_is_exact_for_many_units() -> None:
    g = torch.Generator().manual_seed(1)
    v, u = (torch.randn(200, generator=g).double() for _ in range(2))
    found = theory.interlayer_alignment(v[None], u[:, None], 1)
    terms = v * u / (v.norm() * u.norm())
    right = max(terms.clamp_min(0).sum(), -terms.clamp_max(0).sum())
    assert found.exact and found.dominant == pytest.approx(float(right))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_many_units_are_bounded_from_both_sides(norm: str) -> None:
    g = torch.Generator().manual_seed(2)
    w, w_next = torch.randn(40, 9, generator=g), torch.randn(6, 40, generator=g)
    found = theory.interlayer_alignment(w_next, w, 40, norm=norm)
    assert not found.exact and 0 < found.low < found.high <= 1
    # linf: with few rows all masks can be tried again.
    few = theory.interlayer_alignment(w_next, w, 8, norm=norm)
    assert few.exact is (norm == "linf")


@pytest.mark.parametrize(
    ("w_next", "w", "options", "message"),
    [
        (NEXT, W, {"k": 1, "norm": "l1"}, "norm is 'l1': choose one of l2, linf"),
        (NEXT, W, {"k": 0}, "k is 0"),
        (W, NEXT, {"k": 1}, "do not follow each other"),
        (NEXT, 0 * W, {"k": 1}, "A layer is zero"),
        (0 * NEXT, W, {"k": 1}, "A layer is zero"),
        (NEXT, W[0], {"k": 1}, "Give a matrix"),
        (NEXT, W * math.nan, {"k": 1}, "NaN"),
    ],
)
def test_alignment_refuses(w_next, w, options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        theory.interlayer_alignment(w_next, w, **options)


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        ([], ()),
        ([1.0], (0,)),
        ([0.0, -1.0], ()),
        ([1.0, 3.0, 1.0], (1,)),
        ([2.0, 3.0, 2.0], (0, 2)),
        ([1.0, 0.0, 0.0, 1.0], (0, 3)),
        ([math.inf, 1.0], (0,)),
    ],
)
def test_pairs_are_chosen(weights: list[float], chosen: tuple[int, ...]) -> None:
    assert theory.optimal_pairing(weights) == chosen


def test_pairing_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="NaN"):
        theory.optimal_pairing([1.0, math.nan])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_product_is_that_of_the_certificate(norm: str) -> None:
    net = models.MLP((6, 5, 4, 3), seed=0)
    found = theory.network_lipschitz(net.weights, 2, norm=norm)
    assert found.product == pytest.approx(
        certify.lipschitz_bound(net, (6,), norm=norm), rel=1e-6
    )
    assert found.aligned <= found.product and len(found.alignments) == 2


def test_one_layer_has_no_pairs() -> None:
    found = theory.network_lipschitz([W], 2)
    assert found.pairs == () and found.alignments == ()
    assert found.aligned == found.product == metrics.operator_norm(W)


def test_layers_that_annihilate_each_other_give_zero() -> None:
    first, second = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0]])
    assert theory.network_lipschitz([first, second], 1, norm="linf").aligned == 0


def test_a_network_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="at least one weight"):
        theory.network_lipschitz([], 1)


def test_without_reach_there_is_no_gap() -> None:
    assert theory.logistic_gap_bounds(torch.randn(5, generator=G), 0.0) == (0, 0, 0)


def test_the_gap_of_one_point() -> None:
    low, value, high = theory.logistic_gap_bounds(torch.zeros(1), 1.0)
    assert low == pytest.approx(0.5)
    assert value == pytest.approx(math.log1p(math.e) - math.log(2))
    assert high == pytest.approx(1 / (1 + math.exp(-1)))


def test_huge_margins_do_not_overflow() -> None:
    for side in theory.logistic_gap_bounds(torch.tensor([-1e6]), 3.0):
        assert side == pytest.approx(3)
    for side in theory.logistic_gap_bounds(torch.tensor([1e6]), 3.0):
        assert side == 0


@pytest.mark.parametrize(
    ("margins", "reach", "message"),
    [
        (torch.zeros(0), 1.0, "finite margins"),
        (torch.zeros(2, 2), 1.0, "finite margins"),
        (torch.tensor([math.inf]), 1.0, "finite margins"),
        (torch.zeros(2), -1.0, "reach is -1"),
        (torch.zeros(2), math.inf, "reach is inf"),
    ],
)
def test_the_gap_refuses(margins: torch.Tensor, reach: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        theory.logistic_gap_bounds(margins, reach)


def test_every_pair_of_one_layer_is_its_norm() -> None:
    found = theory.every_pair([W])
    assert found.bound == found.product == pytest.approx(metrics.operator_norm(W))
    assert found.exponents == (1.0,) and found.slack == 1


def test_every_pair_knows_no_gauge_of_whole_layers_and_no_rounding_direction() -> None:
    ws = [torch.randn(s, generator=G).double() for s in ((5, 4), (6, 5), (2, 6))]
    scaled = [1e-200 * ws[0], 1e200 * ws[1], ws[2]]
    plain = theory.every_pair(ws)
    assert theory.every_pair(scaled).bound == pytest.approx(plain.bound, rel=1e-6)
    low = ws[1][:, :2] @ ws[1][:2]
    for t in (0.0, 0.5, 1.0):
        whole = theory.every_pair([ws[0], low, ws[2]], [t]).bound
        noisy = theory.every_pair([ws[0], low * (1 + 1e-15), ws[2]], [t]).bound
        assert noisy == pytest.approx(whole, rel=1e-9)


def test_every_pair_beyond_the_range_of_numbers_is_infinite() -> None:
    assert theory.every_pair([1e200 * torch.eye(2).double()] * 2).bound == math.inf


@pytest.mark.parametrize(
    ("weights", "exponents", "message"),
    [
        ([], None, "at least one weight matrix"),
        ([W, W], None, "do not follow each other"),
        ([W, 0 * NEXT], None, "A layer is zero"),
        ([W * math.nan], None, "finite weight matrices"),
        ([W, NEXT], [0.5], "the 0 layers between"),
        ([W, NEXT, NEXT.T], [1.5], r"give one in \[0, 1\]"),
    ],
)
def test_every_pair_refuses(
    weights: list[torch.Tensor], exponents: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        theory.every_pair(weights, exponents)


def test_a_path_norm_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="at least one weight matrix"):
        theory.path_norm([])


@pytest.mark.parametrize(
    ("margins", "inner", "message"),
    [
        (torch.zeros(0), torch.zeros(0, 5), "at least one"),
        (torch.zeros(2), torch.zeros(2, 3), "a gradient of 5 numbers"),
        (torch.full((1,), math.inf), torch.zeros(1, 5), "must be finite"),
    ],
)
def test_a_slope_refuses(
    margins: torch.Tensor, inner: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        theory.gap_slope(margins, inner, W, 1)


def test_a_drift_refuses_networks_of_other_shapes_and_no_reach() -> None:
    x = torch.zeros(1, 7)
    assert theory.margin_drift([W, NEXT], [W, NEXT], x, 3.0) == 0
    for full, cut in (([W], [NEXT]), ([], []), ([W], [W, NEXT])):
        with pytest.raises(ValueError, match="layers of the same shapes"):
            theory.margin_drift(full, cut, x)
    with pytest.raises(ValueError, match="not negative"):
        theory.margin_drift([W], [W], x, -1.0)
