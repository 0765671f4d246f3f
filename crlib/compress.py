r"""Making networks compressible while they train, and compressing them afterwards.

Three kinds of functions. A *penalty* maps a model to a number to add to the loss
(``train.fit(..., penalty=...)``). A *constraint* changes the weights in place after a
step (``constraint=...``). A *compression* returns a new, smaller or sparser model.

All act on the hidden layers: every layer of :func:`crlib.models.weight_layers` but the
last, the head. A kernel of a convolution counts as its matrix ``(h, c k^2)``, one row a
filter; a low-rank layer as the product of its factors.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.metrics import smallest_k
from crlib.models import (
    MLP,
    LowRankConv2d,
    LowRankLinear,
    evaluating,
    weight_layers,
)

__all__ = [
    "Size",
    "alignment",
    "clip_spectrum",
    "factorise",
    "fixed_frobenius",
    "group_lasso",
    "keep_zeros",
    "l1",
    "narrow",
    "nuclear_norm",
    "orthonormal_factors",
    "prune",
    "prune_to_error",
    "quantise",
    "row_dial",
    "size",
    "spectral_dial",
    "squared_frobenius",
    "top_spread",
    "total",
    "truncate",
]

Penalty = Callable[[Any], Tensor]
Constraint = Callable[[Any], None]

LOW_RANK = (LowRankLinear, LowRankConv2d)


def _hidden(model: nn.Module) -> list[Any]:
    layers = weight_layers(model)[:-1]
    if not layers:
        raise ValueError("The model has no hidden layer: its only layer is the head.")
    return layers


def _matrices(model: nn.Module) -> list[Tensor]:
    return [layer.weight.flatten(1) for layer in _hidden(model)]


def _stored(layer: Any) -> tuple[Tensor, ...]:
    """Return the parameters that make the weight: one, or two factors."""
    if isinstance(layer, LOW_RANK):
        return layer.left, layer.right
    return (layer.weight,)


def group_lasso(
    strength: float, *, p: float = 2, scale_invariant: bool = False
) -> Penalty:
    r"""Penalise the norms of rows, so that few neurons stay strong.

    :math:`\lambda \sum_l \sum_i \|w_i\|_p`, each layer divided by :math:`\|W\|_F` if
    ``scale_invariant``. The plain form also shrinks the scale of the weights; the
    other cannot (Barsbey et al. 2026, as used for ResNet-18).

    Args:
        strength: :math:`\lambda`, not negative.
        p: norm of a row: 2, or 1, which pairs with linf attacks.
        scale_invariant: divide by the Frobenius norm.
    """
    checks.not_negative(strength=strength)

    def penalty(model: nn.Module) -> Tensor:
        parts = []
        for w in _matrices(model):
            rows = torch.linalg.vector_norm(w, ord=p, dim=1).sum()
            parts.append(rows / torch.linalg.norm(w) if scale_invariant else rows)
        return strength * torch.stack(parts).sum()

    return penalty


def _spectrum(w: Tensor) -> Tensor:
    """Return singular values through the smaller Gram matrix: quick, and to 1e-3."""
    gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    squares = torch.linalg.eigvalsh(gram)
    # A root has no slope at zero: singular values below 1e-3 of the largest stay put.
    return squares.clamp_min(1e-6 * float(squares.detach()[-1]) + 1e-30).sqrt()


def nuclear_norm(strength: float, *, scale_invariant: bool = False) -> Penalty:
    r"""Penalise the sum of singular values, so that few directions stay strong.

    :math:`\lambda \sum_l \|W\|_*`, each layer divided by :math:`\|W\|_F` if
    ``scale_invariant``.

    Args:
        strength: :math:`\lambda`, not negative.
        scale_invariant: divide by the Frobenius norm.
    """
    checks.not_negative(strength=strength)

    def penalty(model: nn.Module) -> Tensor:
        parts = []
        for w in _matrices(model):
            nuclear = _spectrum(w).sum()
            parts.append(nuclear / torch.linalg.norm(w) if scale_invariant else nuclear)
        return strength * torch.stack(parts).sum()

    return penalty


def l1(strength: float) -> Penalty:
    r"""Penalise :math:`\lambda \sum_l \sum_{ij} |W_{ij}|`: sparsity without structure.

    Args:
        strength: :math:`\lambda`, not negative.
    """
    checks.not_negative(strength=strength)
    return lambda model: (
        strength * torch.stack([w.abs().sum() for w in _matrices(model)]).sum()
    )


def squared_frobenius(strength: float) -> Penalty:
    r"""Penalise :math:`\lambda \sum_l \|W\|_F^2`: scale alone, the control of the rest.

    Args:
        strength: :math:`\lambda`, not negative.
    """
    checks.not_negative(strength=strength)
    return lambda model: (
        strength * torch.stack([w.square().sum() for w in _matrices(model)]).sum()
    )


def top_spread(strength: float, *, share: float = 0.05) -> Penalty:
    r"""Penalise the variance of the largest row norms of each layer.

    The spread :math:`\beta` of the dominant terms is what an operator norm has beyond
    its compressibility; this lowers it (Barsbey et al. 2026, as reported).

    Args:
        strength: :math:`\lambda`, not negative.
        share: of the rows that count as dominant, at least two of them.

    Raises:
        ValueError: ``share`` is not in (0, 1].
    """
    checks.not_negative(strength=strength)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: a part of the rows, in (0, 1].")

    def penalty(model: nn.Module) -> Tensor:
        parts = []
        for w in _matrices(model):
            count = min(len(w), max(2, math.ceil(share * len(w))))
            top = torch.linalg.vector_norm(w, dim=1).topk(count).values
            parts.append(top.var(correction=0))
        return strength * torch.stack(parts).sum()

    return penalty


def alignment(strength: float) -> Penalty:
    r"""Penalise how far neighbouring layers hand on each other's top directions.

    .. math:: \lambda \sum_l
       \frac{\|W^{l+1} W^l\|_2}{\|W^{l+1}\|_2\, \|W^l\|_2}

    over neighbours that fit. Each term lies in [0, 1]; 1 means that the direction which
    one layer stretches most is the one that the next stretches most. (The interlayer
    alignment of Barsbey et al. 2026 without its maximum over ReLU patterns.)

    Args:
        strength: :math:`\lambda`, not negative.
    """
    checks.not_negative(strength=strength)

    def penalty(model: nn.Module) -> Tensor:
        matrices = _matrices(model)
        parts = [
            _spectrum(after @ before)[-1]
            / (_spectrum(after)[-1] * _spectrum(before)[-1])
            for before, after in zip(matrices, matrices[1:], strict=False)
            if after.shape[1] == before.shape[0]
        ]
        return strength * torch.stack([*parts, matrices[0].new_zeros(())]).sum()

    return penalty


def total(*penalties: Penalty) -> Penalty:
    """Add penalties up."""
    return lambda model: torch.stack([p(model) for p in penalties]).sum()


def _dense(model: nn.Module) -> list[Tensor]:
    """Return the weights of the hidden layers, to be changed in place."""
    layers = _hidden(model)
    for layer in layers:
        if isinstance(layer, LOW_RANK):
            raise ValueError("This constraint needs full layers, not low-rank ones.")
    return [layer.weight.data for layer in layers]


def fixed_frobenius(model: nn.Module) -> Constraint:
    r"""Keep :math:`\|W\|_F` of every hidden layer as it is in ``model`` now.

    A low-rank layer has both of its factors scaled by the root.

    Args:
        model: fixes the norms; give the model that will be trained.
    """
    norms = [float(torch.linalg.norm(w.detach())) for w in _matrices(model)]

    def constraint(changed: nn.Module) -> None:
        for layer, norm in zip(_hidden(changed), norms, strict=True):
            scale = norm / torch.linalg.norm(layer.weight.detach()).clamp_min(1e-30)
            if isinstance(layer, LOW_RANK):
                layer.left.data *= scale.sqrt()
                layer.right.data *= scale.sqrt()
            else:
                layer.weight.data *= scale

    return constraint


def _profile(count: int, alpha: float, frobenius: float, like: Tensor) -> Tensor:
    s = torch.arange(1, count + 1, dtype=like.dtype, device=like.device) ** -alpha
    return s * frobenius / torch.linalg.norm(s)


def spectral_dial(alpha: float, *, frobenius: float = 10.0) -> Constraint:
    r"""Give every hidden layer singular values :math:`\propto i^{-\alpha}`.

    Singular vectors stay and :math:`\|W\|_F` is fixed: spectral compressibility
    changes and scale does not. 0 is a flat spectrum.

    Args:
        alpha: exponent, not negative.
        frobenius: :math:`\|W\|_F` of each layer, positive.
    """
    checks.not_negative(alpha=alpha, frobenius=frobenius)

    def constraint(model: nn.Module) -> None:
        for weight in _dense(model):
            u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            s = _profile(len(s), alpha, frobenius, s)
            weight.copy_((u * s @ vh).view_as(weight))

    return constraint


def row_dial(alpha: float, *, frobenius: float = 10.0) -> Constraint:
    r"""Give every hidden layer row norms :math:`\propto i^{-\alpha}`.

    Rows keep their directions and their order by norm, and :math:`\|W\|_F` is fixed.

    Args:
        alpha: exponent, not negative.
        frobenius: :math:`\|W\|_F` of each layer, positive.
    """
    checks.not_negative(alpha=alpha, frobenius=frobenius)

    def constraint(model: nn.Module) -> None:
        for weight in _dense(model):
            rows = weight.flatten(1)
            norms = torch.linalg.vector_norm(rows, dim=1)
            target = torch.empty_like(norms)
            order = norms.argsort(descending=True)
            target[order] = _profile(len(rows), alpha, frobenius, norms)
            scale = target / norms.clamp_min(1e-30)
            weight.copy_((rows * scale[:, None]).view_as(weight))

    return constraint


def clip_spectrum(most: float) -> Constraint:
    r"""Keep every singular value of the hidden layers at or below ``most``.

    Args:
        most: largest allowed singular value, not negative.
    """
    checks.not_negative(most=most)

    def constraint(model: nn.Module) -> None:
        for weight in _dense(model):
            u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            weight.copy_((u * s.clamp_max(most) @ vh).view_as(weight))

    return constraint


def orthonormal_factors() -> Constraint:
    r"""Make the factors of low-rank layers orthonormal up to one scale.

    Each factor is replaced by the nearest matrix with orthonormal columns (rows), and
    both are scaled so that :math:`\|AB\|_F` stays: the spread of the singular values
    becomes zero (after Savostianova et al. 2023).
    """

    def constraint(model: nn.Module) -> None:
        layers = [layer for layer in _hidden(model) if isinstance(layer, LOW_RANK)]
        if not layers:
            raise ValueError("The model has no low-rank layer.")
        for layer in layers:
            norm = torch.linalg.norm(layer.weight.detach())
            scale = (norm / math.sqrt(len(layer.right))).sqrt()
            for factor in (layer.left, layer.right):
                u, _, vh = torch.linalg.svd(factor.data, full_matrices=False)
                factor.data.copy_(scale * (u @ vh))

    return constraint


def keep_zeros(model: nn.Module) -> Constraint:
    """Keep what is zero in ``model`` now at zero: fine-tuning after pruning.

    Args:
        model: the pruned model; weights and biases of its hidden layers count.
    """

    def parts(of: nn.Module) -> list[Tensor]:
        layers = _hidden(of)
        return [p.data for layer in layers for p in layer.parameters()]

    masks = [part != 0 for part in parts(model)]

    def constraint(changed: nn.Module) -> None:
        for part, mask in zip(parts(changed), masks, strict=True):
            part.mul_(mask)

    return constraint


def _zero(layer: Any, kept: Tensor) -> None:
    """Zero the rows, with their biases, or the entries that are not kept."""
    if kept.ndim == 1:
        layer.weight.data[~kept] = 0
        if layer.bias is not None:
            layer.bias.data[~kept] = 0
    else:
        layer.weight.data[~kept.view_as(layer.weight)] = 0


def _scores(layer: Any, structure: str) -> Tensor:
    if isinstance(layer, LOW_RANK):
        raise ValueError("Prune full layers: a low-rank layer has no row of its own.")
    checks.one_of("structure", structure, ("weights", "rows"))
    w: Tensor = layer.weight.detach().flatten(1)
    return w.abs() if structure == "weights" else torch.linalg.vector_norm(w, dim=1)


def prune(
    model: nn.Module,
    share: float,
    *,
    structure: str = "weights",
    scope: str = "layer",
) -> Any:
    """Return a copy with the smallest weights, or the weakest rows, set to zero.

    Args:
        model: with hidden layers that are not low-rank.
        share: of the weights (rows) to remove, in [0, 1).
        structure: ``"weights"`` one by one, or whole ``"rows"`` (neurons, filters) by
            their l2 norm, with their biases.
        scope: ``"layer"`` removes the share of each layer, ``"global"`` of all
            hidden layers together, which can empty a layer.

    Raises:
        ValueError: a bad option, a low-rank layer, or no hidden layer.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}: the part to remove, in [0, 1).")
    checks.one_of("scope", scope, ("layer", "global"))
    model = copy.deepcopy(model)
    layers = _hidden(model)
    scores = [_scores(layer, structure) for layer in layers]
    groups = [scores] if scope == "global" else [[s] for s in scores]
    kept = []
    for group in groups:
        together = torch.cat([s.flatten() for s in group])
        mask = torch.ones_like(together, dtype=torch.bool)
        mask[together.argsort()[: round(share * len(together))]] = False
        pieces = mask.split([s.numel() for s in group])
        kept += [m.view_as(s) for m, s in zip(pieces, group, strict=True)]
    for layer, mask in zip(layers, kept, strict=True):
        _zero(layer, mask)
    return model


def prune_to_error(model: nn.Module, eps: float, *, structure: str = "rows") -> Any:
    r"""Return a pruned copy that keeps in each layer as few as an error allows.

    A layer keeps the least k for which its rows (weights) are
    :math:`(2, k, \epsilon)`-compressible: a layer that concentrates loses much, one
    that does not loses little, and none is emptied (:math:`\epsilon`-pruning, Barsbey
    et al. 2026, as reported).

    Args:
        model: with hidden layers that are not low-rank.
        eps: relative best-k error of each layer, in [0, 1).
        structure: ``"rows"`` or ``"weights"``.

    Raises:
        ValueError: a bad option, a low-rank layer, or no hidden layer.
    """
    if not 0 <= eps < 1:
        raise ValueError(f"eps is {eps}: a relative error, in [0, 1).")
    model = copy.deepcopy(model)
    for layer in _hidden(model):
        scores = _scores(layer, structure)
        flat = scores.flatten()
        kept = torch.zeros_like(flat, dtype=torch.bool)
        kept[flat.argsort(descending=True)[: smallest_k(flat, eps)]] = True
        _zero(layer, kept.view_as(scores))
    return model


def _best(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vh[:rank]


def _ranks(model: nn.Module, rank: int | None, energy: float | None) -> list[int]:
    if (rank is None) == (energy is None):
        raise ValueError("Give either rank or energy.")
    if rank is not None:
        checks.at_least(1, rank=rank)
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy is {energy}: a share, in (0, 1].")
    ranks = []
    for w in _matrices(model):
        if rank is not None:
            ranks.append(min(rank, *w.shape))
        else:
            assert energy is not None
            s = torch.linalg.svdvals(w.detach())
            ranks.append(max(1, smallest_k(s, math.sqrt(1 - energy))))
    return ranks


def truncate(
    model: nn.Module, *, rank: int | None = None, energy: float | None = None
) -> Any:
    """Return a copy whose hidden layers are their best approximations of low rank.

    Args:
        model: any with hidden layers that are not low-rank.
        rank: of every layer (a smaller layer keeps all of its own), or
        energy: share of the squared singular values to keep in each layer.

    Raises:
        ValueError: not exactly one of ``rank`` and ``energy``, or out of range.
    """
    model = copy.deepcopy(model)
    ranks = _ranks(model, rank, energy)
    for weight, own in zip(_dense(model), ranks, strict=True):
        left, right = _best(weight, own)
        weight.copy_((left @ right).view_as(weight))
    return model


def factorise(
    model: nn.Module, *, rank: int | None = None, energy: float | None = None
) -> Any:
    """Return :func:`truncate`'s function with low-rank layers: fewer parameters.

    Linear layers become :class:`~crlib.models.LowRankLinear`, convolutions
    :class:`~crlib.models.LowRankConv2d`.

    Args:
        model: any with hidden layers that are not low-rank.
        rank: of every layer, or
        energy: share of the squared singular values to keep in each layer.

    Raises:
        ValueError: as :func:`truncate`; or a convolution with dilation, groups, a
            kernel that is not square, or padding other than with zeros.
    """
    model = copy.deepcopy(model)
    ranks = _ranks(model, rank, energy)
    _dense(model)
    names = {layer: name for name, layer in model.named_modules()}
    for layer, own in zip(_hidden(model), ranks, strict=True):
        low = _low_rank(layer, own)
        left, right = _best(layer.weight.data, own)
        low.left.data, low.right.data = left, right
        if layer.bias is not None:
            low.bias.data.copy_(layer.bias.data)
        parent, _, child = names[layer].rpartition(".")
        setattr(model.get_submodule(parent), child, low.train(layer.training))
    return model


def _low_rank(layer: Any, rank: int) -> Any:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        low: Any = LowRankLinear(layer.in_features, layer.out_features, rank, bias=bias)
    else:
        plain = (
            layer.groups == 1
            and set(layer.dilation) == {1}
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
            and all(
                len(set(pair)) == 1
                for pair in (layer.kernel_size, layer.stride, layer.padding)
            )
        )
        if not plain:
            raise ValueError(f"{layer} cannot be factorised: square and plain only.")
        low = LowRankConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            rank,
            stride=layer.stride[0],
            padding=layer.padding[0],
            bias=bias,
        )
    return low.to(layer.weight)


def quantise(model: nn.Module, *, bits: int = 8) -> Any:
    r"""Return a copy whose weights lie on a grid of :math:`2^{b} - 1` points a row.

    Symmetric, one scale a row (filter), every layer with the head; biases and
    activations stay. The grid of a row is
    :math:`\{-q, \dots, q\} \cdot \max_j |W_{ij}| / q` with :math:`q = 2^{b-1} - 1`.
    The numbers are stored as floats: the function is that of the int8 network.

    Args:
        model: any; of a low-rank layer both factors are quantised.
        bits: b, from 2 to 16.

    Raises:
        ValueError: ``bits`` out of range.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits is {bits}: choose from 2 to 16.")
    model, levels = copy.deepcopy(model), 2 ** (bits - 1) - 1
    for layer in weight_layers(model):
        for weight in _stored(layer):
            rows = weight.data.flatten(1)
            step = rows.abs().amax(1, keepdim=True).clamp_min(1e-30) / levels
            weight.data.copy_(((rows / step).round() * step).view_as(weight))
    return model


def narrow(model: MLP) -> MLP:
    """Return the same function with the zero neurons of every hidden layer removed.

    Args:
        model: an MLP with full layers, such as :func:`prune` returns for rows.

    Raises:
        ValueError: not an MLP, low-rank layers, or a layer with no neuron left.
    """
    if type(model) is not MLP:
        raise ValueError(
            f"{type(model).__name__} is not an MLP: only that is narrowed."
        )
    _dense(model)
    model = copy.deepcopy(model)
    layers: list[Any] = list(model.layers)
    for layer, after in zip(layers, layers[1:], strict=False):
        alive = layer.weight.detach().abs().sum(1) > 0
        if layer.bias is not None:
            # A neuron without inputs but with a bias is a constant: it stays.
            alive |= layer.bias.detach() > 0
        if not alive.any():
            raise ValueError("A layer has no neuron left: prune less.")
        layer.weight = nn.Parameter(layer.weight.data[alive])
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.data[alive])
        after.weight = nn.Parameter(after.weight.data[:, alive])
        layer.out_features = after.in_features = int(alive.sum())
    return model


class Size(NamedTuple):
    """What a model costs: numbers stored, numbers not zero, products an input, bytes.

    ``macs`` counts multiplications and additions of the weight layers for one input,
    zeros included; ``bytes`` is what the parameters take as they are stored.
    """

    parameters: int
    nonzero: int
    macs: int
    bytes: int


def size(model: nn.Module, input_shape: Sequence[int]) -> Size:
    """Count parameters, non-zeros, multiply-adds and bytes of a model.

    Args:
        model: any whose multiplications are in its weight layers.
        input_shape: of one input, without the batch.
    """
    macs = 0

    def count(layer: Any, _: Any, out: Tensor) -> None:
        nonlocal macs
        conv = isinstance(layer, nn.Conv2d | LowRankConv2d)
        places = out[0, 0].numel() if conv else out[0].numel() // out.shape[-1]
        macs += places * sum(w.numel() for w in _stored(layer))

    hooks = [layer.register_forward_hook(count) for layer in weight_layers(model)]
    like = next(model.parameters())
    try:
        with torch.no_grad(), evaluating(model):
            model(like.new_full((1, *input_shape), 0.5))
    finally:
        for hook in hooks:
            hook.remove()
    parameters = list(model.parameters())
    return Size(
        sum(p.numel() for p in parameters),
        sum(int(p.count_nonzero()) for p in parameters),
        macs,
        sum(p.numel() * p.element_size() for p in parameters),
    )
