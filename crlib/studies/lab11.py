"""Lab 11: truncated linear classifiers under attacks that change few coordinates."""

import math

import torch
from torch import Tensor

from crlib import metrics
from crlib.data import Dataset
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import of_sample

__all__ = [
    "SETTINGS",
    "STUDY",
    "alike",
    "boxed",
    "fitted",
    "mean_of_length",
    "mixture",
    "run",
    "truncated",
    "two_classes",
]

# Length of the mean of a class; coordinates that truncation takes away at each end.
LENGTH, TRUNCATED = 3.0, 20
BUDGETS = (1, 5, 10, 20)
SETTINGS: list[Config] = [
    *({"part": "mixture", "way": "flat", "strength": d} for d in (100, 400, 1600)),
    *({"part": "mixture", "way": "few", "strength": s} for s in (25, 4)),
    *(
        {"part": "images", "way": way, "strength": k}
        for way in ("plain", "truncated")
        for k in (0, 10)
    ),
]


def run(config: Config, images: Dataset) -> Numbers:
    """Return the numbers of one mean of a mixture, or of one trained classifier."""
    part = {"mixture": _mixture, "images": _images}[config["part"]]
    return part(config, images)


def truncated(u: Tensor, t: int, k: int = 0) -> Tensor:
    """Return the least truncated sums ``(n,)`` that k changes at will can reach.

    A truncated sum leaves out the t largest and the t smallest entries. The worst k
    changes shift the window of what stays by k places down; with more than t of them
    there is no bound.

    Args:
        u: ``(n, d)``, with ``d > 2 t``.
        t: entries left out at each end.
        k: entries that an adversary sets.
    """
    if k > t:
        return torch.full(u.shape[:1], -math.inf, dtype=u.dtype)
    top = u.topk(t + k, dim=1).values.sum(1)
    return u.sum(1) - top + (-u).topk(t - k, dim=1).values.sum(1)


def boxed(u: Tensor, lowest: Tensor, k: int) -> Tensor:
    """Return the least plain sums ``(n,)`` when k entries may go to their lowest."""
    return u.sum(1) - (u - lowest).topk(k, dim=1).values.sum(1)


def mean_of_length(way: str, strength: int) -> Tensor:
    """Return a mean ``(d,)`` with equal entries: all of them, or a few of 400."""
    mu = torch.zeros(strength if way == "flat" else 400, dtype=torch.float64)
    mu[:strength] = LENGTH / strength**0.5
    return mu


def mixture(mu: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points ``(n, d)`` of the law N(y mu, I) and labels y of either sign."""
    y = torch.randint(2, (n,), generator=generator).double() * 2 - 1
    noise = torch.randn(n, len(mu), generator=generator, dtype=torch.float64)
    return y[:, None] * mu + noise, y


def alike(
    x: Tensor, y: Tensor, mu: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    r"""Return points whose law is the same for both labels, and the changes of each.

    The sign of coordinate i is turned with probability
    :math:`\frac12 (1 - e^{-2 y \mu_i x_i})_+`: as much as the own class has above the
    other goes to the mirror image, half of it.
    """
    chance = 0.5 * (1 - torch.exp(-2 * y[:, None] * mu * x)).clamp_min(0)
    turned = torch.rand(x.shape, generator=generator, dtype=x.dtype) < chance
    return torch.where(turned, -x, x), turned.sum(1)


def _mixture(config: Config, images: Dataset) -> Numbers:
    mu = mean_of_length(config["way"], config["strength"])
    g = torch.Generator().manual_seed(40_000 + config["seed"])
    x, y = mixture(mu, 1000, g)
    u = y[:, None] * mu * x
    # With t = k the window is the first d - 2 k entries: one sort serves all budgets.
    sums = u.sort(1).values.cumsum(1)
    d = len(mu)
    robust = [
        float((sums[:, d - 2 * k - 1] > 0).double().mean()) for k in range(d // 2)
    ]
    fallen = next(k for k, share in enumerate(robust) if share < 0.5)
    found = {"clean accuracy": robust[0], "half": fallen}
    found |= {f"at will {k}": robust[k] for k in BUDGETS}
    near = u.sum(1) / mu.abs().sum()
    changed, changes = alike(x, y, mu, g)
    return found | {
        "linf": float(near[near > 0].median()),
        "changes": float(changes.double().mean()),
        "after": float(((changed @ mu) * y > 0).double().mean()),
    }


def two_classes(images: Dataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return sandals (-1) and sneakers (+1): inputs and labels to train and to test."""
    found: list[Tensor] = []
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        ours = (y == 5) | (y == 7)
        found += [x[ours].flatten(1), (y[ours] - 6).to(x.dtype)]
    a, b, c, d = found
    return a, b, c, d


def fitted(
    way: str, k: int, x: Tensor, y: Tensor, seed: int, epochs: int = 30
) -> tuple[Tensor, Tensor]:
    """Return weights and bias of a linear classifier, trained on its exact worst case.

    Args:
        way: ``"plain"``, against k changes within the box; ``"truncated"``, against k
            changes at will.
        k: 0 for ordinary training.
        x: inputs ``(n, d)`` in float64.
        y: labels ``(n,)``, -1 or 1.
        seed: of start and batches.
        epochs: of Adam with decoupled weight decay, in batches of 128.
    """
    g = torch.Generator().manual_seed(50_000 + seed)
    w = 0.01 * torch.randn(x.shape[1], generator=g, dtype=x.dtype)
    b = torch.zeros(1, dtype=x.dtype)
    w, b = w.requires_grad_(), b.requires_grad_()
    optimiser = torch.optim.AdamW([w, b], lr=3e-3, weight_decay=0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=g).split(128):
            score = worst(way, k, w, x[batch], y[batch]) + y[batch] * b
            optimiser.zero_grad()
            torch.nn.functional.softplus(-score).mean().backward()
            optimiser.step()
    return w.detach(), b.detach()


def worst(way: str, k: int, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return scores ``(n,)``, without bias, after the k worst changes."""
    slope = y[:, None] * w
    if way == "truncated":
        return truncated(slope * x, TRUNCATED, k)
    return boxed(slope * x, slope.clamp_max(0), k)


def _images(config: Config, images: Dataset) -> Numbers:
    way, seed = config["way"], config["seed"]
    x, y, xv, yv = two_classes(images)
    w, b = fitted(way, config["strength"], x, y, seed)
    slope = yv[:, None] * w
    u, lowest = slope * xv, slope.clamp_max(0)

    def share(score: Tensor) -> float:
        return float((score + yv * b > 0).double().mean())

    t = TRUNCATED if way == "truncated" else 0
    found = {"clean accuracy": share(truncated(u, t))}
    for k in BUDGETS:
        found[f"at will {k}"] = share(truncated(u, t, k))
        found[f"box {k}"] = share(worst(way, k, w, xv, yv))
        # An attack: the entries that fall furthest. Of a plain score it is the worst.
        reach, chosen = (u - lowest).topk(k, dim=1)
        attacked = u.scatter_add(1, chosen, -reach)
        found[f"attacked {k}"] = share(truncated(attacked, t))
    # Every score here rises with every entry: the worst move lowers all of them.
    room = torch.where(slope > 0, xv.clamp_max(0.05), (1 - xv).clamp_max(0.05))
    found["robust linf"] = share(truncated(u - slope.abs() * room, t))
    found["flatness"] = float(w.abs().sum() / w.norm())
    found["best-k error"] = metrics.best_k_error(w, round(0.1 * len(w)))
    return found


STUDY = of_sample("lab11", SETTINGS, run)
