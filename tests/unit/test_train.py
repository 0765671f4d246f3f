"""Training is a function: model, data and seed decide; nothing else moves."""

import copy

import pytest
import torch
from support import rng
from torch import Tensor, nn

from crlib.data import Dataset, gaussian_classes
from crlib.metrics import accuracy
from crlib.models import MLP
from crlib.train import Fit, fit


@pytest.fixture(scope="module")
def clouds() -> Dataset:
    means = torch.tensor([[0.3, 0.3], [0.7, 0.3], [0.5, 0.7]])
    return gaussian_classes(300, 90, means, noise=0.1)


def small(seed: int = 0) -> MLP:
    return MLP((2, 16, 3), bias=True, mean=0.5, std=0.2, seed=seed)


def run(data: Dataset, model: nn.Module | None = None, **options: object) -> Fit:
    options = {"epochs": 5, "lr": 0.01, "progress": False} | options
    return fit(model or small(), data, **options)


def weights(fitted: Fit) -> list[Tensor]:
    return list(fitted.model.state_dict().values())


def same(a: Fit, b: Fit) -> bool:
    return all(v.equal(w) for v, w in zip(weights(a), weights(b), strict=True))


def test_it_learns(clouds: Dataset) -> None:
    fitted = run(clouds, epochs=15)
    assert accuracy(fitted.model, clouds.x_test, clouds.y_test) > 0.9
    losses = [epoch.train_loss for epoch in fitted.history]
    assert losses[-1] < 0.5 * losses[0]
    assert fitted.seconds > 0


def test_the_model_given_is_left_alone(clouds: Dataset) -> None:
    model = small().eval()
    model.layers[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    fitted = run(clouds, model)
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert not any(m.training for m in fitted.model.modules())
    assert fitted.model.weights[0].equal(model.weights[0])
    assert not fitted.model.weights[1].equal(model.weights[1])


def test_the_seed_decides_bit_for_bit(clouds: Dataset) -> None:
    state = torch.get_rng_state()
    first = run(clouds, seed=3)
    torch.manual_seed(123)
    again = run(clouds, seed=3)
    torch.set_rng_state(state)
    assert same(first, again)
    assert first.history == again.history
    assert not same(first, run(clouds, seed=4))
    assert torch.get_rng_state().equal(state)


def test_the_bar_changes_nothing(clouds: Dataset) -> None:
    assert same(run(clouds, epochs=2), run(clouds, epochs=2, progress=True))


def test_history_has_an_entry_an_epoch_that_can_be_recomputed(clouds: Dataset) -> None:
    fitted = run(clouds, epochs=4, checkpoint="last", validation=0.2)
    assert len(fitted.history) == 4 and fitted.epoch == 4
    held = torch.randperm(300, generator=rng(0))[:60]
    x, y = clouds.x_train[held], clouds.y_train[held]
    with torch.no_grad():
        loss = nn.functional.cross_entropy(fitted.model(x), y)
    last = fitted.history[-1]
    assert last.validation_loss == pytest.approx(float(loss), rel=1e-5)
    assert last.validation_accuracy == pytest.approx(accuracy(fitted.model, x, y))
    assert all(0 <= e.train_accuracy <= 1 for e in fitted.history)


def test_the_rule_validation_returns_the_epoch_of_lowest_loss(clouds: Dataset) -> None:
    # A rate this large makes the loss go up and down.
    options = {"epochs": 12, "lr": 0.5, "validation": 0.3}
    fitted = run(clouds, **options)
    losses = [e.validation_loss for e in fitted.history]
    best = losses.index(min(losses)) + 1
    assert fitted.checkpoint == "validation"
    assert fitted.epoch == best < 12
    stopped = run(clouds, **options | {"epochs": best, "checkpoint": "last"})
    assert same(fitted, stopped)


def test_without_validation_the_last_weights_are_returned(clouds: Dataset) -> None:
    fitted = run(clouds, epochs=3, checkpoint="last", validation=0)
    assert fitted.epoch == 3 and fitted.checkpoint == "last"
    nan = fitted.history[0].validation_loss
    assert nan != nan


def test_the_test_part_is_not_looked_at(clouds: Dataset) -> None:
    from dataclasses import replace

    spoilt = replace(clouds, x_test=clouds.x_test * 0, y_test=clouds.y_test * 0)
    assert same(run(clouds), run(spoilt))


def test_a_penalty_acts_and_is_part_of_the_loss(clouds: Dataset) -> None:
    def l1(model: MLP) -> Tensor:
        return 0.05 * sum(p.abs().sum() for p in model.parameters())

    def size(fitted: Fit) -> float:
        return float(l1(fitted.model).detach())

    plain, penalised = run(clouds, epochs=10), run(clouds, epochs=10, penalty=l1)
    assert size(penalised) < 0.7 * size(plain)
    constant = run(clouds, penalty=lambda m: torch.tensor(5.0))
    free = run(clouds)
    assert same(constant, free)
    assert constant.history[0].train_loss == pytest.approx(
        free.history[0].train_loss + 5, rel=1e-4
    )


def test_weight_decay_shrinks(clouds: Dataset) -> None:
    strong = run(clouds, weight_decay=1.0, epochs=10, checkpoint="last")
    none = run(clouds, weight_decay=0.0, epochs=10, checkpoint="last")
    assert strong.model.weights[0].norm() < none.model.weights[0].norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "best"}, "choose one of validation, last"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"validation": 0}, "checkpoint='last'"),
        ({"validation": 1.0}, "300 training samples"),
        ({"validation": -0.1}, "hold out"),
        ({"lr": 1e30, "epochs": 20}, "lower the learning rate"),
        ({"penalty": lambda m: torch.tensor(float("nan"))}, "lower the learning rate"),
        ({"model": MLP((2, 8, 2))}, "K at least 3"),
        ({"model": nn.Linear(2, 1)}, "logits"),
        ({"model": nn.Sequential(small(), nn.Flatten(0))}, "logits"),
    ],
)
def test_bad_input_is_refused(
    clouds: Dataset, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(clouds, **options)
