"""Penalties, constraints and compressions do what their formulas say."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib import compress, metrics
from crlib.data import Dataset, gaussian_classes
from crlib.models import MLP, ConvNet, LowRankConv2d, ResNet, ViT, weight_layers
from crlib.train import fit
from tests.unit.support import rng


def mlp(**options: Any) -> MLP:
    return MLP((12, 20, 16, 3), **{"bias": True, "mean": 0.5, "std": 0.3} | options)


def convnet(**options: Any) -> ConvNet:
    return ConvNet((4, 6), 3, image=(2, 8, 8), **options)


def hidden(model: nn.Module) -> list[Tensor]:
    return [
        layer.weight.detach().flatten(1).double() for layer in weight_layers(model)[:-1]
    ]


@pytest.fixture(scope="module")
def clouds() -> Dataset:
    means = torch.rand(3, 12, generator=rng(0))
    return gaussian_classes(300, 90, means, noise=0.1)


def sum_of(of: Callable[[Tensor], float]) -> Callable[[nn.Module], float]:
    return lambda model: sum(of(w) for w in hidden(model))


FORMULAS: dict[str, tuple[Any, Callable[[nn.Module], float]]] = {
    "group lasso": (
        compress.group_lasso(0.5),
        sum_of(lambda w: 0.5 * float(metrics.row_norms(w).sum())),
    ),
    "group lasso l1": (
        compress.group_lasso(0.5, p=1),
        sum_of(lambda w: 0.5 * float(w.abs().sum())),
    ),
    "group lasso of columns": (
        compress.group_lasso(0.5, side="columns"),
        sum_of(lambda w: 0.5 * float(metrics.row_norms(w.T).sum())),
    ),
    "scale-invariant columns": (
        compress.group_lasso(1.0, scale_invariant=True, side="columns"),
        sum_of(lambda w: float(metrics.row_norms(w.T).sum() / w.norm())),
    ),
    "scale-invariant rows": (
        compress.group_lasso(1.0, scale_invariant=True),
        sum_of(lambda w: float(metrics.row_norms(w).sum() / w.norm())),
    ),
    "nuclear": (
        compress.nuclear_norm(1.0),
        sum_of(lambda w: float(metrics.singular_values(w).sum())),
    ),
    "scale-invariant nuclear": (
        compress.nuclear_norm(1.0, scale_invariant=True),
        sum_of(lambda w: float(metrics.singular_values(w).sum() / w.norm())),
    ),
    "l1": (compress.l1(2.0), sum_of(lambda w: 2 * float(w.abs().sum()))),
    "frobenius": (
        compress.squared_frobenius(2.0),
        sum_of(lambda w: 2 * float(w.square().sum())),
    ),
    "spread": (
        compress.top_spread(1.0, share=0.25),
        sum_of(
            lambda w: float(
                metrics.row_norms(w)
                .sort(descending=True)
                .values[: max(2, math.ceil(len(w) / 4))]
                .var(correction=0)
            )
        ),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("make", [mlp, convnet])
def test_a_penalty_is_its_formula_and_has_a_gradient(
    name: str, make: Callable[[], nn.Module]
) -> None:
    penalty, formula = FORMULAS[name]
    model = make()
    value = penalty(model)
    assert float(value.detach()) == pytest.approx(formula(model), rel=1e-3)
    value.backward()
    layers = weight_layers(model)
    assert all(layer.weight.grad.isfinite().all() for layer in layers[:-1])
    assert all(float(layer.weight.grad.norm()) > 0 for layer in layers[:-1])
    assert layers[-1].weight.grad is None


def test_only_the_scale_invariant_penalties_ignore_scale() -> None:
    model, larger = mlp(), mlp()
    for layer in larger.layers:
        layer.weight.data *= 3
    for name, (penalty, _) in FORMULAS.items():
        before, after = float(penalty(model).detach()), float(penalty(larger).detach())
        if name.startswith("scale-invariant"):
            assert after == pytest.approx(before, rel=1e-4)
        else:
            assert after > 2.9 * before


def test_alignment_is_one_for_layers_that_hand_on_and_small_otherwise() -> None:
    model = MLP((4, 4, 4, 2))
    u = torch.linalg.qr(torch.randn(4, 4, generator=rng(0)))[0]
    steep = torch.tensor([1.0, 0.1, 0.1, 0.1])
    first, second = model.layers[0].weight.data, model.layers[1].weight.data
    first.copy_(u * steep @ u.T)
    second.copy_(u * steep @ u.T)
    assert float(compress.alignment(2.0)(model).detach()) == pytest.approx(2, rel=1e-3)
    second.copy_(u * steep.flip(0) @ u.T)
    assert float(compress.alignment(1.0)(model).detach()) == pytest.approx(
        0.1, rel=2e-2
    )
    assert float(compress.alignment(1.0)(MLP((4, 3, 2))).detach()) == 0


def test_alignment_of_convolutions_is_among_their_channels() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, (2, 3)), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(20, 2)).double()
    before, after = (layers[i].weight.detach() for i in (0, 2))
    penalty = compress.alignment(1.0)
    # W' W, entry by entry: from a channel and place of one window to those of the next.
    both = torch.einsum("ohab,hcde->oabcde", after, before).reshape(30, 27)
    rows = torch.cat([after[:, :, a, b] for a in range(2) for b in range(3)])
    norms = [metrics.operator_norm(w) for w in (both, rows, before.flatten(1))]
    value = penalty(net)
    assert float(value.detach()) == pytest.approx(norms[0] / (norms[1] * norms[2]))
    value.backward()
    assert all(float(layers[i].weight.grad.norm()) > 0 for i in (0, 2))
    # Windows of one pixel are matrices.
    one = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 2, 1))
    flat = MLP((3, 4, 5, 2))
    for ours, theirs in zip(flat.layers, one, strict=True):
        ours.weight.data = theirs.weight.data.flatten(1)
    assert float(penalty(one).detach()) == float(penalty(flat).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alignment_knows_no_scale_and_a_layer_of_zeros_hands_nothing_on(
    dtype: torch.dtype,
) -> None:
    model = MLP((5, 4, 4, 4, 2), seed=3).to(dtype)
    penalty = compress.alignment(1.0)
    three = float(penalty(model).detach())
    assert 0 < three < 2
    tiny, none = copy.deepcopy(model), copy.deepcopy(model)
    for layer in tiny.layers:
        layer.weight.data *= 1e-12
    assert float(penalty(tiny).detach()) == pytest.approx(three, rel=1e-4)
    none.layers[2].weight.data.zero_()
    pair = MLP((5, 4, 4, 2)).to(dtype)
    for ours, theirs in zip(pair.layers, model.layers, strict=False):
        if ours.weight.shape == theirs.weight.shape:
            ours.weight.data = theirs.weight.data
    value = penalty(none)
    assert float(value.detach()) == pytest.approx(float(penalty(pair).detach()))
    value.backward()
    grads = [layer.weight.grad for layer in none.layers[:2]]
    assert all(g is not None and g.isfinite().all() for g in grads)
    none.layers[1].weight.data.zero_()
    assert float(penalty(none).detach()) == 0


def test_penalties_add_up() -> None:
    both = compress.total(compress.l1(1.0), compress.squared_frobenius(2.0))
    model = mlp()
    apart = compress.l1(1.0)(model) + compress.squared_frobenius(2.0)(model)
    assert float(both(model).detach()) == pytest.approx(float(apart.detach()))


def test_training_with_a_penalty_concentrates_rows(clouds: Dataset) -> None:
    options: dict[str, Any] = {"epochs": 40, "lr": 1e-2, "checkpoint": "last"}
    options["progress"] = False
    plain = fit(mlp(), clouds, **options).model
    penalty = compress.group_lasso(0.3, scale_invariant=True)
    sparse = fit(mlp(), clouds, penalty=penalty, **options).model
    for a, b in zip(hidden(plain), hidden(sparse), strict=True):
        error = [metrics.best_k_error(metrics.row_norms(w), 4) for w in (a, b)]
        assert error[1] < 0.7 * error[0]


@pytest.mark.parametrize("make", [mlp, convnet])
def test_the_dials_set_the_profile_and_the_scale(
    make: Callable[[], nn.Module],
) -> None:
    for alpha in (0.0, 0.5, 1.0):
        model = make()
        vectors = [torch.linalg.svd(w).Vh[0] for w in hidden(model)]
        with torch.no_grad():
            compress.spectral_dial(alpha, frobenius=7.0)(model)
        for w, v in zip(hidden(model), vectors, strict=True):
            s = metrics.singular_values(w)
            expected = torch.arange(1, len(s) + 1).double() ** -alpha
            torch.testing.assert_close(s / s[0], expected, atol=1e-4, rtol=0)
            assert float(w.norm()) == pytest.approx(7.0, rel=1e-4)
            if alpha:
                top = torch.linalg.svd(w).Vh[0]
                assert abs(float(top @ v)) == pytest.approx(1, abs=1e-3)
        directions = [w / w.norm(dim=1, keepdim=True) for w in hidden(model)]
        with torch.no_grad():
            compress.row_dial(alpha, frobenius=7.0)(model)
        for w, d in zip(hidden(model), directions, strict=True):
            rows = metrics.row_norms(w).sort(descending=True).values
            expected = torch.arange(1, len(rows) + 1).double() ** -alpha
            torch.testing.assert_close(rows / rows[0], expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(w / w.norm(dim=1, keepdim=True), d)


def test_a_constraint_holds_after_training(clouds: Dataset) -> None:
    options: dict[str, Any] = {"epochs": 3, "lr": 5e-3, "progress": False}
    start = mlp()
    kept = fit(start, clouds, constraint=compress.fixed_frobenius(start), **options)
    for a, b in zip(hidden(start), hidden(kept.model), strict=True):
        assert float(a.norm()) == pytest.approx(float(b.norm()), rel=1e-5)
        assert not torch.allclose(a, b)
    clipped = fit(
        mlp(),
        clouds,
        constraint=compress.clip_spectrum(0.8),
        constrain_every=7,
        **options,
    )
    tops = [float(metrics.singular_values(w)[0]) for w in hidden(clipped.model)]
    assert all(top <= 0.8 * (1 + 1e-5) for top in tops) and max(tops) > 0.75
    dialled = fit(mlp(), clouds, constraint=compress.spectral_dial(1.0), **options)
    assert float(hidden(dialled.model)[0].norm()) == pytest.approx(10, rel=1e-4)


def test_low_rank_layers_keep_their_norm_and_become_orthonormal() -> None:
    model = mlp(rank=4)
    norms = [float(w.norm()) for w in hidden(model)]
    keep = compress.fixed_frobenius(model)
    for layer in model.layers[:-1]:
        layer.left.data *= 3
    with torch.no_grad():
        keep(model)
    assert [float(w.norm()) for w in hidden(model)] == pytest.approx(norms, rel=1e-4)
    with torch.no_grad():
        compress.orthonormal_factors()(model)
    for w, norm in zip(hidden(model), norms, strict=True):
        s = metrics.singular_values(w)[:4]
        assert float(w.norm()) == pytest.approx(norm, rel=1e-4)
        assert metrics.spread(s, 4) < 1e-4


def sizes(w: Tensor, structure: str) -> Tensor:
    """What pruning orders by: magnitudes, or norms of rows or of columns."""
    if structure == "weights":
        return w.abs().flatten()
    return w.norm(dim=1 if structure == "rows" else 0)


@pytest.mark.parametrize("structure", ["weights", "rows", "columns"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_removes_the_smallest_and_no_more(structure: str, scope: str) -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    pruned = compress.prune(model, 0.5, structure=structure, scope=scope)
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
    scores, kept = [], []
    for old, new in zip(hidden(model), hidden(pruned), strict=True):
        scores.append(sizes(old, structure))
        kept.append(sizes(new, structure) > 0)
        assert torch.equal(new[new != 0], old[new != 0])
    if scope == "global":
        scores, kept = [torch.cat(scores)], [torch.cat(kept)]
    for score, mask in zip(scores, kept, strict=True):
        assert int(mask.sum()) == len(mask) - round(0.5 * len(mask))
        assert score[mask].min() >= score[~mask].max()
    head = [m.layers[-1].weight for m in (model, pruned)]
    assert head[0].equal(head[1])


@pytest.mark.parametrize("structure", ["weights", "rows", "columns"])
@pytest.mark.parametrize("eps", [0.0, 0.3, 0.8])
def test_pruning_to_an_error_meets_it_with_the_least(
    structure: str, eps: float
) -> None:
    model = convnet()
    pruned = compress.prune_to_error(model, eps, structure=structure)
    for old, new in zip(hidden(model), hidden(pruned), strict=True):
        vector, left = sizes(old, structure), sizes(new, structure)
        k = int((left > 0).sum())
        assert metrics.best_k_error(vector, k) <= eps + 1e-6
        assert k == 0 or metrics.best_k_error(vector, k - 1) > eps


def test_an_input_whose_column_is_cut_is_not_read_and_biases_stay() -> None:
    for model, shape in ((mlp(), (12,)), (convnet(), (2, 8, 8))):
        before = [p.detach().clone() for p in model.parameters() if p.ndim == 1]
        pruned = compress.prune(model, 0.5, structure="columns")
        after = [p for p in pruned.parameters() if p.ndim == 1]
        assert all(p.equal(q) for p, q in zip(before, after, strict=True))
        x = torch.rand(5, *shape, generator=rng(2))
        if len(shape) == 1:
            unread = hidden(pruned)[0].abs().sum(0) == 0
            other = torch.where(unread, 1 - x, x)
            assert unread.sum() == 6 and torch.equal(pruned(x), pruned(other))
        assert not torch.allclose(pruned(x), model(x))


def test_zeros_stay_zero_while_fine_tuning(clouds: Dataset) -> None:
    pruned = compress.prune(mlp(), 0.7, structure="rows")
    tuned = fit(
        pruned,
        clouds,
        epochs=3,
        constraint=compress.keep_zeros(pruned),
        progress=False,
    ).model
    for old, new in zip(hidden(pruned), hidden(tuned), strict=True):
        assert ((old == 0) <= (new == 0)).all()
        assert not torch.allclose(old, new)


def test_narrowing_keeps_the_function_and_drops_neurons() -> None:
    pruned = compress.prune(mlp(), 0.5, structure="rows")
    small = compress.narrow(pruned)
    x = torch.rand(50, 12, generator=rng(1))
    torch.testing.assert_close(small(x), pruned(x), atol=1e-6, rtol=0)
    assert [len(w) for w in hidden(small)] == [10, 8]
    assert compress.size(small, (12,)).macs < compress.size(pruned, (12,)).macs
    constant = mlp()
    constant.layers[0].weight.data[0] = 0
    constant.layers[0].bias.data[0] = 1.0
    torch.testing.assert_close(compress.narrow(constant)(x), constant(x))


@pytest.mark.parametrize("make", [mlp, convnet])
def test_truncation_is_the_best_and_factors_are_the_same_function(
    make: Callable[[], nn.Module],
) -> None:
    model = make()
    low, factored = compress.truncate(model, rank=3), compress.factorise(model, rank=3)
    for old, new in zip(hidden(model), hidden(low), strict=True):
        s = metrics.singular_values(old)
        assert float((old - new).norm()) == pytest.approx(
            float(s[3:].norm()), rel=1e-4, abs=1e-6
        )
        assert int(torch.linalg.matrix_rank(new, rtol=1e-4)) == 3
    x = torch.rand(5, *((12,) if isinstance(model, MLP) else (2, 8, 8)))
    torch.testing.assert_close(factored(x), low(x), atol=1e-5, rtol=0)
    shape = tuple(x.shape[1:])
    assert compress.size(factored, shape) < compress.size(model, shape)
    for old, new in zip(
        hidden(model), hidden(compress.truncate(model, energy=0.9)), strict=True
    ):
        assert float(new.norm() ** 2) >= (0.9 - 1e-5) * float(old.norm() ** 2)


def test_networks_with_blocks_are_factorised_in_place() -> None:
    x = torch.rand(2, 3, 16, 16, generator=rng(2))
    for model in (
        ResNet(4, blocks=(1, 1), width=8).eval(),
        ViT(4, image=(3, 16, 16), dim=16, depth=1, heads=2),
    ):
        low, factored = (
            f(model, rank=4) for f in (compress.truncate, compress.factorise)
        )
        torch.testing.assert_close(factored(x), low(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantised_rows_lie_on_their_grid(bits: int) -> None:
    model = mlp()
    coarse = compress.quantise(model, bits=bits)
    levels = 2 ** (bits - 1) - 1
    for old, new in zip(model.weights, coarse.weights, strict=True):
        step = old.abs().amax(1, keepdim=True) / levels
        assert ((new / step) - (new / step).round()).abs().max() < 1e-3
        assert ((old - new).abs() <= step / 2 + 1e-6).all()
    low = compress.quantise(mlp(rank=4), bits=8)
    assert low.layers[0].left.unique().numel() > 3


def test_size_counts() -> None:
    model = mlp()
    found = compress.size(model, (12,))
    assert found.parameters == 12 * 20 + 20 + 20 * 16 + 16 + 16 * 3 + 3
    assert found.macs == 12 * 20 + 20 * 16 + 16 * 3
    assert found.bytes == 4 * found.parameters
    assert compress.size(compress.prune(model, 0.5), (12,)).nonzero < found.nonzero
    net = convnet()
    assert compress.size(net, (2, 8, 8)).macs == (
        64 * 4 * 2 * 9 + 16 * 6 * 4 * 9 + 6 * 16 * 3
    )
    low = compress.size(convnet(rank=2), (2, 8, 8)).macs
    assert low == 64 * 4 * 2 * 9 + 16 * (2 * 4 * 9 + 6 * 2) + 6 * 16 * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compress.group_lasso(-1.0), "not negative"),
        (lambda: compress.top_spread(1.0, share=0.0), "share"),
        (lambda: compress.l1(1.0)(nn.Linear(3, 2)), "no hidden layer"),
        (lambda: compress.spectral_dial(1.0)(mlp(rank=2)), "full layers"),
        (lambda: compress.orthonormal_factors()(mlp()), "no low-rank layer"),
        (lambda: compress.prune(mlp(), 1.0), "share"),
        (lambda: compress.prune(mlp(), 0.5, scope="all"), "scope"),
        (lambda: compress.prune(mlp(), 0.5, structure="diagonals"), "structure"),
        (lambda: compress.prune(mlp(rank=2), 0.5), "full layers"),
        (lambda: compress.prune_to_error(mlp(), 1.0), "eps"),
        (lambda: compress.truncate(mlp()), "either rank or energy"),
        (lambda: compress.truncate(mlp(), rank=2, energy=0.5), "either"),
        (lambda: compress.truncate(mlp(), rank=0), "at least 1"),
        (lambda: compress.truncate(mlp(), energy=0.0), "energy"),
        (lambda: compress.quantise(mlp(), bits=1), "bits"),
        (lambda: compress.narrow(convnet()), "not an MLP"),
        (
            lambda: compress.factorise(
                nn.Sequential(
                    nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(2, 2)
                ),
                rank=1,
            ),
            "cannot be factorised",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_layer_without_neurons_is_refused() -> None:
    empty = mlp(bias=False)
    empty.layers[1].weight.data.zero_()
    with pytest.raises(ValueError, match="no neuron left"):
        compress.narrow(empty)


def test_a_low_rank_convolution_is_the_convolution_with_its_weight() -> None:
    layer = LowRankConv2d(3, 5, 3, 2, stride=2, padding=1, bias=True)
    x = torch.rand(2, 3, 9, 9, generator=rng(3))
    torch.testing.assert_close(
        layer(x), nn.functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    )
    assert float(layer.weight.detach().norm()) == pytest.approx(math.sqrt(5 / 3))


def test_a_principal_start_spans_the_principal_directions_at_the_same_scale() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 7, generator=g).double() * torch.arange(1, 8)
    layer = MLP((7, 6, 2), rank=3, seed=0).double().layers[0]
    before = float(layer.weight.norm())
    compress.principal_start(layer, x)
    top = torch.linalg.svd(x - x.mean(0)).Vh[:3]
    rows = layer.right.detach()
    assert torch.allclose(rows @ top.T @ top, rows, atol=1e-9)
    assert torch.allclose(rows @ rows.T, rows[0].square().sum() * torch.eye(3).double())
    assert float(layer.weight.norm()) == pytest.approx(before, rel=1e-9)


def test_a_principal_start_of_a_convolution_spans_its_windows() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(4, 2, 7, 6, generator=g).double().cumsum(3) / 6
    layer = LowRankConv2d(2, 5, 3, 4, stride=2, padding=1, seed=0).double()
    before = float(layer.weight.norm())
    compress.principal_start(layer, x)
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    windows = torch.stack(
        [
            padded[n, :, i : i + 3, j : j + 3].flatten()
            for n in range(4)
            for i in range(0, 7, 2)
            for j in range(0, 6, 2)
        ]
    )
    top = torch.linalg.svd(windows - windows.mean(0)).Vh[:4]
    rows = layer.right.detach()
    assert torch.allclose(rows @ top.T @ top, rows, atol=1e-9)
    assert torch.allclose(rows @ rows.T, rows[0].square().sum() * torch.eye(4).double())
    assert float(layer.weight.norm()) == pytest.approx(before, rel=1e-9)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        compress.principal_start(layer, windows)
    with pytest.raises(ValueError, match="takes 18 inputs"):
        compress.principal_start(layer, x[:, :1])


def test_a_principal_start_refuses_what_has_none() -> None:
    layer = MLP((7, 6, 2), rank=3).layers[0]
    with pytest.raises(ValueError, match="LowRankLinear"):
        compress.principal_start(MLP((7, 6, 2)).layers[0], torch.rand(9, 7))
    with pytest.raises(ValueError, match="takes 7 inputs"):
        compress.principal_start(layer, torch.rand(9, 8))


class Windows(nn.Module):
    """Two windows an input, folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inner(x.reshape(-1, 4)).relu()
        out: Tensor = self.head(parts.view(len(x), -1, 5).mean(1))
        return out


@pytest.mark.parametrize("batch_size", [256, 7])
def test_recentring_nothing_moves_nothing_where_windows_are_folded(
    batch_size: int,
) -> None:
    net, x = Windows(), torch.rand(20, 8, generator=rng(0))
    again = compress.recentre(net, net, x, batch_size=batch_size)
    assert torch.allclose(again.inner.bias, net.inner.bias, atol=1e-6)


def test_recentring_needs_inputs() -> None:
    net = MLP((3, 4, 2))
    with pytest.raises(ValueError, match="no input"):
        compress.recentre(net, net, torch.rand(0, 3))


def test_products_of_all_windows_count() -> None:
    assert compress.size(Windows(), (8,)).macs == 2 * 20 + 15


@pytest.mark.parametrize(("n", "batch_size"), [(3, 2), (10, 3), (257, 256)])
def test_no_pass_of_statistics_is_of_one_input(n: int, batch_size: int) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    x = torch.rand(n, 3, generator=rng(0))
    renewed = compress.renew_statistics(net, x, batch_size=batch_size)
    assert torch.allclose(renewed[0].running_mean, x.mean(0), atol=0.1)


def test_a_share_is_rounded_and_can_empty_a_small_layer() -> None:
    pruned = compress.prune(MLP((2, 4, 2)), 0.9, structure="rows")
    assert not pruned.weights[0].any()
