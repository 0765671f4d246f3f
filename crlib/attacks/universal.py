"""Universal perturbations: one for all inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from crlib import checks
from crlib.asking import reached
from crlib.attacks.base import Asked, Model, check, door, gradient, objective


@dataclass(frozen=True)
class UniversalResult:
    """One perturbation for all inputs.

    Attributes:
        delta: ``(...)`` of the shape of one input; ``(x + delta).clamp(0, 1)`` is the
            perturbed input.
        fooling_rate: share of the held-out inputs whose label it changes, in [0, 1].
        train_rate: the same on the inputs it was made from.
        robust_accuracy: share of the held-out inputs still labelled right.
        norm: the norm of the ball.
        rates: of a search, the fooling rate on the held-out inputs at the end of each
            run. How far they lie apart says how much hangs on where a run starts.
    """

    delta: Tensor = field(repr=False)
    fooling_rate: float
    train_rate: float
    robust_accuracy: float
    norm: str
    rates: tuple[float, ...] = field(default=(), repr=False)


class _Trial:
    """Half of the inputs to learn from, and the held-out half that judges."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        eps: float,
        norm: str,
        generator: torch.Generator | None,
        asked: int = 512,
    ) -> None:
        check(x, y, eps, norm, None, ("linf", "l2"))
        if len(x) < 2:
            raise ValueError("Give two samples or more: half of them are held out.")
        self.model = model if isinstance(model, Asked) else Asked(model)
        self.x, self.y, self.norm, self.asked = x.detach(), y, norm, asked
        self.source = checks.chance(generator)
        order = self.shuffled(torch.arange(len(x), device=x.device))
        held = round(0.5 * len(x))
        self.learnt, self.held = order[held:], order[:held]
        self.told = self.labels(torch.zeros_like(self.x[:1]))

    def shuffled(self, rows: Tensor) -> Tensor:
        source = self.source
        order = torch.randperm(len(rows), generator=source, device=source.device)
        return rows[order.to(rows.device)]

    def labels(self, delta: Tensor) -> Tensor:
        labels = []
        parts = (v.split(self.asked) for v in (self.x, self.y))
        for v, y in zip(*parts, strict=True):
            z = (v + delta).clamp(0, 1)
            with torch.no_grad():
                logits = self.model(z)
            checks.logits(logits, len(z))
            checks.labels(y, len(z), classes=logits.shape[1])
            self.model.probe(z, logits)
            labels.append(logits.argmax(1))
        return torch.cat(labels)

    def slope(
        self, rows: Tensor, delta: Tensor, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the input gradients of the objective, and the margins of the labels.

        Without a scale the objective is the negative margin itself.
        """
        with torch.enable_grad():
            z = (self.x[rows] + delta).clamp(0, 1).requires_grad_()
            value = objective(self.model(z), self.told[rows])
            goal = value if scale is None else (value / scale).sigmoid()
        g = gradient(goal, z)
        self.model.feel(g)
        return g, -value.detach()

    def judge(self, delta: Tensor) -> UniversalResult:
        after = self.labels(delta)
        changed, right = after != self.told, after == self.y

        def share(hits: Tensor) -> float:
            return float(hits.cpu().double().mean())

        return UniversalResult(
            delta=delta,
            fooling_rate=share(changed[self.held]),
            train_rate=share(changed[self.learnt]),
            robust_accuracy=share(right[self.held]),
            norm=self.norm,
        )


@door
def universal(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    epochs: int = 10,
    batch_size: int = 128,
    generator: torch.Generator | None = None,
) -> UniversalResult:
    r"""Learn one perturbation that changes the label of many inputs.

    Ascent on the mean of :math:`\mathrm{sigmoid}(-m / \bar m)` over batches, where m is
    the margin of the label that the model gives to the clean input and :math:`\bar m`
    its median: inputs fooled already pull little, and so do those out of reach. The
    step is the steepest of the norm, its length falls from ``eps / 2`` to zero, and
    delta stays in the ball (after Moosavi-Dezfooli et al. 2017 and Shafahi et al.
    2020). The runs start at zero, at both ends of the direction in which the margins
    change most, the top right singular vector of their input gradients, and at both
    ends of :func:`top_direction` where the model has a first layer. The one that
    changes most labels of the inputs not held out is kept.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: half of them is held out and only judges.
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``).
        norm: ``"linf"`` or ``"l2"``.
        epochs: passes over the inputs to learn from, a run.
        batch_size: inputs a step, and in memory at once, at most.
        generator: source of chance; None means a new one of seed 0.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.zeros(4, dtype=torch.int64)
        >>> x = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
        >>> attacks.universal(model, x, y, eps=0.45, epochs=2).fooling_rate
        1.0
    """
    checks.at_least(1, epochs=epochs, batch_size=batch_size)
    trial = _Trial(model, x, y, eps, norm, generator, batch_size)
    found, zero = [], torch.zeros_like(trial.x[:1])  # zero, as delta, is (1, ...)
    total = epochs * -(-len(trial.learnt) // batch_size)
    parts = [trial.slope(rows, zero) for rows in trial.learnt.split(batch_size)]
    # Of n inputs to learn from: gradients (n, ...) and margins (n,).
    slopes, margins = (torch.cat(part) for part in zip(*parts, strict=True))
    scale = margins.median().clamp_min(1e-30)
    ends = [_top(slopes).view_as(zero), _stretched(model, x)]
    starts = [s * _unit(v, norm) for v in ends if v is not None for s in (1, -1)]
    for start in [zero, *starts]:
        delta, taken = eps * start, 0
        found.append(trial.judge(delta[0]))
        for _ in range(epochs):
            for batch in trial.shuffled(trial.learnt).split(batch_size):
                g, _ = trial.slope(batch, delta, scale)  # (B, ...)
                step = _unit(g.sum(0, keepdim=True), norm)
                delta = delta + eps / 2 * (1 - taken / total) * step
                # The box is each input's, not delta's.
                if norm == "linf":
                    delta = delta.clamp(-eps, eps)
                else:
                    delta *= (eps / delta.norm().clamp_min(1e-30)).clamp_max(1)
                taken += 1
        found.append(trial.judge(delta[0]))
    best = max(found, key=lambda result: result.train_rate)
    # A start was judged before each run, and its end after it.
    return replace(best, rates=tuple(result.fooling_rate for result in found[1::2]))


def _top(rows: Tensor) -> Tensor:
    """Return the top right singular vector by power iteration, with no chance."""
    flat = rows.flatten(1)  # (n, d); v is (d,)
    v = flat.abs().sum(0)
    for _ in range(30):
        v = flat.T @ (flat @ (v / v.norm().clamp_min(1e-30)))
    return v


def _unit(g: Tensor, norm: str) -> Tensor:
    return g.sign() if norm == "linf" else g / g.norm().clamp_min(1e-30)


@door
def top_direction(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "l2",
    batch_size: int = 512,
    generator: torch.Generator | None = None,
) -> UniversalResult:
    r"""Perturb along the top right singular vector of the first layer, both signs.

    The direction that the first layer with weights stretches most, by power iteration
    through the model up to that layer, at its true input shape, so a convolution is
    taken as the operator it is. Of length ``eps`` for l2; ``eps`` times its signs for
    linf. The sign that fools more of the inputs not held out is kept.

    Args:
        model: an affine map up to and including its first layer with weights.
        x: half of them is held out and only judges.
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``).
        norm: ``"linf"`` or ``"l2"``.
        batch_size: inputs asked for labels at once, at most.
        generator: source of chance; None means a new one of seed 0.

    Raises:
        ValueError: bad input, or no layer with a weight of two or more dimensions that
            torch sees at work: a scripted or traced network hides its layers.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> from crlib.models import MLP
        >>> model, y = MLP((2, 2)), torch.zeros(4, dtype=torch.int64)
        >>> model.layers[0].weight.data = torch.tensor([[3.0, -3.0], [0.0, 0.0]])
        >>> x = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.6, 0.4], [0.7, 0.3]])
        >>> attacks.top_direction(model, x, y, eps=0.5).fooling_rate
        1.0
    """
    checks.at_least(1, batch_size=batch_size)
    trial = _Trial(model, x, y, eps, norm, generator, batch_size)
    v = _stretched(model, x)
    if v is None:
        raise ValueError(
            "No layer with a weight matrix or kernel is seen at work in the model: a"
            " scripted or traced one hides them, so give the network it was made of."
        )
    delta = (eps * _unit(v, norm))[0]
    both = (trial.judge(sign * delta) for sign in (1, -1))
    return max(both, key=lambda result: result.train_rate)


@contextmanager
def first_layer(model: Model) -> Iterator[Callable[[Tensor], Any]]:
    """Give a function from inputs to what the first layer with weights returns.

    The first in the order of work, which need not be that of registration. None where
    no such layer is seen at work.
    """
    weighted = [
        m
        for m in reached(model)[0]
        if getattr(getattr(m, "weight", 0), "ndim", 0) > 1
        and not isinstance(m, torch.jit.ScriptModule)
    ]
    outputs: list[Any] = []
    handles = [
        m.register_forward_hook(lambda _m, _i, out: outputs.append(out))
        for m in weighted
    ]

    def first(z: Tensor) -> Any:
        outputs.clear()
        model(z)
        return outputs[0] if outputs else None

    try:
        yield first
    finally:
        for handle in handles:
            handle.remove()


def _stretched(model: Model, x: Tensor) -> Tensor | None:
    """Return the direction that the first layer stretches most, ``(1, ...)``."""
    v = torch.randn(x[:1].shape, generator=torch.Generator().manual_seed(0)).to(x)
    with first_layer(model) as first, torch.enable_grad():
        # Inputs that ask for a gradient: without, torch may skip the layers.
        zero = first(torch.zeros_like(v).requires_grad_())
        if not isinstance(zero, Tensor) or not zero.requires_grad:
            return None
        for _ in range(100):
            z = (v / v.norm().clamp_min(1e-30)).requires_grad_()
            out = first(z)
            (v,) = torch.autograd.grad(out, z, out.detach() - zero.detach())
    return v
