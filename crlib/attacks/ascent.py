"""Ascent within a budget: FGSM, PGD, APGD, and the random points they must beat."""

from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace

import torch
from torch import Tensor

from crlib.attacks.balls import BALLS
from crlib.attacks.base import (
    LOSSES,
    AttackResult,
    Model,
    Search,
    at_least,
    chance,
    check,
    one_of,
    per_sample,
    pick,
    rivals_of,
)
from crlib.models import evaluating


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
    generator: torch.Generator | None = None,
) -> AttackResult:
    r"""Projected gradient ascent on the loss (Madry et al. 2018).

    .. math:: x_{t+1} = \Pi\big(x_t + \alpha\, s(\nabla_x L(x_t))\big),

    with s the steepest unit step of the norm and :math:`\Pi` the projection onto ball
    and box. A sample leaves the batch as soon as it is fooled, so an attack on an
    undefended network costs a fraction of ``steps`` passes. The first run starts at
    ``x``, the others at random points of the ball. The first step has length ``eps``
    and is FGSM, so PGD fools whatever FGSM fools; the steps then shrink to zero. A
    sample whose gradient is zero takes a random step instead.

    Cost: at most ``steps + 1`` forward and ``steps`` backward passes a run; one more
    forward pass with ``random_start``.

    Args:
        steps: number of gradient steps a run, at least 1.
        step_size: length of every step; None means ``eps * (1 - t / steps)`` for the
            steps t = 0, 1, ...
        restarts: number of runs; each sees only the samples still standing.
        random_start: start the first run at a random point too.
    """
    radius = check(x, y, eps, norm, target)
    one_of("loss", loss, LOSSES)
    at_least(1, steps=steps, restarts=restarts)
    shares = torch.ones(steps)
    if step_size is None:
        step_size, shares = radius, 1 - torch.arange(steps) / steps
    length, schedule = per_sample("step_size", step_size, x), shares.tolist()
    run, source = Search(model, x, y, target, norm, loss), chance(generator)
    with evaluating(model):
        if random_start or not len(x):
            run.look_at_clean()
        for r in range(restarts):
            at = _start(run, radius, source if random_start or r else None)
            at.length = length[at.rows]
            for t in _climb(run, at, steps, source):
                at.z = at.region.step_(at.z.clone(), at.g, at.length * schedule[t])
    return run.result()


def _start(
    run: Search,
    radius: Tensor,
    random: torch.Generator | None,
    width: int = 1,
    rivals: Tensor | None = None,
) -> SimpleNamespace:
    """Place who stands at ``x``, or at random points of balls so much wider.

    What follows a point through a run are the tensors kept here, of which a sample has
    one for each of its ``rivals``; the objective ``before`` is infinite so far.
    """
    rows = run.standing()
    each = 1 if rivals is None else rivals.shape[1]
    points = rows.repeat_interleave(each)
    # All samples stand, in order, where there are as many points: that is no copy.
    z = run.x if len(points) == len(run.x) and each == 1 else run.x[points]
    radius = radius[points]
    region = BALLS[run.norm](z, width * radius)
    if random is not None and len(rows):
        z = region.random(random)
    at = SimpleNamespace(rows=rows, z=z, region=region, radius=radius)
    at.before, at.inside = torch.full_like(radius, -torch.inf), width == 1
    at.rival = None if rivals is None else rivals[rows].flatten()
    return at


def _climb(
    run: Search, at: SimpleNamespace, steps: int, source: torch.Generator
) -> Iterator[int]:
    """Look at the points, let go of the fooled, and pause for each step to be taken.

    At a pause ``at.now`` is the objective at ``at.z`` and ``at.g`` its gradient.
    """
    for t in range(steps + 1 if len(at.rows) else 0):
        # The last gradient would only take memory while the model works.
        last, at.g = t == steps, None
        z = at.z.detach().requires_grad_(not last)
        value, fooled, count, still = run.see(
            z, at.rows, rival=at.rival, before=at.before, last=last, inside=at.inside
        )
        if last or count == len(at.rows):
            return
        at.g, at.z = run.slope(value, z, at.rows), z.detach()
        at.now = value.detach().to(z.dtype)
        # Whoever has a zero gradient stands still, which shows in the objective;
        # looking at every gradient would cost as much as the step itself.
        if still or t == 0:
            run.shake(at.g, at.rows, source)
        if count:
            # Sorting, unlike a mask, need not wait for a GPU to count.
            keep = fooled.to(torch.uint8).argsort(stable=True)[: len(fooled) - count]
            rows, each = at.rows[keep], len(z) // len(fooled)
            points = torch.arange(len(z), device=z.device).view(-1, each)
            keep = points[keep].flatten()
            at.region.keep(keep)
            for name, v in vars(at).items():
                if isinstance(v, Tensor) and name != "rows":
                    setattr(at, name, v.index_select(0, keep))
            at.rows = rows
        yield t
        at.before = at.now


def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    steps: int = 100,
    restarts: int = 1,
    random_start: bool = False,
    loss: str = "margin",
    n_targets: int = 0,
    together: int = 1,
    target: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    r"""Ascend with momentum and a step that halves when it stops paying (APGD).

    .. math:: u = \Pi\big(x_t + \alpha\, s(\nabla L(x_t))\big), \qquad
       x_{t+1} = \Pi\big(x_t + \tfrac34 (u - x_t) + \tfrac14 (x_t - x_{t-1})\big).

    At checkpoints that follow each other ever faster a sample whose loss rose in less
    than three quarters of the steps, or whose best loss and step did not change, halves
    :math:`\alpha` and goes back to its best point (Croce and Hein 2020). The step
    starts at twice ``eps``.

    In l1, where such steps get stuck on few coordinates, the first step is FGSM; the
    next climb in a ball of radius ``3 * eps``, then ``2 * eps``, then ``eps``, each
    from the best point of the one before. A step moves a share of the coordinates
    alike: two thirds of as many as the best point has moved. It shrinks by a third
    unless their number falls (Croce and Hein 2021). A random start lies in the widest
    of these balls.

    With ``n_targets`` the loss is the targeted margin :math:`z_k - z_y`, for one rival
    k after the other, the strongest at ``x`` first. Each run sees only what still
    stands. On a linear model, with all rivals, the answer is exact.

    Cost: at most ``steps + 1`` forward and ``steps`` backward passes a run; one more
    forward pass with ``n_targets`` or ``random_start``.

    Args:
        steps: gradient steps a run.
        restarts: rounds; the first starts at ``x``, the others at random points.
        random_start: start the first round at random points too.
        n_targets: rivals led to, one a run; more than K - 1 means K - 1; 0 is none.
        together: runs to rivals that share their passes, which a small batch gains by;
            so many times the memory.
        target: ``(N,)`` labels to reach, or None; then ``n_targets`` is 0.
    """
    radius = check(x, y, eps, norm, target)
    one_of("loss", loss, LOSSES)
    at_least(1, steps=steps, restarts=restarts, together=together)
    at_least(0, n_targets=n_targets)
    if n_targets and target is not None:
        raise ValueError("Give target or n_targets: one goal a sample, or its rivals.")
    run, source = Search(model, x, y, target, norm, loss), chance(generator)
    adapt = _sparse if norm == "l1" else _halving
    rivals: tuple[Tensor | None, ...] = (None,)
    with evaluating(model):
        if n_targets or random_start or not len(x):
            logits = run.look_at_clean()
        if n_targets:
            rivals = rivals_of(logits, y)[:, :n_targets].split(together, 1)
        for r, rival in product(range(restarts), rivals):
            random = source if random_start or r else None
            wide = 3 if random is not None and norm == "l1" else 1
            at = _start(run, radius, random, wide, rival)
            adapt(at, steps, _climb(run, at, steps, source))
    return run.result()


def _keep_best(at: SimpleNamespace) -> None:
    better = at.now > at.best
    at.best = torch.maximum(at.best, at.now)
    at.z_best = pick(better, at.z, at.z_best)
    at.g_best = pick(better, at.g, at.g_best)


def _halving(at: SimpleNamespace, steps: int, climb: Iterator[int]) -> None:
    """Steps of linf and l2, with momentum."""
    # The steps at which the length is reconsidered.
    shares, gap = [0.22], 0.22
    while shares[-1] < 1:
        gap = max(gap - 0.03, 0.06)
        shares.append(shares[-1] + gap)
    marks, previous = {max(1, round(share * steps)) for share in shares[:-1]}, 0
    at.alpha, at.rises = 2 * at.radius, torch.zeros_like(at.radius)
    at.halved = torch.zeros_like(at.radius, dtype=torch.bool)
    at.best = at.best_at_mark = at.before
    at.old = at.z_best = at.z
    at.g_best = torch.zeros_like(at.z)
    for t in climb:
        at.rises = at.rises + (at.now > at.before)
        _keep_best(at)
        if t in marks:
            stuck = ~at.halved & (at.best <= at.best_at_mark)
            at.halved = (at.rises < 0.75 * (t - previous)) | stuck
            at.alpha = torch.where(at.halved, at.alpha / 2, at.alpha)
            at.z = pick(at.halved, at.z_best, at.z)
            at.g = pick(at.halved, at.g_best, at.g)
            at.now = torch.where(at.halved, at.best, at.now)
            at.best_at_mark, previous = at.best, t
            at.rises = torch.zeros_like(at.rises)
        u = at.region.step_(at.z.clone(), at.g.clone(), at.alpha)
        if t:
            u = u.sub_(at.z).mul_(0.75).add_(at.z).add_(at.z - at.old, alpha=0.25)
            at.region.project_(u)
        at.old, at.z = at.z, u


def _sparse(at: SimpleNamespace, steps: int, climb: Iterator[int]) -> None:
    """Steps of l1, in balls that shrink."""
    wide, every = 0, max(1, steps // 25)
    at.best, at.z_best, at.g_best = at.before, at.z, torch.zeros_like(at.z)
    at.alpha, at.share = at.radius, torch.full_like(at.radius, 0.2)
    at.moved = torch.full_like(at.radius, torch.inf)
    dim = max(1, at.z[:1].numel())
    for t in climb:
        _keep_best(at)
        if t == 0 and at.inside:
            at.z = at.region.step_(at.z.clone(), at.g, at.radius)
            continue
        width = 3 if t < 0.3 * steps else 2 if t < 0.6 * steps else 1
        width = width if t + 1 < steps else 1
        count = (at.z_best != at.region.x).flatten(1).sum(1).to(at.radius.dtype)
        if width != wide:
            # A new ball: on from the best point of the last one.
            wide, start = width, t
            at.region.eps, at.inside = width * at.radius, width == 1
            at.alpha, at.z, at.g = width * at.radius, at.z_best, at.g_best
            at.best = torch.full_like(at.best, -torch.inf)
            at.moved = count
            if t > 1:
                at.share = count / dim / 1.5
        elif (t - start) % every == 0:
            fell = count < 0.95 * at.moved
            at.share, at.moved = count / dim / 1.5, count
            at.alpha = torch.where(fell, wide * at.radius, at.alpha / 1.5)
            at.alpha = torch.maximum(at.alpha, 0.1 * at.radius)
            at.z, at.g = pick(fell, at.z_best, at.z), pick(fell, at.g_best, at.g)
        at.z = at.region.sparse_step_(at.z.clone(), at.g, at.alpha, at.share)


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
    """Try random points of the ball, ``draws`` of them: every attack must beat it."""
    radius = check(x, y, eps, norm)
    at_least(1, draws=draws)
    run, source = Search(model, x, y, None, norm), chance(generator)
    with evaluating(model), torch.no_grad():
        run.look_at_clean()
        for _ in range(draws):
            at = _start(run, radius, source)
            if not len(at.rows):
                break
            run.see(at.z, at.rows)
    return run.result()
