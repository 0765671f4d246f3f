"""Compression acts on the layers it says it acts on, or refuses; nothing is silent."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from crlib import compress, metrics, train
from crlib.data import Dataset, gaussian_classes
from crlib.models import MLP, ConvNet, ResNet, weight_layers
from tests.unit.support import rng


def old_weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)


def masked_bias(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "bias", 0.5)


DERIVED: dict[str, Callable[[nn.Module], object]] = {
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight norm": old_weight_norm,
    "mask": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "mask of the bias": masked_bias,
}
ACTS: dict[str, Callable[[nn.Module], object]] = {
    "prune": lambda m: compress.prune(m, 0.9),
    "prune rows": lambda m: compress.prune(m, 0.5, structure="rows"),
    "prune to error": lambda m: compress.prune_to_error(m, 0.3),
    "truncate": lambda m: compress.truncate(m, rank=1),
    "factorise": lambda m: compress.factorise(m, rank=1),
    "quantise": lambda m: compress.quantise(m, bits=2),
    "fixed frobenius": compress.fixed_frobenius,
    "spectral dial": compress.spectral_dial(1.0),
    "row dial": compress.row_dial(1.0),
    "clip spectrum": compress.clip_spectrum(0.1),
    "orthonormal factors": compress.orthonormal_factors(),
    "keep zeros": compress.keep_zeros,
    "size": lambda m: compress.size(m, (6,)),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("kind", DERIVED)
def test_a_weight_that_is_computed_is_refused_with_the_cure(
    act: str, kind: str
) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    DERIVED[kind](model[0])
    with pytest.raises(ValueError, match=r"remove_parametrizations.*prune\.remove"):
        ACTS[act](model)


def test_what_was_baked_in_is_compressed() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    parametrizations.spectral_norm(model[0])
    parametrize.remove_parametrizations(model[0], "weight")
    assert int((compress.prune(model, 0.9)[0].weight == 0).sum()) == 27


def test_a_penalty_has_the_gradient_of_what_is_computed() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    parametrizations.weight_norm(model[0])
    compress.group_lasso(1.0)(model).backward()
    assert all(p.grad is not None for p in model[0].parametrizations.parameters())


@pytest.mark.parametrize("act", [name for name in ACTS if name != "size"])
@pytest.mark.parametrize(
    "strange",
    [
        nn.Conv1d(1, 2, 3),
        nn.ConvTranspose2d(1, 2, 3),
        nn.LSTM(4, 4),
        nn.MultiheadAttention(4, 2),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_layer_that_is_not_known_is_refused_by_name(
    act: str, strange: nn.Module
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), strange, nn.Linear(4, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=f"1 is {type(strange).__name__}"):
        ACTS[act](model)


COUNTED: dict[str, tuple[nn.Module, tuple[int, ...], int, int]] = {
    # parameters; products: places times kernel
    "conv1d": (nn.Conv1d(3, 4, 5, stride=2), (3, 21), 64, 9 * 60),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2), (4, 6, 6), 152, 16 * 144),
    "conv3d": (nn.Conv3d(1, 2, 2), (1, 3, 3, 3), 18, 8 * 16),
    "transposed": (nn.ConvTranspose2d(3, 4, 2, stride=2), (3, 5, 5), 52, 25 * 48),
    "transposed 1d": (nn.ConvTranspose1d(2, 3, 4), (2, 7), 27, 7 * 24),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_every_convolution_counts(kind: str) -> None:
    layer, shape, parameters, macs = COUNTED[kind]
    found = compress.size(layer, shape)
    assert (found.parameters, found.macs) == (parameters, macs)


def test_what_cannot_be_counted_is_refused() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.inner.weight.T

    for layer in (nn.LSTM(4, 4), nn.Bilinear(4, 4, 2), nn.MultiheadAttention(4, 2)):
        with pytest.raises(ValueError, match=f"{type(layer).__name__}: how many"):
            compress.size(nn.Sequential(nn.Linear(4, 4), layer), (4,))
    with pytest.raises(ValueError, match="inner ran in no forward pass"):
        compress.size(Aside(), (4,))


class HeadFirst(nn.Module):
    """Registers the layer that runs last before the others."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 5)
        self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 16)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(self.second(self.first(x).relu()).relu())
        return z


def test_the_head_is_the_layer_that_runs_last() -> None:
    model = HeadFirst()
    pruned = compress.prune(model, 0.5, structure="rows")
    alive = [
        int((layer.weight != 0).any(1).sum())
        for layer in (pruned.head, pruned.first, pruned.second)
    ]
    assert alive == [5, 10, 8]
    assert compress.factorise(model, rank=2).head.weight.equal(model.head.weight)
    assert train.new_head(model, 7).head.out_features == 7


def test_reading_the_order_leaves_chance_and_model_alone() -> None:
    class Noisy(HeadFirst):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            return super().forward(x)

    model = Noisy()
    before, state = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    compress.group_lasso(1.0)(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(state[k].equal(v) for k, v in model.state_dict().items())


def test_an_order_that_cannot_be_read_is_that_of_registration() -> None:
    class Conditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            z = self.norm(self.body(x))
            if x.sum() > 0:
                z = z.relu()
            out: Tensor = self.head(z)
            return out

    model = Conditional()
    assert int((compress.prune(model, 0.5).body.weight == 0).sum()) == 12
    with pytest.raises(ValueError, match="prune weights, not rows"):
        compress.prune(model, 0.5, structure="rows")


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    """Four classes of small pictures, far apart."""
    means = torch.rand(4, 3, 4, 4, generator=rng(1)).repeat_interleave(2, 2)
    means = means.repeat_interleave(2, 3).flatten(1)
    flat = gaussian_classes(512, 256, 0.3 + 0.4 * means, noise=0.15)
    shape = (-1, 3, 8, 8)
    return Dataset(
        flat.x_train.view(shape),
        flat.y_train,
        flat.x_test.view(shape),
        flat.y_test,
        flat.name,
        flat.source,
        flat.fingerprint,
    )


@pytest.fixture(scope="module")
def resnet(pictures: Dataset) -> ResNet:
    model: ResNet = train.fit(
        ResNet(4, blocks=(1, 1, 1), width=12, mean=0.5, std=0.25),
        pictures,
        epochs=6,
        lr=5e-3,
        checkpoint="last",
        validation=0,
        progress=False,
    ).model
    return model.eval()


def test_what_is_pruned_behind_a_batch_normalisation_sends_zero(
    resnet: ResNet, pictures: Dataset
) -> None:
    pruned = compress.prune(resnet, 0.25, structure="rows").eval()
    x = pictures.x_test[:8]
    with torch.no_grad():
        sent = pruned.norm(pruned.stem(pruned.normalize(x)))
        full = resnet.norm(resnet.stem(resnet.normalize(x)))
    off = (pruned.stem.weight == 0).flatten(1).all(1)
    assert int(off.sum()) == 3
    assert (sent[:, off] == 0).all() and sent[:, ~off].equal(full[:, ~off])
    # Without that, what a removed filter sends is a constant that is not small.
    norm = resnet.norm
    spread = (norm.running_var + norm.eps).sqrt()
    constant = norm.bias - norm.weight * norm.running_mean / spread
    assert constant[off].abs().max() > 0.1


def test_zeros_behind_a_batch_normalisation_stay_while_fine_tuning(
    resnet: ResNet, pictures: Dataset
) -> None:
    pruned = compress.prune(resnet, 0.25, structure="rows")
    tuned = train.fit(
        pruned,
        pictures.subset(64, 16),
        epochs=2,
        constraint=compress.keep_zeros(pruned),
        checkpoint="last",
        validation=0,
        progress=False,
    ).model
    off = (pruned.stem.weight == 0).flatten(1).all(1)
    for norm in (tuned.norm.weight, tuned.norm.bias):
        assert (norm[off] == 0).all() and (norm[~off] != 0).all()


def test_renewed_statistics_bring_the_accuracy_back(
    resnet: ResNet, pictures: Dataset
) -> None:
    def of(model: Any) -> float:
        return metrics.accuracy(model, pictures.x_test, pictures.y_test)

    assert of(resnet) > 0.98
    for share, stale, fresh in ((0.05, 0.98, 0.98), (0.5, 0.0, 0.8)):
        pruned = compress.prune(resnet, share, structure="rows")
        renewed = compress.renew_statistics(pruned, pictures.x_train)
        assert of(pruned) >= stale and of(renewed) > fresh
    # Half of the rows: at chance, and only because the statistics are old.
    assert of(pruned) < 0.5
    assert all(
        a.equal(b)
        for a, b in zip(pruned.parameters(), renewed.parameters(), strict=True)
    )
    assert not renewed.training and renewed.norm.momentum == resnet.norm.momentum


def test_statistics_are_the_mean_over_the_passes() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    x = torch.rand(300, 2, generator=rng(0))
    whole = compress.renew_statistics(model, x, batch_size=300)[0]
    torch.testing.assert_close(whole.running_mean, x.mean(0))
    torch.testing.assert_close(whole.running_var, x.var(0))
    parts = compress.renew_statistics(model, x, batch_size=100)[0]
    torch.testing.assert_close(parts.running_mean, x.mean(0))
    assert model[0].num_batches_tracked == 0 and model.training


def test_statistics_without_a_home_are_refused() -> None:
    x = torch.rand(4, 6)
    with pytest.raises(ValueError, match="no batch normalisation"):
        compress.renew_statistics(MLP((6, 5, 2)), x)
    with pytest.raises(ValueError, match="no batch normalisation"):
        compress.renew_statistics(nn.BatchNorm1d(6, track_running_stats=False), x)
    with pytest.raises(ValueError, match="fewer than two"):
        compress.renew_statistics(nn.BatchNorm1d(6), x[:1])
    bare = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 2)
    )
    with pytest.raises(ValueError, match="affine=False"):
        compress.prune(bare, 0.5, structure="rows")


@pytest.mark.parametrize("bias", [False, True])
def test_recentring_restores_the_means_layer_by_layer(bias: bool) -> None:
    net = MLP((6, 9, 8, 3), bias=bias, seed=1).double()
    x = torch.rand(200, 6, generator=rng(0), dtype=torch.float64)
    small = compress.prune(net, 0.7)
    again = compress.recentre(net, small, x, batch_size=64)
    for k in range(len(net.layers)):
        means = []
        for model in (net, again):
            h = model.normalize(x)
            for layer in model.layers[:k]:
                h = layer(h).relu()
            means.append(model.layers[k](h).mean(0))
        assert torch.allclose(*means, atol=1e-12)
    assert not torch.allclose(small(x).mean(0), net(x).mean(0), atol=1e-3)
    for a, b in zip(small.layers, again.layers, strict=True):
        assert torch.equal(a.weight, b.weight)
    assert (small.layers[0].bias is None) is not bias  # it works on a copy


def test_recentring_can_leave_the_head_alone() -> None:
    net = MLP((6, 9, 8, 3), bias=True, seed=1).double()
    x = torch.rand(200, 6, generator=rng(0), dtype=torch.float64)
    small = compress.prune(net, 0.7)
    once, again = (compress.recentre(net, small, x, head=h) for h in (True, False))
    for k in range(2):
        assert torch.equal(once.layers[k].bias, again.layers[k].bias)
    assert torch.equal(again.layers[2].bias, small.layers[2].bias)
    assert not torch.allclose(once.layers[2].bias, small.layers[2].bias, atol=1e-3)


def test_recentring_never_raises_the_error_of_a_layer() -> None:
    for seed in range(200):
        g = rng(seed)
        net = nn.Sequential(nn.Linear(5, 4)).double()
        small = copy.deepcopy(net)
        with torch.no_grad():
            small[0].weight += torch.randn(4, 5, generator=g, dtype=torch.float64)
        x = torch.rand(30, 5, generator=g, dtype=torch.float64)
        again = compress.recentre(net, small, x)
        error = [(m(x) - net(x)).square().mean() for m in (again, small)]
        assert error[0] <= error[1] * (1 + 1e-12)


def test_recentring_of_a_convolution_is_over_samples_and_places() -> None:
    net = ConvNet((4, 4), 3, image=(2, 6, 6)).double()
    x = torch.rand(20, 2, 6, 6, generator=rng(2), dtype=torch.float64)
    again = compress.recentre(net, compress.quantise(net, bits=3), x)
    assert torch.allclose(again(x).mean(0), net(x).mean(0), atol=1e-12)
    with pytest.raises(ValueError, match="same outputs"):
        compress.recentre(net, ConvNet((4, 5), 3, image=(2, 6, 6)).double(), x)


class Remembers(nn.Module):
    """Keeps its last activations, as feature extractors do."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.one(x).relu()
        out: Tensor = self.head(self.last)
        return out


def test_activations_that_a_network_keeps_are_copied_as_values() -> None:
    net = Remembers()
    net(torch.rand(5, 3, generator=rng(0)))
    assert net.last.grad_fn is not None
    small = compress.prune(net, 0.5)
    assert small.last.equal(net.last) and small.last.grad_fn is None
    assert int((small.one.weight == 0).sum()) == 6 and net.one.weight.all()
    net.all = [2 * net.last]
    with pytest.raises(ValueError, match="cannot be copied"):
        compress.prune(net, 0.5)


def test_means_are_restored_in_one_pass_as_in_one_pass_for_each_layer() -> None:
    net = ResNet(3, blocks=(1, 1), width=4).double().eval()
    small = compress.quantise(net, bits=3)
    x = torch.rand(12, 3, 8, 8, generator=rng(0), dtype=torch.float64)
    once = compress.recentre(net, small, x)
    parts = compress.recentre(net, small, x, batch_size=5)
    for a, b in zip(weight_layers(once), weight_layers(parts), strict=True):
        assert torch.allclose(a.bias, b.bias, atol=1e-12) and a.bias.abs().sum() > 0
    assert torch.allclose(once(x).mean(0), net(x).mean(0))


def stirred(model: nn.Module) -> Any:
    """Give the normalisations constants that they send where a row is zero."""
    g = rng(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            assert norm.running_mean is not None
            norm.running_mean.normal_(generator=g)
            nn.init.normal_(norm.bias, generator=g)
    return model.eval()


def test_rows_are_pruned_behind_no_normalisation_of_tokens() -> None:
    model = stirred(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)))
    pruned = compress.prune(model, 0.5, structure="rows")
    x = torch.rand(5, 6, 4, generator=rng(1))
    off = (pruned[0].weight == 0).all(1)
    assert off.sum() == 3 and (pruned[:2](x[:, 0])[:, off] == 0).all()
    # As many tokens as neurons: only the input tells that a channel is a token.
    with pytest.raises(ValueError, match=r"\(5, 6, 6\), whose axis 1"):
        pruned(x)
    again = compress.prune(pruned, 0.5, structure="rows")
    assert again(x[:, 0]).equal(pruned(x[:, 0]))
    assert compress.prune(model, 0.5)(x).shape == (5, 6, 2)


class TwoNorms(nn.Module):
    """One layer runs twice, each time before a normalisation of that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.first, self.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(self.body(x)).relu()
        out: Tensor = self.head(self.second(self.body(z)).relu())
        return out


class OneNorm(TwoNorms):
    """Two layers before one normalisation: the channels of one are not the other's."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(self.body(x)).relu()
        out: Tensor = self.first(self.head(z))
        return out


def one_bias() -> nn.Module:
    model = nn.Sequential(
        *(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()),
        *(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
    )
    model[4].bias = model[1].bias
    return model


NOT_ALONE = {
    "tokens": lambda: nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(5), nn.Flatten(), nn.Linear(30, 2)
    ),
    "pictures": lambda: nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(36, 2)
    ),
    "two behind one": TwoNorms,
    "one behind two": OneNorm,
    "one bias": one_bias,
}


@pytest.mark.parametrize("name", NOT_ALONE)
def test_a_normalisation_that_cannot_switch_a_row_off_is_refused(name: str) -> None:
    model = NOT_ALONE[name]()
    for act in (compress.prune, compress.prune_to_error):
        with pytest.raises(ValueError, match="cannot switch rows off"):
            act(model, 0.5, structure="rows")
    compress.prune(model, 0.5)


@pytest.mark.parametrize("act", [name for name in ACTS if name != "size"])
def test_a_parameter_of_the_head_is_not_changed_with_a_hidden_layer(act: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    if act == "quantise":  # the head too
        compress.quantise(model)
        return
    with pytest.raises(ValueError, match="The head shares a parameter"):
        ACTS[act](model)


def test_a_head_that_came_later_is_the_head() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5))
    keep = compress.l1(1.0)
    assert torch.isclose(keep(net), net[0].weight.abs().sum())
    net.append(nn.ReLU()).append(nn.Linear(5, 2))
    assert torch.isclose(keep(net), sum(net[k].weight.abs().sum() for k in (0, 2)))


class Again(nn.Module):
    """A layer that runs twice, and one by another name than its first."""

    def __init__(self) -> None:
        super().__init__()
        twice = nn.Linear(6, 6)
        self.net = nn.Sequential(twice, nn.ReLU(), twice, nn.ReLU(), nn.Linear(6, 6))
        self.last, self.head = self.net[4], nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.last(self.net[:4](x)).relu())
        return out


def test_a_layer_is_factorised_under_each_of_its_names() -> None:
    model, x = Again().double(), torch.rand(9, 6, generator=rng(1)).double()
    low = compress.truncate(model, rank=2)
    factored = compress.factorise(model, rank=2)
    torch.testing.assert_close(factored(x), low(x), atol=1e-12, rtol=1e-12)
    assert factored.net[0] is factored.net[2] and factored.last is factored.net[4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("act", ["quantise", "fixed frobenius", "row dial"])
def test_a_row_of_zeros_stays_one_in_any_precision(
    act: str, dtype: torch.dtype
) -> None:
    model = MLP((6, 4, 3), seed=1).to(dtype)
    keep = compress.fixed_frobenius(model)
    layer = model.layers[0]
    layer.weight.data[0] = 0
    if act == "fixed frobenius":
        layer.weight.data.zero_()
        keep(model)
    elif act == "row dial":
        compress.row_dial(1.0)(model)
    else:
        model = compress.quantise(model)
    assert (model.layers[0].weight[0] == 0).all()
    assert all(w.isfinite().all() for w in model.weights)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_half_precision_is_quantised_on_the_grid_of_its_rows(scale: float) -> None:
    model = MLP((64, 4, 3), seed=1)
    model.layers[0].weight.data *= scale
    model = model.half()
    (w, _), (found, _) = model.weights, compress.quantise(model, bits=8).weights
    step = w.double().abs().amax(1, keepdim=True) / 127
    grid = (w.double() / step).round() * step
    # What is left is the rounding of half precision, of which 6e-8 is the smallest.
    assert ((found.double() - grid).abs() <= grid.abs() / 1024 + 6e-8).all()
    assert len(found[0].unique()) > 10


def test_a_size_asks_for_the_shape_of_one_input() -> None:
    assert compress.size(nn.Flatten(), (4,)) == (0, 0, 0, 0)
    for bad in (4, (), (0,), (2.5,), None):
        with pytest.raises(ValueError, match=r"input_shape is .*give \(d,\)"):
            compress.size(MLP((4, 3, 2)), bad)
    with pytest.raises(ValueError, match=r"does not take inputs \(5,\)"):
        compress.size(MLP((4, 3, 2)), (5,))
