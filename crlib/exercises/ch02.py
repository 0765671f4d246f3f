"""Tests of the exercises of chapter 2, linear classifiers."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from crlib import attacks, theory
from crlib.exercises import gaussian

__all__ = [
    "distance",
    "distance_hidden",
    "knapsack",
    "knapsack_hidden",
    "nearest_rival",
    "nearest_rival_hidden",
    "normal",
    "normal_hidden",
    "robust_loss",
    "robust_loss_hidden",
]


def distance(answer: Callable[..., Tensor]) -> None:
    """Distances of two points that can be found by hand."""
    w, b = torch.tensor([3.0, -4.0]), 1.0
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, -1])
    for norm, size in (("linf", 7.0), ("l2", 5.0), ("l1", 4.0)):
        r = answer(w, b, x, y, norm)
        assert r.shape == (2,), f"Return one distance a point, not {tuple(r.shape)}."
        wanted = torch.tensor([4 / size, 3 / size])
        assert torch.allclose(r, wanted), (
            f"In {norm} the margins 4 and 3 are divided by {size:g}, the dual norm of"
            f" (3, -4); you returned {r.tolist()}."
        )


def distance_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Random points, some labelled wrongly, against the library."""
    w, x = gaussian(9, seed=seed), gaussian(50, 9, seed=seed + 1)
    y = gaussian(50, seed=seed + 2).sign()
    two = torch.stack([torch.zeros_like(w), w])
    offset = torch.tensor([0.0, 0.3], dtype=torch.float64)
    for norm in ("linf", "l2", "l1"):
        truth, _ = theory.linear_minimal(
            two, offset, x, (y > 0).long(), norm=norm, box=False
        )
        r = answer(w, 0.3, x, y, norm)
        assert (r >= 0).all(), "A point that is labelled wrongly has distance zero."
        assert torch.allclose(r, truth), f"Wrong in {norm} on random points."


def knapsack(answer: Callable[..., float]) -> None:
    """A knapsack that can be packed by hand."""
    c, room = torch.tensor([1.0, -3.0, 2.0]), torch.tensor([1.0, 0.5, 1.0])
    for m, wanted in ((0.6, 0.2), (1.5, 0.5), (2.5, 1.0), (4.0, 2.0)):
        r = float(answer(c, m, room))
        assert math.isclose(r, wanted, abs_tol=1e-6), (
            f"For c = (1, -3, 2), rooms (1, 0.5, 1) and margin {m} the distance is"
            f" {wanted}; you returned {r:.4g}."
        )
    assert math.isinf(answer(c, 5.0, room)), (
        "A margin of 5 is out of reach here: return math.inf."
    )


def knapsack_hidden(answer: Callable[..., float], seed: int = 0) -> None:
    """Random inputs against the library."""
    for i in range(20):
        c, x = gaussian(7, seed=seed + i), gaussian(7, seed=seed + 100 + i).sigmoid()
        room = torch.where(c > 0, 1 - x, x)
        m = (0.1 + 0.045 * i) * float(c.abs() @ room)
        two = torch.stack([torch.zeros_like(c), c])
        offset = torch.tensor([m + float(c @ x), 0.0], dtype=torch.float64)
        truth, _ = theory.linear_minimal(
            two, offset, x[None], torch.tensor([0]), norm="l1"
        )
        r = float(answer(c, m, room))
        assert math.isclose(r, float(truth), rel_tol=1e-6), (
            f"On a random input the distance is {float(truth):.6g}, not {r:.6g}."
        )


def nearest_rival(answer: Callable[..., Tensor]) -> None:
    """Three classes on a line, where the second guess is not the nearest."""
    weight, bias = torch.tensor([[0.0], [1.0], [-8.0]]), torch.tensor([0.0, -1.0, -4.0])
    rivals = answer(weight, bias, torch.zeros(1, 1), torch.tensor([0]))
    assert rivals.shape == (1,), "Return one class an input."
    assert int(rivals[0]) != 0, "The true class is no rival."
    assert int(rivals[0]) == 2, (
        "Class 1 has the second largest logit, at distance 1. Class 2 has a smaller"
        " logit and is only 1/2 away."
    )


def nearest_rival_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Random classifiers: a step to the boundary meets the named rival."""
    for i in range(seed, seed + 5):
        weight, bias = gaussian(6, 10, seed=i), gaussian(6, seed=50 + i)
        x = gaussian(40, 10, seed=100 + i)
        y = (x @ weight.T + bias).argmax(1)
        _, step = theory.linear_minimal(weight, bias, x, y, norm="l2", box=False)
        # Barely beyond: farther on a third class may come between.
        beyond = (x + (1 + 1e-8) * step) @ weight.T + bias
        assert (answer(weight, bias, x, y) == beyond.argmax(1)).all(), (
            "A step to the nearest boundary leads into another class for some inputs."
        )


def normal(answer: Callable[..., Tensor]) -> None:
    """Both norms, in the middle and at the two ends of the range."""
    for d, kappa in ((4, 1.5), (9, 1.0), (9, 3.0)):
        v = answer(d, kappa)
        assert v.shape == (d,), f"Return a vector of length {d}, not {tuple(v.shape)}."
        two, one = float(v.norm()), float(v.abs().sum())
        assert math.isclose(two, 1, abs_tol=1e-5), (
            f"For d = {d}, kappa = {kappa:g} the Euclidean norm is {two:.4g}, not 1."
        )
        assert math.isclose(one, kappa, abs_tol=1e-5), (
            f"For d = {d}, kappa = {kappa:g} the l1 norm is {one:.4g}."
        )


def normal_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """The whole range, in many dimensions."""
    rng = random.Random(seed)
    for d in (2, 3, 50, 784, rng.randint(4, 400)):
        for share in (0.0, 0.1, 0.99, 1.0, rng.random(), rng.random()):
            kappa = 1 + share * (math.sqrt(d) - 1)
            v = answer(d, kappa).double()
            assert math.isclose(float(v.norm()), 1, abs_tol=1e-5), f"d = {d}: norm"
            assert math.isclose(float(v.abs().sum()), kappa, abs_tol=1e-4), f"d = {d}"


def robust_loss(answer: Callable[..., Tensor]) -> None:
    """One point by hand, and gradients."""
    w = torch.tensor([3.0, -4.0], requires_grad=True)
    b = torch.zeros((), requires_grad=True)
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([1.0])
    loss = answer(w, b, x, y, 0.1)
    wanted = math.log1p(math.exp(-(3 - 0.1 * 7)))
    value = float(loss.detach())
    assert math.isclose(value, wanted, rel_tol=1e-5), (
        "The margin is 3. A budget of 0.1 in linf takes 0.1 times the l1 norm, 7, off"
        f" it: the loss is {wanted:.4f}, not {value:.4f}."
    )
    assert loss.requires_grad, "The loss must carry gradients to w and b."


class _TwoLogits(torch.nn.Module):
    """Logits ``(0, w @ x + b)``, which the library can attack."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, x: Tensor) -> Tensor:
        score = x @ self.w + self.b
        return torch.stack([torch.zeros_like(score), score], 1)


def robust_loss_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Many points against the loss at the end of an attack."""
    w = gaussian(12, seed=seed + 3).float()
    x = 0.5 + 0.05 * gaussian(30, 12, seed=seed + 4).float()
    y = gaussian(30, seed=seed + 5).sign().float()
    for eps in (0.0, 0.01, 0.2):
        net = _TwoLogits(w, 0.1)
        labels = (y > 0).long()
        # No wall is met inside, and an attack leaves whoever is wrong already alone:
        # so its step is taken by hand for all.
        x_worst = x - eps * y[:, None] * w.sign()
        truth = torch.nn.functional.cross_entropy(net(x_worst), labels)
        loss = answer(w, torch.tensor(0.1), x, y, eps).detach()
        assert torch.isclose(loss, truth, rtol=1e-4), (
            f"At eps = {eps} the worst mean loss is {float(truth):.4f}, not"
            f" {float(loss):.4f}."
        )
        found = attacks.fgsm(net, x, labels, eps=eps).x_adv
        reached = torch.nn.functional.cross_entropy(net(found), labels)
        assert loss >= reached - 1e-4, "An attack reaches a larger loss than yours."
