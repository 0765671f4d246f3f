"""Convolutional, residual and attention networks on CIFAR-10, made compressible.

The quick grid is what two cores can do in hours: part of the images, narrow networks.
The large grid is what they can do in days: all images, a transformer and a residual
network that generalise, seed after seed. The full grid is ResNet-18 and its kind, for a
GPU; the grid named gpu is what a GPU can begin within minutes, seed after seed too.
"""

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crlib import attacks, compress, data, metrics, train
from crlib.models import ConvNet, ResNet, ViT, weight_layers
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    at_checkpoints,
    compressibility,
    judged_trainings,
    robustness,
    start_principal,
)

__all__ = ["STUDY", "build", "judge", "reported"]

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
NETWORKS: dict[str, Callable[..., Any]] = {
    "small ConvNet": lambda **o: ConvNet((16, 32, 64), **o),
    "small ResNet": lambda **o: ResNet(width=8, **o),
    "small ViT": lambda **o: ViT(dim=64, depth=2, **o),
    "ResNet-10": lambda **o: ResNet(blocks=(1, 1, 1, 1), width=16, **o),
    "ConvNet": lambda **o: ConvNet((64, 128, 256, 512), **o),
    "ResNet-18": lambda **o: ResNet(width=64, **o),
    "ViT": lambda **o: ViT(dim=192, depth=8, heads=6, **o),
}
WAYS = (
    "plain",
    "rank",
    "rank, both",
    "rows, scale-invariant",
    "Frobenius",
    "spectral dial",
)
EPS = {"l2": 0.1, "linf": 1 / 255}
REPORTED = {"l2": 0.5, "linf": 8 / 255}
CHECKPOINTS = ("matched", "last")
MATCH = 0.4
SEEN = 128  # images whose windows give principal directions


def build(
    network: str, way: str, strength: float, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that make it so.

    Args:
        network: one of ``NETWORKS``.
        way: one of ``WAYS``.
        strength: of the way: a rank, penalty or exponent; nothing for plain.
        seed: of the initialisation.

    Raises:
        ValueError: an unknown network or way.
    """
    for value, known in ((network, NETWORKS), (way, WAYS)):
        if value not in known:
            raise ValueError(f"{value!r} is unknown: choose one of {', '.join(known)}.")
    rank = int(strength) if way.startswith("rank") else None
    net = NETWORKS[network](rank=rank, mean=MEAN, std=STD, seed=seed)
    options: dict[str, Any] = {}
    if way == "rows, scale-invariant":
        options["penalty"] = compress.group_lasso(strength, scale_invariant=True)
    if way == "rank, both":
        options["constraint"] = compress.orthonormal_factors()
        options["constrain_every"] = 10
    if way == "Frobenius":
        options["penalty"] = compress.squared_frobenius(strength)
    if way == "spectral dial":
        options["constraint"] = compress.spectral_dial(strength, frobenius=5.0)
        options["constrain_every"] = 10
        options["weight_decay"] = 0.0
    # The layout that convolutions are quickest in; the numbers of the weights stay.
    return net.to(memory_format=torch.channels_last), options


def judge(
    net: nn.Module, x: Tensor, y: Tensor, *, attacked: int = 150
) -> dict[str, float]:
    """Measure compressibility, accuracy, distances and universal fooling of a network.

    Args:
        net: the trained network.
        x: ``(N, 3, 32, 32)`` test images in [0, 1].
        y: ``(N,)`` labels.
        attacked: how many of them, the first, are attacked one by one.

    Returns:
        Named numbers. Distances are medians over the attacked images labelled right;
        robust accuracies count all of them; measures of compressibility are means over
        the hidden layers, a kernel flattened to a matrix.
    """
    found = {"accuracy": metrics.accuracy(net, x, y)}
    layers = weight_layers(net)[:-1]
    found |= compressibility([layer.weight.detach().flatten(1) for layer in layers])
    few, labels = x[:attacked], y[:attacked]
    with torch.no_grad():
        right = net(few).argmax(1) == labels
    nearest = {
        norm: attacks.fmn(net, few, labels, norm=norm, steps=60, walk=0) for norm in EPS
    }
    found |= robustness(nearest, right, EPS)
    found["universal linf"] = attacks.universal(
        net, x, y, eps=10 / 255, norm="linf"
    ).fooling_rate
    one = attacks.top_direction(net, x, y, eps=10 / 255, norm="linf")
    found["top direction linf"] = one.fooling_rate
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    noisy = (x + 10 / 255 * noise.sign().to(x)).clamp(0, 1)
    with torch.no_grad():
        changed = net(noisy).argmax(1) != net(x).argmax(1)
    found["noise linf"] = float(changed.double().mean())
    return found


def reported(
    net: nn.Module, x: Tensor, y: Tensor, *, attacked: int
) -> dict[str, float]:
    """Measure accuracy, and what a cascade leaves of it at the budgets of the papers.

    Args:
        net: the trained network.
        x: ``(N, 3, 32, 32)`` test images in [0, 1].
        y: ``(N,)`` labels.
        attacked: how many of them, the first, the cascade attacks.

    Returns:
        ``accuracy of all``; of the attacked ones ``right``, the share labelled right,
        and ``cascade ...``, the share that is still at ``REPORTED``.
    """
    few, labels = x[:attacked], y[:attacked]
    found = {
        "accuracy of all": metrics.accuracy(net, x, y),
        "right": metrics.accuracy(net, few, labels),
    }
    for norm, eps in REPORTED.items():
        hit = attacks.worst_case(net, few, labels, eps=eps, norm=norm)
        found[f"cascade {norm}"] = hit.robust_accuracy
    return found


@functools.cache
def _images(count: int) -> data.Dataset:
    images = data.cifar10(progress=False)
    # In single precision: convolutions in double take many times as long. So no page
    # trains one of these networks again; they rest on their table.
    return images.subset(count, len(images.x_test))


class _Fast(nn.Module):
    """A network as a GPU trains it: in bfloat16, its training steps compiled.

    The weights stay in float32, and a copy is not compiled: judges see the network.

    Args:
        net: to train.
        device: where it is.
        low: whether it multiplies in bfloat16.
        compiled: whether its first training step compiles it.
    """

    def __init__(
        self, net: nn.Module, device: str, *, low: bool, compiled: bool
    ) -> None:
        super().__init__()
        self.net, self.kind = net, torch.device(device).type
        self.low, self.waits = low, compiled

    def forward(self, x: Tensor) -> Tensor:
        if self.waits and self.training:
            self.waits = False
            self.net.compile()
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.low):
            logits: Tensor = self.net(x)
        return logits.float()


def _compiles(net: nn.Module, x: Tensor, *, low: bool) -> bool:
    """Try whether torch can compile a step of this network here; if not, warn."""
    torch.compiler.reset()  # of other networks nothing is known
    trial = _Fast(copy.deepcopy(net).train(), x.device.type, low=low, compiled=True)
    try:
        trial(x).sum().backward()
    # Compilers fail in ways of their own: no Triton, no C compiler, an old GPU.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(
            f"torch.compile does not work here ({reason}): the network is trained as"
            " it is, more slowly. Its numbers are as good.",
            stacklevel=2,
        )
        return False
    return True


def _run(configs: list[Config], device: str) -> list[Numbers]:
    first = configs[0]
    images = _images(first["images"]).to(device)
    net, options = build(
        first["network"], first["way"], first["strength"], first["seed"]
    )
    net = net.to(device)
    if first["way"] == "rank, both":
        start_principal(net, images.x_train[:SEEN])
    low, batch = first.get("bfloat16", False), first.get("batch", 128)
    compiled = torch.device(device).type == "cuda" and _compiles(
        net, images.x_train[:batch], low=low
    )
    fast = low or compiled
    fitted = train.fit(
        _Fast(net, device, low=low, compiled=compiled) if fast else net,
        images,
        epochs=first["epochs"],
        lr=2e-3,
        batch_size=batch,
        schedule="cosine",
        augmentation=train.augment if first["augmented"] else None,
        validation=0,
        checkpoint="last",
        match=first.get("match", MATCH),
        seed=first["seed"],
        progress=False,
        **options,
    )
    x, y = (part[: first["judged"]] for part in (images.x_test, images.y_test))

    def judged(at: train.Fit) -> Numbers:
        trained = at.model.net if fast else at.model
        found = judge(trained, x, y, attacked=first["attacked"])
        if "cascade" not in first:
            return found
        every = images.x_test, images.y_test
        return found | reported(trained, *every, attacked=first["cascade"])

    return at_checkpoints(fitted, configs, judged)


def _grid(kinds: dict[str, dict[str, tuple[float, ...]]], **more: Any) -> list[Config]:
    return [
        {
            "network": network,
            "way": way,
            "strength": strength,
            "seed": seed,
            "checkpoint": rule,
            "data": "CIFAR-10",
            **more,
        }
        for network, ways in kinds.items()
        for way, strengths in ways.items()
        for strength in strengths
        for seed in range(5)
        for rule in CHECKPOINTS
    ]


def _seed_by_seed(
    kinds: dict[str, dict[str, tuple[float, ...]]], **more: Any
) -> list[Config]:
    """Return the same grid in an order in which a part of it compares the ways."""
    return sorted(_grid(kinds, **more), key=lambda config: config["seed"])


_FEW: dict[str, tuple[float, ...]] = {
    "plain": (0,),
    "rank": (4,),
    "rows, scale-invariant": (0.1,),
}
_MORE: dict[str, tuple[float, ...]] = {
    "plain": (0,),
    "rank": (16, 4),
    "rows, scale-invariant": (0.1,),
    "Frobenius": (0.003,),
    "spectral dial": (0, 1),
}
_LARGE: dict[str, tuple[float, ...]] = {
    "plain": (0,),
    "rank": (8,),
    "rank, both": (8,),
    "rows, scale-invariant": (0.1,),
    "spectral dial": (1,),
}
_FULL: dict[str, tuple[float, ...]] = _MORE | {"rank": (64, 16, 4)}

STUDY = judged_trainings(
    "cifar10",
    _run,
    {
        "quick": _grid(
            {
                "small ConvNet": _MORE,
                "small ResNet": _FEW,
                "small ViT": _FEW | {"rank": (8,)},
            },
            images=8000,
            epochs=10,
            augmented=False,
            judged=500,
            attacked=150,
        ),
        "large": [
            config
            for network, match in (("small ViT", 0.5), ("ResNet-10", 0.7))
            for config in _seed_by_seed(
                {network: _LARGE},
                images=50_000,
                epochs=12,
                augmented=True,
                match=match,
                judged=1000,
                attacked=200,
                cascade=500,
            )
        ],
        # No dial: the decompositions of wide layers take longer than the training.
        "gpu": _seed_by_seed(
            {
                "ResNet-18": {
                    "plain": (0,),
                    "rank": (16,),
                    "rank, both": (16,),
                    "rows, scale-invariant": (0.1,),
                }
            },
            images=50_000,
            epochs=15,
            batch=256,
            augmented=True,
            bfloat16=True,
            match=0.8,
            judged=1000,
            attacked=500,
            cascade=1000,
        ),
        "full": _grid(
            {"ConvNet": _FULL, "ResNet-18": _FULL, "ViT": _FULL},
            images=50_000,
            epochs=60,
            augmented=True,
            judged=10_000,
            attacked=1000,
        ),
    },
    lambda config: _images(config["images"]).fingerprint,
)
