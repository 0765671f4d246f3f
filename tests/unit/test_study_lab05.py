"""Lab 5: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab05


def test_eigenvalues_add_up_to_the_kernel() -> None:
    for way, degree in (("free", 1), ("bias", 1), ("free", 4)):
        mu = lab05.eigenvalues(way, degree)
        # Each frequency but the lowest and the highest belongs to two eigenvectors.
        assert 2 * mu.sum() - mu[0] - mu[-1] == pytest.approx(degree + 1)
        assert (mu > -1e-12).all()
        assert torch.allclose(lab05.circle(way).norm(dim=1), torch.ones(64).double())


def test_odd_frequencies_need_a_bias_or_a_second_factor() -> None:
    free, two = lab05.predicted("free", 1), lab05.predicted("free", 2)
    odd = [n for n, k in enumerate(lab05.FREQUENCIES) if k % 2]
    assert all(free[n] == torch.inf and two[n] < torch.inf for n in odd)


def test_learning_begins_where_the_target_is() -> None:
    left = lab05.errors("free", 2, 0, width=8)
    assert left.shape == (lab05.HORIZON, 5)
    assert torch.allclose(left[0], torch.ones(5).double())


def test_products_start_at_one_scale(fashion: Dataset) -> None:
    x = fashion.double().x_train[:200]
    spreads = [float(lab05.ProductNet(n, 0)(x).detach().std()) for n in lab05.WIDTHS]
    assert max(spreads) < 4 * min(spreads)


def test_table() -> None:
    table = studies.published("lab05")
    for degree in lab05.WIDTHS:
        assert len(studies.runs(table, part="tie", strength=degree)) == 5
    free = studies.runs(table, part="circle", way="free", strength=1)
    assert (free[["half 3", "half 5"]] == lab05.HORIZON).all(axis=None)
