"""Tests of the exercises of chapter 3, attacks."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from crlib import attacks, metrics
from crlib.exercises import gaussian

__all__ = [
    "bisect",
    "bisect_hidden",
    "margin_loss",
    "margin_loss_hidden",
    "project_l1",
    "project_l1_hidden",
    "weak_spots",
    "weak_spots_hidden",
]

Reports = dict[str, float]


def margin_loss(answer: Callable[..., Tensor]) -> None:
    """Three samples by hand, one of them labelled wrongly."""
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-1.0, -1.5, -4.0]])
    loss = answer(logits, torch.tensor([0, 1, 0]))
    assert loss.shape == (3,), f"Return one loss a sample, not {tuple(loss.shape)}."
    assert torch.allclose(loss, torch.tensor([-1.0, 2.0, -0.5])), (
        "For logits (3, 1, 2) with label 0 the best rival has 2, so the loss is -1;"
        " with label 1 it is 3 - 1 = 2; for (-1, -1.5, -4) with label 0 it is -0.5."
        f" You returned {loss.tolist()}."
    )


def margin_loss_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Random logits of several scales, and gradients."""
    for scale in (1e-3, 1.0, 1e3):
        logits = (scale * gaussian(40, 7, seed=seed)).requires_grad_()
        y = torch.arange(40) % 7
        kept = logits.detach().clone()
        loss = answer(logits, y)
        assert torch.allclose(loss, -metrics.margin(logits, y)), "Wrong on random ones."
        assert loss.requires_grad, "The loss must carry gradients to the logits."
        assert torch.equal(logits.detach(), kept), "Do not write into the logits."


def project_l1(answer: Callable[..., Tensor]) -> None:
    """Points that can be projected by hand."""
    v = torch.tensor([[3.0, -1.0, 0.0], [0.2, 0.1, -0.1], [1.0, 1.0, 1.0]])
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.1, -0.1], [1 / 3, 1 / 3, 1 / 3]])
    u = answer(v, 1.0)
    assert u.shape == v.shape, f"Return shape {tuple(v.shape)}, not {tuple(u.shape)}."
    for row in range(3):
        assert torch.allclose(u[row], wanted[row], atol=1e-5), (
            f"The nearest point to {v[row].tolist()} in the ball of radius 1 is"
            f" {[round(t, 3) for t in wanted[row].tolist()]}; you returned"
            f" {[round(t, 3) for t in u[row].tolist()]}."
        )


def project_l1_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Random points against the library, far from the walls of the box."""
    for d, eps in ((1, 0.5), (6, 0.3), (50, 0.5)):
        v = 0.1 * gaussian(30, d, seed=seed + d)
        middle = torch.full_like(v, 0.5)
        truth = attacks.project(middle + v, middle, eps=eps, norm="l1") - middle
        u = answer(v, eps)
        assert (u.abs().sum(1) <= eps * (1 + 1e-6)).all(), "A result leaves the ball."
        assert torch.allclose(u, truth, atol=1e-5), f"Wrong in {d} dimensions."


def bisect(answer: Callable[..., Tensor]) -> None:
    """Three samples that fall at known budgets, one of them never."""
    falls = torch.tensor([0.1, 0.7, 2.0])
    found = answer(lambda eps: eps >= falls, torch.ones(3), 20)
    assert found.shape == (3,), f"Return one budget a sample, not {tuple(found.shape)}."
    assert math.isinf(found[2]), "A sample that resists the largest budget is at inf."
    assert torch.allclose(found[:2], falls[:2], atol=1e-4), (
        f"The samples fall at 0.1 and 0.7; you returned {found[:2].tolist()}."
    )


def bisect_hidden(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """The budget returned must be one at which the attack succeeded."""
    falls = gaussian(50, seed=seed + 1).abs().float()
    tried: list[tuple[Tensor, Tensor]] = []

    def attack(eps: Tensor) -> Tensor:
        assert eps.shape == (50,), "Give the attack one budget a sample."
        tried.append((eps.clone(), eps >= falls))
        return eps >= falls

    high = torch.full((50,), 1.5)
    found = answer(attack, high.clone(), 6)
    assert len(tried) <= 7, f"Six halvings cost seven attacks, not {len(tried)}."
    assert torch.equal(found.isinf(), falls > high), "Wrong about who never falls."
    best = torch.full((50,), math.inf)
    for eps, success in tried:
        best = torch.where(success, torch.minimum(best, eps), best)
    assert torch.equal(found, best), (
        "Return the smallest budget at which the attack did succeed."
    )
    there = found.isfinite()
    assert (found - falls)[there].max() <= 1.5 / 2**6 + 1e-6, "Halve the bracket."


_GOOD: Reports = {
    "clean": 0.86,
    "noise": 0.84,
    "one step": 0.55,
    "steps": 0.50,
    "twice": 0.495,
    "black box": 0.61,
    "huge": 0.0,
}


def weak_spots(answer: Callable[[Reports], set[str]]) -> None:
    """A sound evaluation, and one fault at a time."""
    assert answer(dict(_GOOD)) == set(), (
        f"This evaluation is sound: {_GOOD}. You returned {answer(dict(_GOOD))}."
    )
    for name, value in (("noise", 0.4), ("one step", 0.45), ("black box", 0.48)):
        found = answer({**_GOOD, name: value})
        assert found == {name}, f"{name} beats the steps: {{{name!r}}}, not {found}."
    found = answer({**_GOOD, "huge": 0.6})
    assert found == {"huge"}, f"A huge budget leaves 0.6: {{'huge'}}, not {found}."


def _spots(
    answer: Callable[[Reports], set[str]], reports: Reports, wanted: set[str]
) -> None:
    found = answer(dict(reports))
    assert found == wanted, f"For {reports}: {wanted}, not {found}."


def weak_spots_hidden(answer: Callable[[Reports], set[str]], seed: int = 0) -> None:
    """The edges of the rules, and several faults at once."""
    for change, wanted in (
        ({"twice": 0.40}, {"twice"}),
        ({"twice": 0.485}, set()),
        ({"huge": 0.1}, set()),
        ({"noise": 0.9}, {"clean"}),
        ({"steps": 0.85, "twice": 0.85}, {"noise", "one step", "black box"}),
        (
            {"steps": 0.88, "twice": 0.7},
            {"clean", "noise", "one step", "twice", "black box"},
        ),
    ):
        _spots(answer, {**_GOOD, **change}, wanted)
    rng = random.Random(seed)
    for _ in range(30):
        drawn = {name: rng.random() for name in _GOOD}
        steps = drawn["steps"]
        drawn |= {"twice": steps + rng.uniform(-0.05, 0.05), "huge": rng.random() / 5}
        wrong = {
            "clean": max(drawn.values()) > drawn["clean"],
            "twice": drawn["twice"] < steps - 0.02,
            "huge": drawn["huge"] > 0.1,
        }
        for name in ("noise", "one step", "black box"):
            wrong[name] = drawn[name] < steps
        _spots(answer, drawn, {name for name, fault in wrong.items() if fault})
