"""Whom a report is about: network and inputs, refused if nothing can be said."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from crlib import attacks, checks, metrics
from crlib.asking import LOW, ask, evaluating, fingerprint
from crlib.attacks import AttackResult
from crlib.attacks.base import BUDGET_NORMS, check
from crlib.attacks.judging import CASCADES
from crlib.claims import Interval, wilson
from crlib.compress.layers import STRANGE
from crlib.models import weight_layers

__all__ = ["LEAST", "UNKNOWN", "Subject"]

# Medians need so many inputs that are labelled right, a search for one perturbation
# of them all so many inputs, mean outputs of hidden layers so many that are not
# attacked: with n of them the mean squared error of an output is 1 + 1/n times the
# least that a shift can reach.
LEAST = {"medians": 20, "universal": 50, "means": 20}
# What a room may raise that does not know somebody's own network.
UNKNOWN = (
    *(ValueError, RuntimeError, TypeError, AttributeError),
    *(LookupError, StopIteration),
)
# So many inputs in memory at once, at most, and gigabytes that a pass may keep for the
# gradient where nobody says another limit.
MOST = 128
MEMORY = {"cpu": 1.0, "cuda": 8.0}


@dataclass
class Subject:
    """A network, inputs, and what several sections ask of them.

    Attributes:
        model: maps ``(N, ...)`` to logits ``(N, K)``.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` labels.
        eps: budget for each norm that is looked at.
        attacked: the first so many inputs are attacked.
        budget: of :func:`crlib.attacks.worst_case`.
        seed: of every draw.
        batch_size: inputs in memory at once, at most.
        autocast: precision in which attacks ask the model; None is its own.
    """

    model: Any
    x: Tensor
    y: Tensor
    eps: Mapping[str, float]
    attacked: int
    budget: str
    seed: int
    batch_size: int
    baseline: Any = None
    autocast: torch.dtype | None = None
    _near: dict[str, AttackResult] = field(default_factory=dict)
    _worst: dict[str, AttackResult] = field(default_factory=dict)
    _guesses: dict[str, Tensor] = field(default_factory=dict)

    @property
    def few(self) -> tuple[Tensor, Tensor]:
        """The inputs and labels that are attacked."""
        return self.x[: self.attacked], self.y[: self.attacked]

    @cached_property
    def logits(self) -> Tensor:
        """``(N, K)`` logits of all inputs."""
        return self._asked(self.model, self.x)

    def labels(self, model: Any, x: Tensor | None = None) -> Tensor:
        """What a network makes of inputs, the attacked ones if None; -1 of a NaN."""
        z = self._asked(model, self.few[0] if x is None else x)
        return torch.where(z.isnan().any(1), -1, z.argmax(1))

    def _asked(self, model: Any, x: Tensor) -> Tensor:
        with torch.no_grad(), evaluating(model):
            return torch.cat([ask(model, part) for part in x.split(self.batch_size)])

    @property
    def right(self) -> Tensor:
        """``(n,)`` which of the attacked inputs are labelled right."""
        return self.logits[: self.attacked].argmax(1) == self.few[1]

    @property
    def accuracy(self) -> Interval:
        """The share of all inputs that are labelled right, with Wilson's interval."""
        hits = int((self.logits.argmax(1) == self.y).sum())
        return wilson(hits, len(self.y))

    @property
    def norm(self) -> str:
        """The norm of sections that look at one: l2 if it is asked for."""
        return "l2" if "l2" in self.eps else next(iter(self.eps))

    def chance(self) -> torch.Generator:
        """A new source of the same draws."""
        return torch.Generator().manual_seed(self.seed)

    def near(self, norm: str) -> AttackResult:
        """The nearest adversarial points of the attacked inputs."""
        if norm not in self._near:
            self._near[norm] = self.nearest(self.model, norm)
        return self._near[norm]

    def worst(self, norm: str) -> AttackResult:
        """What the cascade finds at the budget of a norm."""
        if norm not in self._worst:
            self._worst[norm] = attacks.evaluate(
                attacks.worst_case,
                self.model,
                *self.few,
                eps=self.eps[norm],
                norm=norm,
                budget=self.budget,
                generator=self.chance(),
                batch_size=self.batch_size,
                autocast=self.autocast,
            )
        return self._worst[norm]

    def nearest(self, model: Any, norm: str) -> AttackResult:
        """The same of another network on the same inputs."""
        return attacks.evaluate(
            attacks.fmn,
            model,
            *self.few,
            norm=norm,
            batch_size=self.batch_size,
            autocast=self.autocast,
        )

    def guess(self, norm: str) -> Tensor:
        """``(n,)`` cheap estimates of the distances, NaN where a gradient is NaN."""
        if norm not in self._guesses:
            every = torch.ones_like(self.right)
            self._guesses[norm] = self.estimate(self.model, norm, every)
        return self._guesses[norm]

    def estimate(self, model: Any, norm: str, rows: Tensor) -> Tensor:
        """The same of another network, at the attacked inputs that ``rows`` marks."""
        x, y = (v[rows] for v in self.few)
        return metrics.first_order(model, x, y, norm=norm, batch_size=self.batch_size)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any weight, input, label or option."""
        networks = [m for m in (self.model, self.baseline) if m is not None]
        options = [dict(self.eps), self.attacked, self.budget, self.seed, self.autocast]
        return fingerprint(networks, [self.x, self.y], repr(options))


def admitted(
    model: Any, x: Tensor, y: Tensor, *, limit: float | None = None, **options: Any
) -> Subject:
    """Return the subject, or refuse it before any work.

    Raises:
        ValueError: a bad option, inputs outside [0, 1] or no numbers, labels that do
            not fit, one input that takes more memory than the limit, no logits or
            probabilities, a network that draws at random or has no input gradient,
            accuracy at chance, or too few inputs that are labelled right.
    """
    checks.inputs(x)
    checks.labels(y, len(x))
    checks.at_least(1, attacked=options["attacked"])
    checks.one_of("budget", options["budget"], tuple(CASCADES))
    if not isinstance(options["seed"], Integral):
        raise ValueError(f"seed is {options['seed']!r}: give a whole number.")
    for norm, eps in options["eps"].items():
        # What the attacks would refuse after minutes.
        check(x, y, eps, norm, None, BUDGET_NORMS)
    if not len(x):
        raise ValueError("There is no input: give a hundred or more, with labels.")
    if options.get("autocast") not in (None, *LOW):
        raise ValueError(
            f"autocast is {options['autocast']!r}: give torch.bfloat16, or leave it"
            " out."
        )
    size = options["batch_size"]
    if size is not None:
        checks.at_least(1, batch_size=size)
    if size is None or limit is not None:
        fit = _fitting([model, options.get("baseline")], x.detach(), limit)
        options["batch_size"] = fit if size is None else min(size, fit)
    subject = Subject(model, x.detach(), y, **options)
    _answers(subject, model)
    if subject.baseline is not None:
        _answers(subject, subject.baseline)
    checks.logits(subject.logits, len(x))
    n_right = int(subject.right.sum())
    if n_right < LEAST["medians"]:
        raise ValueError(
            f"{n_right} of {len(subject.few[0])} attacked inputs are labelled right:"
            f" medians of distances need {LEAST['medians']}. Give more inputs, or look"
            " whether the weights are loaded, and labels and scale of the inputs are"
            " those of the training."
        )
    classes = subject.logits.shape[1]
    if not subject.accuracy.above(1 / classes):
        raise ValueError(
            f"The accuracy, {subject.accuracy.mean:.3f}, is not above that of guessing"
            f" one of {classes} classes: labels are shuffled, or inputs not scaled as"
            " the network expects."
        )
    return subject


def _fitting(models: list[Any], x: Tensor, limit: float | None = None) -> int:
    """How many inputs of a pass keep no more gigabytes for the gradient than allowed.

    Raises:
        ValueError: not even one does, or the limit is no positive number.
    """
    room = MEMORY.get(x.device.type, MEMORY["cpu"]) if limit is None else limit
    if not isinstance(room, Real) or not 0 < room < math.inf:
        raise ValueError(f"limit is {limit!r}: give gigabytes, such as 4.")
    most = max(_held(m, x[:2]) - _held(m, x[:1]) for m in models if m is not None) / 1e9
    if most > room:
        raise ValueError(
            f"One input of shape {tuple(x.shape[1:])} makes the network keep"
            f" {most:.2g} GB for its gradient, and {room:.2g} GB are allowed. If the"
            f" machine has more, say so: limit={math.ceil(2 * most)}; or give smaller"
            " inputs."
        )
    return MOST if most <= 0 else min(MOST, int(room // most))


def _held(model: Any, x: Tensor) -> int:
    """Bytes that a forward pass keeps; 0 of what cannot be asked, refused later."""
    held = []

    def note(kept: Tensor) -> Tensor:
        held.append(kept.nbytes)
        return kept

    try:
        with evaluating(model), saved_tensors_hooks(note, lambda kept: kept):
            ask(model, x.clone().requires_grad_())
    except Exception:
        return 0
    return sum(held)


def _answers(subject: Subject, model: Callable[[Tensor], Any]) -> None:
    """Refuse a network whose answers cannot be judged."""
    few = min(64, subject.batch_size)
    x, y = (v[:few] for v in (subject.x, subject.y))
    with evaluating(model):
        one, two = _answer(model, x), _answer(model, x)
        checks.logits(one, len(x))
        checks.labels(subject.y, len(subject.y), classes=one.shape[1])
        if not torch.equal(one, two):
            raise ValueError(
                "The model answers differently when asked twice: give its mean over"
                " twenty calls, crlib.attacks.EOT(model)."
            )
        total = one.double().sum(1)
        if one.min() >= 0 and one.max() <= 1 and (total - 1).abs().max() < 1e-3:
            raise ValueError(
                "The model returns probabilities: take the softmax out, so that it"
                " returns logits."
            )
    steps = metrics.first_order(model, x, y, rivals=1)
    steps = steps[one.argmax(1) == y]
    if len(steps) and not steps.isfinite().any():
        raise ValueError(
            "No input has a gradient: a layer rounds, detaches, is saturated or divides"
            " by zero. No distance can be found by following one."
        )


def _answer(model: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """Ask for logits; whatever is raised by inputs that do not fit is a refusal."""
    try:
        with torch.no_grad():
            return ask(model, x)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"The model does not take a batch {tuple(x.shape)}: give inputs of the"
            " shape that it was trained on, and a model that takes any number of them."
            f"{_likely(x)}"
            f" It said: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error


def _likely(x: Tensor) -> str:
    """What is usually wrong with inputs of this shape."""
    if x.ndim == 3:
        return " If these are grey images, x[:, None] gives them their channel."
    if x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] > 3:
        return " Channels come first: x.permute(0, 3, 1, 2)."
    if x.ndim == 4 and x.shape[1] == 3:
        return " If it wants grey images, read them in grey: --grey, or mode='L'."
    return ""


def layers_of(model: Any) -> tuple[list[tuple[str, Any]], list[str]]:
    """Return the layers with weights, named, and the kinds that are not known."""
    if not isinstance(model, nn.Module):
        return [], ["a function: its layers are hidden"]
    known = {id(layer) for layer in weight_layers(model)}
    found = [(n or "model", m) for n, m in model.named_modules() if id(m) in known]
    strange = {type(m).__name__ for m in model.modules() if isinstance(m, STRANGE)}
    return found, sorted(strange)
