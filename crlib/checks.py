"""What is refused before any work, in one set of sentences; and the default chance.

Every room asks here, so that the same input is treated alike by an attack, a
certificate and a closed form. Each function raises one ValueError that says what to do.
"""

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crlib.asking import reached

__all__ = [
    "at_least",
    "chance",
    "finite",
    "inputs",
    "joined",
    "labels",
    "logits",
    "not_negative",
    "one_of",
    "pairs",
    "per_sample",
    "shape",
    "tensor",
]

# Inputs this far outside [0, 1] are rounding, not a mistake.
SLACK = 1e-6


def chance(generator: torch.Generator | None) -> torch.Generator:
    """Return the caller's generator or a new one of seed 0; torch's own is left alone.

    Args:
        generator: the caller's, or None.
    """
    return torch.Generator().manual_seed(0) if generator is None else generator


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse an option that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(choices)}.")


def at_least(least: int, **counts: int) -> None:
    """Refuse counts that are too small, or no whole numbers, such as 1e2."""
    for name, count in counts.items():
        if not isinstance(count, Integral):
            raise ValueError(f"{name} is {count!r}: give a whole number, such as 20.")
        if count < least:
            raise ValueError(f"{name} is {count}: at least {least}.")


def not_negative(**numbers: float) -> None:
    """Refuse numbers that are negative or not finite."""
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ValueError(f"{name} is {number}: it must be finite and not negative.")


def tensor(v: Any, name: str) -> None:
    """Refuse what is not a tensor, and say how to make one of it."""
    if isinstance(v, Tensor):
        return
    cure = f"torch.as_tensor({name})"
    if isinstance(v, DataLoader | Dataset):
        cure = (
            "x, y = (torch.cat(part) for part in zip(*loader)), or one batch of it."
            " attacks.evaluate and crlib.report take a DataLoader as it is"
        )
    raise ValueError(f"{name} is a {type(v).__name__}: give a tensor, {cure}.")


def inputs(x: Tensor, name: str = "x", box: bool = True) -> None:
    """Refuse what is not a batch of inputs, or, with ``box``, leaves [0, 1].

    Args:
        x: ``(N, d)`` or ``(N, C, H, W)``, floating point.
        name: of the argument, for the sentence.
        box: whether inputs must lie in [0, 1], up to a rounding of 1e-6.
    """
    tensor(x, name)
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(
            f"{name} is {x.dtype} of shape {tuple(x.shape)}: give a batch (N, d) or"
            " (N, C, H, W) of floating-point numbers."
        )
    low, high = x.aminmax() if x.numel() else (0.0, 1.0)
    if low != low:
        raise ValueError(
            f"{name} holds a NaN: inputs lie in [0, 1]. Clean the data first."
        )
    if box and not (-SLACK <= low and high <= 1 + SLACK):
        cure = (
            "Make normalisation the model's first layer (crlib.models.Normalize) and"
            " give them unnormalised. What has another range goes through"
            " crlib.models.Box."
        )
        if -0.01 < low and high < 1.01:
            cure = f"Rounding leaves less: {name}.clamp(0, 1), if that is all it is."
        raise ValueError(
            f"{name} runs from {float(low):.7g} to {float(high):.7g}: inputs lie in"
            f" [0, 1]. {cure}"
        )


def finite(*values: Tensor) -> None:
    """Refuse inputs that hold a NaN or an infinity."""
    if not all(v.isfinite().all() for v in values):
        raise ValueError("The inputs hold a NaN or an infinity.")


def labels(y: Tensor, n: int, name: str = "y", classes: int | None = None) -> None:
    """Refuse what is not one label for each of ``n`` samples.

    Args:
        y: ``(N,)`` int64.
        n: number of samples.
        name: of the argument, for the sentence.
        classes: number of classes, if it is known yet.
    """
    tensor(y, name)
    if y.shape != (n,) or y.dtype != torch.int64:
        raise ValueError(
            f"{name} is {y.dtype} of shape {tuple(y.shape)}: give one integer label"
            f" (int64) for each of the {n} samples."
        )
    least, most = y.aminmax() if n else (0, 0)
    wrong = int(least) if least < 0 else int(most)
    if wrong < 0 or (classes is not None and wrong >= classes):
        known = "0 on" if classes is None else f"0 to {classes - 1}"
        raise ValueError(f"{name} holds the label {wrong}: labels run from {known}.")


def joined(loader: DataLoader[Any], model: Any = None) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of all batches of a loader, on the model's device.

    Raises:
        ValueError: batches that are no pairs of tensors, none at all, or inputs of
            several shapes.
    """
    found = []
    for part in loader:
        two = part[:2] if isinstance(part, list | tuple) else ()
        if len(two) < 2 or not all(isinstance(v, Tensor) for v in two):
            raise ValueError(
                f"A batch of the DataLoader is {_told(part)}: give one of pairs of"
                " tensors, inputs and labels, or the two as x and y."
            )
        found.append(two)
    if not found:
        raise ValueError("The DataLoader is empty.")
    x, y = zip(*found, strict=True)
    if len({v.shape[1:] for v in x}) > 1:
        raise ValueError("The inputs of the DataLoader differ in shape: resize them.")
    weights = (p for m in reached(model)[0] for p in m.parameters(recurse=False))
    place = next((p.device for p in weights), x[0].device)
    return torch.cat(x).to(place), torch.cat(y).to(place)


def _told(part: Any) -> str:
    """What a batch is, in words."""
    if isinstance(part, dict):
        return f"a dictionary of {', '.join(map(str, part))}"
    if isinstance(part, list | tuple):
        held = ", ".join(type(v).__name__ for v in part)
        return f"a {type(part).__name__} of {held}"
    return f"a {type(part).__name__}"


def pairs(
    x: Tensor | DataLoader[Any], y: Tensor | None, model: Any
) -> tuple[Tensor, Tensor]:
    """Return inputs and labels that fit each other; of a loader, those of its batches.

    Raises:
        ValueError: labels beside a loader, or what :func:`joined`, :func:`inputs` and
            :func:`labels` refuse.
    """
    if isinstance(x, DataLoader):
        if y is not None:
            raise ValueError("x is a DataLoader, which has the labels: leave y out.")
        x, y = joined(x, model)
    inputs(x)
    labels(y, len(x))  # type: ignore[arg-type]  # None is refused in words
    return x, y  # type: ignore[return-value]


def per_sample(name: str, size: float | Tensor, x: Tensor) -> Tensor:
    """Return a length, one number or one a sample of ``x``, as ``(N,)``."""
    given = torch.as_tensor(size, dtype=x.dtype, device=x.device)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(x)):
        raise ValueError(f"{name} has shape {tuple(given.shape)}: one number, or (N,).")
    if not (torch.isfinite(given).all() and (given >= 0).all()):
        raise ValueError(f"{name} is {size}: it must be finite and not negative.")
    return given.expand(len(x))


def logits(z: Tensor, n: int) -> None:
    """Refuse what is not logits ``(N, K)`` of ``n`` samples, with K at least 2."""
    if z.ndim != 2 or len(z) != n or z.shape[1] < 2:
        raise ValueError(
            f"The model returned {tuple(z.shape)} for {n} samples: it must return"
            " logits (N, K) with K at least 2. crlib.models.logits(model) makes two"
            " columns of one logit."
        )
    if z.isnan().any():
        raise ValueError("The model returned a NaN: look at its weights and inputs.")


def shape(input_shape: Any, images: bool = False) -> tuple[int, ...]:
    """Return the shape of one input as a tuple of whole numbers, or refuse it.

    Args:
        input_shape: without the batch, ``(d,)`` or ``(C, H, W)``.
        images: whether only ``(C, H, W)`` will do.
    """
    sizes = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    whole = all(isinstance(n, Integral) and int(n) > 0 for n in sizes)
    if not sizes or not whole or (images and len(sizes) != 3):
        what = "one input without the batch, give (d,) or (C, H, W)"
        raise ValueError(
            f"input_shape is {input_shape}: it is that of"
            f" {'one image, give (C, H, W)' if images else what}."
        )
    return tuple(int(n) for n in sizes)
