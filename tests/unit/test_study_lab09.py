"""Lab 9: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import metrics, studies
from crlib.data import Dataset
from crlib.models import MLP, ConvNet, weight_layers
from crlib.studies import lab09


def test_parts_add_up_to_the_gain(fashion: Dataset) -> None:
    few = fashion.double()
    x, y = few.x_test[:10], few.y_test[:10]
    convolution = ConvNet((3, 4), image=(1, 28, 28), mean=0.286, std=0.353, seed=0)
    for net in (
        MLP((784, 8, 10), mean=0.286, std=0.353).double(),
        convolution.double(),
    ):
        part, kept = lab09.parts(net, x, y)
        z = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(z), y, reduction="sum")
        (g,) = torch.autograd.grad(loss, z)
        assert float(part.sum()) == pytest.approx(float(g.abs().sum()))
        assert len(part) == len(weight_layers(net)[0].weight)
        assert isinstance(net, ConvNet) or 0 < kept < 1
        moves = lab09._moves(net, x, y)
        assert moves.shape == part.shape and (moves >= 0).all()


def test_drops_are_what_absence_costs(fashion: Dataset) -> None:
    few = fashion.double()
    net = MLP((784, 5, 10), mean=0.286, std=0.353, seed=1).double()
    x, y = few.x_test, few.y_test
    found = lab09.drops(net, x, y)
    less = lab09.without(net, 2)
    assert not less.weights[0][2].any() and net.weights[0][2].any()
    lost = metrics.accuracy(net, x, y) - metrics.accuracy(less, x, y)
    assert float(found["clean drop"][2]) == pytest.approx(lost)
    moved = lab09.fgsm(net, x, y)
    assert float((moved - x).abs().max()) <= lab09.EPS + 1e-12
    lost = metrics.accuracy(net, moved, y) - metrics.accuracy(less, moved, y)
    assert float(found["attacked drop"][2]) == pytest.approx(lost)


def test_rows_are_rescaled_by_rank_alone() -> None:
    net = MLP((6, 3, 2), seed=0).double()
    score = torch.tensor([5.0, -1.0, 5.5])
    one, two = (lab09.rescaled(net, s, 0.2) for s in (score, score.exp()))
    assert torch.allclose(one.weights[0], two.weights[0])
    assert one.weights[0].norm() == pytest.approx(float(net.weights[0].norm()))
    ratio = (one.weights[0] / net.weights[0]).mean(1)
    assert torch.allclose(ratio / ratio[0], torch.tensor([1.0, 0.8, 1.2]).double())


def test_table() -> None:
    table = studies.published("lab09")
    dense = table[table["way"] == "dense"]
    assert len(table) == 5 * len(lab09.WAYS) and len(dense) == 5
    assert ((dense["kept"] > 0) & (dense["kept"] < 1)).all()
    # The attack made for the whole network is no stronger than one made anew.
    for name, a in lab09.CELLS:
        cell = f"{name} {a:g}"
        assert (dense[f"{cell}: fgsm"] <= dense[f"{cell}: fixed"] + 0.005).all()
