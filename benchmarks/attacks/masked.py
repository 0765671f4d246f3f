"""Networks that hide their gradient, and the cascades against AutoAttack on them.

What an attack reports on one is too high by what it does not see. AutoAttack is in the
environment of the other comparison, which ``make bench-attacks`` sets up:

    .venv-bench/bin/python benchmarks/attacks/masked.py
"""

import logging
import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from crlib import attacks, data, metrics
from crlib.models import MLP

EPS = 8 / 255
SIZES = (784, 64, 64, 10)


class Layers(nn.Module):
    """Functions and modules, one after the other."""

    def __init__(self, *parts: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.modules_inside = nn.ModuleList(
            p for p in parts if isinstance(p, nn.Module)
        )
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


def harden(net: nn.Module, images: data.Dataset, epochs: int, seed: int) -> nn.Module:
    """Train on images moved by a quarter of the budget, so that something stands."""
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    g = torch.Generator().manual_seed(seed)
    x, y = images.x_train, images.y_train
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=g).split(100):
            z = x[rows].clone().requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(net(z), y[rows]), z)
            z = (z.detach() + EPS / 4 * slope.sign()).clamp(0, 1)
            adam.zero_grad()
            cross_entropy(net(z), y[rows]).backward()
            adam.step()
    return net.eval()


def winners(h: Tensor, share: float = 0.2) -> Tensor:
    """Keep the largest activations, all others become zero (k-winners-take-all)."""
    least = h.topk(max(1, int(share * h.shape[1])), 1).values[:, -1:]
    return torch.where(h >= least, h, 0)


def cosines(n: int) -> Tensor:
    k = torch.arange(n)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * n))
    return basis / basis.norm(dim=1, keepdim=True)


def jpeg(x: Tensor, step: float = 0.15) -> Tensor:
    """Round the cosine coefficients of blocks of seven pixels."""
    blocks = x.unfold(2, 7, 7).unfold(3, 7, 7)
    basis = cosines(7).to(x)
    rough = ((basis @ blocks @ basis.T) / step).round() * step
    return (basis.T @ rough @ basis).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


def of_another(z: Tensor, other: Tensor) -> Tensor:
    """Show the logits ``z`` with the gradient of others."""
    return z.detach() + other - other.detach()


def through(z: Tensor) -> Tensor:
    """Show the label only; backwards pass the gradient of the probabilities."""
    soft = z.softmax(1)
    return of_another(one_hot(z.argmax(1), z.shape[1]).to(z.dtype), soft)


def blind(x: Tensor) -> Tensor:
    """Cut the gradient of whoever asks for one."""
    return x.detach() if torch.is_grad_enabled() else x


def zoo(
    images: data.Dataset, epochs: int = 12
) -> dict[str, tuple[nn.Module, nn.Module | None]]:
    """Return masked networks and, of most, a twin that hides nothing.

    They have the precision of the images.
    """
    torch.manual_seed(0)
    kind = images.x_train.dtype
    net, other = (
        harden(
            MLP(SIZES, bias=True, mean=0.286, std=0.353, seed=seed).to(kind),
            images, epochs, seed,
        )
        for seed in range(2)
    )  # fmt: skip
    few = nn.Sequential(nn.Flatten(), nn.Linear(784, 64)).to(kind)
    rest = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(kind)
    kwta = harden(Layers(few, winners, rest), images, epochs, 2)
    levels = torch.linspace(0, 1, 17)[1:-1]

    def thermometer(x: Tensor) -> Tensor:
        return (x[..., None] > levels).to(x.dtype).flatten(1) / len(levels) * 2

    warm = nn.Sequential(nn.Linear(784 * 15, 64), nn.ReLU(), nn.Linear(64, 10)).to(kind)
    # Its input has no gradient: it learns from noise only.
    warmed = Layers(thermometer, warm)
    adam = torch.optim.Adam(warm.parameters(), 1e-3)
    g = torch.Generator().manual_seed(3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images.x_train), generator=g).split(100):
            z = images.x_train[rows]
            z = z + EPS * (2 * torch.rand(z.shape, generator=g) - 1).sign()
            adam.zero_grad()
            cross_entropy(warmed(z), images.y_train[rows]).backward()
            adam.step()

    first = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU()).to(kind)
    inner = (first, nn.Sequential(nn.Linear(64, 10)).to(kind))
    harden(Layers(*inner), images, epochs, 4)

    def coarse(h: Tensor) -> Tensor:
        return (2 * h).round() / 2

    def ripple(x: Tensor) -> Tensor:
        return x + 0.01 * torch.sin(1500 * x)

    def cut(z: Tensor) -> Tensor:
        return (z - z.amax(1, keepdim=True)).clamp_min(-1)

    def certain(z: Tensor) -> Tensor:
        # So sharp that a rival a logit behind has probability zero in this precision.
        sharp = -1.2 * math.log(torch.finfo(z.dtype).tiny)
        return ((sharp * z).softmax(1) + 1e-12).log()

    def reverse(x: Tensor) -> Tensor:
        return 2 * x.detach() - x

    return {
        "jpeg": (Layers(jpeg, net), net),
        "winners": (kwta, None),
        "ripple": (Layers(ripple, net), net),
        "decoy": (Layers(lambda x: of_another(net(x), other(x))), net),
        "hinge": (Layers(net, cut), net),
        "thermometer": (warmed.eval(), None),
        "certain": (Layers(net, certain), net),
        "coarse inside": (Layers(inner[0], coarse, inner[1]), Layers(*inner)),
        "blind": (Layers(blind, net), net),
        "label": (Layers(net, through), net),
        "steps": (Layers(net, lambda z: z.round()), net),
        "loud": (Layers(net, lambda z: 1e6 * z), net),
        "reverse": (Layers(reverse, net), net),
    }


def autoattack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the points of AutoAttack's standard evaluation."""
    # The networks alone need no AutoAttack.
    import pyautoattack

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    attack = pyautoattack.AutoAttack(model, norm="Linf", eps=EPS, seed=0, device="cpu")
    points: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return points


def cascade(budget: str, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return attacks.worst_case(model, x, y, eps=EPS, budget=budget).x_adv


def main() -> None:
    """Print, for each network and attack, robust accuracy and seconds."""
    torch.set_num_threads(1)
    images = data.fashion_mnist_sample().subset(1000, 200)
    x, y = images.x_test[:60], images.y_test[:60]
    runs = {
        budget: partial(cascade, budget) for budget in ("quick", "full", "thorough")
    }
    for name, (model, _) in zoo(images).items():
        line = [f"{name:14} clean {metrics.accuracy(model, x, y):.3f}"]
        for kind, run in {**runs, "AutoAttack": autoattack}.items():
            start = time.process_time()
            try:
                found = f"{metrics.accuracy(model, run(model, x, y), y):.3f}"
            except RuntimeError:
                found = "error"
            line.append(f"{kind} {found} ({time.process_time() - start:.1f} s)")
        print("  ".join(line), flush=True)


if __name__ == "__main__":
    main()
