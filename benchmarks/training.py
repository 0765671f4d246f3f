"""Time adversarial training steps and many small networks against plain loops.

Two figures. A step of adversarial training with PGD of 7 steps, over 7 forward passes
with input gradients plus one plain training step. And 30 small networks trained as one
job, over the same networks one after the other.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from crlib import compress, data, models, train

STEPS = 7


def least(work: Callable[[], object], repeats: int, device: str) -> float:
    """Return the least time of a call: of one thread on a CPU, of the clock on CUDA."""
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    best = float("inf")
    for _ in range(repeats):
        started = clock()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, clock() - started)
    return best


def adversarial_step(device: str, repeats: int) -> float:
    """Return the ratio of a step of adversarial training to the passes it needs."""
    net = models.ConvNet((32, 64), image=(1, 28, 28)).to(device)
    images = data.fashion_mnist_sample().to(device)
    x, y = images.x_train[:256], images.y_train[:256]
    adversary = train.pgd_adversary(eps=0.1, steps=STEPS)
    generator = torch.Generator().manual_seed(0)

    def step(inputs: Tensor) -> None:
        net.zero_grad()
        nn.functional.cross_entropy(net(inputs), y).backward()

    def bare() -> None:
        with models.evaluating(net):
            z = x.clone()
            for _ in range(STEPS):
                z.requires_grad_(True)
                loss = nn.functional.cross_entropy(net(z), y)
                torch.autograd.grad(loss, z)
        step(x)

    ours, plain = (
        least(work, repeats, device)
        for work in (lambda: step(adversary(net, x, y, generator)), bare)
    )
    return ours / plain


def many_networks(device: str, repeats: int, count: int = 30) -> float:
    """Return the ratio of one job to as many trainings one after the other."""
    task = data.linear_teacher(500, 200, 32).to(device)
    nets = [models.MLP((32, 64, 2), bias=True, seed=k).to(device) for k in range(count)]
    penalty = compress.group_lasso(1e-3, scale_invariant=True)
    options = {"epochs": 10, "batch_size": 64, "penalty": penalty, "progress": False}

    def one_by_one() -> None:
        for seed, net in enumerate(nets):
            train.fit(net, task, seed=seed, **options)

    together = least(lambda: train.fit_many(nets, task, **options), repeats, device)
    return together / least(one_by_one, repeats, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    ratio = adversarial_step(chosen.device, chosen.repeats)
    print(f"adversarial training step, {STEPS} steps of PGD: {ratio:.2f} of its passes")
    ratio = many_networks(chosen.device, max(1, chosen.repeats // 2))
    print(f"30 networks as one job: {ratio:.2f} of one after the other")


if __name__ == "__main__":
    main()
