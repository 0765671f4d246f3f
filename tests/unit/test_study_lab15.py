"""Lab 15: the study on a small scale, and what its table must hold."""

from itertools import product

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab15


@pytest.fixture(scope="module")
def groups(fashion: Dataset) -> dict[str, lab15.Group]:
    few = fashion.subset(64, 20)
    return {way: lab15.fitted(way, few, seed=0) for way in lab15.WAYS}


def test_networks_have_the_rank_of_their_way(groups: dict[str, lab15.Group]) -> None:
    count = 2 * lab15.MANY + 1
    for way, group in groups.items():
        assert group.w.shape == (count, 64, 784) and group.a.shape == (count, 10, 64)
        ranks = torch.linalg.matrix_rank(group.w)
        assert (ranks == lab15.RANK).all() == (way != "full")
    together = {way: torch.cat(list(g.w[:2])) for way, g in groups.items()}
    assert torch.linalg.matrix_rank(together["shared rank"]) == lab15.RANK
    assert torch.linalg.matrix_rank(together["rank"]) == 2 * lab15.RANK


def test_points_stay_in_ball_and_box(
    groups: dict[str, lab15.Group], fashion: Dataset
) -> None:
    x, y = lab15.shown(fashion, seed=0)
    group = groups["full"]
    for kind in lab15.KINDS:
        z = lab15.attacked(group, x, y, 0.1, kind)
        assert z.shape == ((lab15.MANY, *x.shape) if kind == "own" else x.shape)
        assert (z - x).abs().max() <= 0.1 + 1e-12 and z.min() >= 0 and z.max() <= 1
    own = group[: lab15.MANY](lab15.attacked(group, x, y, 0.1, "own")).argmax(2) != y
    clean = group[: lab15.MANY](x).argmax(2) != y
    assert own.double().mean() > clean.double().mean()


def test_the_split_is_right_on_average_over_all_draws() -> None:
    g = torch.Generator().manual_seed(0)
    p = torch.randn(3, 4, 5, generator=g, dtype=torch.float64).softmax(2)
    y = torch.eye(5, dtype=torch.float64)[:4]
    drawn = [
        lab15.squared_split(p[list(rows)], y) for rows in product(range(3), repeat=2)
    ]
    bias, spread = (sum(part) / len(drawn) for part in zip(*drawn, strict=True))
    mean = p.mean(0)
    assert bias == pytest.approx(float((mean - y).square().sum(1).mean()))
    assert spread == pytest.approx(float((p - mean).square().sum(2).mean()))


def test_table() -> None:
    table = studies.published("lab15")
    assert len(table) == 5 * len(lab15.SETTINGS)
    full = studies.runs(table, way="full")
    assert (full["srank"] > lab15.RANK).all()
    shares = [c for c in table if c.endswith("share")]
    assert table[shares].min(axis=None) > 0 and table[shares].max(axis=None) < 0.5
