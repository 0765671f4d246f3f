"""Training: a pure function from a model and data to a trained copy and its history."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crlib import checks
from crlib.asking import ask, copied, evaluating, with_gradients
from crlib.attacks.balls import BALLS
from crlib.attacks.base import BUDGET_NORMS
from crlib.compress.layers import head_of
from crlib.data import Dataset
from crlib.models import shares_weights
from crlib.progress import Bar

__all__ = ["Epoch", "Fit", "augment", "fit", "fit_many", "new_head", "pgd_adversary"]

P = ParamSpec("P")
R = TypeVar("R")
CHECKPOINTS = ("validation", "matched", "last")
ROBUST = "robust"  # a rule of ``fit`` alone: it needs an adversary
Adversary = Callable[[Any, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Epoch:
    """What was measured after one epoch: mean losses, and accuracies in [0, 1].

    The training accuracy is that of the batches as they were trained on: perturbed
    ones in adversarial training. ``robust_loss`` is that of the held-out images under
    attack, NaN where the rule ``"robust"`` was not asked for.
    """

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    robust_loss: float = math.nan


@dataclass(frozen=True)
class Fit:
    """A trained model and how it came about.

    Attributes:
        model: the trained copy, in evaluation mode.
        history: one :class:`Epoch` an epoch.
        checkpoint: the rule that chose the weights.
        epoch: the chosen epoch, counted from 1.
        seconds: wall-clock time of the training.
        kept: for each rule that applies, and each epoch that was to be kept, its epoch
            and weights.
    """

    model: Any
    history: tuple[Epoch, ...]
    checkpoint: str
    epoch: int
    seconds: float
    kept: dict[str, tuple[int, dict[str, Tensor]]] = field(repr=False)

    def at(self, checkpoint: str) -> "Fit":
        """Return the same training with the weights that another rule chooses.

        Args:
            checkpoint: a rule, or ``"epoch 5"`` if epoch 5 was to be kept.

        Raises:
            ValueError: an unknown rule, or one that no epoch met.
        """
        if checkpoint not in self.kept:
            raise ValueError(
                f"No epoch for checkpoint={checkpoint!r}: this training kept"
                f" {', '.join(self.kept)}. 'matched' needs match=, an accuracy that"
                " training reaches; 'validation' needs samples held out; 'robust' is"
                " kept by fit(checkpoint='robust')."
            )
        epoch, state = self.kept[checkpoint]
        model = copied(self.model)
        model.load_state_dict(state)
        return replace(self, model=model, checkpoint=checkpoint, epoch=epoch)


def pgd_adversary(
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 7,
    step_size: float | None = None,
    against: str = "label",
) -> Adversary:
    r"""Return the inner maximisation of adversarial training (Madry et al. 2018).

    From a random point of the ball, ``steps`` steepest steps on the cross-entropy,
    each projected onto ball and box, with the model in evaluation mode. Unlike
    :func:`crlib.attacks.pgd` it goes on when a sample is fooled: training wants the
    worst loss, not a wrong label.

    Args:
        eps: radius in input units.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: gradient steps, at least 1.
        step_size: None means ``2.5 * eps / steps``.
        against: ``"label"``, or ``"prediction"`` for TRADES: move the output away from
            what the model says at ``x``.

    Raises:
        ValueError: a bad option.

    Example:
        >>> import torch
        >>> from crlib import train
        >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
        >>> adversary = train.pgd_adversary(eps=0.1)
        >>> adversary(torch.nn.Identity(), x, y, torch.Generator().manual_seed(0))
        tensor([[0.5000, 0.5000]])
    """
    checks.one_of("norm", norm, BUDGET_NORMS)
    checks.one_of("against", against, ("label", "prediction"))
    checks.not_negative(eps=eps)
    checks.at_least(1, steps=steps)
    if norm == "linf" and eps > 1:
        raise ValueError(
            f"eps is {eps} in linf, where 1 turns any image into any other: write"
            " 8/255 for 8 of 255 levels."
        )
    length = 2.5 * eps / steps if step_size is None else step_size
    checks.not_negative(step_size=length)

    def adversary(
        model: Any, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        region = BALLS[norm](x, x.new_full((len(x),), eps))
        step = x.new_full((len(x),), length)
        with evaluating(model), torch.enable_grad():
            goal = y
            if against == "prediction":
                with torch.no_grad():
                    goal = ask(model, x).softmax(1)
            z = region.random(generator)
            for _ in range(steps):
                z.requires_grad_(True)
                # Soft goals leave out their own entropy, which has no gradient.
                loss = nn.functional.cross_entropy(ask(model, z), goal, reduction="sum")
                (g,) = torch.autograd.grad(loss, z)
                z = region.step_(z.detach(), g, step)
        return z

    return adversary


def augment(x: Tensor, generator: torch.Generator, *, padding: int = 4) -> Tensor:
    """Shift images by up to ``padding`` pixels and mirror half of them, on the device.

    Args:
        x: ``(N, C, H, W)``; what a shift uncovers is zero.
        generator: of the shifts and the mirrors.
        padding: largest shift in either direction.

    Returns:
        ``(N, C, H, W)``, a new tensor.

    Example:
        >>> import torch
        >>> from crlib import train
        >>> images = torch.ones(8, 3, 6, 6)
        >>> train.augment(images, torch.Generator().manual_seed(0), padding=2).shape
        torch.Size([8, 3, 6, 6])
    """
    n, _, height, width = x.shape

    def drawn(high: int) -> Tensor:  # (N,)
        return torch.randint(
            high, (n,), generator=generator, device=generator.device
        ).to(x.device)

    # Where each row and column of the result comes from in the padded image.
    rows = drawn(2 * padding + 1)[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(n, width)
    mirrored = drawn(2).bool()[:, None]
    columns = torch.where(mirrored, columns.flip(1), columns)
    columns = drawn(2 * padding + 1)[:, None] + columns  # (N, W); rows is (N, H)
    padded = nn.functional.pad(x, (padding,) * 4)
    sample = torch.arange(n, device=x.device)[:, None, None]
    out = padded[sample, :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return out.permute(0, 3, 1, 2)


def new_head(model: nn.Module, classes: int, *, seed: int = 0) -> Any:
    """Return a copy with a fresh linear head, to train on other classes.

    Args:
        model: any whose last layer with weights is linear.
        classes: number of new logits.
        seed: of the new head.

    Raises:
        ValueError: the head is not ``nn.Linear``.

    Example:
        >>> from crlib import train
        >>> from crlib.models import MLP
        >>> train.new_head(MLP((2, 8, 2)), 5).layers[-1]
        Linear(in_features=8, out_features=5, bias=False)
    """
    model = copied(model)
    head = head_of(model)
    if not isinstance(head, nn.Linear):
        raise ValueError(f"The head is {type(head).__name__}: it must be nn.Linear.")
    bound = 1 / math.sqrt(head.in_features)
    generator = torch.Generator().manual_seed(seed)
    for name, shape in (("weight", (classes, head.in_features)), ("bias", (classes,))):
        if getattr(head, name) is not None:
            draw = (2 * torch.rand(shape, generator=generator) - 1) * bound
            setattr(head, name, nn.Parameter(draw.to(head.weight)))
    head.out_features = classes
    return model


def _seeded(training: Callable[P, R]) -> Callable[P, R]:
    """Let what a network draws by itself, as dropout does, hang on the seed alone."""

    @wraps(training)
    def run(*args: P.args, **options: P.kwargs) -> R:
        seed: Any = options.get("seed", 0)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            return training(*args, **options)

    return run


@with_gradients
@_seeded
def fit(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int = 20,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    batch_size: int = 128,
    optimiser: str = "adamw",
    schedule: str = "constant",
    penalty: Callable[[Any], Tensor] | None = None,
    constraint: Callable[[Any], None] | None = None,
    constrain_every: int = 1,
    adversary: Adversary | None = None,
    share: float = 1.0,
    trades: float | None = None,
    augmentation: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    head_only: bool = False,
    validation: float = 0.1,
    checkpoint: str = "validation",
    match: float | None = None,
    keep: Sequence[int] = (),
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    r"""Minimise mean cross-entropy plus a penalty.

    .. math:: \frac1n \sum_i \mathrm{CE}(f_\theta(x_i), y_i) + \mathrm{penalty}(\theta)

    The model given is left alone: a copy is trained, in the precision of the data, and
    in that of :meth:`crlib.data.Dataset.double` two processors agree. The seed fixes
    the split, the order of the batches, the adversary and what layers draw, such as
    dropout (the initialisation belongs to the model). Torch's own state stays.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; on the device of the data.
        data: its training part is used; the test part is not looked at.
        epochs: passes over the training images, at least 1.
        lr: learning rate.
        weight_decay: decoupled for ``"adamw"``; an l2 penalty for ``"sgd"``.
        batch_size: images a step.
        optimiser: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        schedule: ``"constant"``, or ``"cosine"`` down to zero.
        penalty: maps the model to a scalar to add to the loss; see
            :mod:`crlib.compress`.
        constraint: changes the model in place, before the first step, after every
            ``constrain_every`` steps and at the end of each epoch.
        constrain_every: steps between two constraints.
        adversary: maps model, x, y and a generator to perturbed inputs, such as
            :func:`pgd_adversary`.
        share: part of each batch that the adversary perturbs, in (0, 1].
        trades: :math:`\beta` of TRADES (Zhang et al. 2019): the loss is then
            :math:`\mathrm{CE}(f(x), y) + \beta\, \mathrm{KL}(f(x) \| f(x'))`; wants an
            adversary against the prediction.
        augmentation: maps a batch of inputs and a generator to new ones, such as
            :func:`augment`.
        head_only: train the last layer only, the encoder frozen in evaluation mode.
        validation: share of the training images held out, in [0, 1).
        checkpoint: ``"validation"`` returns the epoch of lowest validation loss,
            ``"matched"`` the first whose training accuracy reaches ``match``,
            ``"last"`` the last one. ``"robust"`` has the adversary attack the held-out
            images once an epoch, from the same random points each time, and returns
            the epoch of lowest loss on those (early stopping of Rice, Wong and Kolter
            2020); the training itself stays the same. :meth:`Fit.at` gives the others.
        match: training accuracy of the rule ``"matched"``.
        keep: epochs to keep as well, for :meth:`Fit.at`: ``"epoch 0"`` is the model as
            it starts.
        seed: of the split, the batches and the adversary.
        progress: show a progress bar with losses.

    Returns:
        A :class:`Fit`.

    Raises:
        ValueError: a bad option, labels that do not fit, a loss that is not finite,
            or a checkpoint that no epoch met.

    Example:
        >>> import torch
        >>> from crlib import data, train
        >>> from crlib.models import MLP
        >>> means = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
        >>> clouds = data.gaussian_classes(64, 16, means)
        >>> model = MLP((2, 8, 2), bias=True)
        >>> fitted = train.fit(model, clouds, epochs=20, lr=0.05, progress=False)
        >>> len(fitted.history), fitted.checkpoint
        (20, 'validation')
        >>> bool((fitted.model(clouds.x_test).argmax(1) == clouds.y_test).all())
        True
    """
    _check_data(data)
    n_held = _check_options(
        data,
        epochs,
        batch_size,
        optimiser,
        schedule,
        checkpoint,
        validation,
        match,
        rules=(*CHECKPOINTS, ROBUST),
    )
    checks.at_least(1, constrain_every=constrain_every)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: a part of the batch, in (0, 1].")
    if trades is not None and adversary is None:
        raise ValueError("trades needs an adversary: give pgd_adversary(...).")
    if checkpoint == ROBUST and adversary is None:
        raise ValueError(
            "checkpoint='robust' needs an adversary: give pgd_adversary(...)."
        )
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    x, y, x_held, y_held = _split(data, n_held, generator)
    classes = int(data.y_train.max()) + 1

    model = copied(model).to(x.dtype).train()
    head = head_of(model) if head_only else None
    frozen = [] if head is None else _freeze_all_but(head, model)
    trained = [p for p in model.parameters() if p.requires_grad]
    n_steps = epochs * math.ceil(len(x) / batch_size)
    steps = _Steps(trained, optimiser, schedule, lr, weight_decay, n_steps)
    ledger = _Ledger(epochs, match, keep)

    def constrain() -> None:
        if constraint is not None:
            with torch.no_grad():
                constraint(model)

    constrain()
    if 0 in keep:
        ledger.kept["epoch 0"] = 0, _state(model)
    bar = Bar(range(1, epochs + 1), disable=not progress, desc="epochs", leave=False)
    for _ in bar:
        if head is not None:
            model.eval()
        losses: list[Tensor] = []
        hits = torch.zeros_like(y[0])
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            x_now, y_now = x[batch.to(x.device)], y[batch.to(x.device)]
            if augmentation is not None:
                x_now = augmentation(x_now, generator)
            x_bad = x_now
            if adversary is not None:
                count = math.ceil(share * len(x_now))
                attacked = adversary(model, x_now[:count], y_now[:count], generator)
                x_bad = torch.cat([attacked, x_now[count:]])
            loss, logits = _loss(model, x_now, x_bad, y_now, trades, classes)
            objective = loss if penalty is None else loss + penalty(model)
            steps.take(objective)
            if steps.count % constrain_every == 0:
                constrain()
            losses.append(objective.detach() * len(batch))
            hits += (logits.argmax(1) == y_now).sum()
        if steps.count % constrain_every:
            constrain()
        held = _evaluate(model, x_held, y_held)
        robust = math.nan
        if checkpoint == ROBUST and adversary is not None:
            x_moved = _moved(model, x_held, y_held, adversary, seed)
            robust, _ = _evaluate(model, x_moved, y_held)
        # Summed off the device: Apple's GPUs have no float64.
        total = float(torch.stack(losses).cpu().double().sum())
        epoch = Epoch(total / len(x), int(hits) / len(x), *held, robust)
        ledger.record(epoch, lambda: _state(model))
        bar.set_postfix(loss=f"{epoch.train_loss:.3f}", validation=f"{held[0]:.3f}")
    for parameter in frozen:
        parameter.requires_grad_(True)
    return ledger.fit(model, time.perf_counter() - started, checkpoint)


@with_gradients
def fit_many(
    models: Sequence[nn.Module],
    data: Dataset | Sequence[Dataset],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int = 20,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    batch_size: int = 128,
    penalty: Callable[[Any], Tensor] | None = None,
    strengths: Sequence[float] | None = None,
    validation: float = 0.1,
    checkpoint: str = "validation",
    match: float | None = None,
    progress: bool = True,
) -> list[Fit]:
    r"""Train networks of one architecture side by side, as one job.

    Every product of a step becomes one batched product over the networks, so that
    many small networks cost little more than one. Each has its own weights, split,
    batches and penalty strength; the results are those of :func:`fit` with AdamW up
    to rounding.

    Args:
        models: M models of equal shape, without batch normalisation, dropout or
            weights that layers share.
        data: one for all, or M of equal shape.
        seeds: M, of the splits and the batches; None means 0, 1, ...
        epochs: passes over the training samples.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        batch_size: samples a step and model.
        penalty: maps a model to a scalar, such as ``compress.group_lasso(1.0)``.
        strengths: M factors of the penalty; None means 1.
        validation: share of the training samples held out.
        checkpoint: ``"validation"``, ``"matched"`` or ``"last"``, as in :func:`fit`.
        match: as in :func:`fit`.
        progress: show a progress bar.

    Returns:
        M :class:`Fit`; ``seconds`` is the time of the whole job over M.

    Raises:
        ValueError: as :func:`fit`; lengths or shapes that differ; or networks that
            can only be trained one by one.

    Example:
        >>> import torch
        >>> from crlib import data, train
        >>> from crlib.models import MLP
        >>> means = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
        >>> clouds = data.gaussian_classes(64, 16, means)
        >>> models = [MLP((2, 8, 2), seed=seed) for seed in range(3)]
        >>> fits = train.fit_many(models, clouds, epochs=2, progress=False)
        >>> len(fits), len(fits[0].history)
        (3, 2)
    """
    count = len(models)
    sets: list[Any] = list(data) if isinstance(data, list | tuple) else [data] * count
    _check_data(*sets)
    seeds = range(count) if seeds is None else seeds
    factors = [1.0] * count if strengths is None else strengths
    if not count or not len(sets) == len(seeds) == len(factors) == count:
        raise ValueError(
            f"{count} models, {len(sets)} data sets, {len(seeds)} seeds and"
            f" {len(factors)} strengths: give as many of each, at least one."
        )
    if len({s.x_train.shape for s in sets}) > 1:
        raise ValueError("The data sets differ in shape: train them in separate jobs.")
    n_held = _check_options(
        sets[0], epochs, batch_size, "adamw", "constant", checkpoint, validation, match
    )
    for model in models:
        _refuse_bound(model)
    started = time.perf_counter()
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    parts = [_split(s, n_held, g) for s, g in zip(sets, sources, strict=True)]
    # x is (M, n, ...), y (M, n), held alike with n_held.
    x, y, x_held, y_held = (torch.stack(part) for part in zip(*parts, strict=True))
    copies = [copied(model).to(x.dtype).train() for model in models]
    strength = torch.tensor(factors, device=x.device, dtype=x.dtype)  # (M,)
    classes = max(int(s.y_train.max()) for s in sets) + 1
    together = _Together(copies, penalty, strength, classes)
    trained = list(together.weights.values())
    steps = _Steps(trained, "adamw", "constant", lr, weight_decay, 1)
    ledgers = [_Ledger(epochs, match) for _ in models]
    row = torch.arange(count, device=x.device)[:, None]
    n = x.shape[1]
    bar = Bar(range(1, epochs + 1), disable=not progress, desc="epochs", leave=False)
    for _ in bar:
        orders = torch.stack(
            [torch.randperm(n, generator=g) for g in sources]
        )  # (M, n)
        total = torch.zeros(count, device=x.device, dtype=x.dtype)
        hits = torch.zeros_like(total)
        for batch in orders.to(x.device).split(batch_size, dim=1):  # (M, B)
            value, _, right = together(x[row, batch], y[row, batch])  # (M,) each
            steps.take(value.sum())
            total += value.detach() * batch.shape[1]
            hits += right
        held = torch.full((2, count), float("nan"), dtype=x.dtype)
        if n_held:
            with torch.no_grad(), evaluating(together.like):
                _, loss, right = together(x_held, y_held)
            held = torch.stack([loss, right / n_held]).cpu()
        for k, ledger in enumerate(ledgers):
            mean, accuracy = float(total[k]) / n, float(hits[k]) / n
            epoch = Epoch(mean, accuracy, float(held[0, k]), float(held[1, k]))
            ledger.record(epoch, partial(together.state, k))
        bar.set_postfix(loss=f"{float(total.mean()) / n:.3f}")
    seconds = (time.perf_counter() - started) / count
    return [
        ledger.fit(model, seconds, checkpoint)
        for ledger, model in zip(ledgers, copies, strict=True)
    ]


class _Ledger:
    """What a training leaves behind: its history, and the weights that rules chose."""

    def __init__(
        self, epochs: int, match: float | None, keep: Sequence[int] = ()
    ) -> None:
        self.epochs, self.match, self.keep = epochs, match, keep
        self.history: list[Epoch] = []
        self.kept: dict[str, tuple[int, dict[str, Tensor]]] = {}
        self.lowest = self.lowest_robust = float("inf")

    def record(self, epoch: Epoch, state: Callable[[], dict[str, Tensor]]) -> None:
        """Note an epoch; keep the weights, a copy, for each rule that chooses it."""
        self.history.append(epoch)
        number = len(self.history)
        if not epoch.train_loss < float("inf"):
            raise ValueError(
                f"The loss is {epoch.train_loss} in epoch {number}: lower the learning"
                " rate or the penalty."
            )
        reached = self.match is not None and epoch.train_accuracy >= self.match
        rules = {
            "validation": epoch.validation_loss < self.lowest,
            ROBUST: epoch.robust_loss < self.lowest_robust,
            "matched": reached and "matched" not in self.kept,
            f"epoch {number}": number in self.keep,
            "last": number == self.epochs,
        }
        if rules["validation"]:
            self.lowest = epoch.validation_loss
        if rules[ROBUST]:
            self.lowest_robust = epoch.robust_loss
        for rule, chosen in rules.items():
            if chosen:
                self.kept[rule] = number, state()

    def fit(self, model: nn.Module, seconds: float, checkpoint: str) -> Fit:
        """Return the result with the weights of a checkpoint."""
        history = tuple(self.history)
        last = Fit(model.eval(), history, "last", self.epochs, seconds, self.kept)
        return last.at(checkpoint)


def _loss(
    model: nn.Module,
    x: Tensor,
    x_bad: Tensor,
    y: Tensor,
    trades: float | None,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and the logits that count for the accuracy."""
    shown = x if trades is not None else x_bad
    try:
        logits = ask(model, shown)
    except ValueError as error:
        if len(shown) == 1 and "more than 1 value per channel" in str(error):
            raise ValueError(
                "The last batch of an epoch is one sample, which batch normalisation"
                " cannot normalise: choose another batch_size or validation."
            ) from error
        raise
    _check_logits(logits, classes)
    loss = nn.functional.cross_entropy(logits, y)
    if trades is not None:
        loss = loss + trades * nn.functional.kl_div(
            ask(model, x_bad).log_softmax(1),
            logits.log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
    return loss, logits


def _check_logits(logits: Tensor, classes: int) -> None:
    if logits.ndim != 2 or logits.shape[1] < classes:
        raise ValueError(
            f"The model returned {tuple(logits.shape)}: it must return logits (N, K)"
            f" with K at least {classes}, one a label."
        )


def _refuse_bound(model: nn.Module) -> None:
    """Refuse what would be another network if it were trained side by side."""
    for module in model.modules():
        counts = getattr(module, "track_running_stats", False)
        if counts or isinstance(module, _BatchNorm):
            raise ValueError(
                f"The models have {type(module).__name__}, whose statistics cannot be"
                " kept side by side: use fit for each."
            )
    if shares_weights(model):
        raise ValueError("Layers of the models share weights: use fit for each.")


class _Together:
    """M networks of one architecture as one, with weights ``(M, ...)``."""

    def __init__(
        self,
        models: list[Any],
        penalty: Callable[[Any], Tensor] | None,
        strength: Tensor,
        classes: int,
    ) -> None:
        wrapped = [_Objective(model, penalty, classes) for model in models]
        try:
            self.weights, self.buffers = torch.func.stack_module_state(wrapped)
        except RuntimeError as error:
            raise ValueError(
                f"The models must have one architecture: {error}"
            ) from None
        # A copy: what a pass leaves in it, such as an activation, is of all networks.
        self.like, self.strength = copied(wrapped[0]), strength
        self.mapped = torch.vmap(self._one, randomness="error")

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return objective, loss and hits, ``(M,)``, of batches ``(M, B, ...)``."""
        try:
            out: tuple[Tensor, Tensor, Tensor] = self.mapped(
                self.weights, self.buffers, x, y, self.strength
            )
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise ValueError(
                "The models draw at random, such as by dropout, or decide on values:"
                f" use fit for each. It said: {str(error).splitlines()[0]}"
            ) from error
        return out

    def _one(
        self, own: dict[str, Tensor], fixed: dict[str, Tensor], *inputs: Tensor
    ) -> Any:
        return torch.func.functional_call(self.like, {**own, **fixed}, inputs)

    def state(self, k: int) -> dict[str, Tensor]:
        """Return a copy of the weights and buffers of network k."""
        return {
            name.removeprefix("model."): value[k].detach().clone()
            for name, value in {**self.weights, **self.buffers}.items()
        }


class _Objective(nn.Module):
    """A model with its loss: what is mapped over many networks."""

    def __init__(
        self,
        model: nn.Module,
        penalty: Callable[[Any], Tensor] | None,
        classes: int,
    ) -> None:
        super().__init__()
        self.model, self.penalty, self.classes = model, penalty, classes

    def forward(
        self, x: Tensor, y: Tensor, strength: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = ask(self.model, x)
        _check_logits(logits, self.classes)
        loss = nn.functional.cross_entropy(logits, y)
        right = (logits.argmax(1) == y).sum()
        if self.penalty is None:
            return loss, loss, right
        return loss + strength * self.penalty(self.model), loss, right


def _check_data(*sets: object) -> None:
    for given in sets:
        if not isinstance(given, Dataset):
            raise ValueError(
                f"data is a {type(given).__name__}: give a Dataset. data.dataset makes"
                " one of your tensors, data.from_folder one of your images."
            )


def _check_options(
    data: Dataset,
    epochs: int,
    batch_size: int,
    optimiser: str,
    schedule: str,
    checkpoint: str,
    validation: float,
    match: float | None,
    rules: tuple[str, ...] = CHECKPOINTS,
) -> int:
    """Return how many samples to hold out."""
    checks.one_of("checkpoint", checkpoint, rules)
    checks.one_of("optimiser", optimiser, ("adamw", "sgd"))
    checks.one_of("schedule", schedule, ("constant", "cosine"))
    checks.at_least(1, epochs=epochs, batch_size=batch_size)
    if checkpoint == "matched" and match is None:
        raise ValueError("checkpoint='matched' needs match=, a training accuracy.")
    n_held = round(validation * len(data.x_train))
    if not 0 <= n_held < len(data.x_train) or (
        n_held == 0 and checkpoint in ("validation", ROBUST)
    ):
        raise ValueError(
            f"validation is {validation}: hold out a share of the"
            f" {len(data.x_train)} training samples, or use checkpoint='last'."
        )
    return n_held


def _split(
    data: Dataset, n_held: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    order = torch.randperm(len(data.x_train), generator=generator)
    order = order.to(data.x_train.device)
    held, rows = order[:n_held], order[n_held:]
    x, y = data.x_train, data.y_train
    return x[rows], y[rows], x[held], y[held]


def _freeze_all_but(head: nn.Module, model: nn.Module) -> list[nn.Parameter]:
    own = {id(p) for p in head.parameters()}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def _state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


class _Steps:
    """The optimiser with its schedule, one call a step."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        optimiser: str,
        schedule: str,
        lr: float,
        weight_decay: float,
        n_steps: int,
    ) -> None:
        self.count, self.n_steps = 0, n_steps
        self.lr, self.cosine = lr, schedule == "cosine"
        options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        self.optimiser: torch.optim.Optimizer
        if optimiser == "sgd":
            self.optimiser = torch.optim.SGD(parameters, momentum=0.9, **options)
        else:
            self.optimiser = torch.optim.AdamW(parameters, fused=True, **options)

    def take(self, objective: Tensor) -> None:
        if self.cosine:
            done = self.count / self.n_steps
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * done)) / 2
        self.optimiser.zero_grad(set_to_none=True)
        objective.backward()
        self.optimiser.step()
        self.count += 1


def _moved(
    model: nn.Module, x: Tensor, y: Tensor, adversary: Adversary, seed: int
) -> Tensor:
    """Attack held-out samples; the chance is its own and the same in every epoch."""
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(x.split(1024), y.split(1024), strict=True)
    with evaluating(model):
        return torch.cat([adversary(model, *pair, generator) for pair in pairs])


def _evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    if not len(x):
        return float("nan"), float("nan")
    with torch.no_grad(), evaluating(model):
        logits = torch.cat([ask(model, part) for part in x.split(1024)])
    loss = nn.functional.cross_entropy(logits, y)
    return float(loss), float((logits.argmax(1) == y).cpu().double().mean())
