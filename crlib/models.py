"""Networks from inputs in [0, 1] to logits; normalisation is a layer inside."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MLP", "LowRankLinear", "Normalize", "evaluating"]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put ``model`` into evaluation mode, its parameters fixed, for a while.

    Every module and parameter gets its own flag back, also after an error: a layer
    frozen inside a model in training stays frozen. A plain function passes through
    unchanged.
    """
    known = isinstance(model, nn.Module)
    modules = list(model.modules()) if known else []
    # Input gradients need no trace of the weights, and keeping it takes time.
    weights = [p for p in model.parameters() if p.requires_grad] if known else []
    flags = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        for weight in weights:
            weight.requires_grad_(True)


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


def _linear(n_in: int, n_out: int, bias: bool, generator: torch.Generator) -> nn.Linear:
    """Return an ``nn.Linear`` initialised as usual, but from ``generator``."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    bound = 1 / math.sqrt(n_in)
    with torch.no_grad():
        for parameter in layer.parameters():
            draw = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2 * draw - 1) * bound)
    return layer


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
        if not 1 <= rank <= min(n_in, n_out):
            raise ValueError(
                f"rank is {rank}: choose it from 1 to {min(n_in, n_out)}, the smaller"
                " side of the matrix."
            )
        generator = torch.Generator().manual_seed(seed)
        left = torch.randn(n_out, rank, generator=generator)
        right = torch.randn(rank, n_in, generator=generator)
        scale = math.sqrt(n_out / 3) / torch.linalg.matrix_norm(left @ right)
        # The two factors share the scale evenly, so that neither learns much faster.
        balance = torch.sqrt(torch.linalg.norm(right) / torch.linalg.norm(left))
        self.left = nn.Parameter(left * scale.sqrt() * balance)
        self.right = nn.Parameter(right * scale.sqrt() / balance)
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The weight ``A B``, ``(h, m)``."""
        return self.left @ self.right

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x @ self.right.T, self.left, self.bias)


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
                own_seed = int(torch.randint(2**62, (), generator=generator))
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
