"""Operator norms of layers against the SVD of the unrolled operator."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib import metrics, models
from tests.unit.support import rng

CONVOLUTIONS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "plain": ({"kernel_size": 3}, (3, 6, 6)),
    "padding": ({"kernel_size": 3, "padding": 1}, (3, 6, 5)),
    "same": ({"kernel_size": 3, "padding": "same", "dilation": 2}, (3, 6, 5)),
    "same, uneven": ({"kernel_size": (2, 4), "padding": "same"}, (3, 5, 6)),
    "circular": (
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
        (3, 6, 5),
    ),
    "circular, uneven": (
        {"kernel_size": (4, 2), "padding": "same", "padding_mode": "circular"},
        (3, 6, 5),
    ),
    "reflected": (
        {"kernel_size": 3, "padding": (2, 1), "stride": 2, "padding_mode": "reflect"},
        (3, 7, 6),
    ),
    "repeated": (
        {"kernel_size": 3, "padding": 2, "groups": 3, "padding_mode": "replicate"},
        (3, 5, 4),
    ),
    "valid": ({"kernel_size": (1, 3), "padding": "valid"}, (3, 4, 5)),
    "stride": ({"kernel_size": 3, "stride": 2, "padding": (1, 0)}, (3, 7, 6)),
    "dilation": ({"kernel_size": 2, "dilation": (2, 1)}, (3, 6, 5)),
    "groups": ({"kernel_size": 3, "groups": 3, "padding": 2}, (3, 5, 5)),
    "one value": ({"kernel_size": 3}, (3, 3, 3)),
}


def convolution(options: dict[str, Any], seed: int = 0, out: int = 6) -> nn.Conv2d:
    layer = nn.utils.skip_init(nn.Conv2d, 3, out, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng(seed)))
    return layer


def unrolled(layer: nn.Conv2d, shape: tuple[int, ...]) -> Tensor:
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    layer = layer.double()
    with torch.no_grad():
        rows = layer(units) - layer(torch.zeros_like(units[:1]))
    return rows.flatten(1).T


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_norm_of_a_convolution_is_that_of_its_matrix(name: str, norm: str) -> None:
    options, shape = CONVOLUTIONS[name]
    for seed, out in ((0, 3), (1, 6)):
        layer = convolution(options, seed, out)
        found = metrics.layer_operator_norm(layer, shape, norm=norm)
        exact = metrics.operator_norm(unrolled(layer, shape), norm=norm)
        if norm != "l2" and name in ("reflected", "repeated"):
            assert exact * (1 - 1e-9) <= found <= 2 * exact
        else:
            assert found == pytest.approx(exact, rel=1e-9)


def test_an_estimate_cut_short_is_low_but_not_by_more_than_its_tolerance() -> None:
    layer, shape = convolution({"kernel_size": 3, "padding": 1}), (3, 12, 12)
    exact = metrics.operator_norm(unrolled(layer, shape))
    for tol in (0.5, 0.2, 0.05):
        for seed in range(20):
            found = metrics.layer_operator_norm(
                layer, shape, tol=tol, generator=rng(seed)
            )
            assert (1 - tol) * exact <= found <= exact * (1 + 1e-9)


def test_the_norm_of_the_reshaped_kernel_is_no_bound() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(layer.weight)
    kernel = metrics.operator_norm(layer.weight.flatten(1))
    assert kernel == pytest.approx(3)
    assert metrics.layer_operator_norm(layer, (1, 30, 30)) > 2.9 * kernel


def test_a_zero_convolution_has_norm_zero() -> None:
    layer = nn.Conv2d(1, 2, 3)
    nn.init.zeros_(layer.weight)
    assert metrics.layer_operator_norm(layer, (1, 5, 5)) == 0


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_a_fully_connected_layer_is_its_matrix(norm: str) -> None:
    for layer in (nn.Linear(4, 3), models.LowRankLinear(5, 4, 2)):
        assert metrics.layer_operator_norm(layer, norm=norm) == metrics.operator_norm(
            layer.weight, norm=norm
        )


def test_what_is_not_a_known_linear_layer_is_refused() -> None:
    conv, shape = nn.Conv2d(2, 2, 3), (2, 5, 5)
    norm = metrics.layer_operator_norm
    with pytest.raises(ValueError, match="ReLU is no linear layer"):
        norm(nn.ReLU())
    with pytest.raises(ValueError, match="choose one of linf, l2, l1"):
        norm(conv, shape, norm="fro")
    for tol in (0, 1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            norm(conv, shape, tol=tol)
    for bad in (None, 5, (5, 5)):
        for ask in (norm, metrics.symbol_norm, metrics.convolution):
            with pytest.raises(ValueError, match=r"give \(C, H, W\)"):
                ask(conv, bad)
    for bad in ((3, 5, 5), (2, 2, 2)):
        with pytest.raises(ValueError, match="does not take images"):
            norm(conv, bad)
    with pytest.raises(ValueError, match="does not take images"):
        norm(nn.Conv2d(2, 2, 3, padding=5, padding_mode="reflect"), shape)


def test_a_symbol_bounds_the_norm_and_is_close_to_it() -> None:
    for options in (
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 5, "padding": 0},
        {"kernel_size": (2, 4), "padding": "same"},
    ):
        layer, shape = convolution(options), (3, 12, 12)
        exact = metrics.operator_norm(unrolled(layer, shape))
        assert exact <= metrics.symbol_norm(layer, shape) < 1.25 * exact


def test_the_symbol_of_a_low_rank_convolution_is_that_of_its_kernel() -> None:
    low = models.LowRankConv2d(3, 6, 3, 2, padding=1)
    whole = torch.nn.Conv2d(3, 6, 3, padding=1, bias=False)
    whole.weight.data = low.weight.detach()
    shape = (3, 9, 7)
    both = metrics.symbol_norm(low, shape), metrics.symbol_norm(whole, shape)
    assert both[0] == pytest.approx(both[1], rel=1e-9)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_a_symbol_needs_zeros_around_the_picture(mode: str) -> None:
    layer = convolution({"kernel_size": 3, "padding": 1, "padding_mode": mode})
    with pytest.raises(ValueError, match="a symbol needs zeros"):
        metrics.symbol_norm(layer, (3, 8, 8))


def test_repeated_pixels_can_stretch_more_than_the_symbol_says() -> None:
    # Which is why a symbol is refused there.
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="replicate", bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0, 0, 1] = torch.tensor([1.0, -1.0, 1.0])
    zeros = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    zeros.weight = layer.weight
    bound = metrics.symbol_norm(zeros, (1, 3, 3))
    assert metrics.layer_operator_norm(zeros, (1, 3, 3)) <= bound
    wide = nn.Conv2d(1, 1, 3, padding=4, padding_mode="replicate", bias=False)
    wide.weight = layer.weight
    assert metrics.layer_operator_norm(wide, (1, 3, 3)) > bound


@pytest.mark.parametrize("stride", [2, 3, (1, 2)])
def test_a_symbol_of_a_stride_is_close_to_the_norm(
    stride: int | tuple[int, int],
) -> None:
    options = {"kernel_size": 3, "padding": 1, "stride": stride}
    layer, shape = convolution(options), (3, 13, 12)
    exact = metrics.operator_norm(unrolled(layer, shape))
    assert exact * (1 - 1e-9) <= metrics.symbol_norm(layer, shape) < 1.1 * exact
    low = models.LowRankConv2d(3, 6, 3, 2, stride=2, padding=1)
    whole = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
    whole.weight.data = low.weight.detach()
    both = metrics.symbol_norm(low, shape), metrics.symbol_norm(whole, shape)
    assert both[0] == pytest.approx(both[1], rel=1e-9)
