"""Universal perturbations: one for all inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from crlib.attacks.base import (
    Model,
    at_least,
    chance,
    check,
    check_logits,
    gradient,
    objective,
)
from crlib.models import evaluating

__all__ = ["UniversalResult", "top_direction", "universal"]


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
    """

    delta: Tensor
    fooling_rate: float
    train_rate: float
    robust_accuracy: float
    norm: str


class _Trial:
    """Inputs to learn from, and held-out inputs that judge."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        eps: float,
        norm: str,
        held_out: float,
        batch_size: int,
        source: torch.Generator,
    ) -> None:
        check(x, y, eps, norm, None, ("linf", "l2"))
        held = round(held_out * len(x))
        if not 0 < held < len(x):
            raise ValueError(
                f"held_out is {held_out} of {len(x)} samples: both parts need at"
                " least one."
            )
        self.model, self.x, self.y, self.norm = model, x.detach(), y, norm
        self.batch_size, self.source = batch_size, source
        order = self.shuffled(torch.arange(len(x), device=x.device))
        self.learnt, self.held = order[held:], order[:held]

    def shuffled(self, rows: Tensor) -> Tensor:
        source = self.source
        order = torch.randperm(len(rows), generator=source, device=source.device)
        return rows[order.to(rows.device)]

    def labels(self, delta: Tensor) -> Tensor:
        parts = self.x.split(self.batch_size)
        return torch.cat([self.model((v + delta).clamp(0, 1)).argmax(1) for v in parts])

    def slope(
        self, rows: Tensor, delta: Tensor, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the input gradients of the objective, and the margins of the labels.

        Without a scale the objective is the negative margin itself.
        """
        with torch.enable_grad():
            z = (self.x[rows] + delta).clamp(0, 1).requires_grad_()
            logits = self.model(z)
            check_logits(logits, len(z), self.y[rows])
            value = objective(logits.float(), self.told[rows])
            goal = value if scale is None else (value / scale).sigmoid()
        return gradient(goal, z), -value.detach()

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Return gradients and margins at the inputs to learn from."""
        zero = torch.zeros_like(self.x[:1])
        self.told = self.labels(zero)
        parts = [self.slope(r, zero) for r in self.learnt.split(self.batch_size)]
        gradients, margins = zip(*parts, strict=True)
        return torch.cat(gradients), torch.cat(margins)

    def judge(self, delta: Tensor) -> UniversalResult:
        with evaluating(self.model), torch.no_grad():
            before, after = self.labels(torch.zeros_like(delta)), self.labels(delta)
        changed = (before != after).double()
        return UniversalResult(
            delta=delta,
            fooling_rate=float(changed[self.held].mean()),
            train_rate=float(changed[self.learnt].mean()),
            robust_accuracy=float((after == self.y)[self.held].double().mean()),
            norm=self.norm,
        )


def universal(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    epochs: int = 10,
    batch_size: int = 128,
    held_out: float = 0.5,
    generator: torch.Generator | None = None,
    progress: bool = False,
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
        x: a part is held out and only judges.
        norm: ``"linf"`` or ``"l2"``.
        epochs: passes over the inputs to learn from, a run.
        batch_size: inputs a step.
        held_out: share of the inputs held out, in (0, 1).
    """
    at_least(1, epochs=epochs, batch_size=batch_size)
    trial = _Trial(model, x, y, eps, norm, held_out, batch_size, chance(generator))
    found = []
    with evaluating(model):
        slopes, margins = trial.slopes()
        scale = margins.median().clamp_min(1e-30)
        top = _unit(_top(slopes).view_as(trial.x[:1]), norm)
        starts = [0 * top, top, -top]
        if isinstance(model, nn.Module) and _first_layer(model) is not None:
            stretched = _unit(_stretched(model, x), norm)
            starts += [stretched, -stretched]
        bar = tqdm(starts, disable=not progress, desc="runs", leave=False)
        for start in bar:
            delta = eps * start
            found.append(trial.judge(delta[0]))
            taken, total = 0, epochs * -(-len(trial.learnt) // batch_size)
            for _ in range(epochs):
                for batch in trial.shuffled(trial.learnt).split(batch_size):
                    g, _ = trial.slope(batch, delta, scale)
                    step = _unit(g.sum(0, keepdim=True), norm)
                    delta = delta + eps / 2 * (1 - taken / total) * step
                    delta = _inside(delta, eps, norm)
                    taken += 1
            found.append(trial.judge(delta[0]))
    return max(found, key=lambda result: result.train_rate)


def _top(rows: Tensor) -> Tensor:
    """Return the top right singular vector by power iteration, with no chance."""
    flat = rows.flatten(1)
    v = flat.abs().sum(0)
    for _ in range(30):
        v = flat.T @ (flat @ (v / v.norm().clamp_min(1e-30)))
    return v


def _inside(delta: Tensor, eps: float, norm: str) -> Tensor:
    # The ball around zero without a box: the box is each input's, not delta's.
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / delta.norm().clamp_min(1e-30)).clamp_max(1)


def _unit(g: Tensor, norm: str) -> Tensor:
    return g.sign() if norm == "linf" else g / g.norm().clamp_min(1e-30)


def top_direction(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "l2",
    rounds: int = 100,
    batch_size: int = 512,
    held_out: float = 0.5,
    generator: torch.Generator | None = None,
) -> UniversalResult:
    r"""Perturb along the top right singular vector of the first layer, both signs.

    The direction that the first layer with weights stretches most, by power iteration
    through the model up to that layer, at its true input shape, so a convolution is
    taken as the operator it is. Of length ``eps`` for l2; ``eps`` times its signs for
    linf. The sign that fools more of the inputs not held out is kept.

    Args:
        model: an affine map up to and including its first layer with weights.
        x: a part is held out and only judges.
        norm: ``"linf"`` or ``"l2"``.
        rounds: of the power iteration.
        batch_size: inputs judged at once.
        held_out: share of the inputs held out, in (0, 1).

    Raises:
        ValueError: bad input, or no layer with a weight of two or more dimensions.
    """
    at_least(1, rounds=rounds, batch_size=batch_size)
    trial = _Trial(model, x, y, eps, norm, held_out, batch_size, chance(generator))
    delta = (eps * _unit(_stretched(model, x, rounds), norm))[0]
    both = (trial.judge(sign * delta) for sign in (1, -1))
    return max(both, key=lambda result: result.train_rate)


def _first_layer(model: nn.Module) -> nn.Module | None:
    weighted = (
        m for m in model.modules() if getattr(getattr(m, "weight", None), "ndim", 0) > 1
    )
    return next(weighted, None)


def _stretched(model: nn.Module, x: Tensor, rounds: int = 100) -> Tensor:
    """Return the direction that the first layer stretches most, ``(1, ...)``."""
    layer = _first_layer(model)
    if layer is None:
        raise ValueError("The model has no layer with a weight matrix or kernel.")
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _m, _i, out: outputs.append(out))

    def first(z: Tensor) -> Tensor:
        outputs.clear()
        model(z)
        return outputs[0]

    try:
        with evaluating(model):
            v = torch.randn(x[:1].shape, generator=torch.Generator().manual_seed(0))
            v = v.to(x)
            with torch.no_grad():
                zero = first(torch.zeros_like(v))
            for _ in range(rounds):
                with torch.enable_grad():
                    z = (v / v.norm().clamp_min(1e-30)).requires_grad_()
                    out = first(z)
                (v,) = torch.autograd.grad(out, z, out.detach() - zero)
    finally:
        handle.remove()
    return v
