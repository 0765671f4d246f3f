"""Residual sums, max pooling and smooth activations: what is proven of them holds."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crlib import attacks, certify
from crlib.certify import bends, reading
from crlib.models import Residual, ResNet
from tests.mutated import mutated
from tests.unit.support import SEEDS, predictions, rng
from tests.unit.test_certify import differences, randomised

CURVES = {kind.__name__: curve for kind, curve in bends.CURVES.items()}
POOLS = {
    "apart": nn.MaxPool2d(2),
    "overlapping": nn.MaxPool2d(3, stride=1, padding=1),
    "dilated": nn.MaxPool2d((2, 3), stride=(2, 1), padding=(0, 1), dilation=(3, 1)),
    "one pixel": nn.MaxPool2d(1, stride=2),
}


def pool(name: str) -> bends.Highest:
    return reading._windows(POOLS[name], (2, 5, 6))


BENDS: dict[str, Callable[[], Any]] = {
    "relu": lambda: bends.RELU,
    "leaky": lambda: bends.Bend(0.2),
    **{name: lambda name=name: CURVES[name] for name in CURVES},
    **{name: lambda name=name: pool(name) for name in POOLS},
}


def within(a: Tensor, b: Tensor, count: int, g: torch.Generator) -> Tensor:
    """Draw points ``(count, *shape)`` of a box, corners and edges among them."""
    share = torch.rand(count, *a.shape, generator=g, dtype=a.dtype)
    share[::3] = share[::3].round()
    share[1::3] = torch.where(share[1::3] < 0.5, share[1::3] * 0, share[1::3])
    return torch.minimum(torch.maximum(a + share * (b - a), a), b)


def boxes(power: float, width: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw boxes ``(3, 2, 5, 6)`` of a scale, some entries of no width at all."""
    size = (3, 2, 5, 6)
    a = 10**power * torch.randn(size, generator=g, dtype=torch.float64)
    wide = 10**width * torch.rand(size, generator=g, dtype=torch.float64)
    wide *= torch.rand(size, generator=g) < 0.9
    return a, a + wide


def assert_around(name: str, seed: int, power: float, width: float) -> None:
    bend, g = BENDS[name](), rng(seed)
    a, b = boxes(power, width, g)
    low, high = bend.box(a, b)
    rows = torch.randn(3, 7, *low.shape[1:], generator=g, dtype=a.dtype)
    rows[:, 0], rows[:, 1] = rows[:, 0].abs(), -rows[:, 1].abs()
    pulled, total = bend.pull(rows, bend.lines(a, b))
    for v in within(a, b, 30, g):
        f = bend(v)
        assert (low <= f).all() and (f <= high).all()
        least = total + (pulled * v.unsqueeze(1)).flatten(2).sum(2)
        # Of sums of some sixty products, in float64.
        size = (rows.abs() * f.abs().unsqueeze(1)).flatten(2).sum(2)
        size += (pulled.abs() * v.abs().unsqueeze(1)).flatten(2).sum(2) + total.abs()
        seen = (rows * f.unsqueeze(1)).flatten(2).sum(2)
        assert (least <= seen + 1e-14 * size).all()


@pytest.mark.parametrize("name", BENDS)
@settings(max_examples=15)
@given(SEEDS, st.floats(-6, 6), st.floats(-9, 6))
def test_a_bend_lies_in_its_box_and_above_what_is_pulled_back(
    name: str, seed: int, power: float, width: float
) -> None:
    assert_around(name, seed, power, width)


def assert_between(name: str, seed: int, power: float, width: float) -> None:
    curve, g = CURVES[name], rng(seed)
    a, b = boxes(power, width, g)
    low, floor, high, roof = curve.lines(a, b)
    for v in within(a, b, 60, g):
        f = curve(v)
        assert (low * v + floor <= f).all() and (f <= high * v + roof).all()


@pytest.mark.parametrize("name", CURVES)
@settings(max_examples=25)
@given(SEEDS, st.floats(-6, 3), st.floats(-9, 6))
def test_a_curve_lies_between_its_lines_down_to_the_last_digit(
    name: str, seed: int, power: float, width: float
) -> None:
    assert_between(name, seed, power, width)


@pytest.mark.parametrize("name", CURVES)
def test_the_lines_close_in_with_the_square_of_the_width(name: str) -> None:
    curve, g = CURVES[name], rng(0)
    a = 3 * torch.randn(400, generator=g, dtype=torch.float64)
    for width in (1.0, 0.1, 0.01, 1e-3):
        low, floor, high, roof = curve.lines(a, a + width)
        for v in within(a, a + width, 20, g):
            assert ((high - low) * v + roof - floor).max() <= (
                curve.bend * width**2 + 1e-12
            )
    # Of a width far beyond the curve, a few hundredths of it.
    wide = torch.tensor([1e6], dtype=torch.float64)
    low, floor, high, roof = curve.lines(-wide, wide)
    assert float(roof - floor) < 1.1e6 * (curve.slopes[1] - curve.slopes[0])


@pytest.mark.parametrize("name", CURVES)
def test_slopes_bend_and_lowest_point_are_those_of_the_function(name: str) -> None:
    curve = CURVES[name]
    v = torch.linspace(-30, 30, 60001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(curve(v).sum(), v, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), v)
    assert curve.slopes[0] <= slope.min() and slope.max() <= curve.slopes[1]
    assert second.abs().max() <= curve.bend
    # Rounded outwards, not drawn from the air.
    assert slope.max() - slope.min() > 0.99 * (curve.slopes[1] - curve.slopes[0])
    assert second.abs().max() > 0.99 * curve.bend
    assert (slope[v < curve.lowest - 1e-3] <= 0).all()
    assert (slope[v > curve.lowest + 1e-3] >= 0).all()
    if curve.lowest > -math.inf:
        at = torch.tensor(curve.lowest, dtype=torch.float64, requires_grad=True)
        (flat,) = torch.autograd.grad(curve(at), at)
        assert abs(float(flat)) < 1e-15


@pytest.mark.parametrize("name", POOLS)
def test_windows_are_those_of_max_pooling(name: str) -> None:
    v = torch.randn(4, 2, 5, 6, generator=rng(1)).double() - 2
    assert pool(name)(v).equal(POOLS[name](v))
    # The count of windows that see a pixel is reached: one pixel rises alone.
    layer, step = POOLS[name], pool(name)
    bumps = torch.eye(30, dtype=torch.float64).view(30, 1, 5, 6)
    moved = layer(bumps).flatten(1)
    assert float(moved.sum(1).max()) == step.stretch("l1")
    assert float(moved.norm(dim=1).max()) == pytest.approx(step.stretch("l2"))
    assert float(moved.max()) == step.stretch("linf")


def test_a_window_with_one_possible_winner_is_that_pixel() -> None:
    step = pool("apart")
    a = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    a[..., ::2, ::2] = 1.0
    low, high = step.lines(a, a + 0.5)[1:]
    assert low.all() and (high == 1.5).all()
    rows = torch.randn(1, 3, 2, 2, 3, generator=rng(0)).double()
    pulled, total = step.pull(rows, step.lines(a, a + 0.5))
    assert (total == 0).all()
    assert pulled[..., :4:2, ::2].equal(rows) and (pulled[..., 1::2, :] == 0).all()


def line(*layers: nn.Module, shape: tuple[int, ...]) -> Callable[[int], nn.Module]:
    """Return networks of such layers, their weights drawn from a seed."""
    return lambda seed: randomised(nn.Sequential(*layers).eval(), shape, seed)


def block(n: int, act: nn.Module) -> nn.Module:
    return Residual(nn.Sequential(nn.Linear(n, n), act, nn.Linear(n, n)))


def conv(n: int, m: int) -> nn.Module:
    return nn.Conv2d(n, m, 3, padding=1)


IMAGE = (1, 6, 6)
NETS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "blocks": (
        lambda seed: randomised(
            ResNet(3, blocks=(1, 1), width=4, channels=1).eval(), IMAGE, seed
        ),
        IMAGE,
    ),
    "one in another": (
        line(
            nn.Linear(4, 6),
            Residual(
                nn.Sequential(block(6, nn.GELU()), nn.ReLU(), block(6, nn.ReLU())),
                nn.Linear(6, 6),
            ),
            nn.ReLU(),
            nn.Linear(6, 3),
            shape=(4,),
        ),
        (4,),
    ),
    "pooled": (
        line(
            *(conv(1, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(conv(3, 3), nn.MaxPool2d(3, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(12, 3)),
            shape=IMAGE,
        ),
        IMAGE,
    ),
    **{
        kind.__name__: (
            line(
                *(conv(1, 3), kind(), nn.MaxPool2d(2), nn.Flatten()),
                *(nn.Linear(27, 8), kind(), block(8, kind()), nn.Linear(8, 3)),
                shape=IMAGE,
            ),
            IMAGE,
        )
        for kind in bends.CURVES
    },
}


def task(name: str, seed: int, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    make, shape = NETS[name]
    model, x = make(seed), torch.rand(n, *shape, generator=rng(seed))
    return model, x, predictions(model, x)


def assert_proven(
    name: str, seed: int, power: float, eps: float, dtype: torch.dtype
) -> None:
    model, x, _ = task(name, seed, 2)
    g = rng(seed)
    first = next(m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter *= 10**power
    model, x = model.to(dtype), x.to(dtype)
    y = predictions(model, x)
    intervals = certify.interval_bounds(model, x, y, eps=eps)
    lines = certify.crown_bounds(model, x, y, eps=eps)
    assert (lines >= intervals).all()
    low, high = ((x.double() + s * eps).clamp(0, 1) for s in (-1, 1))
    points = within(low, high, 200, g).flatten(0, 1)  # point after point, x within
    seen = differences(model.double(), points, y.repeat(200)).view(200, 2, -1)
    rivals = torch.arange(3) != y[:, None]
    noise = 1e-12 + 1e-9 * seen.abs().max()
    assert (lines <= seen.amin(0) + noise)[rivals].all()


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=8)
@given(
    SEEDS,
    st.floats(-6, 6),
    st.sampled_from([1e-6, 1e-3, 0.05, 1.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_bounds_hold_in_any_gauge_and_box(
    name: str, seed: int, power: float, eps: float, dtype: torch.dtype
) -> None:
    assert_proven(name, seed, power, eps, dtype)


@pytest.mark.parametrize("name", NETS)
def test_no_attack_is_nearer_than_the_certificate(name: str) -> None:
    model, x, y = task(name, 3, 6)
    intervals = certify.certified_radius(
        model, x, y, bounds=certify.interval_bounds, tol=1e-3
    )
    lines = certify.certified_radius(model, x, y, tol=1e-3)
    product = certify.lipschitz_radius(model, x, y, norm="linf")
    found = attacks.fmn(model, x, y, norm="linf").distance.double()
    assert (intervals <= lines).all() and (lines <= found).all()
    assert (product <= found).all() and (product > 0).all()
    # The better bound is better by more than a hair, and not worthless.
    assert (intervals < lines).any() and (lines > 0.02 * found).any()
    near = attacks.pgd(model, x, y, eps=0.999 * lines.float().clamp_max(1), steps=30)
    assert not near.success.any()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_no_two_inputs_move_the_logits_more_than_the_bound(
    name: str, norm: str
) -> None:
    model, x, _ = task(name, 1, 300)
    other = (x + 0.1 * torch.randn(x.shape, generator=rng(2))).clamp(0, 1)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    with torch.no_grad():
        gone = torch.linalg.vector_norm(model(x) - model(other), ord=order, dim=1)
    way = torch.linalg.vector_norm((x - other).flatten(1), ord=order, dim=1)
    bound = certify.lipschitz_bound(model, x.shape[1:], norm=norm)
    assert (gone / way).max() <= bound * (1 + 1e-5)


def test_lines_prove_more_than_intervals_on_average() -> None:
    for name in NETS:
        gains = []
        for seed in range(4):
            model, x, y = task(name, seed, 4)
            lows = [
                bounds(model, x, y, eps=0.03)
                for bounds in (certify.interval_bounds, certify.crown_bounds)
            ]
            gains.append((lows[1] - lows[0])[lows[0].isfinite()].mean())
        assert min(gains) > 0, name


def test_a_linear_map_and_its_shortcut_are_one_linear_map() -> None:
    g = rng(0)
    body, other = nn.Linear(5, 5), nn.Linear(5, 3)
    model = nn.Sequential(Residual(body), other)
    one = nn.Linear(5, 3).double()
    with torch.no_grad():
        weight = body.weight.double() + torch.eye(5)
        one.weight.copy_(other.weight.double() @ weight)
        one.bias.copy_(other.weight.double() @ body.bias.double() + other.bias.double())
    x = torch.rand(6, 5, generator=g)
    y = predictions(model, x)
    # Substituted back the two branches are one; as boxes they are two.
    exact = certify.crown_bounds(one, x.double(), y, eps=0.1)
    found = certify.crown_bounds(model, x, y, eps=0.1)
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)
    boxed = certify.interval_bounds(model, x, y, eps=0.1)
    assert (boxed < exact)[exact.isfinite()].any()


def test_a_sum_stretches_by_the_sum_of_its_branches() -> None:
    body = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        body.weight.copy_(torch.eye(2))
    for norm in ("linf", "l2", "l1"):
        double = nn.Sequential(Residual(body), nn.Identity())
        assert certify.lipschitz_bound(double, (2,), norm=norm) == pytest.approx(2)
        both = Residual(nn.Sequential(body, body), body)
        assert certify.lipschitz_bound(both, (2,), norm=norm) == pytest.approx(2)


def test_a_residual_network_is_read_as_its_own_layers() -> None:
    model, x, y = task("blocks", 0, 3)
    assert isinstance(model, ResNet)
    row = nn.Sequential(*model.parts()).eval()
    torch.testing.assert_close(row(x), model(x))
    torch.testing.assert_close(
        certify.crown_bounds(row, x, y, eps=0.02),
        certify.crown_bounds(model, x, y, eps=0.02),
    )
    # One activation may stand in two places.
    act = nn.ReLU()
    layers = [nn.Flatten(), nn.Linear(36, 4), act, nn.Linear(4, 4), act]
    twice = nn.Sequential(*layers, nn.Linear(4, 3))
    assert len(reading.layers_of(twice, IMAGE)) == 6
    certify.crown_bounds(twice, x, y, eps=0.02)


class Patched(ResNet):
    def features(self, x: Tensor) -> Tensor:
        return 2 * super().features(x)


class Centred(nn.Conv2d):
    """The forward pass is the known one, what it calls is not."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Any) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


def padded_with(value: float) -> nn.Module:
    layer = nn.ZeroPad2d(1)
    layer.value = value
    return layer


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "an approximation": (nn.GELU("tanh"), "only approximate='none'"),
    "half a window": (nn.MaxPool2d(2, ceil_mode=True), "without ceil_mode"),
    "two answers": (nn.MaxPool2d(2, return_indices=True), "without ceil_mode"),
    "unlike branches": (Residual(nn.MaxPool2d(2)), "make them alike"),
    "inside a branch": (Residual(nn.Softplus()), "Softplus is not a module"),
    "a negative divisor": (nn.AvgPool2d(2, divisor_override=-4), "a positive divisor"),
    "padding with ones": (padded_with(1.0), "only zeros can be bounded"),
    "changed within": (Centred(1, 1, 3), "Centred is not a module"),
    "a class of its own": (Patched(3, blocks=(1,), width=2), "Patched is not a module"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_rule_covers_is_refused_by_name(name: str) -> None:
    layer, words = REFUSED[name]
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(36, 3))
    x, y = torch.rand(2, *IMAGE, generator=rng(0)), torch.tensor([0, 1])
    for call in (
        lambda: certify.interval_bounds(model, x, y, eps=0.1),
        lambda: certify.lipschitz_bound(model, IMAGE),
        lambda: certify.exact_distance(model, x, y),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("name", ["blocks", "pooled", "GELU"])
def test_an_exact_distance_is_refused_where_bounds_exist(name: str) -> None:
    model, x, y = task(name, 0, 2)
    with pytest.raises(ValueError, match="crown_bounds bounds it"):
        certify.exact_distance(model, x, y)


def test_a_block_that_was_patched_is_noticed() -> None:
    model, x, y = task("blocks", 0, 2)
    assert isinstance(model, ResNet)
    block: Any = model.blocks[0]
    old = block.forward
    block.forward = lambda x: old(x) + 0.1
    with pytest.raises(ValueError, match="a patched forward"):
        certify.crown_bounds(model, x, y, eps=0.01)


# A class of crlib.certify.bends, its method, what is wrong there, and what notices.
counted = test_windows_are_those_of_max_pooling
summed = test_a_sum_stretches_by_the_sum_of_its_branches


def around(name: str) -> None:
    for seed in range(6):
        assert_around(name, seed, power=0, width=0.5)


def between(name: str) -> None:
    for seed in range(6):
        assert_between(name, seed, power=0, width=2)


def proven(name: str) -> None:
    for seed in range(6):
        assert_proven(name, seed, 0, 0.05, torch.float64)


METHODS: dict[str, tuple[str, str, str, str, Callable[[], None]]] = {
    "the lowest roof": (
        *("Highest", "lines", "sure, highs.amax(-1)", "sure, highs.amin(-1)"),
        lambda: around("overlapping"),
    ),
    "a winner by half": (
        *("Highest", "lines", "<= lows.amax(-1)", "<= highs.amax(-1)"),
        lambda: around("overlapping"),
    ),
    "few windows": (
        *("Highest", "stretch", ".bincount().max()", ".bincount().min()"),
        lambda: counted("overlapping"),
    ),
    "between the grid": (
        *("Curve", "lines", "least - reach, most + reach", "least, most"),
        lambda: between("GELU"),
    ),
    "one cell too few": (
        *("Curve", "lines", "range(1, CELLS + 1)", "range(1, CELLS // 2)"),
        lambda: around("SiLU"),
    ),
    "as if it always rose": (
        *("Curve", "box", "torch.maximum(a, b.clamp_max(self.lowest))", "a"),
        lambda: around("GELU"),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_rule_of_a_bend_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, method, find, replace, check = METHODS[name]
    with mutated(f"crlib.certify.bends.{kind}", find, replace):
        wrong = vars(getattr(bends, kind))[method]
    # The curves of the table are of the class as it was.
    monkeypatch.setattr(getattr(bends, kind), method, wrong)
    with pytest.raises(AssertionError):
        check()


RULES: dict[str, tuple[str, str, str, Callable[[], None]]] = {
    "one branch": (
        *("crlib.certify.relaxation._pulled", "one + other, first + second"),
        *("one, first", lambda: proven("one in another")),
    ),
    "the wider branch": (
        *("crlib.certify.relaxation._walk", "one[1][1] + other[1][1]"),
        *("torch.maximum(one[1][1], other[1][1])", lambda: proven("blocks")),
    ),
    "the larger constant": (
        *("crlib.certify.lipschitz._norm", "sum(_product"),
        *("max(_product", summed),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_wrong_rule_of_a_sum_is_noticed(name: str) -> None:
    where, find, replace, check = RULES[name]
    with mutated(where, find, replace), pytest.raises(AssertionError):
        check()
