"""Tests for the exercises of chapter 23, Your own network."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from crlib import claims, metrics
from crlib.models import MLP

__all__ = [
    "fold",
    "fold_hidden",
    "holds",
    "holds_hidden",
    "median_between",
    "median_between_hidden",
    "nearest_rival",
    "nearest_rival_hidden",
    "shift_back",
    "shift_back_hidden",
]


def _median(
    answer: Callable[[list[float], float], tuple[float, float]],
    samples: list[float],
    level: float,
) -> None:
    found = answer(list(samples), level)
    assert len(found) == 2, "Return two numbers: the lower end, then the upper one."
    right = claims.median_interval(samples, level)
    for name, value, end in (
        ("lower", found[0], right.low),
        ("upper", found[1], right.high),
    ):
        assert float(value) == end or abs(float(value) - end) < 1e-6 * abs(end), (
            f"Of {len(samples)} samples at level {level} the {name} end is {end:.4g},"
            f" one of the samples, and you return {float(value):.4g}."
        )


def median_between(answer: Callable[[list[float], float], tuple[float, float]]) -> None:
    """Test ``median_between(samples, level)`` on seven and on twenty numbers."""
    _median(answer, [4.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0], 0.95)
    _median(answer, [float(v) for v in range(1, 21)], 0.95)


def median_between_hidden(
    answer: Callable[[list[float], float], tuple[float, float]], seed: int = 0
) -> None:
    """Test it on heavy tails, on one infinite sample, and at other levels."""
    rng = np.random.default_rng(seed)
    for n, level in ((7, 0.95), (21, 0.9), (60, 0.99), (101, 0.95)):
        _median(answer, rng.standard_cauchy(n).tolist(), level)
    _median(answer, [*rng.random(19).tolist(), float("inf")], 0.95)


def _rival(
    answer: Callable[[nn.Module, Tensor, Tensor], Tensor], net: nn.Module, x: Tensor
) -> None:
    with torch.no_grad():
        y = net(x).argmax(1)
    found = answer(net, x.clone(), y.clone())
    assert isinstance(found, Tensor) and found.shape == (len(x),), (
        f"Return one distance an input, a tensor ({len(x)},)."
    )
    right = metrics.first_order(net, x, y, rivals=99)
    off = (found.detach() / right - 1).abs()
    worst = int(off.argmax())
    assert float(off[worst]) < 1e-4, (
        f"Input {worst} is at {float(right[worst]):.4f} by its nearest rival, and you"
        f" return {float(found[worst]):.4f}."
    )


def nearest_rival(answer: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
    """Test ``nearest_rival(net, x, y)`` on three affine scores of the plane."""
    net = nn.Linear(2, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 10.0]]))
        net.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    # At the first the runner-up, 2 behind, is 2 away; the other rival is 0.3 away.
    x = torch.tensor([[1.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    _rival(answer, net, x)


def nearest_rival_hidden(
    answer: Callable[[nn.Module, Tensor, Tensor], Tensor], seed: int = 0
) -> None:
    """Test it on networks with hidden layers and seven classes."""
    g = torch.Generator().manual_seed(seed)
    for k in range(3):
        net = MLP((6, 12, 12, 7), bias=True, seed=seed + k).double()
        _rival(answer, net, torch.rand(20, 6, generator=g, dtype=torch.float64))


def _shift(
    answer: Callable[[Tensor, Tensor, Tensor], Tensor],
    h: int,
    m: int,
    n: int,
    seed: int = 0,
) -> None:
    g = torch.Generator().manual_seed(seed + h)
    w = torch.randn(h, m, generator=g, dtype=torch.float64)
    small = w * (torch.rand(h, m, generator=g, dtype=torch.float64) < 0.5)
    a = torch.rand(n, m, generator=g, dtype=torch.float64)
    found = answer(w.clone(), small.clone(), a.clone())
    assert isinstance(found, Tensor) and found.shape == (h,), (
        f"Return one number an output, a tensor ({h},)."
    )
    wanted, got = (a @ w.T).mean(0), (a @ small.T + found).mean(0)
    off = float((wanted - got).abs().max())
    assert off < 1e-4 * float(wanted.abs().max()), (
        f"With your shift a mean output is off by {off:.3g}; without any it is off by"
        f" {float((a @ (w - small).T).mean(0).abs().max()):.3g}."
    )


def shift_back(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Test ``shift_back(w, small, a)`` on one layer."""
    _shift(answer, 3, 5, 40)


def shift_back_hidden(
    answer: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int = 0
) -> None:
    """Test it on wide, tall and square layers."""
    for h, m, n in ((2, 9, 30), (8, 3, 25), (6, 6, 1)):
        _shift(answer, h, m, n, seed)


def _fold(
    answer: Callable[..., tuple[Tensor, Tensor]],
    h: int,
    m: int,
    seed: int,
    epsilon: float,
) -> None:
    g = torch.Generator().manual_seed(seed)
    w, a = (torch.randn(n, m, generator=g, dtype=torch.float64) for n in (h, 20))
    b, beta, mu = torch.randn(3, h, generator=g, dtype=torch.float64)
    gamma, v = 0.2 + 2 * torch.rand(2, h, generator=g, dtype=torch.float64)
    wanted = nn.functional.batch_norm(
        a @ w.T + b, mu.clone(), v.clone(), gamma, beta, eps=epsilon
    )
    found = answer(*(t.clone() for t in (w, b, gamma, beta, mu, v)), epsilon)
    assert len(found) == 2, "Return two tensors: the weight, then the bias."
    weight, bias = found
    assert weight.shape == (h, m) and bias.shape == (h,), (
        f"Return a weight ({h}, {m}) and a bias ({h},)."
    )
    gap = a @ weight.T + bias - wanted
    off = (gap - gap[0]).abs().max()
    assert float(off) < 1e-6, (
        f"Your weight is wrong: differences of two outputs are off by {float(off):.3g}."
    )
    assert float(gap.abs().max()) < 1e-6, (
        f"Your weight is right, and your bias is off by {float(gap.abs().max()):.3g}."
    )


def fold(answer: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Test ``fold(w, b, gamma, beta, mu, v, epsilon)`` on one layer."""
    _fold(answer, 4, 6, 0, 1e-5)


def fold_hidden(answer: Callable[..., tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Test it on other sizes, and where epsilon is not small."""
    for h, m, epsilon in ((2, 7, 1e-3), (5, 3, 0.5), (1, 1, 0.0)):
        _fold(answer, h, m, seed + h, epsilon)


def _refusal(
    above: bool = True,
    below: bool = True,
    unknown: bool = True,
    kind: type[Exception] = ValueError,
    box: str = "[0, 1]",
    ends: bool = False,
) -> Callable[[Tensor], None]:
    """Return a refusal, right or broken in one way."""

    def refuse(x: Tensor) -> None:
        wrong = (above and bool((x > 1).any())) or (below and bool((x < 0).any()))
        wrong = wrong or (unknown and bool(x.isnan().any()))
        if wrong or (ends and bool(((x == 0) | (x == 1)).any())):
            raise kind(f"x leaves its box: give numbers in {box}.")

    return refuse


def _holds(
    answer: Callable[[Callable[[Tensor], None], Tensor], bool],
    broken: dict[str, Callable[[Tensor], None]],
    x: Tensor,
) -> None:
    assert bool(answer(_refusal(), x.clone())) is True, (
        "A refusal that does all that is asked fails your test."
    )
    for fault, refuse in broken.items():
        assert bool(answer(refuse, x.clone())) is False, (
            f"Your test passes a refusal that {fault}."
        )


def holds(answer: Callable[[Callable[[Tensor], None], Tensor], bool]) -> None:
    """Test ``holds(refuse, x)`` on a right refusal and on two broken ones."""
    broken = {
        "never refuses": _refusal(above=False, below=False, unknown=False),
        "lets numbers below zero pass": _refusal(below=False),
    }
    _holds(answer, broken, torch.tensor([[0.0, 0.5], [0.25, 1.0]]))


def holds_hidden(
    answer: Callable[[Callable[[Tensor], None], Tensor], bool], seed: int = 0
) -> None:
    """Test it on refusals that are broken in other ways, and on other inputs."""
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed))
    x[0, 0], x[1, 1] = 0.0, 1.0
    broken = {
        "lets numbers above one pass": _refusal(above=False),
        "lets a NaN pass": _refusal(unknown=False),
        "raises another kind of error": _refusal(kind=KeyError),
        "does not name the box": _refusal(box="another range"),
        "refuses the ends of the box": _refusal(ends=True),
    }
    _holds(answer, broken, x)
