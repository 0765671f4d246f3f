"""Lab 18: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import lab18
from crlib.studies.measures import halved


def test_a_share_of_the_labels_is_drawn_anew(fashion: Dataset) -> None:
    few = halved(fashion)
    clean, half, all_new = (lab18.noisy(few, share, 0) for share in (0, 50, 100))
    assert torch.equal(clean.x_train, half.x_train)
    changed = [(d.y_train != clean.y_train).double().mean() for d in (half, all_new)]
    assert 0.3 < float(changed[0]) < 0.6 and float(changed[1]) > 0.8
    assert torch.equal(half.y_test, few.y_test)


def test_a_network_whose_layers_have_rank_one_needs_one(fashion: Dataset) -> None:
    few = halved(fashion.double())
    net = MLP((196, 128, 128, 10), seed=0).double()
    with torch.no_grad():
        for layer in net.layers[:-1]:
            layer.weight.copy_(lab18.truncated(layer.weight, 1))
    labels = net(few.x_train).argmax(1)
    told = Dataset(few.x_train, labels, few.x_test, few.y_test, "n", "s", "f")
    assert lab18.needed(net, told) == 1
    assert torch.equal(lab18.answers(net, net.weights, few.x_train), labels)


def test_a_cut_keeps_about_as_many_numbers() -> None:
    for k in lab18.CUTS:
        numbers, rank = lab18.numbers_kept(k)
        assert abs(rank * (128 + 28) / numbers - 1) < 0.07


def test_a_grid_is_found_by_the_tensor_and_not_after_a_shuffle() -> None:
    g = torch.Generator().manual_seed(0)
    a, b, c = (
        torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (128, 14, 14)
    )
    w = torch.einsum("ar,br,cr->abc", a, b, c).flatten(1)
    rest = {
        way: float((lab18.cut(way, w, 2, 0) - w).norm() / w.norm())
        for way in ("svd", "cp", "shuffled")
    }
    assert rest["cp"] < 0.05 < rest["svd"] and rest["cp"] < rest["shuffled"]


def test_measures_what_its_table_holds(
    fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lab18.fitted
    monkeypatch.setattr(
        lab18, "fitted", lambda *a, epochs, **k: whole(*a, epochs=2, **k)
    )
    few = fashion.double()
    found = lab18.run({"part": "noise", "strength": 50, "seed": 0}, few)
    assert 1 <= found["needed"] <= 128 and found["srank"] <= found["erank"]
    found = lab18.run({"part": "cut", "strength": 8, "seed": 0}, few)
    assert found["full rest"] == 0
    for way in ("full", "svd", "cp", "shuffled"):
        assert 0 <= found[f"{way} robust"] <= 1
    # Of all matrices of a rank the truncated one is nearest.
    assert found["svd rest"] < 1


def test_table() -> None:
    table = studies.published("lab18")
    assert len(table) == 5 * len(lab18.SETTINGS)
    cuts = table[table["part"] == "cut"]
    assert (cuts["full rest"] == 0).all()
    for way in ("svd", "cp", "shuffled"):
        means = cuts.groupby("strength")[f"{way} rest"].mean()
        assert means.is_monotonic_decreasing
