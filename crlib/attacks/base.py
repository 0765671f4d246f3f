"""What every attack shares: the result, the objective, and the bookkeeping."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from crlib import checks
from crlib.asking import Doubt, ask, evaluating, reached, with_gradients
from crlib.claims import Interval, wilson
from crlib.geometry import NORMS, norm_of
from crlib.metrics import margin

P = ParamSpec("P")
R = TypeVar("R")
Model = Callable[[Tensor], Tensor]
BUDGET_NORMS = ("linf", "l2", "l1")
LOSSES = ("margin", "ce", "dlr")


@dataclass(frozen=True, repr=False)
class AttackResult:
    """What an attack found.

    Attributes:
        x_adv: ``(N, ...)`` in the box, and in the ball if there is a budget. If
            fooled: the first such point, of a minimal-norm attack the nearest. Else
            the end of the run that ended at the largest loss (minimal norm: ``x``).
        success: ``(N,)`` bool: fooled (with a target: labelled as the target).
        distance: ``(N,)`` norm of ``x_adv - x`` where successful, else infinity.
        n_forward: ``(N,)`` evaluations of the model spent on each sample. The one that
            asks whether an answer depends on its batch is not counted.
        n_backward: ``(N,)`` input gradients spent on each sample.
        zero_gradient: ``(N,)`` bool: an input gradient was zero on the way.
        right: ``(N,)`` bool: labelled right before the attack.
        norm: the norm of the ball.
        by: of a cascade, the attack that broke each sample: ``"clean"`` if it was wrong
            at ``x``, empty if it stands.
        notes: of a cascade, what makes its number doubtful, in sentences.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    n_forward: Tensor
    n_backward: Tensor
    zero_gradient: Tensor
    right: Tensor
    norm: str
    by: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def robust_accuracy(self) -> float:
        """Share of samples that the attack did not fool, in [0, 1]; NaN for none."""
        return 1 - float(self.success.cpu().double().mean())

    @property
    def clean_accuracy(self) -> float:
        """Share of samples labelled right before the attack; NaN for none."""
        return float(self.right.cpu().double().mean())

    @property
    def interval(self) -> Interval:
        """Wilson's interval of the robust accuracy, at 95 per cent, over samples."""
        return wilson(int((~self.success).sum()), len(self.success))

    def __repr__(self) -> str:
        n, fooled = len(self.success), int(self.success.sum())
        words = [f"{n} samples", f"{fooled} fooled"]
        if n:
            words += [
                f"clean accuracy {self.clean_accuracy:.3f}",
                f"robust accuracy {self.interval}",
            ]
        if fooled:
            median = float(self.distance[self.success].median())
            words.append(f"median {self.norm} distance of the fooled {median:.3g}")
        return f"<AttackResult: {', '.join(words)}>"


# So that torch.load reads a saved result without weights_only=False.
torch.serialization.add_safe_globals([AttackResult])


def per_row(v: Tensor, like: Tensor) -> Tensor:
    """Shape ``(N,)`` so that it multiplies each sample of ``like``, ``(N, ...)``."""
    return v.view(-1, *(1,) * (like.ndim - 1))


def pick(use: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return ``new`` for the samples ``use``, else ``old``, whatever ``new`` is."""
    return torch.where(per_row(use, old), new, old)


def rivals_of(logits: Tensor, y: Tensor) -> Tensor:
    """Return the labels other than ``y``, the strongest first, ``(N, R)``.

    R is K - 1, less what every sample has at minus infinity: a masked class is never
    reached.
    """
    # The label itself comes last, behind what is masked.
    least = torch.finfo(logits.dtype).min
    order = logits.clamp_min(least).scatter(1, y[:, None], -torch.inf)
    masked = logits.isneginf().scatter(1, y[:, None], False).sum(1)
    common = int(masked.min()) if len(masked) else 0
    width = max(1, logits.shape[1] - 1 - common)
    return order.argsort(1).flip(1)[:, :width]


def check(
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    norm: str,
    target: Tensor | None = None,
    norms: tuple[str, ...] = BUDGET_NORMS,
) -> Tensor:
    """Refuse bad input before any work; return ``eps`` as ``(N,)``."""
    checks.one_of("norm", norm, norms)
    checks.inputs(x)
    if x.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"x is {x.dtype}, too coarse for a perturbation: give x.float(), and"
            " crlib.models.logits(model) for a model in that precision."
        )
    checks.labels(y, len(x))
    if target is not None:
        checks.labels(target, len(x), "target")
        if (target == y).any():
            raise ValueError(
                "A target equals the true label: there is nothing to attack. Leave"
                " these samples out: keep = target != y."
            )
    radius = checks.per_sample("eps", eps, x)
    if norm == "l0" and (radius != radius.round()).any():
        raise ValueError(
            f"eps is {eps} in l0, which counts the coordinates that change: give a"
            " whole number, such as 5."
        )
    if norm == "linf" and (radius > 1).any():
        raise ValueError(
            f"eps is {eps} in linf, where 1 turns any image into any other: write"
            " 8/255 for 8 of 255 levels."
        )
    return radius


def told(*results: AttackResult) -> tuple[str, ...]:
    """Return the notes of all results, each once."""
    return tuple(dict.fromkeys(note for one in results for note in one.notes))


def check_again(
    result: AttackResult, x: Tensor, y: Tensor, eps: Any, target: Tensor | None
) -> Tensor:
    """Refuse what is no result at ``x`` that can be judged; return as :func:`check`."""
    if not isinstance(result, AttackResult):
        raise ValueError(f"result is a {type(result).__name__}: give what pgd returns.")
    radius = check(x, y, eps, result.norm, target, tuple(NORMS))
    if result.x_adv.shape != x.shape:
        raise ValueError(
            f"The result is of {tuple(result.x_adv.shape)}, x {tuple(x.shape)}."
        )
    return radius


class EOT(nn.Module):
    """The mean logits of several calls of a model that draws at random.

    Any attack on it climbs the expectation over the model's transformations (Athalye
    et al. 2018) and counts the calls of one mean as one. It keeps what fooled a draw
    that it saw: judge its points by fresh draws, with :func:`transfer` to an EOT.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``, other ones at each call.
        samples: calls a mean, at least 1.
    """

    def __init__(self, model: Model, samples: int = 20) -> None:
        super().__init__()
        checks.at_least(1, samples=samples)
        self.model, self.samples = model, samples

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([ask(self.model, x) for _ in range(self.samples)]).mean(0)


class Asked(nn.Module):
    """A model that one call of an attack asks, whatever attacks it calls in turn."""

    def __init__(self, model: Model, *, probed: bool = False) -> None:
        super().__init__()
        self.model = model
        self.probed = probed  # whether it was asked for one sample alone
        self.climbed = False  # whether it was asked for a gradient
        self.felt = False  # whether one was not zero

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, x: Tensor) -> Tensor:
        return ask(self.model, x)

    def feel(self, g: Tensor) -> None:
        """Note a gradient; once one was not zero, the others are not looked at."""
        self.climbed, self.felt = True, self.felt or bool(g.any())

    def probe(self, z: Tensor, logits: Tensor) -> None:
        """Refuse answers that depend on the rest of the batch, once.

        The first and the last sample of a batch are asked for alone. A model that
        draws at random answers anew each time, which is no reason to refuse it.
        """
        if self.probed or len(z) < 2:
            return
        self.probed = True
        _, generators = reached(self.model)
        before = [generator.get_state() for generator in generators]
        devices = [z.device] if z.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            refused = all(self._differs(z[[k]], logits[[k]]) for k in (0, -1))
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
        if refused:
            raise ValueError(
                "The answer for a sample depends on the others in its batch: what fools"
                " in one batch need not in another. Batch normalisation needs running"
                " statistics; or attack lambda x: torch.cat([model(v) for v in"
                " x.split(1)])."
            )

    def _differs(self, z: Tensor, logits: Tensor) -> bool:
        try:
            alone = self(z)
            checks.logits(alone, 1)
        except Exception as error:
            raise ValueError(
                "The model answers a batch, but not a sample alone, as an attack asks"
                f" in batches of any size. It said: {error}"
            ) from error
        return not _alike(alone, logits) and _alike(alone, self(z))


def _alike(one: Tensor, other: Tensor) -> bool:
    """Say whether two answers are the same, up to the rounding of low precision."""
    finite = other[other.isfinite()]
    size = float(finite.max() - finite.min()) if len(finite) else 0.0
    size = max(size, 1e-3 * float(finite.abs().max()) if len(finite) else 0.0)
    return bool(torch.isclose(one, other, rtol=0, atol=0.05 * size).all())


def door(attack: Callable[P, R]) -> Callable[P, R]:
    """Put the model of an attack into evaluation mode, and doubt a lack of gradients.

    The attack is given an :class:`Asked`; an attack that it calls is given the same.
    """
    place = list(signature(attack).parameters).index("model")

    @with_gradients
    @wraps(attack)
    def enter(*args: P.args, **options: P.kwargs) -> R:
        bound: dict[str, Any] = options
        model: Any = args[place] if place < len(args) else bound.get("model")
        if isinstance(model, Asked):
            return attack(*args, **options)
        asked = Asked(model)
        given = list(args)
        if place < len(args):
            given[place] = asked
        else:
            bound["model"] = asked
        with evaluating(model):
            found = attack(*given, **options)  # type: ignore[arg-type]
        if asked.climbed and not asked.felt:
            warnings.warn(
                "Every input gradient was zero: the model hides its gradients (a"
                " detach, a rounding, torch.no_grad), and what resisted was hardly"
                " attacked. Try attacks.square.",
                Doubt,
                stacklevel=3,
            )
        return found

    return enter


def objective(
    logits: Tensor,
    y: Tensor,
    target: Tensor | None = None,
    loss: str = "margin",
    rival: Tensor | None = None,
) -> Tensor:
    """Return what the attack increases, ``(N,)``; a rival is led, but not demanded."""
    if rival is not None:
        pair = logits.gather(1, torch.stack([rival, y], 1))
        lead = pair[:, 0] - pair[:, 1]
        return lead / _spread(logits, 4) if loss == "dlr" else lead
    label, sign = (y, 1) if target is None else (target, -1)
    if loss == "ce":
        return sign * nn.functional.cross_entropy(logits, label, reduction="none")
    lead = -sign * margin(logits, label)
    if loss == "margin":
        return lead
    return lead / _spread(logits, 3 if target is None else 4)


def _spread(logits: Tensor, last: int) -> Tensor:
    """Return the largest logit less the mean of the third to the last so large, (N,).

    One where there are fewer classes, or where the third or fourth is masked.
    """
    top = logits.topk(min(last, logits.shape[1]), 1).values  # (N, 2, 3 or 4)
    low = top[:, 2:].mean(1)
    return torch.where(low.isfinite(), top[:, 0] - low, 1).clamp_min(1e-12)


def gradient(value: Tensor, z: Tensor, retain: bool = False) -> Tensor:
    """Return the input gradient; zero where the model does not depend on its input."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    ones = torch.ones_like(value)
    (g,) = torch.autograd.grad(
        value, z, ones, retain_graph=retain, materialize_grads=True
    )
    # A gradient can be one number shown many times, which cannot be written to.
    return g.contiguous()


def is_fooled(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    label = logits.argmax(1)
    return label == target if target is not None else label != y


class Look(NamedTuple):
    """What :meth:`Search.see` saw at p points of n samples."""

    value: Tensor  # (p,) objective, with a graph where the points ask for one
    fooled: Tensor  # (n,) bool: one of the sample's points fools
    n_fooled: int  # how many samples that is
    still: bool  # an objective is what it was before


class Search:
    """What is known about each sample while an attack runs."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        norm: str,
        loss: str = "margin",
    ) -> None:
        self.model = model if isinstance(model, Asked) else Asked(model)
        self.loss, self.norm = loss, norm
        self.seen = False  # whether the model was asked already
        self.x, self.y, self.target = x.detach(), y, target
        self.x_adv = self.x.clone()
        self.best = self.x.new_full((len(x),), -torch.inf)
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.n_forward = torch.zeros_like(y)
        self.n_backward = torch.zeros_like(y)
        self.zero_gradient = torch.zeros_like(self.success)
        self.right = torch.zeros_like(self.success)

    def standing(self) -> Tensor:
        return (~self.success).nonzero().squeeze(1)

    def ask(self, z: Tensor, rows: Tensor, graph: bool = False) -> Tensor:
        """Return the logits at the points ``z`` of samples ``rows``; count the call.

        The first points asked for are the inputs themselves, all of them.
        """
        with torch.set_grad_enabled(graph):
            logits: Tensor = self.model(z)
        if not self.seen:
            checks.logits(logits, len(z))
            for name, labels in (("y", self.y), ("target", self.target)):
                if labels is not None:
                    checks.labels(labels[rows], len(rows), name, logits.shape[1])
            self.model.probe(z.detach(), logits.detach())
            self.right[rows] = logits.argmax(1) == self.y[rows]
        self.seen = True
        self.n_forward[rows] += len(z) // len(rows)
        return logits

    def look_at_clean(self) -> Tensor:
        """Mark the samples that fool before any attack."""
        if not len(self.x):
            # Two classes suffice to order an empty batch, which has no labels.
            return self.x.new_zeros(0, 2)
        logits = self.ask(self.x, torch.arange(len(self.x), device=self.x.device))
        self.success = is_fooled(logits, self.y, self.target)
        return logits

    def see(
        self,
        z: Tensor,
        rows: Tensor,
        *,
        rival: Tensor | None = None,
        before: Tensor | None = None,
        last: bool = False,
        inside: bool = True,
    ) -> Look:
        """Look at the points ``z`` of samples ``rows`` and record those that fool.

        A sample may have several points, which follow each other. At the end of a run
        record also the others, where they are the best so far. Points that are not
        ``inside`` the ball are never a success. ``before`` holds the objectives of the
        last look.
        """
        each = len(z) // len(rows)
        logits = self.ask(z, rows, graph=z.requires_grad)
        y = self.y[rows].repeat_interleave(each)
        target = None if self.target is None else self.target[rows]
        with torch.set_grad_enabled(z.requires_grad):
            value = objective(logits, y, target, self.loss, rival)
        fooled = is_fooled(logits, y, target) & inside
        now = value.detach().to(self.x.dtype)
        still = torch.zeros_like(fooled) if before is None else now == before
        # Of the points of a sample count the first that fools, else the best.
        place = torch.where(fooled, torch.inf, now).view(-1, each).argmax(1)
        place += each * torch.arange(len(rows), device=z.device)
        fooled = fooled[place]
        # The only wait for a GPU in a step.
        told = torch.stack([fooled.sum(), still.sum(), logits.isnan().sum()])
        count, stuck, bad = told.tolist()
        if bad:
            checks.logits(logits, len(z))
        if last:
            better = now[place] > self.best[rows]
            self.best[rows] = torch.where(better, now[place], self.best[rows])
            found = z.detach() if each == 1 else z.detach()[place]
            self.x_adv[rows] = pick(fooled | better, found, self.x_adv[rows])
        elif count:
            hit = fooled.to(torch.uint8).argsort(descending=True, stable=True)[:count]
            self.x_adv[rows[hit]] = z.detach()[place[hit]]
        if count:
            self.success[rows] = fooled
        return Look(value, fooled, n_fooled=count, still=bool(stuck))

    def slope(
        self, value: Tensor, z: Tensor, rows: Tensor, more: bool = False
    ) -> Tensor:
        """Return the input gradient; count it. Keep the graph where there is more."""
        self.n_backward[rows] += len(z) // len(rows)
        g = gradient(value, z, more)
        self.model.feel(g)
        return g

    def shake(self, g: Tensor, rows: Tensor, generator: torch.Generator) -> None:
        """Replace the gradients that are zero by random directions."""
        dead = ~g.flatten(1).any(1)
        if dead.any():
            each = len(g) // len(rows)
            self.zero_gradient[rows.repeat_interleave(each)[dead]] = True
            shape, device = g[dead].shape, generator.device
            push = torch.randn(shape, generator=generator, device=device, dtype=g.dtype)
            g[dead] = push.to(g.device)

    def result(self) -> AttackResult:
        distance = norm_of(self.x_adv - self.x, self.norm)
        return AttackResult(
            x_adv=self.x_adv,
            success=self.success,
            distance=distance.masked_fill(~self.success, torch.inf),
            n_forward=self.n_forward,
            n_backward=self.n_backward,
            zero_gradient=self.zero_gradient,
            right=self.right,
            norm=self.norm,
        )
