"""Tests of the exercises of chapter 1, same accuracy, different fragility."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

from crlib import metrics

__all__ = [
    "accuracies",
    "accuracies_hidden",
    "blind",
    "blind_hidden",
    "fooling",
    "fooling_hidden",
    "share",
    "share_hidden",
]

Classifier = Callable[[Tensor], Tensor]


def accuracies(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Four samples and three budgets, by hand."""
    falls_at = torch.tensor([0.0, 0.1, 0.3, torch.inf])
    found = answer(falls_at, torch.tensor([0.0, 0.2, 1.0]))
    assert found.shape == (3,), f"Three budgets, but a result of {tuple(found.shape)}."
    wanted = torch.tensor([0.75, 0.5, 0.25])
    assert torch.allclose(found.float(), wanted), (
        "Samples that fall at 0, 0.1, 0.3 and never leave 3/4, 2/4 and 1/4 standing at"
        f" the budgets 0, 0.2 and 1; you returned {found.tolist()}."
    )


def accuracies_hidden(
    answer: Callable[[Tensor, Tensor], Tensor], seed: int = 0
) -> None:
    """Ties, budgets out of order, and many random samples."""
    tied = answer(torch.tensor([0.5, 0.5, 0.7]), torch.tensor([0.5]))
    assert torch.allclose(tied.float(), torch.tensor([1 / 3])), (
        "A sample that falls at exactly the budget has fallen."
    )
    falls_at = torch.rand(101, generator=torch.Generator().manual_seed(seed))
    eps = torch.tensor([0.9, 0.1, 0.4])
    wanted = torch.stack([(falls_at > e).float().mean() for e in eps])
    found = answer(falls_at, eps).float()
    assert torch.allclose(found, wanted), "Budgets may come in any order."


def share(answer: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """A diagonal matrix, whose right singular vectors are the axes."""
    w = torch.diag(torch.tensor([1.0, 3.0, 2.0]))
    delta = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 4.0]])
    for k, wanted in ((1, [1.0, 0.0]), (2, [1.0, 0.64])):
        found = answer(delta, w, k)
        assert found.shape == (2,), f"Return one share a row, not {tuple(found.shape)}."
        assert torch.allclose(found, torch.tensor(wanted)), (
            f"With W = diag(1, 3, 2) and k = {k} the shares are {wanted}; you returned"
            f" {found.tolist()}."
        )


def share_hidden(
    answer: Callable[[Tensor, Tensor, int], Tensor], seed: int = 0
) -> None:
    """A square matrix without symmetry, and images, against the library."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    delta = torch.randn(20, 1, 3, 3, generator=generator, dtype=torch.float64)
    top = torch.linalg.svd(w).Vh[:4].T
    assert torch.allclose(
        answer(delta, w, 4), metrics.energy_share(delta, top), atol=1e-4
    ), "Wrong for a random matrix: inputs meet its right singular vectors."


def _larger(x: Tensor) -> Tensor:
    """Label two coordinates by the larger one."""
    return x


def _handicap(x: Tensor) -> Tensor:
    """Label as above, but give the second coordinate a tenth."""
    return x + torch.tensor([0.0, 0.1])


def fooling(answer: Callable[[Classifier, Tensor, Tensor, float], float]) -> None:
    """Two coordinates, of which the larger one is the label."""
    x = torch.tensor([[0.6, 0.5], [0.5, 0.55], [0.2, 0.9], [0.3, 0.7]])
    found = float(answer(_larger, x, torch.tensor([1.0, 0.0]), 0.2))
    assert abs(found - 0.25) < 1e-6, (
        "Moving the first coordinate by 0.2, either up for all or down for all, changes"
        f" one label of four; you returned {found:g}."
    )


def fooling_hidden(
    answer: Callable[[Classifier, Tensor, Tensor, float], float], seed: int = 0
) -> None:
    """The sign that fools less, directions of other lengths, and the box."""
    x = torch.tensor([[0.6, 0.5], [0.7, 0.6], [0.1, 0.9]])
    found = float(answer(_larger, x, torch.tensor([5.0, 0.0]), 0.2))
    assert abs(found - 2 / 3) < 1e-6, (
        "Try both signs, and give the direction the length eps first."
    )
    g = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.4 * torch.rand(50, 2, generator=g)
    # Of unlike signs: whoever moves both coordinates alike fools nobody.
    direction = (0.2 + torch.rand(2, generator=g)) * torch.tensor([1.0, -1.0])
    step = 0.2 * direction / direction.norm()
    ways = [(x + s * step).argmax(1) != x.argmax(1) for s in (1, -1)]
    wanted = max(float(changed.float().mean()) for changed in ways)
    found = float(answer(_larger, x, direction, 0.2))
    assert abs(found - wanted) < 1e-6, (
        f"On random inputs the better sign changes {wanted:.2f} of the labels; you"
        f" returned {found:.2f}."
    )
    walled = torch.tensor([[0.3, 1.0], [0.0, 1.0]])
    found = float(answer(_handicap, walled, torch.tensor([1.0, 0.0]), 2.0))
    assert found == 0, "The changed inputs must stay in [0, 1]: no label moves here."


def blind(answer: Callable[[int, int, float], Tensor]) -> None:
    """One matrix: its shape, its scale and its two gains."""
    _test_gains(answer, 4, 12, 6.0)


def blind_hidden(answer: Callable[[int, int, float], Tensor], seed: int = 0) -> None:
    """Wide, tall, both ends of the range, and ratios between them."""
    for h, m, ratio in ((5, 20, 4.0), (5, 20, 20.0), (30, 10, 3.0), (7, 7, 1.0)):
        _test_gains(answer, h, m, ratio)
    rng = random.Random(seed)
    for _ in range(5):
        h, m = rng.randint(2, 30), rng.randint(2, 30)
        _test_gains(answer, h, m, rng.uniform(m / min(h, m), m))


def _test_gains(
    answer: Callable[[int, int, float], Tensor], h: int, m: int, r: float
) -> None:
    w = answer(h, m, r)
    assert w.shape == (h, m), f"The matrix must be {(h, m)}, not {tuple(w.shape)}."
    sigma = metrics.singular_values(w)
    scale = float(sigma.square().sum())
    assert abs(scale - 1) < 1e-4, f"The squared Frobenius norm is {scale:g}, not 1."
    found = m / metrics.stable_rank(sigma)
    assert abs(found / r - 1) < 1e-3, (
        f"For h = {h}, m = {m} the worst gain over the average gain is {found:g}, and"
        f" {r:g} was asked for."
    )
