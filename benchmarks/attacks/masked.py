"""Networks that hide their gradient, and the thorough cascade against AutoAttack.

    make bench-attacks ARGS="masked --write benchmarks/results/masked.csv"

What an attack reports on one is too high by what it does not see. Both attack the same
images, and what each image does under the one is compared with what it does under the
other.
"""

import argparse
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import results
import torch
from facts import provenance, table
from results import Row
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from crlib import attacks, data
from crlib.claims import Interval, wilson
from crlib.models import MLP

EPS = 8 / 255
SIZES = (784, 64, 64, 10)
COLUMNS = (
    "network images clean thorough autoattack difference low high ours theirs"
    " seconds autoattack_seconds note"
).split()


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


def paired(both: int, first: int, second: int, neither: int) -> Interval:
    r"""Return the difference of two shares of the same samples, with an interval.

    Two Wilson intervals, put together by the correlation :math:`\phi` of the pairs, of
    which half a pair is taken off (Newcombe 1998, method 10).

    Args:
        both: samples that count in both shares.
        first: in the first alone.
        second: in the second alone.
        neither: in none.
    """
    n = both + first + second + neither
    one, two = wilson(both + first, n), wilson(both + second, n)
    cross = both * neither - first * second
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if cross > 0:
        cross = max(cross - n / 2, 0)
    phi = cross / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(a * a - 2 * phi * a * b + b * b)

    gap = (first - second) / n
    low = gap - reach(one.mean - one.low, two.high - two.mean)
    return Interval(gap, low, gap + reach(one.high - one.mean, two.mean - two.low), n)


def compare(model: nn.Module, x: Tensor, y: Tensor) -> Row:
    """Attack the same images both ways, and judge the points alone."""
    standing, spent, row = [], [], {"images": len(x)}

    def ask(z: Tensor) -> Tensor:
        with torch.no_grad():
            return model(z).argmax(1) == y

    def cascade() -> Tensor:
        return attacks.worst_case(model, x, y, eps=EPS, budget="thorough").x_adv

    row["clean"] = float(ask(x).double().mean())
    for run in (cascade, lambda: autoattack(model, x, y)):
        started = time.process_time()
        try:
            standing.append(ask(run()))
        except RuntimeError as error:
            row["note"] = f"AutoAttack ends: {str(error).splitlines()[0]}"
        spent.append(time.process_time() - started)
    row["thorough"], row["seconds"] = float(standing[0].double().mean()), spent[0]
    if len(standing) == 1:
        return row
    ours, theirs = standing
    pairs = [int((a & b).sum()) for a in (ours, ~ours) for b in (theirs, ~theirs)]
    gap = paired(*pairs)
    return row | {
        "autoattack": float(theirs.double().mean()),
        "autoattack_seconds": spent[1],
        "difference": gap.mean,
        "low": gap.low,
        "high": gap.high,
        # What only one of the two breaks.
        "ours": pairs[2],
        "theirs": pairs[1],
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--network", action="append", help="default: all")
    parser.add_argument("--write", type=Path, help="a CSV file to write")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sample, facts = data.fashion_mnist_sample(), provenance(("pyautoattack",))
    x, y = sample.x_test[: args.images], sample.y_test[: args.images]
    networks = zoo(sample.subset(1000, 200))
    names, rows, spent = args.network or list(networks), [], 0.0
    if args.network:
        # A part takes its place in the table, if that is of the same versions.
        rows, spent = results.left(
            args.write, facts, lambda row: row["network"] in names
        )
    for name in names:
        rows.append({"network": name, **compare(networks[name][0], x, y)})
        table(COLUMNS[:-1], rows[-1:], named=1)
        facts["cpu seconds"] = f"{spent + time.process_time():.0f}"
        if args.write:
            results.write(args.write, COLUMNS, rows, facts)
    return 0
