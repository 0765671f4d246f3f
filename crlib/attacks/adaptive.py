"""APGD: gradient ascent that chooses its own step size."""

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
    per_row,
)
from crlib.models import evaluating

__all__ = ["apgd"]


def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    steps: int = 100,
    restarts: int = 1,
    loss: str = "margin",
    n_targets: int = 0,
    target: Tensor | None = None,
    samples: int = 1,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> AttackResult:
    r"""Ascend with momentum and a step that halves when it stops paying (APGD).

    .. math:: u = \Pi\big(x_t + \alpha\, s(\nabla L(x_t))\big), \qquad
       x_{t+1} = \Pi\big(x_t + \tfrac34 (u - x_t) + \tfrac14 (x_t - x_{t-1})\big).

    At checkpoints that follow each other ever faster a sample whose loss rose in less
    than three quarters of the steps, or whose best loss and step did not change, halves
    :math:`\alpha` and goes back to its best point (Croce and Hein 2020). The step
    starts at twice ``eps``.

    With ``n_targets`` the loss is the targeted margin :math:`z_k - z_y`, for one rival
    k after the other, the strongest at ``x`` first. Each run sees only what still
    stands. On a linear model, with all rivals, the answer is exact.

    Cost: at most ``steps + 1`` forward and ``steps`` backward passes a run; one more
    forward pass with ``n_targets``.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: gradient steps a run.
        restarts: rounds; the first starts at ``x``, the others at random points.
        loss: ``"margin"`` or ``"ce"``, where no rival is chosen.
        n_targets: rivals led to, one a run; more than K - 1 means K - 1; 0 is none.
        target: ``(N,)`` labels to reach, or None; then ``n_targets`` is 0.
        samples: calls whose logits are averaged, for a model that draws at random.
        generator: source of random starts; None means a new one of seed 0.
        progress: show a progress bar over the runs.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    radius = check(x, y, eps, norm, target)
    one_of("loss", loss, LOSSES)
    at_least(1, steps=steps, restarts=restarts)
    at_least(0, n_targets=n_targets)
    if n_targets and target is not None:
        raise ValueError("Give target or n_targets: one goal a sample, or its rivals.")
    run = Search(model, x, y, target, loss, norm, samples)
    source = chance(generator)
    with evaluating(model):
        rivals: list[Tensor | None] = [None]
        if n_targets or not len(x):
            logits = run.look_at_clean()
            # Three classes suffice to order an empty batch, which has no labels.
            order = logits.scatter(1, y[:, None], -torch.inf).argsort(1).flip(1)
            count = min(n_targets, logits.shape[1] - 1)
            rivals = [order[:, k] for k in range(count)]
        runs = [(r, rival) for r in range(restarts) for rival in rivals]
        for r, rival in tqdm(runs, disable=not progress, desc="apgd", leave=False):
            rows = run.standing()
            if not len(rows):
                break
            region = ball(run.x[rows], radius[rows], norm)
            z = region.random(source) if r else run.x[rows].clone()
            led = None if rival is None else rival[rows]
            _ascend(run, z, rows, region, radius[rows], led, steps, source)
    return run.result()


def _checkpoints(steps: int) -> list[int]:
    """Return the steps at which the step size is reconsidered."""
    shares, gap = [0.22], 0.22
    while shares[-1] < 1:
        gap = max(gap - 0.03, 0.06)
        shares.append(shares[-1] + gap)
    return sorted({max(1, round(share * steps)) for share in shares[:-1]})


def _ascend(
    run: Search,
    z: Tensor,
    rows: Tensor,
    region: Ball,
    radius: Tensor,
    rival: Tensor | None,
    steps: int,
    source: torch.Generator,
) -> None:
    alpha = 2 * radius
    rises = torch.zeros_like(rows)
    halved = torch.zeros_like(rows, dtype=torch.bool)
    marks, previous = _checkpoints(steps), 0
    before = best = best_at_mark = alpha.new_full(alpha.shape, -torch.inf)
    old = z_best = z.detach()
    g_best = torch.zeros_like(z)
    for t in range(steps + 1):
        last = t == steps
        with torch.set_grad_enabled(not last):
            logits = run.model(z.requires_grad_(not last))
            value, fooled = run.see(z, rows, logits, last, rival)
        if last or fooled.all():
            return
        g = gradient(value, z)
        run.n_backward[rows] += run.samples
        z, now = z.detach(), value.detach().to(alpha.dtype)
        still = now == before
        if t == 0 or still.any():
            run.shake(g, rows, source)
        if fooled.any():
            keep = ~fooled
            z, g, rows, alpha, rises, halved, before, best, best_at_mark = (
                v[keep]
                for v in (z, g, rows, alpha, rises, halved, before, best, best_at_mark)
            )
            now, old, z_best, g_best = (v[keep] for v in (now, old, z_best, g_best))
            rival = None if rival is None else rival[keep]
            region.keep(keep)
        rises = rises + (now > before)
        better = now > best
        best = torch.maximum(best, now)
        wide = per_row(better, z)
        z_best, g_best = torch.where(wide, z, z_best), torch.where(wide, g, g_best)
        before = now
        if t in marks:
            stuck = ~halved & (best <= best_at_mark)
            halved = (rises < 0.75 * (t - previous)) | stuck
            alpha = torch.where(halved, alpha / 2, alpha)
            wide = per_row(halved, z)
            z, g = torch.where(wide, z_best, z), torch.where(wide, g_best, g)
            before = torch.where(halved, best, before)
            best_at_mark, previous, rises = best, t, torch.zeros_like(rises)
        u = region.step_(z.clone(), g.clone(), alpha)
        if t:
            u = region.project_(z + 0.75 * (u - z) + 0.25 * (z - old))
        old, z = z, u
