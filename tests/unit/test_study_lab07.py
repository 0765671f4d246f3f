"""Lab 7: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import metrics, studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import lab07


def test_pushes_go_where_they_are_sent(fashion: Dataset) -> None:
    few = fashion.double()
    net = lab07.judge(few)
    x, y = few.x_test[:40], few.y_test[:40]
    aim = lab07.aims(y, 0)
    assert ((aim != y) & (aim >= 0) & (aim < 10)).all()
    assert not torch.equal(aim, lab07.aims(y, 1))
    for labels, towards, sign in ((aim, True, 1), (y, False, -1)):
        v = lab07.push(net, x, labels, towards=towards)
        assert torch.allclose(v.norm(dim=1), torch.ones(40).double())
        before, after = (
            metrics.margin(net(z), labels)
            for z in (x, (x + 2 * v.view_as(x)).clamp(0, 1))
        )
        assert (sign * (after - before) > 0).all()
    # It fools, and an empty push does not.
    assert lab07.fools(net, x, y, v) > 0.9
    assert lab07.fools(net, x, y, torch.zeros_like(v)) == 0


def test_a_judge_reads_a_class_in_its_difference(fashion: Dataset) -> None:
    few = fashion.double()
    means, y = lab07.class_means(few), torch.arange(10)
    assert torch.allclose(means[3], few.x_train[few.y_train == 3].mean(0).flatten())
    reader = lab07.judge(few)
    middle = few.x_train.flatten(1).mean(0)
    read = lab07.reads(reader, few, means - middle, strength=6.0)
    assert (read == y).double().mean() >= 0.8


def test_cosine_of_pairs() -> None:
    e = torch.eye(3, dtype=torch.float64)
    assert lab07.pair_cosine(e[:, None]) == pytest.approx(0)
    assert lab07.pair_cosine(e[:1, None].repeat(4, 1, 1)) == pytest.approx(1)


def test_networks_have_their_starts_and_parts(
    fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab07, "MODELS", 2)
    few = fashion.double().subset(300, 20)
    full, low = (
        lab07.networks(way, strength, few, 0)
        for way, strength in (("full", 0.4), ("rank", 3.0))
    )
    assert len(full) == 2 and isinstance(full[0], MLP)
    assert not torch.equal(full[0].weights[0], full[1].weights[0])
    assert torch.linalg.matrix_rank(low[0].weights[0]) == 3
    spread = float(full[0].weights[0].std()) / (0.4 * (2 / 784) ** 0.5)
    assert 0.8 < spread < 1.5  # It has trained a little.


def test_table() -> None:
    table = studies.published("lab07")
    assert len(table) == 15
    # What an average shows rises with the number averaged, in every run.
    for what in ("class cosine", "reads target", "reads true"):
        assert (table[f"{what} 6"] > table[f"{what} 1"]).all()
