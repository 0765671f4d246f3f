"""Training: a pure function from a model and data to a trained copy and its history."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from crlib.data import Dataset
from crlib.models import evaluating

__all__ = ["Epoch", "Fit", "fit"]

CHECKPOINTS = ("validation", "last")


@dataclass(frozen=True)
class Epoch:
    """What was measured after one epoch: mean losses, and accuracies in [0, 1]."""

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Fit:
    """A trained model and how it came about.

    Attributes:
        model: the trained copy, in evaluation mode.
        history: one :class:`Epoch` an epoch.
        checkpoint: the rule that chose the weights.
        epoch: the chosen epoch, counted from 1.
        seconds: wall-clock time of the training.
    """

    model: Any
    history: tuple[Epoch, ...]
    checkpoint: str
    epoch: int
    seconds: float


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int = 20,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    batch_size: int = 128,
    penalty: Callable[[Any], Tensor] | None = None,
    validation: float = 0.1,
    checkpoint: str = "validation",
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    r"""Minimise mean cross-entropy plus a penalty with AdamW.

    .. math:: \frac1n \sum_i \mathrm{CE}(f_\theta(x_i), y_i) + \mathrm{penalty}(\theta)

    The model given is left alone: a copy is trained. The seed fixes the split and the
    order of the batches (the initialisation belongs to the model).

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        data: its training part is used; the test part is not looked at.
        epochs: passes over the training images, at least 1.
        lr: learning rate, constant.
        weight_decay: decoupled weight decay.
        batch_size: images a step.
        penalty: maps the model to a scalar to add to the loss, such as
            ``lambda m: 1e-4 * sum(w.abs().sum() for w in m.parameters())``.
        validation: share of the training images held out, in [0, 1).
        checkpoint: ``"validation"`` returns the epoch of lowest validation loss,
            ``"last"`` the last one.
        seed: of the split and the batches.
        progress: show a progress bar with losses.

    Returns:
        A :class:`Fit`.

    Raises:
        ValueError: a bad option, labels that do not fit, or a loss that is not finite.
    """
    if checkpoint not in CHECKPOINTS:
        raise ValueError(
            f"checkpoint is {checkpoint!r}: choose one of {', '.join(CHECKPOINTS)}."
        )
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs is {epochs}, batch_size {batch_size}: at least 1.")
    n_held = round(validation * len(data.x_train))
    if not 0 <= n_held < len(data.x_train) or (
        n_held == 0 and checkpoint == "validation"
    ):
        raise ValueError(
            f"validation is {validation}: hold out a share of the"
            f" {len(data.x_train)} training samples, or use checkpoint='last'."
        )
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.x_train), generator=generator)
    held, rows = order[:n_held], order[n_held:]
    x, y = data.x_train[rows], data.y_train[rows]
    x_held, y_held = data.x_train[held], data.y_train[held]
    classes = int(data.y_train.max()) + 1

    model = copy.deepcopy(model).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=lr, weight_decay=weight_decay, fused=True
    )
    history: list[Epoch] = []
    best, best_epoch, best_state = float("inf"), epochs, None
    bar = tqdm(range(1, epochs + 1), disable=not progress, desc="epochs", leave=False)
    for epoch in bar:
        total, hits = 0.0, 0
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            logits = model(x[batch])
            if logits.ndim != 2 or logits.shape[1] < classes:
                raise ValueError(
                    f"The model returned {tuple(logits.shape)}: it must return logits"
                    f" (N, K) with K at least {classes}, one a label."
                )
            loss = nn.functional.cross_entropy(logits, y[batch])
            objective = loss if penalty is None else loss + penalty(model)
            optimiser.zero_grad(set_to_none=True)
            objective.backward()
            optimiser.step()
            total += float(objective.detach()) * len(batch)
            hits += int((logits.argmax(1) == y[batch]).sum())
        if not total < float("inf"):
            raise ValueError(
                f"The loss is {total} in epoch {epoch}: lower the learning rate or the"
                " penalty."
            )
        held_loss, held_accuracy = _evaluate(model, x_held, y_held)
        history.append(Epoch(total / len(x), hits / len(x), held_loss, held_accuracy))
        bar.set_postfix(loss=f"{total / len(x):.3f}", validation=f"{held_loss:.3f}")
        if checkpoint == "validation" and held_loss < best:
            best, best_epoch = held_loss, epoch
            best_state = copy.deepcopy(model.state_dict())
    if best_state is not None:
        model.load_state_dict(best_state)
    return Fit(
        model=model.eval(),
        history=tuple(history),
        checkpoint=checkpoint,
        epoch=best_epoch,
        seconds=time.perf_counter() - started,
    )


def _evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    if not len(x):
        return float("nan"), float("nan")
    with torch.no_grad(), evaluating(model):
        logits = torch.cat([model(part) for part in x.split(1024)])
    loss = nn.functional.cross_entropy(logits, y)
    return float(loss), float((logits.argmax(1) == y).double().mean())
