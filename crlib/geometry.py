"""Norms, walls of the box, and the nearest point of a half-space in it.

What attacks and closed forms share: neither room needs the other for it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["NORMS", "halfspace_step", "norm_of", "room_towards", "settled"]

# Other orders of torch's vector norm are five to ten times slower than these sums.
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "linf": lambda v: v.abs().amax(1),
    "l2": lambda v: torch.linalg.vector_norm(v, dim=1),
    "l1": lambda v: v.abs().sum(1),
    "l0": lambda v: v.clone().ne_(0).sum(1),
}
# Whose gradient's length turns a margin into a distance of the norm.
DUALS = {"linf": "l1", "l2": "l2", "l1": "linf"}


def norm_of(delta: Tensor, norm: str) -> Tensor:
    """Return the norm of each sample of ``(N, ...)``, ``(N,)``."""
    return NORMS[norm](delta.flatten(1))


def settled(done: Tensor) -> bool:
    """Say whether all is done; on a GPU asking costs more than the rounds it saves."""
    return done.device.type == "cpu" and bool(done.all())


def room_towards(at: Tensor, g: Tensor) -> Tensor:
    """Return how far each coordinate is from the wall that ``g`` points to."""
    # Comparing in place stays in floating point, which is several times faster.
    return g.clone().gt_(0).sub_(at).abs_()


def halfspace_step(
    c: Tensor, m: Tensor, x: Tensor, norm: str, box: bool = True
) -> Tensor:
    r"""Return the least :math:`\delta` with :math:`c^\top\delta \ge m` in the box.

    Normals ``c`` and ``x``, ``(N, d)``; thresholds ``m``, ``(N,)``, at or below 0 for
    no step. Where the box does not reach that far, every coordinate goes to its wall.
    """
    size, sign, m = c.abs(), c.sign(), m.clamp_min(0)
    room = room_towards(x, c) if box else torch.full_like(x, math.inf)
    if norm in ("l1", "l0"):
        # Coordinates that do not enter the score have no room: they never move.
        room = room.masked_fill(c == 0, 0)
        return _fill_greedily(size, m, room, fractional=norm == "l1") * sign
    pace = size if norm == "l2" else sign.abs()
    wall = size * room if box else torch.zeros_like(size)
    worth, t = size * pace, torch.zeros_like(m)
    # What min(t * pace, room) gains is concave in t and piecewise linear, so Newton's
    # method climbs to the solution from below: in a few rounds, at most d + 1.
    for rounds in range(max(30, c.shape[1] + 2)):
        free = (t[:, None] * pace).le_(room)
        slope = torch.linalg.vecdot(worth, free)
        missing = m - torch.linalg.vecdot(wall, 1 - free)
        new = torch.where(slope > 0, missing / slope, 1e30)
        done = new <= t * (1 + 8 * torch.finfo(t.dtype).eps)
        t = torch.maximum(t, new)
        if settled(done) or (rounds >= 30 and bool(done.all())):
            break
    return (t[:, None] * pace).minimum(room) * sign


def _fill_greedily(size: Tensor, m: Tensor, room: Tensor, fractional: bool) -> Tensor:
    """Spend coordinates in order of worth until ``sum size * move`` reaches m."""
    # Without walls one coordinate, the one of largest weight, does it all.
    cap = torch.where(room.isinf(), m[:, None] / size.clamp_min(1e-300), room)
    gain = size * cap
    order = (size if fractional else gain).sort(dim=1, descending=True).indices
    before = gain.gather(1, order).cumsum(1) - gain.gather(1, order)
    needed = torch.zeros_like(before).scatter(1, order, m[:, None] - before)
    used = needed > 1e-12 * m[:, None]
    if not fractional:
        return torch.where(used, cap, 0.0)
    return torch.where(used, torch.minimum(cap, needed / size.clamp_min(1e-300)), 0.0)
