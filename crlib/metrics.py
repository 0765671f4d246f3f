r"""How compressible a vector or a matrix is, and how a perturbation meets it.

Vectors are one-dimensional tensors, in any order, signs ignored. Matrices are the
weights of a linear layer, ``(h, m)``: one row a neuron, one column an input. Batched
weights are not accepted: one layer at a time.

Notation: :math:`v_{(1)} \ge v_{(2)} \ge \dots` are the sorted magnitudes of ``v``,
:math:`\sigma_i` the singular values of ``W``.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "accuracy",
    "best_k_error",
    "effective_rank",
    "energy_share",
    "margin",
    "operator_norm",
    "row_norms",
    "singular_values",
    "smallest_k",
    "spread",
    "stable_rank",
]


def _magnitudes(v: Tensor) -> Tensor:
    if v.ndim != 1 or len(v) == 0:
        raise ValueError(
            f"Give a vector with at least one entry, not {tuple(v.shape)}."
        )
    if not torch.isfinite(v).all():
        raise ValueError("The vector holds a NaN or an infinity.")
    return v.detach().abs().double().sort(descending=True).values


def _matrix(w: Tensor) -> Tensor:
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(f"Give a matrix (h, m), not a tensor of {tuple(w.shape)}.")
    if not torch.isfinite(w).all():
        raise ValueError("The matrix holds a NaN or an infinity.")
    return w.detach()


def _check_k(k: int, size: int, least: int = 1) -> None:
    if not least <= k <= size:
        raise ValueError(f"k is {k}: choose it from {least} to {size}.")


def _check_q(q: float) -> None:
    if not 0 < q < math.inf:
        raise ValueError(f"q is {q}: the exponent is a positive number.")


def best_k_error(v: Tensor, k: int, *, q: float = 2) -> float:
    r"""Return the relative best-:math:`k`-term error of ``v``.

    .. math:: \epsilon_k(v) = \frac{\|v - v_k\|_q}{\|v\|_q},

    where :math:`v_k` keeps the ``k`` entries of largest magnitude. ``v`` is
    :math:`(q, k, \epsilon)`-compressible if and only if the result is at most
    :math:`\epsilon` (Barsbey et al. 2026, definition of compressibility; strictly so
    if equal).

    Args:
        v: ``(d,)``.
        k: how many entries to keep, from 0 to d.
        q: exponent, positive (below one a quasi-norm).

    Returns:
        A number in [0, 1]; 0 for the zero vector.

    Raises:
        ValueError: not a finite vector, or ``k`` or ``q`` out of range.
    """
    s = _magnitudes(v)
    _check_k(k, len(s), least=0)
    _check_q(q)
    if s[0] == 0:
        return 0.0
    powers = (s / s[0]) ** q
    return float((powers[k:].sum() / powers.sum()) ** (1 / q))


def smallest_k(v: Tensor, eps: float, *, q: float = 2) -> int:
    r"""Return the least ``k`` for which ``v`` is :math:`(q,k,\epsilon)`-compressible.

    The inverse of :func:`best_k_error`: the fewest entries to keep so that the
    relative error is at most ``eps``.

    Args:
        v: ``(d,)``.
        eps: tolerated relative error, in [0, 1].
        q: exponent, positive.

    Raises:
        ValueError: not a finite vector, or ``eps`` or ``q`` out of range.
    """
    s = _magnitudes(v)
    _check_q(q)
    if not 0 <= eps <= 1:
        raise ValueError(f"eps is {eps}: a relative error lies between 0 and 1.")
    if s[0] == 0:
        return 0
    powers = (s / s[0]) ** q
    tails = torch.cat([powers.flip(0).cumsum(0).flip(0), powers.new_zeros(1)])
    errors = (tails / powers.sum()) ** (1 / q)
    # One part in 1e12 forgives the rounding of a tail that is zero on paper.
    return int((errors <= eps + 1e-12).nonzero()[0])


def spread(v: Tensor, k: int) -> float:
    r"""Return the spread of the ``k`` dominant terms of ``v``.

    :math:`\beta = 1 - v_{(k)} / v_{(1)}` (Barsbey et al. 2026): 0 when the ``k``
    largest entries are equal, near 1 when the first dwarfs the ``k``-th.

    Args:
        v: ``(d,)``, not zero.
        k: from 1 to d.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: not a finite vector, the zero vector, or ``k`` out of range.
    """
    s = _magnitudes(v)
    _check_k(k, len(s))
    if s[0] == 0:
        raise ValueError("The spread of the zero vector is not defined.")
    return float(1 - s[k - 1] / s[0])


def singular_values(w: Tensor) -> Tensor:
    """Return the singular values of ``w`` ``(h, m)``, largest first, in float64."""
    return torch.linalg.svdvals(_matrix(w).double())


def row_norms(w: Tensor, *, p: float = 2) -> Tensor:
    r"""Return the :math:`\ell_p` norm of every row of ``w`` ``(h, m)``: one a neuron.

    ``p=1`` pairs with :math:`\ell_\infty` attacks, because
    :math:`\|W\|_\infty = \max_i \|w_i\|_1`.
    """
    return torch.linalg.vector_norm(_matrix(w), ord=p, dim=1)


def effective_rank(s: Tensor) -> float:
    r"""Return the effective rank of a spectrum (Roy and Vetterli 2007).

    :math:`\exp\big(-\sum_i p_i \log p_i\big)` with :math:`p_i = s_i / \sum_j s_j`: the
    exponential of the entropy, not the entropy itself.

    Args:
        s: ``(d,)`` singular values (or row norms), not all zero.

    Returns:
        A number from 1 (one value carries everything) to d (all equal).

    Raises:
        ValueError: not a finite vector, or the zero vector.
    """
    s = _magnitudes(s)
    if s[0] == 0:
        raise ValueError("The effective rank of the zero spectrum is not defined.")
    p = s / s.sum()
    return float(torch.special.entr(p).sum().exp())


def stable_rank(s: Tensor) -> float:
    r"""Return the stable rank :math:`\sum_i s_i^2 / \max_i s_i^2` of a spectrum.

    For singular values it is :math:`\|W\|_F^2 / \|W\|_2^2`.

    Args:
        s: ``(d,)`` singular values, not all zero.

    Returns:
        A number from 1 to d.

    Raises:
        ValueError: not a finite vector, or the zero vector.
    """
    s = _magnitudes(s)
    if s[0] == 0:
        raise ValueError("The stable rank of the zero spectrum is not defined.")
    return float(((s / s[0]) ** 2).sum())


def operator_norm(w: Tensor, *, norm: str = "l2") -> float:
    r"""Return how much ``w`` can stretch a vector, measured in ``norm`` on both sides.

    ``"l2"``: :math:`\sigma_1`; ``"linf"``: the largest :math:`\ell_1` norm of a row;
    ``"l1"``: the largest :math:`\ell_1` norm of a column.

    Args:
        w: ``(h, m)``.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        ValueError: not a finite matrix, or an unknown norm.
    """
    w = _matrix(w).double()
    orders = {"l2": 2, "linf": math.inf, "l1": 1}
    if norm not in orders:
        raise ValueError(f"norm is {norm!r}: choose one of {', '.join(orders)}.")
    return float(torch.linalg.matrix_norm(w, ord=orders[norm]))


def margin(logits: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`z_y - \max_{k \ne y} z_k` for every sample.

    Args:
        logits: ``(N, K)``, K at least 2.
        y: ``(N,)`` true labels.

    Returns:
        ``(N,)``: positive where the prediction is right.
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    rivals = logits.scatter(1, y[:, None], -math.inf)
    return own - rivals.amax(1)


def accuracy(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Return the share of samples ``model`` labels right, in [0, 1].

    Runs in evaluation mode without gradients and leaves the model as it was.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` inputs.
        y: ``(N,)`` labels.
    """
    from crlib.models import evaluating

    with torch.no_grad(), evaluating(model):
        hits = [
            (model(a).argmax(1) == b)
            for a, b in zip(x.split(1024), y.split(1024), strict=True)
        ]
    return float(torch.cat(hits).double().mean())


def energy_share(delta: Tensor, directions: Tensor) -> Tensor:
    r"""Return what share of each perturbation's energy lies in given directions.

    :math:`\|V^\top \delta\|_2^2 / \|\delta\|_2^2` for orthonormal columns :math:`V`,
    such as the top right singular vectors of the first layer.

    Args:
        delta: ``(N, ...)`` perturbations, flattened to ``(N, m)``.
        directions: ``(m, k)`` with orthonormal columns.

    Returns:
        ``(N,)`` in [0, 1]; NaN where a perturbation is zero.

    Raises:
        ValueError: the columns are not orthonormal, or the sizes differ.
    """
    flat = delta.flatten(1)
    if directions.ndim != 2 or len(directions) != flat.shape[1]:
        raise ValueError(
            f"directions must be ({flat.shape[1]}, k), not {tuple(directions.shape)}."
        )
    gram = directions.T @ directions
    if not torch.allclose(gram, torch.eye(len(gram)).to(gram), atol=1e-4):
        raise ValueError("The columns of directions are not orthonormal.")
    inside = (flat @ directions).square().sum(1)
    return inside / flat.square().sum(1)
