"""The bounds of crlib beside those of auto_LiRPA, on the same networks and boxes.

    make bench-attacks ARGS="bounds --write benchmarks/results/bounds.csv"

Both bound the margins of logits over balls cut with the box, once by intervals and once
by linear relaxation (CROWN, which bounds every hidden neuron by relaxation as well).
auto_LiRPA computes in float32 here, crlib in float64.
"""

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import networks
import numpy as np
import results
import torch
from facts import provenance, table
from masked import SIZES, harden
from results import Row
from torch import Tensor, nn

from crlib import certify, data
from crlib.models import MLP, ConvNet, Normalize, ResNet

LIBRARIES = ("auto_LiRPA",)
METHODS = {
    "intervals": ("IBP", certify.interval_bounds),
    "relaxation": ("backward", certify.crown_bounds),
}
RADII = (1 / 255, 4 / 255, 8 / 255)
COLUMNS = (
    "network method eps images bounds mean ours_above theirs_above equal certified"
    " their_certified seconds their_seconds"
).split()


def renew() -> None:
    """Give back the names of torch 1.12 and numpy 1 for which version 0.3 asks.

    Nothing it computes passes through them but the reading of a graph's attributes.
    """
    from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

    old: Any = ModuleType("numpy.lib.arraysetops")
    old.isin = np.isin
    sys.modules["numpy.lib.arraysetops"] = old

    def version(number: int) -> None:
        GLOBALS.export_onnx_opset_version = number

    # Of two modules of this name, the one that an import statement finds.
    helper: Any = import_module("torch.onnx.symbolic_helper")
    helper._set_opset_version = version
    torch._C.Node.__getitem__ = lambda n, key: getattr(n, n.kindOf(key))(key)


renew()

from auto_LiRPA import BoundedModule, BoundedTensor  # noqa: E402
from auto_LiRPA.perturbations import PerturbationLpNorm  # noqa: E402

# A newer torch passes one word more, of which each parameter counts once anyway.
named: Any = BoundedModule._named_members
BoundedModule._named_members = lambda *given, remove_duplicate=True, **options: named(
    *given, **options
)


def subjects(sample: data.Dataset) -> dict[str, tuple[nn.Module, int]]:
    """Return trained networks, each with the number of images to bound."""
    few = sample.subset(1000, 200)
    mlp, small = MLP(SIZES, bias=True), ConvNet((4, 8), image=(1, 28, 28))

    def bent(bend: nn.Module) -> nn.Module:
        first, second, head = MLP(SIZES, bias=True).layers
        return nn.Sequential(nn.Flatten(), first, bend, second, bend, head)

    def pooled(pool: nn.Module) -> nn.Module:
        half = list(ConvNet((4, 8), image=(1, 14, 14)))
        return nn.Sequential(*half[:3], pool, *half[3:])

    residual = ResNet(blocks=(1, 1), width=4, channels=1)
    return {
        "MLP": (harden(mlp, few, 6, 0), 64),
        "ConvNet": (harden(small, few, 3, 1), 8),
        "MaxPool": (harden(pooled(nn.MaxPool2d(2)), few, 3, 2), 8),
        "AvgPool": (harden(pooled(nn.AvgPool2d(2)), few, 3, 5), 8),
        "ResNet": (harden(residual, few, 6, 3), 4),
        "LeakyReLU": (harden(bent(nn.LeakyReLU(0.1)), few, 6, 6), 64),
        "tanh": (harden(bent(nn.Tanh()), few, 6, 4), 64),
    }


def bare(model: Any) -> nn.Module:
    """Leave out the normalisation, which does nothing here.

    In front of other layers auto_LiRPA 0.3 has no rule for a division by a scalar.
    """
    if isinstance(model, MLP):
        layers = [nn.Flatten(), model.layers[0]]
        for layer in model.layers[1:]:
            layers += [nn.ReLU(), layer]
    else:
        layers = model.parts() if isinstance(model, ResNet) else list(model)
    kept = [layer for layer in layers if not isinstance(layer, Normalize)]
    return nn.Sequential(*kept).eval()


def theirs(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str) -> Tensor:
    """Return auto_LiRPA's lower bounds of the margins, ``(N, K)``; zero at ``y``."""
    bounded = BoundedModule(bare(model), torch.empty_like(x))
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    ball = PerturbationLpNorm(norm=np.inf, x_L=low, x_U=high)
    eye = torch.eye(model(x[:1]).shape[1])
    margins = eye[y].unsqueeze(1) - eye
    with torch.no_grad():
        least: Tensor = bounded.compute_bounds(
            x=(BoundedTensor(x, ball),), C=margins, method=method, bound_upper=False
        )[0]
    return least


def compare(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str) -> Row:
    name, own = METHODS[method]
    started = time.process_time()
    ours = own(model, x, y, eps=eps)
    between = time.process_time()
    other = theirs(model, x, y, eps, name).double()
    ended = time.process_time()
    rivals = torch.ones_like(other, dtype=torch.bool).scatter(1, y[:, None], False)
    gap, size = (ours - other)[rivals], ours[rivals].abs()
    certified = [
        int((v.masked_fill(~rivals, torch.inf) > 0).all(1).sum()) for v in (ours, other)
    ]
    return {
        "method": method,
        "eps": eps,
        "images": len(x),
        "bounds": len(gap),
        "mean": float(ours[rivals].mean()),
        # The largest difference either way, and how often there is none to speak of.
        "ours_above": float(gap.clamp_min(0).max()),
        "theirs_above": float((-gap).clamp_min(0).max()),
        "equal": float((gap.abs() <= 1e-4 * size.clamp_min(1)).double().mean()),
        "certified": certified[0],
        "their_certified": certified[1],
        "seconds": between - started,
        "their_seconds": ended - between,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", type=Path, help="a CSV file to write")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sample, facts, rows = networks.load_data("fashion"), provenance(LIBRARIES), []
    for name, (model, n) in subjects(sample).items():
        model.requires_grad_(False)
        x, y = sample.x_test[:n], sample.y_test[:n]
        part = [
            {"network": name, **compare(model, x, y, eps, method)}
            for method in METHODS
            for eps in RADII
        ]
        rows += part
        table(COLUMNS, part, named=2)
        facts["cpu seconds"] = f"{time.process_time():.0f}"
        if args.write:
            results.write(args.write, COLUMNS, rows, facts)
    return 0
