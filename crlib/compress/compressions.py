"""Compressions: smaller or sparser copies of a trained network, and what they cost."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from crlib import checks
from crlib.asking import copied
from crlib.compress.layers import (
    LOW_RANK,
    STRANGE,
    dense,
    head_of,
    hidden,
    matrices,
    norms_after,
    refuse_derived,
    refuse_strange,
    stored,
)
from crlib.metrics import smallest_k
from crlib.models import (
    MLP,
    LowRankConv2d,
    LowRankLinear,
    evaluating,
    refuse_tokens,
    replace,
    weight_layers,
)


def _zero(layers: list[Any], kept: list[Tensor], norms: dict[Any, Any]) -> None:
    """Zero the rows, with their biases, or the entries that are not kept.

    Behind a row that is zero a batch normalisation would still send a constant.
    """
    for layer, mask in zip(layers, kept, strict=True):
        if mask.ndim > 1:
            layer.weight.data[~mask.view_as(layer.weight)] = 0
            continue
        for part in (layer, norms.get(layer)):
            if part is not None:
                part.weight.data[~mask] = 0
                if part.bias is not None:
                    part.bias.data[~mask] = 0


def _norms(model: nn.Module, structure: str) -> dict[Any, Any]:
    norms = norms_after(model) if structure == "rows" else {}
    if not all(norm.affine for norm in norms.values()):
        raise ValueError(
            "A batch normalisation without weight and bias (affine=False) cannot switch"
            " a row off: prune weights, not rows."
        )
    for layer, norm in norms.items():
        refuse_tokens(layer, norm)
    return norms


def _copied(model: nn.Module) -> Any:
    refuse_derived(model)
    return copied(model)


def _scores(layer: Any, structure: str) -> Tensor:
    if isinstance(layer, LOW_RANK):
        raise ValueError("Prune full layers: a low-rank layer has no row of its own.")
    checks.one_of("structure", structure, ("weights", "rows", "columns"))
    w: Tensor = layer.weight.detach().flatten(1)
    if structure == "weights":
        return w.abs()
    return torch.linalg.vector_norm(w, dim=1 if structure == "rows" else 0)


def _masks(layers: list[Any], kept: list[Tensor], structure: str) -> list[Tensor]:
    """A column has no bias and no channel behind it: to cut it is to cut entries."""
    if structure != "columns":
        return kept
    pairs = zip(layers, kept, strict=True)
    return [mask.repeat(len(layer.weight), 1) for layer, mask in pairs]


def prune(
    model: nn.Module,
    share: float,
    *,
    structure: str = "weights",
    scope: str = "layer",
) -> Any:
    """Return a copy with the smallest weights, or weakest rows or columns, at zero.

    Args:
        model: with hidden layers that are not low-rank.
        share: of the weights (rows, columns) to remove, in [0, 1), rounded to whole
            ones: nine tenths of a layer of four rows are all of them.
        structure: ``"weights"`` one by one, or whole ``"rows"`` (neurons, filters) by
            their l2 norm, with their biases, and with the weight and bias that a
            batch normalisation behind them has for the channel: what is removed sends
            zero. What such a layer has stored of its other channels still belongs to
            the full network: see :func:`renew_statistics`. Behind a linear layer the
            copy takes ``(N, h)`` only: of tokens ``(N, L, h)`` such a layer has axis 1
            for its channels, and a ValueError says so when the copy meets them.
            ``"columns"`` are the inputs of a layer, of a convolution a channel and
            place in its window each, by their l2 norm: what is removed is not read,
            and biases stay.
        scope: ``"layer"`` removes the share of each layer, ``"global"`` of all
            hidden layers together, which can empty a layer.

    Raises:
        ValueError: a bad option, a low-rank layer, no hidden layer, a layer whose
            weight is computed from other parameters or is that of the head, or for
            rows a batch normalisation whose place cannot be found, that has no channel
            for each row, or that is not alone behind one layer.

    Example:
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = compress.prune(MLP((2, 4, 2)), 0.5, structure="rows")
        >>> int((model.weights[0] != 0).any(1).sum())
        2
        >>> model = compress.prune(MLP((4, 3, 2)), 0.5, structure="columns")
        >>> int((model.weights[0] != 0).any(0).sum())
        2
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}: the part to remove, in [0, 1).")
    checks.one_of("scope", scope, ("layer", "global"))
    model = _copied(model)
    layers = hidden(model)
    scores = [_scores(layer, structure) for layer in layers]
    groups = [scores] if scope == "global" else [[s] for s in scores]
    kept = []
    for group in groups:
        together = torch.cat([s.flatten() for s in group])
        mask = torch.ones_like(together, dtype=torch.bool)
        mask[together.argsort()[: round(share * len(together))]] = False
        pieces = mask.split([s.numel() for s in group])
        kept += [m.view_as(s) for m, s in zip(pieces, group, strict=True)]
    _zero(layers, _masks(layers, kept, structure), _norms(model, structure))
    return model


def prune_to_error(model: nn.Module, eps: float, *, structure: str = "rows") -> Any:
    r"""Return a pruned copy that keeps in each layer as few as an error allows.

    A layer keeps the least k for which its rows (weights, columns) are
    :math:`(2, k, \epsilon)`-compressible: a layer that concentrates loses much, one
    that does not loses little, and none is emptied (:math:`\epsilon`-pruning, Barsbey
    et al. 2026, as reported).

    Args:
        model: with hidden layers that are not low-rank.
        eps: relative best-k error of each layer, in [0, 1).
        structure: ``"rows"``, ``"columns"`` or ``"weights"``, as in :func:`prune`.

    Raises:
        ValueError: as :func:`prune`.

    Example:
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = MLP((2, 4, 2))
        >>> model.layers[0].weight.data[1:] *= 1e-3
        >>> pruned = compress.prune_to_error(model, 0.1)
        >>> int((pruned.weights[0] != 0).any(1).sum())
        1
    """
    if not 0 <= eps < 1:
        raise ValueError(f"eps is {eps}: a relative error, in [0, 1).")
    model = _copied(model)
    layers, kept = hidden(model), []
    for layer in layers:
        scores = _scores(layer, structure)
        flat = scores.flatten()
        mask = torch.zeros_like(flat, dtype=torch.bool)
        mask[flat.argsort(descending=True)[: smallest_k(flat, eps)]] = True
        kept.append(mask.view_as(scores))
    _zero(layers, _masks(layers, kept, structure), _norms(model, structure))
    return model


def renew_statistics(model: nn.Module, x: Tensor, *, batch_size: int = 256) -> Any:
    """Return a copy whose batch normalisations have the statistics of ``x``.

    A compression changes what a layer sends; the mean and the variance that the batch
    normalisation behind it has stored are still those from before, and the accuracy
    falls for that reason alone. No weight changes.

    Args:
        model: with batch normalisation that keeps running statistics.
        x: ``(N, ...)`` in [0, 1], such as the training images, two or more.
        batch_size: inputs of one pass; the statistics are the mean over the passes.

    Raises:
        ValueError: bad input, or no batch normalisation with statistics.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from torch import nn
        >>> model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
        >>> x = torch.tensor([[0.25], [0.75]])
        >>> compress.renew_statistics(model, x)[0].running_mean
        tensor([0.5000])
    """
    checks.inputs(x)
    checks.at_least(2, batch_size=batch_size)
    if len(x) < 2:
        raise ValueError("x has fewer than two inputs: they have no variance.")
    model = copied(model)
    modes = {module: module.training for module in model.modules()}
    norms = [m for m in modes if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        raise ValueError("The model has no batch normalisation that keeps statistics.")
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the mean over all passes
    with torch.no_grad():
        # No pass of a single input, which has no variance.
        passes = min(math.ceil(len(x) / batch_size), len(x) // 2)
        for part in x.tensor_split(passes):
            model(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
    return model


def recentre(
    model: nn.Module,
    compressed: nn.Module,
    x: Tensor,
    *,
    head: bool = True,
    batch_size: int = 256,
) -> Any:
    r"""Return a compressed network whose layers have the mean outputs of the original.

    Layer by layer, in the order in which they run, the difference of the two mean
    outputs is added to the bias: the mean over ``x`` is then that of ``model`` exactly,
    and of all shifts it is the one of least mean squared error of the layer's output
    (bias correction, Nagel et al. 2019). A layer without a bias gets one.

    Args:
        model: the network before the compression.
        compressed: the one after it, with the same layers in the same order.
        x: ``(N, ...)`` in [0, 1], not the inputs that will judge.
        head: whether the layer that runs last takes part. Its mean says which classes
            ``x`` holds: of a few inputs, leave it out.
        batch_size: inputs of one pass.

    Raises:
        ValueError: bad input, or layers that do not match.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> net, x = MLP((3, 4, 2)), torch.rand(9, 3)
        >>> small = compress.prune(net, 0.5)
        >>> again = compress.recentre(net, small, x)
        >>> torch.allclose(again(x).mean(0), net(x).mean(0))
        True
    """
    checks.inputs(x)
    checks.at_least(1, batch_size=batch_size)
    if not len(x):
        raise ValueError("x holds no input: there is no mean output.")
    out = copied(compressed)
    refuse_derived(out)
    before, after = weight_layers(model), weight_layers(out)
    if [len(stored(a)[0]) for a in before] != [len(stored(b)[0]) for b in after]:
        raise ValueError("The layers of the two networks have not the same outputs.")
    if not head:
        last = before.index(head_of(model))
        del before[last], after[last]
    wanted = _means(model, before, x, batch_size)
    goals = {after[before.index(layer)]: mean for layer, mean in wanted.items()}

    def shift(own: Any, mean: Tensor) -> Tensor:
        """Move the bias, and return by how much."""
        by = (goals[own] - mean).to(stored(own)[0])
        own.bias = nn.Parameter(by if own.bias is None else own.bias.detach() + by)
        return by

    if len(x) <= batch_size:
        # One pass: what a layer sends is moved before the next one sees it.
        _means(out, after, x, batch_size, shift)
        return out
    for own in goals:
        shift(own, _means(out, [own], x, batch_size)[own])
    return out


def _means(
    model: nn.Module,
    layers: list[Any],
    x: Tensor,
    batch_size: int,
    shift: Callable[[Any, Tensor], Tensor] | None = None,
) -> dict[Any, Tensor]:
    """Mean outputs ``(h,)`` over samples and places, in the order of work.

    Where a layer runs again in a pass, its first outputs count. What ``shift`` returns
    for a layer and the mean of a batch is added to the outputs.
    """
    sums: dict[Any, Tensor] = {}
    ran: set[Any] = set()
    count = 0  # inputs of this pass

    def add(layer: Any, _: Any, out: Tensor) -> Tensor | None:
        if layer in ran:
            return None
        ran.add(layer)
        conv = isinstance(layer, _ConvNd | LowRankConv2d)
        values = (out.movedim(1, -1) if conv else out).flatten(0, -2).double()
        mean = values.mean(0)
        # Not of len(out): tokens or windows may be folded into the batch.
        sums[layer] = sums.get(layer, 0) + mean * count / len(x)
        if shift is None:
            return None
        by = shift(layer, mean)
        return out + (by.view(-1, *[1] * (out.ndim - 2)) if conv else by)

    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad(), evaluating(model):
            for part in x.split(batch_size):
                ran.clear()
                count = len(part)
                model(part)
    finally:
        for hook in hooks:
            hook.remove()
    return sums


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
    for w in matrices(model):
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
        ValueError: not exactly one of ``rank`` and ``energy``, or out of range; or a
            layer whose weight is computed from other parameters.

    Example:
        >>> import torch
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = compress.truncate(MLP((6, 6, 2)), rank=2)
        >>> int(torch.linalg.matrix_rank(model.weights[0].detach(), rtol=1e-4))
        2
    """
    model = _copied(model)
    ranks = _ranks(model, rank, energy)
    for weight, own in zip(dense(model), ranks, strict=True):
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

    Example:
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = compress.factorise(MLP((6, 6, 2)), rank=2)
        >>> model.layers[0]
        LowRankLinear()
    """
    model = _copied(model)
    ranks = _ranks(model, rank, energy)
    dense(model)
    for layer, own in zip(hidden(model), ranks, strict=True):
        low = _low_rank(layer, own)
        left, right = _best(layer.weight.data, own)
        low.left.data, low.right.data = left, right
        if layer.bias is not None:
            low.bias.data.copy_(layer.bias.data)
        replace(model, layer, low.train(layer.training))
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
        ValueError: ``bits`` out of range, or a layer that is not known or whose
            weight is computed from other parameters.

    Example:
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = compress.quantise(MLP((64, 3, 2)), bits=2)
        >>> len(model.weights[0][0].unique())
        3
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits is {bits}: choose from 2 to 16.")
    refuse_strange(model)
    model, levels = _copied(model), 2 ** (bits - 1) - 1
    for layer in weight_layers(model):
        for weight in stored(layer):
            # In float32 at least: a step of half precision is soon zero, or coarse.
            wide = torch.promote_types(weight.dtype, torch.float32)
            rows = weight.data.flatten(1).to(wide)
            step = rows.abs().amax(1, keepdim=True) / levels
            step = torch.where(step > 0, step, 1.0)
            weight.data.copy_(((rows / step).round() * step).view_as(weight))
    return model


def narrow(model: MLP) -> MLP:
    """Return the same function with the zero neurons of every hidden layer removed.

    Args:
        model: an MLP with full layers, such as :func:`prune` returns for rows.

    Raises:
        ValueError: not an MLP, low-rank layers, or a layer with no neuron left.

    Example:
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> model = compress.prune(MLP((2, 4, 2)), 0.5, structure="rows")
        >>> compress.narrow(model).layers[0]
        Linear(in_features=2, out_features=2, bias=False)
    """
    if type(model) is not MLP:
        raise ValueError(
            f"{type(model).__name__} is not an MLP: only that is narrowed."
        )
    dense(model)
    model = copied(model)
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
        model: any whose multiplications are in fully connected layers and
            convolutions, transposed ones too; products of attention are not counted.
        input_shape: of one input, without the batch.

    Raises:
        ValueError: a shape that does not fit, a layer that multiplies in another way,
            that is never called, or whose weight is computed from other parameters.

    Example:
        >>> from crlib import compress
        >>> from crlib.models import MLP
        >>> compress.size(MLP((6, 5, 2)), (6,))
        Size(parameters=40, nonzero=40, macs=40, bytes=160)
    """
    input_shape = checks.shape(input_shape)
    refuse_derived(model)
    macs, open_layers = 0, {}
    for name, module in model.named_modules():
        if isinstance(module, STRANGE) and not isinstance(module, _ConvNd):
            raise ValueError(
                f"{name or 'The model'} is {type(module).__name__}: how many products"
                " it takes is not known here."
            )
        if isinstance(module, (_ConvNd, nn.Linear, *LOW_RANK)):
            open_layers[module] = name

    def count(layer: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        open_layers.pop(layer, None)
        # A transposed convolution multiplies its kernel with each place of its input.
        seen = inputs[0] if getattr(layer, "transposed", False) else out
        conv = isinstance(layer, _ConvNd | LowRankConv2d)
        # The whole batch: of one input there may be many windows or tokens in it.
        places = seen[:, 0].numel() if conv else out.numel() // out.shape[-1]
        macs += places * sum(w.numel() for w in stored(layer))

    hooks = [layer.register_forward_hook(count) for layer in open_layers]
    like = next(model.parameters(), torch.zeros(()))
    try:
        with torch.no_grad(), evaluating(model):
            model(like.new_full((1, *input_shape), 0.5))
    except RuntimeError as error:
        raise ValueError(
            f"The model does not take inputs {input_shape}: {error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if open_layers:
        raise ValueError(
            f"{', '.join(open_layers.values())} ran in no forward pass of its own: its"
            " products cannot be counted."
        )
    parameters = list(model.parameters())
    return Size(
        sum(p.numel() for p in parameters),
        sum(int(p.count_nonzero()) for p in parameters),
        macs,
        sum(p.numel() * p.element_size() for p in parameters),
    )
