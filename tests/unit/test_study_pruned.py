"""The study of pruning with an adversary: its masks, its score step, its table."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from crlib import compress, data, studies, train
from crlib.models import MLP
from crlib.studies import adversarial, measures, pruned
from crlib.studies.engine import Config

GRID = pruned.STUDY.grids["quick"]
WEIGHTS = {"structure": "weights", "size": 5}
ROWS = {"structure": "rows", "size": 5}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    few = measures.halved(data.fashion_mnist_sample().subset(200, 60).double())
    monkeypatch.setattr(adversarial, "small", lambda name, count: few)
    monkeypatch.setattr(pruned, "BEFORE", 1)
    yield


def config(**wanted: Any) -> Config:
    found = next(c for c in GRID if all(c[k] == v for k, v in wanted.items()))
    return {**found, "epochs": 3, "attacked": 10}


def network() -> MLP:
    return MLP((6, 128, 128, 4), seed=3).double()


def test_rows_of_one_start_share_a_job_and_are_what_they_are_alone(
    quick: None,
) -> None:
    some = [
        config(start="linf", mask="scores", **WEIGHTS),
        config(start="linf", mask="plain scores", **WEIGHTS),
        config(start="linf", mask="magnitude", tuning="standard", **ROWS),
        config(start="linf", mask="full"),
    ]
    assert len({str(pruned.STUDY.group(c)) for c in some}) == 1
    rows = pruned.STUDY.run_many(some, "cpu")  # type: ignore[misc]
    for one, row in zip(some, rows, strict=True):
        assert pruned.STUDY.run(one, "cpu") == row
    assert rows[2]["magnitude too"] == 1 and "untuned" not in rows[3]
    assert 0 < rows[0]["plain scores too"] <= 1


def test_the_start_is_that_of_the_study_adversarial(quick: None) -> None:
    one = config(start="linf", mask="full")
    there = {**adversarial.STUDY.grids["quick"][0], "train": "linf", "epochs": 1}
    net, images, options = adversarial.build(there)
    right = train.fit(net, images, progress=False, **options).model
    found, _ = pruned.started(one)
    for w, v in zip(found.weights, right.weights, strict=True):
        assert torch.equal(w, v)


def test_a_small_network_is_trained_for_as_long_and_is_as_large(quick: None) -> None:
    one = config(start="none", **ROWS)
    fitted, images = pruned._small(one, "cpu")
    assert len(fitted.history) == one["epochs"] + pruned.BEFORE
    assert [len(w) for w in fitted.model.weights] == [13, 13, 13, 10]
    judged = pruned.judge(fitted.model, images, attacked=10)
    assert judged["beyond 0.1"] <= judged["beyond 0.025"] <= judged["right"]


def gradient(weights: list[Tensor], head: Tensor, x: Tensor, y: Tensor) -> Any:
    """Loss gradients of weight matrices as they are used, by hand-written layers."""
    leaves = [w.clone().requires_grad_() for w in weights]
    h = x
    for w in leaves:
        h = (h @ w.T).relu()
    loss = torch.nn.functional.cross_entropy(h @ head.T, y)
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("structure", ["weights", "rows"])
def test_a_score_gets_the_weight_times_the_gradient_of_the_loss(structure: str) -> None:
    net = network()
    model = pruned.Scored(net, structure, 10).double()
    g = torch.Generator().manual_seed(0)
    x = torch.rand(20, 6, generator=g, dtype=torch.float64)
    y = torch.arange(20) % 4
    torch.nn.functional.cross_entropy(model(x), y).backward()
    left = pruned.cut(net, model.masks())
    with torch.no_grad():
        whole, part, said = net(x), left(x), model(x)
    assert torch.equal(part.argmax(1), said.argmax(1))
    factor = 1.0
    if structure == "weights":
        factor = float(whole.norm() / part.norm())
        assert float(said.norm()) == pytest.approx(float(whole.norm()))
    # A weight that is out hears of the loss; the ReLU of a row that is out does not.
    for s, mask in zip(model.scores, model.masks(), strict=True):
        assert s.grad is not None
        assert (s.grad[mask == 0] != 0).any() == (structure == "weights")
    slopes = gradient(left.weights[:-1], factor * net.weights[-1], x, y)
    for s, w, slope in zip(model.scores, net.weights, slopes, strict=False):
        told = w * slope
        if structure == "rows":
            told = told.sum(1, keepdim=True)
        assert torch.allclose(s.grad, told, atol=1e-12)
    assert all(p.grad is None for p in model.net.parameters())


def test_a_score_behind_the_relu_hears_of_a_neuron_that_is_out() -> None:
    net = network()
    model, before = (
        pruned.Scored(net, "rows", 10, behind=behind).double()
        for behind in (True, False)
    )
    g = torch.Generator().manual_seed(0)
    x = torch.rand(20, 6, generator=g, dtype=torch.float64)
    y = torch.arange(20) % 4
    assert torch.equal(model.masks()[1], before.masks()[1])
    assert torch.allclose(model(x), before(x), rtol=1e-12)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    # By hand: each neuron is multiplied by a gate, which is its entry of the mask.
    gates = [mask.flatten().clone().requires_grad_() for mask in model.masks()]
    h = x
    for w, gate in zip(net.weights, gates, strict=False):
        h = (h @ w.T).relu() * gate
    loss = torch.nn.functional.cross_entropy(h @ net.weights[-1].T, y)
    for s, gate, slope in zip(
        model.scores, gates, torch.autograd.grad(loss, gates), strict=True
    ):
        assert s.grad is not None and torch.allclose(s.grad[:, 0], slope, atol=1e-12)
        assert (slope[gate == 0] != 0).any()
    with pytest.raises(ValueError, match="Only rows"):
        pruned.Scored(net, "weights", 10, behind=True)


def test_the_masks_keep_what_their_names_say(quick: None) -> None:
    one = config(start="linf", mask="random", **WEIGHTS)
    net, images = pruned.started(one)
    for pair, share, structure in (
        (WEIGHTS, 0.95, "weights"),
        (ROWS, 1 - 13 / 128, "rows"),
    ):
        found = pruned.masks(net, images, "magnitude", one | pair)
        right = compress.prune(net, share, structure=structure)
        for w, v in zip(pruned.cut(net, found).weights, right.weights, strict=True):
            assert torch.equal(w, v)
    own, other = (
        pruned.masks(net, images, "random", one | {"seed": seed}) for seed in (0, 1)
    )
    assert 0.03 < pruned.overlap(own, other) < 0.08
    # Drawn with the seed of the weights, it would keep the largest of them.
    assert (
        0.03 < pruned.overlap(own, pruned.masks(net, images, "magnitude", one)) < 0.08
    )
    assert pruned.overlap(own, own) == 1
    with pytest.raises(ValueError, match="mask is 'magic'"):
        pruned.masks(net, images, "magic", one)


def test_scores_are_learnt_and_weights_are_not(quick: None) -> None:
    one = config(start="linf", mask="scores", **WEIGHTS)
    net, images = pruned.started(one)
    *_, options = pruned._options(one, "linf")
    options["epochs"] = 5
    model = pruned.Scored(net, "weights", 5)
    fitted = pruned.scored(model, images, options)
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss
    for w, v in zip(fitted.model.net.weights, net.weights, strict=True):
        assert torch.equal(w, v)
    assert pruned.overlap(fitted.model.masks(), model.masks()) < 1


def test_scores_behind_the_relu_are_learnt_at_three_rates(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = config(start="linf", mask="random", **ROWS)
    net, images = pruned.started(one)
    asked = {}
    for how in ("scores", *pruned.RATES):

        def fit(model: pruned.Scored, *_: Any, lr: float, **options: Any) -> Any:
            asked[how] = lr, model.behind  # noqa: B023
            return SimpleNamespace(model=model)

        monkeypatch.setattr(pruned.train, "fit", fit)
        pruned.masks(net, images, how, one)
    assert asked == {
        "scores": (0.01, False),
        "scores behind": (0.01, True),
        "scores behind, slow": (0.001, True),
        "scores behind, fast": (0.1, True),
    }


def test_tuning_keeps_zeros_and_counts_the_epochs_of_the_scores(quick: None) -> None:
    for mask, epochs, cut in (
        ("scores", 2, WEIGHTS),
        ("scores behind", 2, ROWS),
        ("scores behind, slow", 2, ROWS),
        ("magnitude", 3, WEIGHTS),
    ):
        one = config(start="linf", mask=mask, tuning="linf", **cut)
        net, images = pruned.started(one)
        left = pruned.cut(net, pruned.masks(net, images, "magnitude", one))
        fitted = pruned.tuned(left, images, one)
        assert len(fitted.history) == epochs
        left = compress.narrow(left) if cut is ROWS else left
        for w, v in zip(left.weights[:-1], fitted.model.weights, strict=False):
            assert torch.equal(w == 0, v == 0) and not torch.equal(w, v)


def test_cuts_of_one_size_keep_as_many_weights() -> None:
    net = MLP((196, 128, 128, 128, 10), seed=0).double()
    whole = sum(w.numel() for w in net.weights[:-1])
    for structure, size in pruned.KEPT:
        left = pruned.cut(net, pruned.Scored(net, structure, size).masks())
        left = compress.narrow(left) if structure == "rows" else left
        count = sum(int((w != 0).sum()) for w in left.weights[:-1])
        assert count / whole == pytest.approx(size / 100, rel=0.02)


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("pruned")
    assert len(table) == len(GRID)
    budgets = ["right", *(f"beyond {eps}" for eps in pruned.BUDGETS)]
    assert (table["robust"] <= table["right"]).all()
    curve = table[budgets].to_numpy()
    assert (curve[:, 1:] <= curve[:, :-1] + 1e-9).all()
    assert (table["ratio"] * table["right"] - table["robust"]).abs().max() < 1e-9
    cut = table[table["mask"].isin(pruned.MASKS)]
    assert cut["magnitude too"].between(0, 1).all()
    assert (cut["mask"].eq("magnitude") == cut["magnitude too"].eq(1)).all()
    drawn = cut[cut["mask"] == "random"]
    for (structure, size), rows in drawn.groupby(["structure", "size"]):
        kept = pruned.KEPT[structure, size]  # type: ignore[index]
        share, room = (kept, 0.01) if structure == "weights" else (kept / 128, 0.06)
        assert rows["magnitude too"].mean() == pytest.approx(share, abs=room)
