"""A patch: a square of an image in which every pixel is free."""

import torch
from torch import Tensor
from torch.nn import functional

from crlib import checks
from crlib.attacks.base import AttackResult, Model, Search, check, door


@door
def patch(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    size: int,
    steps: int = 20,
    places: int = 4,
    generator: torch.Generator | None = None,
) -> AttackResult:
    r"""Paint a square of each image, where and how it fools.

    To first order a pixel gains :math:`\max_{v \in [0,1]} g\,(v - x)` by its gradient
    g, and a square the sum over its pixels. The places of largest gain, none beside a
    better one, are tried in turn: all pixels at the end of the box that the gradient
    at ``x`` points to, then sign steps whose length falls from a half to zero. On an
    affine model of two classes it is exact. A square that has to print, or to fool
    from several sides, is another question (Brown et al. 2017).

    Cost: ``places * steps + 2`` forward, ``places * (steps - 1) + 1`` backward passes
    at most.

    Args:
        model: maps ``(N, C, H, W)`` to logits ``(N, K)``; normalisation is its first
            layer.
        x: ``(N, C, H, W)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        size: side of the square in pixels; all channels of a pixel are free.
        steps: points looked at in each place, at least 1.
        places: places tried, at least 1.
        generator: source of chance where a gradient is zero; None means a new one of
            seed 0.

    Returns:
        An :class:`AttackResult` whose norm is ``"l0"``: a distance counts the values
        that changed, at most C times the pixels of the square.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> x, y = torch.full((1, 1, 3, 3), 0.5), torch.tensor([0])
        >>> light = lambda v: torch.stack([1 - v[:, 0, 2, 1], v[:, 0, 2, 1]], 1)
        >>> found = attacks.patch(light, x, y, size=1)
        >>> found.success, found.x_adv[0, 0, 2]
        (tensor([True]), tensor([0.5000, 1.0000, 0.5000]))
    """
    check(x, y, 0.0, "linf")
    checks.at_least(1, size=size, steps=steps, places=places)
    if x.ndim != 4 or (len(x) and size > min(x.shape[2:])):
        raise ValueError(
            f"x is {tuple(x.shape)}, size {size}: give images (N, C, H, W) that the"
            " square fits into."
        )
    run, source = Search(model, x, y, None, "l0"), checks.chance(generator)
    with torch.no_grad():
        run.look_at_clean()
        rows = run.standing()
        if not len(rows):
            return run.result()
        clean = run.x[rows]  # (n, C, H, W)
        g, rows, standing = _slope(run, clean, rows, source)
        clean = clean[standing]
        for windows in _places(clean, g, size, places):  # (n, 1, H, W) each
            _paint(run, clean, g, windows, rows, steps, source)
    return run.result()


def _slope(
    run: Search, z: Tensor, rows: Tensor, source: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the points that do not fool, their rows, and which."""
    with torch.enable_grad():
        z = z.clone().requires_grad_()
        look = run.see(z, rows)
    g = run.slope(look.value, z, rows)
    run.shake(g, rows, source)
    keep = ~look.fooled
    return g[keep], rows[keep], keep


def _places(x: Tensor, g: Tensor, size: int, places: int) -> list[Tensor]:
    """Return masks ``(n, 1, H, W)`` of the squares of largest gain, best first."""
    room = torch.where(g > 0, 1 - x, x)
    each = (g.abs() * room).sum(1, keepdim=True)  # (n, 1, H, W)
    gain = functional.avg_pool2d(each, size, stride=1)  # one a place
    reach = size // 2
    best = functional.max_pool2d(gain, 2 * reach + 1, stride=1, padding=reach)
    # Only the best place of its surroundings, so that the tries are far apart.
    order = gain.masked_fill(gain < best, -1).flatten(1)
    width = gain.shape[3]
    found = []
    for place in order.topk(min(places, order.shape[1])).indices.T:
        inside = []
        for first, length in (
            (place // width, x.shape[2]),
            (place % width, x.shape[3]),
        ):
            at = torch.arange(length, device=x.device) - first[:, None]  # (n, length)
            inside.append((at >= 0) & (at < size))
        found.append((inside[0][:, :, None] & inside[1][:, None, :])[:, None])
    return found


def _paint(
    run: Search,
    x: Tensor,
    g: Tensor,
    windows: Tensor,
    rows: Tensor,
    steps: int,
    source: torch.Generator,
) -> None:
    """Climb in one square of each sample that still stands."""
    keep = ~run.success[rows]
    x, g, windows, rows = x[keep], g[keep], windows[keep], rows[keep]
    z = torch.where(windows, (g > 0).to(x.dtype), x)
    for t in range(steps - 1):
        if not len(rows):
            return
        g, rows, keep = _slope(run, z, rows, source)
        length = 0.5 * (1 - t / steps)
        z, windows = z[keep], windows[keep]
        z = (z + length * windows * g.sign()).clamp_(0, 1)
    if len(rows):
        run.see(z, rows, last=True)
