r"""The bridge at any depth: walk until an inner layer takes one input for another.

For :math:`f = F \circ b` only :math:`b(x)` counts, whatever :math:`F` is. Where b is
curved, no projector leads to :math:`b(x')`, but a path does. Its speed at z is
:math:`J(z)^+ (b(x') - b(x))`, the shortest step that moves b as wanted.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from crlib import checks

__all__ = ["CurvedBridge", "curved_bridge"]

# Weaker directions of a Jacobian, relative to its strongest, are rounding.
_NOISE = 1e-9


class CurvedBridge(NamedTuple):
    """Where a path led that carries an inner layer's output to another.

    Attributes:
        z: ``(N, m)``, the end of the path.
        residual: ``(N,)``, :math:`\\|b(z) - b(x')\\|_2`.
        length: ``(N,)`` of the path, at least :math:`\\|z - x\\|_2`.
        slope: ``(N,)``, the least of all singular values of the Jacobian on the path.
    """

    z: Tensor
    residual: Tensor
    length: Tensor
    slope: Tensor


def curved_bridge(
    inside: Callable[[Tensor], Tensor],
    x: Tensor,
    x_prime: Tensor,
    *,
    steps: int = 50,
    corrections: int = 10,
) -> CurvedBridge:
    r"""Walk from ``x`` to a point that an inner layer takes for ``x_prime``.

    If :math:`b : \mathbb{R}^m \to \mathbb{R}^k` is continuously differentiable and the
    k-th singular value of its Jacobian is at least s on the ball of radius
    :math:`\|b(x') - b(x)\|_2 / s` about x, then some z in it has b(z) = b(x'), so

    .. math:: r_f(x) \le \|z - x\|_2 \le \|b(x') - b(x)\|_2 / s

    for every :math:`f = F \circ b` that labels x and x' differently. The same holds for
    a Lipschitz b, such as one with ReLUs, if every matrix of Clarke's Jacobian has such
    a singular value. This function needs neither: wherever its residual is zero, the
    first inequality holds. Euclidean, no box. Source: ours; Gao et al. 2026, theorem 6,
    as reported, is the first step for two logits.

    Args:
        inside: b, from ``(N, m)`` to ``(N, k)``, each row for itself, k at most m.
        x: ``(N, m)``, in the precision in which ``inside`` computes.
        x_prime: ``(N, m)``.
        steps: in each, b is to move by an equal part of the way (predictor), and to
            make good what the steps before missed (corrector).
        corrections: Newton steps at the end.

    Raises:
        ValueError: shapes that do not fit, inputs that are not finite, or no step.

    Example:
        >>> import torch
        >>> from crlib import theory
        >>> x, other = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 8.0]])
        >>> def distance(p):
        ...     return p.norm(dim=1, keepdim=True)
        >>> found = theory.curved_bridge(distance, x, other)
        >>> [round(v, 4) for v in found.z[0].tolist()], round(float(found.length), 4)
        ([4.8, 6.4], 3.0)
    """
    if x.ndim != 2 or x.shape != x_prime.shape:
        raise ValueError(
            f"Give two sets of inputs (N, m) of one shape, not {tuple(x.shape)} and"
            f" {tuple(x_prime.shape)}: flatten images first."
        )
    checks.finite(x, x_prime)
    if steps < 1 or corrections < 0:
        raise ValueError(
            f"{steps} steps and {corrections} corrections: walk at least one step."
        )
    with torch.no_grad():
        start, goal = inside(x), inside(x_prime)
    if start.ndim != 2 or len(start) != len(x) or start.shape[1] > x.shape[1]:
        raise ValueError(
            f"inside gives {tuple(start.shape)} for inputs {tuple(x.shape)}: it must"
            " give (N, k) with k at most m."
        )
    z = x.detach()
    length, slope = z.new_zeros(len(z)), z.new_full((len(z),), torch.inf)
    for step in range(1, steps + corrections + 1):
        wanted = torch.lerp(start, goal, min(1.0, step / steps))
        out, jacobian = _linearised(inside, z)  # (N, k), (N, k, m)
        # The pseudo-inverse by way of a small matrix: k is far less than m.
        basis, small = torch.linalg.qr(jacobian.mT)  # (N, m, k), (N, k, k)
        u, s, vh = torch.linalg.svd(small.mT)
        parts = (u.mT @ (wanted - out)[:, :, None])[:, :, 0]
        parts = torch.where(s > _NOISE * s[:, :1], parts / s, 0)
        move = (basis @ vh.mT @ parts[:, :, None])[:, :, 0]
        z = z + move
        length += move.norm(dim=1)
        slope = torch.minimum(slope, s[:, -1])
    with torch.no_grad():
        residual = (inside(z) - goal).norm(dim=1)
    return CurvedBridge(z, residual, length, slope)


def _linearised(inside: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        out = inside(z)
        rows = [
            torch.autograd.grad(column.sum(), z, retain_graph=True)[0]
            for column in out.T
        ]
    return out.detach(), torch.stack(rows, 1)
