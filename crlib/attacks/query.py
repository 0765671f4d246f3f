"""Attacks that ask only for logits, never for a gradient: Square, and a sparse one."""

import torch
from torch import Tensor

from crlib import checks
from crlib.attacks.balls import BALLS, draw
from crlib.attacks.base import (
    AttackResult,
    Model,
    Search,
    check,
    door,
    per_row,
    pick,
)
from crlib.geometry import norm_of


@door
def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    queries: int = 1000,
    target: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    r"""Try random squares of full strength, keep what helps.

    After Andriushchenko et al. 2020. A query repaints one window of the perturbation
    and is kept if the margin does not grow. For linf each channel of the window becomes
    :math:`\pm\epsilon`; the start is stripes. For l2 the window takes over the energy
    of a second one and what the box has left unused, as a bump of random sign; the
    start is noise. The side of the window shrinks with the queries, from three tenths
    of the image. A vector is an image of one line.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``), a number or ``(N,)``.
        norm: ``"linf"`` or ``"l2"``.
        queries: evaluations of the model a sample, at most, besides the one at ``x``.
        target: ``(N,)`` labels to reach; None means any label but ``y``.
        generator: source of chance; None means a new one of seed 0.

    Returns:
        An :class:`AttackResult`.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[0.6, 0.4]])
        >>> found = attacks.square(model, x, y, eps=0.15, queries=50)
        >>> found.success, found.n_backward
        (tensor([True]), tensor([0]))
    """
    radius = check(x, y, eps, norm, target, ("linf", "l2"))
    checks.at_least(1, queries=queries)
    run, source = Search(model, x, y, target, norm), checks.chance(generator)
    with torch.no_grad():
        run.look_at_clean()
        rows = run.standing()
        best = x.new_full((len(rows),), -torch.inf)
        z = clean = _image(run.x[rows])
        eps = radius[rows]
        for t in range(queries):
            if not len(rows):
                break
            if t == 0:
                new = _start(clean, eps, norm, source)
            else:
                side = _side(t / queries, clean)
                new = _repaint(z - clean, eps, norm, side, source)
            new = BALLS[norm](clean, eps).project_(clean + new)
            asked = new.view(-1, *x.shape[1:])
            look = run.see(asked, rows, last=t + 1 == queries)
            better = look.value >= best
            best = torch.where(better, look.value.to(best.dtype), best)
            z = pick(better, new, z)
            if look.n_fooled:
                keep = ~look.fooled
                z, clean, rows, best, eps = (
                    v[keep] for v in (z, clean, rows, best, eps)
                )
    return run.result()


@door
def sparse_search(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "l0",
    queries: int = 300,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Put ``eps`` coordinates to ends of the box at random; keep what helps.

    After Sparse-RS (Croce et al. 2022). A query exchanges some of the coordinates that
    are moved, ever fewer of them, draws new ends for those and one more, and is kept if
    the margin does not grow. Arguments as of :func:`square`; ``eps`` counts.
    """
    radius = check(x, y, eps, norm, None, ("l0",))
    checks.at_least(1, queries=queries)
    run, source = Search(model, x, y, None, norm), checks.chance(generator)
    with torch.no_grad():
        run.look_at_clean()
        rows = run.standing()
        clean = run.x[rows].flatten(1)  # (n, d)
        whole = clean.shape[1]
        count = radius[rows].clamp_max(whole)
        best = x.new_full((len(rows),), -torch.inf)
        moved = _some(torch.ones_like(clean).bool(), count, source)
        ends = draw(torch.rand, clean, source).round()
        for t in range(queries):
            if not len(rows):
                break
            new, far = moved, ends
            if t:
                some = (0.5 * (1 - t / queries) * count).ceil()
                some = some.minimum(whole - count)
                fresh = _some(~moved, some, source)
                new = (moved & ~_some(moved, some, source)) | fresh
                fresh |= _some(new, count.clamp_max(1), source)
                far = torch.where(fresh, draw(torch.rand, far, source).round(), far)
            z = torch.where(new, far, clean).view(-1, *x.shape[1:])
            look = run.see(z, rows, last=t + 1 == queries)
            better = (look.value >= best)[:, None]
            best = torch.where(better[:, 0], look.value.to(best.dtype), best)
            moved = torch.where(better, new, moved)
            ends = torch.where(better, far, ends)
            if look.n_fooled:
                keep = ~look.fooled
                clean, moved, ends, rows, count, best = (
                    v[keep] for v in (clean, moved, ends, rows, count, best)
                )
    return run.result()


def _some(of: Tensor, count: Tensor, source: torch.Generator) -> Tensor:
    """Draw ``count``, (n,), of the places that are true in each row of ``of``."""
    most = int(count.max()) if len(count) else 0
    noise = draw(torch.rand, of.to(count.dtype), source).masked_fill(~of, -1)
    places = noise.topk(most).indices  # (n, most)
    taken = torch.arange(most, device=of.device) < count[:, None]
    return torch.zeros_like(of).scatter(1, places, taken & of.gather(1, places))


def _image(x: Tensor) -> Tensor:
    """View ``x`` as images ``(N, C, H, W)``."""
    if x.ndim == 4:
        return x
    return x.flatten(1)[:, None, None]


def _signs(shape: tuple[int, ...], like: Tensor, source: torch.Generator) -> Tensor:
    return draw(torch.rand, like.new_empty(shape), source).sub_(0.5).sign_()


def _start(x: Tensor, eps: Tensor, norm: str, source: torch.Generator) -> Tensor:
    n, c, _, w = x.shape
    if norm == "linf":
        stripes = _signs((n, c, 1, w), x, source)
        return (per_row(eps, x) * stripes).expand_as(x)
    noise = draw(torch.randn, x, source)
    return noise * per_row(eps / norm_of(noise, "l2").clamp_min(1e-12), noise)


def _side(progress: float, x: Tensor) -> int:
    """Return the side of the window: its share halves ever more rarely."""
    marks = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    share = 0.3 * 0.5 ** sum(progress > mark for mark in marks)
    height, width = x.shape[2:]
    length = share * width if height == 1 else (share * height * width) ** 0.5
    return max(1, min(round(length), width))


def _windows(x: Tensor, side: int, source: torch.Generator) -> Tensor:
    """Return masks ``(N, 1, H, W)`` of one random window a sample."""
    n, _, height, width = x.shape
    corners = draw(torch.rand, x.new_empty(2, n), source)
    masks = []
    for corner, length in zip(corners, (height, width), strict=True):
        extent = min(side, length)
        first = (corner * (length - extent + 1)).long()[:, None]
        place = torch.arange(length, device=x.device)[None]
        masks.append((place >= first) & (place < first + extent))
    return (masks[0][:, :, None] & masks[1][:, None, :])[:, None]


def _repaint(
    delta: Tensor, eps: Tensor, norm: str, side: int, source: torch.Generator
) -> Tensor:
    n, c = delta.shape[:2]
    window = _windows(delta, side, source)
    signs = _signs((n, c, 1, 1), delta, source)
    if norm == "linf":
        return torch.where(window, per_row(eps, delta) * signs, delta)
    other = _windows(delta, side, source) & ~window
    # A bump at the middle of the window: what it holds now, plus a random sign.
    old = torch.where(window, delta, 0)
    unit = old / per_row(norm_of(old, "l2").clamp_min(1e-12), old)
    fresh = torch.where(window, signs, 0)
    fresh = unit + fresh / per_row(norm_of(fresh, "l2").clamp_min(1e-12), fresh)
    rest = torch.where(window | other, 0, delta)
    energy = (eps.square() - norm_of(rest, "l2").square()).clamp_min(0).sqrt()
    fresh = fresh * per_row(energy / norm_of(fresh, "l2").clamp_min(1e-12), fresh)
    return rest + fresh
