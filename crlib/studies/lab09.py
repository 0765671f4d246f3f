"""Lab 9: which neurons of a first layer are fragile, and whether to amplify them."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import MLP, ConvNet, weight_layers
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "CELLS",
    "EPS",
    "SETTINGS",
    "STUDY",
    "WAYS",
    "drops",
    "fgsm",
    "fitted",
    "halves",
    "parts",
    "rescaled",
    "run",
    "without",
]

EPS = 0.03
WAYS = ("dense", "convolution")
SETTINGS: list[Config] = [{"way": way} for way in WAYS]
# Which score rescales the rows, and by how much at most.
CELLS = (
    ("attacked drop", 0.1),
    ("attacked drop", 0.3),
    ("clean drop", 0.1),
    ("clean drop", 0.3),
    ("random", 0.3),
)
Half = tuple[Tensor, Tensor]


def fitted(way: str, images: Dataset, seed: int) -> Any:
    """Return a trained network whose first layer is dense, or a convolution."""
    own = 900 + seed
    if way == "dense":
        net: Any = MLP((784, 64, 10), mean=0.286, std=0.353, seed=own)
        few, epochs, lr = images, 6, 1e-3
    else:
        net = ConvNet((12, 16, 16), image=(1, 28, 28), mean=0.286, std=0.353, seed=own)
        few = images.subset(min(3000, len(images.x_train)), 10, seed=own)
        epochs, lr = 4, 3e-3
    return train.fit(
        net,
        few,
        epochs=epochs,
        lr=lr,
        validation=0.0,
        checkpoint="last",
        seed=own,
        progress=False,
    ).model


def halves(images: Dataset, n: int) -> tuple[Half, Half]:
    """Return two disjoint sets of n test images: one to score, one to judge."""
    x, y = images.x_test, images.y_test
    return (x[:n], y[:n]), (x[n : 2 * n], y[n : 2 * n])


def fgsm(net: Any, x: Tensor, y: Tensor, eps: float = EPS) -> Tensor:
    """Return ``x`` after one step of full length on the cross-entropy, in the box."""
    z = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(net(z), y, reduction="sum")
    (g,) = torch.autograd.grad(loss, z)
    return (x + eps * g.sign()).clamp(0, 1)


def parts(net: Any, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    r"""Split the first-order gain of FGSM over the neurons of the first layer.

    Part i is :math:`\sum \partial_{z_i} L\, w_i^\top \mathrm{sign}(g)` over samples
    and, of a convolution, over positions.

    Args:
        net: whose first layer with weights is affine.
        x: images ``(N, 1, 28, 28)``.
        y: labels ``(N,)``.

    Returns:
        The parts ``(h,)`` for a step of length one, and their sum over the gain that
        each neuron would have with a step of its own, dense layers only (else NaN).
    """
    layer = weight_layers(net)[0]
    with _watched(layer) as seen:
        at = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(at), y, reduction="sum")
        g, slope = torch.autograd.grad(loss, (at, seen[0]))
        with torch.no_grad():
            net(x + g.sign())
    # The layer is affine: what a whole step changes is its first order.
    part = (slope * (seen[1] - seen[0].detach())).sum(0)  # (h,) or (h, H, W)
    if part.ndim > 1:
        return part.flatten(1).sum(1), float("nan")
    steep = layer.weight.detach().abs().sum(1) / net.normalize.std
    return part, float(part.sum() / (slope.abs() @ steep).sum())


@contextlib.contextmanager
def _watched(layer: Any) -> Iterator[list[Tensor]]:
    """Collect what a layer puts out."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, out: seen.append(out))
    try:
        yield seen
    finally:
        hook.remove()


def without(net: Any, i: int) -> Any:
    """Return a copy whose first layer lacks neuron or channel ``i``."""
    net = copy.deepcopy(net)
    layer = weight_layers(net)[0]
    with torch.no_grad():
        layer.weight[i] = 0
        if layer.bias is not None:
            layer.bias[i] = 0
    return net


def drops(net: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return what the absence of each neuron costs, ``(h,)`` a measure.

    Accuracy lost and loss gained, on clean images and on the FGSM images of the whole
    network.
    """
    sets = {"clean": x, "attacked": fgsm(net, x, y)}
    width = len(weight_layers(net)[0].weight)
    found: dict[str, Tensor] = {}
    for name, images in sets.items():
        whole = _accuracy_and_loss(net, images, y)
        each = [_accuracy_and_loss(without(net, i), images, y) for i in range(width)]
        shares, losses = torch.tensor(each, dtype=torch.float64).T
        found |= {f"{name} drop": whole[0] - shares, f"{name} loss": losses - whole[1]}
    return found


def _accuracy_and_loss(net: Any, x: Tensor, y: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        z = net(x)
    loss = torch.nn.functional.cross_entropy(z, y)
    return float((z.argmax(1) == y).double().mean()), float(loss)


def _moves(net: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return how far FGSM moves each activation of the first layer, ``(h,)``."""
    attacked = fgsm(net, x, y)
    with _watched(weight_layers(net)[0]) as seen, torch.no_grad():
        net(x)
        net(attacked)
    moved = (seen[1].relu() - seen[0].relu()).abs()
    return moved.transpose(0, 1).flatten(1).mean(1)


def rescaled(net: Any, score: Tensor, strength: float) -> Any:
    r"""Return a copy whose first rows are amplified by the rank of a score.

    Row i times :math:`1 + \alpha r_i` with :math:`r_i` from -1 for the smallest score
    to 1 for the largest; then the Frobenius norm of before. Ties share their rank.
    """
    rank = torch.as_tensor(stats.rankdata(score.numpy()), dtype=torch.float64)
    r = 2 * (rank - 1) / (len(rank) - 1) - 1
    net = copy.deepcopy(net)
    weight = weight_layers(net)[0].weight
    with torch.no_grad():
        new = weight * (1 + strength * r)[:, None]
        weight.copy_(new * (weight.norm() / new.norm()))
    return net


def run(config: Config, images: Dataset) -> Numbers:
    """Return how reliable scores of neurons are, what they tell, and what they mend."""
    seed = config["seed"]
    net = fitted(config["way"], images, seed)
    first, second = halves(images, 1000 if config["way"] == "dense" else 300)
    scores = drops(net, *first)
    part, kept = parts(net, *first)
    scores["share"] = part / part.sum()
    again = drops(net, *second)
    again["share"] = parts(net, *second)[0]
    moves = _moves(net, *first)
    found = {
        "clean accuracy": metrics.accuracy(net, *second),
        "fgsm": metrics.accuracy(net, fgsm(net, *second), second[1]),
        "negative parts": float((part < 0).double().mean()),
        "clean and attacked": _rho(scores["clean drop"], scores["attacked drop"]),
    }
    for name, score in scores.items():
        found[f"reliability {name}"] = _rho(score, again[name])
        found[f"{name} and moves"] = _rho(score, moves)
        if name != "share":
            found[f"{name} and share"] = _rho(score, scores["share"])
    if config["way"] == "dense":
        found |= {"kept": kept, **_remedies(net, scores, second, seed)}
    return found


def _remedies(
    net: MLP, scores: Mapping[str, Tensor], half: Half, seed: int
) -> dict[str, float]:
    """Return what rescaled networks reach on images that chose nothing."""
    x, y = half
    g = torch.Generator().manual_seed(9000 + seed)
    scores = {**scores, "random": torch.rand(64, generator=g, dtype=torch.float64)}
    fixed = fgsm(net, x, y)
    nets = {"whole": net} | {
        f"{name} {a:g}": rescaled(net, scores[name], a) for name, a in CELLS
    }
    found: dict[str, float] = {}
    for name, other in nets.items():
        near = nearest(other, x[:200], y[:200], ["linf"], steps=40)["linf"]
        shape = compressibility(other.weights[:1])
        found |= {
            f"{name}: clean": metrics.accuracy(other, x, y),
            f"{name}: fixed": metrics.accuracy(other, fixed, y),
            f"{name}: fgsm": metrics.accuracy(other, fgsm(other, x, y), y),
            f"{name}: nearest": float((near.distance > EPS).double().mean()),
            f"{name}: row error": shape["row error"],
            f"{name}: row share": shape["row share"],
        }
    return found


def _rho(a: Tensor, b: Tensor) -> float:
    return float(stats.spearmanr(a.numpy(), b.numpy()).statistic)


STUDY = of_sample("lab09", SETTINGS, run)
