"""The study of the referees' questions measures what its names say."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib import data, metrics, models, studies
from crlib.data import Dataset
from crlib.studies import measures, referees
from crlib.studies.engine import Config


def setting(experiment: str, way: str) -> Config:
    found = next(
        c
        for c in referees.SETTINGS
        if c["experiment"] == experiment and c["way"] == way
    )
    return {**found, "seed": 0, "data": "sample"}


@pytest.fixture
def small() -> Dataset:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 4
    x = torch.rand(120, 1, 28, 28, generator=g).double() / 2
    x[torch.arange(120), 0, y] += 0.4
    return data.dataset(x[:80], y[:80], x[80:], y[80:])


@pytest.fixture
def net() -> models.MLP:
    return models.MLP((784, 30, 20, 10), rank=6, mean=0.3, std=0.4, seed=1).double()


@pytest.fixture
def shown(net: models.MLP) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    x = torch.rand(12, 1, 28, 28, generator=g).double()
    return x, net(x).argmax(1)


def test_every_way_builds_what_it_names(small: Dataset) -> None:
    for way in referees.WAYS:
        for experiment in ("attacks", "cascade", "normalisation", "scale"):
            config = setting(experiment, way)
            built, options = referees.build(config, small)
            layers = models.weight_layers(built)
            assert [len(v.weight) for v in layers] == [config["width"]] * 3 + [10]
            normed = sum(isinstance(m, nn.BatchNorm1d) for m in built.modules())
            assert normed == (3 if experiment == "normalisation" else 0)
            low = torch.linalg.matrix_rank(layers[0].weight) == referees.RANK
            assert low == (way != "plain")
            assert ("constraint" in options) == (way == "rank, both")
    with pytest.raises(ValueError, match="way is 'width'"):
        referees.build({**config, "way": "width"}, small)


def test_a_shared_rank_grows_with_the_width(small: Dataset) -> None:
    scaled = [c for c in referees.SETTINGS if c["way"] in referees.SHARES]
    assert {c["way"] for c in scaled} == set(referees.SHARES)
    for config in scaled:
        built, options = referees.build(config | {"seed": 0}, small)
        ranks = {layer.right.shape[0] for layer in built.layers[:-1]}
        assert ranks == {config["width"] // 16}
        assert ("constraint" in options) == config["way"].endswith("both")


def test_normalisation_stands_behind_each_hidden_layer_and_nowhere_else(
    net: models.MLP,
) -> None:
    kinds = [type(m).__name__ for m in referees.normalised(net)]
    hidden = ["LowRankLinear", "BatchNorm1d", "ReLU"]
    assert kinds == ["Normalize", "Flatten", *hidden, *hidden, "Linear"]


def test_all_trainings_take_as_many_steps() -> None:
    assert len({c["epochs"] * c["images"] for c in referees.SETTINGS}) == 1


def test_as_many_directions_as_the_row_space_has_give_the_gradient(
    net: models.MLP, shown: tuple[Tensor, Tensor]
) -> None:
    x, y = shown
    found = referees.estimated(net, x, y, measures.row_space(net), 6)
    z = x.clamp(referees.PROBE, 1 - referees.PROBE).requires_grad_()
    slope = torch.autograd.grad(metrics.margin(net(z), y).sum(), z)[0].flatten(1)
    cosine = torch.cosine_similarity(found, slope)
    assert cosine.median() > 1 - 1e-6
    blind = referees.estimated(net, x, y, None, 6)
    assert torch.cosine_similarity(blind, slope).mean() < 0.4
    # An orthogonal projection never exceeds what it projects.
    assert (blind.norm(dim=1) <= slope.norm(dim=1) * (1 + 1e-3)).all()


def test_the_queries_stay_inside_the_box(shown: tuple[Tensor, Tensor]) -> None:
    x, y = (shown[0] > 0.5).double(), shown[1]
    asked: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        asked.append(z)
        return z.flatten(1)[:, :10]

    referees.estimated(model, x, y, None, 3)
    assert len(asked) == 2 and all(len(z) == 36 for z in asked)
    assert all(0 <= float(z.min()) and float(z.max()) <= 1 for z in asked)


def test_principal_directions_are_those_of_the_images(small: Dataset) -> None:
    basis = referees.principal(small, 5)
    assert torch.allclose(basis.T @ basis, torch.eye(5).double(), atol=1e-9)
    flat = small.x_train.flatten(1)
    held = (flat @ basis).var(0)
    assert (held.diff() <= 1e-12).all()
    assert float(held.sum()) > 5 * float(flat.var(0).mean())


def test_a_network_lent_to_itself_is_its_own(
    net: models.MLP, shown: tuple[Tensor, Tensor]
) -> None:
    x, y = shown
    found = referees.lent(net, {"same": net}, x, y)
    for what in ("one step", "ten steps", "cosine"):
        assert found[f"same {what}"] == found[f"own {what}"]
    assert found["own cosine"] == pytest.approx(1)
    other = models.MLP((784, 30, 20, 10), seed=7).double()
    lent = referees.lent(net, {"other": other}, x, y)
    assert lent["other cosine"] < 0.5 and lent["own one step"] >= lent["other one step"]


def test_the_robust_accuracies_are_those_of_the_attacks(
    net: models.MLP, shown: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referees, "QUERIES", (5, 20))
    monkeypatch.setattr(referees, "EPS", {"linf": 0.002, "l2": 0.05})
    x, y = shown
    y = y.clone()
    y[:2] = (y[:2] + 1) % 10
    found = referees.fixed_budget(net, x, y)
    assert found["clean"] == pytest.approx(10 / 12)
    left = {k: v for k, v in found.items() if "top ten" not in k and k != "clean"}
    assert all(0 <= v <= found["clean"] for v in left.values()) and len(left) == 10
    assert found["cascade"] <= found["FGSM"] and found["Square 20"] <= 10 / 12


def test_row_errors_differ_where_normalisation_acts(net: models.MLP) -> None:
    found = referees.row_errors(net)
    assert found["raw row error"] == pytest.approx(found["folded row error"])
    normed: Any = referees.normalised(net).double().eval()
    normed[3].running_var *= torch.linspace(0.01, 4, 30).double() ** 2
    found = referees.row_errors(normed)
    assert found["folded row error"] < found["raw row error"] - 0.01


def test_a_run_tells_all_that_the_table_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referees, "MATCH", 0.3)
    images = data.fashion_mnist_sample().double()
    table = studies.published("referees")
    for experiment in ("normalisation", "scale", "cascade"):
        config = setting(experiment, "rank") | {"epochs": 1, "images": 400}
        found = referees.run(config, images)
        own = table[table["experiment"] == experiment].dropna(axis=1, how="all")
        assert set(found) <= set(own), experiment
        assert found == referees.run(config, images)


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("referees")
    rows = table[table["experiment"] == "attacks"]
    left = ["FGSM", "PGD, cross-entropy", "PGD, margin", "APGD", "cascade", "FMN"]
    left += [f"Square {n}" for n in referees.QUERIES] + ["Square l2", "PGD l2"]
    for name in left:
        assert (rows[name] <= rows["clean"]).all(), name
    assert (rows["PGD, margin"] <= rows["FGSM"]).all()
    assert (rows["cascade"] <= rows["FGSM"]).all()
    low = rows[rows["way"] != "plain"]
    assert (low["row space 16 cosine"] > 0.99).all()
    assert (rows["own cosine"] > 1 - 1e-9).all()
    again = table[table["experiment"] == "cascade"].set_index(["way", "seed"])
    rows = rows.set_index(["way", "seed"]).loc[again.index]
    for same in ("train", "accuracy", "matched epoch", "linf", "l2", "matched l2"):
        assert (rows[same] / again[same] - 1).abs().max() < 1e-6, same
    assert (again["cascade l2"] <= rows["PGD l2"]).all()
    assert again["validation epoch"].between(1, referees.EPOCHS).all()
    assert sorted(table["width"].unique()) == [64, 256, 512]
    folded = table[table["experiment"] == "normalisation"]
    assert folded[["raw row error", "folded row error"]].stack().between(0, 1).all()
