"""Models and random inputs that several unit tests share."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

SEEDS = st.integers(0, 2**31 - 1)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_walls(x: Tensor, generator: torch.Generator, share: float = 0.3) -> Tensor:
    """Move a share of the entries to the nearer end of [0, 1]."""
    walled = torch.rand(x.shape, generator=generator) < share
    return torch.where(walled, x.round(), x)


class Affine(nn.Module):
    """Logits ``x W^T + b`` of flattened inputs."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class Changed(nn.Module):
    """A model whose logits pass through a function."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.model(x))


class Counting(nn.Module):
    """Counts the passes through a model, and the samples in them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards: list[int] = []
        self.backwards: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.forwards.append(len(x))
        logits: Tensor = self.model(x)
        if logits.requires_grad and x.requires_grad:
            logits.register_hook(lambda g: self.backwards.append(len(g)))
        return logits


class Never(nn.Module):
    """A model that no test may call."""

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("the model was called before the input was checked")


def affine_task(
    seed: int, *, n: int = 16, classes: int = 2, dtype: torch.dtype = torch.float64
) -> tuple[Affine, Tensor, Tensor]:
    """Return an affine model, inputs (some entries at 0 or 1), and its own labels."""
    g = rng(seed)
    dim = int(torch.randint(2, 10, (), generator=g))
    weight = torch.randn(classes, dim, generator=g, dtype=dtype)
    x = with_walls(torch.rand(n, dim, generator=g, dtype=dtype), g)
    model = Affine(weight, -weight @ x.mean(0))
    return model, x, predictions(model, x)


def predictions(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        labels: Tensor = model(x).argmax(1)
    return labels
