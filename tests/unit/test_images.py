"""Images of 8 bits, patches, and damage that nobody aimed."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib.attacks import (
    AttackResult,
    Doubt,
    as_images,
    deepfool,
    fmn,
    patch,
    pgd,
    sigma_zero,
    worst_case,
)
from crlib.data import Dataset, corruptions
from crlib.models import MLP
from tests.unit.support import Affine, Counting, Never, predictions, rng, with_walls

ORDER = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}
EPS = {"linf": 7.7 / 255, "l2": 1.0, "l1": 10.0, "l0": 20}
ATTACKS: dict[str, tuple[Any, str]] = {
    **{f"pgd {n}": (partial(pgd, eps=EPS[n], norm=n), n) for n in ("linf", "l2", "l1")},
    "quick": (partial(worst_case, eps=EPS["l2"], norm="l2", budget="quick"), "l2"),
    **{f"fmn {n}": (partial(fmn, norm=n), n) for n in ("linf", "l2", "l1")},
    "deepfool": (partial(deepfool, norm="linf"), "linf"),
    "sigma zero": (sigma_zero, "l0"),
}


def files(fashion: Dataset) -> tuple[Tensor, Tensor]:
    """Return images as they are read from files."""
    return (255 * fashion.x_test[:60]).round() / 255, fashion.y_test[:60]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_rounded_point_is_a_file_in_the_ball_that_fools(
    name: str, trained: MLP, fashion: Dataset
) -> None:
    x, y = files(fashion)
    attack, norm = ATTACKS[name]
    before = attack(trained, x, y)
    kept = before.x_adv.clone()
    found = as_images(before, trained, x, y, eps=EPS[norm])
    assert before.x_adv.equal(kept)
    assert ((255 * found.x_adv).round() / 255).equal(found.x_adv)
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    moved = torch.linalg.vector_norm((found.x_adv - x).flatten(1), ORDER[norm], dim=1)
    assert (moved <= EPS[norm] * (1 + 1e-6)).all()
    assert found.success.equal(predictions(trained, found.x_adv) != y)
    torch.testing.assert_close(found.distance[found.success], moved[found.success])
    assert found.distance[~found.success].isinf().all()
    undone = int((before.success & ~found.success).sum())
    assert any(f"undid {undone} of" in note for note in found.notes) == (undone > 0)
    assert (found.n_forward >= before.n_forward).all()
    if before.by:
        assert [bool(b) for b in found.by] == found.success.tolist()


def test_rounding_to_the_nearest_level_loses_what_is_kept_here(
    trained: MLP, fashion: Dataset
) -> None:
    x, y = files(fashion)
    near = fmn(trained, x, y)
    plain = (255 * near.x_adv).round() / 255
    found = as_images(near, trained, x, y, eps=5.0)
    naive = int((predictions(trained, plain) != y).sum())
    assert naive < int(found.success.sum()) == int(near.success.sum())
    # And where the attack has room the nearest level is in the ball.
    strong = pgd(trained, x, y, eps=8 / 255)
    files_of = as_images(strong, trained, x, y, eps=8 / 255)
    assert files_of.robust_accuracy <= strong.robust_accuracy + 1 / 60 + 1e-9


def test_a_ball_without_another_file_leaves_all_as_it_is(
    trained: MLP, fashion: Dataset
) -> None:
    x, y = files(fashion)
    for norm, eps in {"linf": 0.9 / 255, "l2": 0.9 / 255, "l1": 0.9 / 255}.items():
        found = as_images(fmn(trained, x, y, norm=norm), trained, x, y, eps=eps)
        assert found.x_adv.equal(x)
        assert found.success.equal(predictions(trained, x) != y)


def test_files_that_sought_a_target_are_judged_by_it(
    trained: MLP, fashion: Dataset
) -> None:
    x, y = files(fashion)
    target = (y + 1) % 10
    before = pgd(trained, x, y, eps=0.1, target=target)
    found = as_images(before, trained, x, y, eps=0.1, target=target)
    assert 0 < found.success.sum() < len(x)
    assert found.success.equal(predictions(trained, found.x_adv) == target)
    # The other question has another answer.
    other = as_images(before, trained, x, y, eps=0.1).success.sum()
    assert found.success.sum() < other


def test_what_is_no_file_is_refused(trained: MLP, fashion: Dataset) -> None:
    x, y = files(fashion)
    found = pgd(trained, x, y, eps=0.05, steps=1)
    with pytest.raises(ValueError, match="no image of 8 bits"):
        as_images(found, trained, x * 0.999, y, eps=0.05)
    with pytest.raises(ValueError, match="result is a Tensor"):
        as_images(found.x_adv, trained, x, y, eps=0.05)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="The result is of"):
        as_images(found, trained, x[:2], y[:2], eps=0.05)
    none = as_images(pgd(trained, x[:0], y[:0], eps=0.1), trained, x[:0], y[:0], eps=1)
    assert none.success.shape == (0,)


# Patches.


def best_square(model: Affine, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Return the largest objective that a square reaches, by trying every place."""
    c = (model.weight[1 - y] - model.weight[y]).detach().view_as(x)
    start = (c * x).flatten(1).sum(1) + (model.bias[1 - y] - model.bias[y]).detach()
    gain = torch.where(c > 0, c * (1 - x), -c * x)
    squares = gain.unfold(2, size, 1).unfold(3, size, 1).sum((1, 4, 5))
    return start + squares.flatten(1).amax(1)


def extent(found: AttackResult, x: Tensor) -> Tensor:
    """Return the larger side of the smallest rectangle that holds what changed."""
    changed = (found.x_adv != x).any(1)
    sides = []
    for axis in (1, 2):
        line = changed.any(3 - axis).to(torch.int64)
        first, last = line.argmax(1), line.shape[1] - line.flip(1).argmax(1)
        sides.append(torch.where(line.any(1), last - first, 0))
    return torch.maximum(*sides)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_patch_is_exact_on_an_affine_model(size: int) -> None:
    g = rng(size)
    weight = torch.randn(2, 2 * 7 * 5, generator=g, dtype=torch.float64)
    x = with_walls(torch.rand(40, 2, 7, 5, generator=g, dtype=torch.float64), g)
    model = Affine(weight, -weight @ x.flatten(1).mean(0))
    y = predictions(model, x)
    # Away from the boundary, so that some squares reach it and others do not.
    model.bias.data[0] += best_square(model, x, y, size).median() + 0.01
    y = predictions(model, x)
    best = best_square(model, x, y, size)
    found = patch(model, x, y, size=size, steps=1)
    assert found.success.equal(best > 0) and 0 < found.success.sum() < len(x)
    assert (extent(found, x) <= size).all()
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    assert (found.distance[found.success] <= 2 * size**2).all()


def test_a_patch_on_a_network_finds_what_random_ones_find() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(216, 4)
    )
    x = torch.rand(30, 1, 6, 6, generator=rng(1))
    y, g = predictions(net, x), rng(2)
    found = patch(net, x, y, size=2, steps=15, places=6)
    assert found.success.equal(predictions(net, found.x_adv) != y)
    assert (extent(found, x) <= 2).all()
    # Every place, each with sixty paintings of ends and of numbers between.
    fooled = torch.zeros(30, dtype=torch.bool)
    for row in range(5):
        for column in range(5):
            for k in range(60):
                z, paint = x.clone(), torch.rand(30, 1, 2, 2, generator=g)
                paint = paint.round() if k % 2 else paint
                z[:, :, row : row + 2, column : column + 2] = paint
                fooled |= predictions(net, z) != y
    assert 0 < fooled.sum() < 30
    assert int((fooled & ~found.success).sum()) <= 1
    assert found.success.sum() >= fooled.sum()


def test_a_patch_costs_what_it_says_and_refuses_what_it_cannot_paint() -> None:
    model = Affine(torch.zeros(3, 16), torch.tensor([1.0, 0.0, 0.0]))
    x, y = torch.rand(4, 1, 4, 4, generator=rng(0)), torch.zeros(4, dtype=torch.int64)
    seen = Counting(model)
    with pytest.warns(Doubt, match="gradient was zero"):
        found = patch(seen, x, y, size=2, steps=5, places=3)
    assert not found.success.any() and found.zero_gradient.all()
    # Two samples are asked for alone at first.
    assert sum(seen.forwards) == 4 * (3 * 5 + 2) + 1
    assert (found.n_forward == 3 * 5 + 2).all() and (found.n_backward == 13).all()
    for bad, size in ((x.flatten(1), 2), (x, 5)):
        with pytest.raises(ValueError, match="that the square fits into"):
            patch(Never(), bad, y, size=size)
    for option in ({"size": 0}, {"size": 1, "steps": 0}, {"size": 1, "places": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            patch(Never(), x, y, **option)
    assert patch(model, x[:0], y[:0], size=2).success.shape == (0,)


# Damage.


def test_damage_has_a_scale_and_stays_in_the_box(fashion: Dataset) -> None:
    x = fashion.x_test[:20]
    before = x.clone()
    sizes = []
    for severity in range(1, 6):
        damaged = corruptions(x, severity=severity)
        assert all(v.shape == x.shape and v.dtype == x.dtype for v in damaged.values())
        assert all(((v >= 0) & (v <= 1)).all() for v in damaged.values())
        sizes.append([float((v - x).norm()) for v in damaged.values()])
    for kind in zip(*sizes, strict=True):
        assert list(kind) == sorted(kind) and kind[0] > 0
    assert x.equal(before)
    again = corruptions(x, severity=5)
    assert all(v.equal(again[name]) for name, v in damaged.items())
    other = corruptions(x, severity=5, generator=rng(1))
    assert not other["noise"].equal(again["noise"])


def test_each_damage_is_what_its_name_says() -> None:
    grey = torch.full((2, 3, 9, 11), 0.4)
    flat = corruptions(grey, severity=4)
    torch.testing.assert_close(flat["blur"], grey)
    torch.testing.assert_close(flat["contrast"], grey)
    assert (flat["jpeg"] - grey).abs().max() <= 24 / 255 / 2 / 8 + 1e-6
    assert (flat["noise"] - grey).std() == pytest.approx(0.09, rel=0.1)
    x = torch.rand(1, 1, 16, 16, generator=rng(0), dtype=torch.float64)
    mild = corruptions(0.3 + 0.4 * x, severity=1)
    ratio = mild["contrast"].std() / (0.4 * x).std()
    assert float(ratio) == pytest.approx(0.75)
    assert mild["blur"].std() < (0.4 * x).std()
    # The cosines of a block are a rotation: rounding each by at most half of its step
    # moves the block by no more.
    n = torch.arange(8)
    unit = 8 * (1 + (n + n[:, None]) / 2) / 255
    moved = (mild["jpeg"] - (0.3 + 0.4 * x)).norm()
    assert moved <= 2 * (unit / 2).norm()


def test_no_images_no_damage() -> None:
    with pytest.raises(ValueError, match="give images"):
        corruptions(torch.rand(3, 4))
    with pytest.raises(ValueError, match="from 1 to 5"):
        corruptions(torch.rand(3, 1, 4, 4), severity=6)
    with pytest.raises(ValueError, match="inputs lie in"):
        corruptions(2 + torch.rand(3, 1, 4, 4))
