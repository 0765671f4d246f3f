"""Lab 14: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab14


def test_all_ways_start_alike_and_step_as_they_say(fashion: Dataset) -> None:
    nets = {way: lab14.Flow(way, 3, seed=1) for way in lab14.WAYS}
    z = nets["residual"].encode(fashion.x_test[:5])
    for way, net in nets.items():
        assert torch.equal(net.encode(fashion.x_test[:5]), z)
        assert torch.equal(net.head.weight, nets["ODE"].head.weight)
        assert len(net.path(z)) == (1 if way == "no block" else 4)
    assert len(nets["ODE"].blocks) == 1 and len(nets["small steps"].blocks) == 3
    whole, small = nets["residual"], nets["small steps"]
    first = whole.path(z)[1] - z
    assert torch.allclose(small.path(z)[1] - z, first / 3)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of"):
        lab14.Flow("adaptive", 6, seed=0)


def test_no_stretch_exceeds_the_bound(fashion: Dataset) -> None:
    for way in ("residual", "ODE", "small steps"):
        net = lab14.Flow(way, 3, seed=0)
        z = net.encode(fashion.x_test[:8]).detach()
        assert (lab14.stretch(net, z) <= lab14.bound(net)).all()
    assert lab14.bound(lab14.Flow("no block", 3, seed=0)) == 1


def test_training_is_repeated(fashion: Dataset) -> None:
    few = fashion.subset(128, 20)
    a, b = (lab14.fitted("ODE", 2, few, 0) for _ in range(2))
    assert torch.equal(a.encoder.weight, b.encoder.weight)
    hard = lab14.fitted("residual, adversarial", 2, few, 0)
    easy = lab14.fitted("residual", 2, few, 0)
    assert not torch.equal(hard.encoder.weight, easy.encoder.weight)


def test_table() -> None:
    table = studies.published("lab14")
    assert len(table) == 5 * len(lab14.SETTINGS)
    assert (table["stretch"] <= table["bound"] + 1e-9).all()
    assert (table["full"] <= table["quick"]).all()
    assert (table["robust 0.05"] <= table["fgsm"]).all()
