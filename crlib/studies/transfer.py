"""What a new task inherits from a compressed encoder.

An encoder learns five classes of garments, in one way after the other. The other five
are then learnt behind it twice: by a new head on the frozen encoder, and by training
all of it on. The seed draws the split, so five seeds are five pairs of tasks. All of it
in float64, so that a network trained again is its row of the table.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crlib import attacks, metrics, theory, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import networks
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    differences,
    of_sample,
    robustness,
    row_space,
    surviving,
)

__all__ = [
    "STUDY",
    "borrowed",
    "frozen",
    "inherited",
    "judge",
    "pretrained",
    "split",
    "tuned",
]

EPOCHS, EARLY = 14, 4  # on the first classes; of a plain encoder stopped early
NEXT_EPOCHS = 8  # on the others
ATTACKED = 200
EPS = {"l2": 0.5, "linf": 0.03}
UNIVERSAL = 20 / 255  # linf, input units
LENGTH = 1.0  # l2, of a perturbation made on the old head
# Halvings enough that a rounding beside the boundary does not matter.
FINE = 30


def split(seed: int) -> tuple[list[int], list[int]]:
    """Return the five classes of the first task and the five of the second.

    Seeds below 252 draw different splits: one shuffled list holds all of them.
    """
    halves = list(itertools.combinations(range(10), 5))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(halves), generator=generator)
    first = halves[int(order[seed])]
    return list(first), [k for k in range(10) if k not in first]


def pretrained(
    way: str, strength: float, seed: int, source: Dataset, *, epochs: int = EPOCHS
) -> train.Fit:
    """Train an encoder with a head on the first task.

    Args:
        way: of :func:`crlib.studies.networks.build`.
        strength: likewise.
        seed: of the initialisation and the batches.
        source: the first task; where an encoder starts in principal directions, they
            are those of these images.
        epochs: of this training; 0 gives the network as it starts.
    """
    net, options = networks.build(way, strength, seed, source)
    fitted = train.fit(
        train.new_head(net, source.classes, seed=seed),
        source,
        epochs=max(1, epochs),
        keep=(0,),
        checkpoint="last",
        seed=seed,
        progress=False,
        **options,
    )
    return fitted if epochs else fitted.at("epoch 0")


def frozen(
    net: nn.Module, target: Dataset, seed: int, *, epochs: int | None = None
) -> train.Fit:
    """Train a new head on the second task; the encoder stays as it is.

    Args:
        net: encoder and head of the first task.
        target: the second task.
        seed: of the new head and the batches.
        epochs: as many as in the study, or another number.
    """
    return train.fit(
        train.new_head(net, target.classes, seed=seed + 1),
        target,
        epochs=epochs or NEXT_EPOCHS,
        lr=2e-3,
        head_only=True,
        checkpoint="last",
        seed=seed,
        progress=False,
    )


def tuned(net: nn.Module, target: Dataset, seed: int) -> train.Fit:
    """Train a new head and the encoder on, without any penalty or constraint."""
    return train.fit(
        train.new_head(net, target.classes, seed=seed + 1),
        target,
        epochs=NEXT_EPOCHS,
        checkpoint="last",
        seed=seed,
        progress=False,
    )


def judge(
    net: MLP, images: Dataset, *, attacked: int = ATTACKED, norms: tuple[str, ...]
) -> dict[str, float]:
    """Measure a network on the test part of a task, and what its first layer allows.

    Args:
        net: the trained network.
        images: the task, in the precision of the network.
        attacked: how many test images, the first, are attacked.
        norms: of the attacks.

    Returns:
        ``accuracy``; for each norm the median distance over the images labelled right,
        and ``robust ...`` over all attacked. ``chi``: root mean square share of the
        difference of two images of different classes in the row space. ``ceiling``:
        median of the bridge bound over the images labelled right. ``contrast``: the
        operator norm of the first layer over the factor by which it stretches such
        differences, as a ratio of median lengths.
    """
    x, y = images.x_test, images.y_test
    few, labels = x[:attacked], y[:attacked]
    told = net(x).argmax(1)
    right = told[:attacked] == labels
    near = {
        norm: attacks.fmn(net, few, labels, norm=norm, steps=30, search_steps=FINE)
        for norm in norms
    }
    found = {"accuracy": metrics.accuracy(net, x, y)} | robustness(near, right, EPS)
    basis, w = row_space(net), net.weights[0]
    pairs = differences(x, y)
    found["chi"] = surviving(net, pairs)
    radius = theory.bridge_radius(
        basis.T, few[right].flatten(1), labels[right], x.flatten(1), told
    )
    found["ceiling"] = float(radius.median())
    stretch = (pairs @ w.T).norm(dim=1).median() / pairs.norm(dim=1).median()
    found["contrast"] = metrics.operator_norm(w) / float(stretch)
    return found


def inherited(
    net: MLP, images: Dataset, *, attacked: int = ATTACKED
) -> dict[str, float]:
    """Measure how the loss under attack splits into encoder and head.

    Args:
        net: the trained network.
        images: whose test part is attacked by PGD on the cross-entropy, in l2.
        attacked: how many of them, the first.

    Returns:
        ``gap``: mean loss that the attack adds. ``gap bound``: mean of the spread of
        the head times the movement of the features, which is never less. ``moved``:
        median movement over the median distance of features of different classes.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    adversary = train.pgd_adversary(eps=EPS["l2"], norm="l2", steps=10)
    bad = adversary(net, x, y, torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = net.features(x), net.features(bad)
        gap = cross_entropy(net(bad), y) - cross_entropy(net(x), y)
        head = net.weights[-1]
        spread = torch.cdist(head, head).amax(1)  # (K,)
        moved = (after - before).norm(dim=1)
        apart = torch.cdist(before, before)[y[:, None] != y]
    return {
        "gap": float(gap),
        "gap bound": float((spread[y] * moved).mean()),
        "moved": float(moved.median() / apart.median()),
    }


def borrowed(old: MLP, new: MLP, x: Tensor) -> dict[str, float]:
    """Measure what a perturbation made on the old network does to the new one.

    Args:
        old: encoder and head of the first task.
        new: of the second.
        x: ``(N, C, H, W)`` images of the second task.

    Returns:
        Shares of labels of ``new`` that change under perturbations of one l2 length:
        made on its ``own``, ``borrowed`` from the old one, ``blind`` in the row space.
        ``squared cosine``: its mean between the gradients of the two margins.
    """
    adversary = train.pgd_adversary(eps=LENGTH, norm="l2", steps=10)
    generator = torch.Generator().manual_seed(0)
    now = new(x).argmax(1)
    basis = row_space(new)
    step = torch.randn(len(x), basis.shape[1], generator=generator, dtype=x.dtype)
    step = LENGTH * step / step.norm(dim=1, keepdim=True)
    moved = {
        "own": adversary(new, x, now, generator),
        "borrowed": adversary(old, x, old(x).argmax(1), generator),
        "blind": (x + (step @ basis.T).view_as(x)).clamp(0, 1),
    }
    found = {
        name: float((new(z).argmax(1) != now).double().mean())
        for name, z in moved.items()
    }
    cosine = torch.cosine_similarity(_slope(old, x), _slope(new, x))
    return found | {"squared cosine": float(cosine.square().mean())}


def _slope(net: MLP, x: Tensor) -> Tensor:
    """Return the gradient ``(N, m)`` of the margin of the label that the net gives."""
    z = x.clone().requires_grad_()
    first, second = net(z).topk(2, dim=1).values.T
    (slope,) = torch.autograd.grad((first - second).sum(), z)
    return slope.flatten(1)


def run(config: Config, images: Dataset) -> Numbers:
    """Train on five classes, learn the other five in two ways, and judge each."""
    seed = config["seed"]
    source, target = (images.of_classes(part) for part in split(seed))
    old = pretrained(
        config["way"], config["strength"], seed, source, epochs=config["epochs"]
    )
    # An encoder that nothing has trained has no epoch of its own.
    own = (source.x_train, source.y_train)
    learnt = old.history[-1].train_accuracy
    found: dict[str, float] = {
        "source train": learnt if old.epoch else metrics.accuracy(old.model, *own)
    }
    found |= _named("source", judge(old.model, source, norms=("l2",)))
    for name, learn, norms in (
        ("target", frozen, ("l2", "linf")),
        ("tuned", tuned, ("l2",)),
    ):
        fitted = learn(old.model, target, seed)
        new, x = fitted.model, target.x_test
        numbers = judge(new, target, norms=norms)
        numbers |= inherited(new, target)
        numbers |= borrowed(old.model, new, x[:ATTACKED])
        numbers["train"] = fitted.history[-1].train_accuracy
        numbers["universal"] = attacks.universal(
            new, x, target.y_test, eps=UNIVERSAL, norm="linf", epochs=5
        ).fooling_rate
        found |= _named(name, numbers)
    return found


def _named(name: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{name} {key}": value for key, value in numbers.items()}


SETTINGS: list[Config] = [
    {"way": way, "strength": strength, "epochs": epochs}
    for way, strength, epochs in (
        ("plain", 0, EPOCHS),
        ("plain", 0, EARLY),
        ("rank", 16, EPOCHS),
        ("rank, both", 16, EPOCHS),
        ("rank", 64, EPOCHS),
        ("rank, both", 64, EPOCHS),
        ("rank, orthonormal", 16, EPOCHS),
        ("rank, principal", 16, EPOCHS),
        ("spectral dial", 0, EPOCHS),
        ("spectral dial", 1, EPOCHS),
        ("rows, scale-invariant", 0.1, EPOCHS),
        ("Frobenius", 0.003, EPOCHS),
        ("rank", 4, EPOCHS),
        ("rank, both", 4, EPOCHS),
        ("rank", 8, EPOCHS),
        ("rank, both", 8, EPOCHS),
        ("plain", 0, 0),
        ("rank", 16, 0),
        ("rank, both", 16, 0),
        ("rank, both", 64, 0),
    )
]
STUDY = of_sample("transfer", SETTINGS, run)
