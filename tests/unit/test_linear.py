"""The closed form of the linear case against solvers that know nothing of it."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from crlib.theory import linear_minimal
from tests.unit.support import SEEDS, affine_task, rng

NORMS = ("linf", "l2", "l1", "l0")
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


def bounds_of(x: np.ndarray, box: bool) -> list[tuple[float | None, float | None]]:
    return [(-v, 1 - v) if box else (None, None) for v in x]


def linear_program(
    c: np.ndarray, m: float, x: np.ndarray, norm: str, box: bool
) -> float:
    """Minimise the linf or l1 norm of delta, with one or d variables above |delta|."""
    d = len(c)
    cover = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    extra = cover.shape[1]
    above = np.block([[np.eye(d), -cover], [-np.eye(d), -cover]])
    reach = np.concatenate([-c, np.zeros(extra)])[None]
    answer = linprog(
        np.concatenate([np.zeros(d), np.ones(extra)]),
        A_ub=np.vstack([above, reach]),
        b_ub=np.concatenate([np.zeros(2 * d), [-m]]),
        bounds=bounds_of(x, box) + [(0, None)] * extra,
    )
    return float(answer.fun) if answer.success else math.inf


def quadratic_program(c: np.ndarray, m: float, x: np.ndarray, box: bool) -> float:
    room = np.where(c > 0, 1 - x, x)
    if box and (np.abs(c) * room).sum() < m:
        return math.inf
    answer = minimize(
        lambda delta: 0.5 * delta @ delta,
        np.sign(c) * room if box else m * c / (c @ c),
        jac=lambda delta: delta,
        bounds=bounds_of(x, box),
        constraints={"type": "ineq", "fun": lambda z: c @ z - m, "jac": lambda _: c},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert answer.success
    return math.sqrt(2 * answer.fun)


def fewest(c: np.ndarray, m: float, x: np.ndarray, box: bool) -> float:
    room = np.where(c > 0, 1 - x, x) if box else np.full(len(c), np.inf)
    gain = np.where(c == 0, 0, np.abs(c) * np.where(c == 0, 0, room))
    for count in range(len(c) + 1):
        for chosen in itertools.combinations(range(len(c)), count):
            if gain[list(chosen)].sum() >= m * (1 - 1e-12):
                return count
    return math.inf


def solve(c: np.ndarray, m: float, x: np.ndarray, norm: str, box: bool) -> float:
    if norm == "l2":
        return quadratic_program(c, m, x, box)
    if norm == "l0":
        return fewest(c, m, x, box)
    return linear_program(c, m, x, norm, box)


@given(SEEDS, st.sampled_from(NORMS), st.booleans(), st.sampled_from([2, 3, 4]))
def test_distance_is_what_a_solver_finds(
    seed: int, norm: str, box: bool, classes: int
) -> None:
    model, x, y = affine_task(seed, n=2, classes=classes)
    weight, bias = model.weight.detach(), model.bias.detach()
    found, _ = linear_minimal(weight, bias, x, y, norm=norm, box=box)
    for i in range(len(x)):
        logits = weight @ x[i] + bias
        best = min(
            solve(
                (weight[k] - weight[y[i]]).numpy(),
                float(logits[y[i]] - logits[k]),
                x[i].numpy(),
                norm,
                box,
            )
            for k in range(classes)
            if k != y[i]
        )
        assert float(found[i]) == pytest.approx(best, rel=1e-5, abs=1e-7)


@given(SEEDS, st.sampled_from(["linf", "l2", "l1"]))
def test_without_the_box_it_is_the_margin_over_the_dual_norm(
    seed: int, norm: str
) -> None:
    model, x, y = affine_task(seed)
    weight = model.weight.detach()
    logits = model(x).detach()
    other = 1 - y
    m = logits.gather(1, y[:, None]) - logits.gather(1, other[:, None])
    c = weight[other] - weight[y]
    expected = m.squeeze(1) / torch.linalg.vector_norm(c, ord=DUAL[norm], dim=1)
    found, _ = linear_minimal(weight, model.bias, x, y, norm=norm, box=False)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@given(SEEDS, st.sampled_from(NORMS), st.booleans(), st.sampled_from([2, 5]))
def test_delta_has_that_norm_and_ends_on_the_boundary(
    seed: int, norm: str, box: bool, classes: int
) -> None:
    model, x, y = affine_task(seed, classes=classes)
    distance, delta = linear_minimal(model.weight, model.bias, x, y, norm=norm, box=box)
    ok = distance.isfinite()
    order = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}[norm]
    size = torch.linalg.vector_norm(delta, ord=order, dim=1)
    torch.testing.assert_close(size[ok], distance[ok])
    assert not delta[~ok].any()
    if box:
        assert ((x + delta >= -1e-12) & (x + delta <= 1 + 1e-12)).all()
    logits = model(x + delta).detach()[ok]
    own = logits.gather(1, y[ok, None]).squeeze(1)
    gap = own - logits.scatter(1, y[ok, None], -math.inf).amax(1)
    assert (gap <= 1e-9).all()
    if norm != "l0":
        assert (gap >= -1e-9).all()


@given(SEEDS, st.sampled_from(NORMS))
def test_walls_make_it_farther(seed: int, norm: str) -> None:
    model, x, y = affine_task(seed, classes=3)
    free, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm, box=False)
    boxed, _ = linear_minimal(model.weight, model.bias, x, y, norm=norm)
    assert (boxed >= free * (1 - 1e-9)).all()


@given(SEEDS)
def test_norms_are_ordered(seed: int) -> None:
    model, x, y = affine_task(seed, classes=3)
    linf, l2, l1 = (
        linear_minimal(model.weight, model.bias, x, y, norm=norm)[0]
        for norm in ("linf", "l2", "l1")
    )
    assert (linf <= l2 * (1 + 1e-9)).all() and (l2 <= l1 * (1 + 1e-9)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_infeasible_is_infinite(norm: str) -> None:
    weight = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    bias = torch.tensor([5.0, 0.0])
    x = torch.tensor([[0.5, 0.5]])
    y = torch.tensor([0])
    distance, delta = linear_minimal(weight, bias, x, y, norm=norm)
    assert distance.item() == math.inf and not delta.any()
    assert linear_minimal(weight, bias, x, y, norm=norm, box=False)[0].isfinite()


@pytest.mark.parametrize("norm", NORMS)
def test_equal_rows_are_never_confused(norm: str) -> None:
    weight, bias = torch.ones(2, 3), torch.tensor([1.0, 0.0])
    x, y = torch.full((1, 3), 0.5), torch.tensor([0])
    for box in (True, False):
        distance, _ = linear_minimal(weight, bias, x, y, norm=norm, box=box)
        assert distance.item() == math.inf


@pytest.mark.parametrize("norm", NORMS)
def test_a_wrong_label_has_distance_zero(norm: str) -> None:
    model, x, y = affine_task(3, classes=3)
    distance, delta = linear_minimal(
        model.weight, model.bias, x, (y + 1) % 3, norm=norm
    )
    assert not distance.any() and not delta.any()


def test_no_bias_is_a_bias_of_zero() -> None:
    w, x = torch.randn(3, 4, generator=rng(0)), torch.rand(5, 4, generator=rng(1))
    y = (x @ w.T).argmax(1)
    without, zero = (
        linear_minimal(w, b, x, y, norm="l2")[0] for b in (None, torch.zeros(3))
    )
    assert without.equal(zero)
    assert without.dtype == torch.float64


def test_a_batch_of_none_gives_none() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    distance, delta = linear_minimal(
        torch.eye(3), None, torch.rand(0, 3), none, norm="linf"
    )
    assert distance.shape == (0,) and delta.shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l7"}, "choose one of"),
        ({"x": torch.rand(2, 1, 3)}, "flatten"),
        ({"weight": torch.rand(3, 4)}, "flatten"),
        ({"weight": torch.ones(1, 3), "y": torch.tensor([0, 0])}, "two classes"),
        ({"x": torch.full((2, 3), math.nan), "box": False}, "holds a NaN"),
        ({"x": torch.full((2, 3), math.inf), "box": False}, "an infinity"),
        ({"x": torch.full((2, 3), 1.5)}, r"inputs lie in \[0, 1\]"),
        ({"y": torch.tensor([0])}, "one integer label"),
        ({"y": torch.tensor([0, 3])}, "0 to 2"),
        ({"y": torch.tensor([0, -1])}, "the label -1: labels run from 0 to 2"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    given_ = {
        "weight": torch.eye(3),
        "bias": None,
        "x": torch.full((2, 3), 0.5),
        "y": torch.tensor([0, 1]),
        "norm": "l2",
    } | changes
    with pytest.raises(ValueError, match=message):
        linear_minimal(**given_)
