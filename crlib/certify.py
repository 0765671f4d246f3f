r"""Certificates: radii within which a label provably cannot change.

For a model with logits :math:`z`, an input x and its label y, the distance to the
nearest input of the box :math:`[0,1]^d` that is labelled otherwise lies between what
this room proves and what an attack finds:
**certificate <= exact distance <= attack**.

The bounds read the network: they know :class:`~crlib.models.MLP` and nestings of
``nn.Sequential`` with fully connected layers (low-rank ones too), convolutions with
zero padding, ReLU, flattening, normalisation, and dropout, which is off. Any other
module is refused. They compute in float64 with the model's weights; rounding is not
counted.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse, stats
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from crlib import checks
from crlib.metrics import convolution, layer_operator_norm, margin
from crlib.models import MLP, LowRankLinear, Normalize, evaluating

__all__ = [
    "ExactDistance",
    "Smoothed",
    "certified_radius",
    "crown_bounds",
    "exact_distance",
    "interval_bounds",
    "lipschitz_bound",
    "lipschitz_radius",
    "smooth_certify",
]

KNOWN = (Normalize, nn.Linear, LowRankLinear, nn.Conv2d, nn.ReLU, nn.Flatten)
ABSENT = (nn.Identity, nn.Dropout)


def _modules(model: nn.Module) -> list[nn.Module]:
    """Return the layers in the order in which they are applied."""
    if type(model) is MLP:
        layers = [model.normalize, nn.Flatten()]
        for layer in model.layers:
            layers += [layer, nn.ReLU()]
        return layers[:-1]
    for kind in (nn.Sequential, *ABSENT, *KNOWN):
        # A subclass may compute something else: its forward must be the known one.
        if isinstance(model, kind) and type(model).forward is kind.forward:
            if kind is nn.Sequential:
                return [
                    layer for child in model.children() for layer in _modules(child)
                ]
            return [] if kind in ABSENT else [model]
    names = ", ".join(kind.__name__ for kind in (MLP, nn.Sequential, *KNOWN, *ABSENT))
    raise ValueError(
        f"{type(model).__name__} is not a module that can be bounded: use {names}."
    )


def _layers(
    model: nn.Module, input_shape: Sequence[int]
) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """Return each layer with the shape of its input, without the batch."""
    found = []
    modules = _modules(model)
    like = next(iter(model.parameters()), torch.zeros(()))
    v = like.new_zeros(1, *input_shape)
    for module in modules:
        found.append((module, tuple(v.shape[1:])))
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (
            1,
            -1,
        ):
            raise ValueError("nn.Flatten must flatten all but the batch: (1, -1).")
        try:
            with torch.no_grad():
                v = module(v)
        except RuntimeError as error:
            raise ValueError(
                f"The model does not take inputs {tuple(input_shape)}: {error}"
            ) from None
    if v.ndim != 2 or v.shape[1] < 2:
        raise ValueError(
            f"The model returns {tuple(v.shape)} for one input of"
            f" {tuple(input_shape)}: it must return logits (1, K), K at least 2."
        )
    return found


@dataclass(frozen=True)
class _Affine:
    """``apply(v, weight) + bias``; ``back`` is the transpose of ``apply``."""

    weight: Tensor
    bias: Tensor
    apply: Callable[[Tensor, Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, v: Tensor) -> Tensor:
        return self.apply(v, self.weight) + self.bias


RELU = None
Steps = list[_Affine | None]
Interval = tuple[Tensor, Tensor]


def _affine(layer: Any, shape: tuple[int, ...]) -> _Affine | None:
    if isinstance(layer, nn.ReLU):
        return RELU
    if isinstance(layer, nn.Flatten):
        one = torch.ones((), dtype=torch.float64)
        return _Affine(
            one, one - 1, lambda v, w: v.flatten(1), lambda g, w: g.view(-1, *shape)
        )
    if isinstance(layer, Normalize):
        channels = (-1,) + (1,) * (len(shape) - 1) if layer.mean.ndim else ()
        scale = 1 / layer.std.double().view(channels)
        shift = -layer.mean.double().view(channels) * scale
        return _Affine(scale, shift, torch.mul, torch.mul)
    if isinstance(layer, LowRankLinear):
        # Multiplied in float32, the product would carry its rounding.
        weight = layer.left.detach().double() @ layer.right.detach().double()
    else:
        weight = layer.weight.detach().double()
    bias = weight.new_zeros(len(weight))
    if layer.bias is not None:
        bias = layer.bias.detach().double()
    if isinstance(layer, nn.Conv2d):
        forth, back, _ = convolution(layer, shape)
        return _Affine(weight, bias.view(-1, 1, 1), forth, back)
    return _Affine(weight, bias, lambda v, w: v @ w.T, lambda g, w: g @ w)


def _steps(model: nn.Module, x: Tensor) -> Steps:
    return [_affine(*layer) for layer in _layers(model, x.shape[1:])]


def _logits(steps: Steps, x: Tensor) -> Tensor:
    v = x.double()
    for step in steps:
        v = v.clamp_min(0) if step is RELU else step(v)
    return v


def lipschitz_bound(
    model: nn.Module, input_shape: Sequence[int], *, norm: str = "l2"
) -> float:
    r"""Bound how much the logits move per unit of input, everywhere.

    The product of the layers' operator norms, so that
    :math:`\|z(x) - z(x')\| \le L \|x - x'\|` with ``norm`` on both sides (Szegedy et
    al. 2014). ReLU and flattening count 1, normalisation the inverse of its smallest
    standard deviation. The l2 norm of a convolution is the estimate of
    :func:`crlib.metrics.layer_operator_norm` divided by ``1 - tol``, an upper bound
    that fails with probability at most 1e-9.

    Args:
        model: made of known modules, see above.
        input_shape: of one input, ``(d,)`` or ``(C, H, W)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        ValueError: a module that is not known, a shape that does not fit, or an
            unknown norm.
    """
    bound, tol = 1.0, 1e-3
    for layer, shape in _layers(model, input_shape):
        if isinstance(layer, Normalize):
            bound /= float(layer.std.min())
        elif not isinstance(layer, nn.ReLU | nn.Flatten):
            size = layer_operator_norm(layer, shape, norm=norm, tol=tol)
            estimated = isinstance(layer, nn.Conv2d) and norm == "l2"
            bound *= size / (1 - tol) if estimated else size
    return bound


def lipschitz_radius(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: str = "l2"
) -> Tensor:
    r"""Certify a radius by margin and Lipschitz bound.

    A difference of two logits moves by at most :math:`\|e_y - e_k\|_*` times the
    move of the logits, with the dual norm: the radius is the margin over
    :math:`\sqrt 2 L` for l2 (Tsuzuku et al. 2018), :math:`2 L` for linf, L for l1.

    Args:
        model: made of known modules, see above.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Returns:
        ``(N,)`` in float64; 0 where the label is wrong already.

    Raises:
        ValueError: bad input, or a model that :func:`lipschitz_bound` refuses.
    """
    checks.inputs(x)
    checks.labels(y, len(x))
    logits = _logits(_steps(model, x), x)
    checks.labels(y, len(x), classes=logits.shape[1])
    bound = lipschitz_bound(model, x.shape[1:], norm=norm)
    pair = {"l2": math.sqrt(2), "linf": 2.0, "l1": 1.0}[norm]
    return margin(logits, y).clamp_min(0) / (pair * bound)


def _propagate(steps: Steps, low: Tensor, high: Tensor, relax: bool) -> list[Interval]:
    """Return an interval for the input of every ReLU, and one after the last ReLU."""
    found: list[Interval] = []
    after, (a, b) = (low, high), (low, high)
    for i, step in enumerate(steps):
        if step is not RELU:
            centre, width = step((a + b) / 2), (b - a) / 2
            reach = step.apply(width, step.weight.abs())
            a, b = centre - reach, centre + reach
            continue
        if relax:
            a, b = _tighten(steps[:i], found, low, high, (a, b))
        found.append((a, b))
        after = a, b = a.clamp_min(0), b.clamp_min(0)
    return [*found, after]


def _tighten(
    steps: Steps, found: list[Interval], low: Tensor, high: Tensor, known: Interval
) -> Interval:
    """Improve an interval by relaxation, where the sign of a neuron is open."""
    a, b = (v.flatten(1).clone() for v in known)
    shape = known[0].shape[1:]
    unsure = ((a < 0) & (b > 0)).any(0).nonzero().squeeze(1)
    width = max(v[:1].numel() for v in (low, known[0], *(k for k, _ in found)))
    # In parts of at most 4 million numbers, 32 MB.
    for part in unsure.split(max(1, 2**21 // max(1, len(low) * width))):
        rows = nn.functional.one_hot(part, a.shape[1]).to(a.dtype)
        rows = torch.cat([rows, -rows]).view(1, -1, *shape)
        rows = rows.expand(len(low), *rows.shape[1:])
        least, negative = _lowest(steps, found, rows, low, high).chunk(2, dim=1)
        a[:, part] = torch.maximum(a[:, part], least)
        b[:, part] = torch.minimum(b[:, part], -negative)
    return a.view_as(known[0]), b.view_as(known[1])


def _lowest(
    steps: Steps, found: list[Interval], rows: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    r"""Bound linear functions of the output from below, by backward substitution.

    A ReLU whose input runs from a < 0 to b > 0 lies under the chord
    :math:`b (v - a) / (b - a)` and above 0 and above v. A positive coefficient takes a
    line from below, a negative one the chord.

    Args:
        steps: from the box to the output.
        found: an interval for every ReLU in ``steps``.
        rows: ``(N, R, *output)`` coefficients.
        low: ``(N, *input)``, with ``high`` the box.

    Returns:
        ``(N, R)``.
    """
    total, left = rows.new_zeros(rows.shape[:2]), len(found)
    for step in reversed(steps):
        if step is not RELU:
            total += (rows * step.bias).flatten(2).sum(2)
            size = rows.shape[:2]
            rows = step.back(rows.flatten(0, 1), step.weight).unflatten(0, size)
            continue
        left -= 1
        a, b = (v.unsqueeze(1) for v in found[left])
        rise, fall = b.clamp_min(0), a.clamp_max(0)
        chord = rise / (rise - fall).clamp_min(1e-300)
        # Of the two lines from below, the one that leaves the smaller triangle.
        line = (b > -a).to(rows.dtype)
        negative = rows.clamp_max(0)
        total -= (negative * chord * fall).flatten(2).sum(2)
        rows = rows.clamp_min(0) * line + negative * chord
    ends = rows.clamp_min(0) * low.unsqueeze(1) + rows.clamp_max(0) * high.unsqueeze(1)
    return total + ends.flatten(2).sum(2)


def _cube(x: Tensor, eps: Tensor) -> Interval:
    radius = eps.view(-1, *(1,) * (x.ndim - 1))
    return (x - radius).clamp(0, 1), (x + radius).clamp(0, 1)


def _margins(steps: Steps, x: Tensor, y: Tensor, eps: Tensor, relax: bool) -> Tensor:
    classes = _logits(steps, x[:1]).shape[1]
    eye = torch.eye(classes, dtype=x.dtype, device=x.device)
    rows = eye[y].unsqueeze(1) - eye
    low, high = _cube(x, eps)
    *found, after = _propagate(steps, low, high, relax)
    tail = len(steps) - steps[::-1].index(RELU) if RELU in steps else 0
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
    steps, x = _steps(model, x), x.detach().double()
    checks.labels(y, len(x), classes=_logits(steps, x[:1]).shape[1])
    return _margins(steps, x, y, checks.per_sample("eps", eps, x), relax)


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


@dataclass(frozen=True)
class Smoothed:
    """What randomised smoothing certifies.

    Attributes:
        label: ``(N,)`` label of the smoothed model; -1 where it abstains.
        radius: ``(N,)`` certified l2 radius in float64; 0 where it abstains.
        p_low: ``(N,)`` lower confidence bound on the probability of the label.
    """

    label: Tensor
    radius: Tensor
    p_low: Tensor


def smooth_certify(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 1e-3,
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
) -> Smoothed:
    r"""Certify the smoothed model in l2 by sampling (Cohen et al. 2019, CERTIFY).

    The smoothed model returns the label that ``model`` gives most often to
    :math:`x + \mathcal N(0, \sigma^2 I)`. If that label has probability at least
    :math:`p > 1/2`, it is the same within the radius :math:`\sigma \Phi^{-1}(p)`.
    ``n0`` draws guess the label, ``n`` others bound its probability from below
    (Clopper and Pearson). For each input alone, the statement fails with probability
    at most ``alpha`` over the draws. It is a statement about the smoothed model, not
    about ``model``. Noisy inputs are not clipped to [0, 1].

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; any model.
        x: ``(N, ...)`` in [0, 1].
        sigma: standard deviation of the noise, in input units.
        n0: draws for the guess.
        n: draws for the bound; the largest radius it can certify is
            :math:`\sigma \Phi^{-1}(\alpha^{1/n})`.
        alpha: probability of failure, in (0, 1).
        batch_size: noisy inputs in one forward pass.
        generator: source of the noise; None means a new one of seed 0.

    Raises:
        ValueError: bad input.
    """
    checks.inputs(x)
    if not 0 < sigma < math.inf or not 0 < alpha < 1:
        raise ValueError(
            f"sigma is {sigma}, alpha {alpha}: a positive number, and one in (0, 1)."
        )
    checks.at_least(1, n0=n0, n=n, batch_size=batch_size)
    source = checks.chance(generator)
    x = x.detach()
    label = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    p_low = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    with evaluating(model), torch.no_grad():
        for i, image in enumerate(x):
            guess = _votes(model, image, sigma, n0, batch_size, source).argmax()
            votes = _votes(model, image, sigma, n, batch_size, source)
            hits = int(votes[guess]) if guess < len(votes) else 0
            p_low[i] = stats.beta.ppf(alpha, hits, n - hits + 1) if hits else 0.0
            label[i] = guess if p_low[i] > 0.5 else -1
    radius = sigma * torch.special.ndtri(p_low.clamp_min(0.5))
    return Smoothed(label, radius, p_low)


def _votes(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    sigma: float,
    n: int,
    batch_size: int,
    source: torch.Generator,
) -> Tensor:
    """Count the labels of ``n`` noisy copies of one input."""
    labels = []
    for start in range(0, n, batch_size):
        size = (min(batch_size, n - start), *image.shape)
        noise = torch.randn(
            size, generator=source, device=source.device, dtype=image.dtype
        )
        labels.append(model(image + sigma * noise.to(image.device)).argmax(1))
    return torch.cat(labels).bincount()


@dataclass(frozen=True)
class ExactDistance:
    """The distance of each sample to the nearest other label, or an interval for it.

    Attributes:
        distance: ``(N,)`` norm of ``x_adv - x``, an upper bound in any case; 0 where
            the label is wrong already; infinity where no other label was found.
        lower: ``(N,)`` proven lower bound, up to the solver's tolerances of 1e-6.
        x_adv: ``(N, ...)`` in float64: the point at ``distance``, on the boundary;
            ``x`` itself where there is none.
        status: for each sample ``"exact"``; ``"interval"``: the time ran out, the
            distance lies between ``lower`` and ``distance``; ``"wrong"``: labelled
            wrongly already; ``"none"``: the whole box has the label y.
        norm: the norm of the distances.
    """

    distance: Tensor
    lower: Tensor
    x_adv: Tensor
    status: tuple[str, ...]
    norm: str


def exact_distance(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "linf",
    time_limit: float = 60.0,
    start: Tensor | None = None,
) -> ExactDistance:
    r"""Return the exact distance to the nearest other label, for tiny ReLU networks.

    For each rival k a mixed-integer linear program finds the nearest point of the box
    with :math:`z_k \ge z_y` (Tjeng et al. 2019). A neuron
    :math:`h = \max(v, 0)` with :math:`a \le v \le b` is written with one binary s:

    .. math:: h \ge v, \quad h \ge 0, \quad h \le v - a (1 - s), \quad h \le b s .

    The ranges come from :func:`crown_bounds` on a ball that grows until it holds a
    rival and then shrinks to the nearest one found. The time grows exponentially with
    the number of neurons whose sign is open: some tens are quick. For l1 the ranges
    are those of the linf ball around the l1 ball, so it takes longer.

    Args:
        model: made of known modules, see above.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"`` or ``"l1"``.
        time_limit: seconds for each sample.
        start: ``(N, ...)`` in [0, 1], such as the ``x_adv`` of an attack. Where it is
            labelled otherwise the search begins at its distance, which is quicker,
            and an interval has it as its upper end.

    Raises:
        ValueError: bad input, or a module that is not known.
    """
    checks.one_of("norm", norm, ("linf", "l1"))
    checks.inputs(x)
    checks.labels(y, len(x))
    if not time_limit > 0:
        raise ValueError(f"time_limit is {time_limit}: it must be positive.")
    steps, x = _steps(model, x), x.detach().double()
    logits = _logits(steps, x)
    checks.labels(y, len(x), classes=logits.shape[1])
    start = x if start is None else start.detach().double()
    checks.inputs(start, "start")
    if start.shape != x.shape:
        raise ValueError(f"start is {tuple(start.shape)}, x {tuple(x.shape)}: alike.")
    wrong = (logits.argmax(1) != y).tolist()
    found = []
    for i in range(len(x)):
        own = slice(i, i + 1)
        if wrong[i]:
            found.append(_Found(0.0, 0.0, x[i], "wrong"))
        else:
            nearest = _search(steps, x[own], y[own], start[own], norm, time_limit)
            found.append(nearest)
    numbers = torch.tensor([(f.distance, f.lower) for f in found], dtype=x.dtype)
    distance, lower = numbers.view(len(x), 2).to(x.device).unbind(1)
    return ExactDistance(
        distance=distance,
        lower=lower,
        x_adv=torch.stack([f.point for f in found]) if found else x,
        status=tuple(f.status for f in found),
        norm=norm,
    )


@dataclass
class _Found:
    distance: float
    lower: float
    point: Tensor
    status: str


def _search(
    steps: Steps, x: Tensor, y: Tensor, start: Tensor, norm: str, time_limit: float
) -> _Found:
    """Search balls of growing radius around one sample until one holds a rival."""
    deadline = time.monotonic() + time_limit
    best = _Found(math.inf, 0.0, x[0], "interval")
    whole = 1.0 if norm == "linf" else float(x[0].numel())
    radius = 1e-3
    while radius < whole and (_ball_margins(steps, x, y, radius) > 0).all():
        best.lower, radius = radius, min(1.25 * radius, whole)
    if float(margin(_logits(steps, start), y)) <= 0:
        best.distance, best.point = _norm(start - x, norm), start[0]
        radius = best.distance * (1 + 1e-6)
    while True:
        margins = _ball_margins(steps, x, y, radius)
        order = [k for k in margins.argsort().tolist() if margins[k] <= 0]
        # What is known of each rival: first, that it is not in the last ball.
        floors = {k: best.lower for k in order}
        outer = radius
        for k in order:
            if radius < outer and _ball_margins(steps, x, y, radius)[k] > 0:
                floors[k] = radius
                continue
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                break
            floor, point, solved = _program(steps, x, int(y), k, radius, norm, seconds)
            floors[k] = max(floors[k], floor)
            if point is not None:
                size = _norm(point - x.flatten(), norm)
                if size < best.distance:
                    best.distance, best.point = size, point.view_as(x[0])
                # Another rival matters only if it is nearer.
                radius = min(radius, size)
            if not solved:
                break
        else:
            if best.distance < math.inf:
                best.status = "exact"
            elif radius >= whole:
                return _Found(math.inf, math.inf, x[0], "none")
            else:
                best.lower, radius = radius, min(2 * radius, whole)
                continue
        best.lower = min(best.distance, *floors.values(), outer)
        return best


def _norm(step: Tensor, norm: str) -> float:
    return float(step.abs().max() if norm == "linf" else step.abs().sum())


def _ball_margins(steps: Steps, x: Tensor, y: Tensor, radius: float) -> Tensor:
    cube = x.new_tensor([min(radius, 1.0)])
    return _margins(steps, x, y, cube, relax=True)[0]


def _matrices(steps: Steps, x: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the affine maps between the ReLUs as matrices and vectors."""
    found, start = [], torch.zeros_like(x)
    part: Steps = []
    for step in [*steps, RELU]:
        if step is not RELU:
            part.append(step)
            continue
        shape, size = start.shape[1:], start.numel()
        unit = torch.eye(size, dtype=x.dtype, device=x.device).view(-1, *shape)
        # An empty part, two ReLUs in a row, is the identity.
        bias = _logits(part, start)
        weight = _logits(part, unit) - bias
        found.append(
            (weight.flatten(1).T.numpy(force=True), bias.flatten().numpy(force=True))
        )
        start, part = torch.zeros_like(bias), []
    return found


def _program(
    steps: Steps,
    x: Tensor,
    y: int,
    rival: int,
    radius: float,
    norm: str,
    seconds: float,
) -> tuple[float, Tensor | None, bool]:
    """Find the nearest point of ball and box where ``rival`` is level with ``y``.

    Returns:
        A lower bound on its distance (``radius`` if the ball has none), the point or
        None, and whether the search came to its end.
    """
    low, high = _cube(x, x.new_tensor([min(radius, 1.0)]))
    *ranges, _ = _propagate(steps, low, high, relax=True)
    *hidden, (weight, bias) = _matrices(steps, x)
    centre, d = x.flatten().numpy(force=True), x.numel()
    # Columns: the input, values and switches of each hidden layer, then the size of
    # the step as a share of the radius, so that the solver's tolerances are relative.
    sizes = 1 if norm == "linf" else d
    widths = [d, *(len(b) for _, b in hidden for _ in range(2)), sizes]
    edges, last = np.cumsum([0, *widths]), len(widths) - 1
    column = [slice(*ends) for ends in itertools.pairwise(edges)]
    bottom, top = np.zeros(edges[-1]), np.ones(edges[-1])
    whole, cost = np.zeros(edges[-1]), np.zeros(edges[-1])
    bottom[column[0]], top[column[0]] = (
        v.flatten().numpy(force=True) for v in (low, high)
    )
    cost[column[last]] = 1
    rows: list[tuple[dict[int, Any], Any, Any]] = []
    before = 0
    for i, ((w, shift), ends) in enumerate(zip(hidden, ranges, strict=True)):
        value, switch = 2 * i + 1, 2 * i + 2
        a, b = (v.flatten().numpy(force=True) for v in ends)
        fall, rise, eye = a.clip(max=0), b.clip(min=0), np.eye(len(a))
        rows += [
            ({value: eye, before: -w}, shift, np.inf),
            ({value: eye, before: -w, switch: -np.diag(fall)}, -np.inf, shift - fall),
            ({value: eye, switch: -np.diag(rise)}, -np.inf, 0),
        ]
        top[column[value]] = rise
        # Where the sign is known the switch is, too.
        whole[column[switch]] = 1
        bottom[column[switch]], top[column[switch]] = (a >= 0) & (b > 0), b > 0
        before = value
    level = (weight[y] - weight[rival])[None]
    step = radius * (np.ones((d, 1)) if norm == "linf" else np.eye(d))
    rows += [
        ({before: level}, -np.inf, bias[rival] - bias[y]),
        ({0: np.eye(d), last: -step}, -np.inf, centre),
        ({0: np.eye(d), last: step}, centre, np.inf),
        ({last: np.ones((1, sizes))}, 0, 1),
    ]
    sized = [(row, len(next(iter(row[0].values())))) for row in rows]
    constraints = LinearConstraint(
        sparse.block_array([[row[0].get(c) for c in range(last + 1)] for row in rows]),
        np.concatenate([np.broadcast_to(r[1], n) for r, n in sized]),
        np.concatenate([np.broadcast_to(r[2], n) for r, n in sized]),
    )
    found = milp(
        cost,
        integrality=whole,
        bounds=Bounds(bottom, top),
        constraints=constraints,
        options={"time_limit": seconds, "mip_rel_gap": 1e-9},
    )
    if found.status == 2:
        return radius, None, True
    # Without a switch the program is linear, and its value is its own bound.
    proven = found.mip_dual_bound if whole.any() else found.fun
    floor = radius * max(0.0, proven or 0.0)
    if found.x is None:
        return floor, None, False
    point = found.x[:d]
    # A switch may be off by the solver's tolerance: settle it, and solve once more.
    chosen = whole == 1
    bottom[chosen] = top[chosen] = found.x[chosen].round()
    settled = milp(cost, bounds=Bounds(bottom, top), constraints=constraints)
    if settled.x is not None:
        point = settled.x[:d]
    return floor, torch.from_numpy(point.clip(0, 1)).to(x), found.status == 0
