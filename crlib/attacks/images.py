"""Images of 8 bits: adversarial points that survive in a file."""

from dataclasses import replace

import torch
from torch import Tensor

from crlib.attacks.base import (
    AttackResult,
    Model,
    Search,
    check_again,
    door,
    per_row,
)
from crlib.geometry import norm_of

# A coordinate goes on to the next level away from x where more than such a share of
# the way to it is made: to the nearest level first; below zero always, for points a
# hair beyond a boundary; never on at last.
SHARES = (0.5, 0.2, 0.01, -1.0, 0.6, 0.7, 0.8, 0.9, 1.0)


@door
def as_images(
    result: AttackResult,
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    target: Tensor | None = None,
) -> AttackResult:
    r"""Round what an attack found to images of 8 bits, and ask the model again.

    The rounded point lies on the grid of multiples of 1/255, inside ball and box. Nine
    roundings of the way from ``x`` are tried, and the first that fools is kept. In each
    a coordinate that moved goes on to the next level where more than some share of the
    way to it is made: a half, which is the nearest level, then less, then always, then
    more; at last never, which leaves no ball. A rounding that does is replaced by this
    one. None may fool, though the point did: then the sample stands, and ``notes`` says
    how many do. So the robust accuracy against files is an upper bound, as that of any
    attack.

    Cost: 10 forward passes at most.

    Args:
        result: of an attack on ``model`` at ``x``.
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1], itself an image of 8 bits.
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, in the norm of the result, a number or ``(N,)``. For
            an attack of smallest distance, how far its points may be moved.
        target: ``(N,)`` labels, if the attack was given them: what counts as fooled.

    Returns:
        An :class:`AttackResult` with the passes of both.

    Raises:
        ValueError: bad input, or inputs that are not on the grid.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[154.0, 100.0]]) / 255
        >>> near = attacks.fmn(model, x, y)
        >>> found = attacks.as_images(near, model, x, y, eps=0.2)
        >>> found.success, (255 * found.x_adv).round()
        (tensor([True]), tensor([[126., 128.]]))
    """
    radius = check_again(result, x, y, eps, target)
    level = (255 * x.detach()).round()
    if len(x) and ((level - 255 * x.detach()).abs() > 1e-3).any():
        raise ValueError(
            "x is no image of 8 bits: attack (255 * x).round() / 255, which is."
        )
    run = Search(model, level / 255, y, target, result.norm)
    way = 255 * (result.x_adv.to(x) - x).detach()  # in levels, zero where nothing moved
    with torch.no_grad():
        run.look_at_clean()
        rows = run.standing()
        for share in SHARES:
            if not len(rows):
                break
            step = _rounded(way[rows], share, radius[rows], result.norm)
            z = ((level[rows] + step) / 255).clamp(0, 1)
            keep = ~run.see(z, rows, last=share == SHARES[-1]).fooled
            rows = rows[keep]
    return _told(result, run)


def _rounded(way: Tensor, share: float, eps: Tensor, norm: str) -> Tensor:
    """Return whole levels along a way, ``(n, ...)``, in a ball of radius eps, (n,)."""
    size = way.abs()
    short = (size + 1e-3).floor()  # what is a level up to rounding is that level
    step = short + (size - short > share)
    reach = 255 * eps * (1 + 1e-6)
    if norm == "linf":
        most = per_row(reach.floor(), way)
        return way.sign() * step.minimum(most)
    counts = norm == "l0"
    inside, least = (
        norm_of(v, norm) <= (eps if counts else reach) for v in (step, short)
    )
    step = torch.where(per_row(inside, way), step, short)
    # A point outside the ball of the caller, as of another budget, is not rounded.
    return way.sign() * step * per_row(least, way)


def _told(result: AttackResult, run: Search) -> AttackResult:
    """Return what rounding found, with what the attack had cost and said."""
    found = run.result()
    before, undone = result.success, result.success & ~found.success
    note = f"Rounding to 8 bits undid {undone.sum()} of {before.sum()} successes."
    by = tuple(
        (name or "rounding") if hit else ""
        for name, hit in zip(result.by, found.success.tolist(), strict=False)
    )
    return replace(
        found,
        n_forward=result.n_forward + found.n_forward,
        n_backward=result.n_backward,
        zero_gradient=result.zero_gradient,
        by=by,
        notes=(*result.notes, note) if undone.any() else result.notes,
    )
