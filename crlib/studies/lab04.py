"""Lab 4: neural persistence, and the part of it that the places of weights make."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from crlib import compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "SETTINGS",
    "SHUFFLES",
    "STUDY",
    "deep",
    "fitted",
    "largest",
    "normalised",
    "paths",
    "persistence",
    "run",
    "tree_weights",
]

PENALTIES: dict[str, Callable[[Any], Tensor] | None] = {
    "plain": None,
    "rows": compress.group_lasso(0.02, scale_invariant=True),
    "spectrum": compress.nuclear_norm(0.02, scale_invariant=True),
}
SETTINGS: list[Config] = [
    {"way": way, "strength": 0.0 if PENALTIES.get(way) is None else 0.02}
    for way in ("start", *PENALTIES)
]


def tree_weights(w: Tensor) -> Tensor:
    """Return the weights of a maximum spanning tree ``(h + m - 1,)``, largest first.

    Args:
        w: weights ``(h, m)`` in [0, 1]: of the edge from each input to each output of
            a layer, that is of a complete bipartite graph.
    """
    h, m = w.shape
    row, column = torch.meshgrid(torch.arange(h), torch.arange(m), indexing="ij")
    # scipy minimises, and takes a zero for an edge that is not there.
    cost = (2 - w.double()).flatten().numpy()
    ends = row.flatten().numpy(), h + column.flatten().numpy()
    tree = minimum_spanning_tree(coo_matrix((cost, ends), shape=(h + m, h + m)))
    return 2 - torch.from_numpy(tree.data).sort().values


def largest(w: Tensor) -> Tensor:
    """Return the ``h + m - 1`` largest entries of ``(h, m)``, tree or not."""
    return w.flatten().topk(sum(w.shape) - 1).values


def persistence(v: Tensor, p: float = 2) -> float:
    r"""Return :math:`\big( (1 + \sum_i (1 - v_i)^p) / (n - 1) \big)^{1/p}`.

    Args:
        v: weights ``(n - 1,)`` in [0, 1] of the edges of a spanning tree.
        p: exponent.
    """
    return float((1 + (1 - v).pow(p).sum()) / len(v)) ** (1 / p)


def normalised(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return magnitudes over the largest one of all layers."""
    top = max(float(w.abs().max()) for w in weights)
    return [w.abs() / top for w in weights]


def paths(weights: Sequence[Tensor]) -> Tensor:
    """Return ``(m, K)``: from each input to each output, the best path's least weight.

    Args:
        weights: matrices ``(h, m)`` from input to head, not negative.
    """
    s = weights[0].T
    for w in weights[1:]:
        s = torch.stack([torch.minimum(s, row).amax(1) for row in w], 1)
    return s


def deep(weights: Sequence[Tensor]) -> float:
    """Return deep graph persistence: of the paths through standardised layers."""
    alike = normalised([(w - w.mean()) / w.std() for w in weights])
    return persistence(tree_weights(paths(alike)))


def _all(w: Tensor, g: torch.Generator) -> Tensor:
    return w.flatten()[torch.randperm(w.numel(), generator=g)].view(w.shape)


def _rows(w: Tensor, g: torch.Generator) -> Tensor:
    order = torch.rand(w.shape, generator=g, dtype=torch.float64).argsort(1)
    return w.gather(1, order)


# Which entries change places: all, those of a row, or those of a column.
SHUFFLES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "all": _all,
    "rows": _rows,
    "columns": lambda w, g: _rows(w.T, g).T,
}


def fitted(way: str, images: Dataset, seed: int) -> MLP:
    """Return a network, trained on four thousand images or as it starts."""
    few = images.subset(min(4000, len(images.x_train)), 100, seed=seed)
    net = MLP((784, 128, 128, 10), mean=0.286, std=0.353, seed=4000 + seed).double()
    if way == "start":
        return net
    fit = train.fit(
        net,
        few,
        epochs=8,
        weight_decay=0.0,
        penalty=PENALTIES[way],
        validation=0.0,
        checkpoint="last",
        seed=seed,
        progress=False,
    )
    model: MLP = fit.model
    return model


def run(config: Config, images: Dataset) -> Numbers:
    """Return the persistence of each layer, and what shuffles take away from it."""
    way, seed = config["way"], config["seed"]
    net = fitted(way, images, seed)
    g = torch.Generator().manual_seed(4000 + seed)
    found: dict[str, float] = {}
    for n, w in enumerate(normalised(net.weights), 1):
        found[f"NP {n}"] = whole = persistence(tree_weights(w))
        found[f"floor {n}"] = persistence(largest(w))
        for name, shuffle in SHUFFLES.items():
            again = [persistence(tree_weights(shuffle(w, g))) for _ in range(3)]
            found[f"excess {name} {n}"] = whole - sum(again) / 3
    found["NP"] = sum(found[f"NP {n}"] for n in (1, 2, 3)) / 3
    found["DGP"] = deep(net.weights)
    found |= compressibility(net.weights[:-1])
    if way != "start":
        x, y = images.x_test[:200], images.y_test[:200]
        right = net(x).argmax(1) == y
        near = nearest(net, x, y, ["l2"], steps=40)["l2"]
        found["l2"] = float(near.distance[right].median())
        found["clean accuracy"] = metrics.accuracy(net, images.x_test, images.y_test)
    return found


STUDY = of_sample("lab04", SETTINGS, run)
