"""The sections of a report: each a function of the subject, each with its caution."""

import math
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import product
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crlib import attacks, certify, compress, data, figures, metrics
from crlib.asking import ask, evaluating
from crlib.attacks.universal import first_layer
from crlib.claims import Interval, interval, median_interval, wilson
from crlib.reporting.parts import (
    TITLES,
    Picture,
    Section,
    Table,
    bars,
    canvas,
    canvases,
    number,
    picture,
    rows,
)
from crlib.reporting.subject import LEAST, UNKNOWN, Subject, layers_of
from crlib.version import __version__

__all__ = ["SECTIONS", "LeftOut", "with_seconds", "words"]

NAMES = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}
# Of the linf distances so many may be below half a grey level.
GREY = 0.1
# Attack over linearisation.
NEAR = (0.7, 1.6)
# A picture has room for so many labels.
LABELS = 40
# So many directions of the first layer are looked at, by so many rounds of an
# iteration where its matrix has more than so many entries.
TOP, ROUNDS, ENTRIES = 10, 20, 2e6
SORTED = (
    "The attacked inputs, the first ones, lack labels that the others have: shuffle x"
    " and y together."
)


def card(subject: Subject) -> Section:
    """Whom the report is about."""
    found, strange = layers_of(subject.model)
    accuracy = subject.accuracy
    size, mixed = _size(subject.model, subject.x), _mixed(subject)
    held, attacked = (len(v.unique()) for v in (subject.y, subject.few[1]))
    lines = {
        "inputs": f"{len(subject.x)} of shape {tuple(subject.x.shape[1:])}",
        "attacked": f"the first {len(subject.few[0])}, with {attacked} labels",
        "classes": f"{subject.logits.shape[1]}, and {held} of them among the labels",
        "accuracy, Wilson's 95 %": accuracy.format(".3f"),
        "parameters": "unknown" if size is None else f"{size.parameters:,}",
        "multiply-adds an input": "unknown" if size is None else f"{size.macs:,}",
        "layers with weights found": str(len(found)),
        "layers of other kinds": ", ".join(strange) or "none",
        "precision in which attacks ask": _precision(subject.autocast),
        "fingerprint of weights, inputs, options": subject.fingerprint,
        "crlib, torch, Python": f"{__version__}, {torch.__version__},"
        f" {platform.python_version()}",
    }
    return Section(
        "card",
        "What was judged, and on what." + ("" if mixed else f" {SORTED}"),
        "It speaks of these inputs. Of inputs from another source it says nothing.",
        {
            "accuracy": accuracy.mean,
            "inputs": len(subject.x),
            "layers": len(found),
            "mixed": mixed,
        }
        | ({} if size is None else {"parameters": size.parameters, "macs": size.macs}),
        [Table("Facts", ["", ""], [[k, v] for k, v in lines.items()])],
        _by_label(subject),
    )


def _precision(autocast: torch.dtype | None) -> str:
    if autocast is None:
        return "the network's own"
    name = str(autocast).removeprefix("torch.")
    return f"{name}; what they find is confirmed in the network's own"


def _by_label(subject: Subject) -> list[Picture]:
    """Accuracy of each label, unless there are too many to be told apart."""
    held = subject.y.unique()
    if len(held) > LABELS:
        return []
    hit = subject.logits.argmax(1) == subject.y
    each = [hit[subject.y == label] for label in held]
    share = [float(v.double().mean()) for v in each]
    ends = [wilson(int(v.sum()), len(v)) for v in each]
    reach = [[s - e.low for s, e in zip(share, ends, strict=True)]]
    reach += [[e.high - s for s, e in zip(share, ends, strict=True)]]
    fig, ax = canvas(2.6)
    look: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "color": figures.COLOURS[0],
    }
    ax.errorbar(range(len(held)), share, np.abs(reach), capsize=3, **look)
    names = [str(int(v)) for v in held]
    ax.set_xticks(range(len(held)), labels=names, fontsize=9 if len(held) < 25 else 6)
    ax.set(xlabel="label", ylabel="accuracy", ylim=(-0.03, 1.03))
    low, high = int(np.argmin(share)), int(np.argmax(share))
    alt = (
        f"One mark a label with its interval. Lowest is label {names[low]} at"
        f" {share[low]:.2f}, highest label {names[high]} at {share[high]:.2f}."
    )
    return [picture(fig, "Accuracy by label, with Wilson's 95 %.", alt)]


def with_seconds(found: Mapping[str, Section]) -> Section:
    """Return the card with the seconds that each section took."""
    told = [[TITLES[name], f"{s.seconds:.1f}"] for name, s in found.items()]
    told.append(["together", f"{sum(s.seconds for s in found.values()):.1f}"])
    table = Table("Seconds a section", ["section", "seconds"], told)
    return replace(found["card"], tables=[*found["card"].tables, table])


def _mixed(subject: Subject) -> bool:
    """Whether the first inputs have about the labels of as many from everywhere."""
    first, y = subject.few[1], subject.y
    everywhere = y[torch.linspace(0, len(y) - 1, len(first)).long()]
    return len(first.unique()) > 0.7 * len(everywhere.unique())


def distances(subject: Subject) -> Section:
    """How far the boundary is."""
    lines, numbers, unsure, right = [], {}, 0, subject.right
    for norm, eps in subject.eps.items():
        median = median_interval(subject.near(norm).distance[right].tolist())
        guess = subject.guess(norm)[right]
        estimate, unsure = _median(guess), max(unsure, int(guess.isnan().sum()))
        worst = subject.worst(norm)
        floor = _certificate(subject, norm)
        lines.append(
            {
                "norm": NAMES[norm],
                "median distance": number(median),
                "one linearisation": number(estimate),
                "budget": number(eps),
                "robust accuracy": worst.interval.format(".3f"),
                "certified, median": "none" if floor is None else number(floor),
            }
        )
        numbers[norm] = {
            "median": median.mean,
            "median low": median.low,
            "median high": median.high,
            "estimate": estimate,
            "budget": eps,
            "robust accuracy": worst.robust_accuracy,
            "certified": floor,
            "notes": list(worst.notes),
        }
    columns, told = rows(lines)
    return Section(
        "distances",
        "Distances are in input units, of inputs labelled right; intervals hold for any"
        " distribution. Robust accuracy counts all attacked inputs."
        + (
            f" At {unsure} inputs labelled right the gradient is NaN: one linearisation"
            " says nothing of them and leaves them out."
            if unsure
            else ""
        ),
        "A distance found by an attack is an upper bound. A certificate is a lower one."
        " Two networks are comparable on the same inputs only.",
        numbers,
        [Table("Distances and robust accuracy", columns, told)],
        [_curves(subject, numbers)],
    )


def _curves(subject: Subject, numbers: dict[str, Any]) -> Picture:
    """Robust accuracy against the budget, in medians of the distance."""
    (fig, ax), told = canvas(), []
    for i, (norm, v) in enumerate(numbers.items()):
        if not math.isfinite(v["median"]):
            told.append(
                f"{NAMES[norm]}: no curve, as half of the right inputs or more stand"
            )
            continue
        # Wrong inputs fall at budget zero: the curve starts at the clean accuracy.
        fell = torch.where(subject.right, subject.near(norm).distance, 0)
        share = 1 - torch.arange(1, len(fell) + 1) / len(fell)
        ax.step(
            fell.cpu().sort().values / v["median"],
            share,
            where="post",
            label=NAMES[norm],
            color=figures.COLOURS[i],
            linestyle=("-", "--", ":")[i],
        )
        told.append(
            f"{NAMES[norm]}: half of the right inputs fall by {v['median']:.3g}"
        )
    ax.set(xlim=(0, 4), ylim=(0, 1), ylabel="robust accuracy")
    ax.set(xlabel="budget over the median distance of its norm")
    if ax.lines:
        ax.legend()
    alt = "Robust accuracy falls with the budget. " + "; ".join(told) + "."
    return picture(fig, "Robust accuracy against the budget.", alt)


def trust(subject: Subject) -> Section:
    """Whether the numbers can be trusted."""
    norm = next(iter(subject.eps))
    near, right = subject.near(norm), subject.right
    # In one batch: the checks compare answers of a sample in several.
    x, y = (v[: min(100, subject.batch_size)] for v in subject.few)
    # At its own median distance an attack has half of the inputs to work on.
    eps = _median(near.distance[right])
    lines, failed = [], []
    if math.isfinite(eps) and eps > 0:
        # The report asks in evaluation mode: that it was left is no fault of a number.
        with evaluating(subject.model):
            found = attacks.diagnose(
                subject.model, x, y, eps=eps, norm=norm, generator=subject.chance()
            )
        failed = [c.name for c in found if not c.passed]
        lines = [
            [c.name, f"{c.number:.3g}", f"{c.limit:.3g}", "" if c.passed else c.meaning]
            for c in found
        ]
    ratio = _median(near.distance[right] / subject.guess(norm)[right])
    lines.append(
        [
            "attack near one linearisation",
            f"{ratio:.3g}",
            "{} to {}".format(*NEAR),
            ""
            if NEAR[0] <= ratio <= NEAR[1]
            else "Gradients at the inputs mislead, or the network"
            " is strongly curved: look at the checks above.",
        ]
    )
    numbers: dict[str, Any] = {"failed": failed, "attack over estimate": ratio}
    if "linf" in subject.eps:
        fine = float((subject.near("linf").distance[right] < 0.5 / 255).double().mean())
        numbers["below half a grey level"] = fine
        lines.append(
            [
                "share of ℓ∞ distances below half a grey level",
                f"{fine:.3g}",
                str(GREY),
                ""
                if fine <= GREY
                else "Such points do not survive in an image of 8 bits:"
                " report the robust accuracy at 1/255 beside the distances.",
            ]
        )
    tables = [Table("Checks", ["check", "number", "allowed", "a failure means"], lines)]
    baseline = _damaged(subject)
    if baseline:
        numbers["damaged"] = {name: v.mean for name, v in baseline.items()}
        told = [[name, v.format(".3f")] for name, v in baseline.items()]
        worst = {f"attack, {NAMES[n]}": subject.worst(n).interval for n in subject.eps}
        told += [[name, v.format(".3f")] for name, v in worst.items()]
        title = "Accuracy under damage that nobody aimed, and under attack"
        tables.append(Table(title, ["images", "accuracy, Wilson's 95 %"], told))
    return Section(
        "trust",
        f"The checklist of the literature, in {NAMES[norm]} at the median distance, of"
        f" the first {len(x)} inputs."
        + (
            " The damage is of severity 3 of 5, on the attacked inputs: a baseline, and"
            " in no ball of the attacks."
            if baseline
            else ""
        ),
        "A failed check does not say that the network is weak: the usual attack may not"
        " show it. Passed checks prove nothing.",
        numbers,
        tables,
        _agreement(near.distance[right], subject.guess(norm)[right], norm),
    )


def _agreement(far: Tensor, guess: Tensor, norm: str) -> list[Picture]:
    """The attack against one linearisation, a point an input."""
    known = far.isfinite() & guess.isfinite() & (guess > 0)
    a, b = (v[known].cpu().double() for v in (guess, far))
    if not len(b) or not b.max() > 0:
        return []
    top = 1.05 * float(b.max())
    near = ((b >= NEAR[0] * a) & (b <= NEAR[1] * a)).double().mean()
    fig, ax = canvas()
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4}
    ax.plot(a, b, color=figures.COLOURS[0], alpha=0.7, **look)
    for k, line in ((1.0, "-"), (NEAR[0], ":"), (NEAR[1], ":")):
        ax.axline((0, 0), slope=k, color="k", linestyle=line, linewidth=0.8)
    ax.set(xlim=(0, top), ylim=(0, top))
    ax.set(xlabel="one linearisation", ylabel=f"attack, {NAMES[norm]}")
    alt = (
        f"{len(b)} points, one an input labelled right, with the line of equality."
        f" {100 * float(near):.0f} % lie between {NEAR[0]} and {NEAR[1]} times the"
        f" linearisation; {int((a > top).sum())} lie to the right of the frame."
    )
    caption = "Distance found by the attack against that of one linearisation."
    return [picture(fig, f"{caption} Dotted: what is allowed of the median.", alt)]


def _damaged(subject: Subject) -> dict[str, Interval]:
    """Accuracy of attacked images under corruptions; none for what is no image."""
    x, y = subject.few
    if x.ndim != 4:
        return {}
    source, hits = subject.chance(), Counter[str]()
    parts = (v.split(subject.batch_size) for v in (x, y))
    for part, labels in zip(*parts, strict=True):
        damage = data.corruptions(part, severity=3, generator=source)
        for name, v in {"as they are": part, **damage}.items():
            hits[name] += int((subject.labels(subject.model, v) == labels).sum())
    return {name: wilson(n, len(y)) for name, n in hits.items()}


def layers(subject: Subject) -> Section:
    """How compressible each layer is."""
    found, strange = layers_of(subject.model)
    if not found:
        raise LeftOut(UNSEEN)
    forms, reasons = _forms(subject.model)
    lines, others, numbers, shown = [], [], {}, {}
    for name, layer in found:
        shape = "×".join(map(str, layer.weight.flatten(1).shape))
        told = _measured(layer.weight)
        if told is None:
            empty = dict.fromkeys(LAYER, "all zero")
            lines.append({"layer": name, "shape": shape, **empty})
            others.append({"layer": name, **dict.fromkeys(_titles(forms), "all zero")})
            continue
        shown[name] = metrics.singular_values(layer.weight.detach().flatten(1))
        other = {form: _measured(w[name]) for form, w in forms.items() if name in w}
        numbers[name] = {**told, **other}
        cells = {c: f"{v:.3f}" for c, v in told.items()}
        lines.append({"layer": name, "shape": shape, **cells})
        cells = {}
        for form, column in product(forms, MOVED):
            held = other.get(form)
            cells[f"{column}, {form}"] = "–" if held is None else f"{held[column]:.3f}"
        others.append({"layer": name, **cells})
    tables = [Table("Layers, as they are stored", *rows(lines))]
    if forms:
        tables.insert(0, Table("Layers, " + " and ".join(forms), *rows(others)))
    fig, ax = canvas()
    figures.spectrum(ax, dict(list(shown.items())[:6]))
    ax.set(xlabel="singular value, by rank", ylabel="over the largest")
    more = (
        f" Layers of other kinds are left out: {', '.join(strange)}." if strange else ""
    )
    if any(getattr(layer, "groups", 1) > 1 for _, layer in found):
        more += (
            " Of a convolution in groups, such as a depthwise one, the flattened kernel"
            " is not the operator: read its rows, not its directions."
        )
    return Section(
        "layers",
        "Best-k errors keep a tenth: zero is fully compressible, one not at all. The"
        " spread is one less the quotient of the last and the first of this tenth."
        " Kernels are flattened, one row a filter. Folded: with the normalisation that"
        " follows a layer as part of it. Balanced: with equal norms into and out of"
        " each hidden neuron. " + reasons + more,
        "A positive factor moved from one layer to the next changes raw weights and not"
        " the function; normalisation layers hide a factor a row. So compare networks"
        " by the folded or balanced columns where there are some. None of them ranks"
        " networks by robustness.",
        numbers,
        tables,
        [
            picture(
                fig,
                "Singular values of the first six layers.",
                "Falling curves, one a layer. " + _spectra_alt(shown),
            )
        ],
    )


def _measured(w: Tensor) -> dict[str, float] | None:
    """How compressible a layer's weight is; None if it is all zero."""
    w = w.detach().flatten(1)
    s, norms = metrics.singular_values(w), metrics.row_norms(w).double()
    if s[0] == 0:
        return None
    k = [max(1, round(0.1 * len(v))) for v in (s, norms)]
    measured = (
        float(s[0] / s.norm()),
        metrics.stable_rank(s),
        metrics.effective_rank(s) / len(s),
        metrics.best_k_error(s, k[0]),
        metrics.spread(s, k[0]),
        metrics.best_k_error(norms, k[1]),
        metrics.spread(norms, k[1]),
        float((norms <= 1e-6 * norms.max()).double().mean()),
    )
    return dict(zip(LAYER, measured, strict=True))


def _forms(model: Any) -> tuple[dict[str, dict[str, Tensor]], str]:
    """The weights of forms that no factor between layers moves, and why not."""
    found, reasons = {}, []
    for form, make in FORMS.items():
        try:
            found[form] = {n: v.weight for n, v in layers_of(make(model))[0]}
        except UNKNOWN as error:
            reasons.append(f"Not {form}: {_said(error)}")
    return found, " ".join(reasons)


FORMS: dict[str, Callable[[Any], Any]] = {
    "folded": metrics.folded,
    "balanced": metrics.balanced,
}
UNSEEN = (
    "no layer with weights is seen: give the network itself, not a function or script"
)
LAYER = (
    "σ₁ over Frobenius",
    "stable rank",
    "effective rank, share",
    "error, directions",
    "spread, directions",
    "error, rows",
    "spread, rows",
    "dead rows",
)
# What a factor between layers moves most, and the columns of the other forms.
MOVED = tuple(c for c in LAYER if c.startswith(("error", "spread")))


def _titles(forms: Iterable[str]) -> list[str]:
    return [f"{column}, {form}" for form, column in product(forms, MOVED)]


def attention(subject: Subject) -> Section:
    """Where attacks go."""
    norm = subject.norm
    near, right = subject.near(norm), subject.right & subject.near(norm).success
    x, y = (v[right] for v in subject.few)
    if len(x) < 2:
        raise LeftOut("hardly any input was fooled")
    source = subject.chance()
    noise = torch.randn(x.shape, generator=source, dtype=x.dtype).to(x)
    order = torch.randperm(len(x), generator=source).to(y.device)
    unlike = y != y[order]
    if not unlike.any():
        raise LeftOut("all inputs that were fooled have one label")
    steps = {
        "attack": near.x_adv[right] - x,
        "difference of two labels": (x[order] - x)[unlike],
        "noise": noise,
    }
    bases = {"attack": x, "difference of two labels": x[unlike], "noise": x}
    gains = {name: _gain(subject, bases[name], step) for name, step in steps.items()}
    if not gains["difference of two labels"] > 0:
        raise LeftOut("the first layer sees no difference between labels")
    ratio = gains["attack"] / gains["difference of two labels"]
    shares, chi, said = _shares(subject, steps)
    numbers: dict[str, Any] = {"gains": gains, "contrast": ratio, "shares": shares}
    lines = [
        {"step": name, "gain": number(g)}
        | {title: f"{share[name]:.3f}" for title, share in shares.items()}
        for name, g in gains.items()
    ]
    more = [["attack over difference, gain", number(ratio)]]
    if chi is not None:
        numbers["chi"] = chi
        more.append(["χ, the part of a difference that is seen", number(chi)])
    return Section(
        "attention",
        "The gain of a step is the length of what changes behind the first layer over"
        f" the length of the step: root mean squares, {NAMES[norm]} attacks. {said}",
        "A gain explains; it does not predict. The boundary lies behind all layers.",
        numbers,
        [
            Table("What the first layer does to a step", *rows(lines)),
            Table("Quotients", ["", ""], more),
        ],
        [_attention_picture(gains, shares)],
    )


def _shares(
    subject: Subject, steps: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, float]], float | None, str]:
    """Where the energy of steps lies, chi of differences, and sentences on both."""
    found, chi, said = {}, None, []
    seen, whole = _directions(subject)
    if seen is not None:
        top = seen[:, :TOP]
        title = f"energy in the top {top.shape[1]} directions"
        found[title] = {
            name: float(metrics.energy_share(step, top).nanmean())
            for name, step in steps.items()
        }
        rounds = "" if whole else f", after {ROUNDS} rounds of iteration"
        said.append(
            f"The top {top.shape[1]} directions are those that the first layer"
            f" stretches most{rounds}."
        )
        if whole and seen.shape[1] < len(seen):
            moved = steps["difference of two labels"]
            chi = float(metrics.energy_share(moved, seen).nanmean().sqrt())
            said.append(
                f"It has {seen.shape[1]} directions for {len(seen)} values: χ is the"
                " part of a difference of two inputs that lies in them, root mean"
                " square."
            )
    if subject.x.ndim == 4:
        found["energy below 1/8 cycle a pixel"] = {
            name: metrics.frequency_share(step) for name, step in steps.items()
        }
        said.append("Below an eighth of a cycle a pixel a step is coarse.")
    return found, chi, " ".join(said)


def _directions(subject: Subject) -> tuple[Tensor | None, bool]:
    """What the first layer stretches most, in columns, and whether that is all it sees.

    Of a small layer the whole row space, by its Jacobian at zero; else the first ten
    directions, by iteration; None where no such layer is seen at work.
    """
    model, like = subject.model, torch.zeros_like(subject.x[:1])
    source, some = subject.chance(), subject.batch_size

    def asked(z: Tensor) -> Tensor:
        return ask(model, z)

    try:
        with (
            evaluating(model),
            first_layer(asked) as first,
            torch.enable_grad(),
        ):
            zero = first(like.clone().requires_grad_())
            if not isinstance(zero, Tensor) or not zero.requires_grad:
                return None, False
            rest, h, m = zero.detach(), zero.numel(), like.numel()
            if h * m <= ENTRIES:
                slopes = []
                for part in torch.arange(h, device=like.device).split(some):
                    z = like.repeat(len(part), *(1,) * (like.ndim - 1))
                    out = first(z.requires_grad_()).flatten(1)
                    value = out.gather(1, part[:, None]).sum()
                    slopes.append(torch.autograd.grad(value, z)[0].flatten(1))
                _, s, v = torch.linalg.svd(torch.cat(slopes).double(), False)
                # Of a product of factors in float32 the rest is rounding.
                return (v[s > 1e-5 * s[0]].T if s[0] > 0 else None), True
            v = torch.randn(m, min(TOP, m), generator=source).to(like)
            for _ in range(ROUNDS):
                pulled = []
                tried = torch.linalg.qr(v)[0].T.reshape(-1, *like.shape[1:])
                for z in tried.split(some):
                    out = first(z.requires_grad_())
                    pulled.append(torch.autograd.grad(out, z, out.detach() - rest)[0])
                v = torch.cat(pulled).flatten(1).T
            return torch.linalg.qr(v.double())[0], False
    except UNKNOWN:
        return None, False


def _attention_picture(
    gains: Mapping[str, float], shares: Mapping[str, Mapping[str, float]]
) -> Picture:
    fig, axes = canvases(1 + len(shares), 2.3)
    for ax, (title, values) in zip(
        axes, {"gain": gains, **shares}.items(), strict=True
    ):
        bars(ax, values)
        ax.set_title("\n".join(wrap(title, 14)), fontsize=9)
    for ax in axes[1:]:
        ax.set(yticks=[], xlim=(0, 1.25))
    told = [
        f"{title}: " + ", ".join(f"{name} {v:.2g}" for name, v in values.items())
        for title, values in {"gain": gains, **shares}.items()
    ]
    alt = "Three bars a panel. " + "; ".join(told) + "."
    return picture(fig, "What the first layer makes of a step, and what is in it.", alt)


def universal(subject: Subject) -> Section:
    """One perturbation for all."""
    norms = [n for n in subject.eps if n in ("linf", "l2")]
    n = len(subject.few[0])
    if n < LEAST["universal"] or not norms:
        raise LeftOut(
            f"a search needs {LEAST['universal']} attacked inputs, and ℓ∞ or ℓ2"
        )
    lines, numbers = [], {}
    for norm in norms:
        eps = subject.eps[norm]
        found = attacks.universal(
            subject.model,
            *subject.few,
            eps=eps,
            norm=norm,
            batch_size=min(128, subject.batch_size),
            generator=subject.chance(),
        )
        rates = {"searched": found.fooling_rate}
        try:
            rates["top direction of the first layer"] = attacks.top_direction(
                subject.model,
                *subject.few,
                eps=eps,
                norm=norm,
                batch_size=subject.batch_size,
                generator=subject.chance(),
            ).fooling_rate
        except ValueError:
            pass  # hidden layers: the search is told without it
        rates["noise"] = _noise_rate(subject, norm, eps)
        numbers[norm] = {"budget": eps} | rates
        lines += [[NAMES[norm], number(eps), k, f"{v:.3f}"] for k, v in rates.items()]
    return Section(
        "universal",
        "The share of held-out inputs whose label one and the same step changes.",
        "A search that finds little says that this search found little.",
        numbers,
        [Table("Fooling rates", ["norm", "budget", "step", "fooling rate"], lines)],
        [
            _universal_picture(
                {f"{line[0]}, {line[2]}": float(line[3]) for line in lines}
            )
        ],
    )


def _universal_picture(rates: Mapping[str, float]) -> Picture:
    fig, ax = canvas(0.8 + 0.32 * len(rates))
    bars(ax, rates)
    ax.set(xlabel="share of held-out labels that it changes", xlim=(0, 1.12))
    told = ", ".join(f"{name} {v:.2f}" for name, v in rates.items())
    return picture(
        fig, "Fooling rates of one step for all.", f"One bar a step: {told}."
    )


USUAL: dict[str, Callable[[Any], Any]] = {
    "8 bits": lambda m: compress.quantise(m, bits=8),
    "6 bits": lambda m: compress.quantise(m, bits=6),
    "4 bits": lambda m: compress.quantise(m, bits=4),
    "truncated, energy 0.99": lambda m: compress.truncate(m, energy=0.99),
    "truncated, energy 0.95": lambda m: compress.truncate(m, energy=0.95),
    "truncated, energy 0.9": lambda m: compress.truncate(m, energy=0.9),
    "half of the weights": lambda m: compress.prune(m, 0.5),
    "a tenth of the weights": lambda m: compress.prune(m, 0.9),
    "rows, error 0.3": lambda m: compress.prune_to_error(m, 0.3),
}
AGAIN = "kept, re-centred"
# In which form a copy takes the fewest products.
STORED: dict[str, Callable[[Any, Any], Any]] = {
    f"truncated, energy {e}": lambda m, _, e=e: compress.factorise(m, energy=e)
    for e in (0.99, 0.95, 0.9)
} | {"rows, error 0.3": lambda _, small: compress.narrow(small)}


def compressed(subject: Subject) -> Section:
    """What compression would do."""
    if not layers_of(subject.model)[0]:
        raise LeftOut(UNSEEN)
    norm = subject.norm
    numbers, lines, refused = {}, [], []
    for name, squeeze in USUAL.items():
        try:
            small = squeeze(subject.model)
            numbers[name], ratio = _tried(subject, small, norm)
            size = _stored(subject, name, small)
            numbers[name] = {"multiply-adds": size and size.macs} | numbers[name]
            numbers[name] = {"not zero": size and size.nonzero} | numbers[name]
        except UNKNOWN as error:
            refused.append(f"{name}: {_said(error)}")
            continue
        told = {
            key: "–" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:.3f}"
            for key, v in numbers[name].items()
            if v is not None or key != AGAIN
        }
        told["distance ratio"] = "–" if ratio is None else number(ratio)
        lines.append({"compression": name, **told})
    if not lines:
        raise LeftOut(refused[0])
    columns, table = rows(lines)
    return Section(
        "compressed",
        "Each is tried on a copy, after training and without any more of it."
        " Multiply-adds count zeros too; what is truncated is stored in factors, and"
        " empty rows are left away, where this is known to take fewer. Accuracy"
        f" is of all inputs, the rest of those attacked. {_recentring(subject)} The"
        f" ratio is that of the {NAMES[norm]} estimates, over inputs that keep a right"
        " label and have both; the attacks are those at the budget"
        f" {number(subject.eps[norm])}. Both take {LEAST['medians']} inputs or more."
        + "".join(f" Not tried: {r}" for r in refused),
        "An operation after training is not training with that structure, which can"
        " cost much more of the distance.",
        numbers,
        [Table("Compressions", columns, table)],
        [_compressed_picture(numbers)],
    )


def _stored(subject: Subject, name: str, small: Any) -> compress.Size | None:
    """The size of a copy, in the form that takes the fewest products."""
    size = _size(small, subject.x)
    if size is not None and name in STORED:
        try:
            other = _size(STORED[name](subject.model, small), subject.x)
        except UNKNOWN:
            return size
        return other if other is not None and other.macs < size.macs else size
    return size


def _compressed_picture(numbers: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Shares of each compression, one row each."""
    fig, ax = canvas(1.2 + 0.3 * len(numbers))
    for i, (what, mark) in enumerate(SHARES.items()):
        held = [(v[what], k) for k, v in enumerate(numbers.values())]
        held = [(share, k) for share, k in held if share is not None]
        if held:
            look: dict[str, Any] = {
                "linestyle": "none",
                "marker": mark,
                "color": figures.COLOURS[i],
            }
            ax.plot(*zip(*held, strict=True), label=what, **look)
    ax.set_yticks(range(len(numbers)), labels=list(numbers))
    ax.set(xlabel="share", xlim=(-0.03, 1.03))
    ax.invert_yaxis()
    ax.grid(axis="y", linewidth=0.4)
    ax.figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    told = [f"{name}: {v['labels kept']:.2f}" for name, v in numbers.items()]
    alt = f"One row a compression. Labels kept: {', '.join(told)}."
    return picture(fig, "What each compression keeps.", alt)


# What is drawn of a compression, with its marker.
SHARES = {
    "accuracy": "o",
    "labels kept": "s",
    AGAIN: "^",
    "attacks that still work": "D",
}


def _recentring(subject: Subject) -> str:
    n = len(_unseen(subject))
    if n < LEAST["means"]:
        return (
            f"To re-centre the hidden layers takes {LEAST['means']} inputs or more that"
            f" are not attacked; here are {n}."
        )
    return (
        "Re-centring gives each hidden layer its old mean output, on the"
        f" {n} inputs that are not attacked, and leaves the head alone: its mean would"
        " say which classes these are."
    )


def _unseen(subject: Subject) -> Tensor:
    """The inputs that are not attacked."""
    return subject.x[len(subject.few[0]) :]


def _tried(
    subject: Subject, smaller: Any, norm: str
) -> tuple[dict[str, Any], Interval | None]:
    """What one compressed copy does, and the interval of its ratio of distances."""
    x, y = subject.few
    labels = subject.logits[: len(x)].argmax(1)
    told = subject.labels(smaller, subject.x)
    kept = told[: len(x)] == labels
    both = kept & subject.right
    each = []
    if both.sum() >= LEAST["medians"]:
        far = subject.estimate(smaller, norm, both)
        each = _ratio(far, subject.guess(norm)[both])
    ratio = median_interval(each) if len(each) >= LEAST["medians"] else None
    fooled = subject.worst(norm)
    moved = subject.labels(smaller, fooled.x_adv) != y
    still = moved[fooled.success & both]
    enough = len(still) >= LEAST["medians"]
    again, rest = None, _unseen(subject)
    if len(rest) >= LEAST["means"]:
        centred = compress.recentre(
            subject.model, smaller, rest, head=False, batch_size=subject.batch_size
        )
        again = float((subject.labels(centred) == labels).double().mean())
    numbers = {
        "accuracy": float((told == subject.y).double().mean()),
        "labels kept": float(kept.double().mean()),
        AGAIN: again,
        "distance ratio": None if ratio is None else ratio.mean,
        "attacks that still work": float(still.double().mean()) if enough else None,
    }
    return numbers, ratio


def against(subject: Subject) -> Section:
    """The network beside its baseline."""
    if subject.baseline is None:
        raise LeftOut("no baseline was given")
    other = subject.labels(subject.baseline, subject.x) == subject.y
    own = subject.logits.argmax(1) == subject.y
    gain = interval((own.double() - other.double()).tolist())
    lines = [["accuracy, difference", gain.format("+.3f")]]
    numbers: dict[str, Any] = {"accuracy difference": gain.mean}
    both = subject.right & other[: len(subject.right)]
    few, every = both.sum() < LEAST["medians"], {}
    for norm in () if few else subject.eps:
        far = subject.nearest(subject.baseline, norm).distance[both]
        every[norm] = _ratio(subject.near(norm).distance[both], far)
        told = median_interval(every[norm])
        numbers[f"{norm} ratio"] = told.mean
        lines.append([f"{NAMES[norm]} distance, ratio", number(told)])
    return Section(
        "against",
        "Paired: the same inputs, those that both label right for distances."
        + (
            f" Distances take {LEAST['medians']} of them; here are {int(both.sum())}."
            if few
            else ""
        ),
        "A ratio of attacks compares two upper bounds.",
        numbers,
        [Table("This network and its baseline", ["", "95 %"], lines)],
        _paired(every),
    )


def _paired(every: Mapping[str, list[float]]) -> list[Picture]:
    """The ratios of distances, input by input."""
    (fig, ax), told, reach = canvas(), [], 1.0
    for i, (norm, ratios) in enumerate(every.items()):
        drawn = sorted(r for r in ratios if 0 < r < math.inf)
        if not drawn:
            continue
        share = [(k + 1) / len(ratios) for k in range(len(drawn))]
        line = ("-", "--", ":")[i]
        look: dict[str, Any] = {
            "color": figures.COLOURS[i],
            "linestyle": line,
            "where": "post",
        }
        ax.step(drawn, share, label=NAMES[norm], **look)
        reach = max(reach, drawn[-1], 1 / drawn[0])
        more = sum(r > 1 for r in ratios) / len(ratios)
        told.append(
            f"in {NAMES[norm]} {100 * more:.0f} % of the inputs are farther off"
        )
    if not told:
        return []
    ax.axvline(1, color="k", linewidth=0.8)
    reach = min(1.2 * reach, 100)
    ax.set(xscale="log", xlim=(1 / reach, reach), ylim=(0, 1))
    ticks = [v for v in (0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 4, 10, 30, 100) if v < reach]
    ticks = [v for v in ticks if v > 1 / reach]
    ax.set_xticks(ticks, labels=[f"{v:g}" for v in ticks])
    ax.minorticks_off()
    ax.set(xlabel="distance over that of the baseline", ylabel="share of inputs up to")
    ax.legend()
    alt = f"Rising curves across a line at 1: {'; '.join(told)} than in the baseline."
    return [picture(fig, "Paired ratios of distances.", alt)]


def words(found: dict[str, Section]) -> Section:
    """The report in at most seven sentences, each with its number."""
    told = []
    if "card" in found:
        card = found["card"].numbers
        told.append(
            f"{100 * card['accuracy']:.1f} % of {card['inputs']} inputs are labelled"
            " right." + ("" if card["mixed"] else f" {SORTED}")
        )
    for norm, v in found["distances"].numbers.items() if "distances" in found else ():
        told.append(
            (
                f"Half of the inputs that it labels right lie within {v['median']:.3g}"
                f" of the boundary in {NAMES[norm]} (input units)"
                if math.isfinite(v["median"])
                else "Of half of the inputs that it labels right, or more, the boundary"
                f" was not found in {NAMES[norm]}"
            )
            + f"; at {v['budget']:.3g} {100 * v['robust accuracy']:.1f} % of all stand."
        )
    if "trust" in found:
        trusted = found["trust"].numbers
        failed, fine = trusted["failed"], trusted.get("below half a grey level", 0)
        told.append(
            (
                f"Checks of the attacks that fail: {', '.join(failed)}"
                if failed
                else "No check of the attacks fails"
            )
            + (
                f"; but {100 * fine:.0f} % of the ℓ∞ distances are below half a grey"
                " level, which an image of 8 bits does not hold."
                if fine > GREY
                else "."
            )
        )
    if "attention" in found:
        told.append(
            "The first layer stretches an attack"
            f" {found['attention'].numbers['contrast']:.2g} times as much as a"
            " difference of two labels."
        )
    if "universal" in found:
        norm, v = next(iter(found["universal"].numbers.items()))
        told.append(
            f"One perturbation of {NAMES[norm]} size {v['budget']:.3g} changes"
            f" {100 * v['searched']:.0f} % of the labels, noise of that size"
            f" {100 * v['noise']:.0f} %."
        )
    if "compressed" in found:
        kept = found["compressed"].numbers
        name = min(kept, key=lambda n: kept[n]["labels kept"])
        told.append(
            f"Of the compressions tried, \u201c{name}\u201d changes most:"
            f" {100 * kept[name]['labels kept']:.0f} % of the labels stay."
        )
    return Section("words", "\n".join(told[:7]))


class LeftOut(Exception):
    """A section that cannot be had of this subject; the message says why."""


def _size(model: Any, x: Tensor) -> compress.Size | None:
    try:
        return compress.size(model, tuple(x.shape[1:]))
    except UNKNOWN:
        return None


def _median(v: Tensor) -> float:
    """The median of the numbers that are known, as :func:`median_interval` has it."""
    known = v[~v.isnan()].cpu().double().numpy()
    return float(np.median(known)) if len(known) else math.nan


def _ratio(a: Tensor, b: Tensor) -> list[float]:
    """Ratios of distances that are known: 1 if both are infinite, or both zero."""
    each = torch.where(a == b, 1.0, a / b)
    return each[~each.isnan()].tolist()


def _said(error: Exception) -> str:
    """The first line of what an error says, or its kind."""
    return next(iter(str(error).splitlines()), repr(error))


def _certificate(subject: Subject, norm: str) -> float | None:
    """The median radius that the product of operator norms certifies, if it does."""
    x, y = (v[subject.right] for v in subject.few)
    try:
        radius = certify.lipschitz_radius(
            subject.model, x, y, norm=norm, batch_size=subject.batch_size
        )
    except UNKNOWN:
        return None
    return _median(radius)


def _gain(subject: Subject, x: Tensor, step: Tensor) -> float:
    """Root mean square of the step behind the first layer over that of the step."""
    with (
        torch.no_grad(),
        evaluating(subject.model),
        first_layer(subject.model) as first,
    ):
        moved = []
        for a, d in zip(
            x.split(subject.batch_size), step.split(subject.batch_size), strict=True
        ):
            before, after = first(a), first(a + d)
            if not isinstance(before, Tensor):
                raise LeftOut("the first layer is not seen at work")
            moved.append((after - before).flatten(1).norm(dim=1))
    lengths = step.flatten(1).norm(dim=1)
    return float((torch.cat(moved).square().mean() / lengths.square().mean()).sqrt())


def _noise_rate(subject: Subject, norm: str, eps: float) -> float:
    """Share of labels that one random step of the budget changes, mean of ten."""
    x, _ = subject.few
    source, told = subject.chance(), subject.logits[: len(x)].argmax(1)
    rates = []
    for _ in range(10):
        v = torch.randn(x.shape[1:], generator=source, dtype=x.dtype).to(x)
        v = eps * (v.sign() if norm == "linf" else v / v.norm())
        now = subject.labels(subject.model, (x + v).clamp(0, 1))
        rates.append(float((now != told).double().mean()))
    return float(np.mean(rates))


def _spectra_alt(spectra: dict[str, Tensor]) -> str:
    told = []
    for name, s in list(spectra.items())[:6]:
        k = min(10, len(s))
        told.append(f"{name}: value {k} of {len(s)} is {float(s[k - 1] / s[0]):.2g}")
    return "; ".join(told) + " of the largest."


SECTIONS: dict[str, Callable[[Subject], Section]] = {
    "card": card,
    "distances": distances,
    "trust": trust,
    "layers": layers,
    "attention": attention,
    "universal": universal,
    "compressed": compressed,
    "against": against,
}
