"""The balls of the norms, cut with the box: nearest point, best step, random point."""

import math
from typing import Any

import torch
from torch import Tensor

from crlib.attacks.base import check, per_row, sizes
from crlib.theory.linear import fill_greedily

__all__ = ["Ball", "draw", "halfspace_step", "project"]


def draw(kind: Any, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the generator's device, so that a CPU generator serves a GPU tensor."""
    out: Tensor = kind(
        like.shape, generator=generator, device=generator.device, dtype=like.dtype
    )
    return out.to(like.device)


def _settled(done: Tensor) -> bool:
    """Say whether all is done; on a GPU asking costs more than the rounds it saves."""
    return done.device.type == "cpu" and bool(done.all())


def _shrink(delta: Tensor, eps: Tensor, norm: str) -> Tensor:
    """Scale what is longer than ``eps``, ``(N, d)``, which rounding may leave so."""
    excess = eps / sizes(delta, norm).clamp_min(1e-30)
    return delta.mul_(excess.clamp_max(1)[:, None])


class Ball:
    """The ball of a norm around ``x`` of radius ``eps``, cut with [0, 1]."""

    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.x, self.eps = x, eps

    def keep(self, rows: Tensor) -> None:
        self.x, self.eps = self.x.index_select(0, rows), self.eps[rows]

    def project_(self, z: Tensor) -> Tensor:
        """Move ``z`` to the nearest point."""
        delta = (z - self.x).flatten(1)
        return torch.add(self.x, self.nearest(delta).view_as(z), out=z)

    def nearest(self, v: Tensor) -> Tensor:
        """Return the nearest member to ``x + v`` as its way from ``x``, ``(N, d)``."""
        raise NotImplementedError

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        """Take the steepest step of a length along ``g``, which is used up; project."""
        raise NotImplementedError

    def random(self, generator: torch.Generator) -> Tensor:
        """Draw a point: uniform, then projected; in l1 noise that is projected."""
        raise NotImplementedError


class LinfBall(Ball):
    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.low = (x - per_row(eps, x)).clamp_(0, 1)
        self.high = (x + per_row(eps, x)).clamp_(0, 1)

    def keep(self, rows: Tensor) -> None:
        self.low = self.low.index_select(0, rows)
        self.high = self.high.index_select(0, rows)

    def project_(self, z: Tensor) -> Tensor:
        return torch.clamp(z, self.low, self.high, out=z)

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        return self.project_(z.addcmul_(g.sign_(), per_row(length, z)))

    def random(self, generator: torch.Generator) -> Tensor:
        return torch.lerp(self.low, self.high, draw(torch.rand, self.low, generator))


class L2Ball(Ball):
    def nearest(self, v: Tensor) -> Tensor:
        # The nearest point of ball and box together is clip(s * v) with one number s:
        # set s as if the coordinates at a wall stay there, see whether more of them
        # meet a wall, repeat. s only grows, and the point stays inside the ball.
        # Clipping after rescaling instead would lose part of the budget.
        low = -self.x.flatten(1)
        high, d = low + 1, v.clamp(low, low + 1)
        outside = sizes(d, "l2") > self.eps
        if _settled(~outside):
            return d
        s = (self.eps / sizes(v, "l2").clamp_min(1e-30)).masked_fill(~outside, 1)
        for _ in range(20):
            wide = v * s[:, None]
            d = wide.clamp(low, high)
            free = (d == wide).to(v.dtype)
            fixed = (d * (1 - free)).square().sum(1)
            free = (v * free).square().sum(1)
            left = (self.eps.square() - fixed).clamp_min(0)
            new = (left / free.clamp_min(1e-30)).sqrt().clamp_max(1)
            new = torch.where(outside, new, s)
            if _settled(new <= s * (1 + 1e-6)):
                break
            s = torch.maximum(s, new)
        return _shrink((v * s[:, None]).clamp(low, high), self.eps, "l2")

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        # A pixel at 0 or 1 whose gradient points out of the box cannot move; counting
        # it in the length of the step would shorten the step of all others. It keeps
        # its push: without it the projection would pull it off the wall again.
        moving = (z + g.sign()).clamp_(0, 1).ne(z).to(g.dtype)
        free = sizes(g * moving, "l2")
        unit = torch.maximum(free, 1e-4 * sizes(g, "l2")).clamp_min(1e-30)
        return self.project_(z.addcmul_(g, per_row(length / unit, z)))

    def random(self, generator: torch.Generator) -> Tensor:
        direction = draw(torch.randn, self.x, generator)
        radius = self.eps * draw(torch.rand, self.eps, generator).pow(
            1 / self.x[0].numel()
        )
        radius /= sizes(direction, "l2").clamp_min(1e-30)
        return self.project_(self.x + direction * per_row(radius, direction))


class L1Ball(Ball):
    def nearest(self, v: Tensor) -> Tensor:
        # The nearest point moves coordinate i by clip(|v_i| - cut, 0, room_i) with
        # one number cut: Newton's method on it, kept inside a bracket.
        size, sign = v.abs(), v.sign()
        room = (v > 0).to(v.dtype).sub_(self.x.flatten(1)).abs_()
        left, moved = size, torch.minimum(size, room)
        outside = moved.sum(1) > self.eps
        if _settled(~outside):
            return moved.mul_(sign)
        cut = torch.zeros_like(self.eps)
        low, high = cut, size.amax(1)
        for _ in range(50):
            excess = (moved.sum(1) - self.eps).masked_fill(~outside, 0)
            low = torch.where(excess > 0, cut, low)
            high = torch.where(excess < 0, cut, high)
            moving = ((left > 0) & (left < room)).sum(1)
            new = cut + excess / moving.clamp_min(1)
            middle = (low + high) / 2
            new = torch.where((new >= low) & (new <= high), new, middle)
            new = torch.where(excess.abs() > 1e-6 * self.eps, new, cut)
            # Rounding may keep a sum from coming closer: no cut lies in between.
            if _settled(new == cut):
                break
            cut = new
            left = size - cut[:, None]
            moved = left.clamp_min(0).minimum(room)
        return _shrink(moved, self.eps, "l1").mul_(sign)

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        # The steepest l1 step that stays in the box: the coordinates of largest
        # gradient go to their walls, one after another, until the length is spent.
        g, at = g.flatten(1), z.flatten(1)
        sign = g.sign()
        room = (sign > 0).to(g.dtype).sub_(at).abs_().mul_(sign.abs())
        size = g.abs().mul_(room > 0)
        order = largest(size, room, length)
        kept = room.gather(1, order)
        left = length[:, None] - (kept.cumsum(1) - kept)
        move = torch.zeros_like(at)
        move.scatter_(1, order, kept.minimum(left.clamp_min(0)))
        return self.project_(z.add_(move.mul_(sign).view_as(z)))

    def sparse_step_(
        self, z: Tensor, g: Tensor, length: Tensor, share: Tensor
    ) -> Tensor:
        """Move a share of the coordinates alike, those of largest gradient."""
        g, at = g.flatten(1), z.flatten(1)
        sign = g.sign()
        # A coordinate at the wall that its gradient points to does not count.
        size = g.abs().mul_((at + sign).clamp_(0, 1) != at)
        # The limit is that of a part of the coordinates, which is found faster.
        some = size[:, :: max(1, g.shape[1] // 1024)]
        rank = (share * some.shape[1]).long().clamp(1, some.shape[1])
        limit = some.sort(1, descending=True).values.gather(1, rank[:, None] - 1)
        chosen = sign.mul_((size >= limit) & (size > 0))
        pace = length / chosen.abs().sum(1).clamp_min(1)
        return self.project_(z.addcmul_(chosen.view_as(z), per_row(pace, z)))

    def random(self, generator: torch.Generator) -> Tensor:
        # A uniform point would move every coordinate a little, which hardly leaves x.
        return self.project_(self.x + draw(torch.randn, self.x, generator))


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


def largest(size: Tensor, gain: Tensor, needed: Tensor) -> Tensor:
    """Return the order of falling ``size``, as far as ``needed`` of ``gain`` takes it.

    Sorting all coordinates costs five times as much as finding the first few.
    """
    few = min(256, size.shape[1])
    if size.device.type == "cpu" and few < size.shape[1]:
        order = size.topk(few, 1).indices
        if (gain.gather(1, order).sum(1) >= needed).all():
            return order
    return size.argsort(1, descending=True)


def project(x_adv: Tensor, x: Tensor, *, eps: float | Tensor, norm: str) -> Tensor:
    r"""Return the nearest point to ``x_adv`` in ball and box together, a new tensor.

    The Euclidean projection onto :math:`\{z \in [0,1]^d : \|z - x\| \le \epsilon\}`.
    Projecting onto the ball and then clipping is not the same for l2 and l1, and
    weaker.

    Args:
        x_adv: ``(N, ...)`` any points.
        x: ``(N, ...)`` centres in [0, 1].

    Raises:
        ValueError: bad input, or shapes that differ.
    """
    if x_adv.shape != x.shape:
        raise ValueError(
            f"x_adv {tuple(x_adv.shape)} and x {tuple(x.shape)} must be alike."
        )
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    radius = check(x, y, eps, norm)
    z = x_adv.detach().clone()
    return BALLS[norm](x, radius).project_(z) if len(x) else z


def halfspace_step(c: Tensor, m: Tensor, x: Tensor, norm: str) -> Tensor:
    r"""Return the least :math:`\delta` with :math:`c^\top\delta \ge m` in the box.

    As :func:`crlib.theory.linear_minimal`, without sorting all coordinates. Where the
    box does not reach the half-space, every coordinate goes to its wall. Normals ``c``
    and ``x``, ``(N, ...)``; thresholds ``m``, ``(N,)``, at or below 0 for no step.
    """
    size, sign = c.abs().flatten(1), c.sign().flatten(1)
    room = (sign > 0).to(c.dtype).sub_(x.flatten(1)).abs_().mul_(sign.abs())
    m = m.clamp_min(0)
    if norm in ("l1", "l0"):
        gain = size * room
        order = largest(size if norm == "l1" else gain, gain, m * (1 + 1e-6))
        part = fill_greedily(
            size.gather(1, order), m, room.gather(1, order), fractional=norm == "l1"
        )
        move = torch.zeros_like(size).scatter_(1, order, part)
        return move.mul_(sign).view_as(x)
    pace = size if norm == "l2" else sign.abs()
    worth, t = size * pace, torch.zeros_like(m)
    # What is gained grows ever more slowly with t, so Newton's method climbs to the
    # solution from below.
    for _ in range(20):
        free = (t[:, None] * pace <= room).to(c.dtype)
        gained = (size * room * (1 - free)).sum(1)
        slope = (worth * free).sum(1)
        new = torch.where(slope > 0, (m - gained) / slope.clamp_min(1e-30), math.inf)
        if _settled(new <= t * (1 + 1e-6)):
            break
        t = torch.maximum(t, new).clamp_max(1e30)
    return (t[:, None] * pace).minimum(room).mul_(sign).view_as(x)
