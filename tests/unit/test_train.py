"""Training is a function: model, data and seed decide; nothing else moves."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib import attacks, compress
from crlib.data import Dataset, gaussian_classes
from crlib.metrics import accuracy
from crlib.models import MLP, ConvNet, ResNet, logits
from crlib.train import Fit, augment, fit, fit_many, new_head, pgd_adversary
from tests.unit.support import rng


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
        ({"checkpoint": "best"}, "choose one of validation, matched, last"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"validation": 0}, "checkpoint='last'"),
        ({"validation": 1.0}, "300 training samples"),
        ({"validation": -0.1}, "hold out"),
        ({"lr": 1e30, "epochs": 20}, "lower the learning rate"),
        ({"penalty": lambda m: torch.tensor(float("nan"))}, "lower the learning rate"),
        ({"checkpoint": "matched"}, "needs match="),
        ({"checkpoint": "matched", "match": 1.1}, "No epoch for checkpoint='matched'"),
        ({"optimiser": "adam"}, "choose one of adamw, sgd"),
        ({"schedule": "step"}, "choose one of constant, cosine"),
        ({"constrain_every": 0}, "at least 1"),
        ({"share": 0.0}, "part of the batch"),
        ({"trades": 6.0}, "trades needs an adversary"),
        ({"checkpoint": "robust"}, "robust' needs an adversary"),
        (
            {"checkpoint": "robust", "adversary": pgd_adversary(eps=0.1)}
            | {"validation": 0},
            "checkpoint='last'",
        ),
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


def test_epochs_can_be_kept_on_the_way(clouds: Dataset) -> None:
    fitted = run(clouds, small(3), epochs=4, keep=(0, 2, 9))
    assert set(fitted.kept) == {"validation", "last", "epoch 0", "epoch 2"}
    start, second = fitted.at("epoch 0"), fitted.at("epoch 2")
    assert start.epoch == 0 and second.epoch == 2
    before = small(3).state_dict().values()
    assert all(v.equal(w) for v, w in zip(weights(start), before, strict=True))
    assert same(second, run(clouds, small(3), epochs=2, checkpoint="last"))


def test_one_training_keeps_what_each_rule_chooses(clouds: Dataset) -> None:
    options = {"epochs": 12, "lr": 0.05, "validation": 0.3, "match": 0.8}
    fitted = run(clouds, checkpoint="last", **options)
    assert set(fitted.kept) == {"validation", "matched", "last"}
    for rule in fitted.kept:
        chosen = fitted.at(rule)
        assert chosen.checkpoint == rule and chosen.history == fitted.history
        assert same(chosen, run(clouds, checkpoint=rule, **options))
    matched = fitted.at("matched")
    accuracies = [e.train_accuracy for e in fitted.history]
    assert accuracies[matched.epoch - 1] >= 0.8
    assert all(a < 0.8 for a in accuracies[: matched.epoch - 1])
    with pytest.raises(ValueError, match="this training kept"):
        run(clouds, validation=0, checkpoint="last").at("validation")


def test_the_rule_robust_returns_the_epoch_of_lowest_loss_under_attack(
    clouds: Dataset,
) -> None:
    adversary = pgd_adversary(eps=0.1, steps=2)
    # A rate this large makes the losses go up and down.
    options = {"epochs": 12, "lr": 0.5, "validation": 0.3, "adversary": adversary}
    fitted = run(clouds, checkpoint="robust", seed=1, **options)
    losses = [epoch.robust_loss for epoch in fitted.history]
    best = losses.index(min(losses)) + 1
    assert fitted.checkpoint == "robust" and fitted.epoch == best < 12
    assert set(fitted.kept) == {"validation", "robust", "last"}
    assert fitted.at("validation").epoch != best
    held = torch.randperm(300, generator=rng(1))[:90]
    x, y = clouds.x_train[held], clouds.y_train[held]
    for epoch in fitted.history:
        assert epoch.robust_loss > epoch.validation_loss
    moved = adversary(fitted.model, x, y, rng(1))
    with torch.no_grad():
        loss = nn.functional.cross_entropy(fitted.model(moved), y)
    assert losses[best - 1] == pytest.approx(float(loss), rel=1e-5)


def test_attacking_held_out_samples_changes_nothing_in_the_training(
    clouds: Dataset,
) -> None:
    options = {"adversary": pgd_adversary(eps=0.1, steps=2), "epochs": 4}
    asked = run(clouds, checkpoint="robust", **options)
    usual = run(clouds, checkpoint="last", **options)
    assert same(asked.at("last"), usual)
    assert asked.at("validation").epoch == usual.at("validation").epoch
    assert all(math.isnan(epoch.robust_loss) for epoch in usual.history)
    with pytest.raises(ValueError, match="kept by fit"):
        usual.at("robust")


def test_many_networks_know_no_rule_robust(clouds: Dataset) -> None:
    with pytest.raises(ValueError, match="choose one of validation, matched, last"):
        fit_many([small()], clouds, epochs=1, checkpoint="robust", progress=False)


def test_momentum_and_the_cosine_schedule_learn(clouds: Dataset) -> None:
    options = {"optimiser": "sgd", "lr": 0.2, "epochs": 15, "checkpoint": "last"}
    for schedule in ("constant", "cosine"):
        fitted = run(clouds, schedule=schedule, **options)
        assert accuracy(fitted.model, clouds.x_test, clouds.y_test) > 0.9
    # The last steps of a cosine are short: one epoch more changes little.
    moved = [
        float((a - b).abs().max())
        for a, b in zip(
            weights(run(clouds, schedule="cosine", **options)),
            weights(run(clouds, schedule="constant", **options)),
            strict=True,
        )
    ]
    assert max(moved) > 0


def test_the_adversary_raises_the_loss_inside_ball_and_box(clouds: Dataset) -> None:
    model, x, y = run(clouds, epochs=10).model, clouds.x_train, clouds.y_train
    loss = nn.functional.cross_entropy
    for norm in ("linf", "l2", "l1"):
        bad = pgd_adversary(eps=0.1, norm=norm)(model, x, y, rng(0))
        order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
        assert (torch.linalg.vector_norm(bad - x, ord=order, dim=1) <= 0.1 + 1e-6).all()
        assert (bad >= 0).all() and (bad <= 1).all()
        with torch.no_grad():
            assert loss(model(bad), y) > 1.2 * loss(model(x), y)
    away = pgd_adversary(eps=0.1, against="prediction")(model, x, y, rng(0))
    with torch.no_grad():
        told = model(x).log_softmax(1)
        assert (
            nn.functional.kl_div(
                model(away).log_softmax(1), told, log_target=True, reduction="batchmean"
            )
            > 0.01
        )
    for bad_option, message in (
        ({"norm": "l7"}, "choose one of linf, l2, l1"),
        ({"against": "x"}, "choose one of label, prediction"),
        ({"eps": -1.0}, "not negative"),
        ({"steps": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            pgd_adversary(**{"eps": 0.1, **bad_option})


@pytest.mark.parametrize("trades", [None, 6.0])
def test_adversarial_training_makes_robust(
    clouds: Dataset, trades: float | None
) -> None:
    goal = "label" if trades is None else "prediction"
    adversary = pgd_adversary(eps=0.1, steps=3, against=goal)
    options = {"epochs": 25, "lr": 0.02, "checkpoint": "last"}
    plain = run(clouds, **options).model
    robust = run(clouds, adversary=adversary, trades=trades, **options).model
    found = [
        attacks.pgd(m, clouds.x_test, clouds.y_test, eps=0.1).robust_accuracy
        for m in (plain, robust)
    ]
    assert found[1] >= found[0] - 0.02
    half = run(clouds, adversary=adversary, share=0.5, epochs=2)
    assert not same(half, run(clouds, adversary=adversary, epochs=2))
    assert same(half, run(clouds, adversary=adversary, share=0.5, epochs=2))


def test_augmented_images_are_shifts_and_mirrors() -> None:
    x = torch.rand(64, 2, 6, 5, generator=rng(1))
    out = augment(x, rng(2), padding=1)
    assert out.shape == x.shape
    padded = nn.functional.pad(x, (1,) * 4)
    found = torch.zeros(64, dtype=torch.bool)
    mirrored = torch.zeros(64, dtype=torch.bool)
    for image in (padded, padded.flip(3)):
        for i in range(3):
            for j in range(3):
                hit = (image[:, :, i : i + 6, j : j + 5] == out).flatten(1).all(1)
                found |= hit
                mirrored |= hit if image is not padded else False
    assert found.all() and 10 < int(mirrored.sum()) < 54
    assert augment(x, rng(2), padding=1).equal(out)
    assert not augment(x, rng(3), padding=1).equal(out)


def test_only_the_head_moves(clouds: Dataset) -> None:
    images = Dataset(
        torch.rand(60, 3, 8, 8, generator=rng(0)),
        torch.arange(60) % 4,
        torch.rand(8, 3, 8, 8, generator=rng(1)),
        torch.arange(8) % 4,
        "images",
        "generated",
        "none",
    )
    for model in (ConvNet((4, 6), 3, image=(3, 8, 8)), ResNet(3, blocks=(1,), width=4)):
        ready = new_head(model, 4, seed=1)
        assert new_head(model, 4, seed=1)(images.x_test).equal(ready(images.x_test))
        fitted = fit(ready, images, epochs=2, head_only=True, progress=False)
        before, after = ready.state_dict(), fitted.model.state_dict()
        moved = {name for name, v in after.items() if not v.equal(before[name])}
        assert moved and all(v.shape[0] == 4 for k, v in after.items() if k in moved)
        assert all(p.requires_grad for p in fitted.model.parameters())
    with pytest.raises(ValueError, match=r"must be nn\.Linear"):
        new_head(nn.Sequential(nn.Conv2d(1, 1, 1)), 3)


def test_training_together_is_training_one_by_one(clouds: Dataset) -> None:
    models = [small(seed) for seed in range(4)]
    penalty = compress.group_lasso(1.0, scale_invariant=True)
    strengths = (0.0, 0.01, 0.01, 0.1)
    options = {"epochs": 4, "lr": 0.01, "match": 0.5, "progress": False}
    together = fit_many(models, clouds, penalty=penalty, strengths=strengths, **options)
    for k, (model, strength) in enumerate(zip(models, strengths, strict=True)):
        alone = fit(
            model,
            clouds,
            seed=k,
            penalty=compress.group_lasso(strength, scale_invariant=True),
            **options,
        )
        assert alone.epoch == together[k].epoch
        assert alone.kept.keys() == together[k].kept.keys()
        for v, w in zip(weights(alone), weights(together[k]), strict=True):
            torch.testing.assert_close(v, w, atol=1e-5, rtol=1e-4)
        for a, b in zip(alone.history, together[k].history, strict=True):
            assert a.validation_loss == pytest.approx(b.validation_loss, abs=1e-4)
            assert a.train_loss == pytest.approx(b.train_loss, abs=1e-4)
    again = fit_many(models, clouds, penalty=penalty, strengths=strengths, **options)
    assert all(same(a, b) for a, b in zip(together, again, strict=True))


def test_training_together_on_data_of_their_own(clouds: Dataset) -> None:
    other = gaussian_classes(300, 90, torch.rand(3, 2, generator=rng(5)), noise=0.1)
    options = {"epochs": 3, "progress": False, "validation": 0, "checkpoint": "last"}
    both = fit_many([small(), small()], [clouds, other], seeds=[0, 0], **options)
    alone = fit(small(), other, seed=0, **options)
    for v, w in zip(weights(alone), weights(both[1]), strict=True):
        torch.testing.assert_close(v, w, atol=1e-5, rtol=1e-4)
    nan = both[0].history[0].validation_loss
    assert nan != nan
    for bad, message in (
        ({"models": []}, "at least one"),
        ({"seeds": [0]}, "as many of each"),
        ({"data": [clouds, clouds.subset(50, 10)]}, "differ in shape"),
        ({"models": [small(), MLP((2, 8, 3))]}, "one architecture"),
        ({"lr": 1e30, "epochs": 20}, "The loss is .* in epoch"),
    ):
        call = {"models": [small(), small()], "data": clouds, **options, **bad}
        with pytest.raises(ValueError, match=message):
            fit_many(**call)


def test_a_last_batch_of_one_is_explained_where_it_cannot_be_normalised() -> None:
    data = gaussian_classes(60, 8, torch.tensor([[0.2, 0.2], [0.8, 0.8]]))
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    options: Any = {"epochs": 1, "validation": 0, "checkpoint": "last"}
    n = len(data.x_train)
    with pytest.raises(ValueError, match="choose another batch_size"):
        run(data, model, batch_size=n - 1, **options)
    run(data, model, batch_size=n - 2, **options)


def test_a_model_that_returns_no_logits_is_named_with_the_cure() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = MLP((2, 4, 2))

        def forward(self, x: Tensor) -> Any:
            return self.net(x), x

    data = gaussian_classes(60, 8, torch.tensor([[0.2, 0.2], [0.8, 0.8]]))
    with pytest.raises(ValueError, match=r"a tuple.*crlib\.models\.logits\(model\)"):
        fit(Both(), data, epochs=1, progress=False)
    fitted = fit(logits(Both()), data, epochs=1, progress=False)
    assert fitted.model(data.x_test).shape == (len(data.x_test), 2)


def test_training_is_the_same_inside_inference_mode(clouds: Dataset) -> None:
    with torch.inference_mode():
        inside = run(clouds, epochs=2)
    assert same(run(clouds, epochs=2), inside)


class Keeping(nn.Module):
    """Keeps the activation of its last pass, as a network that is looked into does."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.net, self.seen = small(seed), torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.net.layers[0](x)
        logits: Tensor = self.net(x)
        return logits


def test_a_network_that_keeps_an_activation_is_copied(clouds: Dataset) -> None:
    model = Keeping()
    model(clouds.x_test)
    assert not model.seen.is_leaf
    plain, fitted = run(clouds), run(clouds, model)
    assert same(plain, fitted)
    fitted.model(clouds.x_test)
    assert same(fitted, fitted.at("last").at("validation"))
    assert new_head(model, 4)(clouds.x_test).shape == (90, 4)
    options: Any = {"epochs": 2, "progress": False}
    for one, other in zip(
        fit_many([model, Keeping(1)], clouds, **options),
        fit_many([small(), small(1)], clouds, **options),
        strict=True,
    ):
        assert same(one, other)
        assert same(one, copy.deepcopy(one))


class Loud(nn.Module):
    """Returns other logits in training than in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if self.training else 2 * logits


def test_held_out_samples_are_judged_in_evaluation_mode(clouds: Dataset) -> None:
    options: Any = {"epochs": 2, "lr": 0.01, "progress": False}
    (together,), alone = (
        fit_many([Loud()], clouds, **options),
        run(clouds, Loud(), epochs=2),
    )
    for a, b in zip(alone.history, together.history, strict=True):
        assert a.validation_loss == pytest.approx(b.validation_loss, abs=1e-5)


def stack(*middle: nn.Module, classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), *middle, nn.Linear(4, classes))


def tied() -> nn.Module:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = MLP((2, 4, 2))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return 2 * logits if logits.sum() > 0 else logits


ONE_BY_ONE = {
    "batch normalisation": (lambda: stack(nn.BatchNorm1d(4)), "BatchNorm1d.*use fit"),
    "without statistics": (
        lambda: stack(nn.BatchNorm1d(4, track_running_stats=False)),
        "BatchNorm1d.*use fit",
    ),
    "instance statistics": (
        lambda: stack(
            nn.Unflatten(1, (2, 2)),
            nn.InstanceNorm1d(2, track_running_stats=True),
            nn.Flatten(),
        ),
        "InstanceNorm1d.*use fit",
    ),
    "shared weights": (tied, "share weights: use fit"),
    "dropout": (lambda: stack(nn.Dropout(0.5)), "such as by dropout.*use fit"),
    "a condition": (Deciding, "decide on values: use fit"),
    "one logit": (lambda: stack(classes=1), "K at least 2"),
}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_what_would_be_another_network_side_by_side_is_refused(name: str) -> None:
    make, message = ONE_BY_ONE[name]
    data = gaussian_classes(60, 8, torch.tensor([[0.2, 0.2], [0.8, 0.8]]))
    options: Any = {"epochs": 1, "progress": False}
    with pytest.raises(ValueError, match=message):
        fit_many([make(), make()], data, **options)
    if "use fit" in message:
        fit(make(), data, **options)


def test_the_seed_decides_what_dropout_draws() -> None:
    means = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    clouds = gaussian_classes(64, 16, means)
    net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    before = torch.get_rng_state()
    one, two = (fit(net, clouds, epochs=1, progress=False) for _ in range(2))
    assert one.history == two.history
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    "options",
    [{"eps": 8}, {"eps": 0.1, "step_size": -1.0}, {"eps": 0.1, "step_size": math.nan}],
)
def test_an_adversary_refuses_what_attacks_refuse(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="eps is 8|step_size is"):
        pgd_adversary(**options)


def test_training_needs_no_grad_mode_of_the_caller() -> None:
    means = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    with torch.no_grad():
        adversary = pgd_adversary(eps=0.1)
        adversary(nn.Identity(), torch.zeros(1, 2), torch.tensor([0]), rng(0))
        clouds = gaussian_classes(8, 4, means)
        fit(MLP((2, 4, 2)), clouds, epochs=1, progress=False)
        fit_many([MLP((2, 4, 2))], clouds, epochs=1, progress=False)
        assert not torch.is_grad_enabled()
