"""FGSM and PGD, and the random points that they must beat."""

from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from crlib.attacks.balls import Ball, ball
from crlib.attacks.base import (
    LOSSES,
    AttackResult,
    Model,
    Search,
    at_least,
    chance,
    check,
    gradient,
    one_of,
    per_sample,
)
from crlib.models import evaluating

__all__ = ["fgsm", "pgd", "random_noise"]


def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    loss: str = "margin",
    target: Tensor | None = None,
) -> AttackResult:
    r"""Take one gradient step of full length (Goodfellow et al. 2015).

    :math:`x + \epsilon\, \mathrm{sign} \nabla_x L` for linf, the normalised gradient
    for l2, the coordinates of largest gradient up to their walls for l1; then into the
    box.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        loss: ``"margin"`` (largest rival logit minus the true one) or ``"ce"``.
        target: ``(N,)`` labels to reach, or None.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    return pgd(
        model,
        x,
        y,
        eps=eps,
        norm=norm,
        steps=1,
        step_size=eps,
        loss=loss,
        target=target,
    )


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    random_start: bool = False,
    loss: str = "margin",
    target: Tensor | None = None,
    samples: int = 1,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> AttackResult:
    r"""Projected gradient ascent on the loss (Madry et al. 2018).

    .. math:: x_{t+1} = \Pi\big(x_t + \alpha\, s(\nabla_x L(x_t))\big),

    with s the steepest unit step of the norm and :math:`\Pi` the projection onto ball
    and box. A sample leaves the batch as soon as it is fooled, so an attack on an
    undefended network costs a fraction of ``steps`` passes. The first run starts at
    ``x``, the others at random points of the ball. The first step has length ``eps``
    and is FGSM, so PGD fools whatever FGSM fools; the steps then shrink to zero. A
    sample whose gradient is zero takes a random step instead.

    Cost without restarts: at most ``steps + 1`` forward and ``steps`` backward passes.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: number of gradient steps a run, at least 1.
        step_size: length of every step; None means ``eps * (1 - t / steps)`` for the
            steps t = 0, 1, ...
        restarts: number of runs; each sees only the samples still standing.
        random_start: start the first run at a random point too (one more forward).
        loss: ``"margin"`` (largest rival logit minus the true one; not fooled by the
            scale of the logits) or ``"ce"``.
        target: ``(N,)`` labels to reach, or None.
        samples: calls whose logits are averaged, for a model that draws at random.
        generator: source of random starts; None means a new one of seed 0.
        progress: show a progress bar.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    radius = check(x, y, eps, norm, target)
    one_of("loss", loss, LOSSES)
    at_least(1, steps=steps, restarts=restarts)
    schedule = torch.ones(steps)
    if step_size is None:
        step_size, schedule = radius, 1 - torch.arange(steps) / steps
    step = per_sample("step_size", step_size, x)
    run = Search(model, x, y, target, loss, norm, samples)
    source = chance(generator)
    bar = tqdm(total=restarts * steps, disable=not progress, desc="pgd", leave=False)
    with evaluating(model), bar:
        if random_start or not len(x):
            run.look_at_clean()
        for r in range(restarts):
            rows = run.standing()
            if not len(rows):
                break
            z = run.x[rows]
            region = ball(z, radius[rows], norm)
            z = region.random(source) if random_start or r > 0 else z.clone()
            _ascend(run, z, rows, region, step[rows], schedule.tolist(), source, bar)
    return run.result()


def _ascend(
    run: Search,
    z: Tensor,
    rows: Tensor,
    region: Ball,
    step: Tensor,
    schedule: list[float],
    source: torch.Generator,
    bar: "tqdm[Any]",
) -> None:
    before = None
    for t, factor in enumerate([*schedule, 0.0]):
        last = t == len(schedule)
        with torch.set_grad_enabled(not last):
            logits = run.model(z.requires_grad_(not last))
            value, fooled = run.see(z, rows, logits, last)
        if last or fooled.all():
            bar.update(len(schedule) - t)
            return
        g = gradient(value, z)
        run.n_backward.index_add_(0, rows, torch.full_like(rows, run.samples))
        z, now = z.detach(), value.detach()
        # Whoever has a zero gradient stands still, which shows in the objective;
        # looking at every gradient would cost as much as the step itself.
        still = torch.ones_like(fooled) if before is None else now == before
        if still.any():
            run.shake(g, rows, source)
        if fooled.any():
            keep = ~fooled
            z, g, rows, step, now = (v[keep] for v in (z, g, rows, step, now))
            region.keep(keep)
        before = now
        z = region.step_(z, g, step, factor)
        bar.update()


def random_noise(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    draws: int = 20,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Try random points of the ball: the baseline that every attack must beat.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        draws: points tried for each sample still standing.
        generator: source of the points; None means a new one of seed 0.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    radius = check(x, y, eps, norm)
    at_least(1, draws=draws)
    run, source = Search(model, x, y, None, "margin", norm), chance(generator)
    with evaluating(model), torch.no_grad():
        run.look_at_clean()
        for _ in range(draws):
            rows = run.standing()
            if not len(rows):
                break
            z = ball(run.x[rows], radius[rows], norm).random(source)
            run.see(z, rows, run.model(z))
    return run.result()
