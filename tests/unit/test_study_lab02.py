"""Lab 2: the study on a small scale, and what its table must hold."""

import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab02


def test_measures_what_its_table_holds(fashion: Dataset) -> None:
    net = lab02.SpikingNet(2, fashion.x_train[:200], 0)
    t = net.times(fashion.x_train[:200])
    # The decoder starts at the scale of the times.
    logits = net(fashion.x_train[:200])
    assert torch.allclose(logits.mean(0), torch.zeros(10).double(), atol=1e-9)
    assert t.shape == (200, 32)
    y = net(fashion.x_test).argmax(1)
    sure = lab02.radius(net, fashion.x_test, y, "linf")
    assert (sure > 0).all()
    g = torch.Generator().manual_seed(0)
    signs = torch.rand(fashion.x_test.shape, generator=g, dtype=torch.float64).round()
    moved = fashion.x_test + (2 * signs - 1) * 0.999 * sure.view(-1, 1, 1, 1)
    assert torch.equal(net(moved).argmax(1), y)
    wrong = lab02.radius(net, fashion.x_test, (y + 1) % 10, "l2")
    assert (wrong == 0).all()


def test_table() -> None:
    table = studies.published("lab02")
    for way in ("spiking", "ReLU"):
        for depth in lab02.DEPTHS:
            found = studies.runs(table, way=way, strength=depth)
            assert len(found) == 5
            # No attack goes below a certificate.
            assert (found[["most linf", "most l2"]] <= 1).all(axis=None)
