"""Which cheap number ranks networks by their attacked distance.

Networks of six families, each built as in the study it comes from, on the small images
of the study `adversarial`: trained for a short and for a long time, of low rank, with
few neurons or rows, with a spectrum or rows on a dial, trained on attacks, and cut
after training. Of each: what an attack finds, and what is at hand without one.
"""

from typing import Any

import torch
from torch import Tensor

from crlib import certify, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import adversarial, cuts, debate, networks
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, compressibility, differences, nearest

__all__ = ["FAMILIES", "STUDY", "judge", "made"]

# Of each family: training, way, strength and epochs of its settings.
FAMILIES: dict[str, tuple[tuple[str, str, float, int], ...]] = {
    "time": tuple(("standard", "plain", 0, n) for n in (3, 6, 12, 24, 48)),
    "rank": (
        *(("standard", "rank", r, 12) for r in (64, 16, 8)),
        *(
            ("standard", f"rank, {how}", 16, 12)
            for how in ("principal", "orthonormal", "both")
        ),
    ),
    "rows": (
        *(("standard", "rows, scale-invariant", s, 12) for s in (0.03, 0.1, 0.3)),
        *(("standard", "width", n, 12) for n in (48, 16)),
    ),
    "dial": (
        *(("standard", "spectral dial", a, 12) for a in (0, 0.5, 1)),
        *(("standard", "row dial", a, 12) for a in (0.5, 1)),
    ),
    "adversarial": (
        *(("linf", "plain", 0, 12), ("linf", "rank", 16, 12)),
        *(("linf", "rank, both", 16, 12), ("linf", "rows, scale-invariant", 0.1, 12)),
        *(("l2", "plain", 0, 12), ("l2", "rank", 16, 12)),
    ),
    "cut": tuple(
        ("standard", way, strength, 12)
        for way, strength in (
            ("rank", 16),
            ("weights", 0.75),
            ("rows", 0.25),
            ("bits", 3),
            ("epsilon", 0.4),
        )
    ),
}
IMAGES = 2000


def made(config: Config) -> tuple[MLP, Dataset]:
    """Train one network of the study, and cut it if its family says so.

    Args:
        config: ``family``, ``train``, ``way``, ``strength``, ``epochs``, ``seed`` and
            ``data``, as in the grid of the study.

    Returns:
        The network, and the data it was trained on.
    """
    family, way, strength = (config[name] for name in ("family", "way", "strength"))
    own = family in ("dial", "cut")
    base = {**config, "experiment": "damage", "images": IMAGES}
    start, images, options = adversarial.build(base | ({"way": "plain"} if own else {}))
    if family == "dial":
        dial = compress.row_dial if way == "row dial" else compress.spectral_dial
        options |= {
            "constraint": dial(strength, frobenius=networks.FROBENIUS),
            "constrain_every": 1 if way == "row dial" else 10,
            "weight_decay": 0.0,
        }
    net: MLP = train.fit(start, images, progress=False, **options).model
    return (cuts.cut(net, way, strength) if family == "cut" else net), images


def judge(net: MLP, images: Dataset, *, attacked: int = 200) -> dict[str, float]:
    """Measure what an attack finds, and what could stand for it.

    Args:
        net: the trained network.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked.

    Returns:
        Named numbers. ``l2`` and ``linf`` are median distances over the attacked
        images labelled right, and so are ``first order ...``, ``certificate ...``,
        ``margin``, ``slope ...`` (the dual norm of the margin's gradient) and ``one
        rival ...`` (the margin over it). ``noise estimate`` is the median margin over
        the root mean square of its change under noise of length one. ``attack gain``
        is the median factor by which the first layer stretches attacks, over that for
        differences of images. ``chi``, ``contrast`` and ``stable rank`` are of the
        first layer, the errors and ``row share`` means over the hidden layers.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    right = net(x).argmax(1) == y
    x, y = x[right], y[right]
    pairs = differences(images.x_test, images.y_test)
    near = nearest(net, x, y, ("l2", "linf"), steps=40)
    found = {"accuracy": metrics.accuracy(net, images.x_test, images.y_test)}
    margins, slopes = metrics.margin(net(x), y).detach(), _gradients(net, x, y)
    for norm, dual in (("l2", 2), ("linf", 1)):
        values = {
            norm: near[norm].distance,
            f"first order {norm}": metrics.first_order(net, x, y, norm=norm),
            f"certificate {norm}": certify.lipschitz_radius(net, x, y, norm=norm),
            f"one rival {norm}": margins / slopes.norm(dual, 1),
            f"slope {norm}": slopes.norm(dual, 1),
        }
        found |= {name: float(v.median()) for name, v in values.items()}
    change = metrics.margin(net(x + _noise(x)), y).detach() - margins
    found["margin"] = float(margins.median())
    found["noise estimate"] = found["margin"] / float(change.square().mean().sqrt())
    w, hit = net.weights[0].detach(), near["l2"].success
    moved = (near["l2"].x_adv - x)[hit].flatten(1)
    found["attack gain"] = _stretch(w, moved) / _stretch(w, pairs)
    first = debate.first_layer(net, pairs)
    found |= {name: first[name] for name in ("chi", "contrast")}
    found["stable rank"] = first["norm l2"] ** -2
    told = compressibility(net.weights[:-1])
    names = ("spectral error", "row error", "row share")
    return found | {name: told[name] for name in names}


def _stretch(w: Tensor, moves: Tensor) -> float:
    """Return the median factor by which ``w`` stretches ``moves`` ``(n, m)``."""
    return float(((moves @ w.T).norm(dim=1) / moves.norm(dim=1)).median())


def _gradients(net: MLP, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradients ``(N, d)`` of the margins."""
    z = x.detach().clone().requires_grad_()
    total = metrics.margin(net(z), y).sum()
    return torch.autograd.grad(total, z)[0].flatten(1)


def _noise(x: Tensor) -> Tensor:
    """Return noise of length one, shaped as the images."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _run(config: Config, device: str) -> Numbers:
    net, images = made(config)
    return judge(net.to(device), images.to(device), attacked=config["attacked"])


def _grid(seeds: int, **more: Any) -> list[Config]:
    return [
        {
            "family": family,
            "train": how,
            "way": way,
            "strength": strength,
            "epochs": epochs,
            "seed": seed,
            **more,
        }
        for family, settings in FAMILIES.items()
        for how, way, strength, epochs in settings
        for seed in range(seeds)
    ]


STUDY = Study(
    name="predictors",
    run=_run,
    grids={
        "quick": _grid(5, data="sample", attacked=200),
        "full": _grid(10, data="Fashion-MNIST", attacked=1000),
    },
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
