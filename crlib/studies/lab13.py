"""Lab 13: an accurate backbone, and a branch beside it trained adversarially."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crlib import attacks, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, of_sample

__all__ = [
    "SETTINGS",
    "STUDY",
    "Dilated",
    "backbone",
    "clean_loss",
    "constrained",
    "first_layer",
    "fitted",
    "judge",
    "part",
    "run",
    "width_of",
]

EPS = 0.1  # linf, input units, of training and of judging
BUDGETS = (0.05, EPS, 0.3)
HIDDEN, BRANCH = 64, 128
EPOCHS = 15
SETTINGS: list[Config] = [
    {"way": way, "strength": 0}
    for way in (
        "backbone",
        "dilated",
        "dilated, no constraint",
        "dilated, all trained",
        "fine-tuned",
        "branch alone",
        "from scratch",
    )
]


class Dilated(nn.Module):
    """The sum of the logits of a backbone and of a branch.

    Args:
        old: the backbone, copied.
        branch: its last layer starts at a tenth of its scale, so that the sum starts
            near the backbone.
        frozen: whether the backbone stays as it is.
    """

    def __init__(self, old: MLP, branch: MLP, *, frozen: bool = True) -> None:
        super().__init__()
        self.backbone, self.branch = copy.deepcopy(old), copy.deepcopy(branch)
        self.backbone.requires_grad_(not frozen)
        with torch.no_grad():
            self.branch.layers[-1].weight.mul_(0.1)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.backbone(x) + self.branch(x)
        return logits


def part(images: Dataset, seed: int) -> Dataset:
    """Return a thousand training images and two hundred test images to attack."""
    n, m = min(1000, len(images.x_train)), min(200, len(images.x_test))
    return images.subset(n, m, seed=1300 + seed)


def _mlp(*hidden: int, seed: int) -> MLP:
    return MLP((784, *hidden, 10), mean=0.286, std=0.353, seed=seed).double()


def backbone(few: Dataset, seed: int) -> MLP:
    """Return a network of two hidden layers, trained on clean images."""
    net: MLP = train.fit(
        _mlp(HIDDEN, HIDDEN, seed=seed),
        few,
        validation=0.0,
        checkpoint="last",
        seed=seed,
        progress=False,
    ).model
    return net


def clean_loss(net: Any, images: Dataset) -> float:
    """Return the mean cross-entropy of the clean training images."""
    with torch.no_grad():
        return float(cross_entropy(net(images.x_train), images.y_train))


def constrained(
    net: Any, few: Dataset, limit: float, seed: int, *, epochs: int = EPOCHS
) -> tuple[Any, float]:
    r"""Train adversarially under a limit on the clean loss, by dual ascent.

    .. math:: \mathrm{CE}(f(x'), y) + \lambda\, (\mathrm{CE}(f(x), y) - c)_+

    with points x' of five steps of PGD. After each step the multiplier rises by 0.05
    times the excess of the clean loss, and never falls below zero.

    Args:
        net: a copy of it is trained, as far as its parameters are not frozen.
        few: the images.
        limit: c; infinite for none.
        seed: of batches and attacks.
        epochs: with a learning rate that falls to zero as a cosine.

    Returns:
        The network, and the largest multiplier on the way.
    """
    net = copy.deepcopy(net).train()
    g = torch.Generator().manual_seed(70_000 + seed)
    adversary = train.pgd_adversary(eps=EPS, steps=5)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
    steps = epochs * math.ceil(len(few.x_train) / 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    multiplier, most = 0.0, 0.0
    for _ in range(epochs):
        for batch in torch.randperm(len(few.x_train), generator=g).split(128):
            x, y = few.x_train[batch], few.y_train[batch]
            loss = cross_entropy(net(adversary(net, x, y, g)), y)
            if limit < math.inf:
                excess = cross_entropy(net(x), y) - limit
                loss = loss + multiplier * excess.clamp_min(0)
                multiplier = max(0.0, multiplier + 0.05 * float(excess.detach()))
                most = max(most, multiplier)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval(), most


def fitted(way: str, old: MLP, few: Dataset, seed: int) -> tuple[Any, float]:
    """Return a network made in one way, and the largest multiplier of its training.

    Args:
        way: ``"backbone"``, nothing more; ``"dilated"``, a branch beside the frozen
            backbone, with ``", no constraint"`` or ``", all trained"``;
            ``"fine-tuned"``, the backbone itself trained on, under the constraint;
            ``"branch alone"`` and ``"from scratch"``, trained without any backbone.
        old: the backbone.
        few: the images.
        seed: of start, batches and attacks.
    """
    if way == "backbone":
        return old, 0.0
    limit = clean_loss(old, few)
    branch = _mlp(BRANCH, seed=100 + seed)
    if way == "fine-tuned":
        return constrained(old, few, limit, seed)
    if way == "branch alone":
        return constrained(branch, few, math.inf, seed)
    if way == "from scratch":
        return constrained(_mlp(HIDDEN, HIDDEN, seed=seed), few, math.inf, seed)
    net = Dilated(old, branch, frozen=way != "dilated, all trained")
    return constrained(
        net, few, math.inf if way == "dilated, no constraint" else limit, seed
    )


def first_layer(net: Any) -> Tensor:
    """Return the weights ``(h, 784)`` that meet the input, of all parts."""
    if isinstance(net, Dilated):
        return torch.cat([net.backbone.weights[0], net.branch.weights[0]])
    weight: Tensor = net.weights[0]
    return weight


def width_of(change: Tensor) -> Tensor:
    """Return the largest minus the smallest entry of each row, ``(n,)``."""
    return change.amax(1) - change.amin(1)


def judge(
    net: Any, old: MLP, most: float, few: Dataset, images: Dataset
) -> dict[str, float]:
    """Return accuracies, spectra, and how a network differs from its backbone.

    Args:
        net: as :func:`fitted` returns it.
        old: its backbone.
        most: the largest multiplier of its training.
        few: what it was trained on, and the test images to attack.
        images: all test images, for the clean accuracy.
    """
    x, y = few.x_test, few.y_test
    found = {
        "clean accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "right": metrics.accuracy(net, x, y),
        "clean loss": clean_loss(net, few),
        "multiplier": most,
    }
    for eps in BUDGETS:
        hit = attacks.worst_case(net, x, y, eps=eps, budget="quick")
        found[f"robust {eps}"] = hit.robust_accuracy
    w = first_layer(net)
    errors = compressibility([w])
    found |= {
        "srank": metrics.stable_rank(metrics.singular_values(w)),
        "spectral error": errors["spectral error"],
        "row error": errors["row error"],
    }
    return found | _change(net, old, x, y)


def _change(net: Any, old: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    """Measure what was added to the logits of the backbone, clean and attacked.

    Medians of its width, and of what it is to be compared with: the gap of the two
    largest logits of the backbone, and by how much its attacked points are wrong.
    """
    adversary = train.pgd_adversary(eps=EPS, steps=10)
    bad = adversary(old, x, y, torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, change = old(x), net(x) - old(x)
        deficit = -metrics.margin(old(bad), y)
        there = width_of(net(bad) - old(bad))
        right = net(bad).argmax(1) == y
    top = before.topk(2, dim=1).values
    gap, width, wrong = top[:, 0] - top[:, 1], width_of(change), deficit > 0
    same = (before + change).argmax(1) == before.argmax(1)
    return {
        "gap": float(gap.median()),
        "width": float(width.median()),
        "same": float(same.double().mean()),
        "sure": float((width < gap).double().mean()),
        "deficit": float(deficit[wrong].median()),
        "width there": float(there[wrong].median()),
        "repaired": float(right[wrong].double().mean()),
        "borrowed": float(right.double().mean()),
    }


def run(config: Config, images: Dataset) -> Numbers:
    """Train a backbone and what is made of it, and judge that."""
    seed = config["seed"]
    few = part(images, seed)
    old = backbone(few, seed)
    net, most = fitted(config["way"], old, few, seed)
    return judge(net, old, most, few, images)


STUDY = of_sample("lab13", SETTINGS, run)
