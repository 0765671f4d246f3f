"""The smallest perturbation: DeepFool, FMN, sigma-zero, bisection, the best of all."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crlib import checks
from crlib.attacks.ascent import apgd
from crlib.attacks.balls import BALLS
from crlib.attacks.base import (
    AttackResult,
    Model,
    Search,
    check,
    door,
    is_fooled,
    objective,
    per_row,
    pick,
    rivals_of,
    told,
)
from crlib.geometry import DUALS, NORMS, halfspace_step, norm_of

# A first step looks at all rivals, each a backward pass, where there are so many at
# most; at so many of the largest logits where there are more.
EVERY, RIVALS = 20, 10


class Nearest(Search):
    """The nearest fooling points found so far.

    ``start``, ``labels``, ``goal``, ``point`` and ``distance`` are of the samples
    ``rows`` that do not fool at ``x``, as is whatever the methods take and return.
    """

    def __init__(
        self, model: Model, x: Tensor, y: Tensor, target: Tensor | None, norm: str
    ) -> None:
        super().__init__(model, x, y, target, norm)
        logits = self.look_at_clean()
        self.rows = self.standing()
        self.start, self.logits = self.x[self.rows], logits[self.rows]
        # The label to leave: y, except on the way from a wrong label to a target.
        self.labels = self.logits.argmax(1)
        self.goal = None if target is None else target[self.rows]
        self.point = self.start
        self.distance = self.start.new_full((len(self.rows),), math.inf)

    def near(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits at ``z`` and who is fooled; keep what is nearer."""
        logits = self.ask(z, self.rows, graph=z.requires_grad)
        # A NaN is the largest to argmax, and no label.
        checks.logits(logits, len(z))
        fooled = is_fooled(logits, self.labels, self.goal)
        distance = norm_of(z.detach() - self.start, self.norm)
        nearer = fooled & (distance < self.distance)
        self.distance = torch.where(nearer, distance, self.distance)
        self.point = pick(nearer, z.detach(), self.point)
        return logits, fooled

    def climb(self, value: Tensor, z: Tensor, more: bool = False) -> Tensor:
        g = self.slope(value, z, self.rows, more)
        self.zero_gradient[self.rows] |= norm_of(g, "linf") == 0
        return g

    def finish(self, rounds: int) -> AttackResult:
        """Draw the points found towards ``x``, as far as they keep fooling.

        By a bisection of the way; for l0, of the number of coordinates that are moved,
        in the order of what they are worth to first order.
        """
        delta, rank = self.point - self.start, None
        low, high = torch.zeros_like(self.distance), torch.ones_like(self.distance)
        if self.norm == "l0" and len(self.rows):
            with torch.enable_grad():
                z = self.point.clone().requires_grad_()
                logits, _ = self.near(z)
                g = self.climb(objective(logits, self.labels, self.goal), z)
            worth = (g * delta).masked_fill_(delta == 0, -math.inf).flatten(1)
            rank = worth.argsort(1, descending=True).argsort(1).view_as(delta)
            high = norm_of(delta, "l0")
        for _ in range(rounds if len(self.rows) else 0):
            middle = (low + high) / 2
            if rank is None:
                part = per_row(middle, delta) * delta
            else:
                middle = middle.floor()
                part = torch.where(rank < per_row(middle, delta), delta, 0)
            _, fooled = self.near(self.start + part)
            high = torch.where(fooled, middle, high)
            low = torch.where(fooled, low, middle)
        self.x_adv[self.rows] = self.point
        self.success[self.rows] = self.distance.isfinite()
        return self.result()


@door
def deepfool(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    steps: int = 20,
    search_steps: int = 10,
    target: Tensor | None = None,
) -> AttackResult:
    r"""Walk to the nearest boundary of the linearised model, then back along it.

    At the point z the rival k has the boundary
    :math:`c^\top (x' - z) = z_y - z_k` with :math:`c = \nabla (z_k - z_y)`. Step to the
    nearest such boundary in the box (DeepFool, Moosavi-Dezfooli et al. 2016), drawn by
    a tenth towards the point of that boundary nearest to ``x`` (as FAB of Croce and
    Hein 2020). A bisection between ``x`` and the nearest point found ends it. The first
    step looks at all rivals of up to 21 classes, and on a linear model is exact; of
    more classes at the ten rivals of largest logit, as the authors do. The later steps
    look at the three that were nearest then.

    The point lies a hair beyond the boundary: saved as an image of 8 bits it may fool
    no longer. :func:`as_images` rounds it and asks the model again.

    Cost: ``steps + search_steps + 2`` forward, ``R + 3 * steps`` backward passes at
    most, with R rivals at first; for l0 one more of each.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
        steps: steps of the walk, at least 1.
        search_steps: halvings of the final bisection.
        target: ``(N,)`` labels to reach; None means any label but ``y``.

    Returns:
        An :class:`AttackResult`.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[0.6, 0.4]])
        >>> round(float(attacks.deepfool(model, x, y, norm="l1").distance), 2)
        0.2
    """
    check(x, y, 0.0, norm, target, tuple(NORMS))
    checks.at_least(1, steps=steps)
    checks.at_least(0, search_steps=search_steps)
    with torch.no_grad():
        found = Nearest(model, x, y, target, norm)
        _walk(found, steps, candidates=3)
        return found.finish(search_steps)


def _walk(found: Nearest, steps: int, candidates: int) -> None:
    """Walk to the nearest boundary, again and again; see :func:`deepfool`."""
    # n samples that are labelled right at x, and R rivals of each.
    x, y, norm, at = found.start, found.labels, found.norm, found.start  # (n, ...)
    if not len(x):
        return
    if found.goal is None:
        rivals = rivals_of(found.logits, y)
        rivals = rivals[:, : RIVALS if rivals.shape[1] > EVERY else EVERY]
    else:
        rivals = found.goal[:, None]
    # rivals is (n, R): many at first, then the candidates; with a target one.
    # A step goes a little beyond the boundary. In l0 a coordinate more is much.
    beyond = 1.0002 if norm == "l0" else 1.02

    def step(c: Tensor, m: Tensor, start: Tensor) -> Tensor:
        # The least step over the boundary: c and start are (n, ...), m is (n,).
        flat = halfspace_step(c.flatten(1), m * beyond, start.flatten(1), norm)
        return flat.view_as(start)

    for _ in range(steps):
        with torch.enable_grad():
            z = at.clone().requires_grad_()
            logits, fooled = found.near(z)
            values = [objective(logits, y, rival=k) for k in rivals.T]  # R of (n,)
        # From a fooled point there is only a better way from x; before the first
        # success nothing may hold the walk back.
        share = torch.where(fooled, 0.5, 0.1 * found.distance.isfinite()).to(at.dtype)
        goal, shortest, lengths = at, torch.full_like(found.distance, math.inf), []
        for k, value in enumerate(values):
            c = found.climb(value, z, more=k + 1 < len(values))  # (n, ...)
            m = -value.detach().to(at.dtype)  # (n,), what the rival lacks at z
            # Seen from x the half-space needs also what was gained on the way to z.
            behind = m + (c * (at - x)).flatten(1).sum(1)
            home = step(c, behind, x)  # from x straight over the boundary
            # A half-space that the box does not reach comes last.
            short = (c * home).flatten(1).sum(1) < behind * (1 - 1e-4)
            length = norm_of(home, norm).masked_fill(short | (behind <= 0), 1e30)
            new = (at + step(c, m, at)).lerp(x + home, per_row(share, at))
            goal = pick(length < shortest, new, goal)
            shortest = torch.minimum(shortest, length)
            lengths.append(length)
        at = goal.clamp(0, 1)
        if rivals.shape[1] > candidates:
            first = torch.stack(lengths, 1).argsort(1)[:, :candidates]
            rivals = rivals.gather(1, first)
    found.near(at)


@door
def fmn(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    steps: int = 40,
    step_size: float | None = None,
    walk: int = 5,
    search_steps: int = 10,
    target: Tensor | None = None,
) -> AttackResult:
    r"""Follow the boundary with a ball that shrinks inside and grows outside (FMN).

    Step by :math:`\alpha\, g / \|g\|_2` and project onto a ball of radius
    :math:`\epsilon`. Fooled: :math:`\epsilon` becomes :math:`1 - \gamma` times the
    smallest distance found. Not fooled: :math:`1 + \gamma` times itself, or, before
    the first success, what the linearised model asks for. Both :math:`\alpha` and
    :math:`\gamma`, at first 0.2 for l1, else 0.05, fall along a cosine (Pintor et al.
    2021). A bisection ends it.

    It starts where ``walk`` steps of :func:`deepfool`, to two candidates, led it: from
    ``x`` itself, ``walk=0``, a sample follows the rival it meets first, which need not
    be the nearest. As for :func:`deepfool`, rounding to 8 bits may undo the point.

    Cost: ``steps + search_steps + 2`` forward, ``steps`` backward passes; with ``walk``
    at most ``walk + 1`` forward and ``R + 2 * walk`` backward more, with R as there.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: steps along the boundary, at least 1.
        step_size: length of the first step, in l2; None means 1 for l2, else 10.
        walk: steps of DeepFool to start with; 0 for none.
        search_steps: halvings of the final bisection.
        target: ``(N,)`` labels to reach; None means any label but ``y``.

    Returns:
        An :class:`AttackResult`.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[0.6, 0.4]])
        >>> round(float(attacks.fmn(model, x, y, norm="l2").distance), 2)
        0.14
    """
    check(x, y, 0.0, norm, target)
    checks.at_least(1, steps=steps)
    checks.at_least(0, walk=walk, search_steps=search_steps)
    if step_size is None:
        step_size = 1.0 if norm == "l2" else 10.0
    gamma = 0.2 if norm == "l1" else 0.05
    with torch.no_grad():
        found = Nearest(model, x, y, target, norm)
        if walk:
            _walk(found, walk, candidates=2)
        z, eps = found.point, found.distance
        for t in range(steps if len(z) else 0):
            fade = (1 + math.cos(math.pi * t / steps)) / 2
            shrink = gamma * max(fade, 0.02)
            with torch.enable_grad():
                z = z.detach().clone().requires_grad_()
                logits, fooled = found.near(z)
                value = objective(logits, found.labels, found.goal)
            g, z = found.climb(value, z), z.detach()
            dual = norm_of(g, DUALS[norm]).clamp_min(1e-12)
            ask = -value.detach().to(z.dtype) / dual
            ask = norm_of(z - found.start, norm) + ask.clamp(0, 1e6)
            # Where rivals take turns the linear guess falls short for ever: grow on.
            ask = ask.maximum(eps.nan_to_num(posinf=0) * (1 + gamma))
            grown = torch.where(found.distance.isfinite(), eps * (1 + shrink), ask)
            near = torch.minimum(eps, found.distance) * (1 - shrink)
            eps = torch.where(fooled, near, grown)
            unit = norm_of(g, "l2").clamp_min(1e-12)
            z = z + step_size * max(fade, 0.01) * g / per_row(unit, g)
            z = BALLS[norm](found.start, eps).project_(z)
        if len(z):
            found.near(z)
        return found.finish(search_steps)


def adam_step(moments: list[Tensor], g: Tensor, t: int) -> Tensor:
    """Return Adam's step: the mean gradient over its root mean square.

    It is about one in each coordinate whose gradients agree (Kingma and Ba 2015).

    Args:
        moments: running means of gradient and square, ``(n, ...)`` each; they move on.
        g: ``(n, ...)`` gradient.
        t: which step it is, from 1.
    """
    moments[:] = moments[0].lerp(g, 0.1), moments[1].lerp(g.square(), 0.001)
    size = (moments[1] / (1 - 0.999**t)).sqrt() + 1e-8
    return moments[0] / (1 - 0.9**t) / size


@door
def sigma_zero(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l0",
    steps: int = 200,
    adam: bool = False,
    target: Tensor | None = None,
) -> AttackResult:
    r"""Change as few coordinates as possible, by descent on a smooth count.

    The loss is the hinge of the margin, its gradient scaled to a largest entry of one,
    plus :math:`\frac1d \sum_i \delta_i^2 / (\delta_i^2 + \sigma)` with
    :math:`\sigma = 10^{-3}`. The whole gradient, scaled alike, moves :math:`\delta`;
    then coordinates below a threshold, at first 0.3, return to zero. The threshold
    rises while the sample is fooled and falls while it is not (Cinà et al. 2025). A
    bisection of the number of coordinates ends it.

    With ``adam`` the step is Adam's, as in the authors' program, and shrinks from one
    to a tenth instead of zero. Adversarially trained networks need it: on them plain
    descent changes far more coordinates.

    Cost: ``steps + 15`` forward, ``steps + 1`` backward passes.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"l0"``, the only one.
        steps: steps of the descent, at least 1.
        adam: step by Adam; finds fewer coordinates where it matters.
        target: ``(N,)`` labels to reach; None means any label but ``y``.

    Returns:
        An :class:`AttackResult`.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[0.6, 0.4]])
        >>> attacks.sigma_zero(model, x, y).distance
        tensor([1.])
    """
    check(x, y, 0.0, norm, target, ("l0",))
    checks.at_least(1, steps=steps)
    with torch.no_grad():
        found = Nearest(model, x, y, target, "l0")
        delta = torch.zeros_like(found.start)
        cut, sigma = torch.full_like(found.distance, 0.3), 1e-3
        moments, least = [delta, delta], 0.1 if adam else 0.0
        for t in range(steps if len(delta) else 0):
            fade = least + (1 - least) * (1 + math.cos(math.pi * t / steps)) / 2
            with torch.enable_grad():
                z = (found.start + delta).requires_grad_()
                logits, fooled = found.near(z)
                # The hinge: who is fooled is no longer pushed.
                value = objective(logits, found.labels, found.goal).clamp_max(0)
            g = -found.climb(value, z)
            # To length one, so that the count weighs the same at any scale of logits.
            g /= per_row(norm_of(g, "linf").clamp_min(1e-30), g)
            g += (
                2 * sigma * delta / (delta.square() + sigma).square() / delta[0].numel()
            )
            largest = per_row(norm_of(g, "linf").clamp_min(1e-12), g)
            pace = max(fade, 1e-3)
            step = pace * g / largest
            if adam:
                step = pace * adam_step(moments, g / largest, t + 1)
            delta = (found.start + (delta - step)).clamp(0, 1) - found.start
            cut = (cut + 0.01 * fade * (2 * fooled.to(cut.dtype) - 1)).clamp(0, 1)
            delta *= delta.abs() >= per_row(cut, delta)
        if len(delta):
            found.near(found.start + delta)
        return found.finish(12)


@door
def minimal(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    attack: Callable[..., AttackResult] = apgd,
    search_steps: int = 12,
    **options: Any,
) -> AttackResult:
    r"""Bisect the budget of any attack, for each sample on its own.

    The bracket, at first from :math:`2^{-24}` of the budget to the budget, is halved in
    the logarithm: k runs bring the distance within a factor of :math:`2^{24 / 2^k}`,
    12 within 0.4 %, however small it is. The point lies near the boundary: rounding to
    8 bits may undo it.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: largest budget, a number or ``(N,)``; what resists it is not a success.
        norm: of the ball, one that the attack knows.
        attack: such as :func:`crlib.attacks.pgd`; takes ``eps`` of shape ``(N,)``.
        search_steps: runs of the attack after the first.
        **options: for ``attack``.

    Returns:
        An :class:`AttackResult`.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[0.6, 0.4]])
        >>> found = attacks.minimal(model, x, y, eps=0.5, attack=attacks.pgd)
        >>> round(float(found.distance), 2)
        0.1
    """
    high = check(x, y, eps, norm)
    checks.at_least(0, search_steps=search_steps)
    best = attack(model, x, y, eps=high, norm=norm, **options)
    low, high = high * 2.0**-24, torch.minimum(high, best.distance)
    for _ in range(search_steps if len(x) else 0):
        # Roots first: the product of two small numbers may be zero.
        middle = low.sqrt() * high.sqrt()
        now = attack(model, x, y, eps=middle, norm=norm, **options)
        low = torch.where(now.success, low, middle)
        high = torch.where(now.success, torch.minimum(middle, now.distance), high)
        best = minimum_of(best, now)
    return best


def minimum_of(*results: AttackResult) -> AttackResult:
    """Return the nearest success of each sample; the costs and the notes add up.

    Of a cascade ``by`` stays; a success of a result that names no attack is "unnamed".

    Raises:
        ValueError: no results, or not of one norm on the same samples.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[0.6, 0.4]])
        >>> near = attacks.deepfool(model, x, y, norm="linf")
        >>> far = attacks.pgd(model, x, y, eps=0.3)
        >>> attacks.minimum_of(near, far).distance.equal(near.distance)
        True
    """
    if not results or len({(r.norm, r.x_adv.shape) for r in results}) > 1:
        raise ValueError("Give results of one norm on the same samples, at least one.")
    best = results[0]
    for other in results[1:]:
        nearer = other.distance < best.distance
        best = replace(
            best,
            x_adv=pick(nearer, other.x_adv, best.x_adv),
            success=best.success | other.success,
            distance=torch.minimum(best.distance, other.distance),
            n_forward=best.n_forward + other.n_forward,
            n_backward=best.n_backward + other.n_backward,
            zero_gradient=best.zero_gradient | other.zero_gradient,
            by=_names(best, other, nearer) if best.by or other.by else (),
            notes=told(best, other),
        )
    return best


def _names(best: AttackResult, other: AttackResult, nearer: Tensor) -> tuple[str, ...]:
    """Return which attack found the nearer point of each sample."""
    said = {0.0: "clean", math.inf: ""}
    ours, theirs = (
        r.by or [said.get(d, "unnamed") for d in r.distance.tolist()]
        for r in (best, other)
    )
    return tuple(
        their if near else our
        for near, our, their in zip(nearer.tolist(), ours, theirs, strict=True)
    )
