"""Lab 15: bias and variance of networks under attack, and whose attack it is."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import of_sample

__all__ = [
    "BUDGETS",
    "KINDS",
    "SETTINGS",
    "STUDY",
    "WAYS",
    "Group",
    "attacked",
    "cross_entropy_split",
    "fitted",
    "judge",
    "run",
    "shown",
    "squared_split",
]

WAYS = ("full", "rank", "shared rank")
RANK, HIDDEN = 4, 64
MEAN, STD = 0.286, 0.353
MANY = 8  # networks that are judged, and as many that make points for them
BUDGETS = (0.02, 0.05, 0.1, 0.2)  # linf, input units
KINDS = ("own", "ensemble", "held out", "other", "noise")
SETTINGS: list[Config] = [
    {"way": way, "strength": 0 if way == "full" else RANK} for way in WAYS
]


@dataclass(frozen=True)
class Group:
    """Networks ``x -> relu((x - MEAN) / STD W^T) A^T``, side by side.

    Attributes:
        w: first layers ``(M, 64, 784)``.
        a: heads ``(M, 10, 64)``.
    """

    w: Tensor
    a: Tensor

    def __getitem__(self, which: slice) -> "Group":
        return Group(self.w[which], self.a[which])

    def __call__(self, x: Tensor) -> Tensor:
        """Return log probabilities ``(M, n, 10)`` of points ``([M,] n, 784)``."""
        z = ((x - MEAN) / STD) @ self.w.transpose(1, 2)
        return (z.relu() @ self.a.transpose(1, 2)).log_softmax(2)


def fitted(way: str, images: Dataset, seed: int) -> Group:
    """Return 17 networks: 16 of bootstraps of one thousand images, one of another.

    Args:
        way: ``"full"``; ``"rank"``, first layers of rank 4, each with factors of its
            own; ``"shared rank"``, first layers behind the one projection onto the four
            principal directions of the thousand images.
        images: where they are drawn from.
        seed: of the draws, the starts and the batches.
    """
    n, count = min(1000, len(images.x_train)), 2 * MANY
    g = torch.Generator().manual_seed(90_000 + seed)
    order = torch.randperm(len(images.x_train), generator=g)
    base = order[:n]
    rows = [base[torch.randint(n, (n,), generator=g)] for _ in range(count)]
    rows.append(order[-n:])  # Other images, where there are enough.
    basis = None
    if way == "shared rank":
        basis = metrics.principal_directions(images.x_train[base], RANK).T  # (4, 784)
    sets = [_seen(images, chosen, basis) for chosen in rows]
    inputs = 784 if basis is None else RANK
    models = [
        MLP(
            (inputs, HIDDEN, 10),
            rank=RANK if way == "rank" else None,
            mean=MEAN if basis is None else 0.0,
            std=STD if basis is None else 1.0,
            seed=100 * seed + k,
        )
        for k in range(count + 1)
    ]
    fits = train.fit_many(
        models,
        sets,
        seeds=[100 * seed + k for k in range(count + 1)],
        epochs=15,
        validation=0.0,
        checkpoint="last",
        progress=False,
    )
    w, a = (torch.stack([f.model.weights[k] for f in fits]) for k in (0, 1))
    return Group(w if basis is None else w @ basis, a)


def _seen(images: Dataset, rows: Tensor, basis: Tensor | None) -> Dataset:
    """Return some training images, or their coordinates in a basis ``(r, 784)``."""
    x = images.x_train[rows]
    if basis is not None:
        x = ((x.flatten(1) - MEAN) / STD) @ basis.T
    return replace(images, x_train=x, y_train=images.y_train[rows])


def squared_split(p: Tensor, y: Tensor) -> tuple[float, float]:
    r"""Return squared bias and variance, each without bias from the number of networks.

    Of M independent networks :math:`\frac1{M-1} \sum_i \|\pi_i - \bar\pi\|^2` has the
    variance as its mean, and an M-th of it is too much in
    :math:`\|\bar\pi - y\|^2`.

    Args:
        p: probabilities ``(M, n, K)``, M at least 2.
        y: unit vectors ``(n, K)``.
    """
    m, mean = len(p), p.mean(0)
    spread = (p - mean).square().sum(2).mean() * m / (m - 1)
    bias = (mean - y).square().sum(1).mean() - spread / m
    return float(bias), float(spread)


def cross_entropy_split(logp: Tensor, y: Tensor) -> tuple[float, float]:
    r"""Return :math:`-\log c_y` and :math:`\mathbb{E}\,\mathrm{KL}(c \| \pi)`, means.

    With :math:`Z = \sum_k \exp \mathbb{E} \log \pi_k` the variance is
    :math:`-\log Z`.

    Args:
        logp: log probabilities ``(M, n, K)``.
        y: labels ``(n,)``.
    """
    mean = logp.mean(0)
    log_z = mean.logsumexp(1)
    bias = log_z - mean.gather(1, y[:, None])[:, 0]
    return float(bias.mean()), float(-log_z.mean())


def attacked(group: Group, x: Tensor, y: Tensor, eps: float, kind: str) -> Tensor:
    """Return points for the first networks of a group, in the ball and the box.

    Ten steps of PGD on minus the log probability of the label, from x.

    Args:
        group: as :func:`fitted` returns it.
        x: ``(n, 784)``.
        y: ``(n,)``.
        eps: radius in the max norm.
        kind: ``"own"``, of each network one; ``"ensemble"``, one for all, on the mean
            probability of the first networks; ``"held out"``, likewise on as many other
            networks of the same images; ``"other"``, on one network of other images;
            ``"noise"``, random signs.

    Returns:
        ``(8, n, 784)`` for ``"own"``, else ``(n, 784)``.
    """
    if kind == "noise":
        g = torch.Generator().manual_seed(0)
        signs = 2 * torch.randint(2, x.shape, generator=g).to(x.dtype) - 1
        return (x + eps * signs).clamp(0, 1)
    makers = {
        "own": group[:MANY],
        "ensemble": group[:MANY],
        "held out": group[MANY : 2 * MANY],
        "other": group[2 * MANY :],
    }[kind]
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    z = x.expand(len(makers.w), *x.shape) if kind == "own" else x
    for _ in range(10):
        z = z.detach().clone().requires_grad_()
        logp = makers(z)
        if kind != "own":
            logp = logp.logsumexp(0, keepdim=True)  # Of the mean, up to a constant.
        loss = -logp.gather(2, y.expand(len(logp), -1)[:, :, None]).sum()
        (slope,) = torch.autograd.grad(loss, z)
        z = (z.detach() + 0.25 * eps * slope.sign()).clamp(low, high)
    return z


def shown(images: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Return two hundred test images ``(200, 784)`` and their labels."""
    g = torch.Generator().manual_seed(95_000 + seed)
    order = torch.randperm(len(images.x_test), generator=g)[:200]
    return images.x_test[order].flatten(1), images.y_test[order]


def judge(group: Group, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return errors, bias and variance of eight networks under points of each kind."""
    spectra = [metrics.singular_values(w) for w in group.w[:MANY]]
    rank = [metrics.stable_rank(s) for s in spectra]
    found = {"srank": sum(rank) / len(rank)} | _named("clean", group, x, y)
    for kind in KINDS:
        for eps in BUDGETS:
            z = attacked(group, x, y, eps, kind)
            found |= _named(f"{kind} {eps}", group, z, y)
    return found


def _named(name: str, group: Group, x: Tensor, y: Tensor) -> dict[str, float]:
    logp = group[:MANY](x)
    told = torch.nn.functional.one_hot(y, 10).to(logp.dtype)
    bias, spread = squared_split(logp.exp(), told)
    ce_bias, ce_spread = cross_entropy_split(logp, y)
    return {
        f"{name} error": float((logp.argmax(2) != y).double().mean()),
        f"{name} bias": bias,
        f"{name} variance": spread,
        f"{name} share": spread / (bias + spread),
        f"{name} ce share": ce_spread / (ce_bias + ce_spread),
    }


def run(config: Config, images: Dataset) -> Numbers:
    """Train the networks of one way and judge them."""
    seed = config["seed"]
    return judge(fitted(config["way"], images, seed), *shown(images, seed))


STUDY = of_sample("lab15", SETTINGS, run)
