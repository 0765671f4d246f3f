"""Measure one attack in a process of its own, and judge what it returns."""

import contextlib
import ctypes
import multiprocessing
import resource
import statistics
import sys
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
LONG = 2.5
# Of glibc's malloc.h: the size from which on memory is asked of the system itself.
M_MMAP_THRESHOLD = -3


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


def peak(device: torch.device) -> float:
    """Return the most memory this process has held, in megabytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6


def forget_peak(device: torch.device) -> float:
    """Start the record of memory afresh; return what is held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        # Freed memory that is still held would hide what the attack asks for. Other C
        # libraries have no malloc_trim.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return peak(device)


def give_back_at_once() -> None:
    """Let every freed tensor leave the process, so that a peak is what is in use.

    Else a peak depends on the gaps that earlier tensors left. It slows an attack down.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)


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
    before = forget_peak(device)
    counter, found = Counter(model), []
    times = [seconds(lambda: found.append(attack()), device)]
    megabytes = [peak(device) - before]
    counter.hook.remove()
    loops = [seconds(bare, device)]
    for _ in range(repeats):
        # They take turns, so that a slow spell of the machine meets both.
        if times[0] < LONG:
            times.append(seconds(attack, device))
        loops.append(seconds(bare, device))
    if times[0] < LONG:
        give_back_at_once()
        for _ in range(2):
            before = forget_peak(device)
            attack()
            megabytes.append(peak(device) - before)
    return judge(model, x, y, found[0], norm, eps) | {
        "seconds": statistics.median(times),
        "ratio": statistics.median(times) / statistics.median(loops),
        "megabytes": min(megabytes),
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
