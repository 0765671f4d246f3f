"""Bounds over a ball by intervals and by linear relaxation (CROWN)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.certify.reading import Bend, Steps, logits_of, steps_of

Interval = tuple[Tensor, Tensor]


def intervals(steps: Steps, low: Tensor, high: Tensor, relax: bool) -> list[Interval]:
    """Bound the input of every ReLU over a box, and what comes after the last ReLU.

    Args:
        steps: of the network.
        low: ``(N, *input)``, with ``high`` the box of each sample.
        high: ``(N, *input)``.
        relax: improve each interval by linear relaxation; it takes much longer.

    Returns:
        Intervals ``(N, *shape)`` of the inputs of the ReLUs, then of the last output.
    """
    found: list[Interval] = []
    after, (a, b) = (low, high), (low, high)
    for i, step in enumerate(steps):
        if not isinstance(step, Bend):
            centre, width = step((a + b) / 2), (b - a) / 2  # (N, *shape)
            reach = step.apply(width, step.weight.abs())
            a, b = centre - reach, centre + reach
            continue
        if relax:
            a, b = _tighten(steps[:i], found, low, high, (a, b))
        found.append((a, b))
        after = a, b = step(a), step(b)
    return [*found, after]


def _tighten(
    steps: Steps, found: list[Interval], low: Tensor, high: Tensor, known: Interval
) -> Interval:
    """Improve an interval by relaxation, where the sign of a neuron is open."""
    a, b = (v.flatten(1).clone() for v in known)  # (N, neurons)
    shape = known[0].shape[1:]
    unsure = ((a < 0) & (b > 0)).any(0).nonzero().squeeze(1)  # of any sample
    width = max(v[:1].numel() for v in (low, known[0], *(k for k, _ in found)))
    # In parts of at most 4 million numbers, 32 MB.
    for part in unsure.split(max(1, 2**21 // max(1, len(low) * width))):
        # A neuron and its negative, so that one bound from below gives both ends.
        unit = nn.functional.one_hot(part, a.shape[1]).to(a.dtype)  # (P, neurons)
        rows = torch.cat([unit, -unit]).view(1, -1, *shape)  # (1, 2 P, *shape)
        rows = rows.expand(len(low), *rows.shape[1:])
        least, negative = _lowest(steps, found, rows, low, high).chunk(2, dim=1)
        a[:, part] = torch.maximum(a[:, part], least)  # (N, P)
        b[:, part] = torch.minimum(b[:, part], -negative)
    return a.view_as(known[0]), b.view_as(known[1])


def _lowest(
    steps: Steps, found: list[Interval], rows: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    r"""Bound linear functions of the output from below, by backward substitution.

    A ReLU whose input runs from a < 0 to b > 0 lies under the chord
    :math:`b (v - a) / (b - a)` and above 0 and above v. A positive coefficient takes a
    line from below, a negative one the chord. A leaky one, of slope s, lies under the
    chord from :math:`(a, s a)` and above :math:`s v`.

    Args:
        steps: from the box to the output.
        found: an interval for every ReLU in ``steps``.
        rows: ``(N, R, *output)`` coefficients.
        low: ``(N, *input)``, with ``high`` the box.
        high: ``(N, *input)``.

    Returns:
        ``(N, R)``.
    """
    total, left = rows.new_zeros(rows.shape[:2]), len(found)
    # From the output to the input: rows is (N, R, *shape) of what a step returns, and
    # total, (N, R), what the constants met on the way add up to.
    for step in reversed(steps):
        if not isinstance(step, Bend):
            total += (rows * step.bias).flatten(2).sum(2)
            size = rows.shape[:2]
            rows = step.back(rows.flatten(0, 1), step.weight).unflatten(0, size)
            continue
        left -= 1
        a, b = (v.unsqueeze(1) for v in found[left])  # (N, 1, *shape)
        rise, fall = b.clamp_min(0), a.clamp_max(0)
        end = step.slope * fall if step.slope else 0.0  # what it is at a
        chord = (rise - end) / (rise - fall).clamp_min(1e-300)  # the line from above
        # Of the two lines from below, the one that leaves the smaller triangle.
        line = (b > -a).to(rows.dtype).clamp_min(step.slope)
        negative = rows.clamp_max(0)
        total -= (negative * (chord - step.slope) * fall).flatten(2).sum(2)
        rows = rows.clamp_min(0) * line + negative * chord
    ends = rows.clamp_min(0) * low.unsqueeze(1) + rows.clamp_max(0) * high.unsqueeze(1)
    return total + ends.flatten(2).sum(2)


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
    *found, after = intervals(steps, low, high, relax)
    tail = 1 + max((i for i, s in enumerate(steps) if isinstance(s, Bend)), default=-1)
    # The last affine steps are one with the difference of two logits.
    least = _lowest(steps[tail:], [], rows, *after)
    if relax:
        least = torch.maximum(least, _lowest(steps, found, rows, low, high))
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
    al. 2019). The last layer is taken together with the difference of two logits.
    Costs two forward passes.

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

    Costs one backward pass for every hidden neuron whose sign is open.

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
