"""Networks from inputs in [0, 1] to logits; normalisation is a layer inside."""

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crlib.asking import evaluating, logits

__all__ = [
    "MLP",
    "Box",
    "ConvNet",
    "LowRankConv2d",
    "LowRankLinear",
    "Normalize",
    "Order",
    "ResNet",
    "Residual",
    "ViT",
    "evaluating",
    "logits",
    "order_of",
    "weight_layers",
]


class Normalize(nn.Module):
    """The layer ``(x - mean) / std``, with one number or one a channel.

    Args:
        mean: a number, or ``(C,)`` for images ``(N, C, H, W)``.
        std: likewise, positive.

    Raises:
        ValueError: ``std`` is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: float | Sequence[float], std: float | Sequence[float]
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))
        if not (self.std > 0).all():
            raise ValueError(f"std is {std}: it must be positive.")

    def forward(self, x: Tensor) -> Tensor:
        if self.mean.ndim == 0:
            return (x - self.mean) / self.std
        shape = (-1,) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)


class Box(Normalize):
    """The layer from [0, 1] to the box ``[low, high]`` of inputs in units of their own.

    Put first, it lets a network of such inputs be attacked and certified in [0, 1],
    where a budget is a share of each range: ``nn.Sequential(box, net)`` is given
    ``box.inside(u)``. It is a :class:`Normalize`, and known wherever that is.

    Args:
        low: a number, one a channel of images ``(N, C, H, W)``, or one a coordinate of
            vectors ``(N, d)``.
        high: likewise, above ``low``.

    Raises:
        ValueError: ``high`` is not above ``low``, or they differ in length.

    Example:
        >>> import torch
        >>> from crlib import models
        >>> box = models.Box([-2.0, 0.0], [3.0, 50.0])  # volts, degrees
        >>> box(torch.tensor([[0.0, 1.0]]))
        tensor([[-2., 50.]])
        >>> box.inside(torch.tensor([[0.5, 25.0]]))
        tensor([[0.5000, 0.5000]])
        >>> box.budget(0.1)
        tensor([0.5000, 5.0000])
    """

    def __init__(
        self, low: float | Sequence[float], high: float | Sequence[float]
    ) -> None:
        ends = [torch.as_tensor(v, dtype=torch.float64) for v in (low, high)]
        try:
            ends = list(torch.broadcast_tensors(*ends))
        except RuntimeError:
            raise ValueError(
                f"low has {ends[0].numel()} numbers and high {ends[1].numel()}: give"
                " one each, or one a channel or coordinate."
            ) from None
        wide = ends[1] - ends[0]
        if ends[0].ndim > 1 or not ((wide > 0) & wide.isfinite()).all():
            raise ValueError(
                f"The box runs from {low} to {high}: give finite numbers, or lists of"
                " them, with each end above its beginning."
            )
        super().__init__((-ends[0] / wide).tolist(), (1 / wide).tolist())

    def inside(self, u: Tensor) -> Tensor:
        """Return inputs ``(N, ...)`` in units of their own as numbers in [0, 1].

        Those that lie outside of the box come out outside of [0, 1].
        """
        shape = (-1,) + (1,) * (u.ndim - 2) if self.mean.ndim else ()
        return self.mean.view(shape) + self.std.view(shape) * u

    def budget(self, eps: float) -> Tensor:
        """Return a budget in [0, 1] in the user's units, one number or one a range.

        Of a box with one range it holds in every norm; of one with several it is what
        each coordinate may move in linf.
        """
        return eps / self.std


def _uniform_(layer: nn.Module, fan_in: int, generator: torch.Generator) -> None:
    """Initialise as torch does by default, but from ``generator``."""
    bound = 1 / math.sqrt(fan_in)
    with torch.no_grad():
        for parameter in layer.parameters():
            draw = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2 * draw - 1) * bound)


def _linear(n_in: int, n_out: int, bias: bool, generator: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    _uniform_(layer, n_in, generator)
    return layer


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _factors(
    n_in: int, n_out: int, rank: int, seed: int
) -> tuple[nn.Parameter, nn.Parameter]:
    """Return factors ``(n_out, rank)`` and ``(rank, n_in)`` at the scale of a layer."""
    if not 1 <= rank <= min(n_in, n_out):
        raise ValueError(
            f"rank is {rank}: choose it from 1 to {min(n_in, n_out)}, the smaller"
            " side of the matrix."
        )
    generator = torch.Generator().manual_seed(seed)
    # In float64, which processors agree on; rounded once, at the end.
    left = torch.randn(n_out, rank, generator=generator, dtype=torch.float64)
    right = torch.randn(rank, n_in, generator=generator, dtype=torch.float64)
    scale = math.sqrt(n_out / 3) / torch.linalg.matrix_norm(left @ right)
    # The two factors share the scale evenly, so that neither learns much faster.
    balance = torch.sqrt(torch.linalg.norm(right) / torch.linalg.norm(left))
    return (
        nn.Parameter((left * scale.sqrt() * balance).float()),
        nn.Parameter((right * scale.sqrt() / balance).float()),
    )


class LowRankLinear(nn.Module):
    r"""A linear layer ``x -> x (A B)^T + b`` whose weight ``A B`` has rank at most r.

    The factors start so that :math:`\|AB\|_F` equals what ``nn.Linear`` has on average,
    :math:`\sqrt{h/3}`: a comparison with a full layer then differs in rank, not in
    scale. (Two factors with their usual initialisations give a product whose norm is
    smaller by :math:`\sqrt3`, a confound.)

    Args:
        n_in: m, number of inputs.
        n_out: h, number of outputs.
        rank: r, from 1 to min(h, m).
        bias: whether to add a bias.
        seed: of the initialisation.

    Raises:
        ValueError: ``rank`` out of range.
    """

    def __init__(
        self, n_in: int, n_out: int, rank: int, *, bias: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.left, self.right = _factors(n_in, n_out, rank, seed)
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The weight ``A B``, ``(h, m)``."""
        return self.left @ self.right

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x @ self.right.T, self.left, self.bias)


class LowRankConv2d(nn.Module):
    r"""A convolution whose unrolled kernel ``(n_out, n_in k^2)`` has rank at most r.

    A ``k x k`` convolution to r channels, then a ``1 x 1`` convolution. The factors
    start at the scale of ``nn.Conv2d``, :math:`\sqrt{h/3}`, as in
    :class:`LowRankLinear`.

    Args:
        n_in: number of input channels.
        n_out: number of output channels.
        kernel_size: k.
        rank: r, from 1 to min(n_out, n_in k^2).
        stride: of the first convolution.
        padding: with zeros, of the first convolution.
        bias: whether to add a bias.
        seed: of the initialisation.

    Raises:
        ValueError: ``rank`` out of range.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel_size: int,
        rank: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.kernel_shape = (n_in, kernel_size, kernel_size)
        self.stride, self.padding = stride, padding
        self.left, self.right = _factors(n_in * kernel_size**2, n_out, rank, seed)
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The kernel of the one convolution that does the same, ``(h, c, k, k)``."""
        return (self.left @ self.right).view(-1, *self.kernel_shape)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.right.view(-1, *self.kernel_shape)
        x = nn.functional.conv2d(x, kernel, stride=self.stride, padding=self.padding)
        return nn.functional.conv2d(x, self.left[:, :, None, None], self.bias)


def weight_layers(model: nn.Module) -> list[Any]:
    """Return the layers with a weight matrix or kernel, in the order of the model.

    They are ``nn.Linear``, ``nn.Conv2d`` and their low-rank versions. In the models of
    this room the first meets the input and the last is the head.
    """
    kinds = (nn.Linear, nn.Conv2d, LowRankLinear, LowRankConv2d)
    return [module for module in model.modules() if isinstance(module, kinds)]


@dataclass(frozen=True)
class Order:
    """In which order the layers of a model run.

    Attributes:
        head: name of the layer with weights that runs last; None where the code hides
            the order.
        norms: for the name of a layer, that of the batch normalisation that reads it.
        shared: names of layers that more than one module or function reads; and of
            batch normalisations that run more than once, read a layer that another
            one reads too, or have no channel for each of its rows.
    """

    head: str | None = None
    norms: dict[str, str] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()


LEAVES = (nn.Linear, nn.Conv2d, LowRankLinear, LowRankConv2d, Normalize, _BatchNorm)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return runs_as(m, LEAVES) is not None or bool(
            super().is_leaf_module(m, module_qualified_name)
        )


def runs_as(module: nn.Module, kinds: Sequence[type[Any]]) -> type[Any] | None:
    """Return the kind whose code a module runs, be its class another one, or None."""
    for kind in kinds:
        if isinstance(module, kind) and all(
            getattr(type(module), name, None) is getattr(kind, name, None)
            for name in ("forward", "_conv_forward")
        ):
            return kind
    return None


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another one, under each of its names."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, new)


def shares_weights(model: nn.Module) -> bool:
    """Say whether two layers of a model, or two names of one, have one parameter."""
    every = list(model.named_parameters(remove_duplicate=False))
    return len(every) > len(list(model.parameters()))


def _by_rows(layer: Any, norm: Any) -> bool:
    """Say whether a batch normalisation can have a channel for each row of a layer."""
    if isinstance(layer, LowRankLinear | LowRankConv2d):
        rows = len(layer.left)
    else:
        rows = getattr(layer, "out_features", None) or layer.out_channels
    # Of pictures (N, C, H, m) a linear layer makes (N, C, H, h): its rows come last.
    last = isinstance(layer, nn.Linear | LowRankLinear)
    pictures = isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    return rows == norm.num_features and not (last and pictures)


def refuse_tokens(layer: nn.Module, behind: nn.Module) -> None:
    """Let what stands behind a linear layer refuse (N, L, h): only a run tells.

    A batch normalisation then takes the L tokens for its channels, not the rows.
    """
    if isinstance(layer, nn.Linear | LowRankLinear):
        behind.register_forward_pre_hook(_one_row)


def _one_row(behind: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if inputs[0].ndim != 2:
        raise ValueError(
            "Between a linear layer and its batch normalisation stands"
            f" {tuple(inputs[0].shape)}, whose axis 1, the channels, is not that of the"
            " rows: fold it, or prune rows, only where this is (N, h). Prune weights."
        )


# What a network was when its order was read, and the order.
_ORDERS: WeakKeyDictionary[nn.Module, tuple[Any, Order]] = WeakKeyDictionary()


def _state(model: nn.Module) -> list[Any]:
    """Return what tells whether the order of a network may be another one by now.

    References keep no module alive, and differ where one stands at the address of
    another that is gone. What has layers inside may run them by its switches.
    """

    def switches(m: nn.Module) -> list[Any]:
        if not m._modules:
            return []
        return [v for v in vars(m).values() if v is True or v is False]

    every = model.named_modules(remove_duplicate=False)
    return [(name, ref(m), switches(m)) for name, m in every]


def order_of(model: nn.Module) -> Order:
    """Read from the code, by ``torch.fx``, in which order the layers run.

    Example:
        >>> from torch import nn
        >>> from crlib import models
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> models.order_of(model)
        Order(head='2', norms={'0': '1'}, shared=frozenset())
    """
    state = _state(model)
    known, order = _ORDERS.get(model, (None, Order()))
    if known == state:
        return order
    layers, modules = weight_layers(model), dict(model.named_modules())
    head, norms, reads = None, dict[str, str](), Counter[str]()
    held = [(m, dict(vars(m))) for m in modules.values()]
    try:
        with torch.random.fork_rng(devices=[]):
            graph = _Tracer().trace(model)
    except Exception:  # a forward pass may do anything with what is no tensor
        graph = fx.Graph()
    for m, kept in held:
        # What a forward pass writes down is no tensor here: it is taken back.
        for name in m.__dict__.keys() - kept.keys():
            del m.__dict__[name]
        m.__dict__.update(kept)
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        if isinstance(modules[node.target], _BatchNorm):
            reads[node.target] += 1
        if modules[node.target] not in layers:
            continue
        head = node.target
        reads[head] += len(node.users)
        for user in node.users:
            after = modules.get(str(user.target)) if user.op == "call_module" else None
            if isinstance(after, _BatchNorm):
                name = str(user.target)
                first = norms.setdefault(head, name)
                if first != name or not _by_rows(modules[head], after):
                    reads.update((first, name))
    shared = frozenset(name for name, count in reads.items() if count > 1)
    order = Order(head, norms, shared)
    _ORDERS[model] = state, order
    return order


class MLP(nn.Module):
    """A fully connected ReLU network; images are flattened.

    Args:
        sizes: widths from input to classes, such as ``(784, 256, 256, 256, 10)``.
        rank: if given, every hidden layer is a :class:`LowRankLinear` of this rank;
            the last layer (the head) stays full.
        bias: whether the layers have biases.
        mean: of the normalisation inside the model.
        std: of the normalisation inside the model.
        seed: of the initialisation; global randomness is not touched.

    Raises:
        ValueError: fewer than two sizes, or ``rank`` out of range for a layer.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        rank: int | None = None,
        bias: bool = False,
        mean: float = 0.0,
        std: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes is {sizes}: give at least inputs and classes.")
        generator = torch.Generator().manual_seed(seed)
        self.normalize = Normalize(mean, std)
        layers: list[nn.Module] = []
        for depth, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            if rank is not None and depth < len(sizes) - 2:
                own_seed = _seed(generator)
                layers.append(
                    LowRankLinear(n_in, n_out, rank, bias=bias, seed=own_seed)
                )
            else:
                layers.append(_linear(n_in, n_out, bias, generator))
        self.layers = nn.ModuleList(layers)

    @property
    def weights(self) -> list[Tensor]:
        """The weight matrices ``(h, m)`` from input to head, detached."""
        return [layer.weight.detach() for layer in self.layers]  # type: ignore[operator]

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees, ``(N, h)``: the last hidden activations."""
        x = self.normalize(x).flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[-1](self.features(x))


def _conv(
    n_in: int,
    n_out: int,
    kernel_size: int,
    generator: torch.Generator,
    *,
    stride: int = 1,
    rank: int | None = None,
    bias: bool = False,
) -> nn.Module:
    """Return a convolution that keeps the size up to its stride, low-rank if asked."""
    padding = kernel_size // 2
    if rank is not None:
        return LowRankConv2d(
            n_in,
            n_out,
            kernel_size,
            min(rank, n_out, n_in * kernel_size**2),
            stride=stride,
            padding=padding,
            bias=bias,
            seed=_seed(generator),
        )
    layer: nn.Conv2d = nn.utils.skip_init(
        nn.Conv2d, n_in, n_out, kernel_size, stride=stride, padding=padding, bias=bias
    )
    _uniform_(layer, n_in * kernel_size**2, generator)
    return layer


class ConvNet(nn.Sequential):
    """Convolutions of size 3, each but the first of stride 2, then a linear head.

    Without pooling and batch normalisation. Every bound of :mod:`crlib.certify`
    applies, the exact distance too. A slice such as ``net[1:]`` is an
    ``nn.Sequential``.

    Args:
        channels: of the convolutions, such as ``(32, 64, 128)``.
        classes: number of logits.
        image: shape ``(C, H, W)`` of the inputs.
        rank: if given, every convolution but the first has at most this rank.
        mean: of the normalisation inside the model, a number or one a channel.
        std: likewise.
        seed: of the initialisation.

    Raises:
        ValueError: no channels given.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        classes: int = 10,
        *,
        image: tuple[int, int, int] = (3, 32, 32),
        rank: int | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        seed: int = 0,
    ) -> None:
        if not channels:
            raise ValueError("channels is empty: give one number a convolution.")
        generator = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = [Normalize(mean, std)]
        n_in, height, width = image
        for depth, n_out in enumerate(channels):
            first = depth == 0
            layers += [
                _conv(
                    n_in,
                    n_out,
                    3,
                    generator,
                    stride=1 if first else 2,
                    rank=None if first else rank,
                    bias=True,
                ),
                nn.ReLU(),
            ]
            if not first:
                height, width = (height + 1) // 2, (width + 1) // 2
            n_in = n_out
        head = _linear(n_in * height * width, classes, True, generator)
        super().__init__(*layers, nn.Flatten(), head)

    def __getitem__(self, idx: Any) -> Any:
        """Return a layer, or of a slice an ``nn.Sequential``."""
        if isinstance(idx, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[idx]))
        return super().__getitem__(idx)

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees, ``(N, h)``."""
        for layer in list(self)[:-1]:
            x = layer(x)
        return x


class Residual(nn.Module):
    """The sum of two networks of the same input: ``body(x) + shortcut(x)``.

    Args:
        body: any module.
        shortcut: any that returns the same shape; None means the input itself.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class _Block(nn.Module):
    """Two convolutions with batch normalisation and a shortcut around them."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        stride: int,
        rank: int | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(n_in, n_out, 3, generator, stride=stride, rank=rank)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = _conv(n_out, n_out, 3, generator, rank=rank)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                _conv(n_in, n_out, 1, generator, stride=stride),
                nn.BatchNorm2d(n_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm1(self.conv1(x)).relu()
        out = self.norm2(self.conv2(out)) + self.shortcut(x)
        return out.relu()

    def parts(self) -> list[nn.Module]:
        first = [self.conv1, self.norm1, nn.ReLU()]
        body = nn.Sequential(*first, self.conv2, self.norm2)
        return [Residual(body, self.shortcut), nn.ReLU()]


class ResNet(nn.Module):
    """A residual network with a stem for small images (He et al. 2016).

    ``blocks=(2, 2, 2, 2)`` and ``width=64`` give ResNet-18 with a 3 x 3 stem and no
    pooling before the blocks.

    Args:
        classes: number of logits.
        blocks: residual blocks in each stage; channels double from stage to stage.
        width: channels of the first stage.
        channels: of the inputs.
        rank: if given, the 3 x 3 convolutions of the blocks have at most this rank.
        mean: of the normalisation inside the model, a number or one a channel.
        std: likewise.
        seed: of the initialisation.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        channels: int = 3,
        rank: int | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.normalize = Normalize(mean, std)
        self.stem = _conv(channels, width, 3, generator)
        self.norm = nn.BatchNorm2d(width)
        stages, n_in = [], width
        for stage, count in enumerate(blocks):
            n_out = width * 2**stage
            for k in range(count):
                stride = 2 if stage > 0 and k == 0 else 1
                stages.append(_Block(n_in, n_out, stride, rank, generator))
                n_in = n_out
        self.blocks = nn.Sequential(*stages)
        self.head = _linear(n_in, classes, True, generator)

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees, ``(N, h)``: the mean over the last map."""
        x = self.norm(self.stem(self.normalize(x))).relu()
        return self.blocks(x).mean((2, 3))

    def parts(self) -> list[nn.Module]:
        """Return layers that compute the same in a row, each block a Residual."""
        first = [self.normalize, self.stem, self.norm, nn.ReLU()]
        stages: Any = self.blocks
        blocks = [part for block in stages for part in block.parts()]
        return [*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.head]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class _Attention(nn.Module):
    """Self-attention and a two-layer network, each behind a layer normalisation."""

    def __init__(
        self, dim: int, heads: int, rank: int | None, generator: torch.Generator
    ) -> None:
        super().__init__()

        def layer(n_in: int, n_out: int) -> nn.Module:
            if rank is None:
                return _linear(n_in, n_out, True, generator)
            return LowRankLinear(n_in, n_out, rank, bias=True, seed=_seed(generator))

        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix, self.out = layer(dim, 3 * dim), layer(dim, dim)
        self.up, self.down = layer(dim, 4 * dim), layer(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        mixed = self.mix(self.norm1(x)).view(n, tokens, 3, self.heads, -1)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).reshape(n, tokens, dim))
        hidden = nn.functional.gelu(self.up(self.norm2(x)))
        return x + self.down(hidden)


class ViT(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021), mean over the tokens.

    Args:
        classes: number of logits.
        image: shape ``(C, H, W)`` of the inputs.
        patch: side of a patch; it divides H and W.
        dim: width of a token; ``heads`` divides it.
        depth: number of attention blocks.
        heads: of each block.
        rank: if given, the linear layers of the blocks have at most this rank.
        mean: of the normalisation inside the model, a number or one a channel.
        std: likewise.
        seed: of the initialisation.

    Raises:
        ValueError: ``patch`` or ``heads`` does not divide.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        image: tuple[int, int, int] = (3, 32, 32),
        patch: int = 4,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        rank: int | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = image
        if height % patch or width % patch or dim % heads:
            raise ValueError(
                f"patch is {patch} for images {height} x {width}, heads is {heads} for"
                f" dim {dim}: patch must divide the sides, heads the width."
            )
        generator = torch.Generator().manual_seed(seed)
        self.normalize = Normalize(mean, std)
        # A strided convolution without overlap is the same linear map on every patch.
        self.embed = nn.utils.skip_init(nn.Conv2d, channels, dim, patch, stride=patch)
        _uniform_(self.embed, channels * patch**2, generator)
        tokens = (height // patch) * (width // patch)
        self.place = nn.Parameter(
            0.02 * torch.randn(1, tokens, dim, generator=generator)
        )
        self.blocks = nn.Sequential(
            *(_Attention(dim, heads, rank, generator) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = _linear(dim, classes, True, generator)

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees, ``(N, dim)``."""
        x = self.embed(self.normalize(x)).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(x + self.place)).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits
