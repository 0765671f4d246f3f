"""The same input is treated alike by attacks, certificates and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from crlib import attacks, certify, checks
from crlib.models import MLP
from crlib.theory import linear_minimal
from tests.unit.support import Never, rng

MODEL = MLP((3, 4, 2), bias=True)
X, Y = torch.full((2, 3), 0.5), torch.tensor([0, 1])
ASKED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "pgd": lambda x, y: attacks.pgd(MODEL, x, y, eps=0.1, steps=2),
    "deepfool": lambda x, y: attacks.deepfool(MODEL, x, y, steps=2),
    "universal": lambda x, y: attacks.universal(MODEL, x, y, eps=0.1, epochs=1),
    "diagnose": lambda x, y: attacks.diagnose(MODEL, x, y, eps=0.1, queries=2),
    "interval_bounds": lambda x, y: certify.interval_bounds(MODEL, x, y, eps=0.1),
    "crown_bounds": lambda x, y: certify.crown_bounds(MODEL, x, y, eps=0.1),
    "lipschitz_radius": lambda x, y: certify.lipschitz_radius(MODEL, x, y),
    "exact_distance": lambda x, y: certify.exact_distance(MODEL, x, y),
    "linear_minimal": lambda x, y: linear_minimal(torch.eye(3), None, x, y, norm="l2"),
}
BAD = {
    "outside": (X + 2e-6 + 0.5, Y, r"x runs from 1\.000002 to .* lie in \[0, 1\]. Ro"),
    "NaN": (X * math.nan, Y, "x holds a NaN"),
    "integers": (X.long(), Y, "give a batch"),
    "one image": (X[0], Y, "give a batch"),
    "float labels": (X, Y.float(), "y is torch.float32 .*one integer label"),
    "too few labels": (X, Y[:1], "one integer label .*each of the 2 samples"),
    "negative label": (X, Y - 1, "y holds the label -1: labels run from 0"),
    "unknown label": (X, Y + 2, "y holds the label 3: labels run from 0 to"),
}


@pytest.mark.parametrize("name", ASKED)
def test_rounding_outside_the_box_is_forgiven(name: str) -> None:
    ASKED[name](X + torch.tensor([0.5 + 5e-7, -0.5 - 5e-7, 0.0]), Y)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ASKED)
def test_bad_input_is_refused_with_one_sentence(name: str, bad: str) -> None:
    x, y, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        ASKED[name](x, y)


def test_what_is_outside_by_rounding_is_on_the_wall() -> None:
    w = torch.randn(3, 5, generator=rng(0), dtype=torch.float64)
    x = torch.rand(20, 5, generator=rng(1), dtype=torch.float64).round()
    y = torch.zeros(20, dtype=torch.int64)
    off = x + 5e-7 * (2 * x - 1)
    for norm in ("linf", "l2", "l1", "l0"):
        exact, _ = linear_minimal(w, None, x, y, norm=norm)
        found, delta = linear_minimal(w, None, off, y, norm=norm)
        torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)
        assert ((x + delta >= 0) & (x + delta <= 1)).all()


def test_the_default_chance_is_new_each_time_and_leaves_torch_alone() -> None:
    state = torch.get_rng_state()
    first, second = (
        torch.rand(3, generator=checks.chance(None)).tolist() for _ in range(2)
    )
    assert first == second and torch.get_rng_state().equal(state)
    own = rng(5)
    assert checks.chance(own) is own


def test_a_model_is_not_called_before_the_input_is_checked() -> None:
    for bad in ("outside", "NaN", "negative label"):
        x, y, message = BAD[bad]
        with pytest.raises(ValueError, match=message):
            attacks.apgd(Never(), x, y, eps=0.1)


def test_a_shape_is_a_tuple_of_whole_numbers() -> None:
    assert checks.shape(torch.rand(5, 3, 8, 8).shape[1:]) == (3, 8, 8)
    assert checks.shape(np.array([2, 4, 4]), images=True) == (2, 4, 4)
    for bad in (4, None, (), (0,), (-1, 2), (2.0,), "ab"):
        with pytest.raises(ValueError, match=r"give \(d,\) or \(C, H, W\)"):
            checks.shape(bad)
    for bad in (8, (8, 8), (5, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"one image, give \(C, H, W\)"):
            checks.shape(bad, images=True)


@pytest.mark.parametrize("count", [1e2, 2.5, None, "3"])
def test_a_count_is_a_whole_number(count: object) -> None:
    model = MODEL.double()
    for asked in (
        lambda: checks.at_least(1, steps=count),  # type: ignore[arg-type]
        lambda: certify.smooth_certify(model, X, sigma=0.1, n=count),  # type: ignore
        lambda: attacks.pgd(model, X, Y, eps=0.1, steps=count),  # type: ignore
    ):
        with pytest.raises(ValueError, match=r" is .*: give a whole number"):
            asked()
    checks.at_least(1, steps=np.int64(3), n=True)
