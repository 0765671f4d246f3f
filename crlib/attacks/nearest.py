"""The smallest perturbation: DeepFool, FMN, bisection, and the best of several."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crlib.attacks.adaptive import apgd
from crlib.attacks.balls import ball, halfspace_step
from crlib.attacks.base import (
    ORDERS,
    AttackResult,
    Model,
    at_least,
    check,
    check_logits,
    gradient,
    is_fooled,
    objective,
    per_row,
    sizes,
)
from crlib.models import evaluating

__all__ = ["deepfool", "fmn", "minimal", "minimum_of"]

DUALS = {"linf": 1, "l2": 2, "l1": math.inf}


class Nearest:
    """The nearest fooling points found so far, of the samples labelled right.

    Everything but :meth:`result` speaks of these samples only. ``logits`` are those at
    ``x``; ``distance`` is infinite where nothing was found.
    """

    def __init__(
        self, model: Model, x: Tensor, y: Tensor, target: Tensor | None, norm: str
    ) -> None:
        self.model, self.norm, self.everyone = model, norm, x.detach()
        self.n_forward = self.n_backward = 0
        with torch.no_grad():
            logits = model(self.everyone) if len(x) else x.new_zeros(0, 2)
        if len(x):
            check_logits(logits, len(x), y, target)
        self.rows = (logits.argmax(1) == y).nonzero().squeeze(1)
        self.x, self.y = self.everyone[self.rows], y[self.rows]
        self.target = None if target is None else target[self.rows]
        self.logits = logits[self.rows].to(torch.promote_types(x.dtype, logits.dtype))
        self.best = self.x.clone()
        self.distance = self.x.new_full((len(self.x),), math.inf)
        self.zero_gradient = torch.zeros_like(self.y, dtype=torch.bool)

    def see(self, z: Tensor, graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return the logits at ``z`` and who is fooled; keep what is nearer."""
        with torch.set_grad_enabled(graph):
            logits = self.model(z)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        self.n_forward += 1
        fooled = is_fooled(logits, self.y, self.target)
        distance = sizes(z.detach() - self.x, self.norm)
        nearer = fooled & (distance < self.distance)
        self.distance = torch.where(nearer, distance, self.distance)
        self.best = torch.where(per_row(nearer, z), z.detach(), self.best)
        return logits, fooled

    def gradient(self, value: Tensor, z: Tensor, retain: bool = False) -> Tensor:
        g = gradient(value, z, retain)
        self.n_backward += 1
        self.zero_gradient |= ~g.flatten(1).any(1)
        return g

    def finish(self, rounds: int) -> None:
        """Draw the points found towards ``x``, as far as they keep fooling.

        By a bisection of the way; for l0, of the number of coordinates that are moved,
        in the order of what they are worth to first order.
        """
        delta, rank = self.best - self.x, None
        low, high = torch.zeros_like(self.distance), torch.ones_like(self.distance)
        if self.norm == "l0":
            with torch.enable_grad():
                z = self.best.clone().requires_grad_()
                logits, _ = self.see(z, graph=True)
                g = self.gradient(objective(logits, self.y, self.target), z)
            worth = (
                (g * delta).flatten(1).masked_fill((delta == 0).flatten(1), -math.inf)
            )
            rank = worth.argsort(1, descending=True).argsort(1).view_as(delta)
            high = sizes(delta, "l0")
        for _ in range(rounds):
            middle = (low + high) / 2
            if rank is None:
                _, fooled = self.see(self.x + per_row(middle, delta) * delta)
            else:
                middle = middle.floor()
                kept = torch.where(rank < per_row(middle, delta), delta, 0)
                _, fooled = self.see(self.x + kept)
            high = torch.where(fooled, middle, high)
            low = torch.where(fooled, low, middle)

    def result(self) -> AttackResult:
        n = len(self.everyone)
        everyone = torch.zeros(n, dtype=torch.int64, device=self.everyone.device)
        x_adv, distance = self.everyone.clone(), self.everyone.new_zeros(n)
        x_adv[self.rows], distance[self.rows] = self.best, self.distance
        zero = everyone.bool()
        zero[self.rows] = self.zero_gradient
        return AttackResult(
            x_adv=x_adv,
            success=distance.isfinite(),
            distance=distance,
            n_forward=(everyone + 1).index_add(
                0, self.rows, torch.full_like(self.y, self.n_forward)
            ),
            n_backward=everyone.index_add(
                0, self.rows, torch.full_like(self.y, self.n_backward)
            ),
            zero_gradient=zero,
            norm=self.norm,
        )


def deepfool(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    steps: int = 20,
    candidates: int = 3,
    overshoot: float = 0.02,
    pull: float = 0.1,
    search_steps: int = 10,
    target: Tensor | None = None,
) -> AttackResult:
    r"""Walk to the nearest boundary of the linearised model, then back along it.

    At the point z the rival k has the boundary
    :math:`c^\top (x' - z) = z_y - z_k` with :math:`c = \nabla (z_k - z_y)`. Step to the
    nearest such boundary in the box (DeepFool, Moosavi-Dezfooli et al. 2016), drawn by
    ``pull`` towards the point of that boundary nearest to ``x`` (as FAB of Croce and
    Hein 2020). A bisection between ``x`` and the nearest point found ends it. The first
    step looks at every rival, so on a linear model it is exact; the later ones look at
    the ``candidates`` that were nearest then.

    Cost: ``steps + search_steps + 2`` forward, ``K - 1 + steps * candidates`` backward
    passes at most.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
        steps: number of steps.
        candidates: rivals followed after the first step.
        overshoot: how far beyond the boundary a step goes, as a share of the way; for
            l0, where one coordinate more is much, a hundredth of it.
        pull: share of the way to the boundary's point nearest to ``x``.
        search_steps: halvings of the final bisection.
        target: ``(N,)`` labels to reach, or None.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    check(x, y, 0.0, norm, target, tuple(ORDERS))
    at_least(1, steps=steps, candidates=candidates)
    with evaluating(model), torch.no_grad():
        found = Nearest(model, x, y, target, norm)
        if len(found.x):
            _walk(found, steps, candidates, overshoot, pull)
            found.finish(search_steps)
    return found.result()


def _walk(
    found: Nearest, steps: int, candidates: int, overshoot: float, pull: float
) -> None:
    x, y, norm = found.x, found.y, found.norm
    overshoot = overshoot / 100 if norm == "l0" else overshoot
    if found.target is None:
        order = found.logits.scatter(1, y[:, None], -math.inf).argsort(1).flip(1)
        rivals = order[:, :-1]
    else:
        rivals = found.target[:, None]
    z = x
    for _ in range(steps):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            logits, fooled = found.see(z, graph=True)
            values = [objective(logits, y, None, rival=k) for k in rivals.T]
        at = z.detach()
        nearest = at.new_full((len(at),), math.inf)
        near, lengths = at, []
        for k, value in enumerate(values):
            c = found.gradient(value, z, retain=k + 1 < len(values))
            m = -value.detach().to(at.dtype)
            # Seen from x the half-space needs also what was gained on the way to z.
            behind = m + (c * (at - x)).flatten(1).sum(1)
            home = halfspace_step(c, behind * (1 + overshoot), x, norm)
            # A half-space that the box does not reach comes last.
            short = (c * home).flatten(1).sum(1) < behind * (1 - 1e-4)
            length = sizes(home, norm).masked_fill(short | (behind <= 0), 1e30)
            on = at + halfspace_step(c, m * (1 + overshoot), at, norm)
            # From a fooled point there is only a better way from x; before the first
            # success nothing may hold the walk back.
            share = torch.where(fooled, 0.5, pull * found.distance.isfinite())
            goal = on + per_row(share, at) * (x + home - on)
            closer = per_row(length < nearest, at)
            near = torch.where(closer, goal, near)
            nearest = torch.minimum(nearest, length)
            lengths.append(length)
        z = near.clamp(0, 1)
        if rivals.shape[1] > candidates:
            first = torch.stack(lengths, 1).argsort(1)[:, :candidates]
            rivals = rivals.gather(1, first)
    found.see(z.detach())


def fmn(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    steps: int = 100,
    step_size: float | None = None,
    gamma: float = 0.05,
    search_steps: int = 10,
    target: Tensor | None = None,
) -> AttackResult:
    r"""Follow the boundary with a ball that shrinks inside and grows outside (FMN).

    Step by :math:`\alpha\, g / \|g\|_2` and project onto a ball of radius
    :math:`\epsilon`. Fooled: :math:`\epsilon` becomes :math:`1 - \gamma` times the
    smallest distance found. Not fooled: :math:`1 + \gamma` times itself, or, before
    the first success, what the linearised model asks for. Both :math:`\alpha` and
    :math:`\gamma` fall along a cosine (Pintor et al. 2021). A bisection ends it.

    Cost: ``steps + search_steps + 2`` forward, ``steps`` backward passes.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: number of steps.
        step_size: length of the first step, in l2; None means 10 for linf, else 1.
        gamma: first relative change of the radius, in (0, 1).
        search_steps: halvings of the final bisection.
        target: ``(N,)`` labels to reach, or None.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    check(x, y, 0.0, norm, target)
    at_least(1, steps=steps)
    if not 0 < gamma < 1:
        raise ValueError(f"gamma is {gamma}: a share between 0 and 1.")
    if step_size is None:
        step_size = 10.0 if norm == "linf" else 1.0
    with evaluating(model), torch.no_grad():
        found = Nearest(model, x, y, target, norm)
        z, eps = found.x, torch.full_like(found.distance, math.inf)
        for t in range(steps if len(z) else 0):
            fade = (1 + math.cos(math.pi * t / steps)) / 2
            shrink = gamma * max(fade, 0.02)
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                logits, fooled = found.see(z, graph=True)
                value = objective(logits, found.y, found.target)
            g, z = found.gradient(value, z), z.detach()
            dual = torch.linalg.vector_norm(g.flatten(1), ord=DUALS[norm], dim=1)
            ask = -value.detach().to(z.dtype) / dual.clamp_min(1e-12)
            ask = sizes(z - found.x, norm) + ask.clamp(0, 1e6)
            # Where rivals take turns the linear guess falls short for ever: grow on.
            ask = ask.maximum(eps.nan_to_num(posinf=0) * (1 + gamma))
            grown = torch.where(found.distance.isfinite(), eps * (1 + shrink), ask)
            eps = torch.where(
                fooled, torch.minimum(eps, found.distance) * (1 - shrink), grown
            )
            unit = sizes(g, "l2").clamp_min(1e-12)
            z = z + step_size * max(fade, 0.01) * g / per_row(unit, g)
            z = ball(found.x, eps, norm).project_(z)
        if len(z):
            found.see(z)
            found.finish(search_steps)
    return found.result()


def minimal(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    attack: Callable[..., AttackResult] = apgd,
    search_steps: int = 10,
    **options: Any,
) -> AttackResult:
    r"""Bisect the budget of any attack, for each sample on its own.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: largest budget, a number or ``(N,)``; what resists it is not a success.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        attack: such as :func:`crlib.attacks.pgd`; takes ``eps`` of shape ``(N,)``.
        search_steps: runs of the attack after the first.
        **options: for ``attack``.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    high = check(x, y, eps, norm)
    at_least(0, search_steps=search_steps)
    best = attack(model, x, y, eps=high, norm=norm, **options)
    low, high = torch.zeros_like(high), torch.minimum(high, best.distance)
    for _ in range(search_steps):
        if not len(x):
            break
        middle = (low + high) / 2
        now = attack(model, x, y, eps=middle, norm=norm, **options)
        low = torch.where(now.success, low, middle)
        high = torch.where(now.success, torch.minimum(middle, now.distance), high)
        best = minimum_of(best, now)
    return best


def minimum_of(*results: AttackResult) -> AttackResult:
    """Return the nearest success of each sample; the costs add up.

    Args:
        results: of one model on the same samples, in one norm; at least one.

    Raises:
        ValueError: no results, or results that do not fit together.
    """
    if not results or len({(r.norm, r.x_adv.shape) for r in results}) > 1:
        raise ValueError("Give results of one norm on the same samples, at least one.")
    best = results[0]
    for other in results[1:]:
        nearer = other.distance < best.distance
        best = AttackResult(
            x_adv=torch.where(per_row(nearer, best.x_adv), other.x_adv, best.x_adv),
            success=best.success | other.success,
            distance=torch.minimum(best.distance, other.distance),
            n_forward=best.n_forward + other.n_forward,
            n_backward=best.n_backward + other.n_backward,
            zero_gradient=best.zero_gradient | other.zero_gradient,
            norm=best.norm,
        )
    return best
