"""The exact distance of tiny networks, by mixed-integer linear programming."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from torch import Tensor, nn

from crlib import checks
from crlib.certify.bends import RELU, Bend
from crlib.certify.reading import Affine, Steps, linear_part, logits_of, steps_of
from crlib.certify.relaxation import Interval, cube, intervals, margins
from crlib.metrics import margin


@dataclass(frozen=True)
class ExactDistance:
    """The distance of each sample to the nearest other label, or an interval for it.

    Attributes:
        distance: ``(N,)`` norm of ``x_adv - x``, an upper bound in any case; 0 where
            the label is wrong already; infinity where no other label was found.
        lower: ``(N,)`` proven lower bound, up to the solver's tolerances: a hundred
            thousandth of it.
        x_adv: ``(N, ...)`` in float64: the point at ``distance``, on the boundary;
            ``x`` itself where there is none.
        status: for each sample ``"exact"``: ``lower`` is ``distance`` and the margin of
            ``x_adv`` is zero, both to one part in ten thousand; ``"interval"``: the
            time ran out, or the solver's tolerances do not reach that far, and the
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

    Everything is measured in units of its own range: the step as a share of the radius,
    a neuron as a share of what it varies by. So the solver's tolerances are relative,
    and neither the scale of the logits nor that of a layer matters.

    The ranges come from :func:`crown_bounds` on a ball that grows until it holds a
    rival and then shrinks to the nearest one found. The time grows exponentially with
    the number of neurons whose sign is open: some tens are quick. For l1 the ranges
    are those of the linf ball around the l1 ball, so it takes longer.

    Args:
        model: made of known modules, see above, with ReLU alone between affine ones:
            no residual sum, no max pooling and no other activation.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"`` or ``"l1"``.
        time_limit: seconds for each sample.
        start: ``(N, ...)`` in [0, 1], such as the ``x_adv`` of an attack. Where it is
            labelled otherwise the search begins at its distance, which is quicker,
            and an interval has it as its upper end.

    Raises:
        ValueError: bad input, or a module that is not known.

    Example:
        >>> import torch
        >>> from crlib import certify
        >>> from crlib.models import MLP
        >>> model = MLP((2, 2))
        >>> model.layers[0].weight.data = torch.eye(2)
        >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
        >>> found = certify.exact_distance(model, x, y)
        >>> round(float(found.distance), 4), found.status
        (0.1, ('exact',))
    """
    checks.one_of("norm", norm, ("linf", "l1"))
    checks.inputs(x)
    checks.labels(y, len(x))
    if not time_limit > 0:
        raise ValueError(f"time_limit is {time_limit}: it must be positive.")
    steps, x = steps_of(model, x), x.detach().double()
    if not all(isinstance(step, Affine) or step == RELU for step in steps):
        raise ValueError(
            "exact_distance knows affine layers and ReLU in a row, and nothing else:"
            " crown_bounds bounds it."
        )
    logits = logits_of(steps, x)
    checks.labels(y, len(x), classes=logits.shape[1])
    start = x if start is None else start
    checks.inputs(start, "start")
    start = start.detach().double()
    if start.shape != x.shape:
        raise ValueError(f"start is {tuple(start.shape)}, x {tuple(x.shape)}: alike.")
    wrong = (logits.argmax(1) != y).tolist()
    tied = (margin(logits, y) <= 0).tolist()
    found = []
    for i in range(len(x)):
        own = slice(i, i + 1)
        if wrong[i]:
            found.append(_Found(0.0, 0.0, x[i], "wrong"))
        elif tied[i]:
            found.append(_Found(0.0, 0.0, x[i], "exact"))
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
    """What is known of one sample: its distance lies between lower and distance."""

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
    # A ball that is far larger than the distance would cost digits of it.
    while radius > 1e-12 and not (_ball_margins(steps, x, y, radius) > 0).all():
        radius /= 8
    while radius < whole and (_ball_margins(steps, x, y, radius) > 0).all():
        best.lower, radius = radius, min(1.25 * radius, whole)
    if float(margin(logits_of(steps, start), y)) <= 0:
        best.distance, best.point = _norm(start - x, norm), start[0]
        radius = best.distance * (1 + 1e-6)
    while True:
        least = _ball_margins(steps, x, y, radius)
        order = [k for k in least.argsort().tolist() if least[k] <= 0]
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
            answer = _to_rival(steps, x, int(y), k, radius, norm, seconds)
            floors[k] = max(floors[k], answer.floor)
            if answer.point is not None:
                size = _norm(answer.point - x.flatten(), norm)
                if size < best.distance:
                    best.distance, best.point = size, answer.point.view_as(x[0])
                # Another rival matters only if it is nearer.
                radius = min(radius, size)
            if not answer.finished:
                break
        else:
            if best.distance < math.inf:
                best.lower = min(best.distance, *floors.values(), outer)
                if best.lower >= best.distance * (1 - 1e-4):
                    best.status = "exact"
                return best
            if radius >= whole:
                return _Found(math.inf, math.inf, x[0], "none")
            else:
                best.lower, radius = radius, min(2 * radius, whole)
                continue
        best.lower = min(best.distance, *floors.values(), outer)
        return best


def _norm(step: Tensor, norm: str) -> float:
    return float(step.abs().max() if norm == "linf" else step.abs().sum())


def _ball_margins(steps: Steps, x: Tensor, y: Tensor, radius: float) -> Tensor:
    return margins(steps, x, y, x.new_tensor([min(radius, 1.0)]), relax=True)[0]


def _maps(steps: Steps, x: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the affine maps between the ReLUs as matrices and vectors."""
    found, start = [], torch.zeros_like(x)
    part: Steps = []
    for step in [*steps, RELU]:
        if isinstance(step, Affine):
            part.append(step)
            continue
        shape, size = start.shape[1:], start.numel()
        unit = torch.eye(size, dtype=x.dtype, device=x.device).view(-1, *shape)
        # An empty part, two ReLUs in a row, is the identity. The weights are not
        # differences from the bias, next to which they can be small.
        weight, bias = linear_part(part, unit), logits_of(part, start)
        found.append((weight.flatten(1).T.numpy(force=True), _vector(bias)))
        start, part = torch.zeros_like(bias), []
    return found


Ends = np.ndarray | float


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep a line that HiGHS writes to the process's output, asked or not, from it."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class _Program:
    """A mixed-integer linear program whose columns stand in blocks with names.

    =======  =========  ==========  ===  ======
    input    value 0    switch 0    ...  size
    =======  =========  ==========  ===  ======
    """

    def __init__(self) -> None:
        self.blocks: dict[str, slice] = {}
        self.low = self.high = self.whole = self.cost = np.zeros(0)
        self.demands: list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]] = []

    def columns(
        self,
        name: str,
        low: np.ndarray,
        high: np.ndarray,
        *,
        whole: bool = False,
        cost: float = 0,
    ) -> None:
        """Add a block of numbers between ``low`` and ``high``, whole ones if asked."""
        start, count = len(self.low), len(low)
        self.blocks[name] = slice(start, start + count)
        self.low, self.high = np.append(self.low, low), np.append(self.high, high)
        self.whole = np.append(self.whole, np.full(count, whole))
        self.cost = np.append(self.cost, np.full(count, cost))

    def rows(self, matrices: dict[str, np.ndarray], low: Ends, high: Ends) -> None:
        """Demand that the sum of matrix times block lies between two vectors."""
        count = len(next(iter(matrices.values())))
        least, most = (np.broadcast_to(end, count) for end in (low, high))
        self.demands.append((matrices, least, most))

    def solve(self, **options: float) -> OptimizeResult:
        """Make the cost least, with options of :func:`scipy.optimize.milp`."""
        bounds = Bounds(self.low, self.high)
        with _silent():
            return milp(
                self.cost,
                integrality=self.whole,
                bounds=bounds,
                constraints=self._constraints(),
                options=options,
            )

    def settle(self, x: np.ndarray) -> OptimizeResult:
        """Make the cost least with the whole numbers of ``x``, rounded, as they are."""
        whole, fixed = self.whole == 1, x.round()
        low, high = (np.where(whole, fixed, end) for end in (self.low, self.high))
        return milp(
            self.cost, bounds=Bounds(low, high), constraints=self._constraints()
        )

    def _constraints(self) -> LinearConstraint:
        matrices, least, most = zip(*self.demands, strict=True)
        table = [[row.get(name) for name in self.blocks] for row in matrices]
        return LinearConstraint(
            sparse.block_array(table), np.concatenate(least), np.concatenate(most)
        )


class _Answer(NamedTuple):
    """What one program says about one rival.

    Attributes:
        floor: lower bound on its distance, the radius if the ball has none.
        point: where it is level with the label, or None.
        finished: whether the search came to its end.
    """

    floor: float
    point: Tensor | None
    finished: bool


def _to_rival(
    steps: Steps,
    x: Tensor,
    y: int,
    rival: int,
    radius: float,
    norm: str,
    seconds: float,
) -> _Answer:
    """Find the nearest point of ball and box where ``rival`` is level with ``y``."""
    low, high = cube(x, x.new_tensor([min(radius, 1.0)]))
    path, _ = intervals(steps, low, high, relax=True)
    ranges = [(met.low, met.high) for met in path if isinstance(met.step, Bend)]
    *hidden, (weight, bias) = _maps(steps, x)
    program, centre = _Program(), _vector(x)
    # A column u stands for base + unit * u.
    view = _View("input", centre, np.full_like(centre, radius))
    program.columns(
        "input", (_vector(low) - centre) / radius, (_vector(high) - centre) / radius
    )
    view = _add_layers(program, hidden, ranges, view)
    level = weight[y] - weight[rival]
    gap, least = level * view.unit, bias[rival] - bias[y] - level @ view.base
    scale = np.abs(gap).sum() or 1.0
    program.rows({view.block: gap[None] / scale}, -np.inf, least / scale)
    _add_size(program, len(centre), norm)
    found = program.solve(time_limit=seconds, mip_rel_gap=1e-9)
    if found.status == 2:
        return _Answer(radius, None, finished=True)
    # Without a switch the program is linear, and its value is its own bound.
    proven = found.mip_dual_bound if hidden else found.fun
    floor = radius * max(0.0, proven or 0.0)
    if found.x is None:
        return _Answer(floor, None, finished=False)
    # A switch may be off by the solver's tolerance: settle it, and solve once more.
    settled = program.settle(found.x).x
    move = (found.x if settled is None else settled)[program.blocks["input"]]
    nearest = torch.from_numpy((centre + radius * move).clip(0, 1)).to(x)
    if not _level(steps, x, nearest.view_as(x), y):
        return _Answer(floor, None, finished=False)
    return _Answer(floor, nearest, finished=found.status == 0)


def _level(steps: Steps, x: Tensor, point: Tensor, y: int) -> bool:
    """Say whether a point has lost the margin of ``x``, but for a ten thousandth."""
    logits, label = logits_of(steps, torch.cat([x, point])), torch.tensor([y, y])
    before, after = margin(logits, label.to(x.device)).tolist()
    return bool(after <= 1e-4 * before + 1e-13 * float(logits.abs().max()))


class _View(NamedTuple):
    """A layer's values as ``base + unit * u``, with u in a block of the program."""

    block: str
    base: np.ndarray
    unit: np.ndarray


def _add_layers(
    program: _Program,
    hidden: list[tuple[np.ndarray, np.ndarray]],
    ranges: list[Interval],
    view: _View,
) -> _View:
    """Write the hidden layers, with their ranges; return the values of the last one.

    A neuron whose range is [a, b] is ``max(a, 0) + (b - max(a, 0)) u``: u in [0, 1].
    """
    for i, ((w, shift), ends) in enumerate(zip(hidden, ranges, strict=True)):
        value, switch = f"value {i}", f"switch {i}"
        a, b = (_vector(v) for v in ends)
        base = a.clip(min=0)
        unit = b.clip(min=0) - base
        # A neuron that is off is measured by how far off it is.
        scale, eye = (
            np.where(unit > 0, unit, np.maximum(abs(a), abs(b))),
            np.eye(len(a)),
        )
        scale = np.where(scale > 0, scale, 1.0)
        rows = -w * view.unit / scale[:, None]
        start = (shift + w @ view.base - base) / scale
        fall, rise = a.clip(max=0) / scale, unit / scale
        program.columns(value, np.zeros_like(rise), rise)
        # Where the sign is known the switch is, too.
        program.columns(switch, (a >= 0) & (b > 0), b > 0, whole=True)
        # h - w h' >= shift, h - w h' - fall s <= shift - fall, h - rise s <= 0
        program.rows({value: eye, view.block: rows}, start, np.inf)
        program.rows(
            {value: eye, view.block: rows, switch: -np.diag(fall)},
            -np.inf,
            start - fall,
        )
        program.rows({value: eye, switch: -np.diag(rise)}, -np.inf, 0)
        view = _View(value, base, unit)
    return view


def _add_size(program: _Program, d: int, norm: str) -> None:
    """Write the size of the step as what it costs: one column, or for l1 d of them."""
    sizes = 1 if norm == "linf" else d
    step = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    program.columns("size", np.zeros(sizes), np.ones(sizes), cost=1)
    program.rows({"input": np.eye(d), "size": -step}, -np.inf, 0)
    program.rows({"input": np.eye(d), "size": step}, 0, np.inf)
    program.rows({"size": np.ones((1, sizes))}, 0, 1)


def _vector(v: Tensor) -> np.ndarray:
    return v.flatten().numpy(force=True)
