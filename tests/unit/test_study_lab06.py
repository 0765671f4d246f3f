"""Lab 6: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import lab06


def test_counts() -> None:
    s = torch.tensor([[4.0, 1.0, 0.03], [0.0, 0.0, 0.0]])
    assert lab06.numerical_rank(s).tolist() == [2, 0]
    one = torch.diag(torch.tensor([1.0, 1e-3], dtype=torch.float64))
    assert lab06.safe_counts([one, one.flip(0, 1)], 1e-2) == [1, 0]


def test_the_row_space_holds_all_singular_values(fashion: Dataset) -> None:
    net = MLP((784, 12, 11, 10), mean=0.286, std=0.353, seed=0).double()
    x = fashion.double().x_test[:3]
    weights, inside, _ = lab06.reduced(net, x)
    whole = lab06.jacobians(net.weights, net.normalize(x).flatten(1))
    for a, b in zip(whole, lab06.jacobians(weights, inside), strict=True):
        s = torch.linalg.svdvals(b)
        assert torch.allclose(torch.linalg.svdvals(a)[:, : s.shape[1]], s, atol=1e-12)


def test_few_components_and_dependent_logits() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(300, 6, generator=g, dtype=torch.float64)
    a[:, 0] *= 30
    head = torch.zeros(2, 6, dtype=torch.float64)
    head[1, 0] = 1
    y = (a[:, 0] > 0).long()
    assert lab06.classification_dimension(a, head, y) == 1
    z = torch.cat([a[:, 1:], a.sum(1, keepdim=True) - a[:, :1]], 1)
    assert lab06.deficit(z) == pytest.approx(1)


def test_a_few_logits_are_the_best_of_all_choices() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(400, 3, generator=g, dtype=torch.float64)
    # The last three are sums of two others, or of the same two.
    z = torch.cat([a, a[:, :1] + a[:, 1:2], a[:, 1:2] + a[:, 2:]], 1)
    z += 1e-3 * torch.randn(z.shape, generator=g, dtype=z.dtype)
    one, two, every = (lab06.deficit(z, few) for few in (1, 2, None))
    assert one < 0.7 and min(two, every) > 0.999
    assert lab06.deficit(z, 4) == every
    # The judge is the second half, which need not be as the first.
    turned = z.clone()
    turned[200:, 3:] *= -1
    assert lab06.deficit(turned, 2) < 0.5


def test_table() -> None:
    table = studies.published("lab06")
    for depth in lab06.DEPTHS:
        found = studies.runs(table, strength=depth)
        assert len(found) == 5
        # More logits may tell less of images not seen, but hardly.
        told = found[[f"deficit, {few}" for few in lab06.FEW] + ["deficit"]]
        assert (told.diff(axis=1).iloc[:, 1:] > -0.02).all(axis=None)
        for when in ("start", "trained"):
            assert (found[f"{when} rank {depth}"] < found[f"{when} rank 1"]).all()
