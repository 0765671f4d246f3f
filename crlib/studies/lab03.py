"""Lab 3: how far the loss is spread out, times how steep it is."""

from dataclasses import replace

import torch
from torch import Tensor

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "LINES",
    "SETTINGS",
    "STUDY",
    "fitted",
    "lines",
    "losses",
    "run",
    "spreads",
    "square",
    "two_features",
]

# Directions of lines through an image, each with half the length of the line.
LINES = (
    ("pixel", 0.5),
    ("random", 0.5),
    ("random", 3.0),
    ("gradient", 0.5),
    ("gradient", 3.0),
    ("image", 3.0),
)
EPOCHS = (1, 2, 4, 8)
SETTINGS: list[Config] = [
    {"part": "pixels", "way": "full", "strength": 0},
    {"part": "pixels", "way": "rank", "strength": 8},
    {"part": "features", "way": "full", "strength": 0},
]


def run(config: Config, images: Dataset) -> Numbers:
    """Return the numbers of one network: on all pixels, or on two features."""
    part = {"pixels": _pixels, "features": _features}[config["part"]]
    return part(config, images)


def spreads(psi: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return :math:`\Delta x`, :math:`\Delta p` and the boundary's B, each ``(N,)``.

    Args:
        psi: values of N functions ``(N, T)``; they are normalised here.
        t: where, ``(T,)``, rising.
    """
    psi = psi / torch.trapezoid(psi.square(), t)[:, None].sqrt()
    weight = psi.square()
    mean = torch.trapezoid(t * weight, t)
    dx = torch.trapezoid((t - mean[:, None]).square() * weight, t).sqrt()
    (slope,) = torch.gradient(psi, spacing=(t,), dim=1, edge_order=2)
    dp = torch.trapezoid(slope.square(), t).sqrt()
    return dx, dp, (t[-1] - mean) * weight[:, -1] + (mean - t[0]) * weight[:, 0]


def square(psi: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same for the first coordinate of functions on a square.

    Args:
        psi: ``(N, T, T)``, the first coordinate in the middle.
        t: ``(T,)``, for both coordinates.
    """
    whole = torch.trapezoid(torch.trapezoid(psi.square(), t), t)
    psi = psi / whole[:, None, None].sqrt()
    weight = torch.trapezoid(psi.square(), t)  # (N, T)
    mean = torch.trapezoid(t * weight, t)
    dx = torch.trapezoid((t - mean[:, None]).square() * weight, t).sqrt()
    (slope,) = torch.gradient(psi, spacing=(t,), dim=1, edge_order=2)
    dp = torch.trapezoid(torch.trapezoid(slope.square(), t), t).sqrt()
    return dx, dp, (t[-1] - mean) * weight[:, -1] + (mean - t[0]) * weight[:, 0]


def fitted(way: str, rank: int, images: Dataset, seed: int) -> train.Fit:
    """Return a network on pixels, free or with hidden matrices of a rank."""
    sizes = (784, 128, 128, 10)
    net = MLP(
        sizes, rank=rank if way == "rank" else None, mean=0.286, std=0.353, seed=seed
    )
    return train.fit(
        net,
        images,
        epochs=EPOCHS[-1],
        validation=0.0,
        checkpoint="last",
        keep=EPOCHS,
        seed=seed,
        progress=False,
    )


def lines(
    net: MLP, x: Tensor, y: Tensor, kind: str, reach: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return points of lines through images, and where on the line they are.

    Args:
        net: whose gradient the lines of the kind ``"gradient"`` follow.
        x: ``(N, 1, 28, 28)``; a line of the kind ``"pixel"`` sets its pixel anew.
        y: labels ``(N,)``.
        kind: see ``LINES``.
        reach: half the length.
        seed: of random directions.

    Returns:
        Points ``(N, 201, 784)``, not clipped to the box, and ``t`` ``(201,)``.
    """
    g = torch.Generator().manual_seed(3000 + seed)
    x = x.flatten(1).clone()
    if kind == "pixel":
        v = torch.zeros_like(x)
        chosen = torch.randint(784, (len(x), 1), generator=g)
        v.scatter_(1, chosen, 1.0)
        x.scatter_(1, chosen, 0.5)
    elif kind == "random":
        v = torch.randn(x.shape, generator=g, dtype=x.dtype)
    elif kind == "image":
        v = x.roll(1, 0) - x
    else:
        at = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(at), y, reduction="sum")
        (v,) = torch.autograd.grad(loss, at)
    v = v / v.norm(dim=1, keepdim=True)
    t = torch.linspace(-reach, reach, 201, dtype=x.dtype)
    return x[:, None] + t[:, None] * v[:, None], t


def losses(net: MLP, points: Tensor, y: Tensor) -> Tensor:
    """Return the loss ``(N, T)`` at points ``(N, T, d)`` for labels ``(N,)``."""
    with torch.no_grad():
        z = net(points.flatten(0, 1)).log_softmax(1)
    label = y.repeat_interleave(points.shape[1])
    return -z.gather(1, label[:, None]).view(points.shape[:2])


def _judge(name: str, dx: Tensor, dp: Tensor, b: Tensor) -> dict[str, float]:
    product = dx * dp
    return {
        f"{name} dx": float(dx.median()),
        f"{name} dp": float(dp.median()),
        f"{name} product": float(product.median()),
        f"{name} below half": float((product < 0.5).double().mean()),
        # A thousandth for the grid.
        f"{name} below bound": float(
            (product < 0.5 * (1 - b).abs() - 1e-3).double().mean()
        ),
    }


def _pixels(config: Config, images: Dataset) -> Numbers:
    seed = config["seed"]
    fit = fitted(config["way"], config["strength"], images, seed)
    net, x, y = fit.model, images.x_test[:40], images.y_test[:40]
    found: dict[str, float] = {
        "clean accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "top share": compressibility(net.weights[:1])["top share"],
    }
    for kind, reach in LINES:
        points, t = lines(net, x, y, kind, reach, seed)
        found |= _judge(f"{kind} {reach:g}", *spreads(losses(net, points, y), t))
    for epoch in EPOCHS[:-1]:
        early = fit.at(f"epoch {epoch}").model
        points, t = lines(early, x, y, "gradient", 0.5, seed)
        found |= _judge(f"epoch {epoch}", *spreads(losses(early, points, y), t))
    x, y = images.x_test[:100], images.y_test[:100]
    right = net(x).argmax(1) == y
    near = nearest(net, x, y, ["l2"], steps=40)["l2"]
    found["l2"] = float(near.distance[right].median())
    return found


def two_features(images: Dataset) -> Dataset:
    """Return the images' first two principal components, scaled to [0, 1]."""
    flat = images.x_train.flatten(1)
    middle = flat.mean(0)
    axes = torch.linalg.svd(flat[:2000] - middle, full_matrices=False).Vh[:2].T
    low, high = ((flat - middle) @ axes).aminmax(dim=0)

    def scaled(x: Tensor) -> Tensor:
        return (((x.flatten(1) - middle) @ axes - low) / (high - low)).clamp(0, 1)

    return replace(images, x_train=scaled(images.x_train), x_test=scaled(images.x_test))


def _features(config: Config, images: Dataset) -> Numbers:
    seed, few = config["seed"], two_features(images)
    net = MLP((2, 64, 64, 10), bias=True, mean=0.4, std=0.2, seed=seed)
    fit = train.fit(
        net,
        few,
        epochs=EPOCHS[-1],
        lr=3e-3,
        weight_decay=0.0,
        validation=0.0,
        checkpoint="last",
        keep=(0, *EPOCHS),
        seed=seed,
        progress=False,
    )
    t = torch.linspace(0, 1, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(t, t)
    found = {"clean accuracy": metrics.accuracy(fit.model, few.x_test, few.y_test)}
    for epoch in (0, *EPOCHS):
        with torch.no_grad():
            z = fit.at(f"epoch {epoch}").model(grid).log_softmax(1)
        psi = -z.T.reshape(10, 121, 121)  # One function a class.
        both = torch.cat([psi, psi.transpose(1, 2)])  # And the other coordinate.
        found |= _judge(f"epoch {epoch}", *square(both, t))
    return found


STUDY = of_sample("lab03", SETTINGS, run)
