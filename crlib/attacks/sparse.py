"""Few changed inputs: an l0 attack of the sigma-zero type."""

import math

import torch
from torch import Tensor

from crlib.attacks.base import AttackResult, Model, at_least, check, objective, per_row
from crlib.attacks.nearest import Nearest
from crlib.models import evaluating

__all__ = ["sigma_zero"]


def sigma_zero(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 200,
    step_size: float = 1.0,
    sigma: float = 1e-3,
    threshold: float = 0.3,
    pace: float = 0.01,
    target: Tensor | None = None,
) -> AttackResult:
    r"""Change as few coordinates as possible, by descent on a smooth count.

    The loss is the hinge of the margin plus
    :math:`\frac1d \sum_i \delta_i^2 / (\delta_i^2 + \sigma)`. Its gradient, of largest
    entry one, moves :math:`\delta`; then coordinates below a threshold return to zero.
    The threshold rises while the sample is fooled and falls while it is not (Cinà et
    al. 2025). A bisection of the number of coordinates ends it.

    Cost: ``steps + 15`` forward, ``steps + 1`` backward passes.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        steps: number of steps.
        step_size: largest change of a coordinate in the first step.
        sigma: smoothing of the count, positive.
        threshold: first threshold.
        pace: change of the threshold in the first step.
        target: ``(N,)`` labels to reach, or None.

    Raises:
        ValueError: bad input; the message says what to do.
    """
    check(x, y, 0.0, "l0", target, ("l0",))
    at_least(1, steps=steps)
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}: a positive number.")
    with evaluating(model), torch.no_grad():
        found = Nearest(model, x, y, target, "l0")
        delta = torch.zeros_like(found.x)
        cut = torch.full_like(found.distance, threshold)
        for t in range(steps if len(delta) else 0):
            fade = (1 + math.cos(math.pi * t / steps)) / 2
            with torch.enable_grad():
                z = (found.x + delta).requires_grad_()
                logits, fooled = found.see(z, graph=True)
                # The hinge: who is fooled is no longer pushed.
                value = objective(logits, found.y, found.target).clamp_max(0)
                g = -found.gradient(value, z)
            square = delta.square()
            g += 2 * sigma * delta / (square + sigma).square() / delta[0].numel()
            largest = g.flatten(1).abs().amax(1).clamp_min(1e-12)
            delta = delta - step_size * max(fade, 1e-3) * g / per_row(largest, g)
            delta = (found.x + delta).clamp(0, 1) - found.x
            change = torch.where(fooled, 1.0, -1.0).to(cut.dtype)
            cut = (cut + pace * fade * change).clamp(0, 1)
            delta = torch.where(delta.abs() < per_row(cut, delta), 0, delta)
        if len(delta):
            found.see(found.x + delta)
            found.finish(12)
    return found.result()
