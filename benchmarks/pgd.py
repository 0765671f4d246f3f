"""Time PGD against a bare loop of forward passes and input gradients, in one run.

    python benchmarks/pgd.py [--samples 512] [--steps 20] [--repeats 15] [--check]

Prints ratios of CPU time of one thread: on images that cannot be fooled at the budget,
so that no sample leaves the batch, and on an undefended network; beside both a plain
PGD that drops nothing.
With ``--check`` it exits with 1 if a ratio is over its limit.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch

from crlib import attacks, data, models, train
from crlib.metrics import accuracy, margin

LIMITS = {"nothing dropped": 1.15, "undefended": 0.40}


def bare_loop(model, x, y, steps: int) -> None:
    """Do what no gradient attack can avoid: forward passes and input gradients."""
    for _ in range(steps):
        z = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(z), y, reduction="sum")
        torch.autograd.grad(loss, z)


def plain_pgd(model, x, y, eps: float, steps: int) -> float:
    """Return the robust accuracy of PGD that keeps every sample to the end."""
    z, step = x.clone(), 2.5 * eps / steps
    fooled = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(steps):
        z.requires_grad_()
        logits = model(z)
        fooled |= logits.argmax(1) != y
        (g,) = torch.autograd.grad(-margin(logits, y).sum(), z)
        z = (z.detach() + step * g.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    with torch.no_grad():
        fooled |= model(z).argmax(1) != y
    return 1 - float(fooled.double().mean())


def alternate(repeats: int, *jobs: Callable[[], object]) -> list[float]:
    """Return each job's least CPU seconds, which other programs disturb least; the jobs
    take turns, so that a slow spell of the machine meets them all."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for _ in range(repeats):
        for job, times in zip(jobs, seconds, strict=True):
            started = time.process_time()
            job()
            times.append(time.process_time() - started)
    return [min(times) for times in seconds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)
    sample = data.fashion_mnist_sample()
    model = models.MLP((784, 256, 256, 256, 10), mean=0.29, std=0.35)
    model = train.fit(model, sample, epochs=8, progress=False).model
    images, truth = sample.x_test, sample.y_test
    firm = ~attacks.pgd(model, images, truth, eps=0.004, steps=50).success
    steps, over, n = args.steps, False, args.samples
    print(f"{args.samples} images, {steps} steps, one thread")
    for name, x, labels, eps in (
        ("nothing dropped", images[firm][:n], truth[firm][:n], 0.004),
        ("undefended", images[:n], truth[:n], 0.1),
    ):
        plain = plain_pgd(model, x, labels, eps, steps)
        result = attacks.pgd(model, x, labels, eps=eps, steps=steps)
        bare, ours, theirs = alternate(
            args.repeats,
            lambda x=x, labels=labels: bare_loop(model, x, labels, steps),
            lambda x=x, labels=labels, eps=eps: attacks.pgd(
                model, x, labels, eps=eps, steps=steps
            ),
            lambda x=x, labels=labels, eps=eps: plain_pgd(model, x, labels, eps, steps),
        )
        ratio, limit = ours / bare, LIMITS[name]
        over |= ratio > limit or result.robust_accuracy > plain + 0.002
        print(
            f"{name:16} eps {eps:g}: crlib {ratio:.2f} of the bare loop (limit"
            f" {limit:.2f}), plain PGD {theirs / bare:.2f};"
            f" robust accuracy {result.robust_accuracy:.3f}, plain {plain:.3f},"
            f" clean {accuracy(model, x, labels):.3f};"
            f" passes a sample {result.n_forward.double().mean():.1f} forward,"
            f" {result.n_backward.double().mean():.1f} backward"
        )
    return int(over and args.check)


if __name__ == "__main__":
    sys.exit(main())
