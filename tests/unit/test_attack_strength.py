"""The attacks find what there is to find: closed forms, baselines, monotonicity."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from crlib.attacks import AttackResult, fgsm, pgd, random_noise, robustness_curve
from crlib.attacks.base import objective
from crlib.data import Dataset
from crlib.metrics import accuracy
from crlib.models import MLP
from crlib.theory import linear_minimal
from tests.unit.support import SEEDS, Affine, Changed, affine_task, rng, with_walls

NORMS = ("linf", "l2")
DUAL = {"linf": 1, "l2": 2}
BUDGET = {"linf": 8 / 255, "l2": 0.7}


@given(SEEDS, st.sampled_from(NORMS), st.booleans())
@example(267, "l2", False)
def test_pgd_fools_a_linear_model_from_its_exact_distance_on(
    seed: int, norm: str, walls: bool
) -> None:
    model, x, y = affine_task(seed)
    if not walls:
        model.bias.data += model.weight.detach() @ (0.55 * x)[0]
        x = 0.45 * x + 0.275
        y = model(x).argmax(1)
    distance, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    reachable = distance.isfinite() & (distance > 1e-3)
    x, y, distance = x[reachable], y[reachable], distance[reachable]
    beyond = pgd(model, x, y, eps=distance * (1 + 1e-5) + 1e-5, norm=norm, steps=50)
    short = pgd(model, x, y, eps=distance * (1 - 1e-5) - 1e-5, norm=norm, steps=50)
    assert beyond.success.all()
    assert not short.success.any()
    assert (beyond.distance >= distance * (1 - 1e-9)).all()


@given(SEEDS, st.sampled_from(NORMS))
@settings(max_examples=30)
def test_no_success_is_nearer_than_the_exact_distance(seed: int, norm: str) -> None:
    model, x, y = affine_task(seed, classes=5)
    distance, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    for eps in (0.05, 0.3):
        found = pgd(model, x, y, eps=eps, norm=norm, restarts=2, generator=rng(0))
        assert (found.distance >= distance * (1 - 1e-6)).all()


@given(SEEDS, st.sampled_from(NORMS))
def test_fgsm_takes_the_steepest_step_of_full_length(seed: int, norm: str) -> None:
    g = rng(seed)
    weight = torch.randn(2, 6, generator=g)
    x = 0.4 + 0.2 * torch.rand(8, 6, generator=g)
    y = torch.zeros(8, dtype=torch.int64)
    # A bias so large that the attack fails: what it returns is its only step.
    model = Affine(weight, torch.tensor([1e3, 0.0]))
    found = fgsm(model, x, y, eps=0.2, norm=norm)
    delta = found.x_adv - x
    c = weight[1] - weight[0]
    dual = torch.linalg.vector_norm(c, ord=DUAL[norm])
    assert not found.success.any()
    torch.testing.assert_close(delta @ c, (0.2 * dual).expand(8))


@pytest.mark.parametrize("dim", [4, 40, 300])
def test_fgsm_in_l1_is_the_best_step_in_ball_and_box(dim: int) -> None:
    """A fractional knapsack, filled here one coordinate after the other."""
    g = rng(dim)
    weight = torch.randn(2, dim, generator=g)
    x = with_walls(torch.rand(6, dim, generator=g), g, 0.3)
    y = torch.zeros(6, dtype=torch.int64)
    # Some spend their budget on a coordinate or two, one has more than it can spend.
    eps = torch.tensor([0.1, 1.0, 8.0, 20.0, 70.0, 2.0 * dim])
    found = fgsm(Affine(weight, torch.tensor([1e4, 0.0])), x, y, eps=eps, norm="l1")
    c = weight[1] - weight[0]
    for i in range(len(x)):
        left, best = float(eps[i]), torch.zeros(dim)
        for k in c.abs().argsort(descending=True).tolist():
            room = float(1 - x[i, k] if c[k] > 0 else x[i, k])
            best[k] = c[k].sign() * min(room, left)
            left -= min(room, left)
        torch.testing.assert_close(found.x_adv[i], x[i] + best, atol=2e-5, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_pgd_fools_whatever_fgsm_fools(
    trained: MLP, fashion: Dataset, norm: str, scale: float
) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, scale * BUDGET[norm]
    one = fgsm(trained, x, y, eps=eps, norm=norm)
    many = pgd(trained, x, y, eps=eps, norm=norm)
    assert not (one.success & ~many.success).any()
    assert one.robust_accuracy <= accuracy(trained, x, y)


@pytest.mark.parametrize("norm", NORMS)
def test_noise_loses_to_fgsm(trained: MLP, fashion: Dataset, norm: str) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, BUDGET[norm]
    noise = random_noise(trained, x, y, eps=eps, norm=norm, generator=rng(0))
    step = fgsm(trained, x, y, eps=eps, norm=norm)
    assert noise.robust_accuracy > step.robust_accuracy + 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_ball_is_never_safer(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test, fashion.y_test
    shares = [
        pgd(trained, x, y, eps=s * BUDGET[norm], norm=norm).robust_accuracy
        for s in (0, 0.25, 0.5, 1, 2, 4)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(accuracy(trained, x, y))
    everything = pgd(trained, x, y, eps=1 if norm == "linf" else 28, norm=norm)
    assert everything.robust_accuracy == 0


@pytest.mark.parametrize("norm", NORMS)
def test_doubling_the_steps_is_never_weaker(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, 0.5 * BUDGET[norm]
    shares = [
        pgd(trained, x, y, eps=eps, norm=norm, steps=k).robust_accuracy
        for k in (1, 5, 10, 20, 40)
    ]
    one_sample = 1 / len(x) + 1e-9
    assert all(b <= a + one_sample for a, b in zip(shares, shares[1:], strict=False))


def test_a_restart_only_adds_successes() -> None:
    g = rng(5)
    model = MLP((2, 32, 32, 2), bias=True, seed=3)
    model = Changed(model, lambda z: 5 * z)
    x = torch.rand(400, 2, generator=g)
    y = model(x).argmax(1)
    runs = [
        pgd(model, x, y, eps=0.1, steps=2, restarts=r, generator=rng(1))
        for r in (1, 2, 5)
    ]
    for fewer, more in zip(runs, runs[1:], strict=False):
        assert not (fewer.success & ~more.success).any()


def test_restarts_reach_what_one_run_misses() -> None:
    # From x the gradient leads away from the only door, left of 0.45.
    class Door(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            u = x[:, 0]
            score = torch.where(u < 0.45, 20 * (0.45 - u), 0.5 * u) - 0.7
            return torch.stack([torch.zeros_like(u), score], 1)

    x, y = torch.full((20, 1), 0.5), torch.zeros(20, dtype=torch.int64)
    once = pgd(Door(), x, y, eps=0.2)
    more = pgd(Door(), x, y, eps=0.2, restarts=10, generator=rng(0))
    assert not once.success.any()
    assert more.success.all()
    assert (more.n_forward > once.n_forward[0]).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "change",
    [lambda z: 1e3 * z, lambda z: 1e-3 * z, lambda z: z + 7],
    ids=["x 1000", "x 0.001", "+ 7"],
)
def test_the_margin_loss_does_not_see_the_scale_of_the_logits(
    trained: MLP, fashion: Dataset, norm: str, change: object
) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, 0.5 * BUDGET[norm]
    plain = pgd(trained, x, y, eps=eps, norm=norm)
    changed = pgd(Changed(trained, change), x, y, eps=eps, norm=norm)
    assert changed.robust_accuracy == pytest.approx(plain.robust_accuracy, abs=0.006)


def test_cross_entropy_does(trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test, fashion.y_test
    # In float64 a probability underflows at e^-745.
    loud = Changed(trained, lambda z: 1e4 * z)
    honest = pgd(trained, x, y, eps=4 / 255).robust_accuracy
    fooled = pgd(loud, x, y, eps=4 / 255, loss="ce", generator=rng(0))
    assert pgd(trained, x, y, eps=4 / 255, loss="ce").robust_accuracy < honest + 0.1
    assert fooled.robust_accuracy > honest + 0.1
    assert fooled.zero_gradient.any()


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_the_ratio_is_the_margin_over_the_spread_of_the_logits(classes: int) -> None:
    z = torch.randn(40, classes, generator=rng(classes), dtype=torch.float64)
    y = torch.randint(classes, (40,), generator=rng(1))
    rival = (y + 1) % classes
    size = z.sort(1, descending=True).values
    third = size[:, 2] if classes > 2 else size[:, 0] - 1
    fourth = size[:, 3] if classes > 3 else third
    for goal, low in (({}, third), ({"rival": rival}, (third + fourth) / 2)):
        ratio = objective(z, y, loss="dlr", **goal)
        assert torch.allclose(ratio, objective(z, y, **goal) / (size[:, 0] - low))
        if classes > 2:
            assert torch.allclose(objective(1e6 * z, y, loss="dlr", **goal), ratio)


def test_the_ratio_to_a_masked_class_is_the_margin() -> None:
    z = torch.tensor([[2.0, 1.0, -math.inf], [0.0, 3.0, -math.inf]]).requires_grad_()
    y = torch.tensor([0, 0])
    ratio = objective(z, y, loss="dlr")
    assert ratio.tolist() == [-1.0, 3.0]
    (g,) = torch.autograd.grad(ratio.sum(), z)
    assert g[:, :2].isfinite().all()


def test_class_names_do_not_matter(trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test, fashion.y_test
    order = torch.randperm(10, generator=rng(0))
    renamed = pgd(
        Changed(trained, lambda z: z[:, order]), x, order.argsort()[y], eps=4 / 255
    )
    plain = pgd(trained, x, y, eps=4 / 255)
    assert renamed.robust_accuracy == pytest.approx(plain.robust_accuracy, abs=0.006)


def test_equal_settings_give_what_a_textbook_loop_gives(
    trained: MLP, fashion: Dataset
) -> None:
    x, y, eps, step = fashion.x_test, fashion.y_test, 0.02, 0.005
    z = x.clone()
    for _ in range(10):
        z.requires_grad_()
        loss = nn.functional.cross_entropy(trained(z), y, reduction="sum")
        (g,) = torch.autograd.grad(loss, z)
        z = (z.detach() + step * g.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    plain = (trained(z).argmax(1) == y).sum()
    found = pgd(trained, x, y, eps=eps, steps=10, step_size=step, loss="ce")
    assert abs(int((~found.success).sum()) - int(plain)) <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_linf_ball_lies_in_the_l2_ball_of_radius_root_d(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, 2 / 255
    inner = pgd(trained, x, y, eps=eps)
    outer = pgd(trained, x, y, eps=eps * math.sqrt(784), norm="l2")
    assert outer.robust_accuracy <= inner.robust_accuracy


def check_points(
    found: AttackResult, model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float
) -> None:
    order = math.inf if found.norm == "linf" else 2
    moved = torch.linalg.vector_norm((found.x_adv - x).flatten(1), ord=order, dim=1)
    wrong = model(found.x_adv).argmax(1) != y
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    assert (moved <= eps * (1 + 1e-6) + 1e-6).all()
    assert found.success.equal(wrong)
    torch.testing.assert_close(found.distance[wrong], moved[wrong])
    assert found.distance[~wrong].isinf().all()
    assert found.robust_accuracy == pytest.approx(1 - float(wrong.double().mean()))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["fgsm", "pgd", "restarts", "noise"])
def test_what_the_result_says_can_be_recomputed_from_its_points(
    trained: MLP, fashion: Dataset, norm: str, kind: str
) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, 0.5 * BUDGET[norm]
    found = {
        "fgsm": lambda: fgsm(trained, x, y, eps=eps, norm=norm),
        "pgd": lambda: pgd(trained, x, y, eps=eps, norm=norm, loss="ce"),
        "restarts": lambda: pgd(
            trained,
            x,
            y,
            eps=eps,
            norm=norm,
            restarts=3,
            random_start=True,
            steps=5,
            generator=rng(2),
        ),
        "noise": lambda: random_noise(
            trained, x, y, eps=4 * eps, norm=norm, generator=rng(3)
        ),
    }[kind]()
    assert found.success.any() and not found.success.all()
    check_points(found, trained, x, y, 4 * eps if kind == "noise" else eps)


def noise_around(x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """Return the points that the baseline looks at, draw by draw."""
    seen = []

    def model(z: torch.Tensor) -> torch.Tensor:
        seen.append(z.clone())
        return torch.tensor([[1.0, 0.0]]).expand(len(z), 2)

    y = torch.zeros(len(x), dtype=torch.int64)
    random_noise(model, x, y, eps=eps, norm=norm, draws=30, generator=rng(2))
    assert seen[0].equal(x)
    # Two samples are asked for alone, to see whether the batch matters.
    return torch.stack([z for z in seen[1:] if len(z) == len(x)])


@pytest.mark.parametrize("norm", NORMS)
def test_noise_stays_in_ball_and_box(norm: str) -> None:
    x = with_walls(torch.rand(300, 3, generator=rng(0)), rng(1))
    points = noise_around(x, norm, 0.3)
    order = math.inf if norm == "linf" else 2
    sizes = torch.linalg.vector_norm(points - x, ord=order, dim=2)
    assert sizes.max() <= 0.3 + 1e-6
    assert ((points >= 0) & (points <= 1)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_noise_is_uniform_in_a_ball_inside_the_box(norm: str) -> None:
    x = torch.full((300, 3), 0.5)
    deltas = (noise_around(x, norm, 0.3) - x).flatten(0, 1)
    order = math.inf if norm == "linf" else 2
    shares = (torch.linalg.vector_norm(deltas, ord=order, dim=1) / 0.3) ** 3
    # The share of the ball's volume nearer than a uniform point is itself uniform.
    assert stats.kstest(shares.numpy(), "uniform").pvalue > 1e-3
    assert deltas.mean(0).abs().max() < 0.01


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["margin", "ce", "dlr"])
def test_a_targeted_success_has_the_target_label(
    trained: MLP, fashion: Dataset, norm: str, loss: str
) -> None:
    x, y = fashion.x_test, fashion.y_test
    target, before = (y + 1) % 10, trained(x).argmax(1)
    first = (before != y).nonzero()[0]
    target[first] = before[first]
    already = before == target
    eps = 2 * BUDGET[norm]
    found = pgd(trained, x, y, eps=eps, norm=norm, target=target, loss=loss)
    label = trained(found.x_adv).argmax(1)
    assert found.success.sum() > 10 and not found.success.all()
    assert found.success.equal(label == target)
    assert already.any() and found.success[already].all()
    assert found.x_adv[already].equal(x[already])
    free = pgd(trained, x, y, eps=eps, norm=norm)
    assert free.success.sum() >= found.success.sum()


def test_with_two_classes_a_target_changes_nothing() -> None:
    model, x, y = affine_task(7)
    plain = pgd(model, x, y, eps=0.2, norm="l2")
    aimed = pgd(model, x, y, eps=0.2, norm="l2", target=1 - y)
    assert plain.success.equal(aimed.success)
    torch.testing.assert_close(plain.x_adv, aimed.x_adv)


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_a_sample_is_that_sample_with_its_radius(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test[:40], fashion.y_test[:40]
    eps = BUDGET[norm] * torch.rand(40, generator=rng(0))
    eps[::5] = 0
    together = pgd(trained, x, y, eps=eps, norm=norm, steps=5)
    for i in range(0, 40, 3):
        one = slice(i, i + 1)
        alone = pgd(trained, x[one], y[one], eps=float(eps[i]), norm=norm, steps=5)
        assert alone.success.equal(together.success[one])
        torch.testing.assert_close(alone.x_adv, together.x_adv[one], atol=1e-3, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_order_of_the_batch_does_not_matter(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, 0.5 * BUDGET[norm]
    order = torch.randperm(len(x), generator=rng(0))
    plain = pgd(trained, x, y, eps=eps, norm=norm)
    mixed = pgd(trained, x[order], y[order], eps=eps, norm=norm)
    assert (plain.success[order] != mixed.success).sum() <= 1


def test_a_step_size_is_the_length_of_every_step() -> None:
    model = Affine(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([9.0, 0.0]))
    x, y = torch.full((2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    lengths = torch.tensor([0.01, 0.02])
    found = pgd(model, x, y, eps=0.4, steps=3, step_size=lengths)
    torch.testing.assert_close(found.x_adv, x + 3 * lengths[:, None].expand(2, 2))


@pytest.mark.parametrize("norm", NORMS)
def test_a_curve_falls_from_clean_accuracy_and_agrees_with_pgd(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test, fashion.y_test
    budgets = [s * BUDGET[norm] for s in (2, 0, 0.5, 1)]
    curve = robustness_curve(trained, x, y, eps=budgets, norm=norm, steps=10)
    assert curve.norm == norm
    torch.testing.assert_close(curve.eps, torch.tensor(sorted(budgets)))
    assert (curve.accuracy.diff() <= 0).all()
    assert float(curve.accuracy[0]) == pytest.approx(accuracy(trained, x, y))
    for eps, share in zip(curve.eps.tolist(), curve.accuracy.tolist(), strict=True):
        alone = pgd(trained, x, y, eps=eps, norm=norm, steps=10).robust_accuracy
        assert share <= alone + 1e-6
        assert share >= alone - 0.02


def test_a_curve_goes_on_after_everything_has_fallen() -> None:
    model, x, y = affine_task(1)
    curve = robustness_curve(model, x, 1 - y, eps=[0.0, 0.1], progress=False)
    assert curve.accuracy.tolist() == [0, 0]


def test_a_curve_needs_budgets_and_samples() -> None:
    model, x, y = affine_task(1)
    with pytest.raises(ValueError, match="at least one budget"):
        robustness_curve(model, x, y, eps=[])
    with pytest.raises(ValueError, match="one sample"):
        robustness_curve(model, x[:0], y[:0], eps=[0.1])
    one, same = (robustness_curve(model, x, y, eps=e) for e in (0.1, [0.1]))
    assert one.eps.equal(same.eps) and one.accuracy.equal(same.accuracy)
