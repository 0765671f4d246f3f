"""Tests of the exercise of lab 1, Emergent weight morphologies."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["balance", "balance_hidden"]

Rescaling = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _balanced(answer: Rescaling, w_in: Tensor, w_out: Tensor, x: Tensor) -> None:
    found = answer(w_in.clone(), w_out.clone())
    assert isinstance(found, tuple) and len(found) == 2, (
        "balance returns two matrices, w_in and w_out."
    )
    a, b = found
    assert torch.isfinite(a).all() and torch.isfinite(b).all(), (
        "A neuron without weights on one side gives infinite or undefined entries:"
        " leave it as it is."
    )
    before, after = ((x @ i.T).relu() @ o.T for i, o in ((w_in, w_out), (a, b)))
    assert torch.allclose(before, after), "The function of the network has changed."
    live = (w_in.norm(dim=1) > 0) & (w_out.norm(dim=0) > 0)
    norms = a.norm(dim=1)[live], b.norm(dim=0)[live]
    assert torch.allclose(*norms), (
        f"The norms in are {norms[0].tolist()}, the norms out {norms[1].tolist()}:"
        " they should agree."
    )


def balance(answer: Rescaling) -> None:
    """Test ``balance(w_in, w_out)`` on two neurons."""
    w_in = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    w_out = torch.tensor([[1.0, 4.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    _balanced(answer, w_in, w_out, x)


def balance_hidden(answer: Rescaling, seed: int = 0) -> None:
    """Test ``balance(w_in, w_out)`` on random layers with dead neurons."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    for _ in range(5):
        w_in, w_out, x = draw(7, 5), draw(3, 7), draw(20, 5)
        w_in[2], w_out[:, 4] = 0, 0
        _balanced(answer, w_in, w_out, x)
