"""What every attack shares: the result, the objective, and the bookkeeping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.geometry import norm_of
from crlib.metrics import margin

Model = Callable[[Tensor], Tensor]
BUDGET_NORMS = ("linf", "l2", "l1")
LOSSES = ("margin", "ce")


@dataclass(frozen=True, repr=False)
class AttackResult:
    """What an attack found.

    Attributes:
        x_adv: ``(N, ...)`` in the box, and in the ball if there is a budget. If
            fooled: the first such point, of a minimal-norm attack the nearest. Else
            the end of the run that ended at the largest loss (minimal norm: ``x``).
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
        return 1 - float(self.success.cpu().double().mean())

    def __repr__(self) -> str:
        fooled, shape = int(self.success.sum()), tuple(self.x_adv.shape)
        return f"AttackResult({self.norm}, {fooled} fooled, x_adv of shape {shape})"


def per_row(v: Tensor, like: Tensor) -> Tensor:
    """Shape ``(N,)`` so that it multiplies each sample of ``like``, ``(N, ...)``."""
    return v.view(-1, *(1,) * (like.ndim - 1))


def pick(use: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return ``new`` for the samples ``use``, else ``old``; faster than a where."""
    return torch.lerp(old, new, per_row(use, old).to(old.dtype))


def rivals_of(logits: Tensor, y: Tensor) -> Tensor:
    """Return the labels other than ``y``, the strongest first, ``(N, K - 1)``."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1).flip(1)[:, :-1]


def check(
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    norm: str,
    target: Tensor | None = None,
    norms: tuple[str, ...] = BUDGET_NORMS,
) -> Tensor:
    """Refuse bad input before any work; return ``eps`` as ``(N,)``."""
    checks.one_of("norm", norm, norms)
    checks.inputs(x)
    checks.labels(y, len(x))
    if target is not None:
        checks.labels(target, len(x), "target")
        if (target == y).any():
            raise ValueError(
                "A target equals the true label: there is nothing to attack."
            )
    return checks.per_sample("eps", eps, x)


class EOT(nn.Module):
    """The mean logits of several calls of a model that draws at random.

    Any attack on it climbs the expectation over the model's transformations (Athalye
    et al. 2018) and counts the calls of one mean as one. It keeps what fooled a draw
    that it saw: judge its points by fresh draws, with :func:`transfer` to an EOT.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``, other ones at each call.
        samples: calls a mean, at least 1.
    """

    def __init__(self, model: Model, samples: int = 20) -> None:
        super().__init__()
        checks.at_least(1, samples=samples)
        self.model, self.samples = model, samples

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.model(x) for _ in range(self.samples)]).mean(0)


def objective(
    logits: Tensor,
    y: Tensor,
    target: Tensor | None = None,
    loss: str = "margin",
    rival: Tensor | None = None,
) -> Tensor:
    """Return what the attack increases, ``(N,)``; a rival is led, but not demanded."""
    if rival is not None:
        pair = logits.gather(1, torch.stack([rival, y], 1))
        return pair[:, 0] - pair[:, 1]
    label, sign = (y, 1) if target is None else (target, -1)
    if loss == "margin":
        return -sign * margin(logits, label)
    return sign * nn.functional.cross_entropy(logits, label, reduction="none")


def gradient(value: Tensor, z: Tensor, retain: bool = False) -> Tensor:
    """Return the input gradient; zero where the model does not depend on its input."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    ones = torch.ones_like(value)
    (g,) = torch.autograd.grad(
        value, z, ones, retain_graph=retain, materialize_grads=True
    )
    # A gradient can be one number shown many times, which cannot be written to.
    return g.contiguous()


def is_fooled(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    label = logits.argmax(1)
    return label == target if target is not None else label != y


class Look(NamedTuple):
    """What :meth:`Search.see` saw at p points of n samples."""

    value: Tensor  # (p,) objective, with a graph where the points ask for one
    fooled: Tensor  # (n,) bool: one of the sample's points fools
    n_fooled: int  # how many samples that is
    still: bool  # an objective is what it was before


class Search:
    """What is known about each sample while an attack runs."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        norm: str,
        loss: str = "margin",
    ) -> None:
        self.model, self.loss, self.norm = model, loss, norm
        self.seen = False  # whether the model was asked already
        self.x, self.y, self.target = x.detach(), y, target
        self.x_adv = self.x.clone()
        self.best = self.x.new_full((len(x),), -torch.inf)
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.n_forward = torch.zeros_like(y)
        self.n_backward = torch.zeros_like(y)
        self.zero_gradient = torch.zeros_like(self.success)

    def standing(self) -> Tensor:
        return (~self.success).nonzero().squeeze(1)

    def ask(self, z: Tensor, rows: Tensor, graph: bool = False) -> Tensor:
        """Return the logits at the points ``z`` of samples ``rows``; count the call."""
        with torch.set_grad_enabled(graph):
            logits = self.model(z)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not self.seen:
            checks.logits(logits, len(z))
            for name, labels in (("y", self.y), ("target", self.target)):
                if labels is not None:
                    checks.labels(labels[rows], len(rows), name, logits.shape[1])
        self.seen = True
        self.n_forward[rows] += len(z) // len(rows)
        return logits

    def look_at_clean(self) -> Tensor:
        """Mark the samples that are labelled wrongly before any attack."""
        if not len(self.x):
            # Two classes suffice to order an empty batch, which has no labels.
            return self.x.new_zeros(0, 2)
        logits = self.ask(self.x, torch.arange(len(self.x), device=self.x.device))
        self.success = is_fooled(logits, self.y, None)
        return logits

    def see(
        self,
        z: Tensor,
        rows: Tensor,
        *,
        rival: Tensor | None = None,
        before: Tensor | None = None,
        last: bool = False,
        inside: bool = True,
    ) -> Look:
        """Look at the points ``z`` of samples ``rows`` and record those that fool.

        A sample may have several points, which follow each other. At the end of a run
        record also the others, where they are the best so far. Points that are not
        ``inside`` the ball are never a success. ``before`` holds the objectives of the
        last look.
        """
        first, each = not self.seen, len(z) // len(rows)
        logits = self.ask(z, rows, graph=z.requires_grad)
        y = self.y[rows].repeat_interleave(each)
        target = None if self.target is None else self.target[rows]
        with torch.set_grad_enabled(z.requires_grad):
            value = objective(logits, y, target, self.loss, rival)
        fooled = is_fooled(logits, y, target) & inside
        if first:
            # Labelled wrongly at x itself counts as fooled, whatever the target.
            fooled |= is_fooled(logits, y, None)
        now = value.detach().to(self.x.dtype)
        still = torch.zeros_like(fooled) if before is None else now == before
        # Of the points of a sample count the first that fools, else the best.
        place = torch.where(fooled, torch.inf, now).view(-1, each).argmax(1)
        place += each * torch.arange(len(rows), device=z.device)
        fooled = fooled[place]
        # The only wait for a GPU in a step.
        told = torch.stack([fooled.sum(), still.sum(), logits.isnan().sum()])
        count, stuck, bad = told.tolist()
        if bad:
            checks.logits(logits, len(z))
        if last:
            better = now[place] > self.best[rows]
            self.best[rows] = torch.where(better, now[place], self.best[rows])
            found = z.detach() if each == 1 else z.detach()[place]
            self.x_adv[rows] = pick(fooled | better, found, self.x_adv[rows])
        elif count:
            hit = fooled.to(torch.uint8).argsort(descending=True, stable=True)[:count]
            self.x_adv[rows[hit]] = z.detach()[place[hit]]
        if count:
            self.success[rows] = fooled
        return Look(value, fooled, n_fooled=count, still=bool(stuck))

    def slope(
        self, value: Tensor, z: Tensor, rows: Tensor, more: bool = False
    ) -> Tensor:
        """Return the input gradient; count it. Keep the graph where there is more."""
        self.n_backward[rows] += len(z) // len(rows)
        return gradient(value, z, more)

    def shake(self, g: Tensor, rows: Tensor, generator: torch.Generator) -> None:
        """Replace the gradients that are zero by random directions."""
        dead = ~g.flatten(1).any(1)
        if dead.any():
            each = len(g) // len(rows)
            self.zero_gradient[rows.repeat_interleave(each)[dead]] = True
            shape, device = g[dead].shape, generator.device
            push = torch.randn(shape, generator=generator, device=device, dtype=g.dtype)
            g[dead] = push.to(g.device)

    def result(self) -> AttackResult:
        distance = norm_of(self.x_adv - self.x, self.norm)
        return AttackResult(
            x_adv=self.x_adv,
            success=self.success,
            distance=distance.masked_fill(~self.success, torch.inf),
            n_forward=self.n_forward,
            n_backward=self.n_backward,
            zero_gradient=self.zero_gradient,
            norm=self.norm,
        )
