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


def _split(
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str,
    held_out: float,
    source: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Check the input; return the rows to learn from and those held out."""
    check(x, y, eps, norm, None, ("linf", "l2"))
    held = round(held_out * len(x))
    if not 0 < held < len(x):
        raise ValueError(
            f"held_out is {held_out} of {len(x)} samples: both parts need at least one."
        )
    order = torch.randperm(len(x), generator=source, device=source.device).to(x.device)
    return order[held:], order[:held]


def _labels(model: Model, x: Tensor, batch_size: int) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(batch_size)])


def _judge(
    model: Model,
    x: Tensor,
    y: Tensor,
    delta: Tensor,
    norm: str,
    rows: tuple[Tensor, Tensor],
    batch_size: int,
) -> UniversalResult:
    before = _labels(model, x, batch_size)
    after = _labels(model, (x + delta).clamp(0, 1), batch_size)
    learnt, held = rows
    rate = (before != after).double()
    return UniversalResult(
        delta=delta,
        fooling_rate=float(rate[held].mean()),
        train_rate=float(rate[learnt].mean()),
        robust_accuracy=float((after == y)[held].double().mean()),
        norm=norm,
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

    Ascent on the mean hinge :math:`\min(0, \max_{k \ne y} z_k - z_y)` over batches,
    with the steepest step of the norm, whose length falls from ``eps / 2`` to zero,
    and projection onto the ball (after Moosavi-Dezfooli et al. 2017 and Shafahi et al.
    2020). The inputs already fooled do not pull.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1]; a part is held out and only judges.
        y: ``(N,)`` true labels, int64.
        eps: radius in input units.
        norm: ``"linf"`` or ``"l2"``.
        epochs: passes over the inputs to learn from.
        batch_size: inputs a step.
        held_out: share of the inputs held out, in (0, 1).
        generator: source of split and batches; None means a new one of seed 0.
        progress: show a progress bar over the epochs.

    Raises:
        ValueError: bad input, or too few samples to hold some out.
    """
    source = chance(generator)
    rows = _split(x, y, eps, norm, held_out, source)
    at_least(1, epochs=epochs, batch_size=batch_size)
    x, learnt = x.detach(), rows[0]
    # The ball around zero without a box: the box is each input's, not delta's.
    delta = torch.zeros_like(x[:1])
    per_epoch = -(-len(learnt) // batch_size)
    taken, total = 0, epochs * per_epoch
    with evaluating(model):
        for _ in tqdm(range(epochs), disable=not progress, desc="epochs", leave=False):
            order = torch.randperm(
                len(learnt), generator=source, device=source.device
            ).to(x.device)
            for batch in learnt[order].split(batch_size):
                with torch.enable_grad():
                    z = (x[batch] + delta).clamp(0, 1).requires_grad_()
                    logits = model(z)
                    check_logits(logits, len(z), y[batch])
                    value = objective(logits.float(), y[batch], None).clamp_max(0)
                g = gradient(value, z).sum(0, keepdim=True)
                length = eps / 2 * (1 - taken / total)
                delta = _inside(delta + length * _unit(g, norm), eps, norm)
                taken += 1
        with torch.no_grad():
            return _judge(model, x, y, delta[0], norm, rows, batch_size)


def _unit(g: Tensor, norm: str) -> Tensor:
    return g.sign() if norm == "linf" else g / g.norm().clamp_min(1e-30)


def _inside(delta: Tensor, eps: float, norm: str) -> Tensor:
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / delta.norm().clamp_min(1e-30)).clamp_max(1)


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
        x: ``(N, ...)`` in [0, 1]; a part is held out and only judges.
        y: ``(N,)`` true labels, int64.
        eps: radius in input units.
        norm: ``"linf"`` or ``"l2"``.
        rounds: of the power iteration.
        batch_size: inputs judged at once.
        held_out: share of the inputs held out, in (0, 1).
        generator: source of the split; None means a new one of seed 0.

    Raises:
        ValueError: bad input, or no layer with a weight of two or more dimensions.
    """
    source = chance(generator)
    rows = _split(x, y, eps, norm, held_out, source)
    at_least(1, rounds=rounds, batch_size=batch_size)
    weighted = (
        m for m in model.modules() if getattr(getattr(m, "weight", None), "ndim", 0) > 1
    )
    layer = next(weighted, None)
    if layer is None:
        raise ValueError("The model has no layer with a weight matrix or kernel.")
    x, outputs = x.detach(), []
    handle = layer.register_forward_hook(lambda _m, _i, out: outputs.append(out))

    def first(z: Tensor) -> Tensor:
        outputs.clear()
        model(z)
        out: Tensor = outputs[0]
        return out

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
    delta = (eps * _unit(v, norm))[0]
    with evaluating(model), torch.no_grad():
        both = [_judge(model, x, y, s * delta, norm, rows, batch_size) for s in (1, -1)]
    return max(both, key=lambda result: result.train_rate)
