"""Exact answers for linear classifiers."""

import math

import torch
from torch import Tensor

from crlib import checks, geometry

__all__ = ["linear_minimal"]


def linear_minimal(
    weight: Tensor,
    bias: Tensor | None,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    box: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Return the exact distance of a linear classifier to its nearest boundary.

    For logits :math:`z = W x + b` and a rival k let :math:`c = w_k - w_y` and
    :math:`m = z_y - z_k`. The nearest point of the rival's half-space solves

    .. math:: \min \|\delta\| \ \text{ subject to }\ c^\top \delta \ge m,
       \ x + \delta \in [0, 1]^d .

    Without the box the minimum is :math:`m / \|c\|_*` with the dual norm (for l0 one
    coordinate is enough). With it, coordinate i has room :math:`r_i` up to the wall in
    the direction that helps: l2 takes :math:`\min(\lambda |c_i|, r_i)` and linf
    :math:`\min(\lambda, r_i)` with the smallest sufficient :math:`\lambda`; l1 fills
    the coordinates of largest :math:`|c_i|` first; l0 moves those of largest
    :math:`|c_i| r_i` to the wall. The distance is the least over the rivals.

    Args:
        weight: ``(K, d)``.
        bias: ``(K,)`` or None.
        x: ``(N, d)``, in [0, 1] if ``box``.
        y: ``(N,)`` true labels.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
        box: whether the perturbed point must stay in [0, 1].

    Returns:
        ``(distance, delta)``: ``(N,)`` and ``(N, d)`` in float64. Distance 0 and a
        zero delta where the label is wrong already; distance infinity and a zero
        delta where no point of the box is labelled otherwise. ``x + delta`` lies on
        the boundary (l0: at or beyond it).

    Raises:
        ValueError: an unknown norm, shapes or labels that do not fit, fewer than two
            classes, numbers that are not finite, or ``x`` outside the box.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> weight, x, y = torch.eye(2), torch.tensor([[0.75, 0.25]]), torch.tensor([0])
        >>> distance, delta = theory.linear_minimal(weight, None, x, y, norm="linf")
        >>> distance
        tensor([0.2500], dtype=torch.float64)
        >>> x + delta
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    checks.one_of("norm", norm, ("linf", "l2", "l1", "l0"))
    checks.inputs(x, box=box)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} must be (N, d) and"
            " (K, d): flatten images first."
        )
    if len(weight) < 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(
            f"weight is {tuple(weight.shape)}: give two classes or more, and a bias"
            " (K,) or None."
        )
    checks.labels(y, len(x), classes=len(weight))
    for name, part in (("x", x), ("weight", weight), ("bias", bias)):
        if part is not None and not part.isfinite().all():
            raise ValueError(f"{name} holds a NaN or an infinity.")
    x, weight = x.detach().double(), weight.detach().double()
    if box:
        # What is outside by rounding is taken as on the wall.
        x = x.clamp(0, 1)
    logits = x @ weight.T
    if bias is not None:
        logits = logits + bias.detach().double()
    distance = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
    delta = torch.zeros_like(x)
    own = logits.gather(1, y[:, None]).squeeze(1)
    order = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}[norm]
    for rival in range(len(weight)):
        c, m = weight[rival] - weight[y], own - logits[:, rival]
        # The size of the normal does not matter, unless its squares leave the range.
        size = c.abs().amax(1)
        size = size.where(size > 0, 1.0)
        c, m = c / size[:, None], m / size
        step = geometry.halfspace_step(c, m, x, norm, box)
        d = torch.linalg.vector_norm(step, ord=order, dim=1)
        d = d.masked_fill((c * step).sum(1) < m * (1 - 1e-9), math.inf)
        closer = (d < distance) & (y != rival)
        distance = torch.where(closer, d, distance)
        delta = torch.where(closer[:, None], step, delta)
    wrong = logits.argmax(1) != y
    return distance.masked_fill(wrong, 0), delta.masked_fill(wrong[:, None], 0)
