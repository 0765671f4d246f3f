"""The study of mechanisms runs on few images, and its table holds what must be true."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from crlib import data, models, studies, train
from crlib.studies import mechanisms
from crlib.studies.engine import Config

TABLE = studies.published("mechanisms")
GRID = mechanisms.STUDY.grids["quick"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    few = data.fashion_mnist_sample().subset(400, 330).double()
    monkeypatch.setattr(mechanisms, "_part", lambda name, count, tested: few)
    mechanisms._halved.cache_clear()
    fit = train.fit

    def short(*arguments: Any, **options: Any) -> Any:
        stops = options.get("keep", ())
        return fit(*arguments, **options | {"epochs": max(stops, default=2)})

    monkeypatch.setattr(mechanisms.train, "fit", short)
    monkeypatch.setattr(mechanisms, "STOPS", (1, 2))
    yield
    mechanisms._halved.cache_clear()


def config(experiment: str, way: str) -> Config:
    return next(c for c in GRID if (c["experiment"], c["way"]) == (experiment, way))


@pytest.mark.parametrize("way", ["plain", "rows, scale-invariant", "group lasso"])
def test_who_holds_the_norm_is_measured(quick: None, way: str) -> None:
    found = mechanisms.STUDY.run(config("rows", way), "cpu")
    assert set(found) <= set(TABLE) and 0 <= found["idle"] <= 1
    assert ("fooled whole" in found) == (way != "group lasso")
    assert found == mechanisms.STUDY.run(config("rows", way), "cpu")


@pytest.mark.parametrize("way", mechanisms.SCALES)
def test_projected_weights_see_all_they_hold(quick: None, way: str) -> None:
    net, images, options = mechanisms.build(config("unseen", way) | {"strength": 0.03})
    before = float(net.weights[0].norm())
    net = train.fit(net, images, **options).model
    span = mechanisms.seen(images)
    off = float((net.weights[0] - net.weights[0] @ span @ span.T).norm())
    assert (off < 1e-9) == way.endswith("projected")
    held = float(net.weights[0].norm()) == pytest.approx(before, rel=1e-9)
    assert held == way.startswith("fixed")
    assert images.x_train.shape[1:] == (1, 14, 14)
    assert images.x_train.dtype == torch.float64
    found = mechanisms.STUDY.run(config("unseen", way), "cpu")
    assert set(found) == {"accuracy", "l2", "unseen"} and found["l2"] > 0


def test_one_training_is_measured_along_the_way(quick: None) -> None:
    found = mechanisms.STUDY.run(config("fit", "plain"), "cpu")
    assert found["robust 1"] <= found["right 1"] and found["l2 1"] > 0
    for norm in ("l2", "linf"):
        assert found[f"mean {norm}"] <= 1 and found[f"median {norm}"] <= 1
        assert found[f"cascade {norm}"] <= found[f"follow {norm}"] + 0.1
    assert 0.98 < found["stretch 1"] < 3.03 and 0.98 < found["stretch 3"] < 2.02


def test_one_hidden_layer_is_cut_and_attacked(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanisms, "MATCH", 0.1)
    asked = config("one", "nuclear, fixed scale") | {"strength": 0.01}
    net, images, options = mechanisms.build(asked)
    assert [tuple(w.shape) for w in net.weights] == [(256, 784), (10, 256)]
    before = float(net.weights[0].norm())
    fitted = train.fit(net, images, **options).model
    assert float(fitted.weights[0].norm()) == pytest.approx(before, rel=1e-6)
    found = mechanisms.STUDY.run(asked, "cpu")
    assert found["matched l2"] > 0 and 0 < found["attack in top ten"] < 1
    plain = mechanisms.STUDY.run(config("one", "plain"), "cpu")
    assert set(found) <= set(TABLE) and plain["l2"] != found["l2"]
    # A layer of rank eight is its own cut, and moves features by what it stretches.
    layers: Any = fitted.layers
    u, s, vh = torch.linalg.svd(layers[0].weight.data, full_matrices=False)
    layers[0].weight.data = (u[:, :8] * s[:8]) @ vh[:8]
    own = mechanisms.cut_and_attacked(fitted, images)
    assert own["accuracy when cut"] == own["accuracy"]
    assert own["spectral error"] < 1e-9
    assert own["attack in top ten"] > found["attack in top ten"]
    assert 0 < own["features moved"] <= float(s[0]) / 0.353 * (1 + 1e-9)


def test_neurons_are_set_to_zero_in_a_copy() -> None:
    net = models.MLP((6, 5, 4, 3), seed=0)
    cut = mechanisms.without(net, 1, torch.tensor([2]))
    assert not cut.weights[1][2].any() and net.weights[1][2].all()


@pytest.mark.parametrize("wrong", [{"experiment": "magic"}, {"way": "magic"}])
@pytest.mark.parametrize("experiment", ["rows", "unseen", "one"])
def test_what_it_does_not_know_it_refuses(
    experiment: str, wrong: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="choose one of"):
        mechanisms.build({**GRID[0], "experiment": experiment, **wrong})


def test_the_table_holds_what_must_be_true() -> None:
    rows = TABLE[TABLE["experiment"] == "rows"]
    assert (rows["certificate"] > 0).all() and rows["idle"].between(0, 1).all()
    unseen = TABLE[TABLE["experiment"] == "unseen"]
    clear = unseen["way"].str.endswith("projected")
    assert (unseen[clear]["unseen"].abs() < 1e-9).all()
    assert (unseen[~clear]["unseen"] > 0.01).all()
    one = TABLE[TABLE["experiment"] == "one"]
    assert (one["accuracy when cut"] <= one["accuracy"] + 0.01).all()
    fit = TABLE[TABLE["experiment"] == "fit"]
    for norm in ("l2", "linf"):
        assert (fit[[f"mean {norm}", f"median {norm}"]] <= 1).all(axis=None)
