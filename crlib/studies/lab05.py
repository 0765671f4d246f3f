"""Lab 5: products of ReLU layers, how fast they learn and how fragile they are."""

import math

import torch
from torch import Tensor, nn

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import Normalize
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "FREQUENCIES",
    "HORIZON",
    "SETTINGS",
    "STUDY",
    "ProductNet",
    "circle",
    "eigenvalues",
    "errors",
    "fitted",
    "kernel",
    "predicted",
    "run",
]

FREQUENCIES = (2, 3, 4, 5, 8)
HORIZON, POINTS = 300, 64
# The width for a degree, at about one number of parameters.
WIDTHS = {1: 128, 2: 64, 3: 43}
SETTINGS: list[Config] = [
    *(
        {"part": "circle", "way": way, "strength": degree}
        for way, degree in (("free", 1), ("bias", 1), ("free", 2), ("free", 4))
    ),
    *({"part": "tie", "way": "free", "strength": degree} for degree in WIDTHS),
]


def run(config: Config, images: Dataset) -> Numbers:
    """Return the numbers of one configuration: on the circle, or of the tie."""
    part = {"circle": _circle, "tie": _tie}[config["part"]]
    return part(config, images)


def kernel(u: Tensor, degree: int) -> Tensor:
    r"""Return the tangent kernel of a product of ReLU layers at a cosine.

    .. math:: \kappa_1^N + N u \kappa_0 \kappa_1^{N-1}

    Args:
        u: cosines of the angle between two inputs of norm one, any shape.
        degree: number N of factors.
    """
    u = u.clamp(-1, 1)
    bent = (math.pi - u.arccos()) / math.pi
    first = (1 - u.square()).sqrt() / math.pi + u * bent
    return first.pow(degree) + degree * u * bent * first.pow(degree - 1)


def circle(way: str) -> Tensor:
    """Return points ``(64, 2)`` on the unit circle, or lifted ``(64, 3)`` to norm one.

    A third coordinate that is the same for all gives the layers a bias.
    """
    angle = 2 * math.pi * torch.arange(POINTS, dtype=torch.float64) / POINTS
    x = torch.stack([angle.cos(), angle.sin()], 1)
    if way == "free":
        return x
    return torch.cat([x, torch.ones(POINTS, 1, dtype=torch.float64)], 1) / 2**0.5


def eigenvalues(way: str, degree: int) -> Tensor:
    """Return the kernel's eigenvalues on the circle's points, by frequency."""
    x = circle(way)
    return torch.fft.rfft(kernel(x @ x[0], degree)).real / POINTS


def predicted(way: str, degree: int) -> list[float]:
    r"""Return the steps :math:`\ln 2 / (\eta \mu_k)` that the kernel expects."""
    mu = eigenvalues(way, degree)
    slow = [float(mu[k] / mu.max()) for k in FREQUENCIES]
    return [2 * math.log(2) / s if s > 1e-12 else math.inf for s in slow]


def errors(way: str, degree: int, seed: int, *, width: int = 512) -> Tensor:
    """Return the error ``(steps, 5)`` that is left at each frequency.

    Full-batch gradient descent on a sum of cosines of random phase, at half of what the
    network's own kernel allows.
    """
    g = torch.Generator().manual_seed(5000 + seed)
    x = circle(way)
    angle = 2 * math.pi * torch.arange(POINTS, dtype=torch.float64) / POINTS

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()

    weights = [draw(degree, width, x.shape[1]), draw(width)]
    phases = 2 * math.pi * torch.rand(len(FREQUENCIES), generator=g)
    waves = [(k * angle + p).cos() for k, p in zip(FREQUENCIES, phases, strict=True)]

    def f() -> Tensor:
        factors = 2**0.5 * (x @ weights[0].transpose(1, 2)).relu()  # (N, 64, width)
        return factors.prod(0) @ weights[1] / width**0.5

    target = f().detach() + torch.stack(waves).sum(0)
    rate = float(0.5 / eigenvalues(way, degree).max())
    left = []
    for _ in range(HORIZON):
        miss = f() - target
        left.append(2 * torch.fft.rfft(miss.detach()).abs()[list(FREQUENCIES)] / POINTS)
        slopes = torch.autograd.grad(miss.square().sum() / (2 * POINTS), weights)
        with torch.no_grad():
            for w, slope in zip(weights, slopes, strict=True):
                w -= rate * slope
    return torch.stack(left)


def _circle(config: Config, images: Dataset) -> Numbers:
    left = errors(config["way"], config["strength"], config["seed"])
    found: dict[str, float] = {}
    for k, curve in zip(FREQUENCIES, left.T, strict=True):
        below = (curve < 0.5).nonzero()
        found[f"half {k}"] = int(below[0]) if len(below) else HORIZON
        found[f"left {k}"] = float(curve[-1])
    return found


class ProductNet(nn.Module):
    """The elementwise product of ReLU layers without biases, then a linear head.

    Args:
        degree: number N of layers that are multiplied.
        seed: of the weights.
    """

    def __init__(self, degree: int, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(5000 + seed)
        h = WIDTHS[degree]
        self.normalize = Normalize(0.286, 0.353)
        factors = [nn.Linear(784, h, bias=False) for _ in range(degree)]
        self.factors = nn.ModuleList(factors)
        self.head = nn.Linear(h, 10, bias=False)
        self.double()
        with torch.no_grad():
            # A ReLU halves the mean square; the head makes up for all of them but one.
            for layer, scale in (
                *((factor, 1 / 784) for factor in factors),
                (self.head, 2 ** (degree - 1) / h),
            ):
                w = layer.weight
                draw = torch.randn(w.shape, generator=g, dtype=torch.float64)
                w.copy_(draw * scale**0.5)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.normalize(x).flatten(1)
        factors = torch.stack([layer(flat).relu() for layer in self.factors])
        logits: Tensor = self.head(factors.prod(0))
        return logits


def fitted(degree: int, images: Dataset, seed: int) -> train.Fit:
    """Return a product network at its first epoch of training accuracy 0.85."""
    return train.fit(
        ProductNet(degree, seed),
        images.subset(min(4000, len(images.x_train)), 100, seed=seed),
        epochs=16,
        lr=8e-4,
        weight_decay=0.0,
        validation=0.0,
        checkpoint="matched",
        match=0.85,
        seed=seed,
        progress=False,
    )


def _tie(config: Config, images: Dataset) -> Numbers:
    degree, seed = config["strength"], config["seed"]
    fit = fitted(degree, images, seed)
    net, x, y = fit.model, images.x_test[:100], images.y_test[:100]
    right = net(x).argmax(1) == y
    near = nearest(net, x, y, ["l2", "linf"], steps=40)
    weights = [layer.weight.detach() for layer in net.factors]
    return {
        "epoch": fit.epoch,
        "clean accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        **{norm: float(r.distance[right].median()) for norm, r in near.items()},
        **compressibility(weights),
    }


STUDY = of_sample("lab05", SETTINGS, run)
