"""The study of students and their teachers does what its columns say."""

import inspect
from typing import Any

import pandas
import pytest
import torch

from crlib import data, metrics, theory, train
from crlib.studies import apart, teachers
from crlib.studies.engine import Config


def setting(experiment: str, task: str, way: str, strength: float) -> Config:
    points = {"directions": 60, "ranks": 80}.get(experiment, 32)
    return {
        "experiment": experiment,
        "task": task,
        "way": way,
        "strength": strength,
        "points": points,
        "seed": 0,
        "data": "generated",
    }


def settings() -> list[Config]:
    """One configuration a setting of the table."""
    return [
        config
        for config in teachers.STUDY.grids["quick"]
        if config["seed"] == 0 and config["checkpoint"] == "last"
    ]


def test_every_setting_builds_a_network_for_its_data_in_float64() -> None:
    known = set(inspect.signature(train.fit).parameters)
    for config in settings():
        net, points, options, part = teachers.build(config)
        assert points.x_train.dtype == torch.float64 and part in ("train", "test")
        assert len(points.x_train) == config["points"]
        assert set(options) <= known and options["weight_decay"] == 0
        assert net(points.x_train[:2].float()).shape[1] >= points.classes


@pytest.mark.parametrize("chi", [1.0, 0.4])
def test_a_network_sees_the_stated_part_of_its_teacher(chi: float) -> None:
    _, points, _, _ = teachers.build(setting("directions", "gap", "kept", chi))
    moved = points.x_train - 0.5
    sides = (2 * points.y_train - 1).double()[:, None]
    # The gap times chi along what is kept of the teacher, and noise.
    mean = (sides * moved).mean(0)
    assert float(mean.norm()) == pytest.approx(0.3 * chi, abs=0.05)
    assert points.x_train.shape == (60, teachers.KEPT)


@pytest.mark.parametrize("rank", [2, 6])
def test_a_teacher_has_its_rank(rank: int) -> None:
    task = f"rank {rank}"
    net, points, _, _ = teachers.build(setting("ranks", task, "ReLU", 3))
    assert torch.linalg.matrix_rank(net.weights[0]) == 3  # type: ignore[operator, index]
    full = teachers.build(setting("ranks", task, "ReLU", 6)).net
    assert torch.linalg.matrix_rank(full.weights[0]) == 60  # type: ignore[operator, index]
    assert points.classes == 6


def test_the_distance_of_a_linear_student_is_exact() -> None:
    net, points, _, _ = teachers.build(setting("ranks", "rank 2", "linear", 2))
    net = net.double()
    x, y = points.x_test, points.y_test
    r = teachers.distances(net, x, y)
    with torch.no_grad():
        # The logits are affine: their slopes are what they say at unit vectors.
        zero = net(torch.zeros(1, 60, dtype=torch.float64))
        w = (net(torch.eye(60, dtype=torch.float64)) - zero).T
    known, _ = theory.linear_minimal(w, zero[0], x, y, norm="l2")
    assert torch.allclose(r, known, atol=1e-9)
    assert ((r > 0) == (net(x).argmax(1) == y)).all()


def test_a_coin_knows_nothing_of_the_teacher() -> None:
    coin = teachers.build(setting("rows", "coin", "plain", 0)).data
    teacher = teachers.build(setting("rows", "teacher", "plain", 0)).data
    assert torch.equal(coin.x_train, teacher.x_train)
    assert torch.equal(coin.y_test, teacher.y_test)
    assert int(coin.y_train.sum()) == 16
    assert not torch.equal(coin.y_train, teacher.y_train)


def test_a_training_is_judged_early_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    built = teachers.build
    monkeypatch.setattr(
        teachers,
        "build",
        lambda config: built(config)._replace(
            options=built(config).options | {"epochs": teachers.EARLY}
        ),
    )
    config = setting("ranks", "rank 2", "ReLU", 2)
    together = [config | {"checkpoint": rule} for rule in teachers.CHECKPOINTS["ranks"]]
    early, last = teachers.STUDY.run_many(together, "cpu")
    assert early["epoch"] == teachers.EARLY == last["epoch"]
    # It is the last epoch of this training.
    assert early == last
    assert 0 <= last["robust l2"] <= last["accuracy"] <= 1
    assert last["certificate"] <= last["l2"] <= last["l2 right"]


def test_a_dial_and_a_penalty_leave_their_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    for experiment, way, strength in (
        ("dials", "spectrum", 1.0),
        ("dials", "rows", 1.0),
        ("rows", "rows", 0.1),
        ("rows", "plain", 0),
    ):
        config = setting(experiment, "teacher", way, strength)
        net, points, options, part = teachers.build(config)
        fitted = train.fit(net, points, progress=False, **options | {"epochs": 40})
        found[f"{experiment} {way}"] = (
            fitted.model,
            teachers.judge(fitted.model, points),
        )
    for way in ("spectrum", "rows"):
        net, numbers = found[f"dials {way}"]
        weight = net.weights[0]
        assert float(weight.norm()) == pytest.approx(8.0)
        sizes = metrics.row_norms(weight)
        if way == "spectrum":
            sizes = metrics.singular_values(weight)
        sizes = sizes.sort(descending=True).values
        assert float(sizes[0] / sizes[9]) == pytest.approx(10)
        assert numbers["certificate"] <= numbers["l2"]
    errors = [found[f"rows {way}"][1]["row error"] for way in ("rows", "plain")]
    assert errors[0] < errors[1]


def test_a_run_done_again_is_itself() -> None:
    config = setting("widths", "coin", "width", 8) | {"checkpoint": "last"}
    first, again = (teachers.STUDY.run(config, "cpu") for _ in range(2))
    assert apart(pandas.Series(first), again) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"experiment": "magic"}, "choose one of directions, ranks"),
        ({"task": "magic"}, "choose 'teacher' or 'coin'"),
        ({"way": "magic"}, "choose one of plain, width, rows"),
        ({"experiment": "dials", "way": "magic"}, "choose one of spectrum, rows"),
    ],
)
def test_an_unknown_word_is_refused(change: Config, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        teachers.build(setting("rows", "coin", "plain", 0) | change)


def test_the_fingerprint_is_that_of_generated_data() -> None:
    points = data.linear_teacher(256, 1000, 128, seed=0)
    assert teachers.STUDY.fingerprint is not None
    assert teachers.STUDY.fingerprint({"data": "generated"}) == points.fingerprint
