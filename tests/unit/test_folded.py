"""Batch normalisation folded into the layer before it, and what cannot be folded."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib import metrics, models
from tests.unit.support import rng


def _stirred(model: nn.Module) -> Any:
    """Give the normalisations statistics and factors that are not those of a start."""
    g = rng(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_(generator=g)
            norm.running_var.uniform_(0.1, 3, generator=g)
            nn.init.normal_(norm.weight, generator=g)
            nn.init.normal_(norm.bias, generator=g)
    return model.double().eval()


def _line(rank: int | None = None) -> nn.Module:
    first: nn.Module = nn.Linear(6, 8)
    if rank is not None:
        first = models.LowRankLinear(6, 8, rank, bias=True)
    return nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


NETS = {
    "line": (_line(), (5, 6)),
    "line of low rank": (_line(2), (5, 6)),
    "residual": (models.ResNet(4, blocks=(1, 1), width=3), (5, 3, 8, 8)),
    "residual of low rank": (
        models.ResNet(4, blocks=(1, 1), width=3, rank=2),
        (5, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_the_folded_network_answers_alike_and_normalises_nothing(name: str) -> None:
    start, shape = NETS[name]
    model = _stirred(copy.deepcopy(start))
    before = copy.deepcopy(model.state_dict())
    flat = metrics.folded(model)
    x = torch.rand(shape, generator=rng(1)).double()
    assert torch.allclose(flat(x), model(x), rtol=1e-9, atol=1e-9)
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert not any(isinstance(m, kinds) for m in flat.modules())
    assert any(isinstance(m, kinds) for m in model.modules())
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_without_factors_of_its_own_a_normalisation_folds_too() -> None:
    model = nn.Sequential(
        nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2)
    )
    norm: Any = model[1]
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 0.5, 9.0]))
    model = model.double().eval()
    x = torch.rand(7, 4, generator=rng(0)).double()
    assert torch.allclose(metrics.folded(model)(x), model(x))


def test_a_network_without_normalisation_is_copied() -> None:
    net = models.MLP((4, 5, 3), seed=1)
    flat: Any = metrics.folded(net)
    assert flat is not net and flat.layers[0].weight.equal(net.layers[0].weight)


def test_a_gauge_moves_raw_kernels_and_no_folded_one() -> None:
    model = _stirred(_line())
    twin = copy.deepcopy(model)
    layer, norm = twin[0], twin[1]
    for one in (model[1], norm):
        one.eps = 0.0
    t = torch.rand(8, generator=rng(2)).double() + 0.5
    layer.weight.data *= t[:, None]
    layer.bias.data *= t
    norm.running_mean *= t
    norm.running_var *= t**2
    flat: list[Any] = [metrics.folded(m) for m in (model, twin)]
    one, other = (m[0] for m in flat)
    assert torch.allclose(one.weight, other.weight)
    assert torch.allclose(one.bias, other.bias)
    assert not torch.allclose(model[0].weight, layer.weight)


class _Named(nn.Conv2d):
    """A class of the user's own that computes what it inherits."""


class _Normed(nn.BatchNorm2d):
    """Likewise."""


class _Centred(nn.Conv2d):
    """The forward pass is the known one, what it calls is not."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Any) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


def _pictures(conv: nn.Module, norm: nn.Module) -> nn.Module:
    return nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def test_classes_of_ones_own_that_compute_the_same_are_folded() -> None:
    model = _stirred(_pictures(_Named(3, 4, 3), _Normed(4)))
    x = torch.rand(5, 3, 4, 4, generator=rng(1)).double()
    flat: Any = metrics.folded(model)
    assert torch.allclose(flat(x), model(x))
    assert type(flat[0]) is _Named and isinstance(flat[1], nn.Identity)


class _Shared(nn.Module):
    """The first layer is read by its normalisation, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        out: Tensor = self.head(z + self.norm(z))
        return out


class _Twice(_Shared):
    """One normalisation reads two layers."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.body(x))
        return self.head(out) + self.head(self.norm(x))


class _Hidden(_Shared):
    """Which way the data go depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.body(x))
        out: Tensor = self.head(z if x.sum() > 0 else -z)
        return out


REFUSED = {
    "changed within": _pictures(_Centred(3, 4, 3), nn.BatchNorm2d(4)),
    "computed": _pictures(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
    ),
    "read past it": _Shared(),
    "reads no layer": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)),
    "behind the ReLU": nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)
    ),
    "one for two": _Twice(),
    "hidden": _Hidden(),
    "fewer tokens than rows": nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(5), nn.Flatten(), nn.Linear(30, 2)
    ),
    "rows of pictures": nn.Sequential(nn.Linear(4, 6), nn.BatchNorm2d(6)),
    "no statistics": nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_folded_is_refused(name: str) -> None:
    words = "no running statistics" if name == "no statistics" else "cannot be folded"
    with pytest.raises(ValueError, match=words):
        metrics.folded(REFUSED[name])


def test_layers_with_one_kernel_are_folded_each_by_its_own_normalisation() -> None:
    model = _stirred(
        nn.Sequential(
            *(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()),
            *(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4)),
        )
    )
    model[3].weight = model[6].weight = model[0].weight
    x = torch.rand(9, 4, generator=rng(1)).double()
    flat: Any = metrics.folded(model)
    assert torch.allclose(flat(x), model(x), rtol=1e-12, atol=1e-12)
    assert flat[6].weight.equal(model[6].weight)


class _Alias(nn.Module):
    """Layer and normalisation run by other names than their first ones."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _line()
        self.first, self.norm, _, self.head = self.net.children()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.first(x)).relu())
        return out


def test_a_normalisation_goes_under_each_of_its_names() -> None:
    model = _stirred(_Alias())
    x = torch.rand(5, 6, generator=rng(1)).double()
    flat = metrics.folded(model)
    assert torch.allclose(flat(x), model(x), rtol=1e-12, atol=1e-12)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in flat.modules())


def test_tokens_are_no_channels_of_a_layer() -> None:
    # As many tokens as neurons: nothing but the input tells them apart.
    model = _stirred(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)))
    x = torch.rand(5, 6, 4, generator=rng(1)).double()
    flat = metrics.folded(model)
    assert torch.allclose(flat(x[:, 0]), model(x[:, 0]))
    model(x)
    with pytest.raises(ValueError, match=r"\(5, 6, 6\), whose axis 1"):
        flat(x)
