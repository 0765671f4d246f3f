"""The optimality scores of AttackBench, by its own measurement.

    make bench-attacks ARGS="optimality --write benchmarks/results/optimality.csv"

AttackBench (Cinà et al. 2025) stands between attack and model. It counts the passes of
each sample, answers no more beyond a budget of passes, and keeps the nearest point that
fooled on the way, whatever the attack returns. An attack is scored by the area that its
curve of robust accuracy leaves below the clean accuracy, over the area that the
sample-wise best of all attacks leaves: one is as good as all of them together.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import contestants
import networks
import numpy as np
import results
import torch
import torchattacks
from facts import provenance, table
from results import Row
from torch.utils.data import DataLoader, TensorDataset

# AttackBench imports a store of others' numbers and its data sets: no run needs them.
for name, part in (("wandb", "Api"), ("attackbench.datasets.registry", "get_loader")):
    setattr(sys.modules.setdefault(name, ModuleType(name)), part, object)

import attackbench  # noqa: E402

LIBRARIES = ("attackbenchlib", "pyautoattack", "foolbox", "torchattacks", "adv-lib")
NORMS = ("linf", "l2", "l1", "l0")
KINDS = ("undefended", "defended")
COLUMNS = (
    "network norm library attack images score low high found median forward backward"
    " most outside note"
).split()
Measured = dict[str, Any]


def entries(norm: str) -> Iterator[contestants.Contestant]:
    """Return attacks of minimal norm, a hundred steps where there is a choice."""
    if norm == "l0":
        yield from contestants.sparse()
        return
    yield from contestants.minimal(norm)
    if norm == "l2":
        yield contestants.Contestant(
            "torchattacks", "DeepFool", lambda m, x, y: torchattacks.DeepFool(m)(x, y)
        )


def measure(
    entry: contestants.Contestant, model: Any, images: DataLoader[Any], norm: str
) -> Measured:
    def attack(model: Any, inputs: Any, labels: Any) -> Any:
        return entry.run(model, inputs, labels)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Measured = attackbench.run_attack(
            model, images, attack, norm, device=torch.device("cpu"), debug=True
        )
    return found


def bounds(own: Measured, best: np.ndarray, norm: str) -> tuple[float, float]:
    """Return the ends of a bootstrap interval of a score, over the images."""
    distances, right = np.array(own["distances"][norm]), np.array(own["correct"])
    draw, scores = np.random.default_rng(0), []
    for _ in range(500):
        rows = draw.integers(len(best), size=len(best))
        scores.append(
            attackbench.eval_optimality(distances[rows], best[rows], right[rows].mean())
        )
    low, high = np.quantile(scores, (0.025, 0.975))
    return float(low), float(high)


def rows_of(found: dict[contestants.Contestant, Measured], norm: str) -> Iterator[Row]:
    """Score what was measured on one network in one norm."""
    every = list(found.values())
    names = [str(n) for n in range(len(every))]
    compared = attackbench.compare_attacks_optimality(every, norm, names)
    best, scores = compared["ensemble_distances"], compared["optimality_scores"]
    for name, (entry, own) in zip(names, found.items(), strict=True):
        distance = np.array(own["distances"][norm])
        forward, backward = (
            np.array(own[f"num_{k}"]) for k in ("forwards", "backwards")
        )
        low, high = bounds(own, best, norm)
        yield {
            "library": entry.library,
            "attack": entry.name,
            "images": len(distance),
            "score": float(scores[name]),
            "low": low,
            "high": high,
            "found": float(np.isfinite(distance).mean()),
            "median": float(np.median(distance)),
            "forward": float(forward.mean()),
            "backward": float(backward.mean()),
            "most": int((forward + backward).max()),
            "outside": sum(own["box_failures"]),
            "note": entry.note,
        }


def place(row: Row) -> tuple[int, int]:
    """Say where in the table a row belongs."""
    return KINDS.index(row["network"]), NORMS.index(row["norm"])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--norm", action="append", choices=NORMS, help="default: all")
    parser.add_argument("--network", action="append", choices=KINDS)
    parser.add_argument("--write", type=Path, help="a CSV file to write")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    facts = provenance(LIBRARIES)
    facts["passes at most"] = str(attackbench.DEFAULT_QUERY_BUDGET)
    kinds, norms = args.network or KINDS, args.norm or NORMS
    sample, rows, before = networks.load_data("fashion"), [], 0.0
    if args.network or args.norm:
        rows, before = results.left(
            args.write,
            facts,
            lambda row: row["network"] in kinds and row["norm"] in norms,
        )
    images = TensorDataset(sample.x_test[: args.images], sample.y_test[: args.images])
    loader = DataLoader(images, batch_size=32)
    for kind in kinds:
        for norm in norms:
            found = {}
            for entry in entries(norm):
                # AttackBench leaves its hook on the model: each attack has a fresh one.
                model = networks.load(kind, sample, "fashion")
                started = time.process_time()
                found[entry] = measure(entry, model, loader, norm)
                spent = time.process_time() - started
                print(f"{entry.library} {entry.name}: {spent:.1f} s", file=sys.stderr)
            part = [{"network": kind, "norm": norm, **r} for r in rows_of(found, norm)]
            rows = sorted(rows + part, key=place)
            print(f"\n{kind}, {norm}")
            table(COLUMNS[2:-1], part, named=2)
            facts["cpu seconds"] = f"{before + time.process_time():.0f}"
            if args.write:
                results.write(args.write, COLUMNS, rows, facts)
    return 0
