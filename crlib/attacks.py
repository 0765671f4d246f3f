r"""Attacks: find an input near ``x`` that the model labels wrongly.

One convention for all. ``model`` maps ``x``, ``(N, ...)`` in [0, 1], to logits
``(N, K)``; normalisation is its first layer. ``y`` is always the true label; a target
goes into ``target``. ``eps`` is the radius in input units (write ``8/255``), a number
or one a sample. An attack runs in evaluation mode, takes gradients of the input only,
draws from the generator it is given, and leaves the model as it was.

Every attack returns an :class:`AttackResult`. A sample that is labelled wrongly from
the start is returned unchanged, as a success at distance 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from crlib.metrics import margin
from crlib.models import evaluating

__all__ = [
    "AttackResult",
    "Curve",
    "fgsm",
    "pgd",
    "project",
    "random_noise",
    "robustness_curve",
]

Model = Callable[[Tensor], Tensor]
NORMS = ("linf", "l2")
LOSSES = ("margin", "ce")


@dataclass(frozen=True)
class AttackResult:
    """What an attack found.

    Attributes:
        x_adv: ``(N, ...)`` in the box and in the ball: the first point found that
            fools the model, else the end of the run that ended at the largest loss.
        success: ``(N,)`` bool: fooled (with a target: labelled as the target).
        distance: ``(N,)`` norm of ``x_adv - x`` where successful, else infinity.
        n_forward: ``(N,)`` evaluations of the model spent on each sample.
        n_backward: ``(N,)`` input gradients spent on each sample.
        zero_gradient: ``(N,)`` bool: an input gradient was zero on the way.
        norm: the norm of the ball.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    n_forward: Tensor
    n_backward: Tensor
    zero_gradient: Tensor
    norm: str

    @property
    def robust_accuracy(self) -> float:
        """Share of samples that the attack did not fool, in [0, 1]; NaN for none."""
        return 1 - float(self.success.double().mean())


def _rows(v: Tensor, like: Tensor) -> Tensor:
    """Shape ``(N,)`` so that it multiplies each sample of ``like``, ``(N, ...)``."""
    return v.view(-1, *(1,) * (like.ndim - 1))


def _sizes(delta: Tensor, norm: str) -> Tensor:
    order = float("inf") if norm == "linf" else 2
    return torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)


class _LinfBall:
    """The box around ``x`` of half-width ``eps``, cut with [0, 1]."""

    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.low = (x - _rows(eps, x)).clamp_(0, 1)
        self.high = (x + _rows(eps, x)).clamp_(0, 1)

    def keep(self, rows: Tensor) -> None:
        self.low, self.high = self.low[rows], self.high[rows]

    def project_(self, z: Tensor) -> Tensor:
        return torch.clamp(z, self.low, self.high, out=z)

    def steepest_(self, g: Tensor, z: Tensor) -> Tensor:
        return g.sign_()

    def random(self, generator: torch.Generator) -> Tensor:
        u = _draw(torch.rand, self.low, generator)
        return self.low + u * (self.high - self.low)


class _L2Ball:
    """The Euclidean ball around ``x`` of radius ``eps``, cut with [0, 1]."""

    def __init__(self, x: Tensor, eps: Tensor) -> None:
        self.x, self.eps = x, eps

    def keep(self, rows: Tensor) -> None:
        self.x, self.eps = self.x[rows], self.eps[rows]

    def project_(self, z: Tensor) -> Tensor:
        # The nearest point of ball and box together is clip(s * (z - x)) with one
        # number s: set s as if the coordinates at a wall stay there, see whether
        # more of them meet a wall, repeat. s only grows, and the point stays inside
        # the ball. Clipping after rescaling instead would lose part of the budget.
        v, low, high = z - self.x, -self.x, 1 - self.x
        d = v.clamp(low, high)
        if (_sizes(d, "l2") <= self.eps).all():
            return z.copy_(self.x + d)
        s = torch.ones_like(self.eps)
        outside = _sizes(d, "l2") > self.eps
        s = torch.where(outside, self.eps / _sizes(v, "l2").clamp_min(1e-30), s)
        for _ in range(20):
            d = v * _rows(s, v)
            walled = (d < low) | (d > high)
            fixed = torch.where(walled, d.clamp(low, high), 0).flatten(1).square()
            free = torch.where(walled, 0, v).flatten(1).square().sum(1)
            left = (self.eps.square() - fixed.sum(1)).clamp_min(0)
            new = torch.where(outside, (left / free.clamp_min(1e-30)).sqrt(), s)
            new = torch.minimum(new, torch.ones_like(new))
            if (new <= s * (1 + 1e-6)).all():
                break
            s = torch.maximum(s, new)
        d = (v * _rows(s, v)).clamp(low, high)
        excess = (self.eps / _sizes(d, "l2").clamp_min(1e-30)).clamp_max(1)
        return z.copy_(self.x + d * _rows(excess, d))

    def steepest_(self, g: Tensor, z: Tensor) -> Tensor:
        # A pixel at 0 or 1 whose gradient points out of the box cannot move; counting
        # it in the length of the step would shorten the step of all others. It keeps
        # its push: without it the projection would pull it off the wall again.
        walled = ((z <= 0) & (g < 0)) | ((z >= 1) & (g > 0))
        free = _sizes(g.masked_fill(walled, 0), "l2")
        length = torch.maximum(free, 1e-4 * _sizes(g, "l2")).clamp_min(1e-30)
        return g.div_(_rows(length, g))

    def random(self, generator: torch.Generator) -> Tensor:
        direction = _draw(torch.randn, self.x, generator)
        direction /= _rows(_sizes(direction, "l2").clamp_min(1e-30), direction)
        radius = _draw(torch.rand, self.eps, generator)
        radius = self.eps * radius ** (1 / self.x[0].numel())
        return self.project_(self.x + direction * _rows(radius, direction))


def _draw(kind: Any, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the generator's device, so that a CPU generator serves a GPU tensor."""
    out: Tensor = kind(
        like.shape, generator=generator, device=generator.device, dtype=like.dtype
    )
    return out.to(like.device)


def _chance(generator: torch.Generator | None) -> torch.Generator:
    """Return the caller's generator or a new one; torch's own is left alone."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def _ball(x: Tensor, eps: Tensor, norm: str) -> "_LinfBall | _L2Ball":
    return _LinfBall(x, eps) if norm == "linf" else _L2Ball(x, eps)


def _check(
    x: Tensor, y: Tensor, eps: float | Tensor, norm: str, target: Tensor | None
) -> Tensor:
    """Refuse bad input before any work; return ``eps`` as ``(N,)``."""
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}: choose one of {', '.join(NORMS)}.")
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(
            f"x is {x.dtype} of shape {tuple(x.shape)}: give a batch (N, d) or"
            " (N, C, H, W) of floating-point numbers."
        )
    low, high = x.aminmax() if x.numel() else (0.0, 1.0)
    if low != low:
        raise ValueError("x holds a NaN: clean the data first.")
    if not (-1e-6 <= low and high <= 1 + 1e-6):
        raise ValueError(
            f"x runs from {float(low):.3g} to {float(high):.3g}: inputs lie in [0, 1]."
            " Make normalisation the model's first layer (crlib.models.Normalize) and"
            " give x unnormalised."
        )
    for name, labels in (("y", y), ("target", target)):
        if labels is None:
            continue
        if labels.shape != (len(x),) or labels.dtype != torch.int64:
            raise ValueError(
                f"{name} is {labels.dtype} of shape {tuple(labels.shape)}: give one"
                f" integer label (int64) for each of the {len(x)} samples."
            )
        if len(labels) and labels.amin() < 0:
            raise ValueError(f"{name} holds the negative label {int(labels.amin())}.")
    if target is not None and (target == y).any():
        raise ValueError("A target equals the true label: there is nothing to attack.")
    return _per_sample("eps", eps, x)


def _per_sample(name: str, size: float | Tensor, x: Tensor) -> Tensor:
    sizes = torch.as_tensor(size, dtype=x.dtype, device=x.device)
    if sizes.ndim > 1 or (sizes.ndim == 1 and len(sizes) != len(x)):
        raise ValueError(f"{name} has shape {tuple(sizes.shape)}: one number, or (N,).")
    if not (torch.isfinite(sizes).all() and (sizes >= 0).all()):
        raise ValueError(f"{name} is {size}: it must be finite and not negative.")
    return sizes.expand(len(x))


def _check_logits(logits: Tensor, n: int, *labels: Tensor | None) -> None:
    if logits.ndim != 2 or len(logits) != n or logits.shape[1] < 2:
        raise ValueError(
            f"The model returned {tuple(logits.shape)} for {n} samples: it must return"
            " logits (N, K) with K at least 2."
        )
    if logits.isnan().any():
        raise ValueError("The model returned a NaN: look at its weights and inputs.")
    for y in labels:
        if y is not None and y.amax() >= logits.shape[1]:
            raise ValueError(
                f"Label {int(y.amax())} is out of range: the model knows"
                f" {logits.shape[1]} classes, 0 to {logits.shape[1] - 1}."
            )


def _objective(logits: Tensor, y: Tensor, target: Tensor | None, loss: str) -> Tensor:
    """Return what the attack increases, ``(N,)``."""
    if loss == "margin":
        return margin(logits, target) if target is not None else -margin(logits, y)
    ce = torch.nn.functional.cross_entropy
    if target is not None:
        return -ce(logits, target, reduction="none")
    return ce(logits, y, reduction="none")


def _gradient(objective: Tensor, z: Tensor) -> Tensor:
    """Return the input gradient; zero where the model does not depend on its input."""
    if not objective.requires_grad:
        return torch.zeros_like(z)
    (g,) = torch.autograd.grad(
        objective, z, torch.ones_like(objective), materialize_grads=True
    )
    # A gradient can be one number shown many times, which cannot be written to.
    return g.contiguous()


def _fooled(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    label = logits.argmax(1)
    return label == target if target is not None else label != y


def project(x_adv: Tensor, x: Tensor, *, eps: float | Tensor, norm: str) -> Tensor:
    r"""Return the nearest point to ``x_adv`` in ball and box together.

    The Euclidean projection onto :math:`\{z \in [0,1]^d : \|z - x\| \le \epsilon\}`.
    Projecting onto the ball and then clipping is not the same for l2, and weaker.

    Args:
        x_adv: ``(N, ...)`` any points.
        x: ``(N, ...)`` centres in [0, 1].
        eps: radius, a number or ``(N,)``.
        norm: ``"linf"`` or ``"l2"``.

    Returns:
        ``(N, ...)``, a new tensor.

    Raises:
        ValueError: an unknown norm, a centre outside the box, a bad radius, or
            shapes that differ.
    """
    if x_adv.shape != x.shape:
        raise ValueError(
            f"x_adv {tuple(x_adv.shape)} and x {tuple(x.shape)} must be alike."
        )
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    radius = _check(x, y, eps, norm, None)
    return _ball(x, radius, norm).project_(x_adv.detach().clone())


def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    loss: str = "margin",
    target: Tensor | None = None,
) -> AttackResult:
    r"""Take one gradient step of full length (Goodfellow et al. 2015).

    :math:`x + \epsilon\, \mathrm{sign} \nabla_x L` for linf, the normalised gradient
    for l2; then into the box.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.
        norm: ``"linf"`` or ``"l2"``.
        loss: ``"margin"`` (largest rival logit minus the true one) or ``"ce"``.
        target: ``(N,)`` labels to reach, or None.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    return pgd(
        model,
        x,
        y,
        eps=eps,
        norm=norm,
        steps=1,
        step_size=eps,
        loss=loss,
        target=target,
    )


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    random_start: bool = False,
    loss: str = "margin",
    target: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> AttackResult:
    r"""Projected gradient ascent on the loss (Madry et al. 2018).

    .. math:: x_{t+1} = \Pi\big(x_t + \alpha\, s(\nabla_x L(x_t))\big),

    with s the steepest unit step of the norm and :math:`\Pi` the projection onto ball
    and box. A sample leaves the batch as soon as it is fooled, so an attack on an
    undefended network costs a fraction of ``steps`` passes. The first run starts at
    ``x``, the others at random points of the ball. The first step has length ``eps``
    and is FGSM, so PGD fools whatever FGSM fools; the steps then shrink to zero. A
    sample whose gradient is zero takes a random step instead.

    Cost without restarts: at most ``steps + 1`` forward and ``steps`` backward passes.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of gradient steps a run, at least 1.
        step_size: length of every step; None means ``eps * (1 - t / steps)`` for the
            steps t = 0, 1, ...
        restarts: number of runs; each sees only the samples still standing.
        random_start: start the first run at a random point too (one more forward).
        loss: ``"margin"`` (largest rival logit minus the true one; not fooled by the
            scale of the logits) or ``"ce"``.
        target: ``(N,)`` labels to reach, or None.
        generator: source of random starts; None means a new one of seed 0.
        progress: show a progress bar.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    radius = _check(x, y, eps, norm, target)
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}: choose one of {', '.join(LOSSES)}.")
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps is {steps}, restarts {restarts}: at least 1 each.")
    schedule = torch.ones(steps)
    if step_size is None:
        step_size, schedule = radius, 1 - torch.arange(steps) / steps
    step = _per_sample("step_size", step_size, x)
    run, chance = _Search(model, x.detach(), y, target, loss, norm), _chance(generator)
    bar = tqdm(total=restarts * steps, disable=not progress, desc="pgd", leave=False)
    with evaluating(model), bar:
        if random_start or not len(x):
            run.look_at_clean()
        for r in range(restarts):
            rows = run.standing()
            if not len(rows):
                break
            z = run.x[rows]
            ball = _ball(z, radius[rows], norm)
            z = ball.random(chance) if random_start or r > 0 else z.clone()
            run.ascend(z, rows, ball, step[rows], schedule.tolist(), chance, bar)
    return run.result()


class _Search:
    """What is known about each sample while an attack runs."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        loss: str,
        norm: str,
    ) -> None:
        self.model, self.x, self.y, self.target = model, x, y, target
        self.loss, self.norm = loss, norm
        self.x_adv = x.clone()
        self.best = x.new_full((len(x),), -torch.inf)
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.n_forward = torch.zeros_like(y)
        self.n_backward = torch.zeros_like(y)
        self.zero_gradient = torch.zeros_like(self.success)

    def standing(self) -> Tensor:
        return (~self.success).nonzero().squeeze(1)

    def look_at_clean(self) -> None:
        """Mark the samples that are labelled wrongly before any attack."""
        if len(self.x):
            with torch.no_grad():
                logits = self.model(self.x)
            self.see(self.x, torch.arange(len(self.x), device=self.x.device), logits)

    def see(
        self, z: Tensor, rows: Tensor, logits: Tensor, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Record the fooled among the points ``z`` of samples ``rows``.

        At the end of a run record also the others, where they are the best so far.
        Returns the objective, ``(n,)`` with its graph, and who is fooled.
        """
        y, target = self.y[rows], None if self.target is None else self.target[rows]
        _check_logits(logits, len(z), y, target)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        objective = _objective(logits, y, target, self.loss)
        # Labelled wrongly at x itself counts as fooled, also for a targeted attack.
        clean = self.n_forward[rows] == 0
        fooled = _fooled(logits, y, target) | (clean & _fooled(logits, y, None))
        self.n_forward[rows] += 1
        record = fooled
        if last:
            value = objective.detach()
            record = fooled | (value > self.best[rows])
            self.best[rows] = torch.maximum(self.best[rows], value)
        if record.any():
            self.x_adv[rows[record]] = z.detach()[record]
            self.success[rows] = fooled
        return objective, fooled

    def ascend(
        self,
        z: Tensor,
        rows: Tensor,
        ball: "_LinfBall | _L2Ball",
        step: Tensor,
        schedule: list[float],
        generator: torch.Generator,
        bar: Any,
    ) -> None:
        before = None
        for t, factor in enumerate([*schedule, 0.0]):
            last = t == len(schedule)
            with torch.set_grad_enabled(not last):
                logits = self.model(z.requires_grad_(not last))
                objective, fooled = self.see(z, rows, logits, last)
            if last or fooled.all():
                bar.update(len(schedule) - t)
                return
            g = _gradient(objective, z)
            self.n_backward[rows] += 1
            z, now = z.detach(), objective.detach()
            # Whoever has a zero gradient stands still, which shows in the objective;
            # looking at every gradient would cost as much as the step itself.
            still = torch.ones_like(fooled) if before is None else now == before
            if still.any():
                self.shake(g, rows, generator)
            if fooled.any():
                keep = ~fooled
                z, g, rows, step, now = (v[keep] for v in (z, g, rows, step, now))
                ball.keep(keep)
            before = now
            z.addcmul_(ball.steepest_(g, z), _rows(step, z), value=factor)
            ball.project_(z)
            bar.update()

    def shake(self, g: Tensor, rows: Tensor, generator: torch.Generator) -> None:
        """Replace the gradients that are zero by random directions."""
        dead = ~g.flatten(1).any(1)
        if dead.any():
            self.zero_gradient[rows[dead]] = True
            g[dead] = _draw(torch.randn, g[dead], generator)

    def result(self) -> AttackResult:
        distance = torch.full_like(self.best, torch.inf)
        done = self.success
        distance[done] = _sizes(self.x_adv[done] - self.x[done], self.norm)
        return AttackResult(
            x_adv=self.x_adv,
            success=self.success,
            distance=distance,
            n_forward=self.n_forward,
            n_backward=self.n_backward,
            zero_gradient=self.zero_gradient,
            norm=self.norm,
        )


def random_noise(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    draws: int = 20,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Try random points of the ball: the baseline that every attack must beat.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units, a number or ``(N,)``.
        norm: ``"linf"`` or ``"l2"``.
        draws: points tried for each sample still standing.
        generator: source of the points; None means a new one of seed 0.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    radius = _check(x, y, eps, norm, None)
    if draws < 1:
        raise ValueError(f"draws is {draws}: at least 1.")
    run, chance = (
        _Search(model, x.detach(), y, None, "margin", norm),
        _chance(generator),
    )
    with evaluating(model), torch.no_grad():
        run.look_at_clean()
        for _ in range(draws):
            rows = run.standing()
            if not len(rows):
                break
            z = _ball(run.x[rows], radius[rows], norm).random(chance)
            run.see(z, rows, model(z))
    return run.result()


@dataclass(frozen=True)
class Curve:
    """Robust accuracy against the budget.

    Attributes:
        eps: ``(B,)`` budgets in input units, increasing.
        accuracy: ``(B,)`` robust accuracy in [0, 1], never increasing.
        norm: the norm of the balls.
    """

    eps: Tensor
    accuracy: Tensor
    norm: str


def robustness_curve(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: Sequence[float],
    norm: str = "linf",
    progress: bool = False,
    **options: Any,
) -> Curve:
    """Return robust accuracy under :func:`pgd` at each budget.

    A sample fooled at a small budget is fooled at every larger one and is not attacked
    again: the curve cannot rise, and costs little more than its hardest budget.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: budgets in input units; budget 0 gives clean accuracy.
        norm: ``"linf"`` or ``"l2"``.
        progress: show a progress bar over the budgets.
        **options: for :func:`pgd`, such as ``steps`` and ``restarts``.

    Raises:
        ValueError: no budgets or no samples, or bad input to :func:`pgd`.
    """
    budgets = sorted(float(e) for e in eps)
    if not budgets or not len(x):
        raise ValueError("A curve needs at least one budget and one sample.")
    standing = torch.arange(len(x), device=x.device)
    shares = []
    for budget in tqdm(budgets, disable=not progress, desc="budgets", leave=False):
        result = pgd(model, x[standing], y[standing], eps=budget, norm=norm, **options)
        standing = standing[~result.success]
        shares.append(len(standing) / len(x))
    return Curve(torch.tensor(budgets), torch.tensor(shares), norm)
