"""Ascent within a budget: FGSM, PGD, APGD, and the random points they must beat."""

from dataclasses import dataclass, field, fields
from itertools import product
from typing import Self

import torch
from torch import Tensor

from crlib import checks
from crlib.attacks.balls import BALLS, Ball, L1Ball
from crlib.attacks.base import (
    LOSSES,
    AttackResult,
    Model,
    Search,
    check,
    door,
    pick,
    rivals_of,
)


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
    for l2, the coordinates of largest gradient up to their walls for l1; then into the
    box.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``), a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        loss: ``"margin"``, ``"ce"``, the cross-entropy, or ``"dlr"``, the margin over
            the spread of the largest logits (Croce and Hein 2020): what is increased.
        target: ``(N,)`` labels to reach; None means any label but ``y``.

    Returns:
        An :class:`AttackResult`.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.tensor([0])
        >>> x = torch.tensor([[0.6, 0.4]])
        >>> attacks.fgsm(model, x, y, eps=0.15).x_adv
        tensor([[0.4500, 0.5500]])
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


@door
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
) -> AttackResult:
    r"""Projected gradient ascent on the loss (Madry et al. 2018).

    .. math:: x_{t+1} = \Pi\big(x_t + \alpha\, s(\nabla_x L(x_t))\big),

    with s the steepest unit step of the norm and :math:`\Pi` the projection onto ball
    and box. A sample leaves the batch as soon as it is fooled, so an attack on an
    undefended network costs a fraction of ``steps`` passes. The first run starts at
    ``x``, the others at random points of the ball. The first step has length ``eps``
    and is FGSM, so PGD fools whatever FGSM fools; the steps then shrink to zero. A
    sample whose gradient is zero takes a random step instead.

    Cost: at most ``steps + 1`` forward and ``steps`` backward passes a run; one more
    forward pass with ``random_start``.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``), a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: number of gradient steps a run, at least 1.
        step_size: length of every step; None means ``eps * (1 - t / steps)`` for the
            steps t = 0, 1, ...
        restarts: number of runs; each sees only the samples still standing.
        random_start: start the first run at a random point too.
        loss: ``"margin"``, ``"ce"``, the cross-entropy, or ``"dlr"``, the margin over
            the spread of the largest logits (Croce and Hein 2020): what is increased.
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
        >>> attacks.pgd(model, x, y, eps=0.15).success
        tensor([True])
        >>> attacks.pgd(model, x, y, eps=0.05).success
        tensor([False])
    """
    radius = check(x, y, eps, norm, target)
    checks.one_of("loss", loss, LOSSES)
    checks.at_least(1, steps=steps, restarts=restarts)
    shares = torch.ones(steps)
    if step_size is None:
        step_size, shares = radius, 1 - torch.arange(steps) / steps
    length, schedule = checks.per_sample("step_size", step_size, x), shares.tolist()
    run, source = Search(model, x, y, target, norm, loss), checks.chance(generator)
    if random_start or not len(x):
        run.look_at_clean()
    for r in range(restarts):
        at = Steady.start(run, radius, source if random_start or r else None)
        at.length, at.shares = length[at.rows], schedule
        at.go(run, steps, source)
    return run.result()


@dataclass
class Climb:
    """Points on their way up, and what follows each of them.

    There is one point for each sample that stands, or one for each of its rivals: p
    points of n samples. A subclass is a kind of ascent: what else follows a point, and
    what a step is. Every tensor but ``rows`` has one entry a point, and leaves with it.
    """

    rows: Tensor  # (n,) samples that stand
    z: Tensor  # (p, ...) where the points are
    region: Ball  # of p balls, which may be wider than asked for
    radius: Tensor  # (p,) of the balls asked for
    rival: Tensor | None  # (p,) labels to lead to
    before: Tensor  # (p,) objective at the last look, at first minus infinity
    inside: bool  # whether region is what was asked for
    now: Tensor = field(init=False)  # (p,) objective at z
    g: Tensor = field(init=False)  # (p, ...) its gradient there

    @classmethod
    def start(
        cls,
        run: Search,
        radius: Tensor,
        random: torch.Generator | None,
        width: int = 1,
        rivals: Tensor | None = None,
    ) -> Self:
        """Place who stands at ``x``, or at random points of balls so much wider."""
        rows = run.standing()
        each = 1 if rivals is None else rivals.shape[1]
        points = rows.repeat_interleave(each)
        # All samples stand, in order, where there are as many points: that is no copy.
        z = run.x if len(points) == len(run.x) and each == 1 else run.x[points]
        radius = radius[points]
        region = BALLS[run.norm](z, width * radius)
        if random is not None and len(rows):
            z = region.random(random)
        rival = None if rivals is None else rivals[rows].flatten()
        before = torch.full_like(radius, -torch.inf)
        return cls(rows, z, region, radius, rival, before, inside=width == 1)

    def step(self, t: int, steps: int) -> None:
        """Take step t of so many: move ``z`` along ``g``, which may be used up."""
        raise NotImplementedError

    def let_go(self, fooled: Tensor, count: int) -> None:
        """Drop the ``count`` samples that are fooled, with all that follows them."""
        # Sorting, unlike a mask, need not wait for a GPU to count.
        stay = fooled.to(torch.uint8).argsort(stable=True)[: len(fooled) - count]
        points = torch.arange(len(self.z), device=self.z.device)
        points = points.view(len(fooled), -1)[stay].flatten()
        self.region.keep(points)
        for own in fields(self):
            v = getattr(self, own.name)
            if isinstance(v, Tensor) and own.name != "rows":
                setattr(self, own.name, v.index_select(0, points))
        self.rows = self.rows[stay]

    def go(self, run: Search, steps: int, source: torch.Generator) -> None:
        """Look at the points, let go of the fooled, take a step; and so on."""
        for t in range(steps + 1 if len(self.rows) else 0):
            # The last gradient would only take memory while the model works.
            last, self.g = t == steps, self.z.new_empty(0)
            z = self.z.detach().requires_grad_(not last)
            look = run.see(
                z,
                self.rows,
                rival=self.rival,
                before=self.before,
                last=last,
                inside=self.inside,
            )
            if last or look.n_fooled == len(self.rows):
                return
            self.g, self.z = run.slope(look.value, z, self.rows), z.detach()
            self.now = look.value.detach().to(z.dtype)
            # Whoever has a zero gradient stands still, which shows in the objective;
            # looking at every gradient would cost as much as the step itself.
            if look.still or t == 0:
                run.shake(self.g, self.rows, source)
            if look.n_fooled:
                self.let_go(look.fooled, look.n_fooled)
            self.step(t, steps)
            self.before = self.now


@dataclass
class Steady(Climb):
    """Steps of given length: PGD."""

    length: Tensor = field(init=False)  # (p,) of a whole step
    shares: list[float] = field(init=False)  # of it, one a step

    def step(self, t: int, steps: int) -> None:
        self.z = self.region.step_(self.z.clone(), self.g, self.length * self.shares[t])


@door
def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    steps: int = 100,
    restarts: int = 1,
    random_start: bool = False,
    loss: str = "margin",
    n_targets: int = 0,
    together: int = 1,
    target: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    r"""Ascend with momentum and a step that halves when it stops paying (APGD).

    .. math:: u = \Pi\big(x_t + \alpha\, s(\nabla L(x_t))\big), \qquad
       x_{t+1} = \Pi\big(x_t + \tfrac34 (u - x_t) + \tfrac14 (x_t - x_{t-1})\big).

    At checkpoints that follow each other ever faster a sample whose loss rose in less
    than three quarters of the steps, or whose best loss and step did not change, halves
    :math:`\alpha` and goes back to its best point (Croce and Hein 2020). The step
    starts at twice ``eps``.

    In l1, where such steps get stuck on few coordinates, the first step is FGSM; the
    next climb in a ball of radius ``3 * eps``, then ``2 * eps``, then ``eps``, each
    from the best point of the one before. A step moves a share of the coordinates
    alike: two thirds of as many as the best point has moved. It shrinks by a third
    unless their number falls (Croce and Hein 2021). A random start lies in the widest
    of these balls.

    With ``n_targets`` the loss is the targeted margin :math:`z_k - z_y`, for one rival
    k after the other, the strongest at ``x`` first; with ``"dlr"`` it is divided by
    :math:`z_{(1)} - (z_{(3)} + z_{(4)}) / 2`, logits by size. Each run sees only what
    still stands. On a linear model, with all rivals, the answer is exact.

    Cost: at most ``steps + 1`` forward and ``steps`` backward passes a run; one more
    forward pass with ``n_targets`` or ``random_start``.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``), a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: gradient steps a run.
        restarts: rounds; the first starts at ``x``, the others at random points.
        random_start: start the first round at random points too.
        loss: ``"margin"``, ``"ce"``, the cross-entropy, or ``"dlr"``, the margin over
            the spread of the largest logits (Croce and Hein 2020): what is increased.
        n_targets: rivals led to, one a run; more than K - 1 means K - 1; 0 is none.
        together: runs to rivals that share their passes, which a small batch gains by;
            so many times the memory.
        target: ``(N,)`` labels to reach, or None; then ``n_targets`` is 0.
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
        >>> attacks.apgd(model, x, y, eps=0.15, n_targets=1).distance
        tensor([0.1500])
    """
    radius = check(x, y, eps, norm, target)
    checks.one_of("loss", loss, LOSSES)
    checks.at_least(1, steps=steps, restarts=restarts, together=together)
    checks.at_least(0, n_targets=n_targets)
    if n_targets and target is not None:
        raise ValueError("Give target or n_targets: one goal a sample, or its rivals.")
    run, source = Search(model, x, y, target, norm, loss), checks.chance(generator)
    kind: type[Best] = Sparse if norm == "l1" else Halving
    rivals: tuple[Tensor | None, ...] = (None,)
    if n_targets or random_start or not len(x):
        logits = run.look_at_clean()
    if n_targets:
        rivals = rivals_of(logits, y)[:, :n_targets].split(together, 1)
    for r, rival in product(range(restarts), rivals):
        random = source if random_start or r else None
        wide = 3 if random is not None and norm == "l1" else 1
        kind.start(run, radius, random, wide, rival).go(run, steps, source)
    return run.result()


@dataclass
class Best(Climb):
    """Remembers the best point so far: APGD in any norm."""

    best: Tensor = field(init=False)  # (p,) largest objective so far
    z_best: Tensor = field(init=False)  # (p, ...) where it was
    g_best: Tensor = field(init=False)  # (p, ...) its gradient there
    alpha: Tensor = field(init=False)  # (p,) length of a step

    def __post_init__(self) -> None:
        self.best, self.z_best = self.before, self.z
        self.g_best = torch.zeros_like(self.z)
        self.alpha = self.radius

    def remember(self) -> None:
        better = self.now > self.best
        self.best = torch.maximum(self.best, self.now)
        self.z_best = pick(better, self.z, self.z_best)
        self.g_best = pick(better, self.g, self.g_best)


@dataclass
class Halving(Best):
    """Steps of linf and l2, with momentum, that halve when they stop paying."""

    old: Tensor = field(init=False)  # (p, ...) the point before
    rises: Tensor = field(init=False)  # (p,) how often the objective rose since a mark
    halved: Tensor = field(init=False)  # (p,) bool: at the last mark
    best_at_mark: Tensor = field(init=False)  # (p,)
    previous: int = field(init=False, default=0)  # the last mark

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alpha, self.old = 2 * self.radius, self.z
        self.rises = torch.zeros_like(self.radius)
        self.halved = torch.zeros_like(self.radius, dtype=torch.bool)
        self.best_at_mark = self.before

    def step(self, t: int, steps: int) -> None:
        self.rises = self.rises + (self.now > self.before)
        self.remember()
        if t in _marks(steps):
            stuck = ~self.halved & (self.best <= self.best_at_mark)
            self.halved = (self.rises < 0.75 * (t - self.previous)) | stuck
            self.alpha = torch.where(self.halved, self.alpha / 2, self.alpha)
            self.z = pick(self.halved, self.z_best, self.z)
            self.g = pick(self.halved, self.g_best, self.g)
            self.now = torch.where(self.halved, self.best, self.now)
            self.best_at_mark, self.previous = self.best, t
            self.rises = torch.zeros_like(self.rises)
        u = self.region.step_(self.z.clone(), self.g.clone(), self.alpha)
        if t:
            u = u.sub_(self.z).mul_(0.75).add_(self.z)
            u = u.add_(self.z - self.old, alpha=0.25)
            self.region.project_(u)
        self.old, self.z = self.z, u


def _marks(steps: int) -> set[int]:
    """Return the steps at which the length is reconsidered."""
    shares, gap = [0.22], 0.22
    while shares[-1] < 1:
        gap = max(gap - 0.03, 0.06)
        shares.append(shares[-1] + gap)
    return {max(1, round(share * steps)) for share in shares[:-1]}


@dataclass
class Sparse(Best):
    """Steps of l1, in balls that shrink."""

    region: L1Ball  # the one that knows sparse steps
    share: Tensor = field(init=False)  # (p,) of the coordinates that a step moves
    moved: Tensor = field(init=False)  # (p,) coordinates moved at the last check
    wide: int = field(init=False, default=0)  # radius of the ball over the one asked
    since: int = field(init=False, default=0)  # the step at which it became so

    def __post_init__(self) -> None:
        super().__post_init__()
        self.share = torch.full_like(self.radius, 0.2)
        self.moved = torch.full_like(self.radius, torch.inf)

    def step(self, t: int, steps: int) -> None:
        self.remember()
        if t == 0 and self.inside:
            self.z = self.region.step_(self.z.clone(), self.g, self.radius)
            return
        every, dim = max(1, steps // 25), max(1, self.z[:1].numel())
        width = 3 if t < 0.3 * steps else 2 if t < 0.6 * steps else 1
        width = width if t + 1 < steps else 1
        count = (self.z_best != self.region.x).flatten(1).sum(1)
        count = count.to(self.radius.dtype)
        if width != self.wide:
            # A new ball: on from the best point of the last one.
            self.wide, self.since = width, t
            self.region.eps, self.inside = width * self.radius, width == 1
            self.alpha, self.z, self.g = width * self.radius, self.z_best, self.g_best
            self.best = torch.full_like(self.best, -torch.inf)
            self.moved = count
            if t > 1:
                self.share = count / dim / 1.5
        elif (t - self.since) % every == 0:
            fell = count < 0.95 * self.moved
            self.share, self.moved = count / dim / 1.5, count
            alpha = torch.where(fell, self.wide * self.radius, self.alpha / 1.5)
            self.alpha = torch.maximum(alpha, 0.1 * self.radius)
            self.z = pick(fell, self.z_best, self.z)
            self.g = pick(fell, self.g_best, self.g)
        self.z = self.region.sparse_step_(
            self.z.clone(), self.g, self.alpha, self.share
        )


@door
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
    """Try random points of the ball, ``draws`` of them: every attack must beat it.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``), a number or ``(N,)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        draws: random points a sample, at least 1.
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
        >>> attacks.random_noise(model, x, y, eps=0.05).robust_accuracy
        1.0
    """
    radius = check(x, y, eps, norm)
    checks.at_least(1, draws=draws)
    run, source = Search(model, x, y, None, norm), checks.chance(generator)
    with torch.no_grad():
        run.look_at_clean()
        for _ in range(draws):
            at = Climb.start(run, radius, source)
            if not len(at.rows):
                break
            run.see(at.z, at.rows)
    return run.result()
