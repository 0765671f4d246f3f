"""One judge for the points of every library."""

import math
from typing import Any

import torch
from torch import Tensor, nn

ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}


def judge(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    norm: str,
    eps: float | None,
) -> dict[str, Any]:
    """Judge every library's points alike, by nothing but the points themselves.

    A point outside box or ball, by more than rounding, is no success. An input that is
    labelled wrongly already is fooled at distance 0.
    """
    with torch.no_grad():
        wrong, fooled = model(x).argmax(1) != y, model(x_adv).argmax(1) != y
    delta = (x_adv.double() - x.double()).flatten(1)
    distance = torch.linalg.vector_norm(delta, ord=ORDERS[norm], dim=1)
    legal = x_adv.flatten(1).isfinite().all(1)
    legal &= ((x_adv >= -1e-6) & (x_adv <= 1 + 1e-6)).flatten(1).all(1)
    if eps is not None:
        legal &= distance <= eps * (1 + 1e-5)
    distance = distance.masked_fill(~(fooled & legal), torch.inf)
    return {
        "fooled": (wrong | (fooled & legal)).tolist(),
        "distance": distance.masked_fill(wrong, 0).tolist(),
        "wrong": wrong.tolist(),
        "outside": int((~legal & ~wrong).sum()),
    }
