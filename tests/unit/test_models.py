"""Networks: equal scale at every rank, seeds that decide, normalisation inside."""

import gc
import itertools
import math
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crlib import attacks, certify, models
from crlib.models import (
    MLP,
    Box,
    ConvNet,
    LowRankConv2d,
    LowRankLinear,
    Normalize,
    Residual,
    ResNet,
    ViT,
    evaluating,
    weight_layers,
)
from tests.unit.support import SEEDS, rng


@given(SEEDS, st.integers(2, 40), st.integers(2, 40), st.data())
@settings(max_examples=30)
def test_a_low_rank_layer_starts_at_the_scale_of_a_full_one(
    seed: int, n_in: int, n_out: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(n_in, n_out)))
    layer = LowRankLinear(n_in, n_out, rank, seed=seed)
    frobenius = float(torch.linalg.norm(layer.weight.detach()))
    assert layer.weight.shape == (n_out, n_in)
    assert frobenius == pytest.approx(math.sqrt(n_out / 3), rel=1e-4)
    product = layer.left.detach().double() @ layer.right.detach().double()
    assert int(torch.linalg.matrix_rank(product)) == rank
    sides = [float(torch.linalg.norm(p.detach())) for p in (layer.left, layer.right)]
    assert sides[0] == pytest.approx(sides[1], rel=1e-4)


def test_that_scale_is_what_a_linear_layer_has_on_average() -> None:
    torch.manual_seed(0)
    sizes = [float(nn.Linear(60, 90).weight.detach().norm()) for _ in range(20)]
    assert sum(sizes) / 20 == pytest.approx(math.sqrt(90 / 3), rel=0.02)
    model = MLP((60, 90, 90, 3), rank=5)
    full = MLP((60, 90, 90, 3))
    for a, b in zip(model.weights[:2], full.weights[:2], strict=True):
        assert float(a.norm() / b.norm()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_a_low_rank_layer_multiplies_by_its_weight(bias: bool) -> None:
    layer = LowRankLinear(5, 4, 2, bias=bias)
    assert (layer.bias is not None) is bias
    if layer.bias is not None:
        layer.bias.data += torch.arange(4.0)
    x = torch.rand(3, 5, generator=rng(0))
    expected = x @ layer.weight.T + (torch.arange(4.0) if bias else 0)
    torch.testing.assert_close(layer(x), expected)


def test_rank_out_of_range_is_refused() -> None:
    for rank in (0, 4):
        with pytest.raises(ValueError, match="from 1 to 3"):
            LowRankLinear(3, 5, rank)
    with pytest.raises(ValueError, match="from 1 to 8"):
        MLP((8, 16, 2), rank=9)


@pytest.mark.parametrize("rank", [None, 3])
def test_the_seed_decides_and_global_randomness_is_not_touched(
    rank: int | None,
) -> None:
    before = torch.get_rng_state()
    a, b, c = (MLP((6, 8, 8, 3), rank=rank, bias=True, seed=s) for s in (1, 1, 2))
    assert torch.get_rng_state().equal(before)
    assert all(v.equal(w) for v, w in zip(a.weights, b.weights, strict=True))
    assert not any(v.equal(w) for v, w in zip(a.weights, c.weights, strict=True))
    assert not a.weights[0][:, :3].equal(a.weights[1][:, :3])


def test_two_low_rank_layers_of_one_network_differ() -> None:
    model = MLP((8, 8, 8, 2), rank=2)
    assert not model.weights[0].equal(model.weights[1])


@pytest.mark.parametrize("rank", [None, 3])
def test_an_mlp_is_its_weights_with_relu_between(rank: int | None) -> None:
    model = MLP((12, 8, 7, 3), rank=rank, mean=0.3, std=0.5)
    x = torch.rand(5, 1, 3, 4, generator=rng(0))
    h = ((x - 0.3) / 0.5).flatten(1)
    first, second, head = model.weights
    h = ((h @ first.T).relu() @ second.T).relu()
    torch.testing.assert_close(model.features(x), h)
    torch.testing.assert_close(model(x), h @ head.T)
    assert [tuple(w.shape) for w in model.weights] == [(8, 12), (7, 8), (3, 7)]
    assert not any(w.requires_grad for w in model.weights)


def test_only_hidden_layers_are_of_low_rank_and_bias_is_a_choice() -> None:
    model = MLP((9, 8, 8, 4), rank=2, bias=True)
    kinds = [type(layer) for layer in model.layers]
    assert kinds == [LowRankLinear, LowRankLinear, nn.Linear]
    assert all(layer.bias is not None for layer in model.layers)
    assert all(layer.bias is None for layer in MLP((9, 8, 4)).layers)


def test_a_linear_layer_starts_as_torch_would() -> None:
    (weight,) = MLP((100, 300)).weights
    assert weight.abs().max() <= 0.1
    assert float(weight.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_an_mlp_needs_inputs_and_classes() -> None:
    with pytest.raises(ValueError, match="at least inputs and classes"):
        MLP((3,))


def test_normalize_by_one_number_or_one_a_channel() -> None:
    x = torch.rand(2, 3, 4, 5, generator=rng(0))
    torch.testing.assert_close(Normalize(0.5, 0.25)(x), (x - 0.5) / 0.25)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0])
    out = Normalize(mean.tolist(), std.tolist())(x)
    for c in range(3):
        torch.testing.assert_close(out[:, c], (x[:, c] - mean[c]) / std[c])
    rows = torch.rand(4, 3, generator=rng(1))
    torch.testing.assert_close(
        Normalize(mean.tolist(), std.tolist())(rows), (rows - mean) / std
    )
    assert set(Normalize(0.0, 1.0).state_dict()) == {"mean", "std"}


@pytest.mark.parametrize("std", [0.0, -1.0, [1.0, 0.0, 1.0], math.nan])
def test_a_std_that_is_not_positive_is_refused(std: float | list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Normalize(0.0, std)


LOW, HIGH = [-2.0, 0.0, 10.0], [3.0, 0.5, 1010.0]


@pytest.mark.parametrize(
    ("low", "high", "shape"),
    [
        (-2.0, 3.0, (5, 4)),
        (LOW, HIGH, (5, 3)),
        (LOW, HIGH, (5, 3, 4, 2)),
        (0, HIGH, (2, 3)),
    ],
)
def test_a_box_maps_its_ends_and_back(low: Any, high: Any, shape: Any) -> None:
    box = Box(low, high).double()
    x = torch.rand(shape, generator=rng(0), dtype=torch.float64)
    ends = [box(torch.full_like(x, v)) for v in (0.0, 1.0)]
    for end, known in zip(ends, (low, high), strict=True):
        told = torch.as_tensor(known, dtype=torch.float64)
        told = told.view(-1, *(1,) * (x.ndim - 2)) if told.ndim else told
        assert torch.allclose(end, told.expand_as(end), atol=1e-4)
    u = box(x)
    assert torch.allclose(u, ends[0] + x * (ends[1] - ends[0]))
    assert torch.allclose(box.inside(u), x)
    # A budget in its units is what a step of that size moves.
    moved = box(x + 0.1) - u
    wide = box.budget(0.1)
    wide = wide.view(-1, *(1,) * (x.ndim - 2)) if wide.ndim else wide
    assert torch.allclose(moved, wide.expand_as(moved))


def test_a_box_that_is_none_is_refused() -> None:
    for low, high in ((1.0, 1.0), ([0.0, 2.0], [1.0, 1.0]), (0.0, math.inf)):
        with pytest.raises(ValueError, match="each end above its beginning"):
            Box(low, high)
    with pytest.raises(ValueError, match="low has 2 numbers and high 3"):
        Box([0.0, 0.0], [1.0, 1.0, 1.0])


def test_attacks_and_certificates_work_in_units_of_each_coordinate() -> None:
    """Volts and degrees: a step of a share of each range is that share of each."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    box = Box(LOW, HIGH)
    mine = nn.Sequential(box, net).eval()
    u = box(torch.rand(40, 3, generator=rng(1)))
    with torch.no_grad():
        net[0].weight /= box.budget(1.0)
        z = net(u)
        net[2].bias[0] -= (z[:, 0] - z[:, 1]).median()
    x, y = box.inside(u).clamp(0, 1), net(u).argmax(1)
    assert torch.equal(mine(x).argmax(1), y)
    found = attacks.pgd(mine, x, y, eps=0.3, steps=20)
    assert found.success.any()
    moved = (box(found.x_adv) - u).abs()
    assert (moved <= box.budget(0.3) * (1 + 1e-3)).all()
    assert (net(box(found.x_adv)).argmax(1) != y)[found.success].all()
    # A radius proven in [0, 1] holds in the box: no corner of it has another label.
    radius = certify.certified_radius(mine, x, y, tol=1e-2)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    steps = corners * box.budget(0.99)
    seen = u[:, None] + radius.to(u)[:, None, None] * steps
    seen = seen.clamp(torch.tensor(LOW), torch.tensor(HIGH))
    assert (radius > 0).any()
    assert (net(seen).argmax(2) == y[:, None]).all()


def test_evaluating_gives_every_module_its_own_flag_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    model[1].eval()
    flags = [m.training for m in model.modules()]
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == flags
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert [m.training for m in model.modules()] == flags
    with evaluating(lambda x: x):
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_gives_every_parameter_its_own_flag_back(fails: bool) -> None:
    model = MLP((4, 5, 3))
    frozen, learning = model.layers[0].weight, model.layers[1].weight
    frozen.requires_grad_(False)
    try:
        with evaluating(model):
            assert not learning.requires_grad
            if fails:
                raise RuntimeError("the attack broke off")
    except RuntimeError:
        pass
    assert learning.requires_grad and not frozen.requires_grad


NETWORKS = {
    "convolutions": lambda **o: ConvNet((4, 6, 8), 5, image=(3, 16, 16), **o),
    "residual": lambda **o: ResNet(5, blocks=(1, 2), width=8, **o),
    "attention": lambda **o: ViT(5, image=(3, 16, 16), dim=16, depth=2, heads=2, **o),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rank", [None, 2])
def test_networks_for_images(name: str, rank: int | None) -> None:
    state = torch.get_rng_state()
    make = NETWORKS[name]
    model, other = make(rank=rank, seed=1).eval(), make(rank=rank, seed=2).eval()
    assert torch.get_rng_state().equal(state)
    x = torch.rand(4, 3, 16, 16, generator=rng(0))
    z = model(x)
    assert z.shape == (4, 5) and z.std() > 0
    assert z.equal(make(rank=rank, seed=1).eval()(x)) and not z.equal(other(x))
    head = weight_layers(model)[-1]
    torch.testing.assert_close(head(model.features(x)), z)
    shifted = make(rank=rank, seed=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).eval()
    assert not shifted(x).equal(z)
    low = [m for m in weight_layers(model) if hasattr(m, "left")]
    assert bool(low) == (rank is not None)
    for layer in low:
        assert int(torch.linalg.matrix_rank(layer.weight.flatten(1), rtol=1e-4)) <= 2


def test_resnet_18_has_its_known_size() -> None:
    model = ResNet()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    assert len(weight_layers(model)) == 21
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_a_low_rank_convolution_starts_at_the_scale_of_a_full_one() -> None:
    torch.manual_seed(0)
    sizes = [float(nn.Conv2d(8, 12, 3).weight.detach().norm()) for _ in range(20)]
    low = LowRankConv2d(8, 12, 3, 4).weight.detach()
    assert float(low.norm()) == pytest.approx(sum(sizes) / 20, rel=0.05)
    with pytest.raises(ValueError, match="rank is 13"):
        LowRankConv2d(8, 12, 3, 13)


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="channels is empty"):
        ConvNet(())
    with pytest.raises(ValueError, match="patch must divide"):
        ViT(patch=5)
    with pytest.raises(ValueError, match="heads the width"):
        ViT(dim=30, heads=4)


def test_a_slice_of_a_convolutional_network_is_a_row_of_its_layers() -> None:
    net = ConvNet((2, 3), 4, image=(1, 8, 8))
    rest = net[1:]
    assert type(rest) is nn.Sequential and list(rest) == list(net)[1:]
    assert net[-1] is list(net)[-1] and type(net[:-1]) is nn.Sequential
    x = torch.rand(2, 1, 8, 8, generator=rng(0))
    assert torch.equal(rest(net[0](x)), net(x))
    assert torch.equal(net[:-1](x), net.features(x))


def test_a_residual_adds_its_input_or_what_its_shortcut_makes_of_it() -> None:
    body, shortcut = nn.Linear(3, 3), nn.Linear(3, 3)
    x = torch.rand(5, 3, generator=rng(0))
    assert torch.equal(Residual(body)(x), body(x) + x)
    assert torch.equal(Residual(body, shortcut)(x), body(x) + shortcut(x))


class Early(nn.Module):
    """A switch says which layer runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.early = nn.Linear(3, 3), nn.Linear(3, 3), False

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return x if self.early else self.two(x)


def test_the_order_follows_a_model_that_changes() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert models.order_of(net).head == "2"
    net.append(nn.ReLU()).append(nn.Linear(3, 2))
    assert models.order_of(net).head == "4"
    net[1] = nn.BatchNorm1d(5)
    assert models.order_of(net).norms == {"0": "1"}
    net[4] = nn.Tanh()
    assert models.order_of(net).head == "2"
    switch = Early()
    assert models.order_of(switch).head == "two"
    switch.early = True
    assert models.order_of(switch).head == "one"


def test_an_order_that_was_read_keeps_no_model_alive() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    order, watched = models.order_of(net), weakref.ref(net)
    assert models.order_of(net) is order
    del net
    gc.collect()
    assert watched() is None


def test_trailing_ones_leave_one_logit() -> None:
    wrapped = models.logits(lambda v: v[:, :1, None, None])
    assert wrapped(torch.rand(4, 2)).shape == (4, 2)
