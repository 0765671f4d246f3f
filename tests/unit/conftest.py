"""What every unit test has: one thread, no network, a clean environment."""

import socket
from typing import Any

import pytest
import torch

from crlib import data, models, train


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep parallel workers from fighting over the cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that asks any other host for anything."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"a unit test asked {address} for something")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRLIB_BOOK", "CRLIB_PROFILE", "CRLIB_DATA", "CRLIB_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def fashion() -> data.Dataset:
    """A small real task: 1,000 training and 200 test images.

    In float64, as a network trained in float32 is another one on another processor.
    """
    return data.fashion_mnist_sample().subset(1000, 200).double()


@pytest.fixture(scope="session")
def trained(fashion: data.Dataset) -> models.MLP:
    """An undefended network with an accuracy well above chance."""
    model = models.MLP((784, 64, 64, 10), bias=True, mean=0.286, std=0.353)
    fitted: models.MLP = train.fit(
        model,
        fashion,
        epochs=30,
        lr=2e-3,
        checkpoint="last",
        validation=0,
        progress=False,
    ).model
    return fitted
