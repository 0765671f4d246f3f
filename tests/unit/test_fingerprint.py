"""Another function has another fingerprint; the same, built anew, has the same."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crlib.asking import fingerprint, logits
from crlib.models import MLP
from tests.unit.support import rng

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


def body(seed: int = 0) -> MLP:
    return MLP((3, 4, 3), bias=True, seed=seed)


class Scaled(nn.Module):
    """Keeps a number of its own, and what has no order."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body, self.scale = nn.Linear(3, 3), scale
        self.body.weight.data = torch.eye(3)
        self.body.bias.data = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.scale


class Registers(Scaled):
    """Keeps names and layers without an order."""

    def __init__(self, scale: float) -> None:
        super().__init__(1.0)
        self.names = {"a", "b", "c", f"d{scale}"}
        self.layers = {body(1), body(2), nn.Sequential(body(3)), nn.Sequential(body(4))}


def of_class(act: Callable[[Tensor], Tensor]) -> nn.Module:
    class Dressed(Scaled):
        @staticmethod
        def act(x: Tensor) -> Tensor:
            return act(x)

        @property
        def after(self) -> Any:
            return self.act

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.after(self.body(x))
            return found

    return Dressed(1.0)


def named(k: int) -> nn.Module:
    first, second = ("ab", "ba")[k]
    return nn.ModuleDict({first: body(1), second: body(2)})


def repeated(k: int) -> nn.Module:
    a, b = body(1), body(2)
    return nn.Sequential(a, b, (a, b)[k])


def hooked(k: int) -> nn.Module:
    net = body()
    net.register_forward_hook(lambda _m, _i, out: out * k)
    return net


def function(k: int) -> Callable[[Tensor], Tensor]:
    net, act = body(), (torch.sigmoid, torch.tanh)[k]
    return lambda x: act(net(x))


def enclosed(v: Any) -> Callable[[Tensor], Tensor]:
    net = body()
    return lambda x: net(v * x)


def default(k: int) -> Callable[[Tensor], Tensor]:
    net = body()
    return lambda x, scale=k: net(scale * x)


def constant(k: int) -> Callable[[Tensor], Tensor]:
    net = body()
    return (lambda x: net(2 * x), lambda x: net(3 * x))[k]


def attribute(k: int) -> Callable[[Tensor], Tensor]:
    net = body()
    return (lambda x: torch.sigmoid(net(x)), lambda x: torch.tanh(net(x)))[k]


# Two functions of the same weights each.
TWO: dict[str, Callable[[int], Any]] = {
    "layer": lambda k: nn.Sequential(body(), (nn.Sigmoid(), nn.Tanh())[k]),
    "setting": lambda k: nn.Sequential(body(), nn.LeakyReLU((0.1, 0.2)[k])),
    "setting not shown": lambda k: nn.AvgPool2d(2, count_include_pad=bool(k)),
    "own number": lambda k: Scaled(1.0 + k),
    "own class": lambda k: of_class((torch.sigmoid, torch.tanh)[k]),
    "without order": Registers,
    "layer used twice": repeated,
    "names of layers": named,
    "hook": hooked,
    "constant": constant,
    "function of torch": attribute,
    "enclosed function": function,
    "enclosed number": enclosed,
    "enclosed tensor": lambda k: enclosed(torch.tensor([1.0, k, 0.5])),
    "enclosed array": lambda k: enclosed(np.array([1.0, k, 0.5])),
    "enclosed list": lambda k: enclosed([0.5] * 2000 + [k]),
    "enclosed chance": lambda k: enclosed(rng(k)),
    "default": default,
    "keyword": lambda k: partial(default(0), scale=k),
    "wrapped": lambda k: logits(function(k)),
    "scripted": lambda k: torch.jit.script(Scaled(1.0 + k)),
    "compiled": lambda k: torch.compile(Scaled(1.0 + k), backend="eager"),
    "compiled function": lambda k: torch.compile(enclosed(k), backend="eager"),
}


def prints(k: int) -> dict[str, str]:
    return {name: fingerprint([make(k)], [], "") for name, make in TWO.items()}


@pytest.mark.parametrize("name", TWO)
def test_another_function_of_the_same_weights_has_another_fingerprint(
    name: str,
) -> None:
    one, other, again = (fingerprint([TWO[name](k)], [], "") for k in (0, 1, 0))
    assert one != other and one == again


def test_another_process_gives_the_same_fingerprints() -> None:
    code = "from tests.unit.test_fingerprint import prints; print(prints(1))"
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        check=True,
        text=True,
        # Sets have another order there.
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    assert told.stdout.strip() == str(prints(1))


def test_mode_and_questions_change_no_fingerprint() -> None:
    net = nn.Sequential(body(), nn.BatchNorm1d(3), nn.Dropout())
    before = fingerprint([net], [], "")
    net.eval()(torch.rand(5, 3, generator=rng(0)))
    assert fingerprint([net], [], "") == before
    sparse, plain = (
        fingerprint([], [v], "") for v in (torch.eye(3).to_sparse(), torch.eye(3))
    )
    assert sparse == plain != fingerprint([], [torch.eye(3)], "words")
