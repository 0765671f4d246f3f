"""Bounds over a ball by intervals and by linear relaxation (CROWN)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.certify.reading import Affine, Step, Steps, Sum, logits_of, steps_of

Interval = tuple[Tensor, Tensor]


class Met(NamedTuple):
    """A step, and what is known where it is met.

    Attributes:
        step: of the network.
        low: ``(N, *shape)``, with ``high`` the interval of its input.
        high: ``(N, *shape)``.
        known: of a bend its lines, of a sum the two paths, else None.
    """

    step: Step
    low: Tensor
    high: Tensor
    known: Any


Path = list[Met]


def intervals(
    steps: Steps, low: Tensor, high: Tensor, relax: bool
) -> tuple[Path, Interval]:
    """Bound the input of every step over a box, and the output of the last.

    Args:
        steps: of the network.
        low: ``(N, *input)``, with ``high`` the box of each sample.
        high: ``(N, *input)``.
        relax: improve the intervals by linear relaxation; it takes much longer.
    """
    return _walk(steps, [], (low, high), (low, high) if relax else None)


def _walk(
    steps: Steps, before: Path, ends: Interval, box: Interval | None
) -> tuple[Path, Interval]:
    """Go on from ``ends``, where ``before`` leads to from the box."""
    path: Path = []
    a, b = ends
    for step in steps:
        known: Any = None
        if isinstance(step, Affine):
            centre, width = step((a + b) / 2), (b - a) / 2  # (N, *shape)
            reach = step.apply(width, step.weight.abs())
            after = centre - reach, centre + reach
        elif isinstance(step, Sum):
            so_far = [*before, *path]
            one, other = (_walk(s, so_far, (a, b), box) for s in step.branches)
            known = one[0], other[0]
            after = one[1][0] + other[1][0], one[1][1] + other[1][1]
        else:
            if box is not None:
                a, b = _tighten(step, [*before, *path], box, (a, b))
                known = step.lines(a, b)
            after = step.box(a, b)
        path.append(Met(step, a, b, known))
        a, b = after
    return path, (a, b)


def _tighten(step: Any, path: Path, box: Interval, ends: Interval) -> Interval:
    """Improve the interval of a bend's input by relaxation, where it is open."""
    # Behind another bend the interval is as tight as the one in front of that.
    if not path or not isinstance(path[-1].step, Affine | Sum):
        return ends
    low, high = box
    a, b = (v.flatten(1).clone() for v in ends)  # (N, neurons)
    shape = ends[0].shape[1:]
    unsure = step.open(*ends).flatten(1).any(0).nonzero().squeeze(1)  # of any sample
    width = max(a[:1].numel(), _widest(path))
    # In parts of at most 4 million numbers, 32 MB.
    for part in unsure.split(max(1, 2**21 // max(1, len(low) * width))):
        # A neuron and its negative, so that one bound from below gives both ends.
        unit = nn.functional.one_hot(part, a.shape[1]).to(a.dtype)  # (P, neurons)
        rows = torch.cat([unit, -unit]).view(1, -1, *shape)  # (1, 2 P, *shape)
        rows = rows.expand(len(low), *rows.shape[1:])
        least, negative = _lowest(path, rows, low, high).chunk(2, dim=1)
        a[:, part] = torch.maximum(a[:, part], least)  # (N, P)
        b[:, part] = torch.minimum(b[:, part], -negative)
    return a.view_as(ends[0]), b.view_as(ends[1])


def _widest(path: Path) -> int:
    """Return the largest number of entries that a sample has on the way."""
    sizes = [met.low[:1].numel() for met in path]
    inner = [_widest(p) for met in path if isinstance(met.step, Sum) for p in met.known]
    return max(sizes + inner, default=0)


def _lowest(path: Path, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Bound linear functions of what a path leads to from below.

    Args:
        path: from the box to the output.
        rows: ``(N, R, *output)`` coefficients.
        low: ``(N, *input)``, with ``high`` the box.
        high: ``(N, *input)``.

    Returns:
        ``(N, R)``.
    """
    rows, total = _pulled(path, rows)
    ends = rows.clamp_min(0) * low.unsqueeze(1) + rows.clamp_max(0) * high.unsqueeze(1)
    return total + ends.flatten(2).sum(2)


def _pulled(path: Path, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Substitute backward: return rows of the input, and what constants add up to.

    What goes through a sum goes through both of its branches, and the two rows of the
    input add up.
    """
    total = rows.new_zeros(rows.shape[:2])
    # From the output to the input: rows is (N, R, *shape) of what a step returns.
    for step, _, _, known in reversed(path):
        if isinstance(step, Affine):
            more = (rows * step.bias).flatten(2).sum(2)
            size = rows.shape[:2]
            rows = step.back(rows.flatten(0, 1), step.weight).unflatten(0, size)
        elif isinstance(step, Sum):
            (one, first), (other, second) = (_pulled(inner, rows) for inner in known)
            rows, more = one + other, first + second
        else:
            rows, more = step.pull(rows, known)
        total += more
    return rows, total


def cube(x: Tensor, eps: Tensor) -> Interval:
    """Return the linf balls of radii ``eps``, ``(N,)``, cut with the box."""
    radius = eps.view(-1, *(1,) * (x.ndim - 1))
    return (x - radius).clamp(0, 1), (x + radius).clamp(0, 1)


def margins(steps: Steps, x: Tensor, y: Tensor, eps: Tensor, relax: bool) -> Tensor:
    """Bound the margins over :func:`cube` from below, ``(N, K)``; see crown_bounds."""
    classes = logits_of(steps, x[:1]).shape[1]
    eye = torch.eye(classes, dtype=x.dtype, device=x.device)
    rows = eye[y].unsqueeze(1) - eye  # (N, K, K): row k is e_y - e_k
    low, high = cube(x, eps)
    path, after = intervals(steps, low, high, relax)
    tail = 1 + max(
        (i for i, s in enumerate(steps) if not isinstance(s, Affine)), default=-1
    )
    # The last affine steps are one with the difference of two logits.
    start = (path[tail].low, path[tail].high) if tail < len(path) else after
    least = _lowest(path[tail:], rows, *start)
    if relax:
        least = torch.maximum(least, _lowest(path, rows, low, high))
    return least.scatter(1, y[:, None], math.inf)


def _bounds(
    model: nn.Module, x: Tensor, y: Tensor, eps: float | Tensor, relax: bool
) -> Tensor:
    checks.inputs(x)
    checks.labels(y, len(x))
    steps, x = steps_of(model, x), x.detach().double()
    checks.labels(y, len(x), classes=logits_of(steps, x[:1]).shape[1])
    return margins(steps, x, y, checks.per_sample("eps", eps, x), relax)


def interval_bounds(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float | Tensor
) -> Tensor:
    r"""Bound all margins over an linf ball cut with the box, by intervals.

    Each layer maps a box with centre c and half-width r into the one with centre
    :math:`Wc + b` and half-width :math:`|W| r` (interval bound propagation, Gowal et
    al. 2019). Activations and max pooling map ends to ends, but for what GELU and SiLU
    are at their lowest point; the boxes of two branches add up. The last layer is taken
    together with the difference of two logits. Costs two forward passes.

    Args:
        model: made of known modules, see above.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.

    Returns:
        ``(N, K)`` in float64: entry k is at most :math:`z_y - z_k` at every point of
        the ball; infinity at k = y. A sample whose least entry is positive cannot be
        fooled within ``eps``.

    Raises:
        ValueError: bad input, or a module that is not known.

    Example:
        >>> import torch
        >>> from crlib import certify
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2))
        >>> model.layers[0].weight.data = torch.eye(2)
        >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
        >>> certify.interval_bounds(model, x, y, eps=0.05)[:, 1].round(decimals=4)
        tensor([0.1000], dtype=torch.float64)
    """
    return _bounds(model, x, y, eps, relax=False)


def crown_bounds(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float | Tensor
) -> Tensor:
    """Bound all margins over an linf ball cut with the box, by linear relaxation.

    Each ReLU whose sign is open is replaced by two lines, and the margins are
    substituted back to the input, where they are linear (CROWN, Zhang et al. 2018).
    The intervals of the hidden neurons come from the same procedure. The lines from
    below are 0 or the identity, whichever leaves the smaller area. The result is
    never below that of :func:`interval_bounds`: the better of the two is returned.

    A smooth activation gets two lines whose distance to it is bounded on a grid. Max
    pooling is at least the entry with the highest lower end, and at most that entry if
    no other can exceed it, else a constant. Through a sum of two branches the margins
    go back along both.

    Costs one backward pass for every hidden neuron whose sign is open, and for every
    input of a smooth activation or of a max pooling behind a layer with weights.

    Args:
        model: made of known modules, see above.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.

    Returns:
        ``(N, K)`` as :func:`interval_bounds`.

    Raises:
        ValueError: bad input, or a module that is not known.

    Example:
        >>> import torch
        >>> from crlib import certify
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2))
        >>> model.layers[0].weight.data = torch.eye(2)
        >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
        >>> certify.crown_bounds(model, x, y, eps=0.05)[:, 1].round(decimals=4)
        tensor([0.1000], dtype=torch.float64)
    """
    return _bounds(model, x, y, eps, relax=True)


def certified_radius(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    bounds: Callable[..., Tensor] = crown_bounds,
    eps_max: float = 1.0,
    tol: float = 1e-5,
) -> Tensor:
    """Certify an linf radius: the largest at which the bounds hold, by bisection.

    Every radius returned was itself proven, whether or not the bounds fall steadily
    with ``eps``.

    Args:
        model: made of known modules, see above.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        bounds: :func:`crown_bounds` or :func:`interval_bounds`.
        eps_max: the largest radius tried.
        tol: width at which the search stops, as a share of ``eps_max``.

    Returns:
        ``(N,)`` in float64; 0 where the label is wrong already, infinity where no
        point of the box is labelled otherwise.

    Raises:
        ValueError: bad input, or a module that is not known.

    Example:
        >>> import torch
        >>> from crlib import certify
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2))
        >>> model.layers[0].weight.data = torch.eye(2)
        >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
        >>> round(float(certify.certified_radius(model, x, y)), 4)
        0.1
    """
    if not (0 < eps_max < math.inf and 0 < tol < 1):
        raise ValueError(
            f"eps_max is {eps_max}, tol {tol}: a positive number, and one in (0, 1)."
        )
    checks.inputs(x)
    checks.labels(y, len(x))
    proven = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    unknown = torch.full_like(proven, eps_max)
    everything = (bounds(model, x, y, eps=eps_max) > 0).all(1)
    for _ in range(math.ceil(-math.log2(tol))):
        middle = (proven + unknown) / 2
        holds = (bounds(model, x, y, eps=middle) > 0).all(1)
        proven = torch.where(holds, middle, proven)
        unknown = torch.where(holds, unknown, middle)
    # A radius of 1 is the whole box: there is nothing beyond it.
    return proven.masked_fill(everything, math.inf if eps_max >= 1 else eps_max)
