"""Can the number be trusted? The published checklists as code."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.asking import evaluating, reached, with_gradients
from crlib.attacks.ascent import fgsm, pgd, random_noise
from crlib.attacks.balls import BALLS, draw
from crlib.attacks.base import (
    Asked,
    Model,
    check,
    gradient,
    objective,
    per_row,
    pick,
    rivals_of,
)
from crlib.attacks.query import square
from crlib.geometry import norm_of


@dataclass(frozen=True)
class Check:
    """One line of a checklist.

    Attributes:
        name: what should hold.
        number: the quantity behind it.
        limit: what the number may be at most.
        meaning: what a failure usually means.
    """

    name: str
    number: float
    limit: float
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether the number keeps its limit."""
        return self.number <= self.limit


@dataclass(frozen=True)
class Diagnosis:
    """The checks of :func:`diagnose`; shows as a table in a notebook and as text."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, name: str) -> Check:
        """Return the check of this name."""
        for one in self.checks:
            if one.name == name:
                return one
        raise KeyError(f"{name!r}; there are: {', '.join(c.name for c in self.checks)}")

    def __str__(self) -> str:
        width = max(len(one.name) for one in self.checks)
        lines = []
        for one in self.checks:
            mark = "✓" if one.passed else "✗"
            number = f"{one.number:.3g} (at most {one.limit:.3g})"
            lines.append(f"{mark} {one.name:{width}}  {number}")
            if not one.passed:
                lines.append(f"    {one.meaning}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'✓' if c.passed else '✗'}</td><td>{html.escape(c.name)}</td>"
            f"<td>{c.number:.3g}</td><td>{c.limit:.3g}</td>"
            f"<td>{'' if c.passed else html.escape(c.meaning)}</td></tr>"
            for c in self.checks
        )
        head = "".join(
            f'<th scope="col">{name}</th>'
            for name in ("passed", "check", "number", "at most", "a failure means")
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


# Name, limit of the number, what a failure usually means.
CHECKS = {
    "evaluation mode": (
        0,
        "BatchNorm or Dropout layers are in training mode: call model.eval(). The"
        " attacks do so themselves, but the accuracies beside them may not.",
    ),
    "same answer twice": (
        0,
        "The model draws at random: attack and judge the mean logits of twenty"
        " calls, attacks.EOT(model).",
    ),
    "buffers stay": (
        0,
        "Questions change the model's buffers, also in evaluation mode: statistics or a"
        " memory that every step of an attack moves. Freeze them, or judge a copy.",
    ),
    "same answer in halves": (
        0.005,
        "An answer depends on the other samples of the batch, as with BatchNorm in"
        " training mode, perhaps behind a function: call eval(), or judge one by one.",
    ),
    "labels fit": (
        0.9,
        "Without any attack the model is hardly better than chance, which is 1 here:"
        " labels are shifted or shuffled, or inputs not scaled as the model expects.",
    ),
    "logits, not probabilities": (
        0,
        "Outputs are between 0 and 1 and sum to 1: remove the softmax. It rounds"
        " gradients to zero.",
    ),
    "input gradients exist": (
        0.05,
        "The gradient is zero where the model is not constant: a rounding or detached"
        " layer hides it. Attack a smooth stand-in, or without gradients.",
    ),
    "gradients tell the truth": (
        0.5,
        "The margin does not change as its gradient says: a layer rounds, or returns a"
        " made-up gradient.",
    ),
    "gradients hold in all directions": (
        0.35,
        "Along random directions the margin does not change as its gradient says: the"
        " gradient is that of another network, or made up.",
    ),
    "cross-entropy not saturated": (
        0.5,
        "Most probabilities are 1 up to rounding, so the gradient of the cross-entropy"
        " is zero: attack the margin.",
    ),
    "stronger than one step": (
        0,
        "PGD is weaker than FGSM: steps too small or too few, or a rugged loss.",
    ),
    "more steps change little": (
        0.03,
        "Twice the steps find more: the attack has not converged. Add steps.",
    ),
    "restarts change little": (
        0.05,
        "Random starts find more: the loss is rugged or flat at the inputs.",
    ),
    "noise loses": (
        0.02,
        "Random noise fools what PGD does not: its gradients mislead.",
    ),
    "black box loses": (
        0.03,
        "Queries without gradients fool what PGD does not: gradients are masked.",
    ),
    "success grows with the budget": (
        0,
        "A larger ball fools fewer: the attack is stuck.",
    ),
    "a huge budget breaks everything": (
        0.05,
        "The model resists a budget that allows any image: gradients are masked, or"
        " eps is in another unit.",
    ),
}

# What costs a few passes, and what of it more queries and random starts can cure.
GRADIENTS = (
    "input gradients exist",
    "gradients tell the truth",
    "gradients hold in all directions",
)
NOISY = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RReLU)


@with_gradients
def diagnose(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 20,
    queries: int = 100,
    generator: torch.Generator | None = None,
) -> Diagnosis:
    r"""Run the published checklists on a model: can its robust accuracy be trusted?

    After Carlini et al. 2019, the flags of AutoAttack (Croce and Hein 2020), and the
    indicators of Pintor et al. 2022. A hundred samples are enough. A failed check does
    not say that the model is weak, but that the usual attack may not show it.

    "Buffers stay" counts the buffers that change while the batch is asked three times.
    "Same answer in halves" is the largest change of a logit, over the largest logit,
    when the batch is asked in two halves. "Labels fit" is the error without attack over
    that of guessing, :math:`1 - 1/K`. "Gradients hold in all directions" compares the
    change of a margin along eight random steps with its gradient, near the inputs: the
    median over the samples of their distance over the longer of the two. Honest
    networks have at most 0.2, and the gradient of another one trained alike 0.45.

    One false alarm is known, in l1: where a background is flat, a maximum over equal
    pixels has the gradient of one of them, and the step of "gradients tell the truth"
    goes into that one alone.

    Args:
        model: leave it as you use it.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: the radius you want to report.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: of PGD.
        queries: of :func:`square` (random noise for l1).
        generator: source of chance; None means a new one of seed 0.

    Returns:
        A :class:`Diagnosis`; shares are of all samples given.

    Raises:
        ValueError: bad input, no sample, or a radius of 0.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.zeros(4, dtype=torch.int64)
        >>> x = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
        >>> attacks.diagnose(model, x, y, eps=0.25)["noise loses"].passed
        True
    """
    check(x, y, eps, norm)
    if not len(x) or not eps > 0:
        raise ValueError("A diagnosis needs at least one sample and a positive eps.")
    source = checks.chance(generator)
    modules, _ = reached(model)
    left = sum(isinstance(m, NOISY) and m.training for m in modules)
    numbers = {"evaluation mode": float(left)}
    radius = checks.per_sample("eps", eps, x)
    with evaluating(model):
        # The attacks share it, and it copies what it is given.
        model = Asked(model, probed=True)  # the halves are a check of their own
        kept = _buffers(modules)
        numbers |= _outputs(model, x, y)
        numbers["buffers stay"] = _moved(kept, _buffers(modules))
        numbers |= _gradients(model, x, y, radius, norm, source)
        numbers |= _attacks(model, x, y, eps, norm, steps, queries, source)
        numbers |= _directions(model, x, y, radius, norm)
    return Diagnosis(
        tuple(
            Check(name, numbers[name], limit, meaning)
            for name, (limit, meaning) in CHECKS.items()
        )
    )


def _buffers(modules: list[nn.Module]) -> list[Tensor]:
    return [b.detach().clone() for m in modules for b in m.buffers(recurse=False)]


def _moved(before: list[Tensor], after: list[Tensor]) -> float:
    """Return how many buffers are new or hold other numbers; NaN equals itself."""
    same = sum(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(before, after, strict=False)
    )
    return float(max(len(before), len(after)) - same)


def doubts(
    model: Model, x: Tensor, y: Tensor, radius: Tensor, norm: str, most: int = 64
) -> dict[str, float]:
    """Return the cheap checks that fail on the first samples, each with its number.

    Ask in evaluation mode. Cost: 14 forward and 2 backward passes of ``most`` samples.
    """
    rows = radius.nonzero().squeeze(1)[:most]
    if not len(rows):
        return {}
    x, y, radius = x[rows], y[rows], radius[rows]
    if norm == "l0":
        # A count is no radius: look near the inputs.
        norm, radius = "linf", torch.full_like(radius, 0.1)
    _, numbers = _agreement(model, x, y)
    numbers |= _gradients(model, x, y, radius, norm, checks.chance(None))
    numbers |= _directions(model, x, y, radius, norm)
    return {name: n for name, n in numbers.items() if not n <= CHECKS[name][0]}


def _agreement(model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Ask for the same batch three times, the second time in two halves."""
    half = -(-len(x) // 2)
    with torch.no_grad():
        first = model(x)
        checks.logits(first, len(x))
        checks.labels(y, len(x), classes=first.shape[1])
        parts = torch.cat([model(part) for part in x.split(half)])
        second = model(x)
    first, parts, second = first.double(), parts.double(), second.double()
    scale = first.abs().nan_to_num(posinf=0).amax()

    def apart(other: Tensor) -> float:
        # Equal infinities agree.
        gap = torch.where(first == other, 0, (first - other).abs())
        return float(gap.amax() / scale.clamp_min(1e-30))

    again = apart(second)
    # Kernels may sum in another order on a second call: rounding is forgiven.
    numbers = {"same answer twice": again if again > 1e-5 else 0.0}
    # What draws at random need not agree in halves either.
    halves = apart(parts) if again <= 1e-5 else 0.0
    return first, numbers | {"same answer in halves": halves}


def _outputs(model: Model, x: Tensor, y: Tensor) -> dict[str, float]:
    first, numbers = _agreement(model, x, y)
    right = first.argmax(1) == y
    sums = first.sum(1)
    looks = (first >= 0).all() and ((sums - 1).abs() < 1e-3).all()
    loss = nn.functional.cross_entropy(first.float(), y, reduction="none")
    saturated = (loss < 1e-6)[right].double()
    guessing = 1 - 1 / first.shape[1]
    return numbers | {
        "labels fit": float((~right).cpu().double().mean()) / guessing,
        "logits, not probabilities": float(looks),
        "cross-entropy not saturated": float(saturated.mean()) if right.any() else 0.0,
    }


def _gradients(
    model: Model,
    x: Tensor,
    y: Tensor,
    radius: Tensor,
    norm: str,
    source: torch.Generator,
) -> dict[str, float]:
    """Compare the change of the margin along a small step with its gradient."""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        logits = model(z)
        value = objective(logits.double(), y, None)
        g = gradient(value, z)
    dead = ~g.flatten(1).any(1)
    radius = radius / 10
    if norm == "l1":
        # All of it goes into one pixel, whose range is one.
        radius = radius.clamp_max(0.1)
    region = BALLS[norm](x.detach(), radius)
    with torch.no_grad():
        end = region.step_(x.detach().clone(), g.clone(), radius)
        end = pick(dead, region.random(source), end)
        real = objective(model(end).double(), y, None) - value
    said = (g * (end - x.detach())).flatten(1).double().sum(1)
    wrong = ((real - said).abs() - _rounding(logits)).clamp_min(0)
    off = wrong / torch.maximum(real.abs(), said.abs()).clamp_min(1e-30)
    return {
        "input gradients exist": float(dead.cpu().double().mean()),
        "gradients tell the truth": float(off.median()),
    }


def _rounding(logits: Tensor) -> Tensor:
    """Return what a margin may change by rounding, in the precision behind it."""
    kinds = (torch.bfloat16, torch.float16, torch.float32)
    fine = [torch.finfo(k).eps for k in kinds if logits.to(k).to(logits).equal(logits)]
    bit = max([*fine, torch.finfo(logits.dtype).eps])
    return 4 * bit * logits.detach().double().abs().amax(1)


def _directions(
    model: Model, x: Tensor, y: Tensor, radius: Tensor, norm: str, draws: int = 8
) -> dict[str, float]:
    """Compare the changes of a margin along random steps with what its gradient says.

    Not at the inputs, whose equal pixels are the ties of a maximum, but near them.
    """
    source = checks.chance(None)

    def moved(z: Tensor, share: float) -> Tensor:
        way = draw(torch.rand, z, source).sub_(0.5)
        way *= per_row(share * radius / norm_of(way, norm), way)
        # Mirrored at the walls, where pixels would stay as they are.
        return (1 - (1 - (z + way).abs()).abs()).clamp(0, 1)

    with torch.enable_grad():
        z = moved(x.detach(), 0.5).requires_grad_()
        logits = model(z)
        rival = rivals_of(logits.detach(), y)[:, 0]
        value = objective(logits.double(), y, rival=rival)
        g = gradient(value, z).flatten(1).double()
    z, value, changes = z.detach(), value.detach(), []
    with torch.no_grad():
        for _ in range(draws):
            end = moved(z, 0.02)
            change = objective(model(end).double(), y, rival=rival) - value
            changes.append(torch.stack([change, (g * (end - z).flatten(1)).sum(1)]))
    real, said = torch.stack(changes, 2)  # (n, draws) each
    longer = torch.maximum(norm_of(real, "l2"), norm_of(said, "l2"))
    slack = draws**0.5 * _rounding(logits)
    off = (norm_of(real - said, "l2") - slack).clamp_min(0) / longer.clamp_min(1e-30)
    return {"gradients hold in all directions": float(off.median())}


def _attacks(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str,
    steps: int,
    queries: int,
    source: torch.Generator,
) -> dict[str, float]:
    def fooled(attack: Any, radius: float = eps, **options: Any) -> Tensor:
        return attack(model, x, y, eps=radius, norm=norm, **options).success

    run = partial(fooled, partial(pgd, generator=source))
    usual = run(steps=steps)
    noise = fooled(random_noise, draws=queries, generator=source)
    blind = noise
    if norm != "l1":
        blind = fooled(square, queries=queries, generator=source)
    others = {
        "stronger than one step": fooled(fgsm),
        "more steps change little": run(steps=2 * steps),
        "restarts change little": run(steps=steps, restarts=3),
        "noise loses": noise,
        "black box loses": blind,
    }
    beyond = {k: float((v & ~usual).cpu().double().mean()) for k, v in others.items()}
    twice = min(2 * eps, 1.0) if norm == "linf" else 2 * eps
    runs = run(eps / 2, steps=steps), usual, run(twice, steps=steps)
    half, one, double = (float(success.cpu().double().mean()) for success in runs)
    everything = 1.0 if norm == "linf" else float(x[0].numel())
    huge = run(everything, steps=steps)
    return beyond | {
        "success grows with the budget": max(0.0, half - one, one - double),
        "a huge budget breaks everything": float((~huge).cpu().double().mean()),
    }
