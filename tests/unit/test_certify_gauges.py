"""What is proven of a network does not depend on the units it is written in."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from crlib import attacks, certify, metrics
from crlib.models import MLP, ConvNet, LowRankConv2d, Normalize
from tests.unit.support import SEEDS, Changed, predictions, rng

POWERS = (-20, -9, -6, -3, 3, 6, 9, 20)


def network(weights: list[Tensor], biases: list[Tensor]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for w, b in zip(weights, biases, strict=True):
        linear = nn.Linear(w.shape[1], len(w)).to(w.dtype)
        linear.weight.data, linear.bias.data = w.clone(), b.clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def drawn(
    seed: int, sizes: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[list[Tensor], list[Tensor]]:
    g = rng(seed)
    pairs = list(zip(sizes, sizes[1:], strict=False))
    weights = [torch.randn(h, m, generator=g, dtype=dtype) for m, h in pairs]
    biases = [0.3 * torch.randn(h, generator=g, dtype=dtype) for _, h in pairs]
    return [weights[0], *(w / 2 for w in weights[1:])], biases


def regauged(
    weights: list[Tensor], biases: list[Tensor], layer: int, factor: Tensor
) -> nn.Sequential:
    """Multiply the neurons of a layer, and divide what the next one reads."""
    weights, biases = list(weights), list(biases)
    weights[layer] = weights[layer] * factor[:, None]
    biases[layer] = biases[layer] * factor
    weights[layer + 1] = weights[layer + 1] / factor
    return network(weights, biases)


@pytest.mark.parametrize("power", POWERS)
def test_no_gauge_moves_an_exact_distance(power: int) -> None:
    g = rng(3)
    weights = [
        torch.randn(h, m, generator=g, dtype=torch.float64) / (1 if m == 4 else 2)
        for m, h in ((4, 6), (6, 6), (6, 3))
    ]
    biases = [0.3 * torch.randn(h, generator=g, dtype=torch.float64) for h in (6, 6, 3)]
    x = torch.rand(3, 4, generator=g, dtype=torch.float64)
    y = predictions(network(weights, biases), x)
    truth = torch.tensor([0.357847, 0.168760, 0.472307]).double()
    one = torch.full((6,), 10.0**power, dtype=torch.float64)
    scaled = network(
        [*weights[:2], weights[2] * one[0]], [*biases[:2], biases[2] * one[0]]
    )
    for net in (regauged(weights, biases, 0, one), scaled):
        found = certify.exact_distance(net, x, y)
        assert found.status == ("exact",) * 3
        torch.testing.assert_close(found.distance, truth, rtol=1e-5, atol=0)
        assert (found.lower <= found.distance).all()
        assert (certify.certified_radius(net, x, y) <= found.distance).all()


@pytest.mark.parametrize("power", POWERS)
def test_the_identity_is_a_quarter_from_its_boundary(power: int) -> None:
    eye, zero = torch.eye(2).double(), torch.zeros(2).double()
    x, y = torch.tensor([[0.8, 0.3]]).double(), torch.tensor([0])
    for second in (eye / 10.0**power, eye):
        net = network([eye * 10.0**power, second], [zero, zero])
        found = certify.exact_distance(net, x, y)
        assert found.status == ("exact",)
        assert float(found.distance) == pytest.approx(0.25, rel=1e-6)


@settings(max_examples=12)
@given(
    SEEDS,
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["linf", "l1"]),
    st.sampled_from(["plain", "low rank", "dead", "tied", "near"]),
)
def test_certificate_exact_attack_in_any_gauge(
    seed: int, dtype: torch.dtype, norm: str, kind: str
) -> None:
    g = rng(seed)
    weights, biases = drawn(seed, (3, 4, 4, 3), dtype)
    x = torch.rand(2, 3, generator=g, dtype=dtype)
    if kind == "low rank":
        weights[0] = weights[0][:1] * weights[0][:, :1]
    elif kind == "dead":
        biases[0] = biases[0] - 10 * (torch.arange(4) % 2)
    elif kind == "tied":
        weights[2][1], biases[2][1] = weights[2][0], biases[2][0]
    elif kind == "near":
        z = network(weights, biases)(x)[0].detach()
        biases[2] = biases[2] - z
        biases[2][0] += 1e-5
    y = predictions(network(weights, biases), x)
    # Every neuron has units of its own.
    wide = 20 if dtype == torch.float64 else 8
    power = torch.randint(-wide, wide + 1, (4,), generator=g).to(dtype)
    net = regauged(weights, biases, 0, 10.0**power)
    y = predictions(net, x)
    found = certify.exact_distance(net, x, y, norm=norm)
    assert "interval" not in found.status
    assert (found.lower <= found.distance).all()
    there = found.distance.isfinite()
    assert (found.distance <= found.lower * (1 + 1e-4))[there].all()
    bound = certify.lipschitz_radius(net, x, y, norm=norm)
    if norm == "linf":
        ibp = certify.certified_radius(net, x, y, bounds=certify.interval_bounds)
        bound = torch.maximum(bound, ibp)
        bound = torch.maximum(bound, certify.certified_radius(net, x, y))
    assert (bound <= found.distance * (1 + 1e-4)).all()
    if "near" not in kind:
        attack = attacks.pgd(net, x, y, eps=1.0, norm=norm, steps=10)
        fooled = attack.success
        size = attack.distance.double()
        assert (found.distance <= size * (1 + 1e-4) + 1e-9)[fooled].all()


def test_ties_are_at_distance_zero() -> None:
    eye, zero = torch.eye(2).double(), torch.zeros(2).double()
    net, x = network([eye, eye], [zero, zero]), torch.full((1, 2), 0.5).double()
    for norm in ("linf", "l1"):
        found = certify.exact_distance(net, x, torch.tensor([0]), norm=norm)
        assert found.distance == found.lower == 0 and found.status == ("exact",)


def test_a_distance_far_below_the_tolerances_keeps_its_digits() -> None:
    eye, zero = torch.eye(2).double(), torch.zeros(2).double()
    for gap in (1e-4, 1e-7, 1e-9):
        x = torch.tensor([[0.5 + gap, 0.5]], dtype=torch.float64)
        found = certify.exact_distance(
            network([eye, eye], [zero, zero]), x, torch.tensor([0])
        )
        assert float(found.distance) == pytest.approx(gap / 2, rel=1e-4)


def constant(bias: list[float]) -> nn.Sequential:
    zero = torch.zeros(2, 2)
    return network([zero, zero], [torch.zeros(2), torch.tensor(bias)])


def test_a_network_without_slope_has_no_boundary_or_only_that() -> None:
    x, y = torch.full((1, 2), 0.5), torch.tensor([0])
    for norm in ("linf", "l2", "l1"):
        assert (
            certify.lipschitz_radius(constant([1.0, 0.0]), x, y, norm=norm) == math.inf
        )
        assert certify.lipschitz_radius(constant([0.0, 0.0]), x, y, norm=norm) == 0
    tiny = network([torch.eye(2).double() * 1e-200] * 2, [torch.zeros(2).double()] * 2)
    assert certify.lipschitz_bound(tiny, (2,)) > 0


CERTIFICATES: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "lipschitz": certify.lipschitz_radius,
    "bound": lambda m, x, y: certify.lipschitz_bound(m, x.shape[1:]),
    "interval": lambda m, x, y: certify.interval_bounds(m, x, y, eps=0.1),
    "crown": lambda m, x, y: certify.crown_bounds(m, x, y, eps=0.1),
    "radius": certify.certified_radius,
    "exact": certify.exact_distance,
}


@pytest.mark.parametrize("name", CERTIFICATES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_weights_that_are_not_finite_prove_nothing(
    name: str, bad: float, where: str
) -> None:
    net = MLP((3, 4, 2), bias=True)
    getattr(net.layers[0], where).data[0] = bad
    x, y = torch.rand(2, 3, generator=rng(0)), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="NaN or infinite"):
        CERTIFICATES[name](net, x, y)


@pytest.mark.parametrize("name", CERTIFICATES)
def test_whole_numbers_and_no_samples(name: str) -> None:
    net, y = MLP((3, 4, 2)), torch.tensor([0, 1])
    if name != "bound":
        with pytest.raises(ValueError, match="floating-point"):
            CERTIFICATES[name](net, torch.ones(2, 3, dtype=torch.int64), y)
        with pytest.raises(ValueError, match="inputs lie in"):
            CERTIFICATES[name](net, torch.full((2, 3), math.nan), y)
    CERTIFICATES[name](net, torch.zeros(0, 3), y[:0])


def tenfold(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (10 * inputs[0],)


def rounded(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return ((255 * inputs[0]).round() / 255,)


def hooked(net: MLP) -> object:
    return net.register_forward_pre_hook(tenfold)


def hooked_layer(net: MLP) -> object:
    return net.layers[0].register_forward_hook(lambda m, i, out: 2 * out)


def patched(net: MLP) -> object:
    layer = net.layers[0]
    old = layer.forward
    layer.forward = lambda x: 3 * old(x)  # type: ignore[method-assign]
    return net


def rounding(net: MLP) -> object:
    # Nothing happens to inputs on the grid of eight bits.
    return net.register_forward_pre_hook(rounded)


@pytest.mark.parametrize("name", CERTIFICATES)
@pytest.mark.parametrize("change", [hooked, hooked_layer, patched, rounding])
def test_what_changes_the_logits_unseen_is_refused(
    name: str, change: Callable[[MLP], object]
) -> None:
    net = MLP((3, 6, 2), bias=True)
    change(net)
    x, y = torch.tensor([[0.0, 1.0, 0.2]]), torch.tensor([0])
    with pytest.raises(ValueError, match="a hook, a patched forward"):
        CERTIFICATES[name](net, x, y)


@pytest.mark.parametrize("name", CERTIFICATES)
def test_what_does_not_change_the_logits_is_let_through(name: str) -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    parametrizations.spectral_norm(net[0])
    net.register_forward_hook(lambda m, i, out: None)
    x, y = torch.rand(2, 3, generator=rng(0)), torch.tensor([0, 1])
    CERTIFICATES[name](net, x, y)


def test_a_large_bias_does_not_look_like_a_hook() -> None:
    net = MLP((3, 6, 2), bias=True)
    net.layers[0].bias.data += 1e6
    x, y = torch.rand(2, 3, generator=rng(0)), torch.tensor([0, 1])
    certify.crown_bounds(net, x, y, eps=0.1)


def test_sampling_asks_for_logits() -> None:
    x = torch.rand(2, 3, generator=rng(0))
    one = nn.Linear(3, 1)
    broken = Changed(nn.Linear(3, 2), lambda z: z * math.nan)
    for model, message in ((one, "K at least 2"), (broken, "NaN")):
        with pytest.raises(ValueError, match=message):
            certify.smooth_certify(model, x, sigma=0.1, n=10)


def folded(seed: int = 0) -> nn.Sequential:
    """Return layers that became known: batch normalisation, pools, low-rank kernels."""
    g = rng(seed)
    net = nn.Sequential(
        Normalize([0.4, 0.6], [0.5, 0.25]),
        LowRankConv2d(2, 4, 3, 2, padding=1, bias=True),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.ReLU(),
        nn.Linear(6, 3),
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            n = module.num_features
            module.running_mean.copy_(0.2 * torch.randn(n, generator=g))
            module.running_var.copy_(0.2 + torch.rand(n, generator=g))
            if module.affine:
                module.weight.data.copy_(torch.randn(n, generator=g))
                module.bias.data.copy_(0.3 * torch.randn(n, generator=g))
    return net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "folded": folded,
    "low rank": lambda: ConvNet((3, 4), 3, image=(2, 6, 6), rank=2),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("train", [False, True])
def test_the_bounds_hold_where_layers_became_known(name: str, train: bool) -> None:
    model = MODELS[name]().train(train)
    g = rng(1)
    x = torch.rand(2, 2, 6, 6, generator=g)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.eval()
    y = predictions(model, x)
    model.train(train)
    lows = [
        bounds(model, x, y, eps=0.05)
        for bounds in (certify.interval_bounds, certify.crown_bounds)
    ]
    sizes = {
        n: certify.lipschitz_bound(model, (2, 6, 6), norm=n)
        for n in ("linf", "l2", "l1")
    }
    assert model.training == train
    assert all(v.equal(model.state_dict()[k]) for k, v in state.items())
    model.eval()
    orders = {"linf": math.inf, "l2": 2, "l1": 1}
    for i in range(2):
        u = 2 * torch.rand(2000, 2, 6, 6, generator=g) - 1
        u[::2] = u[::2].sign()
        with torch.no_grad():
            points = (x[i] + 0.05 * u).clamp(0, 1)
            z, start = model(points), model(x[i : i + 1])
        seen = (z[:, y[i]][:, None] - z).amin(0)
        rivals = torch.arange(3) != y[i]
        for low in lows:
            assert (low[i] <= seen + 1e-5)[rivals].all()
        for norm, size in sizes.items():
            gone = torch.linalg.vector_norm(z - start, ord=orders[norm], dim=1)
            moved = (points - x[i]).flatten(1)
            way = torch.linalg.vector_norm(moved, ord=orders[norm], dim=1)
            assert (gone <= size * way * (1 + 1e-4)).all()
    radius = certify.certified_radius(model, x, y, tol=1e-3)
    assert (radius > 0).all()
    attack = attacks.pgd(model, x, y, eps=0.999 * radius.float().clamp_max(1), steps=20)
    assert not attack.success.any()


def test_a_factorised_kernel_has_the_norms_of_the_one_it_stands_for() -> None:
    low = LowRankConv2d(2, 4, 3, 2, stride=2, padding=1)
    plain = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
    plain.weight.data = low.weight.detach()
    for norm in ("linf", "l2", "l1"):
        sizes = [
            metrics.layer_operator_norm(layer, (2, 7, 7), norm=norm)
            for layer in (low, plain)
        ]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)


def test_normalisation_by_the_batch_cannot_be_bounded() -> None:
    net = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)
    )
    with pytest.raises(ValueError, match="no running statistics"):
        certify.lipschitz_bound(net, (3,))


@pytest.mark.parametrize(
    "layer", [nn.MaxPool1d(2), nn.Mish(), nn.ELU(), nn.LayerNorm(4), nn.PReLU()]
)
def test_what_is_not_known_is_named(layer: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2))
    with pytest.raises(ValueError, match=type(layer).__name__):
        certify.lipschitz_bound(net, (4,))
