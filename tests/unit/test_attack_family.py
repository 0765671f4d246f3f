"""The whole family of attacks: exact answers, invariances, hygiene, and costs."""

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crlib import attacks
from crlib.attacks import (
    EOT,
    AttackResult,
    apgd,
    deepfool,
    evaluate,
    fmn,
    minimal,
    minimum_of,
    pgd,
    random_noise,
    robustness_curve,
    sigma_zero,
    square,
    transfer,
    worst_case,
)
from crlib.attacks.balls import BALLS
from crlib.attacks.judging import to_each_rival
from crlib.attacks.smallest import adam_step
from crlib.data import Dataset
from crlib.models import MLP
from crlib.theory import linear_minimal
from tests.unit.support import (
    SEEDS,
    Affine,
    Changed,
    Counting,
    Never,
    affine_task,
    predictions,
    rng,
    with_walls,
)
from tests.unit.test_attack_hygiene import BAD_INPUT, GOOD, awkward_task

ORDER = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}
BUDGET = {"linf": 8 / 255, "l2": 0.7, "l1": 6.0}
FIXED = {
    f"{name} {norm}": (partial(attack, norm=norm), norm)
    for norm in ("linf", "l2", "l1")
    for name, attack in {
        "apgd": partial(apgd, steps=5),
        "apgd ce": partial(apgd, steps=5, loss="ce", restarts=2),
        "apgd targeted": partial(apgd, steps=5, n_targets=2),
        "apgd targeted together": partial(apgd, steps=5, n_targets=3, together=2),
        "apgd random": partial(apgd, steps=5, random_start=True),
        "square": partial(square, queries=5),
        "quick": partial(worst_case, budget="quick"),
    }.items()
    if (name, norm) != ("square", "l1")
}
NEAREST = {
    **{f"deepfool {n}": (partial(deepfool, norm=n, steps=4), n) for n in ORDER},
    **{f"fmn {n}": (partial(fmn, norm=n, steps=8), n) for n in list(ORDER)[:3]},
    **{
        f"walk {n}": (partial(fmn, norm=n, steps=4, walk=2), n) for n in list(ORDER)[:3]
    },
    "sigma zero": (partial(sigma_zero, steps=8), "l0"),
    "sigma zero by adam": (partial(sigma_zero, steps=8, adam=True), "l0"),
    "minimal": (
        partial(minimal, eps=1.0, attack=pgd, steps=3, search_steps=3),
        "linf",
    ),
}
EVERY = {
    **{k: (partial(a, eps=0.05), n) for k, (a, n) in FIXED.items()},
    **NEAREST,
}
TARGETED = [k for k in EVERY if "quick" not in k and "apgd targeted" not in k]


def check_result(found: AttackResult, model: Any, x: Tensor, y: Tensor) -> None:
    """Recompute everything that a result says from its points."""
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    assert found.success.equal(predictions(model, found.x_adv) != y)
    delta = (found.x_adv - x).flatten(1)
    moved = torch.linalg.vector_norm(delta, ord=ORDER[found.norm], dim=1)
    assert found.distance[~found.success].isinf().all()
    torch.testing.assert_close(found.distance[found.success], moved[found.success])
    wrong = predictions(model, x) != y
    assert found.x_adv[wrong].equal(x[wrong])
    assert found.success[wrong].all() and not found.distance[wrong].any()


def oracle(regime: str) -> tuple[Affine, Tensor, Tensor]:
    """Ten classes: boundaries far away, or so near that all rivals count."""
    g = rng(0)
    weight = torch.randn(10, 128, generator=g, dtype=torch.float64)
    x = with_walls(torch.rand(96, 128, generator=g, dtype=torch.float64), g)
    if regime == "near":
        x = with_walls(0.5 + 0.05 * (x - 0.5), g, 0.1)
    else:
        weight[:, ::2] *= 0.05
        x = 0.5 + 0.5 * (x - 0.5).sign() * torch.rand(x.shape, generator=g).to(x)
    model = Affine(weight, -weight @ x.mean(0))
    if regime == "far":
        model.bias.data *= 0.9
    return model, x, predictions(model, x)


LIMITS = {"linf": (1.001, 1.05), "l2": (1.001, 1.05), "l1": (1.02, 1.1), "l0": (1, 1)}


@pytest.mark.parametrize("regime", ["far", "near"])
@pytest.mark.parametrize("norm", ORDER)
def test_deepfool_is_exact_on_a_linear_model(norm: str, regime: str) -> None:
    model, x, y = oracle(regime)
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    found = deepfool(model, x, y, norm=norm)
    check_result(found, model, x, y)
    ratio = found.distance / exact
    assert found.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= LIMITS[norm][0]
    assert ratio.max() <= LIMITS[norm][1]


@pytest.mark.parametrize("regime", ["far", "near"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fmn_comes_near_the_exact_distance(norm: str, regime: str) -> None:
    model, x, y = oracle(regime)
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    found = fmn(model, x, y, norm=norm)
    ratio = found.distance / exact
    assert found.success.all() and ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.02


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_walks_to_each_rival_are_exact_on_a_linear_model(norm: str) -> None:
    model, x, y = oracle("near")
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    counting = Counting(model)
    found = to_each_rival(counting, x, y, norm=norm, steps=3)
    check_result(found, model, x, y)
    ratio = found.distance / exact
    assert found.success.all() and ratio.min() >= 1 - 1e-4
    # Eight halvings of the way resolve half a per cent of it.
    assert ratio.median() <= 1.01
    # Once one sample is asked for alone.
    assert int(found.n_forward.sum()) + 1 == sum(counting.forwards)
    assert int(found.n_backward.sum()) == sum(counting.backwards)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_short_run_in_l1_ends_inside_the_ball(
    trained: MLP, fashion: Dataset, steps: int, random_start: bool
) -> None:
    x, y, eps = fashion.x_test[:60], fashion.y_test[:60], 3.0
    options: dict[str, Any] = {"steps": steps, "random_start": random_start}
    found = apgd(trained, x, y, eps=eps, norm="l1", **options)
    check_result(found, trained, x, y)
    assert (found.x_adv - x).flatten(1).abs().sum(1).max() <= eps * (1 + 1e-5)
    assert found.success.any()


def test_a_random_start_in_l1_moves_a_few_coordinates_far() -> None:
    x, eps = torch.full((50, 200), 0.5), torch.full((50,), 2.0)
    deltas = BALLS["l1"](x, eps).random(rng(0)) - x
    moved = (deltas != 0).sum(1)
    torch.testing.assert_close(deltas.abs().sum(1), eps)
    assert moved.min() >= 1 and moved.max() <= 50
    assert len({tuple(row.nonzero().flatten().tolist()) for row in deltas}) == 50


def misleading() -> tuple[Affine, Tensor, Tensor]:
    """One rival is nearest to the logits, eight are nearer in distance."""
    g = rng(3)
    weight = torch.zeros(10, 40, dtype=torch.float64)
    weight[1:, :20] = 0.02 * torch.randn(9, 20, generator=g).double()
    weight[1, :20] *= 0.01
    weight[2:, 20:] = 4 * torch.randn(8, 20, generator=g).double()
    x = 0.3 + 0.4 * torch.rand(60, 40, generator=g, dtype=torch.float64)
    behind = torch.tensor([0.0, 0.05, *[8.0] * 8], dtype=torch.float64)
    model = Affine(weight, -(weight @ x.mean(0)) - behind)
    return model, x, predictions(model, x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_walk_saves_fmn_from_the_wrong_rival(norm: str) -> None:
    model, x, y = misleading()
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    assert not fmn(model, x, y, norm=norm, walk=0, steps=100).success.any()
    assert (fmn(model, x, y, norm=norm).distance / exact).max() <= 1.02
    model, x, y = oracle("near")
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    ratio = [
        (found.distance / exact).max()
        for found in (
            fmn(model, x, y, norm=norm, walk=0, steps=100),
            fmn(model, x, y, norm=norm),
        )
    ]
    assert ratio[1] <= 1.01 and ratio[0] > 1.1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fmn_comes_near_the_best_distance_for_what_it_promises_to_cost(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test, fashion.y_test
    plain = fmn(trained, x, y, norm=norm, walk=0, steps=100)
    counting = Counting(trained)
    led = fmn(counting, x, y, norm=norm)
    check_result(led, trained, x, y)
    best = minimum_of(plain, led, deepfool(trained, x, y, norm=norm)).distance
    right = best > 0
    assert (led.distance / best)[right].quantile(0.9) <= 1.03
    assert int(led.n_backward.sum()) == sum(counting.backwards)
    assert led.n_backward.max() <= 9 + 2 * 5 + 40
    assert led.n_forward.max() <= 5 + 1 + 40 + 10 + 2


@pytest.mark.parametrize("adam", [False, True])
def test_sigma_zero_comes_near_the_exact_count(adam: bool) -> None:
    model, x, y = oracle("far")
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm="l0")
    found = sigma_zero(model, x, y, adam=adam)
    assert found.success.all() and (found.distance >= exact).all()
    assert (found.distance == exact).double().mean() >= 0.7
    best = minimum_of(found, deepfool(model, x, y, norm="l0"))
    assert best.distance.equal(exact)


def test_the_step_is_that_of_adam() -> None:
    like = torch.zeros(3, 5, dtype=torch.float64)
    moments, g = [like, like], rng(0)
    point = torch.nn.Parameter(like.clone())
    adam = torch.optim.Adam([point], lr=1.0)
    for t in range(1, 31):
        before = point.detach().clone()
        point.grad = torch.randn(3, 5, generator=g, dtype=torch.float64)
        step = adam_step(moments, point.grad, t)
        adam.step()
        assert torch.allclose(before - point.detach(), step, rtol=1e-10)


@pytest.mark.parametrize("regime", ["far", "near"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targeted_apgd_finds_the_exact_robust_accuracy_of_a_linear_model(
    norm: str, regime: str
) -> None:
    model, x, y = oracle(regime)
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    eps = 1.05 * float(exact.median())
    clear = (exact / eps - 1).abs() > 1e-3
    for together in (1, 4):
        found = apgd(
            model, x, y, eps=eps, norm=norm, n_targets=99, steps=20, together=together
        )
        assert found.success[clear].equal((exact <= eps)[clear])
        assert 0.2 < found.robust_accuracy < 0.8


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_runs_that_share_their_passes_find_what_they_find_apart(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test[:100], fashion.y_test[:100]
    options = {"eps": 0.3 * BUDGET[norm], "norm": norm, "steps": 10, "n_targets": 5}
    apart = apgd(trained, x, y, **options)
    shared = apgd(trained, x, y, **options, together=3)
    check_result(shared, trained, x, y)
    assert 0.1 < apart.robust_accuracy < 0.9
    assert shared.success.equal(apart.success)
    # Who is not fooled ends at the same point, for the same passes.
    stands = ~apart.success
    torch.testing.assert_close(shared.x_adv[stands], apart.x_adv[stands])
    assert shared.n_forward[stands].equal(apart.n_forward[stands])
    assert shared.n_backward[stands].equal(apart.n_backward[stands])


def test_the_ensemble_fills_its_passes_as_far_as_the_first_one(
    trained: MLP, fashion: Dataset
) -> None:
    sizes: list[int] = []

    def seen(z: Tensor) -> Tensor:
        sizes.append(len(z))
        return trained(z)

    found = worst_case(
        seen, fashion.x_test[:100], fashion.y_test[:100], eps=0.05, budget="quick"
    )
    standing = int((~found.success).sum())
    assert max(sizes) == 100 and 10 < standing < 50
    # The last look of the last run; apart it would be at the standing samples only.
    assert sizes[-1] >= 2 * standing


def test_the_stages_of_the_ensemble_draw_from_one_source(
    trained: MLP, fashion: Dataset
) -> None:
    # With a new source for each, a later stage would start where an earlier one did.
    x, y = fashion.x_test[:30], fashion.y_test[:30]
    options: dict[str, Any] = {"eps": 0.01, "budget": "quick"}
    found = worst_case(trained, x, y, **options)
    given = worst_case(trained, x, y, **options, generator=rng(0))
    assert not found.success.all() and found.x_adv.equal(given.x_adv)


def test_cross_entropy_does_not_find_it() -> None:
    # It climbs towards the rival with the nearest logit and never tries the rest.
    model, x, y = misleading()
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm="linf")
    eps = 1.05 * float(exact.median())
    truth = float((exact > eps).double().mean())
    led = apgd(model, x, y, eps=eps, n_targets=9, steps=20)
    blind = apgd(Changed(model, lambda z: 1e3 * z), x, y, eps=eps, loss="ce")
    assert led.robust_accuracy == pytest.approx(truth, abs=0.02)
    assert blind.robust_accuracy > truth + 0.1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_minimal_bisects_any_attack_to_the_exact_distance(norm: str) -> None:
    model, x, y = affine_task(3, classes=2)
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    eps = 1.0 if norm == "linf" else 2.0
    reachable = exact.isfinite() & (exact < eps)
    x, y, exact = x[reachable], y[reachable], exact[reachable]
    found = minimal(model, x, y, eps=eps, norm=norm, steps=20, search_steps=12)
    check_result(found, model, x, y)
    assert found.success.all()
    assert (found.distance >= exact * (1 - 1e-6)).all()
    assert (found.distance <= exact * 1.01 + 2e-3).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_more_is_stronger(trained: MLP, fashion: Dataset, norm: str) -> None:
    x, y, eps = fashion.x_test[:50], fashion.y_test[:50], 0.4 * BUDGET[norm]
    plain = pgd(trained, x, y, eps=eps, norm=norm, steps=10)
    quick = worst_case(trained, x, y, eps=eps, norm=norm, budget="quick")
    full = worst_case(trained, x, y, eps=eps, norm=norm)
    check_result(quick, trained, x, y)
    check_result(full, trained, x, y)
    assert not (plain.success & ~quick.success).any()
    assert full.robust_accuracy <= quick.robust_accuracy <= plain.robust_accuracy
    assert 0 < full.robust_accuracy < 0.9
    noise = random_noise(trained, x, y, eps=eps, norm=norm)
    assert noise.robust_accuracy > plain.robust_accuracy


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_queries_beat_noise_and_lose_to_gradients(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y, eps = fashion.x_test[:100], fashion.y_test[:100], BUDGET[norm]
    noise = random_noise(trained, x, y, eps=eps, norm=norm, draws=200)
    blind = square(trained, x, y, eps=eps, norm=norm, queries=200)
    white = pgd(trained, x, y, eps=eps, norm=norm)
    check_result(blind, trained, x, y)
    assert white.robust_accuracy < blind.robust_accuracy - 0.05
    assert blind.robust_accuracy < noise.robust_accuracy - 0.05
    assert not blind.n_backward.any() and blind.n_forward.max() <= 201


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_minimal_norms_and_fixed_budgets_agree(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test[:100], fashion.y_test[:100]
    walk, ball = deepfool(trained, x, y, norm=norm), fmn(trained, x, y, norm=norm)
    best = minimum_of(walk, ball)
    for found in (walk, ball, best):
        check_result(found, trained, x, y)
    assert best.success.all()
    assert best.distance.equal(torch.minimum(walk.distance, ball.distance))
    assert best.n_forward.equal(walk.n_forward + ball.n_forward)
    eps = float(best.distance.median())
    attacked = worst_case(trained, x, y, eps=eps, norm=norm, budget="quick")
    shares = (best.distance <= eps).double().mean(), attacked.success.double().mean()
    assert abs(float(shares[0] - shares[1])) <= 0.05


def test_sigma_zero_beats_the_linear_guess(trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test[:40], fashion.y_test[:40]
    found = sigma_zero(trained, x, y, steps=100)
    guess = deepfool(trained, x, y, norm="l0")
    check_result(found, trained, x, y)
    check_result(guess, trained, x, y)
    assert found.success.all()
    assert found.distance.median() <= guess.distance.median()


def test_one_run_gives_a_curve_at_any_budget(trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test, fashion.y_test
    budgets = [0.0, *torch.linspace(0.005, 0.06, 9).tolist()]
    counting = Counting(trained)
    curve = robustness_curve(counting, x, y, eps=budgets, attack=fmn, steps=40)
    assert len(counting.backwards) <= 60 and len(counting.forwards) <= 61
    assert (curve.accuracy.diff() <= 0).all()
    assert (curve.low <= curve.accuracy).all() and (curve.accuracy <= curve.high).all()
    wider = robustness_curve(trained, x, y, eps=budgets, steps=5, level=0.99)
    assert (wider.high - wider.low >= curve.high - curve.low - 0.03).all()
    assert (wider.accuracy - curve.accuracy).abs().max() <= 0.05
    half = (curve.accuracy - 0.5).abs().argmin()
    spread = float((curve.high - curve.low)[half])
    assert spread == pytest.approx(2 * 1.96 * math.sqrt(0.25 / len(x)), rel=0.25)


def test_points_of_one_model_are_shown_to_another(
    trained: MLP, fashion: Dataset
) -> None:
    x, y = fashion.x_test, fashion.y_test
    own = pgd(trained, x, y, eps=0.03)
    same = transfer(own, trained, x, y)
    assert same.success.equal(own.success) and same.distance.equal(own.distance)
    other = MLP((784, 64, 10), bias=True, mean=0.286, std=0.353, seed=5).double()
    there = transfer(own, other, x, y)
    check_result(there, other, x, y)
    assert not there.n_backward.any()
    with pytest.raises(ValueError, match="The result is of"):
        transfer(own, trained, x[:3], y[:3])
    with pytest.raises(ValueError, match="result is a Tensor"):
        transfer(own.x_adv, trained, x, y)  # type: ignore[arg-type]
    none = transfer(pgd(trained, x[:0], y[:0], eps=0.1), Never(), x[:0], y[:0])
    assert none.success.shape == (0,)


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_is_what_a_success_is_labelled(
    name: str, trained: MLP, fashion: Dataset
) -> None:
    x, y = fashion.x_test[:40], fashion.y_test[:40]
    attack, norm = EVERY[name]
    options: dict[str, Any] = {"eps": 4 * BUDGET[norm]} if name in FIXED else {}
    if name.startswith("sigma"):
        options = {"steps": 60}
    target, before = (y + 1) % 10, predictions(trained, x)
    first = (before != y).nonzero()[0]
    target[first] = before[first]
    found = attack(trained, x, y, target=target, **options)
    after = predictions(trained, found.x_adv)
    assert found.success.sum() > 3 or "square" in name
    assert found.success.equal(after == target)
    # Wrong from the start is no success: it is led to the target too.
    already, wrong = before == target, (before != y) & (before != target)
    assert already.any() and wrong.any()
    assert found.success[already].all() and not found.distance[already].any()
    assert found.distance[~already].all() and found.n_forward[wrong].min() > 1
    assert found.clean_accuracy == pytest.approx(float((before == y).double().mean()))


def test_points_that_sought_a_target_are_judged_by_it(
    trained: MLP, fashion: Dataset
) -> None:
    x, y = fashion.x_test[:60], fashion.y_test[:60]
    target = (y + 1) % 10
    own = pgd(trained, x, y, eps=0.1, target=target)
    same = transfer(own, trained, x, y, target=target)
    assert 0 < same.success.sum() < len(x)
    assert same.success.equal(own.success) and same.distance.equal(own.distance)
    # The other question has another answer.
    assert not transfer(own, trained, x, y).success.equal(own.success)
    with pytest.raises(ValueError, match="A target equals"):
        transfer(own, trained, x, y, target=y)


def test_rivals_and_a_target_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="one goal a sample"):
        apgd(Never(), **GOOD, n_targets=1, target=torch.tensor([1, 0]))


CHANGES = {
    "times 1000": lambda z: 1e3 * z,
    "times 0.001": lambda z: 1e-3 * z,
    "plus a constant": lambda z: z + 5,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [k for k in EVERY if "ce" not in k.split()])
def test_the_scale_of_the_logits_does_not_matter(name: str, change: str) -> None:
    model, x, y = affine_task(11, n=24, classes=4)
    attack, norm = EVERY[name]
    plain = attack(model, x, y)
    scaled = attack(Changed(model, CHANGES[change]), x, y)
    assert (plain.success != scaled.success).sum() <= 1
    if name in NEAREST and norm != "l0":
        both = plain.success & scaled.success
        close = torch.isclose(plain.distance, scaled.distance, rtol=0.02, atol=1e-4)
        assert close[both].double().mean() >= 0.9


# The draws of Square follow the order and the type of the batch.
STEADY = [k for k in EVERY if "square" not in k]


@pytest.mark.parametrize("name", STEADY)
def test_the_order_of_samples_and_classes_does_not_matter(name: str) -> None:
    model, x, y = affine_task(12, n=24, classes=4)
    attack, _ = EVERY[name]
    plain = attack(model, x, y)
    order, swap = torch.randperm(24, generator=rng(0)), torch.tensor([2, 0, 3, 1])
    mixed = attack(model, x[order], y[order])
    assert (mixed.success != plain.success[order]).sum() <= 1
    renamed = attack(Changed(model, lambda z: z[:, swap]), x, swap.argsort()[y])
    assert (renamed.success != plain.success).sum() <= 1


@pytest.mark.parametrize("name", STEADY)
def test_single_precision_agrees_with_double(name: str) -> None:
    model, x, y = affine_task(13, n=24, classes=3)
    attack, _ = EVERY[name]
    double = attack(model, x, y)
    single = attack(model.float(), x.float(), y)
    assert single.x_adv.dtype == single.distance.dtype == torch.float32
    assert (double.success != single.success).sum() <= 2


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_touched(name: str) -> None:
    model, x, y = awkward_task()
    attack, _ = EVERY[name]
    flags = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    chance, inputs = torch.get_rng_state(), x.clone()
    found = attack(model, x, y)
    assert [m.training for m in model.modules()] == flags
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.get_rng_state().equal(chance) and x.equal(inputs)
    assert not found.x_adv.requires_grad and not found.distance.requires_grad
    model.eval()
    check_result(found, model, x, y)
    with torch.no_grad():
        assert attack(model, x, y).x_adv.equal(found.x_adv)


@given(
    SEEDS,
    st.sampled_from(list(EVERY)),
    st.sampled_from([(0, 5), (1, 1), (1, 5), (3, 2, 2, 2), (2, 3)]),
    st.integers(2, 4),
)
@settings(max_examples=60)
def test_any_shape_and_number_of_classes_will_do(
    seed: int, name: str, shape: tuple[int, ...], classes: int
) -> None:
    g = rng(seed)
    model = Affine(torch.randn(classes, math.prod(shape[1:]), generator=g))
    x = with_walls(torch.rand(shape, generator=g), g)
    y = torch.randint(classes, shape[:1], generator=g)
    attack, norm = EVERY[name]
    found = attack(model, x, y)
    assert found.x_adv.shape == shape and found.norm == norm
    check_result(found, model, x, y)
    if name in FIXED:
        delta = (found.x_adv - x).flatten(1)
        size = torch.linalg.vector_norm(delta, ord=ORDER[norm], dim=1)
        assert (size <= 0.05 + 1e-6).all()
    else:
        exact, _ = linear_minimal(model.weight, model.bias, x.flatten(1), y, norm=norm)
        assert (found.distance >= exact * (1 - 1e-3) - 1e-5).all()


@pytest.mark.parametrize("name", EVERY)
def test_everyone_wrong_costs_one_look(name: str) -> None:
    model, x, y = affine_task(4)
    counting = Counting(model)
    found = EVERY[name][0](counting, x, 1 - y)
    assert found.success.all() and found.x_adv.equal(x)
    assert not found.n_backward.any()
    if name != "minimal":
        assert counting.forwards == [len(x), 1]


@pytest.mark.parametrize("name", EVERY)
def test_a_constant_model_gives_no_nan_and_is_reported(name: str) -> None:
    x, y = 0.5 * torch.ones(3, 4), torch.zeros(3, dtype=torch.int64)
    for model in (
        lambda x: torch.eye(3)[:1].expand(len(x), 3),
        lambda x: (0 * x.flatten(1).sum(1))[:, None] + torch.eye(3)[:1],
    ):
        found = EVERY[name][0](model, x, y)
        assert not found.success.any() and found.x_adv.isfinite().all()
        assert found.distance.isinf().all()
        assert found.zero_gradient.all() or "square" in name


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (name, *case)
        for name in EVERY
        for case in BAD_INPUT
        if "norm" not in case[0] and (name in FIXED or "eps" not in case[0])
    ],
)
def test_bad_input_is_refused_first(
    name: str, changes: dict[str, Any], message: str
) -> None:
    arguments = GOOD | changes
    x, y = arguments.pop("x"), arguments.pop("y")
    options = arguments if name in FIXED else {}
    with pytest.raises(ValueError, match=message):
        EVERY[name][0](Never(), x, y, **options)


BAD_OPTIONS = [
    (apgd, {"eps": 0.1, "loss": "hinge"}, "choose one of margin, ce, dlr"),
    (apgd, {"eps": 0.1, "steps": 0}, "steps is 0"),
    (apgd, {"eps": 0.1, "n_targets": -1}, "n_targets is -1"),
    (apgd, {"eps": 0.1, "together": 0}, "together is 0"),
    (square, {"eps": 0.1, "norm": "l1"}, "choose one of linf, l2"),
    (square, {"eps": 0.1, "queries": 0}, "queries is 0"),
    (worst_case, {"eps": 0.1, "budget": "huge"}, "choose one of quick, full"),
    (deepfool, {"norm": "l3"}, "choose one of linf, l2, l1, l0"),
    (deepfool, {"steps": 0}, "steps is 0"),
    (fmn, {"norm": "l0"}, "choose one of linf, l2, l1"),
    (fmn, {"steps": 0}, "steps is 0"),
    (fmn, {"walk": -1}, "walk is -1"),
    (sigma_zero, {"steps": 0}, "steps is 0"),
    (minimal, {"eps": 0.1, "search_steps": -1}, "search_steps is -1"),
    (partial(evaluate, pgd), {"eps": 0.1, "batch_size": 0}, "batch_size is 0"),
    (robustness_curve, {"eps": [0.1], "level": 1.0}, "between 0 and 1"),
    (robustness_curve, {"eps": [0.1, -1], "attack": fmn}, "eps is -1"),
    (robustness_curve, {"eps": [math.nan, 0.1], "attack": fmn}, "eps is nan"),
    (robustness_curve, {"eps": [0, 8], "attack": fmn}, "write 8/255"),
    (pgd, {"eps": 0.1, "steps": 1e1}, "steps is 10.0: give a whole number"),
    (deepfool, {"search_steps": 1e1}, "search_steps is 10.0"),
    (fmn, {"search_steps": -1}, "search_steps is -1"),
]


@pytest.mark.parametrize(("attack", "options", "message"), BAD_OPTIONS)
def test_bad_options_are_refused_first(
    attack: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attack(Never(), GOOD["x"], GOOD["y"], **options)


def test_results_that_do_not_fit_are_refused() -> None:
    model, x, y = affine_task(1)
    with pytest.raises(ValueError, match="at least one"):
        minimum_of()
    with pytest.raises(ValueError, match="one norm"):
        minimum_of(fmn(model, x, y, steps=1), fmn(model, x, y, norm="l1", steps=1))


def test_the_nearest_of_all_keeps_names_and_notes() -> None:
    model, x, y = affine_task(3, n=40)
    y[:2] = 1 - y[:2]
    cascade = worst_case(model, x, y, eps=0.05, budget="quick")
    told = replace(cascade, notes=("Doubtful.",))
    near = fmn(model, x, y, norm="linf")
    for results in ((told, near, told), (near, near, told)):
        found = minimum_of(*results)
        assert found.notes == ("Doubtful.",) and found.success.any()
        for row, name in enumerate(found.by):
            nearer = bool(near.distance[row] < told.distance[row])
            if results[0] is near:
                nearer = bool(near.distance[row] <= told.distance[row])
            kind = "" if not found.success[row] else "unnamed"
            kind = "clean" if row < 2 else kind
            assert name == (kind if nearer else told.by[row])
    assert minimum_of(near, near).by == ()


@pytest.mark.parametrize("attack", [deepfool, fmn, partial(apgd, eps=1, n_targets=1)])
def test_logits_that_are_none_are_refused(attack: Any) -> None:
    x, y = GOOD["x"], GOOD["y"]
    with pytest.raises(ValueError, match="returned a NaN"):
        attack(lambda z: torch.full((len(z), 3), math.nan), x, y)
    with pytest.raises(ValueError, match="K at least 2"):
        attack(lambda z: torch.zeros(len(z), 1), x, y)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("steps", [1, 7])
def test_apgd_of_k_steps_costs_k_backward_and_one_more_forward(
    norm: str, steps: int
) -> None:
    model, x, y = affine_task(0)
    model.bias.data += 100 * nn.functional.one_hot(y, 2)[0]
    y = predictions(model, x)
    counting = Counting(model)
    found = apgd(counting, x, y, eps=0.1, norm=norm, steps=steps)
    assert counting.forwards == [len(x), 1] + [len(x)] * steps
    assert counting.backwards == [len(x)] * steps
    assert (found.n_forward == steps + 1).all() and (found.n_backward == steps).all()


@pytest.mark.parametrize("norm", ORDER)
def test_deepfool_and_square_cost_what_they_promise(norm: str) -> None:
    model, x, y = affine_task(5, n=6)
    found = deepfool(model, x, y, norm=norm, steps=4, search_steps=3)
    more = norm == "l0"
    assert int(found.n_forward.max()) == 4 + 3 + 2 + more
    assert int(found.n_backward.max()) == 4 + more
    if norm in ("linf", "l2"):
        found = square(model, x, y, eps=0.0, norm=norm, queries=7)
        assert (found.n_forward == 1 + 7).all()


@pytest.mark.parametrize("name", EVERY)
def test_the_passes_are_counted(name: str, trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test[:30], fashion.y_test[:30]
    counting = Counting(trained)
    found = EVERY[name][0](counting, x, y)
    # Once one sample is asked for alone.
    assert int(found.n_forward.sum()) + 1 == sum(counting.forwards)
    if "deepfool" not in name:
        assert int(found.n_backward.sum()) == sum(counting.backwards)
    assert found.n_forward[trained(x).argmax(1) == y].min() > 1


class Dithered(nn.Module):
    """Adds noise from a source of its own; counts its calls."""

    def __init__(self, model: nn.Module, size: float) -> None:
        super().__init__()
        self.model, self.size, self.source, self.calls = model, size, rng(0), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        noise = torch.randn(x.shape, generator=self.source)
        logits: Tensor = self.model(x + self.size * noise.to(x))
        return logits


def test_averaging_sees_through_noise(trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test[:100], fashion.y_test[:100]
    eps, steps = 0.02, 10
    plain = pgd(trained, x, y, eps=eps, steps=steps)
    model = EOT(Dithered(trained, 0.3), 8)
    found = pgd(model, x, y, eps=eps, steps=steps)
    assert abs(found.robust_accuracy - plain.robust_accuracy) < 0.15
    assert found.n_forward.max() == steps + 1
    before = model.model.calls
    apgd(model, x[:2], y[:2], eps=0.0, steps=3)
    # And the first and the last sample are asked for alone, once.
    assert model.model.calls - before == 8 * 4 + 2 * 8
    with pytest.raises(ValueError, match="samples is 0"):
        EOT(trained, 0)


def test_the_mean_of_calls_is_taken_in_evaluation_mode() -> None:
    model, x, y = awkward_task()
    mean = EOT(model, 3)
    found = pgd(mean, x, y, eps=0.05)
    assert mean.training and model.training
    assert found.x_adv.equal(pgd(model, x, y, eps=0.05).x_adv)


@pytest.mark.parametrize("name", ["apgd targeted l2", "deepfool linf", "fmn l1"])
def test_batches_give_what_one_batch_gives(
    name: str, trained: MLP, fashion: Dataset
) -> None:
    x, y = fashion.x_test[:50], fashion.y_test[:50]
    attack, _ = EVERY[name]
    whole = attack(trained, x, y)
    parts = evaluate(attack, trained, x, y, batch_size=7)
    assert (parts.success != whole.success).sum() <= 1
    torch.testing.assert_close(parts.distance, whole.distance, rtol=0.05, atol=1e-3)
    one_each = torch.linspace(0, 0.1, 50)
    sliced = evaluate(pgd, trained, x, y, batch_size=20, eps=one_each)
    assert (sliced.distance[sliced.success] <= one_each[sliced.success] + 1e-6).all()
    assert evaluate(pgd, Never(), x[:0], y[:0], eps=0.1).success.shape == (0,)


class Small(nn.Module):
    """A device on which only four samples fit."""

    def __init__(self, model: nn.Module, room: int) -> None:
        super().__init__()
        self.model, self.room, self.sizes = model, room, []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise torch.cuda.OutOfMemoryError("full")
        logits: Tensor = self.model(x)
        return logits


def test_a_batch_that_does_not_fit_is_halved() -> None:
    model, x, y = affine_task(2, n=21)
    small = Small(model, 4)
    found = evaluate(pgd, small, x, y, eps=0.2, steps=3)
    assert found.success.equal(pgd(model, x, y, eps=0.2, steps=3).success)
    assert small.sizes[:4] == [21, 10, 5, 2]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        evaluate(pgd, Small(model, 0), x, y, eps=0.2)


@pytest.mark.parametrize("name", ["apgd linf", "fmn l2"])
def test_bfloat16_around_the_model_changes_little_and_claims_nothing_false(
    name: str, trained: MLP, fashion: Dataset
) -> None:
    # Autocast leaves float64 as it is.
    x, y, model = fashion.x_test.float(), fashion.y_test, copy.deepcopy(trained).float()
    attack, _ = EVERY[name]
    options = {"eps": 0.02} if name in FIXED else {}
    seen = set()
    model.layers[-1].register_forward_hook(lambda _m, _i, o: seen.add(o.dtype))
    low = evaluate(attack, model, x, y, autocast=torch.bfloat16, **options)
    assert torch.bfloat16 in seen and low.x_adv.dtype == torch.float32
    check_result(low, model, x, y)
    full = evaluate(attack, model, x, y, **options)
    assert abs(low.robust_accuracy - full.robust_accuracy) <= 0.02


def test_what_full_precision_finds_anew_is_told_too() -> None:
    # Margins near the reach, where the rounding of bfloat16 decides.
    g = rng(0)
    x = torch.rand(300, 2, generator=g) * 0.1 + 0.6
    x[:, 1] = x[:, 0] - 0.05 * torch.rand(300, generator=g)
    model, y = Affine(torch.eye(2)), torch.zeros(300, dtype=torch.int64)
    options = {"eps": 0.02, "budget": "quick", "autocast": torch.bfloat16}
    found = evaluate(worst_case, model, x, y, **options)
    check_result(found, model, x, y)
    assert [bool(name) for name in found.by] == found.success.tolist()
    clean = [name == "clean" for name in found.by]
    assert clean == (found.distance == 0).tolist()


def test_a_target_inside_a_partial_goes_with_its_samples() -> None:
    model, x, y = affine_task(2, n=40, classes=5)
    target = (y + 1) % 5
    aimed = partial(pgd, eps=0.2, target=target)
    # Which leaves float64 as it is.
    found = evaluate(aimed, model, x, y, batch_size=7, autocast=torch.bfloat16)
    whole = pgd(model, x, y, eps=0.2, target=target)
    assert 0 < found.success.sum() < (predictions(model, found.x_adv) != y).sum()
    assert found.success.equal(whole.success) and found.x_adv.equal(whole.x_adv)


def test_the_public_names_are_the_documented_ones() -> None:
    for name in attacks.__all__:
        assert name in attacks.__doc__ or name[0].isupper() or name == "project"
