"""Lab 12: the study on a small scale, and what its table must hold."""

import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab12


def test_the_stable_network_is_right_and_blind_to_the_shortcut() -> None:
    x, y = lab12.points()
    net = lab12.stable()
    scores = net(x)
    assert torch.allclose(scores, 2 * y.double() - 1)
    assert torch.equal(net(x + torch.tensor([0.0, 0.3]).double()), scores)
    assert y.sum() == lab12.ONES and len(y) == 2 * lab12.ONES + 1


def test_training_follows_its_way(fashion: Dataset) -> None:
    blind = lab12.fitted("without", 4, 0, steps=20)
    assert (blind.w[:, 1] == 0).all()
    short, hard = (
        lab12.fitted(way, 16, 0, steps=200) for way in ("shortcut", "adversarial")
    )
    assert not torch.equal(short.w, hard.w)
    assert torch.equal(lab12.fitted("shortcut", 16, 0, steps=200).w, short.w)


def test_the_shortcut_is_accurate_and_fragile(fashion: Dataset) -> None:
    found = lab12.run({"way": "shortcut", "strength": 4, "seed": 0}, fashion.double())
    assert found["clean accuracy"] == 1 and found["survive"] == 0


def test_table() -> None:
    table = studies.published("lab12")
    assert len(table) == 5 * len(lab12.SETTINGS)
    accurate = table[table["clean accuracy"] == 1]
    # The theorem: at most half of the pieces survive.
    assert (accurate["survive"] <= (accurate["strength"] + 1) // 2).all()
    assert (table["robust"] <= table["clean accuracy"]).all()
