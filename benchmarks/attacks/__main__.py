"""Compare crlib's attacks with those of other libraries: ``make bench-attacks``.

    python benchmarks/attacks [--images 256] [--norm l2] [--device cuda] [--quick] ...
    python benchmarks/attacks optimality|bounds|counting|masked [--write FILE] ...
    python benchmarks/attacks all

Two small networks, undefended and adversarially trained, and PGD on a larger one; three
norms. Every attack runs in a process of its own; every point is judged by the same
code. Time is in units of a bare loop of forward passes and input gradients on the same
images, measured beside it. ``all`` measures the five tables one after the other, each
into its file.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import contestants
import measure
import networks
import numpy as np
import results
import torch
from facts import provenance, table
from results import COLUMNS, Row, text
from torch import Tensor, nn

from crlib import attacks

# What else is compared, each in a module of this name with a table of its own.
PARTS = ("optimality", "bounds", "counting", "masked")
LIBRARIES = ("pyautoattack", "foolbox", "torchattacks", "adv-lib")
NORMS = ("linf", "l2", "l1")
GROUPS = ("bare", "pgd", "firm", "apgd", "ensemble", "minimal")
# Input units, chosen so that neither all inputs fall nor all stand.
BUDGETS = {
    ("fashion", "undefended"): {"linf": 0.1, "l2": 1.5, "l1": 12.0},
    ("fashion", "defended"): {"linf": 0.15, "l2": 2.0, "l1": 12.0},
    ("fashion", "larger"): {"linf": 0.1, "l2": 1.5, "l1": 12.0},
    ("cifar10", "undefended"): {"linf": 2 / 255, "l2": 0.25, "l1": 4.0},
    ("cifar10", "defended"): {"linf": 8 / 255, "l2": 0.75, "l1": 12.0},
    ("cifar10", "larger"): {"linf": 2 / 255, "l2": 0.25, "l1": 4.0},
}
# So small a part of the budget that hardly an image falls.
FIRM = 1 / 50


def against(distance: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return median and 90th percentile of the ratio, where the other found one."""
    ratio = np.sort(distance[other < np.inf] / other[other < np.inf])
    # No interpolation: half of a success and a failure is a failure.
    place = [round(share * (len(ratio) - 1)) for share in (0.5, 0.9)]
    return float(ratio[place[0]]), float(ratio[place[1]])


def compare(
    group: str,
    entries: Iterable[contestants.Contestant],
    common: Row,
    arguments: tuple[Any, ...],
    rest: tuple[Any, ...],
) -> list[Row]:
    """Run a group and return its rows; ratios of distances need all of it."""
    rows, distances = [], []
    for entry in entries:
        answer = measure.apart(entry, *arguments, *rest)
        row = common | {"group": group, "library": entry.library, "attack": entry.name}
        row["note"], row["images"] = entry.note, len(arguments[1])
        if "error" in answer:
            row["note"] = answer["error"]
            print(f"{entry.library} {entry.name}: {answer['error']}", file=sys.stderr)
        else:
            row |= {k: answer[k] for k in COLUMNS if k in answer}
            right = ~np.array(answer["wrong"])
            distances.append((row, np.array(answer["distance"])[right]))
            if group != "minimal":
                row["robust"] = 1 - np.mean(answer["fooled"])
        rows.append(row)
    if group == "minimal" and distances:
        best = np.min([d for _, d in distances], axis=0)
        fab = next((d for row, d in distances if row["attack"] == "FAB"), best)
        for row, d in distances:
            row["found"] = float(np.isfinite(d).mean())
            row["median"] = float(np.sort(d)[len(d) // 2])
            row["best_median"], row["best_p90"] = against(d, best)
            row["fab_median"], row["fab_p90"] = against(d, fab)
    return rows


def rows(args: argparse.Namespace) -> Iterator[list[Row]]:
    """Yield the rows of each network, norm and group."""
    sample = networks.load_data(args.data)
    device = torch.device(args.device)
    x, y = sample.x_test, sample.y_test
    few, many = (x[: args.images], y[: args.images]), (x[: args.many], y[: args.many])
    rest = (device, args.repeats)
    for kind in args.network or networks.KINDS:
        model = networks.load(kind, sample, args.data)
        for norm in args.norm or NORMS:
            eps = BUDGETS[args.data, kind][norm]
            groups = {
                "bare": ([measure.BARE], many, None),
                "pgd": (contestants.pgd(norm, eps), many, eps),
                "apgd": (contestants.apgd(norm, eps), few, eps),
                "ensemble": (contestants.ensembles(norm, eps), few, eps),
                "minimal": (contestants.minimal(norm), few, None),
            }
            if kind == "larger":
                # What matters here is time alone, and it takes much of it.
                small, part = FIRM * eps, (few[0][::2], few[1][::2])
                entries = [contestants.as_it_comes(norm, small)]
                groups = {
                    "bare": ([measure.BARE], part, None),
                    "pgd": (contestants.pgd(norm, eps), part, eps),
                    "firm": (entries, few, small),
                }
            for group, (entries, images, radius) in groups.items():
                if args.group and group not in args.group:
                    continue
                if group == "firm":
                    images = standing(model, *images, radius, norm)
                common = {"network": kind, "norm": norm}
                if radius is not None:
                    common["eps"] = radius
                arguments = (model, *images, norm, radius)
                yield compare(group, entries, common, arguments, rest)


def standing(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str
) -> tuple[Tensor, Tensor]:
    """Return half of the images, of those that a longer PGD does not fool."""
    fooled = attacks.pgd(model, x, y, eps=eps, norm=norm, steps=50).success
    rows = (~fooled).nonzero().squeeze(1)[: len(x) // 2]
    return x[rows], y[rows]


def earlier(args: argparse.Namespace, facts: dict[str, str]) -> list[Row]:
    """Return the rows that a part is to be measured into; note that it was a part."""
    apart = [*(args.network or ()), *(args.norm or ()), *(args.group or ())]
    if not (apart and args.write and args.write.exists()):
        return []
    known, old = results.read(args.write)
    for name in facts.keys() - {"date", "device", "python"}:
        if known.get(name) != facts[name]:
            raise SystemExit(
                f"{args.write} is of {name} {known.get(name)}, this of {facts[name]}:"
                " measure all of it."
            )
    part = f"{', '.join(apart)} ({facts['date']}, {facts['device']})"
    facts |= {name: known[name] for name in ("date", "device", "python")}
    parts = [p for p in known.get("measured apart", "").split("; ") if p]
    facts["measured apart"] = "; ".join(dict.fromkeys([*parts, part]))
    facts["cpu seconds"] = known["cpu seconds"]
    return old


def show(part: list[Row]) -> None:
    """Print a group as a table."""
    head = part[0]
    title = f"{head['network']}, {head['norm']}"
    if "eps" in head:
        title += f", eps {text(head['eps'])}"
    print(f"\n{title}: {head['group']}, {head['images']} images")
    skipped = ("network", "norm", "eps", "group", "images", "note")
    columns = [c for c in COLUMNS if c not in skipped and any(c in row for row in part)]
    table(columns, part, named=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=256, help="for strong attacks")
    parser.add_argument("--many", type=int, default=512, help="images for PGD")
    parser.add_argument("--norm", action="append", choices=NORMS, help="default: all")
    parser.add_argument("--network", action="append", choices=networks.KINDS)
    parser.add_argument("--group", action="append", choices=GROUPS)
    parser.add_argument("--repeats", type=int, default=5, help="of short attacks")
    parser.add_argument("--data", choices=("fashion", "cifar10"), default="fashion")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="few images, linf only")
    parser.add_argument("--write", type=Path, help="a CSV file to write")
    args = parser.parse_args()
    if args.quick:
        args.images, args.many = min(args.images, 32), min(args.many, 128)
        args.norm, args.repeats = args.norm or ["linf"], 1

    torch.set_num_threads(1)
    started = time.perf_counter()
    facts = provenance(LIBRARIES, args.data, args.device)
    found = earlier(args, facts)
    for part in rows(args):
        show(part)
        found = results.merged(found, part)
        if args.write:
            # An interrupted run leaves what it measured.
            results.write(args.write, COLUMNS, found, facts)
    used = float(facts.get("cpu seconds", 0)) + time.process_time() + measure.spent()
    facts["cpu seconds"] = f"{used:.0f}"
    # Judged as written, so that whoever reads the table comes to the same verdicts.
    demands = results.verdicts({k: text(v) for k, v in row.items()} for row in found)
    if demands:
        table(list(demands[0]), demands, named=1)
    print()
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(f"wall seconds: {time.perf_counter() - started:.0f}")
    if args.write:
        results.write(args.write, COLUMNS, found, facts)
        print(f"written: {args.write}")
        if demands:
            judged = args.write.with_name(f"{args.write.stem}-limits.csv")
            results.write(judged, list(demands[0]), demands)
            print(f"written: {judged}")
    return int(any("ratio" not in row for row in found))


def everything(options: list[str]) -> int:
    """Measure all tables, each in a process of its own; return the worst status."""
    worst = 0
    for name in ("attacks", *PARTS):
        part = [] if name == "attacks" else [name]
        table = networks.ROOT / "benchmarks" / "results" / f"{name}.csv"
        print(f"\n{name}: into {table}", flush=True)
        call = [sys.executable, __file__, *part, "--write", str(table), *options]
        worst = max(worst, abs(subprocess.run(call).returncode))
    return worst


if __name__ == "__main__":
    if sys.argv[1:2] == ["all"]:
        sys.exit(everything(sys.argv[2:]))
    if len(sys.argv) > 1 and sys.argv[1] in PARTS:
        sys.exit(import_module(sys.argv[1]).main(sys.argv[2:]))
    sys.exit(main())
