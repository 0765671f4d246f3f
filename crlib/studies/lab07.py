"""Lab 7: what the adversarial perturbations of several networks have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.lab01 import start
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "SETTINGS",
    "STUDY",
    "aims",
    "class_means",
    "fools",
    "judge",
    "networks",
    "pair_cosine",
    "push",
    "reads",
    "run",
]

MODELS, IMAGES, EPS, STRENGTH = 6, 100, 2.0, 3.0
SIZES = (784, 128, 128, 10)
# The scale of a start in He's, or the rank of the hidden layers.
SETTINGS: list[Config] = [
    {"way": "full", "strength": 1.0},
    {"way": "full", "strength": 0.4},
    {"way": "rank", "strength": 8.0},
]


def networks(way: str, strength: float, images: Dataset, seed: int) -> list[MLP]:
    """Return six networks, each trained on three thousand images of its own.

    Args:
        way: ``"full"``, from Gaussian weights of the scale ``strength`` in He's; or
            ``"rank"``, with hidden matrices of the rank ``strength``.
        strength: see ``way``.
        images: in float64; each network draws its part of them.
        seed: of starts and parts.
    """
    found = []
    for own in range(7000 + MODELS * seed, 7000 + MODELS * (seed + 1)):
        rank = int(strength) if way == "rank" else None
        net = MLP(SIZES, rank=rank, mean=0.286, std=0.353, seed=own).double()
        if way == "full":
            with torch.no_grad():
                for layer, w in zip(net.layers, start(SIZES, "He", own), strict=True):
                    layer.weight.copy_(strength * w)  # type: ignore[operator]
        fit = train.fit(
            net,
            images.subset(min(3000, len(images.x_train)), 10, seed=own),
            epochs=5,
            lr=2e-3,
            weight_decay=0.0,
            validation=0.0,
            checkpoint="last",
            seed=own,
            progress=False,
        )
        found.append(fit.model)
    return found


def aims(y: Tensor, seed: int) -> Tensor:
    """Return for each label ``(N,)`` a random other one of ten."""
    g = torch.Generator().manual_seed(7500 + seed)
    return (y + 1 + torch.randint(9, y.shape, generator=g)) % 10


def push(net: MLP, x: Tensor, labels: Tensor, *, towards: bool) -> Tensor:
    """Return perturbations that all have been pushed equally far, as unit vectors.

    Fifteen l2 steps of a third of a unit on the cross-entropy, in the ball of radius
    two and in the box, that do not stop when the label changes.

    Args:
        net: attacked.
        x: images ``(N, 1, 28, 28)``.
        labels: ``(N,)``, to reach or to leave.
        towards: whether to reach them.

    Returns:
        ``(N, 784)``.
    """
    delta = torch.zeros_like(x)
    for _ in range(15):
        z = (x + delta).requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(z), labels, reduction="sum")
        (g,) = torch.autograd.grad(loss, z)
        delta = delta + (-1 if towards else 1) * EPS / 6 * _unit(g)
        size = delta.flatten(1).norm(dim=1).clamp_min(EPS)
        delta = (x + delta * (EPS / size)[:, None, None, None]).clamp(0, 1) - x
    return _unit(delta).flatten(1)


def _unit(v: Tensor) -> Tensor:
    """Return each sample of ``(N, ...)`` at length one."""
    size = v.flatten(1).norm(dim=1).clamp_min(1e-300)
    return v / size.view(-1, *[1] * (v.ndim - 1))


def pair_cosine(deltas: Tensor) -> float:
    """Return the mean cosine of two models' unit vectors, of ``(M, N, d)``."""
    m = len(deltas)
    total = deltas.sum(0).square().sum(1).mean()
    return float((total - m) / (m * (m - 1)))


def class_means(images: Dataset) -> Tensor:
    """Return the mean training image of each class, ``(10, 784)``."""
    x, y = images.x_train.flatten(1), images.y_train
    return torch.stack([x[y == k].mean(0) for k in range(10)])


def judge(images: Dataset) -> MLP:
    """Return a linear classifier of clean images: a machine in place of a reader."""
    return train.fit(
        MLP((784, 10), mean=0.286, std=0.353, seed=77),
        images,
        epochs=6,
        validation=0.0,
        checkpoint="last",
        seed=77,
        progress=False,
    ).model


def reads(
    classifier: MLP, images: Dataset, v: Tensor, strength: float = STRENGTH
) -> Tensor:
    """Return the labels ``(N,)`` that a judge reads in ``(N, 784)`` perturbations.

    It is shown the mean training image plus ``strength`` times the unit vector.
    """
    middle = images.x_train.flatten(1).mean(0)
    with torch.no_grad():
        return classifier(middle + strength * _unit(v)).argmax(1)


def fools(net: MLP, x: Tensor, y: Tensor, v: Tensor) -> float:
    """Return the share of right images that a step of two along ``v`` makes wrong."""
    moved = (x + EPS * _unit(v).view_as(x)).clamp(0, 1)
    with torch.no_grad():
        right = net(x).argmax(1) == y
        return float((net(moved).argmax(1) != y)[right].double().mean())


def run(config: Config, images: Dataset) -> Numbers:
    """Return what six networks' perturbations show, alone and averaged."""
    seed = config["seed"]
    nets = networks(config["way"], config["strength"], images, seed)
    x, y = images.x_test[:IMAGES], images.y_test[:IMAGES]
    aim = aims(y, seed)
    wanted = torch.stack([push(net, x, aim, towards=True) for net in nets])
    away = torch.stack([push(net, x, y, towards=False) for net in nets])
    g = torch.Generator().manual_seed(7900 + seed)
    noise = torch.randn(away[0].shape, generator=g, dtype=x.dtype)
    right = nets[0](x).argmax(1) == y
    near = nearest(nets[0], x, y, ["l2"], steps=40)["l2"]
    shapes = [compressibility(net.weights[:-1]) for net in nets]
    return {
        "clean accuracy": _mean(
            [metrics.accuracy(net, images.x_test, images.y_test) for net in nets]
        ),
        "spectral error": _mean([shape["spectral error"] for shape in shapes]),
        "row error": _mean([shape["row error"] for shape in shapes]),
        "l2": float(near.distance[right].median()),
        **_recognised(wanted, away, y, aim, images, noise),
        **_fooled(nets, away, x, y, images, noise),
    }


def _recognised(
    wanted: Tensor,
    away: Tensor,
    y: Tensor,
    aim: Tensor,
    images: Dataset,
    noise: Tensor,
) -> dict[str, float]:
    """Return what a judge reads, and the cosines, for means of one, two and six."""
    means, classifier = class_means(images), judge(images)
    ways = _unit(means[aim] - means[y])
    cosine = pair_cosine(wanted)
    # (784, 100): where nearly all of the images' variance is.
    axes = metrics.principal_directions(images.x_train, 100)
    found = {"pair cosine": cosine}
    for k in (1, 2, MODELS):
        groups = [wanted[i : i + k].mean(0) for i in range(0, MODELS, k)]
        left = [away[i : i + k].mean(0) for i in range(0, MODELS, k)]
        along = _mean([float((_unit(v) * ways).sum(1).mean()) for v in groups])
        found |= {
            f"class cosine {k}": along,
            f"limit {k}": along * (1 + (1 / cosine - 1) / k) ** 0.5,
            f"reads target {k}": _mean(
                [_share(reads(classifier, images, v) == aim) for v in groups]
            ),
            f"reads true {k}": _mean(
                [_share(reads(classifier, images, -v) == y) for v in left]
            ),
            f"off data {k}": 1
            - _mean([float(metrics.energy_share(v, axes).mean()) for v in groups]),
        }
    found["reads noise"] = _share(reads(classifier, images, noise) == aim)
    return found


def _fooled(
    nets: Sequence[MLP],
    away: Tensor,
    x: Tensor,
    y: Tensor,
    images: Dataset,
    noise: Tensor,
) -> dict[str, float]:
    """Return whom perturbations fool: alone, averaged, and without what is shared."""
    classifier = judge(images)
    rows = []
    for i, net in enumerate(nets):
        other = (i + 1) % MODELS
        five = _unit((away.sum(0) - away[i]) / (MODELS - 1))
        rest = away[i] - (away[i] * five).sum(1, keepdim=True) * five
        rows.append(
            {
                "noise fools": fools(net, x, y, noise),
                "fools own": fools(net, x, y, away[i]),
                "fools other": fools(net, x, y, away[other]),
                "five fool other": fools(net, x, y, five),
                "rest fools own": fools(net, x, y, rest),
                "rest fools other": fools(nets[other], x, y, rest),
                "rest reads true": _share(reads(classifier, images, -rest) == y),
            }
        )
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def _share(found: Tensor) -> float:
    return float(found.double().mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


STUDY = of_sample("lab07", SETTINGS, run)
