"""Values cross the wire as they are; anything else arrives as nothing in particular."""

import math

import numpy as np
import pytest
import torch

from crlib import exercises
from crlib.grading import wire


def there_and_back(value: object) -> object:
    return wire.decode(wire.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        -(10**30),
        0.1,
        math.inf,
        2 - 1j,
        "ä\udcff",
        [1, [2.5, "a"], []],
        (1, (2,), ()),
        {"a": [1], 2: (3,), None: {}},
        {1, "b"},
        frozenset({(1, 2)}),
    ],
)
def test_plain_values_cross(value: object) -> None:
    found = there_and_back(value)
    assert found == value and type(found) is type(value)


def test_nan_crosses() -> None:
    assert math.isnan(there_and_back(math.nan))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.int8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_cross(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.full(shape, 2).to(dtype)
    found = there_and_back(tensor)
    assert found.dtype == dtype and torch.equal(found, tensor)


def test_a_tensor_keeps_its_gradient_as_a_flag_and_its_stride_not() -> None:
    tensor = (2 * torch.rand(3, 4, requires_grad=True)).T
    found = there_and_back(tensor)
    assert found.requires_grad and torch.equal(found, tensor)
    assert there_and_back(torch.empty(0, requires_grad=True)).requires_grad


def test_a_column_of_one_row_crosses() -> None:
    column = torch.arange(6.0).view(1, 6)[:, 2]
    assert column.stride() == (6,) and column.is_contiguous()
    assert wire.decode(wire.encode(column)).equal(torch.tensor([2.0]))


def test_arrays_and_their_numbers_cross() -> None:
    for value in (np.eye(2, dtype=">i2"), np.float32(1.5), np.bool_(True), np.zeros(0)):
        found = there_and_back(value)
        assert type(found) is type(value) and np.array_equal(found, value)
        assert found.dtype == value.dtype


@pytest.mark.parametrize(
    "value",
    [
        type("Any", (float,), {"__eq__": lambda *_: True})(),
        object(),
        len,
        np.array([object()]),
        torch.eye(2).to_sparse(),
        [type("List", (list,), {})()],
    ],
)
def test_anything_else_arrives_as_an_empty_object(value: object) -> None:
    with pytest.raises(TypeError, match="Your function returned an? "):
        exercises.plain(there_and_back(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b'["unknown"]',
        b'["complex", "a"]',
        b'["tensor", "torch.float32", [2], false, "AAAA"]',
        b'["tensor", "torch.float32", [1000000000000], false, ""]',
        b'["tensor", "torch.load", [1], false, "AAAAAA=="]',
        b'["array", "O", [1], "AAAAAAAAAAA="]',
        b'["array", "<f8", [99999999999999999999], ""]',
        b'["dict", [["list"], 1]]',
        b'["set", ["dict"]]',
        b'["object", 3]',
        b'["object", "\\u0000"]',
        b"[" * 100_000,
        b"9" * 10_000,
    ],
)
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        wire.decode(data)
