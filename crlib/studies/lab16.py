"""Lab 16: a harmonic of degree four, learned by quadratic models and by kernels."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from crlib import metrics
from crlib.data import Dataset
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import of_sample

__all__ = [
    "DEGREE",
    "DIM",
    "SETTINGS",
    "SIZES",
    "STUDY",
    "Task",
    "dimension",
    "fitted",
    "judge",
    "ntk",
    "run",
    "solved",
    "sphere",
    "task",
    "zonal",
]

Function = Callable[[Tensor], Tensor]
DIM, DEGREE, SIZES = 10, 4, (100, 200, 400, 800)
QUADRATIC = ("on representation", "not whitened", "on degree two", "on raw input")
KERNELS = ("kernel, representation", "kernel, raw input", "kernel, degree four")
SETTINGS: list[Config] = [
    {"way": way, "strength": n} for way in (*QUADRATIC, *KERNELS) for n in SIZES
]
# Length of the moves that leave the target as it is; inputs have length sqrt(10).
STEP = 0.3


def run(config: Config, images: Dataset) -> Numbers:
    """Return the test error of one learner, and how it reacts to moves."""
    given = task(config["strength"], config["seed"])
    learned, matrix = fitted(config["way"], given, config["seed"])
    found = judge(learned, given)
    if matrix is not None:
        found["spectral error"] = metrics.best_k_error(
            metrics.singular_values(matrix), 2
        )
    return found


class Task(NamedTuple):
    """A target and its samples, to train and to test.

    Args:
        beta: its direction ``(d,)``, of length one.
        x: inputs ``(n, d)`` of length sqrt(d).
        y: targets ``(n,)``, of variance one over the sphere.
        xv: inputs ``(1000, d)`` to test.
        yv: targets ``(1000,)`` to test.
    """

    beta: Tensor
    x: Tensor
    y: Tensor
    xv: Tensor
    yv: Tensor


def zonal(u: Tensor, d: int, q: int) -> Tensor:
    r"""Return the harmonic of degree q around an axis, one on the axis.

    The Gegenbauer polynomials by
    :math:`(k + d - 2) P_{k+1} = (2 k + d - 2) u P_k - k P_{k-1}`. Over the sphere its
    square has the mean one over the dimension of the harmonics.

    Args:
        u: cosine of the angle with the axis.
        d: coordinates, at least 2.
        q: degree.
    """
    before, now = torch.ones_like(u), u
    if q == 0:
        return before
    for k in range(1, q):
        before, now = now, ((2 * k + d - 2) * u * now - k * before) / (k + d - 2)
    return now


def dimension(d: int, q: int) -> int:
    """Return how many harmonics of degree q are independent on d coordinates."""
    less = math.comb(d + q - 3, q - 2) if q > 1 else 0
    return math.comb(d + q - 1, q) - less


def sphere(n: int, g: torch.Generator, d: int = DIM) -> Tensor:
    """Return points ``(n, d)`` of length sqrt(d), of all directions alike."""
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    return z / z.norm(dim=1, keepdim=True) * d**0.5


def task(n: int, seed: int) -> Task:
    """Return n samples of the target of a seed: the first ones of one sequence."""
    g = torch.Generator().manual_seed(160_000 + seed)
    beta = sphere(1, g)[0] / DIM**0.5
    xv, x = sphere(1000, g), sphere(max(SIZES), g)[:n]

    def target(x: Tensor) -> Tensor:
        u = (x @ beta / DIM**0.5).clamp(-1, 1)
        return dimension(DIM, DEGREE) ** 0.5 * zonal(u, DIM, DEGREE)

    return Task(beta, x, target(x), xv, target(xv))


def fitted(way: str, given: Task, seed: int) -> tuple[Function, Tensor | None]:
    """Return what one learner learned, and its matrix if there is one.

    Args:
        way: one of the learners of :data:`SETTINGS`.
        given: its samples.
        seed: of the representation and of the start.
    """
    g = torch.Generator().manual_seed(161_000 + seed)
    random = representation(g, whitened=way != "not whitened")
    if way in ("on representation", "not whitened"):
        return _quadratic(random, given, g)
    if way == "on degree two":
        return _quadratic(degree_two, given, g)
    if way == "on raw input":
        # The weight decay that tests best: the learner is given every chance.
        tried = [_gated(given, g, decay) for decay in (0.01, 0.1, 1.0)]
        return min(tried, key=lambda f: _miss(f, given)), None
    if way == "kernel, degree four":
        return solved(_harmonic, given.x, given.y, 1e-10), None
    inside = random if way == "kernel, representation" else _with_one

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return ntk(inside(a), inside(b))

    tried = [solved(kernel, given.x, given.y, ridge) for ridge in (1e-6, 1e-3, 1e-1)]
    return min(tried, key=lambda f: _miss(f, given)), None


def _miss(f: Function, given: Task) -> float:
    """Return the mean squared error over the mean square of the target, on tests."""
    return float((f(given.xv) - given.yv).square().mean() / given.yv.square().mean())


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def degree_two(x: Tensor) -> Tensor:
    """Return products of two coordinates ``(n, d (d + 1) / 2)``, and a one."""
    rows, columns = torch.triu_indices(x.shape[1], x.shape[1])
    same = (rows == columns).to(x.dtype)
    return _with_one((x[:, rows] * x[:, columns] - same) * (1 + same) ** -0.5)


def representation(
    g: torch.Generator, width: int = 400, *, whitened: bool = True
) -> Function:
    """Return a fixed random layer ``|V x|``, and a one.

    Args:
        g: source of V and of 4000 unlabelled inputs.
        width: neurons.
        whitened: on the directions of largest variance, as many as there are harmonics
            of degree two; else centred, with a variance of one in all.
    """
    v = torch.randn(width, DIM, generator=g, dtype=torch.float64) / DIM**0.5
    seen = (sphere(4000, g) @ v.T).abs()
    mean, spread = seen.mean(0), torch.cov(seen.T)
    turn = torch.eye(width, dtype=torch.float64) / spread.trace().sqrt()
    if whitened:
        values, vectors = torch.linalg.eigh(spread)
        k = dimension(DIM, 2)
        # An eigenvector's sign is a matter of the machine: choose it.
        vectors = vectors * vectors.sum(0).sign()
        turn = vectors[:, -k:] / values[-k:].sqrt()
    return lambda x: _with_one(((x @ v.T).abs() - mean) @ turn)


def _descended(w: Tensor, loss: Callable[[], Tensor], lr: float, steps: int) -> None:
    """Lower a loss by Adam on all samples, the rate falling to zero as a cosine."""
    optimiser = torch.optim.Adam([w], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()


def _quadratic(
    features: Function, given: Task, g: torch.Generator, neurons: int = 8
) -> tuple[Function, Tensor]:
    """Return ``sum_r a_r (w_r . z)^2`` with weight decay, and its matrix."""
    z = features(given.x)
    w = torch.randn(z.shape[1], neurons, generator=g, dtype=z.dtype)
    w = (0.1 * w / z.shape[1] ** 0.5).requires_grad_()
    a = torch.ones(neurons, dtype=z.dtype)
    a[1::2] = -1

    def loss() -> Tensor:
        miss = (z @ w).square() @ a - given.y
        return miss.square().mean() + 0.02 * w.square().sum()

    _descended(w, loss, 0.02, 800)
    w = w.detach()
    return lambda x: (features(x) @ w).square() @ a, (w * a) @ w.T


def _gated(
    given: Task, g: torch.Generator, decay: float, neurons: int = 100
) -> Function:
    """Return a quadratic model of the input in which a random half of space is on."""
    z = _with_one(given.x)
    gates = torch.randn(z.shape[1], neurons, generator=g, dtype=z.dtype)
    w = torch.randn(z.shape[1], neurons, generator=g, dtype=z.dtype)
    w = (0.1 * w / z.shape[1] ** 0.5).requires_grad_()
    a = torch.full((neurons,), 4 / neurons**0.5, dtype=z.dtype)
    a[1::2] *= -1

    def model(z: Tensor, w: Tensor) -> Tensor:
        return ((z @ w).square() * (z @ gates > 0)) @ a

    def loss() -> Tensor:
        return (model(z, w) - given.y).square().mean() + decay * w.square().sum()

    _descended(w, loss, 0.03, 400)
    w = w.detach()
    return lambda x: model(_with_one(x), w)


def ntk(a: Tensor, b: Tensor) -> Tensor:
    """Return the tangent kernel ``(n, m)`` of one wide hidden ReLU layer."""
    size = a.norm(dim=1)[:, None] * b.norm(dim=1)
    u = (a @ b.T / size).clamp(-1 + 1e-12, 1 - 1e-12)
    angle = torch.acos(u)
    return size * (angle.sin() + 2 * (math.pi - angle) * u) / math.pi


def _harmonic(a: Tensor, b: Tensor) -> Tensor:
    return zonal((a @ b.T / DIM).clamp(-1, 1), DIM, DEGREE)


def solved(
    kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, ridge: float
) -> Function:
    """Return kernel ridge regression on ``(n, d)``; the ridge is relative."""
    k = kernel(x, x)
    eye = torch.eye(len(x), dtype=x.dtype) * k.diagonal().mean()
    c = torch.linalg.solve(k + ridge * eye, y)
    return lambda new: kernel(new, x) @ c


def judge(learned: Function, given: Task) -> dict[str, float]:
    r"""Return the test error of a function, and what it does off the axis.

    The target depends on :math:`\beta^\top x` alone. ``leak`` is the share of gradient
    energy, along the sphere, that is orthogonal to it; ``moved`` the root mean square
    change under one step of length 0.3 that keeps it, in units of the function's own
    spread.
    """
    with torch.no_grad():
        answers = learned(given.xv)
    x, beta = given.xv[:200], given.beta
    at = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(learned(at).sum(), at)
    slope = slope - x * (slope * x).sum(1, keepdim=True) / DIM
    # The axis along the sphere, and the rest of each point, orthogonal to the axis.
    height = x @ beta
    axis = beta - x * height[:, None] / DIM
    along = (slope * axis).sum(1).square() / axis.square().sum(1)
    rest = x - height[:, None] * beta
    size = rest.norm(dim=1, keepdim=True)
    off = slope
    for _ in range(2):  # Twice: where little is left, the first time leaves roundings.
        off = off - (off @ beta)[:, None] * beta
        off = off - rest * (off * rest).sum(1, keepdim=True) / size.square()
        off = off / off.norm(dim=1, keepdim=True).clamp_min(1e-300)
    angle = 2 * torch.asin(STEP / 2 / size)
    base, changes = height[:, None] * beta + rest * angle.cos(), []
    for sign in (-1, 1):
        moved = base + sign * size * off * angle.sin()
        with torch.no_grad():
            changes.append((learned(moved) - learned(x)).abs())
    worst = torch.maximum(*changes).square().mean().sqrt()
    return {
        "miss": _miss(learned, given),
        "leak": 1 - float(along.sum() / slope.square().sum()),
        "moved": float(worst / answers.std()),
    }


STUDY = of_sample("lab16", SETTINGS, run)
