"""The study of chapter one, on a small scale."""

from typing import Any

import pandas
import pytest
import torch

from crlib import attacks, compress, metrics, studies, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import first
from crlib.studies.engine import Config, Numbers


def configs(seed: int) -> list[Config]:
    small = {"epochs": 3, "attacked": 60}
    return [
        config | small
        for config in first.STUDY.grids["quick"]
        if config["seed"] == seed
        and config["checkpoint"] in ("validation", "truncated")
    ]


Rows = dict[tuple[str, str], Numbers]


@pytest.fixture(scope="module")
def rows(fashion: Dataset) -> Rows:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(first.SETS, "sample", lambda: fashion)
        found = first.STUDY.run_many(configs(1), "cpu")  # type: ignore[misc]
    names = [(c["network"], c["checkpoint"]) for c in configs(1)]
    return dict(zip(names, found, strict=True))


@pytest.fixture(scope="module")
def pair(fashion: Dataset) -> dict[str, train.Fit]:
    return {n: first.trained(n, 1, fashion, epochs=3) for n in first.NETWORKS}


def test_a_pair_is_one_job(rows: Rows) -> None:
    groups = {str(first.STUDY.group(config)) for config in configs(1)}
    assert len(groups) == 1 and str(first.STUDY.group(configs(2)[0])) not in groups
    assert list(rows) == [
        ("full", "validation"),
        ("full", "truncated"),
        ("rank 16", "validation"),
    ]
    cut, whole = rows["full", "truncated"], rows["full", "validation"]
    assert cut["epoch"] == whole["epoch"] <= 3
    assert cut["train accuracy"] == whole["train accuracy"]


def test_one_configuration_alone_gives_the_same_numbers(
    rows: Rows, fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(first.SETS, "sample", lambda: fashion)
    alone = configs(1)[-1]
    row = rows[alone["network"], alone["checkpoint"]]
    assert studies.apart(pandas.Series(dict(row)), first.STUDY.run(alone, "cpu")) == 0


def _stable_rank(weight: torch.Tensor) -> float:
    return metrics.stable_rank(metrics.singular_values(weight))


def test_the_numbers_are_what_their_names_say(
    rows: Rows, pair: dict[str, train.Fit], fashion: Dataset
) -> None:
    x, y = fashion.x_test[:60], fashion.y_test[:60]
    net: Any = pair["full"].model
    twin: Any = pair["rank 16"].model
    row = rows["full", "validation"]
    assert row["accuracy"] == metrics.accuracy(net, fashion.x_test, fashion.y_test)
    found = attacks.pgd(net, x, y, eps=0.04)
    assert row["robust linf"] == pytest.approx(found.robust_accuracy)
    right = [m(x).argmax(1) == y for m in (net, twin)]
    share = found.success[right[0] & right[1]].double().mean()
    assert row["fooled of both"] == pytest.approx(float(share))
    delta = attacks.pgd(net, x, y, eps=1, norm="l2")
    moved = (delta.x_adv - x)[right[0] & delta.success].flatten(1)
    w = net.weights[0].detach()
    top = torch.linalg.svd(w, full_matrices=False).Vh[:10].T
    share = metrics.energy_share(moved, top).mean()
    assert row["attack in top 10"] == pytest.approx(float(share))
    ratio = (moved @ w.T).norm(dim=1) / moved.norm(dim=1)
    gain = ratio.square().mean() * 784 / w.norm().square()
    assert row["gain of attack"] == pytest.approx(float(gain))
    assert row["worst gain"] == pytest.approx(784 / _stable_rank(w))


def test_every_row_keeps_the_order_of_attack_and_noise(rows: Rows) -> None:
    for row in rows.values():
        for norm, budgets in first.BUDGETS.items():
            assert row[f"robust {norm}"] <= row[f"noise {norm}"]
            assert row[f"noise {norm}"] <= row["accuracy of attacked"] + 1e-9
            curve = [row[f"curve {norm} {eps:g}"] for eps in budgets]
            assert curve == sorted(curve, reverse=True)
        assert row["hard robust linf"] <= row["robust linf"]
        assert row["gain of attack"] <= row["worst gain"]


def test_a_network_cut_to_rank_sixteen_has_sixteen_directions(
    rows: Rows, pair: dict[str, train.Fit]
) -> None:
    for key, row in rows.items():
        few = key[0] == "rank 16" or key[1] == "truncated"
        assert ("attack in top 32" not in row) == few
        assert few or row["attack in top 256"] > row["attack in top 32"]
    net: Any = pair["full"].model
    cut: MLP = compress.truncate(net, rank=first.RANK)
    assert rows["full", "truncated"]["worst gain"] == pytest.approx(
        784 / _stable_rank(cut.weights[0].detach())
    )


def test_the_hundreds_of_the_table_add_up() -> None:
    table = studies.published("first")
    hundreds = table[[f"robust linf, hundred {i}" for i in range(1, 7)]]
    assert hundreds.mean(axis=1).to_numpy() == pytest.approx(table["robust linf"])
