"""The balls of the norms, cut with the box: nearest point, best step, random point."""

from typing import Any

import torch
from torch import Tensor

from crlib.attacks.base import check, per_row
from crlib.geometry import norm_of, room_towards, settled


def draw(kind: Any, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the generator's device, so that a CPU generator serves a GPU tensor."""
    out: Tensor = kind(
        like.shape, generator=generator, device=generator.device, dtype=like.dtype
    )
    return out.to(like.device)


def _free(z: Tensor, sign: Tensor) -> Tensor:
    """Return where a step along ``sign``, which is used up, has room in the box.

    A coordinate that rounding left a hair off its wall has none: else the last bit of a
    point would decide how far all other coordinates move.
    """
    room = sign.add_(z).clamp_(0, 1).sub_(z).abs_()
    return room.gt_(8 * torch.finfo(z.dtype).eps)


def _shrink(delta: Tensor, eps: Tensor, norm: str) -> Tensor:
    """Scale what is longer than ``eps``, ``(N, d)``, which rounding may leave so."""
    excess = eps / norm_of(delta, norm).clamp_min(1e-30)
    return delta.mul_(excess.clamp_max(1)[:, None])


def _spend(size: Tensor, room: Tensor, length: Tensor, few: int = 32) -> Tensor:
    """Fill the rooms, ``(N, d)``, of largest size first, until a length is spent."""
    # Most steps end within few coordinates, which a processor finds far faster than
    # the order of all. A GPU would have to wait to hear whether they suffice.
    dim = size.shape[1]
    few = min(few, dim) if size.device.type == "cpu" else dim
    order = size.topk(few).indices
    kept = room.gather(1, order)
    left = (length[:, None] - (kept.cumsum(1) - kept)).clamp_min_(0)
    move = torch.zeros_like(size).scatter_(1, order, kept.minimum(left))
    if few < dim:
        short = (kept.sum(1) < length).nonzero().squeeze(1)
        if len(short):
            move[short] = _spend(size[short], room[short], length[short], dim)
    return move


class Ball:
    """The ball of a norm around ``x`` of radius ``eps``, cut with [0, 1]."""

    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.x, self.eps = x, eps

    def keep(self, rows: Tensor) -> None:
        self.x, self.eps = self.x.index_select(0, rows), self.eps[rows]

    def project_(self, z: Tensor) -> Tensor:
        """Move ``z`` to the nearest point."""
        delta = (z - self.x).flatten(1)
        return torch.add(self.x, self.shorten(delta).view_as(z), out=z)

    def shorten(self, v: Tensor) -> Tensor:
        """Shorten ways ``v`` from ``x``, ``(N, d)``, to the nearest member's."""
        raise NotImplementedError

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        """Take the steepest step of a length along ``g``, which is used up; project."""
        raise NotImplementedError

    def random(self, generator: torch.Generator) -> Tensor:
        """Draw a point: uniform, then projected; in l1 noise that is projected."""
        raise NotImplementedError


class LinfBall(Ball):
    def project_(self, z: Tensor) -> Tensor:
        # Keeping both ends would take twice the memory of the inputs.
        reach = per_row(self.eps, z)
        torch.maximum(z, self.x - reach, out=z)
        return torch.minimum(z, self.x + reach, out=z).clamp_(0, 1)

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        return self.project_(z.addcmul_(g.sign_(), per_row(length, z)))

    def random(self, generator: torch.Generator) -> Tensor:
        reach, share = per_row(self.eps, self.x), draw(torch.rand, self.x, generator)
        low, high = (self.x - reach).clamp_(0, 1), (self.x + reach).clamp_(0, 1)
        return torch.lerp(low, high, share)


class L2Ball(Ball):
    def shorten(self, v: Tensor) -> Tensor:
        # The nearest point of ball and box together is clip(v * sqrt(u)) with one
        # number u. Its squared length is concave in u and piecewise linear, so the
        # secant method climbs to the answer from inside the ball, in a few rounds.
        # Clipping after rescaling instead would lose part of the budget.
        low = -self.x.flatten(1)
        high = low + 1
        d = v.clamp(low, high)
        size, wanted = norm_of(d, "l2"), self.eps.square()
        inside = size <= self.eps
        if settled(inside):
            return d
        limit = (wanted / size.square().clamp_min(1e-30)).clamp_max(1)
        u = (
            (self.eps / norm_of(v, "l2").clamp_min(1e-30))
            .square()
            .masked_fill(inside, 1)
        )
        before = got_before = torch.zeros_like(u)
        for _ in range(20):
            d = torch.mul(v, u.sqrt()[:, None], out=d).clamp_(low, high)
            got = norm_of(d, "l2").square()
            done = inside | (got >= wanted * (1 - 2e-6))
            if settled(done):
                break
            slope = (got - got_before).clamp_min(1e-30) / (u - before)
            new = (u + (wanted - got) / slope).minimum(limit)
            # Never back: of many coordinates a sum can be rounded by more than the
            # tolerance, and the next slope would be negative.
            new = torch.where(done, u, new.maximum(u))
            before, got_before, u = u, got, new
        return _shrink(d, self.eps, "l2")

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        # A pixel at 0 or 1 whose gradient points out of the box cannot move; counting
        # it in the length of the step would shorten the step of all others. It keeps
        # its push: without it the projection would pull it off the wall again.
        free = norm_of(_free(z, g.sign()).mul_(g), "l2")
        unit = torch.maximum(free, 1e-4 * norm_of(g, "l2")).clamp_min(1e-30)
        return self.project_(z.addcmul_(g, per_row(length / unit, z)))

    def random(self, generator: torch.Generator) -> Tensor:
        direction = draw(torch.randn, self.x, generator)
        radius = self.eps * draw(torch.rand, self.eps, generator).pow(
            1 / self.x[0].numel()
        )
        radius /= norm_of(direction, "l2").clamp_min(1e-30)
        return self.project_(self.x + direction * per_row(radius, direction))


class L1Ball(Ball):
    def shorten(self, v: Tensor) -> Tensor:
        # The nearest point moves coordinate i by clip(|v_i| - cut, 0, room_i) with
        # one number cut: Newton's method on it, kept inside a bracket.
        size, sign = v.abs(), v.sign()
        room = room_towards(self.x.flatten(1), v)
        left, moved = size, torch.minimum(size, room)
        spent, slack = moved.sum(1), 1e-6 * self.eps
        outside = spent > self.eps
        if settled(~outside):
            return moved.mul_(sign)
        cut = torch.zeros_like(self.eps)
        low, high = cut, size.amax(1)
        for _ in range(50):
            excess = torch.where(outside, spent - self.eps, 0)
            low = torch.where(excess > 0, cut, low)
            high = torch.where(excess < 0, cut, high)
            done = excess.abs() <= slack
            if settled(done):
                break
            moving = (room - left).minimum(left).gt_(0).sum(1)
            # Infinite where nothing moves. An end of the bracket, where the search has
            # been, is no better: going back and forth between two ends never stops.
            new = cut + excess / moving
            fresh = (new > low) & (new < high) | (new == cut)
            new = torch.where(fresh, new, (low + high) / 2)
            new = torch.where(done, cut, new)
            # Rounding may keep a sum from coming closer: no cut lies in between.
            if settled(new == cut):
                break
            cut, left = new, size - new[:, None]
            moved = left.clamp_min(0).minimum(room)
            spent = moved.sum(1)
        return _shrink(moved, self.eps, "l1").mul_(sign)

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        # The steepest l1 step that stays in the box: the coordinates of largest
        # gradient go to their walls, one after another, until the length is spent.
        g, at = g.flatten(1), z.flatten(1)
        sign = g.sign()
        room = room_towards(at, g).mul_(sign.abs())
        size = room.clone().gt_(0).mul_(g).abs_()
        move = _spend(size, room, length).mul_(sign)
        return self.project_(z.add_(move.view_as(z)))

    def sparse_step_(
        self, z: Tensor, g: Tensor, length: Tensor, share: Tensor
    ) -> Tensor:
        """Move a share of the coordinates alike, those of largest gradient."""
        g, at = g.flatten(1), z.flatten(1)
        sign = g.sign()
        # A coordinate at the wall that its gradient points to does not count.
        size = _free(at, sign.clone()).mul_(g).abs_()
        size /= size.amax(1, keepdim=True).clamp_min(1e-30)
        # Halving the orders of magnitude finds the limit far faster than sorting;
        # what is below a ten-thousandth of the largest is left alone.
        count, high = share[:, None] * g.shape[1], torch.ones_like(share)[:, None]
        low = 1e-4 * high
        for _ in range(8):
            middle = (low * high).sqrt()
            many = size.clone().ge_(middle).sum(1, keepdim=True) > count
            low, high = torch.where(many, middle, low), torch.where(many, high, middle)
        chosen = sign.mul_(size.ge_(high))
        pace = length / chosen.abs().sum(1).clamp_min(1)
        return self.project_(z.addcmul_(chosen.view_as(z), per_row(pace, z)))

    def random(self, generator: torch.Generator) -> Tensor:
        # A uniform point would move every coordinate a little, which hardly leaves x.
        return self.project_(self.x + draw(torch.randn, self.x, generator))


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


def project(x_adv: Tensor, x: Tensor, *, eps: float | Tensor, norm: str) -> Tensor:
    r"""Return the nearest point to ``x_adv`` in ball and box together, a new tensor.

    The Euclidean projection onto :math:`\{z \in [0,1]^d : \|z - x\| \le \epsilon\}`.
    Projecting onto the ball and then clipping is not the same for l2 and l1, and
    weaker.

    Args:
        x_adv: ``(N, ...)`` any points.
        x: ``(N, ...)`` centres in [0, 1].
        eps: radius in input units (write ``8/255``), a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        ValueError: bad input, or shapes that differ.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> x, z = torch.tensor([[0.5, 0.9]]), torch.tensor([[0.9, 1.2]])
        >>> attacks.project(z, x, eps=0.2, norm="linf")
        tensor([[0.7000, 1.0000]])
    """
    if x_adv.shape != x.shape:
        raise ValueError(
            f"x_adv {tuple(x_adv.shape)} and x {tuple(x.shape)} must be alike."
        )
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    radius = check(x, y, eps, norm)
    z = x_adv.detach().clone()
    return BALLS[norm](x.detach(), radius).project_(z) if len(x) else z
