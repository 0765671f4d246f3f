"""The networks under attack: undefended, adversarially trained, and a larger one."""

import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from crlib import data
from crlib.models import ConvNet, Normalize

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("undefended", "defended", "larger")
# Radius of the adversarial training, linf, in input units.
TRAINED_AT = {"fashion": 0.1, "cifar10": 8 / 255}
EPOCHS = {"undefended": 6, "defended": 12, "larger": 3}


def load_data(name: str) -> data.Dataset:
    return data.fashion_mnist_sample() if name == "fashion" else data.cifar10()


def build(kind: str, sample: data.Dataset) -> nn.Module:
    """Return an untrained network of two convolutions and two linear layers.

    The larger is the book's, with three: ten times the multiplications, so that its
    passes decide about time.
    """
    channels, height, width = sample.x_train.shape[1:]
    mean, std = float(sample.x_train.mean()), float(sample.x_train.std())
    if kind == "larger":
        image = (channels, height, width)
        return ConvNet(classes=sample.classes, image=image, mean=mean, std=std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KINDS.index(kind))
        return nn.Sequential(
            Normalize(mean, std),
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 100),
            nn.ReLU(),
            nn.Linear(100, sample.classes),
        )


def perturb(model: nn.Module, x: Tensor, y: Tensor, eps: float, start: Tensor):
    """Take three signed gradient steps from a random start.

    Not crlib's PGD: the networks must not change when the attacks do.
    """
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    z = low + start * (high - low)
    for _ in range(3):
        z.requires_grad_()
        loss = nn.functional.cross_entropy(model(z), y, reduction="sum")
        (g,) = torch.autograd.grad(loss, z)
        z = (z.detach() + eps / 2 * g.sign()).clamp(low, high)
    return z


def train(kind: str, sample: data.Dataset, eps: float) -> nn.Module:
    model, generator = build(kind, sample), torch.Generator().manual_seed(0)
    x, y, epochs = sample.x_train[:20_000], sample.y_train[:20_000], EPOCHS[kind]
    steps = epochs * -(-len(x) // 128)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            batch = x[rows]
            if kind == "defended":
                start = torch.rand(batch.shape, generator=generator)
                batch = perturb(model, batch, y[rows], eps, start)
            loss = nn.functional.cross_entropy(model(batch), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def load(kind: str, sample: data.Dataset, dataset: str) -> nn.Module:
    """Return a trained network, from ``_build/bench`` if it was trained before."""
    recipe = Path(__file__).read_bytes() + f"{kind} {sample.fingerprint}".encode()
    file = ROOT / "_build" / "bench" / f"{hashlib.sha256(recipe).hexdigest()[:16]}.pt"
    model = build(kind, sample)
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        started = time.process_time()
        model = train(kind, sample, TRAINED_AT[dataset])
        print(f"Trained the {kind} network: {time.process_time() - started:.0f} s")
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file)
    return model.eval()
