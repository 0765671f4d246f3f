"""The small experiments run on few images, and their table holds what must be true."""

from typing import Any

import numpy as np
import pytest

from crlib import data, studies, train
from crlib.studies import small_experiments
from crlib.studies.engine import Config

TABLE = studies.published("small_experiments")


@pytest.fixture(scope="module")
def few() -> data.Dataset:
    return data.fashion_mnist_sample().subset(2000, 1100)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, few: data.Dataset) -> None:
    monkeypatch.setitem(small_experiments.SETS, "sample", few.double)
    fit = train.fit

    def short(*arguments: Any, **options: Any) -> Any:
        return fit(*arguments, **{**options, "epochs": 2})

    monkeypatch.setattr(small_experiments.train, "fit", short)
    # After two epochs it takes longer noise to halve the accuracy.
    lengths = (*small_experiments.LENGTHS, 120, 240, 1000)
    monkeypatch.setattr(small_experiments, "LENGTHS", lengths)
    for name in ("CUBE_STEPS", "SHORT", "LONG", "LINEAR_UNITS"):
        monkeypatch.setattr(small_experiments, name, 30)


def configs(experiment: str, **wanted: Any) -> list[Config]:
    return [
        config
        for config in small_experiments.STUDY.grids["quick"]
        if config["experiment"] == experiment
        and config["seed"] == 0
        and all(config[name] == value for name, value in wanted.items())
    ]


@pytest.mark.parametrize(
    ("experiment", "wanted"),
    [
        ("penalties", {}),
        ("certificates", {"way": "rank"}),
        ("gap", {"strength": 2}),
        ("history", {"strength": 16}),
        ("history", {"way": "full"}),
        ("memory", {"strength": 16}),
        ("cube", {"strength": 8}),
        ("cosines", {"strength": 8}),
        ("walk", {"way": "plain"}),
        ("walk", {"way": "adversarial"}),
        ("bridge", {"strength": 16}),
        ("bridge", {"strength": 256}),
        ("bottleneck", {}),
    ],
)
def test_an_experiment_measures_what_its_table_holds(
    quick: None, experiment: str, wanted: dict[str, Any]
) -> None:
    chosen = configs(experiment, **wanted)
    for config, numbers in zip(
        chosen, small_experiments.STUDY.run_many(chosen, "cpu"), strict=True
    ):
        held = studies.runs(TABLE, **{k: config[k] for k in config if k != "seed"})
        columns = held.columns[held.notna().all()]
        provenance = "study version crlib fingerprint device torch seconds date".split()
        assert set(numbers) == set(columns) - set(config) - set(provenance)
        assert 0 <= numbers.get("accuracy", 0.5) <= 1


def test_one_run_is_the_run_of_a_job(quick: None) -> None:
    chosen = configs("penalties")
    together = small_experiments.STUDY.run_many(chosen, "cpu")
    assert small_experiments.STUDY.run(chosen[1], "cpu") == together[1]
    assert small_experiments.STUDY.fingerprint(chosen[0])
    first, other = chosen[0], {**chosen[0], "seed": 1}
    group = small_experiments.STUDY.group
    assert group(first) == group(chosen[1]) != group(other)


def test_a_data_start_keeps_the_scale_and_a_quiet_one_the_volume(
    few: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = few.double()
    monkeypatch.setattr(small_experiments, "_fitted", lambda net, *_: net)
    pixels, _ = small_experiments._principal(images)
    ways = ("random start", "data start", "quiet start")
    blind, led, quiet = (
        small_experiments._with_history(way, 16, 0, images).weights[0] for way in ways
    )
    assert float(led.norm()) == pytest.approx(float(blind.norm()), rel=0.02)
    loud = [float((pixels @ w.T).norm()) for w in (blind, led, quiet)]
    assert loud[2] == pytest.approx(loud[0]) and loud[1] > 1.5 * loud[0]


def test_curves_that_rise_and_certificates_above_attacks_are_refused(
    quick: None, few: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = few.double()
    with monkeypatch.context() as patch:
        patch.setattr(small_experiments, "BUDGETS", (0, 1.5, 0.25, 0.5, 0.75, 1))
        with pytest.raises(ValueError, match="Accuracy rises with the size"):
            small_experiments.history("full", 0, 0, images)
    with pytest.raises(ValueError, match="never falls to a half"):
        small_experiments._halves((0, 1), [0.9, 0.8])
    monkeypatch.setattr(
        small_experiments, "_bisected", lambda net, x, *_: 1e-6 + x[:, 0, 0, 0]
    )
    with pytest.raises(ValueError, match="one of them is wrong"):
        small_experiments.certificates("plain", 0, 0, images)


def test_what_the_loss_asks_for_decides_where_a_wide_network_ends(
    monkeypatch: pytest.MonkeyPatch, few: data.Dataset
) -> None:
    monkeypatch.setattr(small_experiments, "LINEAR_UNITS", 100)

    def found(way: str) -> dict[str, Any]:
        return small_experiments.cosines(way, 4, 4, few)

    squared = found("squared error, longer")
    early, margins = found("cross-entropy"), found("cross-entropy, longer")
    assert squared["accuracy"] == margins["accuracy"] == 1
    assert squared["phi"] == margins["phi"] == pytest.approx(squared["cosine 1"], 1e-3)
    assert squared["cosine 2"] > 0.999 > margins["cosine 2"]
    assert margins["cosine best"] > max(squared["cosine best"], early["cosine best"])


def test_the_table_obeys_what_is_proved() -> None:
    def own(experiment: str) -> Any:
        return TABLE[TABLE["experiment"] == experiment]

    gap, bridge, walk, deep = map(own, ("gap", "bridge", "walk", "bottleneck"))
    cube = own("cube")
    right = cube[cube["accuracy"] == 1]
    straight = right[right["way"] == "linear"]
    # No classifier is farther from all corners than the nearest neighbour, and no
    # linear one than half the way between the hulls.
    assert (right["worst distance"] <= right["neighbour"] * (1 + 1e-6)).all()
    assert (straight["worst distance"] <= straight["hull"] * (1 + 1e-6)).all()
    assert (straight["straight"] > 1 - 1e-9).all()
    # Three directions: an angle is at most the sum of the two others.
    wide = own("cosines")
    last, turned, readout = (
        np.arccos(wide[name]) for name in ("cosine 1", "cosine 2", "phi")
    )
    assert (abs(last - readout) <= turned + 1e-3).all()
    assert (gap["gap"] <= 0.5 * gap["aligned"]).all()
    assert (gap["aligned"] <= gap["product"] * (1 + 1e-9)).all()
    assert (gap["product"] <= gap["structure at one"] * (1 + 1e-9)).all()
    assert (bridge["survives"] <= 1).all() and (bridge["bound"] > 0).all()
    # A path is no longer than its slope promises, and no bound is below what it found.
    assert (deep["share of the way"] <= deep["promised"]).all()
    assert (deep["followed"] >= deep["arrived"]).all()
    assert (walk["error of the identity"] < 0.02).all()
    shares = own("certificates").filter(like="/ attack").iloc[:, :4]
    assert shares.max().max() <= 1 + 1e-5
    half = own("history").dropna(subset="attack that halves")
    assert (half["attack that halves"] < half["noise that halves"]).all()
