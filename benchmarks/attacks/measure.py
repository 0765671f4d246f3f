"""Measure one attack in a process of its own, and judge what it returns."""

import contextlib
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from contestants import STEPS, Contestant
from judge import judge
from torch import Tensor, nn

# Seconds from which on an attack is run once. A shorter one is repeated.
LONG = 5.0
# Passes through the model that are watched for memory. Batches are whole there.
WATCHED = 100
# The profiler of the processes to come would announce its start and stop.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


class Counter:
    """Count the samples that pass through a model, forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        self.forward = self.backward = 0
        self.hook = model.register_forward_hook(self.seen)

    def seen(self, _model: nn.Module, inputs: Any, logits: Tensor) -> None:
        self.forward += len(inputs[0])
        if logits.requires_grad:
            logits.register_hook(self.returned)

    def returned(self, g: Tensor) -> None:
        self.backward += len(g)


def clock(device: torch.device) -> float:
    """Return CPU seconds, which other programs do not disturb; for a GPU wall time."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(job: Callable[[], object], device: torch.device) -> float:
    started = clock(device)
    job()
    return clock(device) - started


class Enough(BaseException):
    """Ends an attack of which enough has been seen; no library catches it."""


def memory(job: Callable[[], object], model: nn.Module, device: torch.device) -> float:
    """Return the most that tensors of a job hold at once, in megabytes.

    What the process holds would depend on the gaps between earlier tensors.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes > WATCHED:
            raise Enough

    hook = model.register_forward_pre_hook(count)
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as watched:
        with contextlib.suppress(Enough):
            job()
    hook.remove()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        watched.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    held = [e["args"]["Total Allocated"] for e in events if e["name"] == "[memory]"]
    return max(held, default=0) / 1e6


def bare_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Do what no gradient attack of so many steps can avoid, and nothing else."""
    for _ in range(STEPS):
        z = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(z), y, reduction="sum")
        torch.autograd.grad(loss, z)
    return x


BARE = Contestant("none", "bare loop", bare_loop)


def run(
    contestant: Contestant,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    norm: str,
    eps: float | None,
    device: torch.device,
    repeats: int,
) -> dict[str, Any]:
    """Run an attack for points and passes, then for its time, then for its memory.

    Time is the median of the runs, so that one run of a slow attack is no worse off.
    """
    model, x, y = model.to(device), x.to(device), y.to(device)

    def attack() -> Tensor:
        torch.manual_seed(0)
        return contestant.run(model, x.clone(), y.clone()).detach()

    def bare() -> Tensor:
        return bare_loop(model, x, y)

    # What libraries load at their first call is no memory of the attack.
    bare_loop(model, x[:4], y[:4])
    (contestant.warm_up or contestant.run)(model, x[:4].clone(), y[:4].clone())
    counter, found = Counter(model), []
    times = [seconds(lambda: found.append(attack()), device)]
    counter.hook.remove()
    loops = [seconds(bare, device)]
    for _ in range(repeats):
        # They take turns, so that a slow spell of the machine meets both.
        if times[0] < LONG:
            times.append(seconds(attack, device))
        loops.append(seconds(bare, device))
    return judge(model, x, y, found[0], norm, eps) | {
        "seconds": statistics.median(times),
        "ratio": statistics.median(times) / statistics.median(loops),
        # Last, as it may leave an attack in the middle.
        "megabytes": memory(attack, model, device),
        "forward": counter.forward / len(x),
        "backward": counter.backward / len(x),
    }


def spent() -> float:
    """Return the CPU seconds of all processes that :func:`apart` started."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def apart(*arguments: Any) -> dict[str, Any]:
    """Do :func:`run` in a fresh copy of this process, whose memory is its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, arguments))
    process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        answer = {"error": "its process ended without an answer"}
    process.join()
    return answer


def _answer(there: Connection, arguments: tuple[Any, ...]) -> None:
    try:
        answer = run(*arguments)
    except Exception as error:  # One library's failure must not end the comparison.
        answer = {"error": f"{type(error).__name__}: {error}"}
    there.send(answer)
