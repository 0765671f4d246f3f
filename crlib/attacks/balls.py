"""The balls of the norms, cut with the box: nearest point, best step, random point."""

import math
from typing import Any

import torch
from torch import Tensor

from crlib.attacks.base import check, per_row, sizes
from crlib.theory.linear import fill_greedily

__all__ = ["Ball", "ball", "draw", "halfspace_step", "project"]


def draw(kind: Any, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the generator's device, so that a CPU generator serves a GPU tensor."""
    out: Tensor = kind(
        like.shape, generator=generator, device=generator.device, dtype=like.dtype
    )
    return out.to(like.device)


def _settled(done: Tensor) -> bool:
    """Say whether all is done; on a GPU asking costs more than the rounds it saves."""
    return done.device.type == "cpu" and bool(done.all())


class LinfBall:
    """The box around ``x`` of half-width ``eps``, cut with [0, 1]."""

    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.low = (x - per_row(eps, x)).clamp_(0, 1)
        self.high = (x + per_row(eps, x)).clamp_(0, 1)

    def keep(self, rows: Tensor) -> None:
        self.low, self.high = self.low[rows], self.high[rows]

    def project_(self, z: Tensor) -> Tensor:
        return torch.clamp(z, self.low, self.high, out=z)

    def step_(self, z: Tensor, g: Tensor, length: Tensor, factor: float = 1) -> Tensor:
        z.addcmul_(g.sign_(), per_row(length, z), value=factor)
        return self.project_(z)

    def random(self, generator: torch.Generator) -> Tensor:
        u = draw(torch.rand, self.low, generator)
        return self.low + u * (self.high - self.low)


class L2Ball:
    """The Euclidean ball around ``x`` of radius ``eps``, cut with [0, 1]."""

    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.x, self.eps = x, eps

    def keep(self, rows: Tensor) -> None:
        self.x, self.eps = self.x[rows], self.eps[rows]

    def project_(self, z: Tensor) -> Tensor:
        # The nearest point of ball and box together is clip(s * (z - x)) with one
        # number s: set s as if the coordinates at a wall stay there, see whether
        # more of them meet a wall, repeat. s only grows, and the point stays inside
        # the ball. Clipping after rescaling instead would lose part of the budget.
        v, low, high = z - self.x, -self.x, 1 - self.x
        d = v.clamp(low, high)
        outside = sizes(d, "l2") > self.eps
        if _settled(~outside):
            return z.copy_(self.x + d)
        s = torch.ones_like(self.eps)
        s = torch.where(outside, self.eps / sizes(v, "l2").clamp_min(1e-30), s)
        for _ in range(20):
            d = v * per_row(s, v)
            walled = (d < low) | (d > high)
            fixed = torch.where(walled, d.clamp(low, high), 0).flatten(1).square()
            free = torch.where(walled, 0, v).flatten(1).square().sum(1)
            left = (self.eps.square() - fixed.sum(1)).clamp_min(0)
            new = torch.where(outside, (left / free.clamp_min(1e-30)).sqrt(), s)
            new = torch.minimum(new, torch.ones_like(new))
            if _settled(new <= s * (1 + 1e-6)):
                break
            s = torch.maximum(s, new)
        d = (v * per_row(s, v)).clamp(low, high)
        excess = (self.eps / sizes(d, "l2").clamp_min(1e-30)).clamp_max(1)
        return z.copy_(self.x + d * per_row(excess, d))

    def step_(self, z: Tensor, g: Tensor, length: Tensor, factor: float = 1) -> Tensor:
        # A pixel at 0 or 1 whose gradient points out of the box cannot move; counting
        # it in the length of the step would shorten the step of all others. It keeps
        # its push: without it the projection would pull it off the wall again.
        walled = ((z <= 0) & (g < 0)) | ((z >= 1) & (g > 0))
        free = sizes(g.masked_fill(walled, 0), "l2")
        unit = torch.maximum(free, 1e-4 * sizes(g, "l2")).clamp_min(1e-30)
        z.addcmul_(g.div_(per_row(unit, g)), per_row(length, z), value=factor)
        return self.project_(z)

    def random(self, generator: torch.Generator) -> Tensor:
        direction = draw(torch.randn, self.x, generator)
        direction /= per_row(sizes(direction, "l2").clamp_min(1e-30), direction)
        radius = draw(torch.rand, self.eps, generator)
        radius = self.eps * radius ** (1 / self.x[0].numel())
        return self.project_(self.x + direction * per_row(radius, direction))


class L1Ball:
    """The l1 ball around ``x`` of radius ``eps``, cut with [0, 1]."""

    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.x, self.eps = x, eps

    def keep(self, rows: Tensor) -> None:
        self.x, self.eps = self.x[rows], self.eps[rows]

    def project_(self, z: Tensor) -> Tensor:
        # The nearest point moves coordinate i by clip(|v_i| - cut, 0, room_i) with
        # one number cut: Newton's method on it, kept inside a bracket.
        v = z - self.x
        size, room = v.abs(), torch.where(v > 0, 1 - self.x, self.x)
        moved = torch.minimum(size, room)
        outside = sizes(moved, "l1") > self.eps
        if _settled(~outside):
            return z.copy_(self.x + moved * v.sign())
        cut = torch.zeros_like(self.eps)
        low, high = cut, size.flatten(1).amax(1)
        for _ in range(50):
            moved = (size - per_row(cut, z)).clamp_(min=0).minimum(room)
            excess = torch.where(outside, sizes(moved, "l1") - self.eps, 0)
            if _settled(excess.abs() <= 1e-7 * self.eps):
                break
            low = torch.where(excess > 0, cut, low)
            high = torch.where(excess < 0, cut, high)
            moving = ((moved > 0) & (moved < room)).flatten(1).sum(1)
            new = cut + excess / moving.clamp_min(1)
            middle = (low + high) / 2
            new = torch.where((new > low) & (new < high), new, middle)
            cut = torch.where(outside & (excess != 0), new, cut)
        excess = (self.eps / sizes(moved, "l1").clamp_min(1e-30)).clamp_max(1)
        return z.copy_(self.x + moved * v.sign() * per_row(excess, z))

    def step_(self, z: Tensor, g: Tensor, length: Tensor, factor: float = 1) -> Tensor:
        # The steepest l1 step that stays in the box: the coordinates of largest
        # gradient go to their walls, one after another, until the length is spent.
        flat, at = g.flatten(1), z.flatten(1)
        room = torch.where(flat > 0, 1 - at, at).masked_fill(flat == 0, 0)
        order = flat.abs().argsort(dim=1, descending=True)
        room = room.gather(1, order)
        left = (factor * length)[:, None] - (room.cumsum(1) - room)
        move = torch.zeros_like(at).scatter_(1, order, room.minimum(left.clamp_min(0)))
        z += (move * flat.sign()).view_as(z)
        return self.project_(z)

    def random(self, generator: torch.Generator) -> Tensor:
        # Of d + 1 exponential gaps the first d, over their sum, are uniform in the
        # simplex; signs make it the ball.
        gaps = -draw(torch.rand, self.x, generator).clamp_min(1e-12).log()
        last = -draw(torch.rand, self.eps, generator).clamp_min(1e-12).log()
        sign = draw(torch.rand, self.x, generator).sub_(0.5).sign_()
        scale = self.eps / (sizes(gaps, "l1") + last)
        return self.project_(self.x + sign * gaps * per_row(scale, gaps))


Ball = LinfBall | L2Ball | L1Ball
BALLS: dict[str, type[Any]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


def ball(x: Tensor, eps: Tensor, norm: str) -> Ball:
    made: Ball = BALLS[norm](x, eps)
    return made


def project(x_adv: Tensor, x: Tensor, *, eps: float | Tensor, norm: str) -> Tensor:
    r"""Return the nearest point to ``x_adv`` in ball and box together.

    The Euclidean projection onto :math:`\{z \in [0,1]^d : \|z - x\| \le \epsilon\}`.
    Projecting onto the ball and then clipping is not the same for l2 and l1, and
    weaker.

    Args:
        x_adv: ``(N, ...)`` any points.
        x: ``(N, ...)`` centres in [0, 1].
        eps: radius, a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Returns:
        ``(N, ...)``, a new tensor.

    Raises:
        ValueError: an unknown norm, a centre outside the box, a bad radius, or
            shapes that differ.
    """
    if x_adv.shape != x.shape:
        raise ValueError(
            f"x_adv {tuple(x_adv.shape)} and x {tuple(x.shape)} must be alike."
        )
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    radius = check(x, y, eps, norm, None)
    if not len(x):
        return x_adv.detach().clone()
    return ball(x, radius, norm).project_(x_adv.detach().clone())


def halfspace_step(c: Tensor, m: Tensor, x: Tensor, norm: str) -> Tensor:
    r"""Return the least :math:`\delta` with :math:`c^\top\delta \ge m` in the box.

    As :func:`crlib.theory.linear_minimal`, without its sorting for linf and l2. Where
    the box does not reach the half-space, every coordinate goes to its wall.

    Args:
        c: ``(N, ...)`` normals.
        m: ``(N,)`` thresholds; at or below 0 the step is zero.
        x: ``(N, ...)`` in [0, 1].
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
    """
    size = c.abs().flatten(1)
    room = torch.where(c > 0, 1 - x, x).flatten(1).masked_fill(size == 0, 0)
    m = m.clamp_min(0)
    if norm in ("l1", "l0"):
        move = fill_greedily(size, m, room, fractional=norm == "l1")
        return (move * c.flatten(1).sign()).view_as(x)
    pace = size if norm == "l2" else size.sign()
    t = torch.zeros_like(m)
    # What is gained grows ever more slowly with t, so Newton's method climbs to the
    # solution from below.
    for _ in range(20):
        walled = t[:, None] * pace > room
        gained = torch.where(walled, size * room, 0).sum(1)
        slope = torch.where(walled, 0, size * pace).sum(1)
        new = torch.where(slope > 0, (m - gained) / slope.clamp_min(1e-30), math.inf)
        if _settled(new <= t * (1 + 1e-6)):
            break
        t = torch.maximum(t, new).clamp_max(1e30)
    move = (t[:, None] * pace).minimum(room)
    return (move * c.flatten(1).sign()).view_as(x)
