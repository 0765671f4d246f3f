r"""How compressible a vector or a matrix is, and how a perturbation meets it.

Vectors are one-dimensional tensors, in any order, signs ignored. Matrices are the
weights of a linear layer, ``(h, m)``: one row a neuron, one column an input. Batched
weights are not accepted: one layer at a time.

Notation: :math:`v_{(1)} \ge v_{(2)} \ge \dots` are the sorted magnitudes of ``v``,
:math:`\sigma_i` the singular values of ``W``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import grad
from torch.nn.modules.batchnorm import _BatchNorm

from crlib import checks
from crlib.asking import ask, copied, evaluating, with_gradients
from crlib.geometry import DUALS, norm_of
from crlib.models import (
    MLP,
    LowRankConv2d,
    LowRankLinear,
    order_of,
    refuse_tokens,
    replace,
    shares_weights,
)

__all__ = [
    "accuracy",
    "balanced",
    "best_k_error",
    "convolution",
    "effective_rank",
    "energy_share",
    "first_order",
    "folded",
    "frequency_share",
    "hill_estimator",
    "layer_operator_norm",
    "margin",
    "operator_norm",
    "principal_directions",
    "row_norms",
    "singular_values",
    "smallest_k",
    "spread",
    "stable_rank",
    "symbol_norm",
    "unit_scale",
]


def _magnitudes(v: Tensor) -> Tensor:
    checks.tensor(v, "v")
    if v.ndim != 1 or len(v) == 0:
        raise ValueError(
            f"Give a vector with at least one entry, not {tuple(v.shape)}."
        )
    if not torch.isfinite(v).all():
        raise ValueError("The vector holds a NaN or an infinity.")
    return v.detach().abs().double().sort(descending=True).values


def _matrix(w: Tensor) -> Tensor:
    checks.tensor(w, "w")
    if w.ndim != 2 or 0 in w.shape or not w.is_floating_point():
        raise ValueError(
            f"Give a matrix (h, m) of floating-point numbers, not {w.dtype} of"
            f" {tuple(w.shape)}."
        )
    if not torch.isfinite(w).all():
        raise ValueError("The matrix holds a NaN or an infinity.")
    return w.detach()


def _check_k(k: int, size: int, least: int = 1) -> None:
    if not least <= k <= size:
        raise ValueError(f"k is {k}: choose it from {least} to {size}.")


def _check_q(q: float) -> None:
    if not 0 < q < math.inf:
        raise ValueError(f"q is {q}: the exponent is a positive number.")


def _power_of_two(size: Tensor) -> Tensor:
    """Return the powers of two just below sizes, 1 for a size of zero."""
    exponent = torch.frexp(size).exponent - 1
    return torch.where(size > 0, torch.ldexp(torch.ones_like(size), exponent), 1.0)


def unit_scale(v: Tensor) -> tuple[Tensor, float]:
    """Return a tensor divided by a power of two near its largest entry, and the power.

    The division is exact. Squares and sums of the result stay in range at any scale.

    Args:
        v: ``(...)`` of floating point; zero, empty or infinite ones come back as
            they are.

    Returns:
        ``(unit, scale)``: float64 of the same shape, its largest magnitude in [1, 2);
        ``v = scale * unit``.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.unit_scale(torch.tensor([3.0, -6.0]))
        (tensor([ 0.7500, -1.5000], dtype=torch.float64), 4.0)
    """
    v = v.detach().double()
    peak = v.abs().max() if v.numel() else v.new_zeros(())
    if not peak.isfinite():
        return v, 1.0
    scale = _power_of_two(peak)
    return v / scale, float(scale)


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

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> round(metrics.best_k_error(torch.tensor([4.0, -3.0, 0.0]), 1), 4)
        0.6
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

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.smallest_k(torch.tensor([4.0, -3.0, 0.1]), 0.05)
        2
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

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.spread(torch.tensor([4.0, -3.0, 0.0]), 2)
        0.25
    """
    s = _magnitudes(v)
    _check_k(k, len(s))
    if s[0] == 0:
        raise ValueError("The spread of the zero vector is not defined.")
    return float(1 - s[k - 1] / s[0])


def hill_estimator(v: Tensor, k: int) -> float:
    r"""Estimate the tail index of ``v`` from its ``k`` largest entries (Hill 1975).

    :math:`\hat\alpha = \Big(\frac1k \sum_{i \le k} \log
    \frac{v_{(i)}}{v_{(k+1)}}\Big)^{-1}`, consistent when
    :math:`P(|v_i| > t) \sim t^{-\alpha}`: the smaller, the heavier the tail. On a light
    tail it grows as k shrinks, so read it along k.

    Args:
        v: ``(d,)``.
        k: from 1 to d - 1.

    Returns:
        A positive number; infinity if the k + 1 largest entries are equal.

    Raises:
        ValueError: not a finite vector, ``k`` out of range, or fewer than k + 1 entries
            that are not zero.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> round(metrics.hill_estimator(torch.tensor([4.0, 2.0, 1.0]), 2), 4)
        0.9618
    """
    s = _magnitudes(v)
    _check_k(k, len(s) - 1)
    if s[k] == 0:
        raise ValueError(f"Only {int((s > 0).sum())} entries are not zero: lower k.")
    return float(1 / (s[:k] / s[k]).log().mean())


def singular_values(w: Tensor) -> Tensor:
    """Return the singular values of ``w`` ``(h, m)``, largest first, in float64.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.singular_values(torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
        tensor([4., 3.], dtype=torch.float64)
    """
    return torch.linalg.svdvals(_matrix(w).double())


def row_norms(w: Tensor, *, p: float = 2) -> Tensor:
    r"""Return the :math:`\ell_p` norm of every row of ``w`` ``(h, m)``: one a neuron.

    ``p=1`` pairs with :math:`\ell_\infty` attacks, because
    :math:`\|W\|_\infty = \max_i \|w_i\|_1`.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.row_norms(torch.tensor([[3.0, -4.0], [0.0, 1.0]]), p=1)
        tensor([7., 1.])
    """
    w = _matrix(w)
    # By powers of two, which is exact: squares of 1e200 or 1e-200 leave the range.
    unit = _power_of_two(w.abs().amax(1, keepdim=True))
    return torch.linalg.vector_norm(w / unit, ord=p, dim=1) * unit.squeeze(1)


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

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> round(metrics.effective_rank(torch.ones(5)), 6)
        5.0
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

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.stable_rank(torch.tensor([2.0, 2.0, 1.0]))
        2.25
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

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.operator_norm(torch.tensor([[1.0, -2.0], [0.0, 1.0]]), norm="linf")
        3.0
    """
    w = _matrix(w).double()
    orders = {"linf": math.inf, "l2": 2, "l1": 1}
    checks.one_of("norm", norm, tuple(orders))
    return float(torch.linalg.matrix_norm(w, ord=orders[norm]))


def layer_operator_norm(
    layer: nn.Module,
    input_shape: tuple[int, ...] | None = None,
    *,
    norm: str = "l2",
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> float:
    r"""Return how much a linear layer, without its bias, can stretch an input.

    A fully connected layer is its matrix, see :func:`operator_norm`. A convolution is
    a linear map of images: its norm depends on their size, and the norm of the
    reshaped kernel is no bound for it. Its linf and l1 norms are exact; with padding by
    copies of pixels they are bounds from above, for a kernel that sees a pixel twice
    may see it with opposite signs. Its l2 norm
    comes from power iteration with the convolution and its transpose that keeps all
    iterates (Lanczos): the largest singular value of the map on their span.

    That value is never above the norm. It reaches ``1 - tol`` times the norm with
    probability at least 1 - 1e-9 over the random start: the number of steps follows
    from the bound :math:`1.648 \sqrt n\, e^{-\sqrt\epsilon (2k - 1)}` on the
    probability that k steps in n dimensions leave a relative error above
    :math:`\epsilon` in :math:`\sigma_1^2` (Kuczynski and Wozniakowski 1992).

    Args:
        layer: ``nn.Linear``, ``nn.Conv2d`` with any padding, or one of their low-rank
            versions.
        input_shape: ``(C, H, W)``, for a convolution.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``, on both sides.
        tol: relative shortfall allowed, in (0, 1); l2 of a convolution only.
        generator: source of the random start; None means a new one of seed 0.

    Raises:
        ValueError: another kind of layer, a shape that does not fit, an unknown norm,
            or ``tol`` out of range.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> layer = torch.nn.Conv2d(1, 1, 3, padding=1)
        >>> _ = layer.weight.data.fill_(1.0)
        >>> metrics.layer_operator_norm(layer, (1, 28, 28), norm="linf")
        9.0
    """
    checks.one_of("norm", norm, ("linf", "l2", "l1"))
    if not 0 < tol < 1:
        raise ValueError(f"tol is {tol}: a relative shortfall lies between 0 and 1.")
    if isinstance(layer, nn.Linear | LowRankLinear):
        return operator_norm(layer.weight, norm=norm)
    if not isinstance(layer, nn.Conv2d | LowRankConv2d):
        raise ValueError(
            f"{type(layer).__name__} is no linear layer that is known here: give an"
            " nn.Linear, an nn.Conv2d, a LowRankLinear or a LowRankConv2d."
        )
    input_shape = checks.shape(input_shape, images=True)
    forth, back, out_shape = convolution(layer, input_shape)
    w = layer.weight.detach().double()
    if norm == "linf":
        # Row sums of magnitudes: what the magnitudes make of a picture of ones.
        return float(forth(w.new_ones(1, *input_shape), w.abs()).max())
    if norm == "l1":
        return float(back(w.new_ones(1, *out_shape), w.abs()).max())
    shape: tuple[int, ...] = input_shape
    first, second = forth, back
    if math.prod(out_shape) < math.prod(input_shape):
        shape, first, second = out_shape, back, forth
    source = checks.chance(generator)
    start = torch.randn(shape, generator=source, dtype=w.dtype, device=source.device)
    top = _largest_eigenvalue(
        lambda v: second(first(v.view(1, *shape), w), w).flatten(),
        start.to(w.device).flatten(),
        tol=1 - (1 - tol) ** 2,
    )
    return math.sqrt(top)


Convolve = Callable[[Tensor, Tensor], Tensor]


def symbol_norm(
    layer: nn.Conv2d | LowRankConv2d, input_shape: tuple[int, ...]
) -> float:
    r"""Bound the l2 norm of a convolution by its symbol.

    .. math:: \|T\|_2 \le \max_\omega \|\hat W(\omega)\|_2, \qquad
       \hat W(\omega) = \Big[ \sum_v K_{s v + r}\, e^{-i \omega \cdot v} \Big]_r,

    with s the stride, :math:`K_u` the matrix ``(h, c)`` of the kernel at place u, and
    one block for each place r in a square of s by s pixels. :math:`\omega` runs over
    the grid of a picture that the kernel cannot wrap around: H + k - 1 frequencies
    along a side for stride one, and about one part in s of them otherwise. The mean of
    :math:`\|\hat W(\omega)\|_F^2` is the square of the kernel's Frobenius norm.
    Nothing is drawn and nothing iterated. Source: Sedghi et al. 2019 for pictures that
    wrap around and stride one; the blocks are the polyphase form of filter banks.

    Args:
        layer: with zero padding of any width.
        input_shape: ``(C, H, W)``.

    Raises:
        ValueError: padding that is not zeros, or what :func:`convolution` refuses.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> layer = torch.nn.Conv2d(1, 1, 3, padding=1)
        >>> _ = layer.weight.data.fill_(1.0)
        >>> round(metrics.symbol_norm(layer, (1, 28, 28)), 4)
        9.0
    """
    convolution(layer, input_shape)
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        raise ValueError(
            f"Padding is {layer.padding_mode!r}: a symbol needs zeros, see"
            " layer_operator_norm."
        )
    kernel, strides = _phases(layer)
    pads: Any = layer.padding
    if isinstance(pads, str):
        sides: Any = layer._reversed_padding_repeated_twice
        left, _, top, _ = sides
        pads = (top, left)
    grid = []
    for n, s, p, taps in zip(
        input_shape[1:], strides, _two(pads), kernel.shape[2:], strict=True
    ):
        squares = (p + n - 1) // s - p // s + 1  # that hold a pixel
        grid.append(squares + taps - 1)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return _largest_symbol(kernel, grid, groups)


def _two(pair: Any) -> tuple[int, int]:
    return (pair, pair) if isinstance(pair, int) else pair


def _phases(layer: nn.Conv2d | LowRankConv2d) -> tuple[Tensor, tuple[int, int]]:
    """Return a kernel of stride one that reads squares of pixels, and their sides.

    Input channel (c, r1, r2) of the kernel ``(h, c * s1 * s2, taps, taps)`` is pixel
    (r1, r2) of the square in channel c.
    """
    w = layer.weight.detach().double()
    across = layer.dilation if isinstance(layer, nn.Conv2d) else (1, 1)
    strides = _two(layer.stride)
    sizes = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], across, strict=True)]
    whole = [-(-k // s) * s for k, s in zip(sizes, strides, strict=True)]
    spread_out = w.new_zeros(*w.shape[:2], *whole)
    spread_out[:, :, : sizes[0] : across[0], : sizes[1] : across[1]] = w
    # (h, c, taps, s1, taps, s2)
    apart = spread_out.unflatten(3, (-1, strides[1])).unflatten(2, (-1, strides[0]))
    return apart.permute(0, 1, 3, 5, 2, 4).flatten(1, 3), strides


def _largest_symbol(kernel: Tensor, grid: Sequence[int], groups: int) -> float:
    # The kernel is real: half of the frequencies have the norms of the other half.
    symbol = torch.fft.rfft2(kernel, s=list(grid)).permute(2, 3, 0, 1)
    symbol = symbol.unflatten(2, (groups, -1))  # (N, N/2, groups, h/groups, c s s)
    return float(torch.linalg.matrix_norm(symbol, ord=2).max())


def convolution(
    layer: nn.Conv2d | LowRankConv2d, input_shape: tuple[int, ...]
) -> tuple[Convolve, Convolve, tuple[int, ...]]:
    """Return a convolution without bias as a linear map, and its transpose.

    Args:
        layer: with any padding, stride, dilation and groups. Padding by copies of
            pixels is part of the map. A low-rank layer counts as the one convolution
            that does the same.
        input_shape: ``(C, H, W)``.

    Returns:
        ``(forth, back, output_shape)``: ``forth(images, kernel)`` convolves
        ``(N, C, H, W)``; ``back(images, kernel)`` is the transpose. The kernel has
        the shape of ``layer.weight``.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> layer = torch.nn.Conv2d(1, 2, 3, padding=1)
        >>> forth, back, shape = metrics.convolution(layer, (1, 8, 8))
        >>> shape, back(torch.ones(1, *shape), layer.weight).shape
        ((2, 8, 8), torch.Size([1, 1, 8, 8]))
    """
    input_shape, widen = checks.shape(input_shape, images=True), None
    if isinstance(layer, LowRankConv2d):
        options: tuple[Any, ...] = (layer.stride, layer.padding)
    else:
        padding, widen = _padding(layer)
        options = (layer.stride, padding, layer.dilation, layer.groups)

    def forth(images: Tensor, kernel: Tensor) -> Tensor:
        images = images if widen is None else widen(images)
        return nn.functional.conv2d(images, kernel, None, *options)

    def back(images: Tensor, kernel: Tensor) -> Tensor:
        size = (len(images), *input_shape)
        if widen is None:
            out: Tensor = grad.conv2d_input(size, kernel, images, *options)
            return out
        zero = images.new_zeros(size)
        pull = torch.func.vjp(lambda v: forth(v, kernel), zero)[1]
        (out,) = pull(images)
        return out

    kernel = layer.weight.detach()
    try:
        out = forth(kernel.new_zeros(1, *input_shape), kernel)
    except RuntimeError as error:
        raise ValueError(
            f"The convolution does not take images {input_shape}: {error}"
        ) from None
    return forth, back, tuple(out.shape[1:])


def _padding(layer: nn.Conv2d) -> tuple[Any, Callable[[Tensor], Tensor] | None]:
    """Return the padding of a convolution, and what widens the images before it.

    Zeros, as many on both sides, are the business of the convolution itself.
    """
    # Left, right, top and bottom, of whatever kind the padding is.
    left, right, top, bottom = sides = layer._reversed_padding_repeated_twice
    zeros = layer.padding_mode == "zeros"
    if zeros and not isinstance(layer.padding, str):
        return layer.padding, None
    if zeros and (left, top) == (right, bottom):
        return (top, left), None
    mode = "constant" if zeros else layer.padding_mode
    return (0, 0), lambda v: nn.functional.pad(v, sides, mode)


def _largest_eigenvalue(
    apply: Callable[[Tensor], Tensor], start: Tensor, tol: float
) -> float:
    """Return the largest eigenvalue of a positive semidefinite map, by Lanczos."""
    n = len(start)
    steps = (math.log(1.648e9 * math.sqrt(n)) / math.sqrt(tol) + 1) / 2
    basis = start.new_zeros(min(n, math.ceil(steps)), n)
    images = torch.zeros_like(basis)
    v = start / start.norm()
    size = 0
    for _ in range(len(basis)):
        basis[size], images[size] = v, apply(v)
        v, size = images[size].clone(), size + 1
        scale = v.norm()
        # Twice, because once leaves rounding errors that grow from step to step.
        for _ in range(2):
            v -= basis[:size].T @ (basis[:size] @ v)
        if v.norm() <= 1e-12 * scale:
            break
        v /= v.norm()
    small = basis[:size] @ images[:size].T
    return max(0.0, float(torch.linalg.eigvalsh((small + small.T) / 2)[-1]))


def folded(model: nn.Module) -> nn.Module:
    r"""Return a copy in which each batch normalisation is part of the layer before it.

    In evaluation a normalisation is affine, channel by channel, with
    :math:`s = \gamma / \sqrt{\tau^2 + \eta}` from its stored statistics. So
    :math:`B(Wx + b) = \mathrm{diag}(s)\, W x + s (b - \mu) + \beta`, and the first
    factor is the kernel that acts on the input. Norms, errors and spreads of raw
    kernels say nothing of the function.

    Args:
        model: any whose layers ``torch.fx`` can follow; it stays as it is. Without
            batch normalisation the copy computes with the same weights.

    Returns:
        The copy, in evaluation mode, with ``nn.Identity`` where a normalisation was.
        A layer that is folded into has weights of its own. Behind a linear layer the
        copy takes ``(N, h)`` only: of tokens ``(N, L, h)`` a normalisation has axis 1
        for its channels, and a ValueError says so when the copy meets them.

    Raises:
        ValueError: a normalisation without stored statistics, one that does not read
            a layer with weights or has no channel for each of its rows, a layer that
            something else reads as well or whose weight is computed, or code that
            hides the order of the layers.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from crlib import metrics
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> model[1].running_var[:], x = 4.0, torch.ones(1, 2)
        >>> flat = metrics.folded(model)
        >>> torch.allclose(flat(x), model.eval()(x), atol=1e-6)
        True
        >>> bool(torch.isclose(flat[0].weight.norm(), model[0].weight.norm() / 2))
        True
    """
    order, flat = order_of(model), copied(model).eval()
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    befores = {norm: layer for layer, norm in order.norms.items()}
    for name in norms:
        before, norm = befores.get(name), flat.get_submodule(name)
        layer: Any = None if before is None else flat.get_submodule(before)
        own = layer is not None and _kernel(layer) in layer._parameters
        if not own or {before, name} & order.shared:
            raise ValueError(
                f"The batch normalisation {name!r} cannot be folded: it must read one"
                " layer with weights of its own (no parametrisation), which nothing"
                " else reads, with a channel for each row, in a forward pass that"
                " torch.fx can follow."
            )
        if norm.running_var is None:
            raise ValueError(
                f"The batch normalisation {name!r} keeps no running statistics, so"
                " it is no fixed layer: nothing can be folded."
            )
        _fold(layer, norm)
        gone = nn.Identity()
        refuse_tokens(layer, gone)
        replace(flat, norm, gone)
    return flat


def _kernel(layer: Any) -> str:
    """Return the name of the parameter whose rows are those of the layer."""
    return "left" if isinstance(layer, LowRankLinear | LowRankConv2d) else "weight"


def _fold(layer: Any, norm: Any) -> None:
    """Multiply the rows of a layer by what a normalisation multiplies them by."""
    with torch.no_grad():
        # In float32 at least: 1e-8 is zero in half precision.
        wide = torch.promote_types(norm.running_var.dtype, torch.float32)
        scale = (norm.running_var.to(wide) + norm.eps).rsqrt()  # (h,)
        shift = torch.zeros_like(scale)
        if norm.affine:
            scale, shift = scale * norm.weight, norm.bias.clone()
        bias = torch.zeros_like(scale) if layer.bias is None else layer.bias
        kernel = getattr(layer, _kernel(layer))
        bias = scale * (bias - norm.running_mean) + shift
        layer.bias = nn.Parameter(bias.to(kernel.dtype))
        rows = scale.view(-1, *[1] * (kernel.ndim - 1))
        # Not in place: another layer may have the same parameter.
        own = nn.Parameter((kernel * rows).to(kernel.dtype), kernel.requires_grad)
        setattr(layer, _kernel(layer), own)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`z_y - \max_{k \ne y} z_k` for every sample.

    Args:
        logits: ``(N, K)``, K at least 2.
        y: ``(N,)`` true labels.

    Returns:
        ``(N,)``: positive where the prediction is right.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> metrics.margin(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
        tensor([-3.])
    """
    checks.tensor(logits, "logits")
    checks.tensor(y, "y")
    own = logits.gather(1, y[:, None]).squeeze(1)
    rivals = logits.scatter(1, y[:, None], -math.inf)
    return own - rivals.amax(1)


def accuracy(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Return the share of samples ``model`` labels right, in [0, 1].

    Runs in evaluation mode without gradients and leaves model and inputs as they were.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` inputs.
        y: ``(N,)`` labels.

    Raises:
        ValueError: labels that do not fit, or a model that returns no logits.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> x, y = torch.tensor([[0.6, 0.4], [0.1, 0.3]]), torch.tensor([0, 0])
        >>> metrics.accuracy(torch.nn.Identity(), x, y)
        0.5
    """
    checks.tensor(x, "x")
    checks.labels(y, len(x))
    hits = []
    with torch.no_grad(), evaluating(model):
        for a, b in zip(x.split(1024), y.split(1024), strict=True):
            logits = ask(model, a)
            checks.logits(logits, len(a))
            checks.labels(b, len(a), classes=logits.shape[1])
            hits.append(logits.argmax(1) == b)
    return float(torch.cat(hits).cpu().double().mean())


@with_gradients
def first_order(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    rivals: int = 10,
    batch_size: int = 128,
) -> Tensor:
    r"""Estimate the distance to the nearest boundary from one linearisation.

    :math:`\min_k m_k(x) / \|\nabla m_k(x)\|_*` over the rivals k, with the margin
    :math:`m_k = z_y - z_k` and the dual norm (the first step of Moosavi-Dezfooli et al.
    2016). Exact for affine logits without a box, if all rivals are looked at. Of a
    curved network it is an estimate and no bound, on either side.

    Cost: one forward and ``min(K - 1, rivals)`` backward passes.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` inputs.
        y: ``(N,)`` true labels, int64.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``, of the distance.
        rivals: so many classes of the largest logits are looked at.
        batch_size: inputs in memory at once, at most.

    Returns:
        ``(N,)`` distances in input units: zero where the label is wrong, infinity where
        the margin is positive and its gradient zero, NaN where the label is right and a
        gradient is NaN or infinite, so that there is no linearisation.

    Raises:
        ValueError: inputs or labels that do not fit, an unknown norm, or a model
            without an input gradient.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
        >>> metrics.first_order(torch.nn.Identity(), x, y, norm="linf")
        tensor([0.1000])
    """
    checks.one_of("norm", norm, ("linf", "l2", "l1"))
    checks.inputs(x, box=False)
    checks.labels(y, len(x))
    checks.at_least(1, rivals=rivals, batch_size=batch_size)
    found = []
    with evaluating(model):
        for a, b in zip(x.split(batch_size), y.split(batch_size), strict=True):
            found.append(_one_step(model, a, b, DUALS[norm], rivals))
    return torch.cat(found)


def _one_step(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, dual: str, rivals: int
) -> Tensor:
    """The estimate of :func:`first_order` for one batch, by the dual norm."""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        logits = ask(model, z)  # (N, K)
        checks.logits(logits, len(x))
        checks.labels(y, len(x), classes=logits.shape[1])
        order = logits.detach().scatter(1, y[:, None], -math.inf)
        strongest = order.topk(min(rivals, logits.shape[1] - 1)).indices  # (N, R)
        m = logits.gather(1, y[:, None]) - logits.gather(1, strongest)  # (N, R)
        if not m.requires_grad:
            raise ValueError(
                "The logits do not depend on x by anything that has a gradient: the"
                " model detaches or rounds. There is nothing to linearise."
            )
        slopes = [
            torch.autograd.grad(m[:, k].sum(), z, retain_graph=k + 1 < m.shape[1])[0]
            for k in range(m.shape[1])
        ]
    lengths = torch.stack([norm_of(g, dual) for g in slopes], 1)  # (N, R)
    lengths = lengths.masked_fill(lengths.isinf(), math.nan)
    right = (m > 0).all(1)  # apart, because 0 / 0 is where the label is wrong too
    return torch.where(right, (m.detach() / lengths).amin(1), 0.0)


def energy_share(delta: Tensor, directions: Tensor) -> Tensor:
    r"""Return what share of each perturbation's energy lies in given directions.

    :math:`\|V^\top \delta\|_2^2 / \|\delta\|_2^2` for orthonormal columns :math:`V`,
    such as the top right singular vectors of the first layer.

    Args:
        delta: ``(N, ...)`` perturbations, flattened to ``(N, m)``.
        directions: ``(m, k)`` with orthonormal columns.

    Returns:
        ``(N,)`` in [0, 1], in the finer of the two precisions; NaN where a perturbation
        is zero.

    Raises:
        ValueError: the columns are not orthonormal, or the sizes do not fit.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> delta, first = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [0.0]])
        >>> metrics.energy_share(delta, first)
        tensor([0.3600])
    """
    checks.tensor(delta, "delta")
    checks.tensor(directions, "directions")
    if delta.ndim < 2:
        raise ValueError(
            f"delta has shape {tuple(delta.shape)}: give a batch (N, ...), such as"
            " delta[None]."
        )
    finer = torch.promote_types(delta.dtype, directions.dtype)
    flat, directions = delta.flatten(1).to(finer), directions.to(finer)
    if directions.ndim != 2 or len(directions) != flat.shape[1]:
        raise ValueError(
            f"directions must be ({flat.shape[1]}, k), not {tuple(directions.shape)}."
        )
    gram = directions.T @ directions
    if not torch.allclose(gram, torch.eye(len(gram)).to(gram), atol=1e-4):
        raise ValueError("The columns of directions are not orthonormal.")
    inside = (flat @ directions).square().sum(1)
    return inside / flat.square().sum(1)


def frequency_share(step: Tensor, *, below: float = 1 / 8) -> float:
    r"""Return the mean share of energy of steps that lies in low frequencies.

    :math:`\sum_{|f| < b} |\hat\delta(f)|^2 / \sum_f |\hat\delta(f)|^2` with the
    discrete Fourier transform of each channel.

    Args:
        step: ``(N, C, H, W)`` perturbations, or differences of images.
        below: b, length of the wave vector in cycles a pixel.

    Returns:
        A number in [0, 1], the mean over the steps that are not zero; NaN of none.

    Raises:
        ValueError: what is no batch of images.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
        >>> metrics.frequency_share(stripes), metrics.frequency_share(stripes.abs())
        (0.0, 1.0)
    """
    checks.inputs(step, "step", box=False)
    if step.ndim != 4:
        raise ValueError(
            f"step has shape {tuple(step.shape)}: give images (N, C, H, W)."
        )
    energy = torch.fft.fft2(step).abs().square().sum(1)  # (N, H, W)
    f = [torch.fft.fftfreq(n).to(step) for n in step.shape[2:]]
    coarse = (f[0][:, None].square() + f[1].square()).sqrt() < below
    share = energy[:, coarse].sum(1) / energy.sum((1, 2))
    return float(share[~share.isnan()].mean())


def principal_directions(
    x: Tensor, k: int | None = None, *, centred: bool = True
) -> Tensor:
    r"""Return the directions in which inputs vary most, strongest first.

    They are the orthonormal eigenvectors of the covariance of the inputs, or, without
    centring, of their second moment :math:`\sum_i x_i x_i^\top`: of all subspaces of a
    dimension the first ones span the one that keeps most of the sum of squares
    (Pearson 1901). A direction is its own but for a sign, which processors choose
    differently; here its entries have a sum that is not negative.

    Args:
        x: ``(N, ...)`` inputs, flattened to ``(N, m)``.
        k: how many, from 1 to m; None for all.
        centred: whether the mean of the inputs is taken away first.

    Returns:
        ``(m, k)`` in float64, on the device of ``x``.

    Raises:
        ValueError: ``x`` is no batch of at least two inputs, or ``k`` out of range.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> x = torch.tensor([[0.0, 0.5], [2.0, 0.5], [1.0, 0.5]])
        >>> metrics.principal_directions(x, 1).tolist()
        [[1.0], [0.0]]
    """
    checks.inputs(x, box=False)
    checks.at_least(2, **{"the number of inputs": len(x)})
    flat = x.detach().flatten(1).double()
    if k is not None:
        _check_k(k, flat.shape[1])
    spread = torch.cov(flat.T) if centred else flat.T @ flat  # (m, m)
    spread = spread.view(flat.shape[1], -1)  # of one coordinate cov is a number
    vectors = torch.linalg.eigh(spread).eigenvectors.flip(1)[:, :k]
    return vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0).to(vectors)


def balanced(model: MLP, *, rounds: int = 60) -> MLP:
    r"""Return the same function with equal norms into and out of each hidden neuron.

    Multiplying what goes into a neuron of a ReLU network without biases by c > 0, and
    what comes out of it by 1/c, changes no output. Among all such ways of writing one
    has equal l2 norms on both sides of every neuron, and it has the least
    :math:`\sum_l \|W^l\|_F^2` (balance as in Stock et al. 2019). What a norm of rows or
    of a layer says of the function, it says of this one. A neuron can still be split in
    two: the form belongs to the network.

    Args:
        model: without biases; low-rank layers are scaled in their outer factors.
        rounds: sweeps over the layers, at least 1. For up to four layers the norms
            agree to rounding after some dozens; the number that is needed grows like
            the square of the depth.

    Returns:
        A copy. A neuron that nothing enters or nothing reads is zero on both sides.

    Raises:
        ValueError: no :class:`crlib.models.MLP`, or one with biases or with layers that
            share a weight.

    Example:
        >>> import torch
        >>> from crlib import metrics
        >>> from crlib.models import MLP
        >>> model = MLP((2, 1, 2))
        >>> model.layers[0].weight.data = torch.tensor([[4.0, 0.0]])
        >>> model.layers[1].weight.data = torch.tensor([[1.0], [0.0]])
        >>> [w.norm().item() for w in metrics.balanced(model).weights]
        [2.0, 2.0]
    """
    layers: Any = getattr(model, "layers", [])
    if not isinstance(model, MLP) or any(layer.bias is not None for layer in layers):
        raise ValueError(
            "Only a models.MLP without biases can be balanced: elsewhere a scaled"
            " neuron changes the function."
        )
    if shares_weights(model):
        raise ValueError(
            "Layers that share a weight cannot be balanced, as each needs a scale of"
            " its own: layer.weight = nn.Parameter(layer.weight.detach().clone())."
        )
    checks.at_least(1, rounds=rounds)
    model = copied(model)
    layers = model.layers
    with torch.no_grad():
        for before, after in list(zip(layers, layers[1:], strict=False)) * rounds:
            into, out = before.weight.norm(dim=1), after.weight.norm(dim=0)  # (h,)
            read = (into > 0) & (out > 0)
            c = torch.where(read, (out / into).sqrt(), 0.0)
            getattr(before, "left", before.weight).mul_(c[:, None])
            getattr(after, "right", after.weight).mul_(torch.where(read, 1 / c, 0.0))
    return model
