"""On a GPU the attacks give what they give on a CPU, fast and without waiting."""

import time
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from crlib import attacks

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("no CUDA device: the GPU tests did not run", allow_module_level=True)


def task(n: int = 256) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4096, 10),
    ).eval()
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model, x, model(x).argmax(1)


ATTACKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "pgd": (attacks.pgd, {"eps": 0.003, "steps": 10}),
    "apgd l2": (attacks.apgd, {"eps": 0.05, "norm": "l2", "steps": 20}),
    "apgd l1": (attacks.apgd, {"eps": 1.0, "norm": "l1", "steps": 20}),
    "apgd rivals": (
        attacks.apgd,
        {"eps": 0.003, "steps": 10, "n_targets": 3, "together": 2},
    ),
    "square": (attacks.square, {"eps": 0.01, "queries": 20}),
    "deepfool": (attacks.deepfool, {"norm": "l2"}),
    "fmn": (attacks.fmn, {"norm": "linf", "steps": 40}),
    "sigma zero": (attacks.sigma_zero, {"steps": 40}),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_gpu_finds_what_a_cpu_finds(name: str) -> None:
    model, x, y = task()
    attack, options = ATTACKS[name]
    here = attack(model, x, y, **options)
    there = attack(model.cuda(), x.cuda(), y.cuda(), **options)
    assert there.x_adv.is_cuda and there.success.is_cuda
    assert abs(here.robust_accuracy - there.robust_accuracy) <= 0.02
    both = here.success & there.success.cpu()
    if both.any():
        ratio = there.distance.cpu()[both].median() / here.distance[both].median()
        assert 0.95 <= ratio <= 1.05


def test_bfloat16_agrees_with_single_precision() -> None:
    model, x, y = task()
    model, x, y = model.cuda(), x.cuda(), y.cuda()
    options: dict[str, Any] = {"eps": 0.003, "steps": 10}
    full = attacks.evaluate(attacks.pgd, model, x, y, **options)
    low = attacks.evaluate(attacks.pgd, model, x, y, autocast=torch.bfloat16, **options)
    with torch.no_grad():
        assert low.success.equal(model(low.x_adv).argmax(1) != y)
    assert abs(full.robust_accuracy - low.robust_accuracy) <= 0.02


@pytest.mark.parametrize("name", ["pgd", "apgd l2", "apgd l1", "apgd rivals"])
def test_ascent_waits_at_most_twice_a_step(name: str) -> None:
    model, x, y = task()
    model, x, y = model.cuda(), x.cuda(), y.cuda()
    attack, options = ATTACKS[name]

    def waits(steps: int) -> int:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                attack(model, x, y, **options | {"steps": steps})
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(w.message) for w in seen)

    # Once to learn who is fooled, once more where an objective has stood still.
    rounds = -(-options.get("n_targets", 1) // options.get("together", 1))
    assert 20 <= waits(20) <= 2 * 20 * rounds + 20


def test_minimal_norm_loops_do_not_wait_for_the_device() -> None:
    model, x, y = task(64)
    model, x, y = model.cuda(), x.cuda(), y.cuda()

    def waits(steps: int) -> int:
        with torch.profiler.profile() as profile:
            attacks.fmn(model, x, y, steps=steps)
        return sum(
            event.count
            for event in profile.key_averages()
            if event.key in ("aten::item", "aten::_local_scalar_dense")
        )

    assert waits(40) == waits(10)


def test_memory_and_throughput() -> None:
    model, x, y = task(2048)
    model, x, y = model.cuda(), x.cuda(), y.cuda()
    steps = 20

    def bare() -> None:
        for _ in range(steps):
            z = x.clone().requires_grad_()
            torch.autograd.grad(model(z).sum(), z)

    def peak_and_seconds(job: Any) -> tuple[int, float]:
        job()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        job()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(), time.perf_counter() - started

    memory, seconds = peak_and_seconds(bare)
    ours = peak_and_seconds(lambda: attacks.pgd(model, x, y, eps=1e-6, steps=steps))
    print(
        f"memory {ours[0] / memory:.2f}, time {ours[1] / seconds:.2f} of the bare loop"
    )
    assert ours[0] <= 2 * memory
    assert ours[1] <= 2 * seconds
