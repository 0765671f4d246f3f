"""Generated sets follow their laws; a fingerprint changes with anything in the data."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crlib import data
from crlib.data import Dataset
from tests.unit.support import SEEDS, rng

MEANS = torch.tensor([[0.3, 0.3, 0.5], [0.7, 0.3, 0.5], [0.5, 0.7, 0.5]])
MAKERS = {
    "linear_teacher": lambda seed: data.linear_teacher(200, 50, 6, seed=seed),
    "gaussian_classes": lambda seed: data.gaussian_classes(200, 50, MEANS, seed=seed),
    "sign_cube": lambda seed: data.sign_cube(5, n_test=50, seed=seed),
}


@pytest.mark.parametrize("name", MAKERS)
def test_inputs_lie_in_the_box_with_the_types_that_attacks_ask_for(name: str) -> None:
    d = MAKERS[name](0)
    for x, y in ((d.x_train, d.y_train), (d.x_test, d.y_test)):
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert len(x) == len(y) and 0 <= x.min() and x.max() <= 1
        assert 0 <= y.min() and y.max() < d.classes
    assert d.source == "generated" and len(d.y_test) == 50


@pytest.mark.parametrize("name", MAKERS)
def test_the_seed_decides_and_global_randomness_is_not_touched(name: str) -> None:
    before = torch.get_rng_state()
    a, b, c = (MAKERS[name](seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(before)
    assert a.x_train.equal(b.x_train) and a.fingerprint == b.fingerprint
    assert not a.x_train.equal(c.x_train) and a.fingerprint != c.fingerprint


@given(SEEDS, st.integers(1, 12), st.sampled_from([0.0, 0.02, 0.1]))
@settings(max_examples=30)
def test_a_teacher_labels_by_its_side_and_keeps_the_gap(
    seed: int, dim: int, gap: float
) -> None:
    w = torch.randn(dim, generator=rng(seed))
    d = data.linear_teacher(100, 20, dim, teacher=5 * w, gap=gap, seed=seed)
    score = (d.x_train - 0.5) @ (w / w.norm())
    assert d.y_train.equal((score > 0).long())
    assert (score.abs() >= gap - 1e-6).all()


def test_points_of_a_teacher_are_gaussian_around_the_middle() -> None:
    d = data.linear_teacher(20_000, 1, 3, scale=0.05)
    torch.testing.assert_close(
        d.x_train.mean(0), torch.full((3,), 0.5), atol=2e-3, rtol=0
    )
    torch.testing.assert_close(
        d.x_train.T.cov(), 0.05**2 * torch.eye(3), atol=1e-4, rtol=0
    )
    assert float(d.y_train.double().mean()) == pytest.approx(0.5, abs=0.02)


def test_only_points_in_the_gap_are_moved_and_along_the_normal() -> None:
    w = torch.tensor([0.6, 0.8])
    free = data.linear_teacher(500, 1, 2, teacher=w).x_train
    pushed = data.linear_teacher(500, 1, 2, teacher=w, gap=0.05).x_train
    moved = pushed - free
    near = ((free - 0.5) @ w).abs() < 0.05
    assert near.any() and (moved[~near].abs() < 1e-6).all()
    across = moved - (moved @ w)[:, None] * w
    assert (across.abs() < 1e-6).all()


@pytest.mark.parametrize(
    "options",
    [
        {"n_train": 0},
        {"n_test": 0},
        {"dim": 0},
        {"scale": 0.0},
        {"gap": -0.1},
        {"teacher": torch.zeros(3)},
        {"teacher": torch.ones(4)},
    ],
)
def test_a_teacher_that_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="positive|teacher must be"):
        data.linear_teacher(**{"n_train": 5, "n_test": 5, "dim": 3} | options)


def test_clouds_have_their_means_their_noise_and_equal_size() -> None:
    d = data.gaussian_classes(9001, 30, MEANS, noise=0.04)
    counts = d.y_train.bincount()
    assert d.classes == 3 and counts.max() - counts.min() <= 1
    for k in range(3):
        cloud = d.x_train[d.y_train == k]
        torch.testing.assert_close(cloud.mean(0), MEANS[k], atol=4e-3, rtol=0)
        torch.testing.assert_close(
            cloud.T.cov(), 0.04**2 * torch.eye(3), atol=2e-4, rtol=0
        )
    assert not d.y_train.equal(torch.arange(9001) % 3)


@pytest.mark.parametrize(
    "means", [torch.rand(1, 2), torch.rand(4), torch.full((2, 2), 1.5)]
)
def test_means_outside_the_box_or_too_few_are_refused(means: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="means must be"):
        data.gaussian_classes(5, 5, means)


@pytest.mark.parametrize("dim", [2, 6])
def test_a_sign_cube_is_all_corners_labelled_by_their_last_sign(dim: int) -> None:
    d = data.sign_cube(dim, n_test=30)
    assert d.x_train.shape == (2**dim, dim)
    centred = d.x_train - 0.5
    # Every corner has its opposite, with the other label, and the cloud is the image
    # of a cube: its second moment has all sign products zero on average.
    assert float(centred.abs().max()) == pytest.approx(0.5)
    torch.testing.assert_close(centred.flip(0), -centred, atol=1e-6, rtol=0)
    assert d.y_train.flip(0).equal(1 - d.y_train)
    half = centred[d.y_train == 1]
    edges = (half[1:] - half[:1]).double()
    assert torch.linalg.matrix_rank(edges, rtol=1e-5) == dim - 1
    known = {
        tuple(x) + (y,)
        for x, y in zip(d.x_train.tolist(), d.y_train.tolist(), strict=True)
    }
    assert all(
        tuple(x) + (y,) in known
        for x, y in zip(d.x_test.tolist(), d.y_test.tolist(), strict=True)
    )


@pytest.mark.parametrize("dim", [1, 17])
def test_a_sign_cube_out_of_range_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match="from 2 to 16"):
        data.sign_cube(dim)


def test_a_subset_is_a_random_part_that_keeps_image_and_label_together() -> None:
    d = data.gaussian_classes(60, 30, MEANS, noise=0.01)
    part = d.subset(20, 10, seed=4)
    assert len(part.x_train) == 20 and len(part.x_test) == 10
    nearest = torch.cdist(part.x_train, MEANS).argmin(1)
    assert nearest.equal(part.y_train)
    rows = {tuple(x) for x in d.x_train.tolist()}
    assert all(tuple(x) in rows for x in part.x_train.tolist())
    assert len({tuple(x) for x in part.x_train.tolist()}) == 20
    assert part.fingerprint == d.subset(20, 10, seed=4).fingerprint
    assert part.fingerprint != d.subset(20, 10, seed=5).fingerprint
    assert part.fingerprint != d.fingerprint
    assert "part of generated" in part.source
    assert d.subset(60, 30).y_train.bincount().equal(d.y_train.bincount())


@pytest.mark.parametrize(("n_train", "n_test"), [(61, 5), (5, 31)])
def test_a_subset_larger_than_the_set_is_refused(n_train: int, n_test: int) -> None:
    with pytest.raises(ValueError, match="choose from 1 to"):
        data.gaussian_classes(60, 30, MEANS).subset(n_train, n_test)


def test_some_classes_keep_their_images_and_are_counted_anew() -> None:
    d = data.gaussian_classes(60, 30, MEANS, noise=0.01).double()
    part = d.of_classes([2, 0])
    for x, y, all_x, all_y in (
        (part.x_train, part.y_train, d.x_train, d.y_train),
        (part.x_test, part.y_test, d.x_test, d.y_test),
    ):
        assert x.equal(all_x[all_y != 1]) and x.dtype == torch.float64
        old = all_y[all_y != 1]
        assert y.equal((old == 0).long()) and set(y.tolist()) == {0, 1}
    assert part.classes == 2 and part.source == "classes 2, 0 of generated"
    assert d.of_classes([0, 1, 2]).y_train.equal(d.y_train)
    prints = [d.of_classes(c).fingerprint for c in ([0, 1], [1, 0], [0, 2], [0, 1])]
    assert len(set(prints)) == 3 and prints[0] == prints[3]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([1, 1], "two or more, each once"),
        ([1], "two or more, each once"),
        ([], "two or more, each once"),
        *((no, "two or more, each once, in a list") for no in (1, {0, 1}, "01")),
        ([0, 7], r"No training sample has the label 7: choose from \[0, 1, 2\]"),
    ],
)
def test_classes_that_are_not_there_are_refused(classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.gaussian_classes(60, 30, MEANS).of_classes(classes)


@pytest.mark.parametrize("part", ["x_train", "y_train", "x_test", "y_test"])
def test_the_fingerprint_changes_with_one_pixel_or_label(part: str) -> None:
    d = data.gaussian_classes(20, 10, MEANS)
    parts = {k: getattr(d, k) for k in ("x_train", "y_train", "x_test", "y_test")}

    def fingerprint() -> str:
        # A subset of everything is a permutation, so both go through the same one.
        return replace(d, **parts).subset(20, 10).fingerprint

    before = fingerprint()
    parts[part] = parts[part].clone()
    parts[part].view(-1)[0] = 1 - parts[part].view(-1)[0]
    assert fingerprint() != before
    assert len(before) == 12 and int(before, 16) >= 0


def test_to_keeps_everything_else() -> None:
    d = data.gaussian_classes(20, 10, MEANS)
    moved: Dataset = d.to("cpu")
    assert moved.fingerprint == d.fingerprint and moved.x_test.equal(d.x_test)
    assert d.to("meta").y_train.device.type == "meta"
    assert math.prod(d.to("meta").x_train.shape) == 60


@pytest.mark.parametrize(("n", "noise"), [(0, 0.1), (4, -1.0), (4, math.nan)])
def test_classes_refuse_what_is_no_size_and_no_noise(n: int, noise: float) -> None:
    means = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    with pytest.raises(ValueError, match="n_train|noise"):
        data.gaussian_classes(n, 4, means, noise=noise)
