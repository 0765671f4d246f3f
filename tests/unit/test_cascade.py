"""The cascade: budgets contain each other, and doubts about gradients raise them."""

import itertools
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib.attacks import (
    Doubt,
    apgd,
    deepfool,
    diagnose,
    evaluate,
    fmn,
    minimal,
    pgd,
    square,
    transfer,
    worst_case,
)
from crlib.attacks.diagnosis import CHECKS, doubts
from crlib.attacks.judging import THOROUGH
from crlib.attacks.query import sparse_search
from crlib.data import Dataset
from crlib.models import MLP
from crlib.theory import linear_minimal
from tests.unit.support import Affine, Changed, Counting, Never, predictions, rng

DEPENDS = ("crlib", "benchmarks")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "attacks"))

from masked import EPS, Layers, of_another, zoo  # noqa: E402

BUDGET = {"linf": EPS, "l2": 0.7, "l1": 6.0}
GRADIENTS = {
    "input gradients exist",
    "gradients tell the truth",
    "gradients hold in all directions",
}


@pytest.fixture(scope="module")
def masked(fashion: Dataset) -> dict[str, tuple[nn.Module, nn.Module | None]]:
    found: dict[str, tuple[nn.Module, nn.Module | None]] = zoo(fashion, epochs=4)
    return found


def radii(x: Tensor, norm: str) -> Tensor:
    return x.new_full((len(x),), BUDGET[norm])


def small_task(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    net = MLP((20, 12, 5), bias=True, seed=seed)
    x = torch.rand(12, 20, generator=rng(seed))
    return net, x, predictions(net, x)


@pytest.mark.parametrize("norm", BUDGET)
@pytest.mark.parametrize("seed", range(2))
def test_a_larger_budget_keeps_all_that_a_smaller_one_finds(
    norm: str, seed: int
) -> None:
    net, x, y = small_task(seed)
    eps = 0.6 * float(fmn(net, x, y, norm=norm).distance.median())
    quick, full = (
        worst_case(net, x, y, eps=eps, norm=norm, budget=b) for b in ("quick", "full")
    )
    assert 0 < quick.robust_accuracy < 1 and not full.notes
    # Not only the same verdict: the very same points.
    assert full.success[quick.success].all()
    assert full.x_adv[quick.success].equal(quick.x_adv[quick.success])
    assert full.robust_accuracy <= quick.robust_accuracy


def test_the_result_says_which_attack_broke_which_sample() -> None:
    net, x, y = small_task(0)
    y = torch.cat([y[:8], (y[8:] + 1) % 5])
    eps = float(fmn(net, x, y, norm="linf").distance[:8].median())
    found = worst_case(net, x, y, eps=eps, budget="quick")
    assert found.by[8:] == ("clean",) * 4
    assert [bool(name) for name in found.by] == found.success.tolist()
    only = pgd(net, x, y, eps=eps, steps=10)
    first = [name in ("clean", "pgd(steps=10)") for name in found.by]
    assert first == only.success.tolist()
    parts = evaluate(worst_case, net, x, y, eps=eps, budget="quick", batch_size=7)
    assert len(parts.by) == len(x) and parts.by[8:] == ("clean",) * 4


def test_the_points_alone_give_the_same_count() -> None:
    """As RobustBench counts: in batches, and what was wrong before is not robust."""
    net, x, y = small_task(1)
    y = torch.cat([y[:9], (y[9:] + 1) % 5])
    eps = float(fmn(net, x, y, norm="linf").distance[:9].median())
    found = worst_case(net, x, y, eps=eps)
    right = sum(
        int((net(points).argmax(1) == labels).sum())
        for points, labels in zip(found.x_adv.split(5), y.split(5), strict=True)
    )
    assert 0 < right < 9 and found.robust_accuracy == pytest.approx(right / len(x))
    assert found.x_adv[9:].equal(x[9:])


def test_a_masked_network_raises_doubts(
    masked: dict[str, tuple[nn.Module, nn.Module | None]], fashion: Dataset
) -> None:
    x, y = fashion.x_test[:60], fashion.y_test[:60]
    raised = {
        name: set(doubts(net, x, y, radii(x, "linf"), "linf"))
        for name, (net, _) in masked.items()
    }
    # Loud logits and k-winners hide nothing from the margin.
    honest = {"loud", "winners"}
    assert {k for k, v in raised.items() if not v & GRADIENTS} == honest
    # Only random directions tell the gradient of another network.
    assert raised["decoy"] == {"gradients hold in all directions"}
    for _, twin in masked.values():
        if twin is not None:
            assert not doubts(twin, x, y, radii(x, "linf"), "linf")


def test_full_becomes_thorough_where_gradients_mislead(
    masked: dict[str, tuple[nn.Module, nn.Module | None]], fashion: Dataset
) -> None:
    net, twin = masked["coarse inside"]
    assert twin is not None
    x, y = fashion.x_test[:16], fashion.y_test[:16]
    full = worst_case(net, x, y, eps=EPS)
    assert "thorough" in full.notes[-1] and "gradients" in " ".join(full.notes)
    # Nobody who knows more is better by more than one sample.
    queries = square(net, x, y, eps=EPS, queries=5000, generator=rng(9)).success
    lent = transfer(pgd(twin, x, y, eps=EPS), net, x, y).success
    assert int((queries | lent).sum()) <= int(full.success.sum()) + 1
    early = worst_case(net, x, y, eps=EPS, budget="quick")
    assert full.robust_accuracy <= early.robust_accuracy


def plateau(x: Tensor) -> Tensor:
    """The margin is flat until the mean input is 0.7; only far logits move before."""
    mean = x.mean(1)
    rival, far = 40 * (mean - 0.7).clamp_min(0) - 1, -3 - 4 * mean
    return torch.stack([0 * mean, rival, far, far], 1)


def test_the_ratio_leads_over_a_plateau_of_the_margin() -> None:
    x, y = torch.full((2, 100), 0.5), torch.zeros(2, dtype=torch.int64)
    x += 0.05 * torch.rand(2, 100, generator=rng(0))
    options: dict[str, Any] = {"eps": 0.3, "n_targets": 3, "random_start": True}
    assert not apgd(plateau, x, y, **options).success.any()
    assert apgd(plateau, x, y, loss="dlr", **options).success.all()
    assert "dlr" in [options.get("loss") for _, options in THOROUGH]


def honest_networks() -> dict[str, Callable[[], nn.Module]]:
    pooled: list[Callable[[], nn.Module]] = [
        lambda: nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU,
        lambda: nn.MaxPool2d(2),
        nn.Flatten,
        lambda: nn.Linear(128, 5),
    ]
    return {
        "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)),
        "relu": lambda: MLP((64, 32, 32, 5), bias=True),
        "deep": lambda: MLP((64, *[32] * 8, 5), bias=True),
        "tanh": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5)
        ),
        "norm": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.GELU(),
            nn.Linear(32, 5),
        ),
        "pool": lambda: nn.Sequential(*[layer() for layer in pooled]),
        "batch norm": lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Linear(288, 5),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", honest_networks())
@pytest.mark.parametrize("norm", BUDGET)
def test_an_honest_network_raises_no_doubts(name: str, norm: str) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        net = honest_networks()[name]().eval()
        x = torch.rand(40, 1, 8, 8, generator=rng(seed))
        known: set[str] = set()
        if (name, norm) == ("pool", "l1"):
            assert not doubts(net, x, predictions(net, x), radii(x, norm), norm)
            known = {"gradients tell the truth"}
        x[:, :, :3] = 0  # equal pixels, as of a background
        y = predictions(net, x)
        assert set(doubts(net, x, y, radii(x, norm), norm)) <= known
        coarse = net.bfloat16()
        low = doubts(
            lambda z, m=coarse: m(z.bfloat16()).float(), x, y, radii(x, norm), norm
        )
        assert set(low) <= known
        exact, z = net.double(), x.double()
        assert set(doubts(exact, z, y, radii(z, norm), norm)) <= known


def test_a_network_that_pools_is_trusted_in_l1(fashion: Dataset) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(784, 10),
    ).double()  # fmt: skip
    adam = torch.optim.Adam(net.parameters(), 3e-3)
    for rows in torch.arange(1000).split(100):
        adam.zero_grad()
        x, y = fashion.x_train[rows], fashion.y_train[rows]
        nn.functional.cross_entropy(net(x), y).backward()
        adam.step()
    x, y = fashion.x_test[:60], fashion.y_test[:60]
    # A tenth of the budget, in one pixel, would be more than half of its range.
    assert not doubts(net, x, y, radii(x, "l1"), "l1")


@pytest.mark.parametrize("norm", BUDGET)
def test_the_gradient_of_another_network_is_told(
    norm: str, trained: MLP, fashion: Dataset
) -> None:
    x, y = fashion.x_test[:60], fashion.y_test[:60]
    other = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).double()
    decoy = Layers(lambda z: of_another(trained(z), other(z)))
    assert "gradients hold in all directions" in doubts(
        decoy, x, y, radii(x, norm), norm
    )
    assert not doubts(trained, x, y, radii(x, norm), norm)


def test_shifted_labels_are_told(trained: MLP, fashion: Dataset) -> None:
    x, y = fashion.x_test[:40], fashion.y_test[:40]
    options: dict[str, Any] = {"eps": EPS, "steps": 3, "queries": 5}
    assert diagnose(trained, x, y, **options)["labels fit"].passed
    wrong = diagnose(trained, x, (predictions(trained, x) + 1) % 10, **options)
    assert not wrong["labels fit"].passed
    assert wrong["labels fit"].number == pytest.approx(1 / 0.9)
    shuffled = diagnose(trained, x, y[torch.randperm(40, generator=rng(0))], **options)
    assert not shuffled["labels fit"].passed


def test_an_answer_that_depends_on_the_batch_is_told(
    trained: MLP, fashion: Dataset
) -> None:
    x = fashion.x_test[:40]
    centred = Changed(trained, lambda z: z - z.mean(0))
    y = predictions(centred, x)
    report = diagnose(centred, x, y, eps=EPS, steps=3, queries=5)
    assert not report["same answer in halves"].passed
    assert report["same answer twice"].passed
    with pytest.raises(ValueError, match="depends on the others in its batch"):
        worst_case(centred, x, y, eps=EPS)


def test_batch_norm_in_training_is_told_behind_a_function(fashion: Dataset) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)
    ).double()
    x = fashion.x_test[:40]
    y = predictions(net, x)
    radius = radii(x, "linf")
    assert "same answer in halves" in doubts(lambda z: net(z), x, y, radius, "linf")
    net.eval()
    assert not doubts(lambda z: net(z), x, y, radius, "linf")


def test_every_doubt_is_a_check() -> None:
    assert set(CHECKS) > GRADIENTS | {"same answer twice", "same answer in halves"}


@pytest.mark.parametrize("classes", [10, 21, 22, 200])
def test_a_first_step_looks_at_all_rivals_or_the_ten_strongest(classes: int) -> None:
    g = rng(classes)
    model = Affine(torch.randn(classes, 30, generator=g))
    x = torch.rand(4, 30, generator=g)
    y = predictions(model, x)
    for attack, most in ((deepfool, 3), (fmn, 1)):
        seen = Counting(model)
        options: dict[str, Any] = {"walk": 1} if attack is fmn else {}
        attack(seen, x, y, steps=1, search_steps=0, **options)
        first = classes - 1 if classes <= 21 else 10
        assert first <= len(seen.backwards) <= first + most
    exact, _ = linear_minimal(model.weight, None, x, y, norm="l2")
    found = deepfool(model, x, y, norm="l2")
    far = found.distance / exact
    assert (far > 0.999).all() and (classes > 21 or (far < 1.01).all())


@pytest.mark.parametrize("norm", BUDGET)
@pytest.mark.parametrize("far", [1e-6, 1e-4, 1e-2, 0.1])
def test_minimal_sees_distances_of_any_size(norm: str, far: float) -> None:
    g = rng(1)
    c = torch.randn(20, generator=g, dtype=torch.float64)
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    x = 0.3 + 0.4 * torch.rand(8, 20, generator=g, dtype=torch.float64)
    x = x + ((c @ x[0] - x @ c) / (c @ c))[:, None] * c
    bias = -(c @ x[0]) - far * torch.linalg.vector_norm(c, dual)
    weight = torch.stack([torch.zeros_like(c), c])
    model = Affine(weight, torch.stack([torch.zeros_like(bias), bias]))
    y = torch.zeros(8, dtype=torch.int64)
    exact, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    found = minimal(model, x, y, eps=1.0, norm=norm, attack=pgd, steps=30)
    ratio = found.distance / exact
    assert ratio.min() >= 1 - 1e-6 and ratio.max() <= 1.01
    if norm == "l1" and far == 0.1:
        # A rounding of the logits stays the business of the attack, not of the search.
        loud = Changed(model, lambda z: 1e3 * z)
        again = minimal(loud, x, y, eps=1.0, norm=norm, attack=pgd, steps=30)
        assert (again.distance / exact).max() <= 1.01


def most_that_a_few_do(net: nn.Module, x: Tensor, y: Tensor, k: int) -> Tensor:
    """Say who falls to some k coordinates at some of eleven values, by trying all."""
    levels = torch.linspace(0, 1, 11)
    fooled = predictions(net, x) != y
    for places in itertools.combinations(range(x.shape[1]), k):
        for values in itertools.product(levels, repeat=k):
            z = x.clone()
            z[:, list(places)] = torch.stack(values)
            fooled |= predictions(net, z) != y
    return fooled


@pytest.mark.parametrize("k", [1, 2])
def test_a_count_of_coordinates_is_a_budget(k: int) -> None:
    net = MLP((6, 8, 3), bias=True, seed=3)
    x = torch.rand(24, 6, generator=rng(3))
    y = predictions(net, x)
    tried = most_that_a_few_do(net, x, y, k)
    assert 0 < tried.sum() < 24
    for budget in ("quick", "full"):
        found = worst_case(net, x, y, eps=k, norm="l0", budget=budget)
        # The judge: so many coordinates, and another label.
        assert ((found.x_adv != x).sum(1) <= k).all()
        assert found.success.equal(predictions(net, found.x_adv) != y)
        assert found.distance[found.success].equal(
            (found.x_adv != x).sum(1)[found.success].to(x.dtype)
        )
        missed = int((tried & ~found.success).sum())
        assert missed <= (1 if budget == "quick" else 0)
    each = torch.arange(24) % 3
    own = worst_case(net, x, y, eps=each, norm="l0", budget="quick")
    assert ((own.x_adv != x).sum(1) <= each).all()
    assert not own.success[each == 0].any()


def test_queries_alone_find_what_a_few_coordinates_do() -> None:
    net = MLP((6, 8, 3), bias=True, seed=3)
    x = torch.rand(24, 6, generator=rng(3))
    y = predictions(net, x)
    blind = Changed(net, lambda z: z.round(decimals=2).detach())
    found = sparse_search(blind, x, y, eps=2, queries=400)
    assert not found.n_backward.any()
    tried = most_that_a_few_do(blind, x, y, 2)
    assert int((tried & ~found.success).sum()) <= 2
    with pytest.warns(Doubt, match="gradient was zero"):
        full = worst_case(blind, x[:5], y[:5], eps=2, norm="l0")
    assert "thorough" in full.notes[-1]
    assert full.success.sum() >= found.success[:5].sum()
    # All coordinates, and more than there are.
    every = sparse_search(net, x, y, eps=6, queries=200)
    more = sparse_search(net, x, y, eps=60, queries=200)
    assert every.success.equal(more.success) and every.success.sum() >= tried.sum()


def test_a_budget_that_is_no_count_is_refused() -> None:
    x, y = torch.rand(2, 6, generator=rng(0)), torch.zeros(2, dtype=torch.int64)
    for eps in (0.03, 1.5):
        with pytest.raises(ValueError, match="counts the coordinates that change"):
            worst_case(Never(), x, y, eps=eps, norm="l0")


def spread_out(classes: int) -> tuple[Counting, Tensor, Tensor]:
    """The same ten classes, beside others that never matter."""
    g = rng(0)
    weight = torch.zeros(classes, 30)
    weight[:10] = torch.randn(10, 30, generator=g)
    bias = torch.full((classes,), -1e3)
    bias[:10] = -weight[:10] @ torch.full((30,), 0.5)
    x = torch.rand(40, 30, generator=g)
    model = Affine(weight, bias)
    return Counting(model), x, predictions(model, x)


def passes(classes: int, attack: Callable[..., Any], **options: Any) -> tuple[int, int]:
    model, x, y = spread_out(classes)
    attack(model, x, y, **options)
    return len(model.forwards), len(model.backwards)


def test_a_thousand_classes_cost_pgd_no_pass_more() -> None:
    for norm, eps in {"linf": 0.02, "l2": 0.1, "l1": 0.4}.items():
        few, many = (
            passes(k, pgd, eps=eps, norm=norm, steps=20, restarts=2) for k in (10, 1000)
        )
        assert few == many and few[1] >= 20


@pytest.mark.parametrize("norm", BUDGET)
def test_a_thousand_classes_cost_a_walk_one_backward_pass_more(norm: str) -> None:
    few, many = (passes(k, fmn, norm=norm, walk=5) for k in (10, 1000))
    assert few[1] <= many[1] <= few[1] + 5
    assert many[0] == few[0]
    # Beside no walk at all: the first step to ten rivals, the others to two.
    none = passes(1000, fmn, norm=norm, walk=0)
    assert many[1] - none[1] == 10 + 2 * 4


class Stops(nn.Module):
    """Is stopped by Ctrl-C when it has been asked so many times."""

    def __init__(self, model: nn.Module, calls: int) -> None:
        super().__init__()
        # No number of the network's own, which would make it another after each call.
        self.model, self.left = model, itertools.repeat(True, calls)

    def forward(self, x: Tensor) -> Tensor:
        if not next(self.left, False):
            raise KeyboardInterrupt
        logits: Tensor = self.model(x)
        return logits


@pytest.mark.parametrize("norm", ["linf", "l0"])
def test_a_cascade_goes_on_where_it_was_stopped(norm: str, tmp_path: Path) -> None:
    net, x, y = small_task(1)
    eps = {"linf": 0.05, "l0": 2}[norm]

    def run(calls: int, **more: Any) -> tuple[Any, int]:
        model = Stops(net, calls)
        options = {"eps": eps, "norm": norm, "budget": "quick", "batch_size": 4}
        found = evaluate(worst_case, model, x, y, **options | more)
        return found, calls - operator.length_hint(model.left)

    whole, cost = run(10_000, generator=rng(5))
    kept = tmp_path / "kept.pt"
    with pytest.raises(KeyboardInterrupt):
        run(cost - 2, generator=rng(5), resume=kept)
    rest, again = run(10_000, generator=rng(5), resume=kept)
    # The same result to the last bit, for the cost of the last batch.
    assert again < cost and rest.by == whole.by and rest.notes == whole.notes
    assert rest.x_adv.equal(whole.x_adv) and rest.n_forward.equal(whole.n_forward)
    assert run(0, generator=rng(5), resume=kept)[0].success.equal(whole.success)
    # Another call is another: nothing kept is used.
    others: list[dict[str, Any]] = [{"generator": rng(6)}, {"budget": "full"}]
    for other in others:
        with pytest.raises(KeyboardInterrupt):
            run(0, **{"generator": rng(5)} | other, resume=kept)
    with torch.no_grad():
        net.layers[0].weight[0, 0] += 1e-3
    with pytest.raises(KeyboardInterrupt):
        run(0, generator=rng(5), resume=kept)
    for what in (torch.save, lambda _, path: path.write_text("no")):
        what({"a": 1}, kept)
        with pytest.raises(ValueError, match="name another"):
            run(0, resume=kept)


def test_another_function_attack_or_precision_is_another_call(tmp_path: Path) -> None:
    """Of the same weights and options: what is kept for one says nothing of another."""
    net, x, y = small_task(1)
    kept = tmp_path / "kept.pt"

    def counted(steps: int) -> Any:
        return lambda *task, **options: pgd(*task, steps=steps, **options)

    calls: list[tuple[Any, Any, dict[str, Any]]] = [
        (pgd, nn.Sequential(net, nn.Sigmoid()), {}),
        (pgd, nn.Sequential(net, nn.Hardtanh()), {}),
        (pgd, lambda v: net(v), {}),
        (pgd, lambda v: net(3 * v), {}),
        (counted(1), net, {}),
        (counted(50), net, {}),
        (counted(50), net, {"autocast": torch.bfloat16}),
    ]
    for attack, model, more in calls:
        alone = evaluate(attack, model, x, y, eps=0.05, **more)
        evaluate(attack, model, x, y, eps=0.05, resume=kept, **more)
        found = evaluate(attack, model, x, y, eps=0.05, resume=kept, **more)
        assert found.x_adv.equal(alone.x_adv) and found.success.equal(alone.success)
        assert found.n_forward.equal(alone.n_forward)
