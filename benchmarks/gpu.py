"""What ten minutes on a GPU are good for: ``make gpu``.

    python benchmarks/gpu.py [--seconds 570] [--out gpu] [--device cuda] [--tiny]

Three things, one after the other, within the seconds given: the tests that need a GPU,
the attacks beside those of other libraries, and networks of the study ``cifar10``,
ResNet-18 in bfloat16, seed after seed, as many as fit. None is begun that would not
end in time. All tables go to one folder, and a second call goes on with the networks.
``--tiny`` tries the same path in a minute, on noise; ``--device cpu`` needs no GPU.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from crlib import data, studies
from crlib.studies.engine import Config

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = "--networks"  # only these: the process that main() can stop
# Shares of the time for the first two; the networks have what is left.
SHARES = {"tests": 0.25, "attacks": 0.25}
LIBRARIES = ("adv-lib", "foolbox", "pyautoattack", "torchattacks")
SLACK = 1.2  # how much longer than the longest so far the next network may take
CLOSING = 10  # seconds to write the tables


def jobs(tiny: bool) -> list[list[Config]]:
    """Return the trainings in their order, each with its checkpoints."""
    grid = studies.find("cifar10").grids["gpu"]
    trainings: dict[tuple[object, ...], list[Config]] = {}
    for config in grid:
        key = config["way"], config["seed"]
        trainings.setdefault(key, []).append(config)
    found = list(trainings.values())
    if not tiny:
        return found
    small = {"network": "small ResNet", "images": 40, "epochs": 1, "batch": 20}
    few = {"judged": 10, "attacked": 4, "cascade": 4, "strength": 4}
    return [[c | small | few for c in job[-1:]] for job in found[2:3]]


def train_networks(out: Path, device: str, deadline: float, tiny: bool) -> None:
    """Train and judge networks until the next one would not end in time."""
    longest = 0.0
    for job in jobs(tiny):
        started = time.time()
        if started + SLACK * longest > deadline:
            print(f"No time for {job[0]['way']}, seed {job[0]['seed']}.")
            break
        study = studies.find("cifar10")
        studies.sweep(study, job, out, device=device, progress=False)
        took = time.time() - started
        # What an earlier call had finished takes no time and foretells none.
        longest = max(longest, took)
        print(f"{job[0]['way']}, seed {job[0]['seed']}: {took:.0f} s", flush=True)


def within(seconds: float, log: Path, *command: str) -> str:
    """Run a command, at most so long, and return its outcome in a word."""
    if seconds <= 0:
        return "no time"
    known = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(ROOT), *([known] if known else [])])
    with log.open("w", encoding="utf-8") as stream:
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": path},
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "stopped"
    # Of pytest 5 means that nothing ran: no CUDA here.
    return {0: "passed", 5: "skipped"}.get(done.returncode, "failed")


def missing() -> list[str]:
    """Return the libraries of the comparison that are not installed."""
    installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
    return [name for name in LIBRARIES if name not in installed]


def noise(folder: Path) -> None:
    """Write a CIFAR-10 of noise, four training images a class and two to test."""
    draw = np.random.default_rng(0)
    for kind in data.SETS["cifar10"].classes:
        for part, count in (("train", 4), ("test", 2)):
            place = folder / "cifar10" / part / kind
            place.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = draw.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")


def table(out: Path) -> int:
    """Write the finished networks as a table; return how many rows it has."""
    try:
        found = studies.results(out, studies.find("cifar10"))
    except studies.StudyError:
        return 0
    found.to_csv(out / "networks.csv", index=False, float_format="%.9g")
    return len(found)


def main(arguments: list[str] | None = None) -> int:
    """Run all three; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=570, help="for all of it")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="a folder")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--tiny", action="store_true", help="a minute, on noise")
    parser.add_argument(NETWORKS, type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    out, began = args.out.resolve(), time.time()
    if args.networks:
        train_networks(out, args.device, args.networks, args.tiny)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    if args.tiny:
        noise(out / "noise")
        os.environ["CRLIB_DATA"] = str(out / "noise")
    same = ["--device", args.device, *(["--tiny"] if args.tiny else [])]
    deadline = began + args.seconds - CLOSING
    # The defended network is trained on a CPU, for minutes.
    own = ["--network=undefended", "--network=larger"]
    few = ["--images=8", "--many=8", "--network=undefended", "--group=pgd"]
    absent = missing()
    steps = {
        "tests": ["-m", "pytest", "-q", "--no-cov", "tests/gpu"],
        "attacks": [
            "benchmarks/attacks",
            *("--device", args.device, "--quick", "--write", str(out / "attacks.csv")),
            *(few if args.tiny else own),
        ],
        "networks": [
            *("benchmarks/gpu.py", "--out", str(out), *same),
            *(NETWORKS, str(deadline)),
        ],
    }
    lines = []
    for name, command in steps.items():
        started = time.time()
        most = min(SHARES.get(name, 1) * args.seconds, deadline - started)
        if name == "attacks" and absent:
            outcome = f"not run: {', '.join(absent)} missing"
        else:
            outcome = within(most, out / f"{name}.log", *command)
        lines.append((name, outcome, f"{time.time() - started:.0f}"))
        print(*lines[-1][:2], f"{lines[-1][2]} s", sep=", ", flush=True)
    print(f"{table(out)} rows of networks, in {out}")
    with (out / "summary.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("step", "outcome", "seconds"), *lines])
    return int(any(outcome == "failed" for _, outcome, _ in lines))


if __name__ == "__main__":
    sys.exit(main())
