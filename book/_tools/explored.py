"""What the explorable figures compute with: networks and tables, as plain data.

``data(name)`` is what the page of an explorable carries. Nothing here is typed that
crlib can compute: networks are trained, tables are those of the studies. What takes
seconds is kept by the key of all it depends on.
"""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas
import torch
from scipy import stats
from torch import Tensor

from book._tools import cache
from book._tools.depends import Sources
from crlib import data as datasets
from crlib import studies, train
from crlib.models import MLP

LEVEL = 0.95


def lens() -> dict[str, Any]:
    """Return nothing: a layer of two inputs is a formula."""
    return {}


def attack() -> dict[str, Any]:
    """Return two networks of eight neurons on three clouds, one of rank one."""
    means = torch.tensor([[0.22, 0.3], [0.78, 0.38], [0.45, 0.78]])
    clouds = datasets.gaussian_classes(600, 60, means, noise=0.1, seed=0).double()
    networks = []
    for name, rank in (("full", None), ("of rank one", 1)):
        net = MLP((2, 8, 3), bias=True, rank=rank, mean=0.5, std=0.25, seed=1)
        fitted = train.fit(
            net, clouds, epochs=20, lr=0.02, checkpoint="last", progress=False
        )
        networks.append({"name": name, **layers(fitted.model)})
    return {
        "networks": networks,
        "classes": ["A", "B", "C"],
        "points": clouds.x_test.tolist(),
        "labels": clouds.y_test.tolist(),
    }


def layers(net: MLP) -> dict[str, Any]:
    """Return the weights of a network with biases, and its normalisation."""
    return {
        "mean": float(net.normalize.mean),
        "std": float(net.normalize.std),
        "weights": [w.tolist() for w in net.weights],
        "biases": [layer.bias.tolist() for layer in net.layers],  # type: ignore[operator]
    }


def draw() -> dict[str, Any]:
    """Return a network whose first layer has rank eight, a boot and a trouser."""
    sample = datasets.fashion_mnist_sample().double()
    classes = datasets.SETS["fashion_mnist"].classes
    net = MLP((784, 128, 10), rank=8, mean=0.286, std=0.353, seed=0)
    fitted = train.fit(net, sample, epochs=6, checkpoint="last", progress=False)
    first, head = fitted.model.layers
    found: dict[str, Any] = {
        "mean": float(net.normalize.mean),
        "std": float(net.normalize.std),
        "classes": classes,
        "right": packed(first.right),
        "left": packed(first.left),
        "head": packed(head.weight),
    }
    with torch.no_grad():
        told = fitted.model(sample.x_test).argmax(1)
    for garment in ("boot", "trouser"):
        label = classes.index(garment)
        own = (sample.y_test == label) & (told == label)
        image = sample.x_test[own][0].flatten()
        pixels = (255 * image).round().byte().numpy().tobytes()
        found[garment] = base64.b64encode(pixels).decode()
    return found


def packed(w: Tensor) -> dict[str, Any]:
    """Return a matrix as integers of sixteen bits, little end first, and their unit."""
    unit = float(w.detach().abs().max()) / (2**15 - 1)
    whole = (w.detach() / unit).round().numpy().astype("<i2")
    return {
        "shape": list(w.shape),
        "unit": unit,
        "data": base64.b64encode(whole.tobytes()).decode(),
    }


def unpacked(told: Mapping[str, Any]) -> Tensor:
    """Return the matrix that :func:`packed` wrote, in float64."""
    whole = np.frombuffer(base64.b64decode(told["data"]), "<i2").astype(float)
    return torch.from_numpy(whole * told["unit"]).view(told["shape"])


MEASURES = (
    ("median l2 distance, images labelled right", "l2", "ratio"),
    ("median linf distance, images labelled right", "linf", "ratio"),
    ("robust accuracy in l2, all images", "robust l2", "points"),
    ("robust accuracy in linf, all images", "robust linf", "points"),
)
# As in the chapter: a smaller learning rate, and a penalty that only shrinks.
CONTROLS = {
    "plain": ("plain", 0.0),
    "slower": ("learning rate", 3e-4),
    "Frobenius": ("Frobenius", 0.003),
}


def forking() -> dict[str, Any]:
    """Return two tables by setting, checkpoint, measure and seed, and quantiles."""
    networks, cifar = studies.published("networks"), studies.published("cifar10")
    tables = [study("Fashion-MNIST, fully connected", networks)]
    for name in cifar["network"].unique():
        own = cifar[cifar["network"] == name]
        tables.append(study(f"CIFAR-10, {name}", own))
    seeds = max(table["seeds"] for table in tables)
    return {
        "tables": tables,
        # What the chapter on rows talks about.
        "start": "rows, scale-invariant 0.2",
        "measures": [{"name": name, "kind": kind} for name, _, kind in MEASURES],
        # Of Student's distribution, by the number of runs.
        "quantiles": {
            n: float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) for n in range(2, seeds + 1)
        },
    }


def study(name: str, table: pandas.DataFrame) -> dict[str, Any]:
    """Return the runs of one table: a list of seeds for each setting and checkpoint.

    A checkpoint that a run did not meet is None.
    """
    ways = list(dict.fromkeys(zip(table["way"], table["strength"], strict=True)))
    seeds = sorted(int(seed) for seed in table["seed"].unique())
    rules = list(dict.fromkeys(table["checkpoint"]))
    place = ["way", "strength", "checkpoint", "seed"]
    met = table[table["met"].astype(bool)].set_index(place)
    values = {column: met[column].to_dict() for _, column, _ in MEASURES}

    def runs(way: tuple[str, float], rule: str, column: str) -> list[float | None]:
        return [values[column].get((*way, rule, seed)) for seed in seeds]

    return {
        "name": name,
        "checkpoints": rules,
        "settings": [w if w == "plain" else f"{w} {s:g}" for w, s in ways],
        "controls": [(ways.index(c), n) for n, c in CONTROLS.items() if c in ways],
        "seeds": len(seeds),
        "values": [
            [[runs(way, rule, c) for _, c, _ in MEASURES] for rule in rules]
            for way in ways
        ],
    }


def gauge() -> dict[str, Any]:
    """Return the network of four neurons that joins a sine at five knots."""
    knots = np.linspace(0, 1, 5)
    heights = np.sin(1.5 * math.pi * knots)
    slopes = np.diff(heights) / np.diff(knots)
    return {
        "w": [1.0] * 4,
        "b": (-knots[:4]).tolist(),
        "a": np.diff(slopes, prepend=0.0).tolist(),
        "c": float(heights[0]),
    }


MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    made.__name__: made for made in (lens, attack, draw, forking, gauge)
}


def data(name: str) -> dict[str, Any]:
    """Return what the page of an explorable carries, from the cache if it is there."""
    sources = Sources()
    key = sources.key([sources.module(__name__)], name)
    known: dict[str, Any] | None = cache.get("explorables", key)
    if known is None:
        known = MAKERS[name]()
        cache.put("explorables", key, known)
    return known
