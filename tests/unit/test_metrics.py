"""Metrics against torch.linalg, their invariances, and their extreme values."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from crlib import metrics, models
from tests.unit.support import SEEDS, Affine, Never, rng

Q = st.sampled_from([0.5, 1.0, 2.0, 4.0])
KINDS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "normal": lambda d, g: torch.randn(d, generator=g),
    "equal": lambda d, g: torch.randn(d, generator=g).sign(),
    "heavy": lambda d, g: torch.rand(d, generator=g).clamp_min(1e-3) ** -2,
    "sparse": lambda d, g: torch.randn(d, generator=g) * (torch.arange(d) % 3 == 0),
    "geometric": lambda d, g: 0.5 ** torch.arange(float(d)),
}


@st.composite
def vectors(draw: st.DrawFn) -> Tensor:
    g = rng(draw(SEEDS))
    kind = draw(st.sampled_from(list(KINDS)))
    return KINDS[kind](draw(st.integers(1, 30)), g)


@given(vectors(), Q, st.data())
def test_best_k_error_is_the_norm_of_what_is_left(
    v: Tensor, q: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, len(v)))
    left = v.double().abs().sort(descending=True).values[k:]
    whole = torch.linalg.vector_norm(v.double(), ord=q)
    rest = torch.linalg.vector_norm(left, ord=q) if len(left) else torch.zeros(())
    assert metrics.best_k_error(v, k, q=q) == pytest.approx(float(rest / whole))


@given(vectors(), Q)
def test_best_k_error_falls_from_one_to_zero(v: Tensor, q: float) -> None:
    errors = [metrics.best_k_error(v, k, q=q) for k in range(len(v) + 1)]
    assert errors[0] == 1 and errors[-1] == 0
    assert all(b <= a + 1e-12 for a, b in zip(errors, errors[1:], strict=False))


@given(vectors(), Q, st.floats(0, 1))
def test_smallest_k_inverts_best_k_error(v: Tensor, q: float, eps: float) -> None:
    k = metrics.smallest_k(v, eps, q=q)
    assert metrics.best_k_error(v, k, q=q) <= eps + 2e-12
    if k:
        assert metrics.best_k_error(v, k - 1, q=q) > eps - 1e-9


SCALARS: dict[str, Callable[[Tensor], float]] = {
    "best_k_error": lambda v: metrics.best_k_error(v, (len(v) + 1) // 2),
    "smallest_k": lambda v: metrics.smallest_k(v, 0.3),
    "spread": lambda v: metrics.spread(v, (len(v) + 1) // 2),
    "effective_rank": metrics.effective_rank,
    "stable_rank": metrics.stable_rank,
}


@pytest.mark.parametrize("name", SCALARS)
@given(v=vectors(), scale=st.sampled_from([-3.0, 1e-6, 1e6]), seed=SEEDS)
def test_scale_sign_and_order_do_not_matter(
    name: str, v: Tensor, scale: float, seed: int
) -> None:
    value = SCALARS[name](v.double())
    order = torch.randperm(len(v), generator=rng(seed))
    assert SCALARS[name](scale * v.double()[order]) == pytest.approx(
        value, rel=1e-9, abs=1e-9
    )


@given(vectors())
def test_ranks_lie_between_one_and_the_length(v: Tensor) -> None:
    stable, effective = metrics.stable_rank(v), metrics.effective_rank(v)
    assert 1 - 1e-12 <= stable <= len(v) * (1 + 1e-12)
    assert 1 - 1e-12 <= effective <= len(v) * (1 + 1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_ranks_of_the_identity_and_of_rank_one(n: int) -> None:
    eye = metrics.singular_values(torch.eye(n))
    u = torch.randn(n, generator=rng(0))
    one = metrics.singular_values(torch.outer(u, u + 1))
    for rank in (metrics.effective_rank, metrics.stable_rank):
        assert rank(eye) == pytest.approx(n)
        assert rank(one) == pytest.approx(1, abs=1e-5)


def test_effective_rank_is_the_exponential_of_the_entropy() -> None:
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert metrics.effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(expected)


@given(SEEDS, st.integers(1, 8), st.integers(1, 8))
def test_matrix_metrics_agree_with_linalg(seed: int, h: int, m: int) -> None:
    w = torch.randn(h, m, generator=rng(seed)).double()
    s = metrics.singular_values(w)
    torch.testing.assert_close(s, torch.linalg.svd(w).S)
    norms = {"l2": 2, "linf": math.inf, "l1": 1}
    for norm, order in norms.items():
        assert metrics.operator_norm(w, norm=norm) == pytest.approx(
            float(torch.linalg.norm(w, ord=order))
        )
    frobenius, spectral = torch.linalg.norm(w), torch.linalg.norm(w, ord=2)
    assert metrics.stable_rank(s) == pytest.approx(float((frobenius / spectral) ** 2))
    for p in (1, 2, math.inf):
        rows = metrics.row_norms(w, p=p)
        torch.testing.assert_close(
            rows, torch.stack([torch.linalg.norm(r, ord=p) for r in w])
        )
    assert metrics.operator_norm(w, norm="linf") == pytest.approx(
        float(metrics.row_norms(w, p=1).max())
    )


@given(SEEDS, st.sampled_from(["l2", "linf", "l1"]))
def test_operator_norm_is_how_much_a_vector_can_stretch(seed: int, norm: str) -> None:
    g = rng(seed)
    w, v = torch.randn(4, 5, generator=g), torch.randn(5, 50, generator=g)
    order = {"l2": 2, "linf": math.inf, "l1": 1}[norm]
    before = torch.linalg.vector_norm(v, ord=order, dim=0)
    after = torch.linalg.vector_norm(w @ v, ord=order, dim=0)
    assert (after / before).max() <= metrics.operator_norm(w, norm=norm) * (1 + 1e-5)


@given(SEEDS)
def test_spectra_do_not_change_under_rotation(seed: int) -> None:
    g = rng(seed)
    w = torch.randn(6, 6, generator=g).double()
    u, _ = torch.linalg.qr(torch.randn(6, 6, generator=g).double())
    torch.testing.assert_close(
        metrics.singular_values(u @ w), metrics.singular_values(w)
    )


def test_eckart_young_the_error_of_truncation_is_best_k_error() -> None:
    w = torch.randn(7, 5, generator=rng(1)).double()
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    for k in range(6):
        cut = (u[:, :k] * s[:k]) @ vh[:k]
        error = float(torch.linalg.norm(w - cut) / torch.linalg.norm(w))
        assert metrics.best_k_error(s, k) == pytest.approx(error, abs=1e-12)


def test_spread_of_known_vectors() -> None:
    assert metrics.spread(torch.tensor([-2.0, 2.0, 1.0]), 2) == 0
    assert metrics.spread(torch.tensor([1.0, 4.0, 2.0]), 3) == 0.75
    assert metrics.spread(torch.tensor([1.0, 0.0]), 2) == 1


def test_the_zero_vector() -> None:
    zero = torch.zeros(3)
    assert metrics.best_k_error(zero, 0) == 0
    assert metrics.smallest_k(zero, 0.0) == 0
    for name in ("spread", "effective_rank", "stable_rank"):
        with pytest.raises(ValueError, match="zero"):
            SCALARS[name](zero)


@pytest.mark.parametrize(
    "v", [torch.ones(2, 2), torch.ones(0), torch.tensor([1, math.nan])]
)
@pytest.mark.parametrize("name", SCALARS)
def test_what_is_not_a_finite_vector_is_refused(name: str, v: Tensor) -> None:
    with pytest.raises(ValueError, match="vector"):
        SCALARS[name](v)


@pytest.mark.parametrize(
    "w",
    [
        torch.ones(3),
        torch.ones(2, 0),
        torch.ones(2, 2, 2),
        torch.full((2, 2), math.inf),
    ],
)
@pytest.mark.parametrize(
    "metric", [metrics.singular_values, metrics.row_norms, metrics.operator_norm]
)
def test_what_is_not_a_finite_matrix_is_refused(
    metric: Callable[[Tensor], object], w: Tensor
) -> None:
    with pytest.raises(ValueError, match="matrix"):
        metric(w)


def test_options_out_of_range_are_refused() -> None:
    v = torch.ones(3)
    for k in (-1, 4):
        with pytest.raises(ValueError, match="from 0 to 3"):
            metrics.best_k_error(v, k)
    for k in (0, 4):
        with pytest.raises(ValueError, match="from 1 to 3"):
            metrics.spread(v, k)
    for q in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="exponent"):
            metrics.best_k_error(v, 1, q=q)
    for eps in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="relative error"):
            metrics.smallest_k(v, eps)
    with pytest.raises(ValueError, match="choose one of linf, l2, l1"):
        metrics.operator_norm(torch.eye(2), norm="fro")


@given(SEEDS, st.integers(2, 6))
def test_margin_is_positive_where_the_prediction_is_right(seed: int, k: int) -> None:
    g = rng(seed)
    logits = torch.randn(20, k, generator=g)
    y = torch.randint(k, (20,), generator=g)
    m = metrics.margin(logits, y)
    for i in range(20):
        others = [float(z) for j, z in enumerate(logits[i]) if j != y[i]]
        assert float(m[i]) == pytest.approx(float(logits[i, y[i]]) - max(others))
    assert (m > 0).equal(logits.argmax(1) == y)


def test_accuracy_counts_in_evaluation_mode_and_leaves_the_model() -> None:
    x = torch.eye(3).repeat(700, 1)
    y = torch.arange(3).repeat(700)
    y[:525] = (y[:525] + 1) % 3
    model = nn.Sequential(nn.Dropout(0.9), Affine(torch.eye(3))).train()
    assert metrics.accuracy(model, x, y) == pytest.approx(0.75)
    assert model.training and model[0].training
    assert all(p.grad is None for p in model.parameters())
    assert metrics.accuracy(lambda z: z, x[:3], torch.tensor([0, 1, 0])) == (
        pytest.approx(2 / 3)
    )
    with pytest.raises(AssertionError):
        metrics.accuracy(Never(), x, y)


@pytest.mark.parametrize("centred", [True, False])
def test_principal_directions_keep_most_of_the_squares(centred: bool) -> None:
    x = 1 + torch.randn(40, 2, 3, generator=rng(0)) * torch.tensor([1.0, 2.0, 4.0])
    ways = metrics.principal_directions(x, centred=centred)
    flat = x.flatten(1).double()
    flat = flat - flat.mean(0) if centred else flat
    s, vh = torch.linalg.svd(flat)[1:]
    torch.testing.assert_close((flat @ ways).norm(dim=0), s)
    torch.testing.assert_close((ways * vh.T).sum(0).abs(), torch.ones(6).double())
    assert (ways.sum(0) >= 0).all()
    first = metrics.principal_directions(x, 2, centred=centred)
    torch.testing.assert_close(first, ways[:, :2])


def test_a_direction_whose_entries_cancel_is_one() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    ways = metrics.principal_directions(x)
    torch.testing.assert_close(ways.norm(dim=0), torch.ones(2).double())


def test_principal_directions_need_two_inputs_and_a_count() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        metrics.principal_directions(torch.rand(1, 3))
    with pytest.raises(ValueError, match="k is 4: choose it from 1 to 3"):
        metrics.principal_directions(torch.rand(5, 3), 4)


@given(SEEDS, st.integers(1, 6))
def test_energy_share_is_what_the_projection_keeps(seed: int, k: int) -> None:
    g = rng(seed)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=g))
    delta = torch.randn(5, 1, 2, 3, generator=g)
    share = metrics.energy_share(delta, basis[:, :k])
    kept = delta.flatten(1) @ basis[:, :k] @ basis[:, :k].T
    expected = kept.square().sum(1) / delta.flatten(1).square().sum(1)
    torch.testing.assert_close(share, expected, atol=1e-5, rtol=1e-4)
    assert ((share >= 0) & (share <= 1 + 1e-5)).all()
    rest = metrics.energy_share(delta, basis[:, k:])
    torch.testing.assert_close(share + rest, torch.ones(5), atol=1e-5, rtol=0)


def test_a_share_of_frequencies_knows_coarse_from_fine() -> None:
    even = torch.ones(2, 1, 16, 16)
    checked = even * (-1.0) ** torch.arange(16) * (-1.0) ** torch.arange(16)[:, None]
    assert metrics.frequency_share(even) == pytest.approx(1)
    assert metrics.frequency_share(checked) == pytest.approx(0, abs=1e-9)
    assert metrics.frequency_share(even + checked) == pytest.approx(0.5)
    assert metrics.frequency_share(even + checked, below=0.8) == pytest.approx(1)
    # A step of length zero has no frequency and does not count.
    some = torch.cat([even, 0 * even, checked])
    assert metrics.frequency_share(some) == pytest.approx(0.5)
    assert math.isnan(metrics.frequency_share(0 * even))
    with pytest.raises(ValueError, match="give images"):
        metrics.frequency_share(torch.rand(3, 4, generator=rng(0)))


def test_energy_share_of_no_perturbation_is_not_a_number() -> None:
    assert metrics.energy_share(torch.zeros(1, 3), torch.eye(3)).isnan().all()


def test_energy_share_refuses_directions_that_do_not_fit() -> None:
    delta = torch.ones(2, 3)
    with pytest.raises(ValueError, match="orthonormal"):
        metrics.energy_share(delta, torch.ones(3, 2))
    for directions in (torch.eye(4), torch.ones(3)):
        with pytest.raises(ValueError, match=r"\(3, k\)"):
            metrics.energy_share(delta, directions)


@given(vectors(), st.data())
def test_the_hill_estimator_has_its_formula_and_no_scale(
    v: Tensor, data: st.DataObject
) -> None:
    s = v.double().abs().sort(descending=True).values
    k = data.draw(st.integers(1, max(1, len(s) - 1)))
    if len(s) < 2 or s[k] == 0:
        with pytest.raises(ValueError):
            metrics.hill_estimator(v, k)
        return
    logs = [math.log(float(x / s[k])) for x in s[:k]]
    expected = math.inf if sum(logs) == 0 else k / sum(logs)
    assert metrics.hill_estimator(v, k) == pytest.approx(expected)
    assert metrics.hill_estimator(-2 * v, k) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.7, 1.5, 4.0])
def test_the_hill_estimator_finds_the_index_of_a_pareto_tail(alpha: float) -> None:
    n, k = 200_000, 4000
    pareto = torch.rand(n, generator=rng(0), dtype=torch.float64) ** (-1 / alpha)
    found = metrics.hill_estimator(pareto, k)
    assert abs(found / alpha - 1) < 4 / math.sqrt(k)


@given(SEEDS, st.sampled_from(["linf", "l2", "l1"]))
def test_the_first_order_is_exact_for_affine_logits(seed: int, norm: str) -> None:
    g = rng(seed)
    w = torch.randn(4, 6, generator=g, dtype=torch.float64)
    x = torch.rand(9, 6, generator=g, dtype=torch.float64)
    model = Affine(w, torch.randn(4, generator=g, dtype=torch.float64))
    y = torch.randint(4, (9,), generator=g)
    found = metrics.first_order(model, x, y, norm=norm)
    order = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    z, each = model(x), []
    for k in range(4):
        length = torch.linalg.vector_norm(w[y] - w[k], order, dim=1)
        away = (z.gather(1, y[:, None])[:, 0] - z[:, k]).clamp_min(0) / length
        each.append(torch.where(y == k, math.inf, away))
    assert torch.allclose(found, torch.stack(each).amin(0))
    # Fewer rivals look at less, so they never find a nearer boundary.
    assert (
        metrics.first_order(model, x, y, norm=norm, rivals=1) >= found * (1 - 1e-12)
    ).all()
    parts = metrics.first_order(model, x, y, norm=norm, batch_size=2)
    assert torch.allclose(parts, found, rtol=1e-12)


def test_the_first_order_where_nothing_moves() -> None:
    x, y = torch.full((2, 3), 0.5), torch.tensor([0, 1])
    flat = metrics.first_order(lambda z: 0 * z + torch.tensor([2.0, 1, 0]), x, y)
    assert flat.tolist() == [math.inf, 0.0]
    with pytest.raises(ValueError, match="nothing to linearise"):
        metrics.first_order(lambda z: z.detach(), x, y)
    with pytest.raises(ValueError, match="rivals is 0"):
        metrics.first_order(nn.Identity(), x, y, rivals=0)


@pytest.mark.parametrize("rank", [None, 2])
def test_the_balanced_form_is_the_same_function_with_equal_norms(
    rank: int | None,
) -> None:
    net = models.MLP((6, 5, 4, 3), rank=rank, seed=0).double()
    kept = copy.deepcopy(net.state_dict())
    form = metrics.balanced(net, rounds=200)
    x = torch.rand(10, 6, dtype=torch.float64)
    assert torch.allclose(net(x), form(x), rtol=1e-9)
    for w, v in zip(form.weights, form.weights[1:], strict=False):
        assert torch.allclose(w.norm(dim=1), v.norm(dim=0), rtol=1e-6)
    assert all(torch.equal(net.state_dict()[name], kept[name]) for name in kept)


def test_a_scaled_neuron_changes_no_balanced_form() -> None:
    net = models.MLP((6, 5, 4, 3), seed=0).double()
    other, c = copy.deepcopy(net), torch.rand(5, 1).double() + 0.1
    other.layers[0].weight.data *= c
    other.layers[1].weight.data /= c.T
    for w, v in zip(
        *(metrics.balanced(n, rounds=200).weights for n in (net, other)), strict=True
    ):
        assert torch.allclose(w, v, rtol=1e-6)


def test_balancing_clears_what_nothing_enters_or_reads() -> None:
    net = models.MLP((3, 4, 2), seed=0).double()
    net.layers[0].weight.data[0] = 0
    net.layers[1].weight.data[:, 1] = 0
    form = metrics.balanced(net)
    assert not form.weights[0][:2].any() and not form.weights[1][:, :2].any()
    x = torch.rand(5, 3).double()
    assert torch.allclose(net(x), form(x), rtol=1e-9)


@pytest.mark.parametrize(
    "net",
    [models.MLP((3, 4, 2), bias=True), torch.nn.Linear(3, 2), torch.nn.Identity()],
)
def test_what_cannot_be_balanced_is_refused(net: Any) -> None:
    with pytest.raises(ValueError, match="without biases"):
        metrics.balanced(net)
    with pytest.raises(ValueError, match="rounds"):
        metrics.balanced(models.MLP((3, 4, 2)), rounds=0)


def test_energy_share_takes_the_finer_of_two_precisions() -> None:
    delta, first = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [0.0]]).double()
    for d, v in ((delta, first), (delta.double(), first.float())):
        share = metrics.energy_share(d, v)
        assert share.dtype == torch.float64 and float(share) == pytest.approx(0.36)
    x = torch.rand(9, 2, generator=rng(0))
    assert metrics.energy_share(delta, metrics.principal_directions(x)).item() == (
        pytest.approx(1.0)
    )
    with pytest.raises(ValueError, match=r"delta\[None\]"):
        metrics.energy_share(delta[0], first)


def by_its_spread(z: Tensor) -> Tensor:
    """Divide by the standard deviation, whose gradient at a flat input is NaN."""
    n = (z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True).sqrt() + 1)
    return n + torch.tensor([1.0, 0.0, -1.0])


def test_a_gradient_that_is_no_number_is_no_distance() -> None:
    x = torch.tensor([[0.5, 0.5, 0.5], [0.1, 0.9, 0.4], [0.5, 0.5, 0.5]])
    y = torch.tensor([0, 1, 1])
    found = metrics.first_order(by_its_spread, x, y)
    assert found[0].isnan() and found[2] == 0
    alone = metrics.first_order(by_its_spread, x[1:2], y[1:2])
    assert found[1] == alone and alone >= 0
    steep = metrics.first_order(
        lambda z: torch.stack([1 + z[:, 0].sqrt(), 0 * z[:, 0]], 1),
        torch.tensor([[0.0, 0.5], [0.25, 0.5]]),
        torch.tensor([0, 0]),
    )
    assert steep[0].isnan() and float(steep[1]) == pytest.approx(1.5)


def test_lists_and_arrays_are_refused_with_the_cure() -> None:
    for call in (
        lambda: metrics.best_k_error([1.0, 2.0], 1),
        lambda: metrics.singular_values([[1.0, 2.0]]),
        lambda: metrics.margin([[1.0, 2.0]], torch.tensor([0])),
        lambda: metrics.energy_share([[1.0]], torch.eye(1)),
    ):
        with pytest.raises(ValueError, match=r"is a list: .*torch\.as_tensor"):
            call()


def test_layers_that_share_a_weight_are_not_balanced() -> None:
    model = models.MLP((4, 4, 4, 2))
    model.layers[1].weight = model.layers[0].weight
    with pytest.raises(ValueError, match="share a weight"):
        metrics.balanced(model)
    model.layers[1].weight = nn.Parameter(model.layers[0].weight.detach().clone())
    x = torch.rand(5, 4, generator=rng(0))
    assert torch.allclose(metrics.balanced(model)(x), model(x), atol=1e-6)


def test_inputs_of_one_number_have_a_direction() -> None:
    x = torch.rand(5, 1, generator=rng(0))
    assert metrics.principal_directions(x).tolist() == [[1.0]]
