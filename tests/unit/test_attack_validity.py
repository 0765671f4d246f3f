"""Whatever the shape, norm, budget and model: results are valid and invariant.

With HYPOTHESIS_PROFILE=wide these are 28,000 examples of four inputs, each input with
a budget of its own: 112,000 cases.
"""

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from crlib.attacks import (
    apgd,
    deepfool,
    fgsm,
    fmn,
    pgd,
    random_noise,
    sigma_zero,
    square,
)
from tests.unit.support import SEEDS, Affine, Changed, predictions, rng, with_walls

ORDER = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}
BUDGETS = (0.0, 1e-3, 8 / 255, 0.3, 1.0, 4.0)
FIXED = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=3),
    "pgd random": partial(pgd, steps=2, restarts=2, random_start=True),
    "apgd": partial(apgd, steps=5),
    "apgd rivals": partial(apgd, steps=3, n_targets=3, together=2),
    "apgd random": partial(apgd, steps=3, random_start=True),
    "square": partial(square, queries=4),
    "noise": partial(random_noise, draws=3),
}
NEAREST = {
    "deepfool": partial(deepfool, steps=2, search_steps=4),
    "fmn": partial(fmn, steps=4, search_steps=4),
    "fmn walk": partial(fmn, steps=2, walk=2, search_steps=4),
    "sigma zero": partial(sigma_zero, steps=4),
}
CASES = [
    (name, norm)
    for name in (*FIXED, *NEAREST)
    for norm in ORDER
    if (norm == "l0") <= (name in ("deepfool", "sigma zero"))
    and (name == "sigma zero") <= (norm == "l0")
    and (name, norm) != ("square", "l1")
]
SHAPES = st.sampled_from([(1,), (5,), (12,), (1, 4, 4), (3, 2, 3), (2, 5, 5)])


def network(kind: str, dim: int, classes: int, g: torch.Generator) -> nn.Module:
    """Return an affine model, a ReLU network, or a smooth curved one."""
    draw = partial(torch.randn, generator=g, dtype=torch.float64)
    if kind == "affine":
        return Affine(draw(classes, dim), draw(classes))
    # Without a bias dead units make all logits equal, and a tie has no order.
    inner = Affine(3 * draw(6, dim), draw(6))
    outer = Affine(draw(classes, 6), draw(classes))
    return nn.Sequential(inner, nn.ReLU() if kind == "relu" else nn.Tanh(), outer)


def test_the_cases_are_as_many_as_promised() -> None:
    assert len(CASES) == 34 and len(CASES) * 1000 * 4 >= 100_000


@pytest.mark.parametrize(("name", "norm"), CASES)
@given(
    SEEDS,
    SHAPES,
    st.sampled_from(["affine", "relu", "tanh"]),
    st.integers(2, 5),
    st.sampled_from([1.0, 2.0**10, 2.0**-10]),
)
def test_results_are_valid_and_blind_to_scale_and_names_of_the_logits(
    name: str, norm: str, seed: int, shape: Any, kind: str, classes: int, scale: float
) -> None:
    g = rng(seed)
    model = network(kind, math.prod(shape), classes, g)
    x = torch.rand(4, *shape, generator=g, dtype=torch.float64)
    x = with_walls(x, g)
    y = predictions(model, x)
    y[0] = (y[0] + 1) % classes
    eps = torch.tensor(BUDGETS, dtype=x.dtype)[torch.randint(6, (4,), generator=g)]
    eps = eps.clamp_max(1) if norm == "linf" else eps
    options = {"eps": eps, "norm": norm} if name in FIXED else {"norm": norm}
    if name == "sigma zero":
        options = {}
    attack = (FIXED | NEAREST)[name]
    found = attack(model, x, y, **options)

    delta = (found.x_adv - x).flatten(1)
    moved = torch.linalg.vector_norm(delta, ord=ORDER[norm], dim=1)
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    if name in FIXED:
        assert (moved <= eps * (1 + 1e-6) + 1e-6).all()
    # A point on the boundary itself may round to either side in another batch.
    top = model(found.x_adv).detach().topk(2, 1).values
    clear = top[:, 0] - top[:, 1] > 1e-9
    wrong = predictions(model, found.x_adv) != y
    assert found.success[clear].equal(wrong[clear])
    torch.testing.assert_close(
        found.distance, moved.masked_fill(~found.success, math.inf)
    )
    assert found.x_adv[0].equal(x[0]) and found.distance[0] == 0

    if name.startswith("fmn"):
        # It aims at the boundary itself, where rounding decides which side it is on.
        return
    order = torch.randperm(classes, generator=g)
    same = attack(
        Changed(model, lambda z: scale * z[:, order]), x, order.argsort()[y], **options
    )
    # A power of two rounds nothing, so that nothing may differ but rounded sums.
    if not (found.zero_gradient | same.zero_gradient).any():
        torch.testing.assert_close(same.x_adv, found.x_adv, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["pgd", "apgd", "deepfool"])
@given(SEEDS, st.sampled_from(["linf", "l2", "l1"]))
def test_a_sample_does_not_depend_on_the_others(
    name: str, seed: int, norm: str
) -> None:
    g = rng(seed)
    model = network("affine", 6, 3, g)
    x = torch.rand(4, 6, generator=g, dtype=torch.float64)
    y, eps = predictions(model, x), torch.rand(4, generator=g, dtype=torch.float64)
    options = {"norm": norm} | ({"eps": eps} if name in FIXED else {})
    attack = (FIXED | NEAREST)[name]
    whole = attack(model, x, y, **options)
    order = torch.randperm(4, generator=g)
    if name in FIXED:
        options["eps"] = eps[order]
    mixed = attack(model, x[order], y[order], **options)
    torch.testing.assert_close(mixed.x_adv, whole.x_adv[order], atol=1e-6, rtol=0)
