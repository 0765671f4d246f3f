"""What gets reported: the worst case, curves, transfer, and big batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crlib import checks
from crlib.asking import fingerprint
from crlib.attacks.ascent import apgd, pgd, random_noise
from crlib.attacks.base import (
    BUDGET_NORMS,
    AttackResult,
    Model,
    Search,
    check,
    check_again,
    door,
    is_fooled,
    pick,
    rivals_of,
    told,
)
from crlib.attacks.diagnosis import CHECKS, GRADIENTS, doubts
from crlib.attacks.query import sparse_search, square
from crlib.attacks.smallest import deepfool, fmn, minimum_of, sigma_zero
from crlib.geometry import NORMS
from crlib.progress import Bar, Kept
from crlib.version import __version__

Stage = tuple[Callable[..., AttackResult], dict[str, Any]]


@door
def to_each_rival(
    model: Model, x: Tensor, y: Tensor, *, norm: str, steps: int
) -> AttackResult:
    """Walk by DeepFool to each of the nine strongest rivals; return the nearest."""
    clean = Search(model, x, y, None, norm)
    rivals = rivals_of(clean.look_at_clean(), y)[:, :9]
    walks = [
        deepfool(model, x, y, norm=norm, steps=steps, search_steps=8, target=rival)
        for rival in rivals.T
    ]
    return minimum_of(clean.result(), *walks)


# Cheap and broad first, so that the dear attacks see few samples. Later stages start
# elsewhere or go to all rivals: a sample that stands may lie on a plateau at x. A
# larger budget begins with all stages of the smaller one, and so cannot end above it.
QUICK: tuple[Stage, ...] = (
    (pgd, {"steps": 10}),
    (apgd, {"steps": 15, "n_targets": 4, "random_start": True}),
    (apgd, {"steps": 15, "n_targets": 6, "random_start": True}),
)
FULL: tuple[Stage, ...] = (
    *QUICK,
    (fmn, {"steps": 20}),
    (apgd, {"steps": 30, "loss": "ce", "random_start": True}),
    (to_each_rival, {"steps": 10}),
    (apgd, {"steps": 30, "n_targets": 9, "random_start": True}),
    (square, {"queries": 300}),
)
THOROUGH: tuple[Stage, ...] = (
    *FULL,
    (pgd, {"steps": 10, "restarts": 20, "random_start": True}),
    (apgd, {"steps": 100, "loss": "ce", "random_start": True}),
    (apgd, {"steps": 50, "n_targets": 9, "random_start": True}),
    (square, {"queries": 1000}),
    (square, {"queries": 1000}),
    (square, {"queries": 5000}),
    # On k-winners this ratio leads on where the margin itself gets stuck.
    (apgd, {"steps": 100, "n_targets": 9, "loss": "dlr", "random_start": True}),
)
# Sparse steps need more time; Square knows no l1.
QUICK_L1: tuple[Stage, ...] = (
    (apgd, {"steps": 10}),
    (apgd, {"steps": 20, "loss": "ce", "random_start": True}),
    (apgd, {"steps": 15, "n_targets": 3, "random_start": True}),
    (apgd, {"steps": 30, "n_targets": 6, "random_start": True}),
)
FULL_L1: tuple[Stage, ...] = (
    *QUICK_L1,
    (apgd, {"steps": 50}),
    (apgd, {"steps": 60, "n_targets": 3}),
    (fmn, {"steps": 40}),
    (apgd, {"steps": 100, "restarts": 3, "random_start": True}),
    (apgd, {"steps": 100, "loss": "ce", "restarts": 2, "random_start": True}),
    (apgd, {"steps": 50, "n_targets": 5, "random_start": True}),
)
THOROUGH_L1: tuple[Stage, ...] = (
    *FULL_L1,
    (apgd, {"steps": 25, "restarts": 20, "random_start": True}),
    (apgd, {"steps": 100, "n_targets": 9, "random_start": True}),
    (random_noise, {"draws": 1000}),
)
# A few coordinates: the nearest points, counted where the budget holds them.
QUICK_L0: tuple[Stage, ...] = (
    (deepfool, {"steps": 10}),
    (sigma_zero, {"steps": 60}),
    (sparse_search, {"queries": 100}),
)
FULL_L0: tuple[Stage, ...] = (
    *QUICK_L0,
    (sparse_search, {"queries": 300}),
    (to_each_rival, {"steps": 10}),
    (sigma_zero, {"steps": 200}),
)
THOROUGH_L0: tuple[Stage, ...] = (
    *FULL_L0,
    (sparse_search, {"queries": 1000}),
    (sigma_zero, {"steps": 1000, "adam": True}),
    (sparse_search, {"queries": 5000}),
)
CASCADES = {
    "quick": (QUICK, QUICK_L1, QUICK_L0),
    "full": (FULL, FULL_L1, FULL_L0),
    "thorough": (THOROUGH, THOROUGH_L1, THOROUGH_L0),
}
OF_NORM = {"l1": 1, "l0": 2}
NEAREST = (deepfool, fmn, sigma_zero, to_each_rival)


def _take(options: dict[str, Any], rows: Tensor, n: int) -> dict[str, Any]:
    """Return the options for ``rows``; tensors may hold one value for each of n."""
    return {
        k: v[rows] if isinstance(v, Tensor) and v.shape[:1] == (n,) else v
        for k, v in options.items()
    }


def _put(total: AttackResult, part: AttackResult, rows: Tensor) -> AttackResult:
    """Write what an attack found on ``rows``; costs, zero gradients and notes add up.

    The tensors of ``total`` are written to.
    """
    total.x_adv[rows], total.success[rows] = part.x_adv, part.success
    total.distance[rows], total.right[rows] = part.distance, part.right
    total.n_forward[rows] += part.n_forward
    total.n_backward[rows] += part.n_backward
    total.zero_gradient[rows] |= part.zero_gradient
    names = dict(enumerate(total.by)) | dict(zip(rows.tolist(), part.by, strict=False))
    return replace(total, by=tuple(names.values()), notes=told(total, part))


@door
def worst_case(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    budget: str = "full",
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> AttackResult:
    r"""Run a cascade of attacks, each on what still stands: the number to report.

    ``"quick"``: PGD, then APGD to four and to six rivals. ``"full"``: then FMN, APGD on
    the cross-entropy, DeepFool and APGD to nine rivals, and 300 queries of Square,
    which needs no gradient. ``"thorough"``: then PGD from twenty random starts, longer
    runs of APGD, up to 5,000 queries at once, and APGD on the ratio of the margin to
    the spread of the logits. For l1 APGD, FMN, and random points in place of queries.
    For l0 DeepFool, sigma-zero, and queries that move coordinates to ends of the box
    (Sparse-RS, Croce et al. 2022). A sample counts as robust if it survives them all. A
    larger budget begins with the smaller one and never ends above it.

    What ``"full"`` may miss lies hardly inside the ball: a sample that falls to
    thousands of queries, or to one random start among many. Where a claim rests on a
    point of accuracy, use ``"thorough"``.

    ``"full"`` looks at the gradients of the first 64 samples first, as :func:`diagnose`
    does, which costs 16 passes. Where they are missing or wrong it becomes
    ``"thorough"`` by itself, and the result says so in ``notes``. A model whose answers
    depend on the call or the batch gets a note too: there more queries would only find
    more lucky draws.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: radius in input units (write ``8/255``), a number or ``(N,)``; for l0 how
            many coordinates may change, a whole number.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
        budget: ``"quick"``, ``"full"`` or ``"thorough"``.
        generator: source of chance; None means a new one of seed 0.
        progress: show a progress bar.

    Returns:
        An :class:`AttackResult`, with ``by`` and ``notes``.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.zeros(4, dtype=torch.int64)
        >>> x = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
        >>> found = attacks.worst_case(model, x, y, eps=0.25, budget="quick")
        >>> found.success
        tensor([ True,  True, False, False])
        >>> found.by
        ('pgd(steps=10)', 'pgd(steps=10)', '', '')
    """
    radius = check(x, y, eps, norm, None, (*BUDGET_NORMS, "l0"))
    checks.one_of("budget", budget, tuple(CASCADES))
    total, source = Search(model, x, y, None, norm).result(), checks.chance(generator)
    standing, by = torch.arange(len(x), device=x.device), [""] * len(x)
    failed = {} if budget == "quick" else doubts(model, x, y, radius, norm)
    notes = [f"{name}: {n:.3g}. {CHECKS[name][1]}" for name, n in failed.items()]
    if budget == "full" and failed.keys() & set(GRADIENTS):
        budget = "thorough"
        notes.append("The budget became thorough, since gradients mislead.")
    cascade = CASCADES[budget][OF_NORM.get(norm, 0)]
    stages = Bar(cascade, disable=not progress, desc="attacks", leave=False)
    for attack, options in stages:
        if not len(standing):
            break
        near, left = x.detach()[standing], radius[standing]
        given = {"norm": norm, **options}
        if attack not in NEAREST:
            # One source for all: a later stage begins where no earlier one did.
            given = {**given, "eps": left, "generator": source}
        if attack is apgd:
            # As many points at once as at the start, however few stand.
            given["together"] = len(x) // len(near)
        part = attack(model, near, y[standing], **given)
        if "eps" not in given:
            part = _within(part, left, near)
        total = _put(total, part, standing)
        for row in standing[part.success].tolist():
            by[row] = _call(attack, options) if total.distance[row] else "clean"
        standing = standing[~part.success]
    if failed.keys() - set(GRADIENTS):
        with torch.no_grad():
            again = int(is_fooled(model(total.x_adv), y, None).sum())
        notes.append(
            f"Asked again, {again} points fool, where {int(total.success.sum())} had"
            " fooled."
        )
    return replace(total, by=tuple(by), notes=tuple(notes))


def _call(attack: Callable[..., AttackResult], options: dict[str, Any]) -> str:
    return f"{attack.__name__}({', '.join(f'{k}={v}' for k, v in options.items())})"


def _within(part: AttackResult, eps: Tensor, x: Tensor) -> AttackResult:
    """Count only what a minimal-norm attack found inside the budget."""
    inside = part.distance <= eps
    return replace(
        part,
        x_adv=pick(inside, part.x_adv, x),
        success=inside,
        distance=part.distance.masked_fill(~inside, torch.inf),
    )


@door
def transfer(
    result: AttackResult,
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    target: Tensor | None = None,
) -> AttackResult:
    """Show another model the points that fooled, or nearly fooled, the first.

    Args:
        result: of an attack on another model at the inputs ``x``.
        model: asked for labels only.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        target: ``(N,)`` labels, if the attack was given them: what counts as fooled.

    Returns:
        Success and distance on ``model``; what it labels wrongly at ``x`` already (or
        as the target) is a success at distance 0.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.zeros(4, dtype=torch.int64)
        >>> x = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
        >>> found = attacks.fgsm(model, x, y, eps=0.25)
        >>> darker = torch.tensor([0.2, 0.0])
        >>> attacks.transfer(found, lambda z: z - darker, x, y).success
        tensor([ True,  True,  True, False])
    """
    check_again(result, x, y, 0.0, target)
    total = Search(model, x, y, target, result.norm)
    with torch.no_grad():
        total.look_at_clean()
        rows = total.standing()
        total.x_adv[rows] = result.x_adv[rows].to(x)
        if len(rows):
            total.see(total.x_adv[rows], rows)
    return total.result()


@door
def evaluate(
    attack: Callable[..., AttackResult],
    /,  # an option of minimal is called attack, too
    model: Model,
    x: Tensor | torch.utils.data.DataLoader[Any],
    y: Tensor | None = None,
    *,
    batch_size: int = 512,
    autocast: torch.dtype | None = None,
    resume: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> AttackResult:
    r"""Run any attack of this module batch by batch.

    A batch that does not fit into memory is halved, and the size stays halved.

    With ``autocast`` the attack calls the model in that precision; steps, losses and
    projections stay in the precision of ``x``. What it reports is confirmed by the
    model in full precision, and a success that is not is attacked again in it.

    Args:
        attack: such as :func:`apgd` or :func:`deepfool`.
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1]; or a DataLoader of inputs and labels, in an order of
            its own that stays the same (without ``shuffle``), whose inputs are kept in
            memory, on the device of the model.
        y: ``(N,)`` true labels, int64; of a DataLoader None.
        batch_size: samples attacked together, at most.
        autocast: such as ``torch.bfloat16``; None means full precision.
        resume: a file that keeps the batches that are finished. The same call goes on
            where it was stopped; another model, attack, inputs or options begin anew.
        progress: show a progress bar.
        **options: for the attack; tensors with one entry a sample go with it.

    Returns:
        An :class:`AttackResult`.

    Raises:
        ValueError: bad input, before any work.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.zeros(4, dtype=torch.int64)
        >>> x = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
        >>> attacks.evaluate(attacks.pgd, model, x, y, batch_size=3, eps=0.25).success
        tensor([ True,  True, False, False])
    """
    x, y = checks.pairs(x, y, model)
    checks.at_least(1, batch_size=batch_size)
    if not len(x):
        return attack(model, x, y, **options)
    # So that an option of a partial goes with its samples too.
    while isinstance(attack, partial) and not attack.args:
        options, attack = {**attack.keywords, **options}, attack.func
    kept = None
    if resume is not None:
        asked = attack, dict(sorted(options.items())), model
        key = fingerprint(asked, [x, y], f"{__version__} {autocast}")
        kept = Kept(Path(resume), key, options.get("generator"))
    parts: list[AttackResult] = kept.parts() if kept else []
    start = sum(len(part.success) for part in parts)
    run = attack if autocast is None else partial(_in_low_precision, attack, autocast)
    bar = Bar(total=len(x), disable=not progress, desc="samples", leave=False)
    with bar:
        bar.update(start)
        while start < len(x):
            rows = torch.arange(start, min(start + batch_size, len(x)), device=x.device)
            own = _take(options, rows, len(x))
            try:
                parts.append(run(model, x[rows], y[rows], **own))
            except torch.cuda.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                batch_size = len(rows) // 2
                continue
            start += len(rows)
            if kept:
                kept.keep(parts)
            bar.update(len(rows))
    joined = {
        field.name: torch.cat([getattr(part, field.name) for part in parts])
        for field in fields(AttackResult)
        if isinstance(getattr(parts[0], field.name), Tensor)
    }
    by = tuple(chain.from_iterable(part.by for part in parts))
    return AttackResult(**joined, norm=parts[0].norm, by=by, notes=told(*parts))


def _in_low_precision(
    attack: Callable[..., AttackResult],
    autocast: torch.dtype,
    /,
    model: Model,
    x: Tensor,
    y: Tensor,
    **options: Any,
) -> AttackResult:
    def cast(z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, autocast):
            return model(z)

    first = attack(cast, x, y, **options)
    with torch.no_grad():
        clean, target = model(x), options.get("target")
        already = is_fooled(clean, y, target)
        fooled = is_fooled(model(first.x_adv), y, target)
    # Full precision has the last word on x and on the point found.
    same = (first.success == fooled) & (first.distance > 0)
    rows = (~torch.where(already, first.distance == 0, same)).nonzero().squeeze(1)
    if len(rows):
        again = attack(model, x[rows], y[rows], **_take(options, rows, len(x)))
        first = _put(first, again, rows)
    right = clean.argmax(1) == y
    return replace(first, n_forward=first.n_forward + 2, right=right)


@dataclass(frozen=True)
class Curve:
    """Robust accuracy against the budget.

    Attributes:
        eps: ``(B,)`` budgets in input units, increasing.
        accuracy: ``(B,)`` robust accuracy in [0, 1], never increasing.
        norm: the norm of the balls.
        low: ``(B,)`` lower end of the bootstrap interval over the samples.
        high: ``(B,)`` upper end.
    """

    eps: Tensor
    accuracy: Tensor
    norm: str
    low: Tensor
    high: Tensor


@door
def robustness_curve(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Sequence[float],
    norm: str = "linf",
    attack: Callable[..., AttackResult] | None = None,
    level: float = 0.95,
    progress: bool = False,
    **options: Any,
) -> Curve:
    """Return robust accuracy at each budget, with a bootstrap interval.

    With a minimal-norm attack, such as :func:`fmn`, one run serves all budgets: a
    sample falls at its distance. Without, :func:`pgd` runs at each budget; a sample
    fooled at a small budget is fooled at every larger one and is not attacked again.
    Either way the curve cannot rise.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; normalisation is its first layer.
        x: ``(N, ...)`` in [0, 1].
        y: ``(N,)`` true labels, int64.
        eps: budgets in input units, or one; budget 0 gives clean accuracy.
        norm: of the balls, one that the attack knows.
        attack: a minimal-norm attack; None means :func:`pgd` at each budget.
        level: coverage of the interval, in (0, 1); 1,000 resamples of the samples.
        progress: show a progress bar.
        **options: for the attack, such as ``steps``.

    Raises:
        ValueError: no budgets or no samples, a budget that is negative or NaN, or bad
            input to the attack.

    Example:
        >>> import torch
        >>> from crlib import attacks
        >>> model, y = torch.nn.Identity(), torch.zeros(4, dtype=torch.int64)
        >>> x = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
        >>> attacks.robustness_curve(model, x, y, eps=[0, 0.15, 0.25]).accuracy
        tensor([1.0000, 0.7500, 0.5000])
    """
    budgets = sorted(map(float, [eps] if isinstance(eps, int | float) else eps))
    for budget in [0.0, *budgets]:
        check(x, y, budget, norm, None, tuple(NORMS))
    if not budgets or not len(x):
        raise ValueError("A curve needs at least one budget and one sample.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: give a coverage between 0 and 1.")
    grid = torch.tensor(budgets, dtype=torch.float64)
    if attack is not None:
        # Budget and distance may be the same number, rounded differently.
        distance = attack(model, x, y, norm=norm, **options).distance.cpu().double()
        stands = distance[None] > grid[:, None] * (1 + 1e-6)
    else:
        standing = torch.arange(len(x), device=x.device)
        stands = torch.zeros(len(budgets), len(x), dtype=torch.bool)
        bar = Bar(budgets, disable=not progress, desc="budgets", leave=False)
        for k, budget in enumerate(bar):
            own = _take(options, standing, len(x))
            result = pgd(model, x[standing], y[standing], eps=budget, norm=norm, **own)
            standing = standing[~result.success]
            stands[k, standing.cpu()] = True
    draws = torch.randint(
        len(x), (1000, len(x)), generator=torch.Generator().manual_seed(0)
    )
    tail = (1 - level) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float32)
    bands = [row.float()[draws].mean(1).quantile(ends) for row in stands]
    low, high = torch.stack(bands, 1)
    return Curve(torch.tensor(budgets), stands.sum(1) / len(x), norm, low, high)
