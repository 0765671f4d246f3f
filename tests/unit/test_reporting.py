"""One call, one report: its numbers, its file, what it refuses, how it goes on."""

import copy
import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import crlib
from crlib import __main__ as command
from crlib import (
    attacks,
    checks,
    compress,
    data,
    metrics,
    models,
    reporting,
    theory,
    train,
)
from crlib.reporting import loading, sections, subject
from tests.unit.support import Counting, rng

DEPENDS = ("crlib",)
EPS = {"linf": 0.05, "l2": 0.5}
OPTIONS: dict[str, Any] = {"eps": EPS, "attacked": 60, "progress": False}


@cache
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    images = data.fashion_mnist_sample()
    few = replace(images, x_train=images.x_train[:1500], y_train=images.y_train[:1500])
    net = models.MLP((784, 32, 32, 10), mean=0.286, std=0.353)
    model = train.fit(net, few, epochs=3, lr=3e-3, progress=False).model
    return model, images.x_test[:150], images.y_test[:150]


@cache
def whole() -> reporting.Report:
    return crlib.report(*trained(), **OPTIONS)


def test_its_numbers_are_those_of_separate_calls() -> None:
    model, x, y = trained()
    found = whole().numbers
    assert found["card"]["accuracy"] == pytest.approx(metrics.accuracy(model, x, y))
    assert found["card"]["parameters"] == compress.size(model, (1, 28, 28)).parameters
    few, labels = x[:60], y[:60]
    right = model(few).argmax(1) == labels
    for norm, eps in EPS.items():
        near = attacks.fmn(model, few, labels, norm=norm)
        told = found["distances"][norm]
        assert told["median"] == pytest.approx(
            float(np.median(near.distance[right])), rel=1e-6
        )
        worst = attacks.worst_case(
            model, few, labels, eps=eps, norm=norm, budget="quick"
        )
        assert told["robust accuracy"] == worst.robust_accuracy
        assert told["median low"] <= told["median"] <= told["median high"]
        assert told["certified"] <= told["median"]
        estimate = metrics.first_order(model, few, labels, norm=norm)[right]
        assert told["estimate"] == pytest.approx(float(np.median(estimate)))
        one = attacks.universal(model, few, labels, eps=eps, norm=norm)
        assert found["universal"][norm]["searched"] == one.fooling_rate
    w = model.layers[0].weight
    s = metrics.singular_values(w)
    assert found["layers"]["layers.0"]["error, directions"] == pytest.approx(
        metrics.best_k_error(s, round(0.1 * len(s)))
    )
    smaller = compress.prune(model, 0.9)
    assert found["compressed"]["a tenth of the weights"]["accuracy"] == pytest.approx(
        metrics.accuracy(smaller, x, y)
    )


def test_damage_is_a_baseline_beside_the_attack() -> None:
    model, x, y = trained()
    told = whole().numbers["trust"]["damaged"]
    few, labels = x[:60], y[:60]
    damaged = {"as they are": few, **data.corruptions(few, severity=3)}
    assert told == {k: metrics.accuracy(model, v, labels) for k, v in damaged.items()}
    rows = {row[0]: row[1] for row in whole().sections["trust"].tables[1].rows}
    worst = whole().numbers["distances"]["linf"]["robust accuracy"]
    assert rows["attack, ℓ∞"].startswith(f"{worst:.3f}")
    vectors = crlib.report(model, x.flatten(1), y, **OPTIONS | {"eps": {"l2": 0.5}})
    assert "damaged" not in vectors.numbers["trust"]


def columns(found: reporting.Report, layer: str) -> dict[str, str]:
    cells: dict[str, str] = {}
    for table in found.sections["layers"].tables:
        (row,) = (r for r in table.rows if r[0] == layer)
        cells |= zip(table.columns, row, strict=True)
    return cells


def test_the_layers_stand_in_forms_that_no_factor_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    only = {"layers": sections.layers}
    monkeypatch.setattr(sections, "SECTIONS", only)
    raw, even = model.layers[0].weight, metrics.balanced(model).layers[0].weight
    told = crlib.report(model, x, y, **OPTIONS)
    numbers = told.numbers["layers"]["layers.0"]
    for form, w in (("folded", raw), ("balanced", even)):
        norms, s = metrics.row_norms(w), metrics.singular_values(w)
        error = metrics.best_k_error(norms, 3)
        assert numbers[form]["error, rows"] == pytest.approx(error)
        assert numbers[form]["error, directions"] == pytest.approx(
            metrics.best_k_error(s, 3)
        )
        assert columns(told, "layers.0")[f"error, rows, {form}"] == f"{error:.3f}"
        spread = metrics.spread(norms, 3)
        assert numbers[form]["spread, rows"] == pytest.approx(spread)
        assert columns(told, "layers.0")[f"spread, rows, {form}"] == f"{spread:.3f}"
        assert numbers[form]["spread, directions"] == pytest.approx(
            metrics.spread(s, 3)
        )
        assert numbers[form]["stable rank"] == pytest.approx(metrics.stable_rank(s))
    # Neurons written larger and smaller: the same function, other raw rows.
    scaled = copy.deepcopy(model)
    c = torch.logspace(-1, 1, 32)
    scaled.layers[0].weight.data *= c[:, None]
    scaled.layers[1].weight.data /= c
    moved = crlib.report(scaled, x, y, **OPTIONS).numbers["layers"]["layers.0"]
    assert moved["error, rows"] < 0.8 * numbers["error, rows"]
    assert moved["balanced"] == pytest.approx(numbers["balanced"], rel=1e-4)


def test_a_normalisation_is_folded_and_nothing_else_balanced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    monkeypatch.setattr(sections, "SECTIONS", {"layers": sections.layers})
    norm = nn.BatchNorm1d(32)
    norm.running_var[:] = torch.logspace(-2, 2, 32)
    norm.weight.data = (norm.running_var + norm.eps).sqrt()
    one, two, head = model.layers
    stack = [model.normalize, nn.Flatten(), one, norm, nn.ReLU(), two, nn.ReLU(), head]
    net = nn.Sequential(*stack)
    one.weight.data, kept = one.weight.data.clone(), one.weight.data
    found = crlib.report(net, x, y, **OPTIONS)
    numbers = found.numbers["layers"]["2"]
    # Its factors undo each other: folded is what the raw one was.
    assert numbers["folded"]["error, rows"] == pytest.approx(numbers["error, rows"])
    norm.weight.data[:] = 1.0
    one.weight.data = kept * (norm.running_var + norm.eps).sqrt()[:, None]
    hidden = crlib.report(net, x, y, **OPTIONS)
    one.weight.data = kept
    assert hidden.numbers["layers"]["2"]["error, rows"] < 0.8 * numbers["error, rows"]
    assert hidden.numbers["layers"]["2"]["folded"] == pytest.approx(
        numbers["folded"], rel=1e-4
    )
    # A form that cannot be had of this network has a reason, and no empty columns.
    assert "error, rows, folded" in columns(hidden, "2")
    assert "error, rows, balanced" not in columns(hidden, "2")
    assert "Not balanced: Only a models.MLP" in hidden.sections["layers"].text


def test_no_pass_holds_more_inputs_than_the_batch_size() -> None:
    model, x, y = trained()
    seen = Counting(model)
    options = OPTIONS | {"eps": {"l2": 0.5}, "batch_size": 16}
    found = crlib.report(seen, x, y, **options)
    assert set(found.left_out) == {"against"}
    assert max(seen.forwards) == 16 and max(seen.backwards) == 16
    # What the batches are changes no distance.
    one, other = (r.numbers["distances"]["l2"] for r in (found, whole()))
    assert one["median"] == pytest.approx(other["median"], rel=1e-4)
    assert one["robust accuracy"] == pytest.approx(other["robust accuracy"], abs=0.02)


def test_large_activations_make_the_batches_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    assert subject._fitting([model, None], x) == subject.MOST
    # A rectifier keeps what it gives: four bytes of each of 784 values.
    wide = nn.Sequential(nn.ReLU(), model)
    room = 20 * 4 * 784 / 1e9
    monkeypatch.setitem(subject.MEMORY, "cpu", room)
    few = subject._fitting([wide], x)
    assert 10 < few < subject._fitting([model], x) and few < 20
    assert subject._fitting([model, wide], x) == few
    # Who says a limit is taken at his word.
    assert few < subject._fitting([wide], x, 2 * room) <= 2 * few + 1
    # What cannot be asked is refused later, in words.
    assert subject._fitting([lambda z: z.view(8, -1)], x) == subject.MOST
    monkeypatch.setattr(sections, "SECTIONS", {"distances": sections.distances})
    seen = Counting(wide)
    options = OPTIONS | {"eps": {"l2": 0.5}}
    found = crlib.report(seen, x, y, **options).numbers["distances"]["l2"]
    assert max(seen.forwards) == few
    whole_batches = crlib.report(wide, x, y, batch_size=60, **options)
    assert found["median"] == pytest.approx(
        whole_batches.numbers["distances"]["l2"]["median"], rel=1e-4
    )


def test_a_network_that_needs_more_memory_than_the_limit_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    wide = nn.Sequential(nn.ReLU(), model)
    for section in sections.SECTIONS:
        monkeypatch.setitem(sections.SECTIONS, section, lambda _: pytest.fail("work"))
    one = 4 * 784 / 1e9
    for options in ({"limit": 0.9 * one}, {"limit": 0.9 * one, "batch_size": 4}):
        with pytest.raises(ValueError, match=r"e-06 GB are allowed.*limit=1;"):
            crlib.report(wide, x, y, **OPTIONS | options)
    # The baseline counts, too; and so does what is allowed where nobody says it.
    with pytest.raises(ValueError, match="GB are allowed"):
        crlib.report(model, x, y, baseline=wide, limit=0.9 * one, **OPTIONS)
    monkeypatch.setitem(subject.MEMORY, "cpu", 0.9 * one)
    with pytest.raises(ValueError, match="GB are allowed"):
        crlib.report(wide, x, y, **OPTIONS)
    for limit in (0, -1.0, math.nan, math.inf, "4"):
        with pytest.raises(ValueError, match="give gigabytes, such as 4"):
            crlib.report(model, x, y, limit=limit, **OPTIONS)


def test_a_limit_makes_the_batches_smaller_that_somebody_chose() -> None:
    model, x, y = trained()
    wide = nn.Sequential(nn.ReLU(), model)
    one = 4 * 784 / 1e9
    for limit, most in ((4.5 * one, 4), (100.0, 8)):
        found = reporting.admitted(
            wide, x, y, limit=limit, **SUBJECT | {"batch_size": 8}
        )
        assert found.batch_size <= most
    assert found.batch_size == 8


class Precise(nn.Module):
    """Notes in which precision its first layer answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, list[Any]()
        self.hook = model.layers[0].register_forward_hook(self.note)

    def note(self, layer: nn.Module, inputs: Any, out: Tensor) -> None:
        self.seen.append((out.dtype, torch.is_grad_enabled()))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model(x)
        return found


def test_in_bfloat16_the_numbers_are_those_of_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    some = {name: sections.SECTIONS[name] for name in ("card", "distances", "against")}
    monkeypatch.setattr(sections, "SECTIONS", some)
    seen = Precise(copy.deepcopy(model))
    half = compress.prune(model, 0.5)
    options: dict[str, Any] = OPTIONS | {"baseline": half}
    found = crlib.report(seen, x, y, autocast=torch.bfloat16, **options)
    full = crlib.report(model, x, y, **options)
    # The attacks climb in low precision, and full precision has the last word.
    steps = [dtype for dtype, climbs in seen.seen if climbs]
    assert steps.count(torch.bfloat16) > 0.7 * len(steps) > 50
    assert (torch.float32, False) in seen.seen
    for norm in EPS:
        low, high = (r.numbers["distances"][norm] for r in (found, full))
        assert low["median"] == pytest.approx(high["median"], rel=0.03)
        assert low["median"] != high["median"]
        assert low["robust accuracy"] == pytest.approx(
            high["robust accuracy"], abs=0.04
        )
        # No attack is in them: the same number.
        assert low["estimate"] == pytest.approx(high["estimate"], rel=1e-5)
        ratios = [r.numbers["against"][f"{norm} ratio"] for r in (found, full)]
        assert ratios[0] == pytest.approx(ratios[1], rel=0.03)
    rows = dict(found.sections["card"].tables[0].rows)
    assert rows["precision in which attacks ask"].startswith("bfloat16; what")
    # It is another report, which takes no section of the other.
    one, other = (
        reporting.admitted(model, x, y, autocast=dtype, **SUBJECT).fingerprint
        for dtype in (None, torch.bfloat16)
    )
    assert one != other
    with pytest.raises(ValueError, match="give torch.bfloat16"):
        crlib.report(model, x, y, autocast=torch.int8, **OPTIONS)


def test_what_low_precision_finds_fools_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    judged = reporting.admitted(model, x, y, autocast=torch.bfloat16, **SUBJECT)
    for norm in EPS:
        for found in (judged.near(norm), judged.worst(norm)):
            fooled = model(found.x_adv).argmax(1) != y[:60]
            assert fooled[found.success].all()


def test_inputs_that_are_sorted_by_label_are_told_from_mixed_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    monkeypatch.setattr(sections, "SECTIONS", {"card": sections.card})
    order = y.argsort()
    found = crlib.report(model, x[order], y[order], **OPTIONS)
    assert "shuffle x and y together" in found.sections["words"].text
    assert "shuffle x and y together" in found.sections["card"].text
    (attacked,) = (
        r for r in found.sections["card"].tables[0].rows if r[0] == "attacked"
    )
    assert attacked[1] == f"the first 60, with {len(y[order][:60].unique())} labels"
    for k in range(20):
        order = torch.randperm(len(y), generator=rng(k))
        mixed = crlib.report(model, x[order], y[order], **OPTIONS | {"attacked": 40})
        assert "shuffle" not in mixed.sections["words"].text


def test_the_means_of_hidden_layers_come_from_inputs_that_do_not_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    monkeypatch.setattr(sections, "SECTIONS", {"compressed": sections.compressed})
    options = OPTIONS | {"eps": {"l2": 0.5}}
    small = compress.prune(model, 0.9)
    again = compress.recentre(model, small, x[60:], head=False)
    kept = (again(x[:60]).argmax(1) == model(x[:60]).argmax(1)).double().mean()
    section = crlib.report(model, x, y, **options).sections["compressed"]
    told = section.numbers["a tenth of the weights"]
    assert told["kept, re-centred"] == float(kept)
    assert "on the 90 inputs that are not attacked" in section.text
    assert "kept, re-centred" in section.tables[0].columns
    # Nineteen inputs are too few: no column, and a reason.
    few = crlib.report(model, x[:79], y[:79], **options).sections["compressed"]
    assert "here are 19" in few.text
    assert "kept, re-centred" not in few.tables[0].columns
    assert few.numbers["a tenth of the weights"]["kept, re-centred"] is None


def test_a_compression_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = trained()

    def refused(_: Any) -> Any:
        raise ValueError("no such layer.")

    usual = {"8 bits": sections.USUAL["8 bits"], "folding": refused}
    monkeypatch.setattr(sections, "USUAL", usual)
    monkeypatch.setattr(sections, "SECTIONS", {"compressed": sections.compressed})
    section = crlib.report(model, x, y, **OPTIONS).sections["compressed"]
    assert section.text.endswith("Not tried: folding: no such layer.")
    assert len(section.tables[0].rows) == 1


def test_a_share_of_a_handful_of_inputs_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()

    def one_label(_: Any) -> Any:
        found = copy.deepcopy(model)
        found.layers[-1].weight.data.zero_()
        return found

    monkeypatch.setattr(sections, "USUAL", {"one label": one_label})
    monkeypatch.setattr(sections, "SECTIONS", {"compressed": sections.compressed})
    section = crlib.report(model, x, y, **OPTIONS).sections["compressed"]
    told = section.numbers["one label"]
    assert 0 < told["labels kept"] < 20 / 60
    assert told["attacks that still work"] is told["distance ratio"] is None
    assert section.tables[0].rows[0][-2:] == ["–", "–"]


def test_a_kernel_in_groups_is_told_from_an_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    monkeypatch.setattr(sections, "SECTIONS", {"layers": sections.layers})
    stack = [nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 3, 1, 1, 1, 2, False)]
    nn.init.ones_(stack[0].weight)
    nn.init.dirac_(stack[1].weight, groups=2)
    mean = nn.Conv2d(2, 1, 1, bias=False)
    nn.init.constant_(mean.weight, 0.5)
    for net, told in ((nn.Sequential(*stack, mean, model), True), (model, False)):
        text = crlib.report(net, x, y, **OPTIONS).sections["layers"].text
        assert ("the flattened kernel is not the operator" in text) is told


@pytest.mark.parametrize(("share", "told"), [(0.1, False), (0.4, True)])
def test_the_words_say_that_distances_are_finer_than_an_image(
    share: float, told: bool
) -> None:
    numbers = {"failed": [], "below half a grey level": share}
    trusted = sections.Section("trust", "", "", numbers, [])
    sentence = sections.words({"trust": trusted}).text
    assert sentence.startswith("No check of the attacks fails")
    assert ("40 % of the ℓ∞ distances" in sentence) is told


def test_that_a_network_was_left_in_training_is_no_fault_of_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    net = nn.Sequential(model, nn.Dropout(0.5)).train()
    monkeypatch.setattr(sections, "SECTIONS", {"trust": sections.trust})
    found = crlib.report(net, x, y, **OPTIONS | {"eps": {"l2": 0.5}})
    assert "evaluation mode" not in found.numbers["trust"]["failed"]
    assert net[1].training


def test_three_hundred_thousand_weights_take_less_than_a_minute_of_one_core(
    tmp_path: Path,
) -> None:
    images = data.fashion_mnist_sample()
    x, y = images.x_test[:500], images.y_test[:500]
    few = replace(images, x_train=images.x_train[:1500], y_train=images.y_train[:1500])
    net = models.MLP((784, 256, 256, 256, 10), mean=0.286, std=0.353)
    net = train.fit(net, few, epochs=1, progress=False).model
    assert compress.size(net, (1, 28, 28)).parameters > 300_000
    start = time.process_time()
    found = crlib.report(net, x, y, progress=False)
    assert time.process_time() - start < 60
    assert set(found.left_out) == {"against"}
    assert found.html(tmp_path / "r.html").stat().st_size < 3e6


def test_a_gain_is_that_of_the_first_layer() -> None:
    model, x, y = trained()
    gains = whole().numbers["attention"]["gains"]
    near = attacks.fmn(model, x[:60], y[:60], norm="l2")
    right = (model(x[:60]).argmax(1) == y[:60]) & near.success
    step = (near.x_adv - x[:60])[right].flatten(1)
    moved = step @ (model.layers[0].weight.detach().T / 0.353)
    assert gains["attack"] == pytest.approx(
        float((moved.square().sum() / step.square().sum()).sqrt()), rel=1e-3
    )
    assert gains["attack"] > gains["difference of two labels"] > gains["noise"]


def test_the_shares_of_a_step_are_those_of_the_first_layer() -> None:
    model, x, y = trained()
    numbers = whole().numbers["attention"]
    w = model.layers[0].weight.detach()
    near = attacks.fmn(model, x[:60], y[:60], norm="l2")
    right = (model(x[:60]).argmax(1) == y[:60]) & near.success
    step = (near.x_adv - x[:60])[right]
    _, _, v = torch.linalg.svd(w.double(), full_matrices=False)
    told = numbers["shares"]["energy in the top 10 directions"]
    share = metrics.energy_share(step, v[:10].T).mean()
    assert told["attack"] == pytest.approx(float(share), rel=1e-4)
    assert told["noise"] < 0.1 < told["attack"]
    coarse = numbers["shares"]["energy below 1/8 cycle a pixel"]
    assert coarse["attack"] == pytest.approx(metrics.frequency_share(step), rel=1e-5)
    assert coarse["difference of two labels"] > coarse["attack"] > coarse["noise"]
    # Of 784 values the layer sees 32 directions.
    assert 0.2 < numbers["chi"] < 1
    assert "32 directions for 784 values" in whole().sections["attention"].text
    table = whole().sections["attention"].tables[1]
    assert table.rows[1][1] == f"{numbers['chi']:.3g}"


def test_chi_is_the_surviving_fraction_and_knows_a_low_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    low = copy.deepcopy(model)
    low.layers[0] = models.LowRankLinear(784, 32, 4)
    left, right = low.layers[0].left, low.layers[0].right
    _, s, v = torch.linalg.svd(model.layers[0].weight.detach(), full_matrices=False)
    right.data, left.data = v[:4], model.layers[0].weight.detach() @ v[:4].T
    asked = reporting.admitted(low, x, low(x).argmax(1), **SUBJECT)
    seen, known = sections._directions(asked)
    assert known and seen is not None and seen.shape == (784, 4)
    steps = {"difference of two labels": x[1:] - x[:-1]}
    _, chi, said = sections._shares(asked, steps)
    fraction = theory.surviving_fraction(right.detach(), (x[1:] - x[:-1]).flatten(1))
    assert chi == pytest.approx(float(fraction.square().mean().sqrt()), rel=1e-5)
    assert "4 directions for 784 values" in said
    # A layer that sees all has no chi; one that nobody sees, no directions.
    square = nn.Sequential(nn.Flatten(), nn.Linear(784, 784), nn.Linear(784, 10))
    nn.init.eye_(square[1].weight)
    told = reporting.admitted(square, x, square(x).argmax(1), **SUBJECT)
    assert sections._shares(told, steps)[1] is None
    hidden = torch.jit.trace(model, x[:2])
    told = reporting.admitted(hidden, x, y, **SUBJECT)
    assert sections._directions(told) == (None, False)


def test_the_directions_of_a_large_layer_are_found_by_iteration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()
    asked = reporting.admitted(model, x, y, **SUBJECT | {"batch_size": 7})
    exact, known = sections._directions(asked)
    assert known and exact is not None
    monkeypatch.setattr(sections, "ENTRIES", 100)
    found, known = sections._directions(asked)
    assert found is not None and not known and found.shape == (784, 10)
    # The first ones are met; of the last ones the iteration takes near ones.
    assert (metrics.energy_share(exact[:, :3].T, found) > 0.99).all()
    text = sections._shares(asked, {"difference of two labels": x[1:] - x[:-1]})[2]
    assert "after 20 rounds of iteration" in text and "χ" not in text


def test_every_section_draws_its_numbers() -> None:
    model, x, y = trained()
    half = compress.prune(model, 0.5)
    found = crlib.report(model, x, y, baseline=half, **OPTIONS)
    for name, section in found.sections.items():
        assert len(section.pictures) == (name != "words"), name
        for one in section.pictures:
            assert 30 < len(one.alt) < 600 and re.search(r"\d", one.alt), name
            assert one.caption not in one.alt and one.svg.startswith("<svg")
    alt = {name: s.pictures[0].alt for name, s in found.sections.items() if s.pictures}
    numbers = found.numbers
    rate = numbers["universal"]["linf"]["searched"]
    assert f"ℓ∞, searched {rate:.2f}" in alt["universal"]
    kept = numbers["compressed"]["4 bits"]["labels kept"]
    assert f"4 bits: {kept:.2f}" in alt["compressed"]
    assert f"attack {numbers['attention']['gains']['attack']:.2g}" in alt["attention"]


def test_labels_that_are_too_many_are_not_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sections, "SECTIONS", {"card": sections.card})
    assert crlib.report(*trained(), **OPTIONS).sections["card"].pictures
    monkeypatch.setattr(sections, "LABELS", 9)
    assert not crlib.report(*trained(), **OPTIONS).sections["card"].pictures


def test_pictures_of_what_is_not_to_be_drawn() -> None:
    never = torch.full((5,), torch.inf)
    assert not sections._agreement(never, torch.ones(5), "l2")
    assert not sections._agreement(torch.ones(5), torch.zeros(5), "l2")
    (one,) = sections._agreement(torch.ones(5), torch.tensor([1.0, 1, 9, 1, 2]), "l2")
    assert "60 % lie between" in one.alt and "2 lie to the right" in one.alt
    assert not sections._paired({"l2": [0.0, math.inf]}) and not sections._paired({})
    (one,) = sections._paired({"l2": [0.5, 2.0, math.inf, 3.0]})
    assert "in ℓ2 75 % of the inputs are farther off" in one.alt


def test_the_card_tells_the_seconds() -> None:
    rows = dict(whole().sections["card"].tables[-1].rows)
    seconds = {n: s.seconds for n, s in whole().sections.items() if n != "words"}
    assert len(rows) == len(seconds) + 1
    assert rows["Where attacks go"] == f"{seconds['attention']:.1f}"
    assert float(rows["together"]) == pytest.approx(sum(seconds.values()), abs=0.06)
    assert "together" in str(whole())


def test_multiply_adds_are_those_of_the_smaller_form() -> None:
    model, x, _ = trained()
    told = whole().numbers["compressed"]
    dense = compress.size(model, (1, 28, 28)).macs
    assert told["8 bits"]["multiply-adds"] == dense
    assert told["a tenth of the weights"]["multiply-adds"] == dense
    thin = compress.size(compress.factorise(model, energy=0.9), (1, 28, 28))
    assert told["truncated, energy 0.9"]["multiply-adds"] == min(thin.macs, dense)
    assert told["truncated, energy 0.9"]["multiply-adds"] < dense
    rows = compress.narrow(compress.prune_to_error(model, 0.3))
    assert told["rows, error 0.3"]["multiply-adds"] == compress.size(rows, (784,)).macs
    # What has no smaller form is counted as it is.
    judged = reporting.admitted(*trained(), **SUBJECT)
    size = sections._stored(judged, "rows, error 0.3", nn.Sequential(model))
    assert size is not None and size.macs == dense


def test_every_section_is_there_but_the_baseline() -> None:
    found = whole()
    assert set(found.left_out) == {"against"}
    assert set(found.sections) == {"words", *sections.SECTIONS} - {"against"}
    # The first sentences stand at the top, and each section warns of its misuse.
    assert list(found.sections)[0] == "words"
    assert all(s.caution for n, s in found.sections.items() if n != "words")
    text = str(found)
    assert "Can the numbers be trusted?" in text and "Left out" in text
    assert 4 < len(found.sections["words"].text.split("\n")) <= 7


class Reader(HTMLParser):
    """Notes the tags of a page, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    file = whole().html(tmp_path / "report.html")
    page = file.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert not reader.open and file.stat().st_size < 3e6
    tags = [tag for tag, _ in reader.seen]
    assert not {"script", "link", "img", "iframe"} & set(tags)
    for _, attributes in reader.seen:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "url(http" not in page
    pictures = [a for tag, a in reader.seen if tag == "figure"]
    assert len(pictures) == tags.count("svg") > 1
    for one in pictures:
        assert one["role"] == "img" and re.search(r"\d", one["aria-label"] or "")
    assert tags.count("h1") == 1 and "caption" in tags
    assert "<main>" in crlib.reporting.page.page("a < b", [], {"card": "<x>"})
    assert "<x>" not in crlib.reporting.page.page("a", [], {"card": "<x>"})


def test_the_same_call_gives_the_same_files(tmp_path: Path) -> None:
    again = crlib.report(*trained(), **OPTIONS)
    one, two = (
        re.sub(
            "<caption>Seconds.*?</table>",
            "",
            r.html(tmp_path / f"{k}.html").read_text(encoding="utf-8"),
        )
        for k, r in enumerate((whole(), again))
    )
    assert one == two
    told = json.loads(whole().json(tmp_path / "r.json").read_text())
    assert told["numbers"]["card"] == whole().numbers["card"]
    assert set(told["seconds"]) == set(whole().sections)


def test_it_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: Any) -> Any:
        raise KeyboardInterrupt

    kept = tmp_path / "kept.json"
    with monkeypatch.context() as patch:
        patch.setitem(sections.SECTIONS, "layers", stop)
        part = crlib.report(*trained(), resume=kept, **OPTIONS)
    assert set(part.sections) == {"words", "card", "distances", "trust"}
    assert part.left_out["layers"] == "stopped before it"
    with monkeypatch.context() as patch:
        patch.setitem(sections.SECTIONS, "distances", stop)
        rest = crlib.report(*trained(), resume=kept, **OPTIONS)
    assert rest.numbers == whole().numbers and set(rest.left_out) == {"against"}
    # Another option is another report: nothing kept is used.
    with monkeypatch.context() as patch:
        patch.setitem(sections.SECTIONS, "card", stop)
        other = crlib.report(*trained(), resume=kept, **OPTIONS | {"seed": 1})
    assert set(other.sections) == {"words"}
    # So is what an older crlib kept, whose sections lack a number.
    old = json.loads(kept.read_text()) | {"format": reporting.FORMAT - 1}
    kept.write_text(json.dumps(old))
    with monkeypatch.context() as patch:
        patch.setitem(sections.SECTIONS, "card", stop)
        other = crlib.report(*trained(), resume=kept, **OPTIONS | {"seed": 1})
    assert set(other.sections) == {"words"}
    kept.write_text("{}")
    with pytest.raises(ValueError, match="name another"):
        crlib.report(*trained(), resume=kept, **OPTIONS)


def test_the_fingerprint_sees_a_weight_an_input_and_a_label() -> None:
    model, x, y = trained()
    prints = {whole().fingerprint}
    other = compress.prune(model, 0.01)
    bent, wrong = x.clone(), y.clone()
    bent[0, 0, 0, 0] += 0.5
    wrong[0] = (wrong[0] + 1) % 10
    for args in ((other, x, y), (model, bent, y), (model, x, wrong)):
        prints.add(reporting.admitted(*args, **SUBJECT).fingerprint)
    assert len(prints) == 4


SUBJECT: dict[str, Any] = {
    "eps": EPS,
    "attacked": 60,
    "budget": "quick",
    "seed": 0,
    "batch_size": 128,
}


def test_a_baseline_is_compared_input_by_input() -> None:
    model, x, y = trained()
    half = compress.prune(model, 0.5)
    found = crlib.report(half, x, y, baseline=model, **OPTIONS | {"eps": {"l2": 0.5}})
    numbers = found.numbers["against"]
    assert numbers["accuracy difference"] == pytest.approx(
        metrics.accuracy(half, x, y) - metrics.accuracy(model, x, y)
    )
    few, labels = x[:60], y[:60]
    both = (model(few).argmax(1) == labels) & (half(few).argmax(1) == labels)
    ratio = (
        attacks.fmn(half, few, labels).distance
        / attacks.fmn(model, few, labels).distance
    )[both]
    assert numbers["l2 ratio"] == pytest.approx(float(np.median(ratio)), rel=1e-5)
    assert not found.left_out


# What stands in a row is of one kind.


def two_groups() -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose distances are known: ten inputs near, ten far."""
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = 4 * torch.eye(2)
    m = torch.cat([torch.linspace(0.08, 0.12, 10), torch.linspace(0.48, 0.52, 10)])
    x = torch.stack([0.5 + m / 2, 0.5 - m / 2], 1)
    return net, x, torch.zeros(20, dtype=torch.int64)


def test_all_medians_of_a_row_are_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def diagnose(*_: Any, eps: float, **__: Any) -> list[Any]:
        asked.append(eps)
        return []

    with monkeypatch.context() as patch:
        some = {name: sections.SECTIONS[name] for name in ("distances", "trust")}
        patch.setattr(sections, "SECTIONS", some)
        patch.setattr(attacks, "diagnose", diagnose)
        found = crlib.report(*two_groups(), eps={"l2": 0.1}, progress=False)
    told = found.numbers["distances"]["l2"]
    # The lower of the two middle ones is 0.12.
    middle = (0.12 + 0.48) / 2 / 2**0.5
    for name in ("median", "estimate", "certified"):
        assert told[name] == pytest.approx(middle, rel=2e-3), name
    assert asked == [told["median"]]
    assert found.numbers["trust"]["attack over estimate"] == pytest.approx(1, rel=2e-3)


class Flat(nn.Module):
    """The labels of a network, sure of themselves, and no gradient anywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        z = self.model(x)
        return nn.functional.one_hot(z.argmax(1), 10) + 0 * z


def test_a_ratio_that_is_infinite_stays_infinite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sections._ratio(
        torch.tensor([1.0, torch.inf, 1.0, torch.inf, 0.0, torch.nan]),
        torch.tensor([2.0, 2.0, torch.inf, torch.inf, 0.0, 1.0]),
    ) == [0.5, math.inf, 0.0, 1.0, 1.0]
    with monkeypatch.context() as patch:
        patch.setattr(sections, "USUAL", {"flat": Flat})
        patch.setattr(sections, "SECTIONS", {"compressed": sections.compressed})
        found = crlib.report(*trained(), **OPTIONS | {"eps": {"l2": 0.5}})
    assert found.numbers["compressed"]["flat"]["distance ratio"] == math.inf
    assert found.sections["compressed"].tables[0].rows[0][-2] == "inf [inf, inf]"
    told = json.loads(found.json(tmp_path / "r.json").read_text())
    assert told["numbers"]["compressed"]["flat"]["distance ratio"] is None


def test_where_no_boundary_is_found_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(self: subject.Subject, norm: str) -> attacks.AttackResult:
        found = attacks.fmn(self.model, *self.few, norm=norm)
        return replace(found, distance=torch.full_like(found.distance, torch.inf))

    monkeypatch.setattr(subject.Subject, "near", lost)
    monkeypatch.setattr(sections, "SECTIONS", {"distances": sections.distances})
    found = crlib.report(*two_groups(), eps={"l2": 0.1}, progress=False)
    assert "or more, the boundary was not found in ℓ2" in found.sections["words"].text
    assert "ℓ2: no curve" in found.sections["distances"].pictures[0].alt


def test_an_input_without_an_estimate_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    estimate = metrics.first_order

    def torn(model: Any, x: Tensor, y: Tensor, **options: Any) -> Tensor:
        found = estimate(model, x, y, **options)
        found[::4] = torch.nan
        return found

    model, x, y = trained()
    right = model(x[:60]).argmax(1) == y[:60]
    some = torch.arange(60) % 4 > 0
    norms = {"eps": {"l2": 0.5}}
    known = estimate(model, x[:60], y[:60])[right & some]
    assert "NaN" not in whole().sections["distances"].text
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "first_order", torn)
        found = crlib.report(model, x, y, **OPTIONS | norms)
    assert set(found.left_out) == {"against"}
    told = found.numbers["distances"]["l2"]
    assert told["estimate"] == pytest.approx(float(np.median(known)))
    missing = int((right & ~some).sum())
    text = found.sections["distances"].text
    assert f"At {missing} inputs labelled right the gradient is NaN" in text
    # A ratio of what is missing is not 1: it does not count.
    smaller = compress.prune(model, 0.5)
    both = right & (smaller(x[:60]).argmax(1) == y[:60])
    each = torn(smaller, x[:60][both], y[:60][both])
    each /= torn(model, x[:60], y[:60])[both]
    assert each.isnan().any()
    kept = found.numbers["compressed"]["half of the weights"]["distance ratio"]
    assert kept == pytest.approx(np.nanmedian(each))
    # Where no input has an estimate there is nothing to follow.
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "first_order", lambda *a, **_: a[2] * torch.nan)
        with pytest.raises(ValueError, match="No input has a gradient"):
            crlib.report(model, x, y, **OPTIONS | norms)


def test_answers_that_are_no_numbers_are_no_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = trained()

    def spoilt(_: Any) -> Any:
        found = copy.deepcopy(model)
        found.layers[0].weight.data[0] = torch.nan
        return found

    with monkeypatch.context() as patch:
        patch.setattr(sections, "USUAL", {"spoilt": spoilt})
        patch.setattr(sections, "SECTIONS", {"compressed": sections.compressed})
        told = crlib.report(model, x, y, **OPTIONS).numbers["compressed"]["spoilt"]
    assert told["accuracy"] == told["labels kept"] == 0
    # Of the network itself it is refused, also where it comes late.
    late = torch.arange(len(x))[:, None] == 140

    def torn(z: Tensor) -> Tensor:
        logits = model(z)
        return logits.masked_fill(late, torch.nan) if len(z) == len(x) else logits

    with pytest.raises(ValueError, match="returned a NaN"):
        crlib.report(torn, x, y, batch_size=len(x), **OPTIONS)


@pytest.mark.parametrize(
    ("error", "said"),
    [(IndexError("no such row\nof it"), "no such row"), (KeyError(), "KeyError()")],
)
def test_whatever_a_compression_raises_the_report_goes_on(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise error

    usual = {"8 bits": sections.USUAL["8 bits"], "broken": broken}
    monkeypatch.setattr(sections, "USUAL", usual)
    monkeypatch.setattr(sections, "FORMS", {"folded": broken})
    some = {name: sections.SECTIONS[name] for name in ("layers", "compressed")}
    monkeypatch.setattr(sections, "SECTIONS", some)
    found = crlib.report(*trained(), **OPTIONS)
    assert set(found.sections) == {"words", "layers", "compressed"}
    assert found.sections["compressed"].text.endswith(f"Not tried: broken: {said}")
    assert f"Not folded: {said}" in found.sections["layers"].text


def test_a_poor_baseline_ends_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = trained()
    poor = models.MLP((784, 8, 10), mean=0.286, std=0.353, seed=1)
    both = int((poor(x[:60]).argmax(1) == y[:60]).sum())
    assert both < 20
    monkeypatch.setattr(sections, "SECTIONS", {"against": sections.against})
    found = crlib.report(model, x, y, baseline=poor, **OPTIONS)
    assert set(found.numbers["against"]) == {"accuracy difference"}
    assert "Distances take 20 of them; here are" in found.sections["against"].text


def test_no_figure_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    before = plt.get_fignums()
    monkeypatch.setattr(sections, "picture", stop)
    found = crlib.report(*two_groups(), eps={"l2": 0.1}, progress=False)
    assert found.left_out["distances"] == "stopped before it"
    assert plt.get_fignums() == before


def test_the_alt_text_of_a_short_spectrum_names_a_value_that_it_has() -> None:
    told = sections._spectra_alt({"head": torch.tensor([4.0, 2.0, 1.0])})
    assert told == "head: value 3 of 3 is 0.25 of the largest."
    alt = whole().sections["layers"].pictures[0].alt
    assert "layers.0: value 10 of 32 is" in alt


OPTION: dict[str, tuple[dict[str, Any], str]] = {
    "a number for eps": ({"eps": 8 / 255}, "give a budget for each norm"),
    "words for eps": ({"eps": {"linf": "8/255"}}, "give a budget for each norm"),
    "no eps": ({"eps": {}}, "give a budget for each norm"),
    "levels": ({"eps": {"linf": 8}}, "write 8/255"),
    "a negative eps": ({"eps": {"l2": -0.1}}, "not negative"),
    "another norm": ({"eps": {"l0": 5}}, "choose one of linf, l2, l1"),
    "a budget": ({"budget": "fast"}, "choose one of quick, full, thorough"),
    "a seed": ({"seed": "x"}, "whole number"),
    "no attacks": ({"attacked": 0}, "at least 1"),
    "a folder": ({"resume": Path(__file__).parent}, "no file of a report"),
}


@pytest.mark.parametrize("name", OPTION)
def test_options_are_refused_before_any_work(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, message = OPTION[name]
    for section in sections.SECTIONS:
        monkeypatch.setitem(sections.SECTIONS, section, lambda _: pytest.fail("work"))
    with pytest.raises(ValueError, match=message):
        crlib.report(*trained(), **OPTIONS | change)


class Drawn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] + torch.rand(len(x), 10)


REFUSED: dict[str, tuple[Callable[[nn.Module, Tensor, Tensor], Any], str]] = {
    "a shifted box": (lambda m, x, y: (m, 2 * x - 1, y), "inputs lie in"),
    "coarse": (lambda m, x, y: (lambda z: m(z.float()), x.half(), y), "too coarse"),
    "integers": (lambda m, x, y: (m, (255 * x).to(torch.uint8), y), "floating-point"),
    "a NaN": (lambda m, x, y: (m, x / x.clamp(0, 0), y), "NaN"),
    "labels that are no integers": (lambda m, x, y: (m, x, y.float()), "integer label"),
    "a label too many": (lambda m, x, y: (m, x, y + 1), "labels run from"),
    "no labels": (lambda m, x, y: (m, x, None), "Give labels"),
    "no inputs": (lambda m, x, y: (m, x[:0], y[:0]), "no input"),
    "too few inputs": (lambda m, x, y: (m, x[:15], y[:15]), "medians"),
    "one logit": (lambda m, x, y: (lambda z: m(z)[:, :1], x, y % 1), "K at least 2"),
    "probabilities": (
        lambda m, x, y: (lambda z: m(z).softmax(1), x, y),
        "take the softmax out",
    ),
    "chance": (lambda m, x, y: (Drawn(), x, y), "differently when asked twice"),
    "no gradient": (lambda m, x, y: (lambda z: m(z.detach()), x, y), "gradient"),
    "rounded": (
        lambda m, x, y: (lambda z: m((4 * z).round() / 4 + 0 * z), x, y),
        "gradient",
    ),
    "shuffled labels": (
        lambda m, x, y: (m, x, y[torch.randperm(len(y), generator=rng(0))]),
        "labelled right|guessing",
    ),
    "a NaN inside": (lambda m, x, y: (lambda z: m(z) * torch.nan, x, y), "NaN"),
    "another shape": (lambda m, x, y: (m, x[..., :14], y), "does not take a batch"),
    "channels last": (
        lambda m, x, y: (m, x.movedim(1, 3).expand(-1, -1, -1, 3), y),
        "x.permute",
    ),
    "no channel": (
        lambda m, x, y: (lambda z: m(z.mT[:, :1]), x[:, 0], y),
        r"x\[:, None",
    ),
    "colours": (lambda m, x, y: (m, x.expand(-1, 3, -1, -1), y), "--grey"),
    "a fixed batch": (
        lambda m, x, y: (lambda z: m(z.view(8, 1, 28, 28)), x, y),
        "does not take a batch",
    ),
    "a tuple": (lambda m, x, y: (lambda z: (m(z),), x, y), "models.logits"),
    "no model": (lambda m, x, y: ("net", x, y), "maps x to logits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_before_any_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, message = REFUSED[name]
    for section in sections.SECTIONS:
        monkeypatch.setitem(sections.SECTIONS, section, lambda _: pytest.fail("work"))
    with pytest.raises(ValueError, match=message):
        crlib.report(*spoil(*trained()), **OPTIONS)


STRANGE: dict[str, Callable[[nn.Module], Any]] = {
    "a function": lambda m: lambda z: m(z),
    "in training mode": lambda m: nn.Sequential(m, nn.Dropout(0.5)).train(),
    "a normalisation": lambda m: nn.Sequential(m, nn.BatchNorm1d(10)),
    "large logits": lambda m: lambda z: 1e4 * m(z),
    "a masked class": lambda m: (
        lambda z: torch.cat([m(z), m(z)[:, :1] * 0 - torch.inf], 1)
    ),
    "it writes into x": lambda m: lambda z: m(z.mul_(1.0)),
    "a convolution": lambda m: nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1, bias=False), m
    ),
    "a strange layer": lambda m: nn.Sequential(
        m, nn.Unflatten(1, (1, 10)), nn.Conv1d(1, 1, 1), nn.Flatten()
    ),
    "compiled to a script": lambda m: torch.jit.trace(m, trained()[1][:2]),
    "frozen": lambda m: m.requires_grad_(False),
    "a method": lambda m: m.forward,
    "saturated": lambda m: nn.Sequential(m, nn.Tanh()),
    "a dead layer": lambda m: nn.Sequential(m, Beside()),
}


class Beside(nn.Module):
    """A layer whose weights are all zero, added to what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_network_gets_a_report(name: str, tmp_path: Path) -> None:
    model, x, y = trained()
    torch.manual_seed(0)
    strange = STRANGE[name](model)
    if name == "a convolution":
        nn.init.dirac_(strange[0].weight)
    if name == "a strange layer":
        nn.init.ones_(strange[2].weight)
    before = x.clone()
    found = crlib.report(strange, x, y, **OPTIONS | {"eps": {"l2": 0.5}})
    assert {"card", "distances", "trust"} <= set(found.sections)
    assert torch.equal(x, before)
    found.html(tmp_path / "r.html")
    found.json(tmp_path / "r.json")
    model.requires_grad_(True)


def test_a_loader_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = trained()
    loader = DataLoader(TensorDataset(x, y), batch_size=40)
    got = loading.inputs(loader)
    assert torch.equal(got[0], x) and torch.equal(got[1], y)
    # Kept for other tests, so asked for before anything is changed.
    wanted = whole().fingerprint
    monkeypatch.setattr(sections, "SECTIONS", {"card": sections.card})
    found = crlib.report(model, loader, **OPTIONS)
    assert found.fingerprint == wanted
    with pytest.raises(ValueError, match="leave y out"):
        crlib.report(model, loader, y, **OPTIONS)


def test_evaluate_takes_a_loader_as_it_is() -> None:
    model, x, y = trained()
    loader = DataLoader(TensorDataset(x[:50], y[:50]), batch_size=16)
    for attack, options in (
        (attacks.pgd, {"eps": 0.05, "steps": 3}),
        (attacks.worst_case, {"eps": 0.5, "norm": "l2", "budget": "quick"}),
    ):
        found = attacks.evaluate(attack, model, loader, batch_size=20, **options)
        same = attacks.evaluate(attack, model, x[:50], y[:50], batch_size=20, **options)
        assert torch.equal(found.x_adv, same.x_adv) and len(found.success) == 50
    with pytest.raises(ValueError, match="leave y out"):
        attacks.evaluate(attacks.pgd, model, loader, y[:50], eps=0.05)
    with pytest.raises(ValueError, match="DataLoader is empty"):
        attacks.evaluate(attacks.pgd, model, DataLoader(TensorDataset(x[:0])), eps=0.1)
    with pytest.raises(ValueError, match="x runs from"):
        far = DataLoader(TensorDataset(4 * x, y))
        attacks.evaluate(attacks.pgd, model, far, eps=0.05)
    with pytest.raises(ValueError, match="attacks.evaluate and crlib.report take"):
        attacks.pgd(model, loader, None, eps=0.05)


def test_a_loader_goes_to_where_the_network_is() -> None:
    model, x, y = trained()
    elsewhere = copy.deepcopy(model).to("meta")
    loader = DataLoader(TensorDataset(x, y), batch_size=40)
    for v in checks.joined(loader, elsewhere):
        assert v.device.type == "meta"
    assert checks.joined(loader, lambda z: z)[0].device.type == "cpu"


class Loose(torch.utils.data.Dataset[Any]):
    """Samples of whatever kind."""

    def __init__(self, sample: Callable[[int], Any]) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 4

    def __getitem__(self, k: int) -> Any:
        return self.sample(k)


LOADED: dict[str, tuple[Callable[[int], Any], str]] = {
    "dictionaries": (
        lambda k: {"image": torch.ones(3), "label": k},
        "a dictionary of image, label: give one of pairs",
    ),
    "no labels": (lambda k: (torch.ones(3),), "a list of Tensor: give one of pairs"),
    "tensors": (lambda k: torch.ones(3), "a Tensor: give one of pairs"),
    "names": (lambda k: (torch.ones(3), "bag"), "a list of Tensor, tuple: give"),
    "sizes": (lambda k: (torch.ones(3 + k), k), "differ in shape: resize"),
    "shares": (lambda k: (torch.ones(3), k / 2), "no whole number"),
    "NaN": (lambda k: (torch.ones(3), math.nan), "no whole number"),
}


@pytest.mark.parametrize("name", LOADED)
def test_a_loader_of_something_else_is_refused_with_what_to_give(name: str) -> None:
    sample, message = LOADED[name]
    with pytest.raises(ValueError, match=message):
        loading.inputs(DataLoader(Loose(sample)))


def test_files_that_are_cut_off_or_hold_something_else(tmp_path: Path) -> None:
    _, x, y = trained()
    np.savez(tmp_path / "whole.npz", x=x.numpy(), y=y.numpy())
    half = (tmp_path / "whole.npz").read_bytes()[:1000]
    for name, held in (("a.pt", b""), ("b.npz", b""), ("c.npz", half)):
        (tmp_path / name).write_bytes(held)
        with pytest.raises(ValueError, match=f"{name} is empty or cut off"):
            loading.inputs(tmp_path / name)
    (tmp_path / "mine.py").write_text(MAKER)
    with pytest.raises(ValueError, match="a.pt is empty or cut off"):
        loading.network(f"{tmp_path}/mine.py:net", tmp_path / "a.pt")
    for name, pair in (("x", ([1, 2], y[:2])), ("y", (x[:2], [0, 1]))):
        torch.save(dict(zip("xy", pair, strict=True)), tmp_path / "d.pt")
        with pytest.raises(ValueError, match=f"{name} is a list: give a tensor"):
            loading.inputs(tmp_path / "d.pt")
    for kind in (np.float32, np.uint8, np.uint16):
        np.savez(tmp_path / "e.npz", x=x[:6].numpy(), y=y[:6].numpy().astype(kind))
        assert loading.inputs(tmp_path / "e.npz")[1].equal(y[:6])


DATA_CLASS = """
from __future__ import annotations
from dataclasses import dataclass
from crlib.models import MLP

@dataclass
class Sizes:
    hidden: int = 32

def net():
    return MLP((784, Sizes().hidden, 10))
"""


def test_a_file_may_define_data_classes_and_have_any_name(tmp_path: Path) -> None:
    before = sys.modules["torch"]
    (tmp_path / "torch.py").write_text(DATA_CLASS)
    net = loading.network(f"{tmp_path}/torch.py:net")
    assert net(trained()[1][:2]).shape == (2, 10)
    assert sys.modules["torch"] is before


def test_files_of_inputs(tmp_path: Path) -> None:
    _, x, y = trained()
    shown = (255 * x[:6]).round().to(torch.uint8)
    np.savez(tmp_path / "a.npz", x=shown.numpy(), y=y[:6].numpy())
    torch.save({"x": shown, "y": y[:6]}, tmp_path / "b.pt")
    torch.save([shown, y[:6]], tmp_path / "c.pt")
    for name in ("a.npz", "b.pt", "c.pt"):
        got = loading.inputs(tmp_path / name)
        assert torch.equal(got[0], shown / 255) and torch.equal(got[1], y[:6])
    for k, image in enumerate(shown):
        folder = tmp_path / "images" / f"{int(y[k])}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{k}.png")
    got = loading.inputs(tmp_path / "images", grey=True)
    assert got[0].shape == (6, 1, 28, 28) and sorted(got[1].unique()) == sorted(
        torch.arange(len(y[:6].unique()))
    )
    torch.save([shown], tmp_path / "d.pt")
    with pytest.raises(ValueError, match="with arrays x and y"):
        loading.inputs(tmp_path / "d.pt")
    np.savez(tmp_path / "e.npz", images=shown.numpy(), labels=y[:6].numpy())
    with pytest.raises(ValueError, match="It holds images, labels"):
        loading.inputs(tmp_path / "e.npz")
    for names in (np.array(["bag"] * 6), np.array(["bag"] * 6, dtype=object)):
        np.savez(tmp_path / "f.npz", x=shown.numpy(), y=names)
        with pytest.raises(ValueError, match="np.unique"):
            loading.inputs(tmp_path / "f.npz")
    with pytest.raises(data.DataError, match="two or more"):
        loading.inputs(tmp_path)


MAKER = """
from crlib.models import MLP

def net():
    return MLP((784, 32, 32, 10), mean=0.286, std=0.353)

def other():
    return 3
"""


def test_weights_are_read_from_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip(
        "safetensors.torch", reason="pip install safetensors"
    )
    (tmp_path / "mine.py").write_text(MAKER)
    model = trained()[0]
    safetensors.save_file(model.state_dict(), tmp_path / "w.safetensors")
    net = loading.network(f"{tmp_path}/mine.py:net", tmp_path / "w.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


def test_without_safetensors_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MAKER)
    (tmp_path / "w.safetensors").touch()
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match="pip install safetensors"):
        loading.network(f"{tmp_path}/mine.py:net", tmp_path / "w.safetensors")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, x, y = trained()
    (tmp_path / "mine.py").write_text(MAKER)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pt")
    torch.save((x, y), tmp_path / "d.pt")
    mine = f"{tmp_path / 'mine.py'}:net"
    given = ["--weights", f"{tmp_path / 'w.pt'}", "--data", f"{tmp_path / 'd.pt'}"]
    out = ["--out", f"{tmp_path / 'r.html'}", "--json", f"{tmp_path / 'r.json'}"]
    more = ["--attacked", "60", "--eps", "linf=0.05", "l2=1/2"]
    assert command.main(["report", mine, *given, *out, *more]) == 0
    assert whole().sections["words"].text in capsys.readouterr().out
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["numbers"]["distances"] == whole().numbers["distances"]


def test_the_command_takes_a_precision_and_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def report(model: Any, x: Tensor, y: Tensor, **options: Any) -> Any:
        asked.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(reporting, "report", report)
    (tmp_path / "mine.py").write_text(MAKER)
    torch.save(trained()[1:], tmp_path / "d.pt")
    told = ["report", f"{tmp_path}/mine.py:net", "--data", f"{tmp_path}/d.pt"]
    assert command.main(told) == 1
    assert asked["autocast"] is asked["limit"] is None
    assert command.main([*told, "--bf16", "--limit", "2.5"]) == 1
    assert asked["autocast"] is torch.bfloat16 and asked["limit"] == 2.5


@pytest.mark.parametrize("where", ["network", "inputs"])
def test_the_command_ends_quietly_when_it_is_stopped_while_it_loads(
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    (tmp_path / "mine.py").write_text(MAKER)
    monkeypatch.setattr(loading, where, stop)
    told = ["report", f"{tmp_path}/mine.py:net", "--data", f"{tmp_path}/d.pt"]
    assert command.main([*told, "--out", f"{tmp_path}/r.html"]) == 130
    assert "Stopped before the first section" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: "net"}, "write module:function"),
        ({0: "nowhere.at.all:net"}, "cannot be had"),
        ({0: "{0}/mine.py:other"}, "not a module"),
        ({2: "{0}/module.pt"}, "weights_only=False"),
        ({2: "{0}/less.pt"}, "does not fit"),
        ({2: "{0}/list.pt"}, "no state dictionary"),
        ({2: "{0}/none.pt"}, "none.pt does not exist"),
        ({2: "{0}/words.pt"}, "cannot be read as plain tensors"),
        ({4: "{0}/none.npz"}, "none.npz does not exist"),
        ({4: "{0}/words.pt"}, "cannot be read as plain tensors"),
        ({4: "{0}/words.npz"}, "something else than arrays"),
        ({5: "--device", 6: "cuda:99"}, "not to be had"),
        ({5: "--out", 6: "{0}/none/r.html"}, "is no folder: make it"),
        ({5: "--json", 6: "{0}/none/r.json"}, "is no folder: make it"),
        ({5: "--resume", 6: "{0}/none/r.json"}, "cannot be written"),
        ({6: "linf=8:255"}, "write a budget"),
    ],
)
def test_the_command_says_what_to_do(
    change: dict[int, str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, x, y = trained()
    (tmp_path / "mine.py").write_text(MAKER)
    torch.save(model, tmp_path / "module.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "less.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("words.pt", "words.npz"):
        (tmp_path / name).write_text("hello")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    torch.save((x[:30], y[:30]), tmp_path / "d.pt")
    told = [
        "{0}/mine.py:net",
        "--weights",
        "{0}/w.pt",
        "--data",
        "{0}/d.pt",
        "--eps",
        "l2=0.5",
    ]
    for place, value in change.items():
        told[place] = value
    assert command.main(["report", *(t.format(tmp_path) for t in told)]) == 1
    assert message in capsys.readouterr().err


def test_the_certificate_of_l1_is_told() -> None:
    model, x = models.MLP((6, 16, 2)), torch.rand(8, 6, generator=rng(0))
    y = model(x).argmax(1)
    asked = subject.Subject(model, x, y, {"l1": 0.1}, 8, "quick", 0, 8)
    told = sections._certificate(asked, "l1")
    assert told is not None and told > 0
