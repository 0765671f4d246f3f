"""Lab 16: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab16


@pytest.mark.parametrize(("d", "q"), [(2, 3), (3, 4), (10, 4)])
def test_harmonics_of_unlike_degree_are_orthogonal(d: int, q: int) -> None:
    x = lab16.sphere(20_000, torch.Generator().manual_seed(0), d)
    u = x[:, 0] / d**0.5
    f = lab16.zonal(u, d, q)
    assert float(lab16.zonal(torch.ones(1), d, q)) == pytest.approx(1)
    size = 1 / lab16.dimension(d, q)
    assert float(f.square().mean()) == pytest.approx(size, rel=0.15)
    for lower in range(q):
        assert abs(float((f * lab16.zonal(u, d, lower)).mean())) < 0.1 * size**0.5


def test_smaller_samples_are_the_first_ones_of_larger() -> None:
    small, large = lab16.task(100, 3), lab16.task(200, 3)
    assert torch.equal(small.x, large.x[:100]) and torch.equal(small.xv, large.xv)
    assert float(large.beta.norm()) == pytest.approx(1)
    assert torch.allclose(large.x.square().sum(1), torch.full((200,), 10.0).double())


def test_whitened_features_are_alike_in_all_directions() -> None:
    g = torch.Generator().manual_seed(0)
    z = lab16.representation(g)(lab16.sphere(8000, g))
    assert z.shape == (8000, lab16.dimension(10, 2) + 1)
    assert (torch.cov(z[:, :-1].T) - torch.eye(54)).abs().max() < 0.25
    plain = lab16.representation(g, whitened=False)(lab16.sphere(8000, g))
    assert float(plain[:, :-1].var(dim=0).sum()) == pytest.approx(1, rel=0.05)


def test_kernel_regression_fits_its_samples_without_a_ridge() -> None:
    given = lab16.task(50, 0)
    f = lab16.solved(lab16.ntk, given.x, given.y, 1e-12)
    assert torch.allclose(f(given.x), given.y, atol=1e-3)


def test_a_function_of_the_axis_leaks_nothing() -> None:
    given = lab16.task(50, 1)
    found = lab16.judge(lambda x: (x @ given.beta) ** 3, given)
    assert abs(found["leak"]) < 1e-12 and found["moved"] < 1e-12
    off = torch.linalg.qr(torch.stack([given.beta, given.x[0]], 1)).Q[:, 1]
    found = lab16.judge(lambda x: x @ off, given)
    assert found["leak"] > 0.7 and found["moved"] > 0.2


def test_every_learner_is_judged(fashion: Dataset) -> None:
    for way in ("on degree two", "kernel, degree four"):
        found = lab16.run({"way": way, "strength": 100, "seed": 0}, fashion)
        assert 0 < found["miss"] < 1.5 and 0 <= found["leak"] <= 1


def test_table() -> None:
    table = studies.published("lab16")
    assert len(table) == 5 * len(lab16.SETTINGS)
    known = studies.runs(table, way="kernel, degree four", strength=800)
    # More samples than harmonics: nothing is left to learn.
    assert (known["miss"] < 1e-3).all()
    assert table["leak"].between(-1e-9, 1).all()
