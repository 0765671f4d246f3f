"""An attack costs what it says, touches nothing, and refuses what makes no sense."""

import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crlib.asking import Doubt
from crlib.attacks import (
    deepfool,
    evaluate,
    fgsm,
    fmn,
    minimal,
    pgd,
    random_noise,
    robustness_curve,
    sigma_zero,
    worst_case,
)
from crlib.attacks.base import rivals_of
from crlib.claims import wilson
from crlib.data import Dataset
from crlib.metrics import accuracy
from crlib.models import MLP
from tests.unit.support import SEEDS, Affine, Changed, Counting, Never, affine_task, rng

NORMS = ("linf", "l2", "l1")
ATTACKS = {
    "fgsm": fgsm,
    "pgd": lambda *a, **k: pgd(*a, steps=4, **k),
    "restarts": lambda *a, **k: pgd(
        *a, steps=2, restarts=2, random_start=True, generator=rng(0), **k
    ),
    "noise": lambda *a, **k: random_noise(*a, draws=3, generator=rng(0), **k),
}


class Awkward(nn.Module):
    """A network with everything that evaluation mode and gradients can disturb."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(64, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def awkward_task() -> tuple[Awkward, Tensor, Tensor]:
    model = Awkward().train()
    model.net[4].eval()
    model.net[0].weight.requires_grad_(False)
    x = torch.rand(12, 1, 4, 4, generator=rng(1))
    model.eval()
    y = model(x).argmax(1)
    model.train()
    model.net[4].eval()
    return model, x, y


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_model_is_left_as_it_was(name: str, norm: str) -> None:
    model, x, y = awkward_task()
    flags = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    needs = [p.requires_grad for p in model.parameters()]
    ATTACKS[name](model, x, y, eps=0.05, norm=norm)
    assert [m.training for m in model.modules()] == flags
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == needs


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_sees_evaluation_mode(name: str) -> None:
    model, x, y = awkward_task()
    seen = []
    model.net[3].register_forward_hook(lambda m, *_: seen.append(m.training))
    found = ATTACKS[name](model, x, y, eps=0.01)
    assert seen and not any(seen)
    assert found.n_forward.min() >= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_flags_return_after_an_error_in_the_model(name: str) -> None:
    model, x, y = awkward_task()
    flags = [m.training for m in model.modules()]

    def fail(*_: Any) -> None:
        raise RuntimeError("broken layer")

    model.net[-1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken layer"):
        ATTACKS[name](model, x, y, eps=0.01)
    assert [m.training for m in model.modules()] == flags


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_global_randomness_is_not_touched(name: str, norm: str) -> None:
    model, x, y = awkward_task()
    before = torch.get_rng_state()
    ATTACKS[name](model, x, y, eps=0.05, norm=norm)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_generator_the_result_repeats(norm: str) -> None:
    model, x, y = awkward_task()
    before = torch.get_rng_state()
    for attack, options in ((pgd, {"random_start": True}), (random_noise, {})):
        first, second = (
            attack(model, x, y, eps=0.01, norm=norm, **options).x_adv for _ in range(2)
        )
        assert first.equal(second)
    assert torch.get_rng_state().equal(before)


def test_generators_of_different_seeds_start_elsewhere() -> None:
    model, x, y = awkward_task()
    starts = [
        random_noise(
            model, x, y, eps=0.9, generator=torch.Generator().manual_seed(seed)
        ).x_adv
        for seed in (0, 1)
    ]
    assert not starts[0].equal(starts[1])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_inputs_are_not_written_to_and_the_result_has_no_graph(
    name: str, norm: str
) -> None:
    model, x, y = awkward_task()
    x.requires_grad_()
    before = x.detach().clone(), y.clone()
    found = ATTACKS[name](model, x, y, eps=0.05, norm=norm)
    assert x.equal(before[0]) and y.equal(before[1]) and x.grad is None
    assert not found.x_adv.requires_grad and not found.distance.requires_grad
    found.x_adv.zero_()
    assert x.equal(before[0])


@pytest.mark.parametrize("name", ATTACKS)
def test_it_works_where_gradients_are_switched_off(name: str) -> None:
    model, x, y = awkward_task()
    with torch.no_grad():
        off = ATTACKS[name](model, x, y, eps=0.05)
        assert not torch.is_grad_enabled()
    assert off.x_adv.equal(ATTACKS[name](model, x, y, eps=0.05).x_adv)


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("norm", NORMS)
def test_k_steps_cost_k_backward_and_one_more_forward(norm: str, steps: int) -> None:
    model, x, y = affine_task(0)
    model.bias.data += 100 * torch.nn.functional.one_hot(y, 2)[0]
    y = model(x).argmax(1)
    counting = Counting(model)
    found = pgd(counting, x, y, eps=0.1, norm=norm, steps=steps)
    assert counting.forwards == [len(x), 1] + [len(x)] * steps
    assert counting.backwards == [len(x)] * steps
    assert (found.n_forward == steps + 1).all() and (found.n_backward == steps).all()


@pytest.mark.parametrize("norm", NORMS)
def test_costs_are_counted_for_each_sample_and_the_fooled_leave(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test, fashion.y_test
    counting = Counting(trained)
    eps = {"linf": 4 / 255, "l2": 0.4, "l1": 4.0}[norm]
    found = pgd(
        counting, x, y, eps=eps, norm=norm, steps=10, restarts=2, generator=rng(0)
    )
    # Once one sample is asked for alone.
    assert counting.forwards[:2] == [len(x), 1] and counting.forwards.pop(1)
    assert int(found.n_forward.sum()) == sum(counting.forwards)
    assert int(found.n_backward.sum()) == sum(counting.backwards)
    assert counting.forwards[:11] == sorted(counting.forwards[:11], reverse=True)
    assert counting.forwards[10] < 0.8 * len(x)
    wrong = trained(x).argmax(1) != y
    assert (found.n_forward[wrong] == 1).all()
    assert (found.n_forward[~found.success] == 2 * 11).all()


def test_it_stops_when_everyone_is_fooled() -> None:
    model, x, y = affine_task(0)
    counting = Counting(model)
    found = pgd(counting, x, y, eps=1.0, steps=100, restarts=5)
    assert found.success.all()
    assert len(counting.forwards) <= 4
    noise = Counting(model)
    random_noise(noise, x, 1 - y, eps=0.1, draws=50)
    assert noise.forwards == [len(x), 1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_sample_wrong_from_the_start_comes_back_unchanged(
    name: str, norm: str
) -> None:
    model, x, y = affine_task(4, dtype=torch.float32)
    y[::2] = 1 - y[::2]
    found = ATTACKS[name](model, x, y, eps=0.3, norm=norm)
    assert found.x_adv[::2].equal(x[::2])
    assert found.success[::2].all() and not found.distance[::2].any()
    everyone = ATTACKS[name](model, x, 1 - model(x).argmax(1), eps=0.3, norm=norm)
    assert everyone.success.all() and everyone.x_adv.equal(x)
    assert everyone.robust_accuracy == 0


CONSTANT = {
    "zero gradient": lambda x: (0 * x.flatten(1).sum(1))[:, None] + torch.eye(3)[:1],
    "no gradient": lambda x: torch.eye(3)[:1].expand(len(x), 3),
    "parameters only": Affine(torch.zeros(3, 4), torch.tensor([1.0, 0.0, 0.0])),
    "rounded": lambda x: torch.stack(
        [1 - x[:, 0].round(), x[:, 0].round(), 0 * x[:, 0]], 1
    ),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["margin", "ce", "dlr"])
@pytest.mark.parametrize("name", CONSTANT)
def test_a_model_without_a_gradient_gives_no_nan_and_is_reported(
    name: str, loss: str, norm: str
) -> None:
    model = CONSTANT[name]
    x = 0.4 * torch.rand(5, 4, generator=rng(0))
    y = torch.zeros(5, dtype=torch.int64)
    with pytest.warns(Doubt, match="Every input gradient was zero"):
        found = pgd(model, x, y, eps=0.05, norm=norm, loss=loss, generator=rng(1))
    assert not found.success.any()
    assert found.x_adv.isfinite().all()
    assert found.zero_gradient.all()
    assert found.distance.isinf().all()


def test_a_random_step_can_leave_a_plateau() -> None:
    class Ledge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = (x[:, 0] - 0.55).relu() - 0.05
            return torch.stack([torch.zeros_like(score), score], 1)

    x, y = torch.full((20, 1), 0.5), torch.zeros(20, dtype=torch.int64)
    found = pgd(Ledge(), x, y, eps=0.2, generator=rng(0))
    assert found.zero_gradient.all() and found.success.any()


def test_a_model_with_a_gradient_is_not_reported(
    trained: MLP, fashion: Dataset
) -> None:
    found = pgd(trained, fashion.x_test, fashion.y_test, eps=4 / 255)
    assert not found.zero_gradient.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_no_samples_give_an_empty_result_without_a_call(name: str, norm: str) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    found = ATTACKS[name](Never(), torch.rand(0, 1, 4, 4), none, eps=0.1, norm=norm)
    assert found.x_adv.shape == (0, 1, 4, 4)
    assert found.success.shape == found.distance.shape == (0,)
    assert math.isnan(found.robust_accuracy)


@given(
    SEEDS,
    st.sampled_from(NORMS),
    st.sampled_from(list(ATTACKS)),
    st.sampled_from([(1, 1), (1, 5), (3, 2, 2, 2), (2, 3)]),
    st.integers(2, 4),
)
@settings(max_examples=40)
def test_any_shape_and_number_of_classes_will_do(
    seed: int, norm: str, name: str, shape: tuple[int, ...], classes: int
) -> None:
    g = rng(seed)
    model = Affine(torch.randn(classes, math.prod(shape[1:]), generator=g))
    x = torch.rand(shape, generator=g)
    y = torch.randint(classes, shape[:1], generator=g)
    found = ATTACKS[name](model, x, y, eps=0.1, norm=norm)
    assert found.x_adv.shape == shape
    assert found.x_adv.dtype == x.dtype
    assert found.success.equal(model(found.x_adv).argmax(1) != y)


def test_half_precision_logits_are_compared_in_single() -> None:
    model, x, y = affine_task(2, dtype=torch.float32)
    half = pgd(Changed(model, lambda z: z.half()), x, y, eps=0.1)
    full = pgd(model, x, y, eps=0.1)
    assert half.x_adv.dtype == torch.float32
    assert (half.success != full.success).sum() <= 1


GOOD: dict[str, Any] = {
    "x": torch.full((2, 3), 0.5),
    "y": torch.tensor([0, 1]),
    "eps": 0.1,
}
BAD_INPUT = [
    ({"x": torch.full((2, 3), 2.0)}, "first layer"),
    ({"x": torch.full((2, 3), -0.5)}, "from -0.5 to -0.5"),
    ({"x": torch.full((2, 3), 127, dtype=torch.uint8)}, "floating-point"),
    ({"x": torch.tensor([0.5, 0.5])}, "batch"),
    ({"x": torch.full((2, 3), math.nan)}, "NaN"),
    ({"x": torch.tensor([[0.5, math.inf, 0.5]] * 2)}, "first layer"),
    ({"y": torch.tensor([0.0, 1.0])}, "int64"),
    ({"y": torch.tensor([0, 1], dtype=torch.int32)}, "int64"),
    ({"y": torch.tensor([0])}, "each of the 2 samples"),
    ({"y": torch.tensor([[0], [1]])}, "each of the 2 samples"),
    ({"y": torch.tensor([0, -1])}, "y holds the label -1: labels run from 0 on"),
    ({"eps": -0.1}, "not negative"),
    ({"eps": math.inf}, "finite"),
    ({"eps": math.nan}, "finite"),
    ({"eps": torch.tensor([0.1, -0.1])}, "not negative"),
    ({"eps": torch.rand(3)}, "one number, or"),
    ({"eps": torch.rand(2, 1)}, "one number, or"),
    ({"norm": "l0"}, "choose one of linf, l2, l1"),
]
BAD_OPTION = [
    ({"loss": "hinge"}, "choose one of margin, ce, dlr"),
    ({"target": torch.tensor([1])}, "target is"),
    ({"target": torch.tensor([1, -2])}, "target holds the label -2"),
    ({"target": torch.tensor([1, 1])}, "equals the true label"),
]
BAD_STEPS = [
    ({"steps": 0}, "at least 1"),
    ({"restarts": 0}, "at least 1"),
    ({"step_size": -0.1}, "step_size is -0.1"),
    ({"step_size": math.nan}, "finite"),
    ({"step_size": torch.rand(3)}, "step_size has shape"),
]


@pytest.mark.parametrize(
    ("attack", "changes", "message"),
    [(a, *case) for a in (fgsm, pgd, random_noise) for case in BAD_INPUT]
    + [(a, *case) for a in (fgsm, pgd) for case in BAD_OPTION]
    + [(pgd, *case) for case in BAD_STEPS]
    + [(random_noise, {"draws": 0}, "at least 1")],
)
def test_bad_input_is_refused_before_the_model_is_called(
    attack: Any, changes: dict[str, Any], message: str
) -> None:
    arguments = GOOD | changes
    with pytest.raises(ValueError, match=message):
        attack(Never(), arguments.pop("x"), arguments.pop("y"), **arguments)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (lambda n: torch.zeros(n), "must return"),
        (lambda n: torch.zeros(n, 1), "K at least 2"),
        (lambda n: torch.zeros(n + 1, 3), "must return"),
        (lambda n: torch.zeros(n, 3, 1), "must return"),
        (lambda n: torch.full((n, 3), math.nan), "returned a NaN"),
    ],
)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_returns_no_logits_is_refused(
    name: str, logits: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ATTACKS[name](lambda x: logits(len(x)), **GOOD)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_label_the_model_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="y holds the label 3: labels run from 0 to 2"):
        ATTACKS[name](Affine(torch.eye(3)), GOOD["x"], torch.tensor([0, 3]), eps=0.1)
    with pytest.raises(ValueError, match="target holds the label 7"):
        pgd(Affine(torch.eye(3)), **GOOD, target=torch.tensor([1, 7]))


def test_rounding_just_outside_the_box_is_forgiven() -> None:
    x = torch.tensor([[1 + 5e-7, -5e-7, 0.5]])
    found = pgd(Affine(torch.eye(3)), x, torch.tensor([0]), eps=0.01)
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()


def test_a_result_says_what_was_found_in_a_line(trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test, fashion.y_test
    found = pgd(trained, x, y, eps=4 / 255, steps=3)
    assert found.clean_accuracy == accuracy(trained, x, y)
    assert found.interval == wilson(int((~found.success).sum()), len(x))
    median = float(found.distance[found.success].median())
    assert repr(found) == (
        f"<AttackResult: 200 samples, {int(found.success.sum())} fooled, clean accuracy"
        f" {found.clean_accuracy:.3f}, robust accuracy {found.interval}, median linf"
        f" distance of the fooled {median:.3g}>"
    )
    nobody = pgd(Never(), x[:0], y[:0], eps=0.1)
    assert repr(nobody) == "<AttackResult: 0 samples, 0 fooled>"
    assert math.isnan(nobody.clean_accuracy)


def test_a_result_is_read_again_without_trust_in_pickles() -> None:
    model, x, y = affine_task(0)
    found, file = pgd(model, x, y, eps=0.1), io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    again = torch.load(file, weights_only=True)
    assert again.x_adv.equal(found.x_adv) and again.norm == "linf"


def test_rivals_are_all_labels_but_the_true_one_and_the_masked() -> None:
    z = torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, 1.0, 2.0, 4.0]])
    y = torch.tensor([1, 3])
    assert rivals_of(z, y).tolist() == [[2, 0, 3], [0, 2, 1]]
    z[:, 0] = -math.inf
    assert rivals_of(z, y).tolist() == [[2, 3], [2, 1]]
    z[0, 3] = -math.inf
    assert rivals_of(z, y)[0].tolist() in ([2, 3], [2, 0])
    z[:, [0, 2]] = -math.inf
    z[1, 1] = -math.inf
    assert (rivals_of(z, y) != y[:, None]).all() and rivals_of(z, y).shape == (2, 1)


class Torn(nn.Module):
    """Answers NaN where the first coordinate is small."""

    def forward(self, x: Tensor) -> Tensor:
        z = torch.stack([1 - x[:, 0], x[:, 0]], 1)
        return z.masked_fill(x[:, :1] < 0.62, math.nan)


@pytest.mark.parametrize("attack", [deepfool, fmn, sigma_zero])
def test_a_nan_is_no_other_label(attack: Any) -> None:
    x, y = torch.tensor([[0.8, 0.4], [0.9, 0.1]]), torch.tensor([1, 1])
    with pytest.raises(ValueError, match="returned a NaN"):
        attack(Torn(), x, y)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_an_option_may_be_called_attack(autocast: torch.dtype | None) -> None:
    x, y, own = torch.tensor([[0.6, 0.4]]), torch.tensor([0]), {"attack": pgd}
    found = evaluate(minimal, nn.Identity(), x, y, eps=0.5, autocast=autocast, **own)
    assert float(found.distance) == pytest.approx(0.1, abs=0.01)


def test_a_curve_counts_coordinates() -> None:
    x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
    curve = robustness_curve(
        nn.Identity(), x, y, eps=[0, 1], norm="l0", attack=sigma_zero
    )
    assert curve.accuracy.tolist() == [1, 0]


def test_a_cascade_returns_no_graph() -> None:
    model, x = MLP((6, 16, 2)), torch.rand(8, 6, generator=rng(0)).requires_grad_()
    y = model(x).argmax(1)
    found = worst_case(model, x, y, eps=2, norm="l0", budget="quick")
    assert not found.x_adv.requires_grad
