"""Robust accuracy as RobustBench counts it, on the points of AutoAttack and of crlib.

    make bench-attacks ARGS="counting --write benchmarks/results/counting.csv"

RobustBench hands AutoAttack's points back to the model, batch by batch, and reports the
accuracy on them. An image that was wrong from the start is wrong there too: it counts
as not robust. The same function counts on the points of ``worst_case``.
"""

import argparse
import logging
import sys
import time
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import networks
import pyautoattack
import results
import torch
from facts import provenance, table
from results import Row
from torch import Tensor, nn

from crlib import attacks

# The package imports its zoo of networks when it is imported, which nobody counts with.
# So its modules are found where they lie, and the zoo is an empty one.
home = Path(str(distribution("robustbench").locate_file("robustbench")))
for name, parts in {
    "robustbench": {"__path__": [str(home)]},
    "robustbench.model_zoo": {"__path__": [str(home / "model_zoo")], "model_dicts": {}},
    "timm": {},
    "gdown": {},
}.items():
    vars(sys.modules.setdefault(name, ModuleType(name))).update(parts)

from robustbench.utils import clean_accuracy  # noqa: E402

LIBRARIES = ("robustbench", "pyautoattack")
# What AutoAttack runs, in this order, each on what still stands.
STANDARD = ["apgd-ce", "apgd-t", "fab-t", "square"]
EPS = {"undefended": 0.1, "defended": 0.15}
# Not a divisor of the number of images: the last batch is a smaller one.
BATCH = 24
COLUMNS = (
    "network eps images clean attack said counted in_one_batch wrong_counted unmoved"
    " seconds"
).split()


def count(model: nn.Module, x: Tensor, y: Tensor, points: Tensor, said: float) -> Row:
    """Count as RobustBench does, in batches and at once, and look at the wrong ones."""
    with torch.no_grad():
        wrong = model(x).argmax(1) != y
        standing = model(points).argmax(1) == y
    moved = (points != x).flatten(1).any(1)
    return {
        "said": said,
        "counted": clean_accuracy(model, points, y, batch_size=BATCH),
        "in_one_batch": clean_accuracy(model, points, y, batch_size=len(x)),
        # Wrong without any attack, and counted as not robust all the same.
        "wrong_counted": int((wrong & ~standing).sum()),
        "unmoved": int((wrong & ~moved).sum()),
    }


def autoattack(
    model: nn.Module, x: Tensor, y: Tensor, eps: float
) -> tuple[Tensor, float]:
    """Return AutoAttack's points and what it says of them itself."""
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    attack = pyautoattack.AutoAttack(model, norm="Linf", eps=eps, seed=0, device="cpu")
    assert attack.attacks_to_run == STANDARD
    points, labels = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    return points, float((labels == y).double().mean())


def cascade(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, float]:
    found = attacks.evaluate(attacks.worst_case, model, x, y, batch_size=BATCH, eps=eps)
    return found.x_adv, found.robust_accuracy


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--write", type=Path, help="a CSV file to write")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sample, facts, rows = networks.load_data("fashion"), provenance(LIBRARIES), []
    x, y = sample.x_test[: args.images], sample.y_test[: args.images]
    for kind, eps in EPS.items():
        model = networks.load(kind, sample, "fashion")
        common = {"network": kind, "eps": eps, "images": len(x)}
        common["clean"] = clean_accuracy(model, x, y, batch_size=BATCH)
        for name, attack in {"AutoAttack": autoattack, "crlib": cascade}.items():
            started = time.process_time()
            points, said = attack(model, x, y, eps)
            row = {"attack": name, "seconds": time.process_time() - started}
            rows.append(common | row | count(model, x, y, points, said))
        table(COLUMNS, rows[-2:], named=1)
        facts["cpu seconds"] = f"{time.process_time():.0f}"
        if args.write:
            results.write(args.write, COLUMNS, rows, facts)
    return 0
