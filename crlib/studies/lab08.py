"""Lab 8: accuracy, robustness and two uncertainties along three trainings."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "EPOCHS",
    "EPS",
    "SETTINGS",
    "STUDY",
    "conjugates",
    "first_order_radius",
    "fitted",
    "judged",
    "run",
    "scaled",
]

Model = Callable[[Tensor], Tensor]
EPOCHS, EPS, IMAGES = (2, 4, 8, 16, 32), 0.5, 200
# The weight decay, or the radius of the adversary in input units.
SETTINGS: list[Config] = [
    {"way": "plain", "strength": 0.0},
    {"way": "decay", "strength": 2.0},
    {"way": "adversarial", "strength": EPS},
]


def fitted(way: str, strength: float, images: Dataset, seed: int) -> train.Fit:
    """Return a network of one hidden layer that was trained in one of three ways."""
    own = 800 + seed
    options: dict[str, Any] = {"weight_decay": strength if way == "decay" else 0.0}
    if way == "adversarial":
        options["adversary"] = train.pgd_adversary(eps=strength, norm="l2", steps=3)
    return train.fit(
        MLP((784, 128, 10), mean=0.286, std=0.353, seed=own),
        images.subset(min(2000, len(images.x_train)), 10, seed=own),
        epochs=EPOCHS[-1],
        lr=2e-3,
        validation=0.0,
        checkpoint="last",
        keep=EPOCHS,
        seed=own,
        progress=False,
        **options,
    )


def scaled(net: Model, s: float) -> Model:
    """Return the classifier whose logits are ``s`` times those of ``net``."""
    return lambda x: s * net(x)


def conjugates(net: Model, x: Tensor, y: Tensor) -> tuple[float, float]:
    r"""Return the uncertainties :math:`\Delta x` and :math:`\Delta p` over N points.

    :math:`(\Delta p)^2 = \mathbb E \|\nabla \ell\|^2 / \mathbb E \ell^2` for the loss
    :math:`\ell`; :math:`\Delta x` is the spread of the points under weights
    :math:`\ell^2`, the root of the sum of the variances of the coordinates.

    Args:
        net: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)``.
        y: labels ``(N,)``.
    """
    z = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(net(z), y, reduction="none")
    (g,) = torch.autograd.grad(loss.sum(), z)
    weight = loss.detach().square()
    dp = (g.flatten(1).square().sum(1).mean() / weight.mean()).sqrt()
    share, flat = weight / weight.sum(), x.flatten(1)
    dx = (share @ (flat - share @ flat).square()).sum().sqrt()
    return float(dx), float(dp)


def first_order_radius(net: Model, x: Tensor, y: Tensor) -> Tensor:
    """Return the margin over the norm of its gradient, ``(N,)``."""
    z = x.clone().requires_grad_()
    m = metrics.margin(net(z), y)
    (g,) = torch.autograd.grad(m.sum(), z)
    return m.detach() / g.flatten(1).norm(dim=1)


def judged(net: MLP, images: Dataset) -> dict[str, float]:
    """Return accuracies, distances, uncertainties and compressibility of a network."""
    x, y = images.x_test[:IMAGES], images.y_test[:IMAGES]
    near = nearest(net, x, y, ["l2"], steps=40)["l2"]
    dx, dp = conjugates(net, x, y)
    shape = compressibility(net.weights[:-1])
    with torch.no_grad():
        right = net(x).argmax(1) == y
    return {
        "clean": metrics.accuracy(net, images.x_test, images.y_test),
        "robust": float((near.distance > EPS).double().mean()),
        "l2": float(near.distance[right].median()),
        "dx": dx,
        "dp": dp,
        "first order": float(first_order_radius(net, x, y)[right].median()),
        "spectral error": shape["spectral error"],
        "row error": shape["row error"],
    }


def run(config: Config, images: Dataset) -> Numbers:
    """Return what one training shows at its epochs, and at other scales in the end."""
    fit = fitted(config["way"], config["strength"], images, config["seed"])
    found: dict[str, float] = {}
    for epoch in EPOCHS:
        at = judged(fit.at(f"epoch {epoch}").model, images)
        found |= {f"{name} {epoch}": value for name, value in at.items()}
    x, y = images.x_test[:IMAGES], images.y_test[:IMAGES]
    for s in (0.1, 10.0):
        dx, dp = conjugates(scaled(fit.model, s), x, y)
        found |= {f"dx times {s:g}": dx, f"dp times {s:g}": dp}
    return found


STUDY = of_sample("lab08", SETTINGS, run)
