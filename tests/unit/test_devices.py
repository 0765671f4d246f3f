"""A device without float64, such as Apple's GPUs: nothing is widened before it left."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from crlib import attacks, compress, data, metrics, models, train

MEANS = torch.tensor([[0.3, 0.3, 0.4], [0.7, 0.7, 0.4]])


class NoDouble(TorchFunctionMode):
    """Refuse float64 for what was not brought to the CPU by name.

    A stand-in for the device: here all tensors lie on the CPU, and ``x.cpu()`` returns
    another object that may be widened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.landed: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func is Tensor.cpu:
            self.landed.append(args[0].clone())
            return self.landed[-1]
        widens = func is Tensor.double or (
            torch.float64 in (*args[1:], *options.values()) and "device" in options
        )
        home = any(args and args[0] is tensor for tensor in self.landed)
        if widens and not home:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype.")
        return func(*args, **options)


@pytest.fixture
def device() -> Iterator[None]:
    with NoDouble():
        yield


CLOUDS = data.gaussian_classes(64, 32, MEANS, noise=0.15)
MODEL = models.MLP((3, 8, 2), bias=True, seed=0)
X, Y = CLOUDS.x_test, CLOUDS.y_test


def test_the_stand_in_refuses_what_the_device_refuses(device: None) -> None:
    for widen in (Tensor.double, lambda x: torch.zeros(3, **PLACE)):
        with pytest.raises(TypeError, match="float64"):
            widen(X)
    assert X.cpu().double().dtype == torch.float64


PLACE = {"dtype": torch.float64, "device": "cpu"}
CALLS: dict[str, Callable[[], float]] = {
    "fgsm": lambda: attacks.fgsm(MODEL, X, Y, eps=0.1).robust_accuracy,
    "pgd": lambda: attacks.pgd(MODEL, X, Y, eps=0.1, norm="l2").robust_accuracy,
    "fmn": lambda: attacks.fmn(MODEL, X, Y, norm="l2").robust_accuracy,
    "curve": lambda: float(
        attacks.robustness_curve(MODEL, X, Y, eps=[0.1, 0.2], norm="linf").accuracy[1]
    ),
    "curve of distances": lambda: float(
        attacks.robustness_curve(
            MODEL, X, Y, eps=[0.1], norm="l2", attack=attacks.fmn
        ).accuracy[0]
    ),
    "universal": lambda: attacks.universal(MODEL, X, Y, eps=0.1).robust_accuracy,
    "accuracy": lambda: metrics.accuracy(MODEL, X, Y),
    "fit": lambda: metrics.accuracy(
        train.fit(MODEL, CLOUDS, epochs=2, progress=False).model, X, Y
    ),
    "adversarial fit": lambda: (
        train.fit(
            MODEL,
            CLOUDS,
            epochs=1,
            adversary=train.pgd_adversary(eps=0.05),
            penalty=compress.group_lasso(1e-3),
            progress=False,
        )
        .history[0]
        .train_accuracy
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_device_without_float64_is_enough(name: str) -> None:
    expected = CALLS[name]()
    with NoDouble():
        found = CALLS[name]()
    assert found == expected and 0 <= found <= 1
