"""A fault that was mended comes back, and its test in tests/unit turns red."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch

from crlib import attacks
from crlib.attacks import balls, judging
from crlib.certify import reading
from crlib.models import LowRankConv2d
from tests.mutated import mutated
from tests.unit import (
    test_attack_family,
    test_attack_hygiene,
    test_bridge,
    test_cascade,
    test_certify_bends,
    test_certify_gauges,
    test_claims,
    test_compress_layers,
    test_diagnosis,
    test_fingerprint,
    test_folded,
    test_images,
    test_metrics,
    test_models,
    test_own_data,
    test_projection,
    test_reporting,
    test_scales,
    test_sensitivity,
    test_strange_models,
    test_train,
)
from tests.unit.conftest import fashion, trained  # noqa: F401
from tests.unit.test_compress_layers import pictures, resnet  # noqa: F401
from tests.unit.test_train import clouds  # noqa: F401

DEPENDS = ("crlib", "tests/unit", "tests/mutated.py", "benchmarks")
pytestmark = pytest.mark.filterwarnings("ignore::crlib.asking.Doubt")
# A test is red by what it asserts, by an error that it did not expect, or by none.
RED = (
    *(AssertionError, pytest.fail.Exception),
    *(AttributeError, KeyError, RuntimeError, TypeError, ValueError),
)
dressed = test_strange_models.test_a_network_dressed_up_is_the_network
refused = test_strange_models.test_what_cannot_be_judged_is_refused
bad_input = test_strange_models.test_bad_input_gets_one_sentence_that_names_the_cure
another = (
    test_fingerprint.test_another_function_of_the_same_weights_has_another_fingerprint
)
another_call = test_cascade.test_another_function_attack_or_precision_is_another_call


@dataclass(frozen=True)
class Fault:
    """Put ``replace`` in place of ``find`` in ``where``; ``test`` must notice."""

    where: str
    find: str
    replace: str
    test: Callable[..., None]
    given: dict[str, Any] = field(default_factory=dict)


FAULTS = {
    # A robust accuracy that is too high.
    "behind a function": Fault(
        "crlib.asking._parts",
        "[*cells, *defaults, *_globals(one), one.__code__]",
        "[one.__code__]",
        *(dressed, {"strange": "lambda", "name": "pgd"}),
    ),
    "own train()": Fault(
        "crlib.asking.evaluating",
        "                module.eval()\n",
        "                pass\n",
        *(dressed, {"strange": "own train()", "name": "pgd"}),
    ),
    "writes into its input": Fault(
        "crlib.asking.ask",
        "model(x.clone())",
        "model(x)",
        *(dressed, {"strange": "writes into its input", "name": "square"}),
    ),
    "depends on the batch": Fault(
        "crlib.attacks.base.Asked",
        "if refused:",
        "if False:",
        test_strange_models.test_an_answer_that_depends_on_its_batch_is_refused,
        {"strange": "centred", "name": "fmn"},
    ),
    "told: labels": Fault(
        "crlib.attacks.diagnosis._outputs",
        "float((~right).cpu().double().mean()) / guessing",
        "0 * guessing",
        test_cascade.test_shifted_labels_are_told,
    ),
    "told: halves": Fault(
        "crlib.attacks.diagnosis._agreement",
        "apart(parts) if again <= 1e-5 else 0.0",
        "0.0",
        test_cascade.test_an_answer_that_depends_on_the_batch_is_told,
    ),
    "told: chance": Fault(
        "crlib.attacks.diagnosis._agreement",
        "again = apart(second)",
        "again = 0.0",
        test_diagnosis.test_a_model_broken_on_purpose_is_flagged,
        {"name": "noise"},
    ),
    "told: buffers": Fault(
        "crlib.attacks.diagnosis._moved",
        "max(len(before), len(after)) - same",
        "0",
        test_diagnosis.test_a_model_that_questions_change_is_flagged,
    ),
    "told: another gradient": Fault(
        "crlib.attacks.diagnosis._directions",
        "float(off.median())",
        "0.0",
        test_cascade.test_the_gradient_of_another_network_is_told,
        {"norm": "l2"},
    ),
    "not told: pooling in l1": Fault(
        "crlib.attacks.diagnosis._gradients",
        "radius.clamp_max(0.1)",
        "radius",
        test_cascade.test_a_network_that_pools_is_trusted_in_l1,
    ),
    "coarse inputs": Fault(
        "crlib.attacks.base.check",
        "if x.dtype in (torch.float16, torch.bfloat16):",
        "if False:",
        *(bad_input, {"bad": "bfloat16", "name": "pgd"}),
    ),
    "wrong from the start": Fault(
        "crlib.attacks.base.is_fooled",
        "return label == target if target is not None else label != y",
        "return (label == target) | (label != y) if target is not None else label != y",
        test_attack_family.test_a_target_is_what_a_success_is_labelled,
        {"name": "apgd linf"},
    ),
    # False proofs.
    "ranges of neurons": Fault(
        "crlib.certify.exact._add_layers",
        "scale = np.where(scale > 0, scale, 1.0)",
        "scale = np.ones_like(scale)",
        *(test_certify_gauges.test_no_gauge_moves_an_exact_distance, {"power": -6}),
    ),
    "scale of logits": Fault(
        "crlib.certify.exact._to_rival",
        "scale = np.abs(gap).sum() or 1.0",
        "scale = 1.0",
        *(test_certify_gauges.test_no_gauge_moves_an_exact_distance, {"power": -6}),
    ),
    "weights that are NaN": Fault(
        "crlib.certify.reading._read",
        "if not all(part.isfinite().all() for part in parts):",
        "if False:",
        test_certify_gauges.test_weights_that_are_not_finite_prove_nothing,
        {"name": "exact", "bad": math.nan, "where": "weight"},
    ),
    "hooks": Fault(
        "crlib.certify.reading._compare",
        "if not known or not ((said.double() - v).abs() <= slack).all():",
        "if False:",
        test_certify_gauges.test_what_changes_the_logits_unseen_is_refused,
        {"name": "radius", "change": test_certify_gauges.hooked},
    ),
    "a coarse comparison": Fault(
        "crlib.certify.reading.Affine",
        "self.apply(error.square(), self.weight.square()).sqrt()",
        "self.apply(error, self.weight.abs())",
        test_certify_bends.test_a_block_that_was_patched_is_noticed,
    ),
    "votes of one logit": Fault(
        "crlib.certify.smoothing._votes",
        "checks.logits(logits, len(noise))",
        "pass",
        test_certify_gauges.test_sampling_asks_for_logits,
    ),
    "weak directions": Fault(
        "crlib.theory.bridge._directions",
        "torch.finfo(s.dtype).eps",
        "torch.finfo(w.dtype).eps",
        test_bridge.test_a_weak_direction_of_float32_is_a_direction,
    ),
    "rounding of a product": Fault(
        "crlib.theory.sensitivity.radius_premises",
        "noise = torch.finfo(w.dtype).eps if w.is_floating_point() else 0.0",
        "noise = torch.finfo(torch.float64).eps",
        test_sensitivity.test_premises_of_a_float32_product_of_rank_one_are_equal,
    ),
    "one of equal directions": Fault(
        "crlib.theory.sensitivity.radius_premises",
        "sigma >= sigma[0] - noise,",
        "torch.arange(len(sigma)) == 0,",
        test_sensitivity.test_any_direction_is_the_top_one_of_the_identity,
    ),
    "thirty walls": Fault(
        "crlib.geometry.halfspace_step",
        "range(max(30, c.shape[1] + 2))",
        "range(30)",
        *(test_scales.test_walls_at_every_scale_are_climbed, {"norm": "linf"}),
    ),
    "a small reach": Fault(
        "crlib.theory.composition.logistic_gap_bounds",
        "math.expm1(reach)",
        "(math.exp(reach) - 1)",
        *(test_scales.test_the_logistic_gap_keeps_its_digits,),
        {"reach": 1e-12, "shift": 0.0},
    ),
    "a negative divisor": Fault(
        "crlib.certify.reading._check",
        "(layer.divisor_override or 1) < 0",
        "False",
        *(test_certify_bends.test_what_no_rule_covers_is_refused_by_name,),
        {"name": "a negative divisor"},
    ),
    "a gradient that is NaN": Fault(
        "crlib.metrics._one_step",
        "torch.where(right, (m.detach() / lengths).amin(1), 0.0)",
        "(m.detach().clamp_min(0) / lengths).nan_to_num(0.0, math.inf).amin(1)",
        test_metrics.test_a_gradient_that_is_no_number_is_no_distance,
    ),
    # Another function than the one that was to be compressed.
    "tokens folded": Fault(
        "crlib.models.refuse_tokens",
        "behind.register_forward_pre_hook(_one_row)",
        "pass",
        test_folded.test_tokens_are_no_channels_of_a_layer,
    ),
    "tokens pruned": Fault(
        "crlib.models.refuse_tokens",
        "behind.register_forward_pre_hook(_one_row)",
        "pass",
        test_compress_layers.test_rows_are_pruned_behind_no_normalisation_of_tokens,
    ),
    "channels of pictures": Fault(
        "crlib.models._by_rows",
        " and not (last and pictures)",
        "",
        test_compress_layers.test_a_normalisation_that_cannot_switch_a_row_off_is_refused,
        {"name": "pictures"},
    ),
    "two normalisations of a layer": Fault(
        "crlib.models.order_of",
        "if first != name or not",
        "if not",
        test_compress_layers.test_a_normalisation_that_cannot_switch_a_row_off_is_refused,
        {"name": "two behind one"},
    ),
    "one kernel of two layers": Fault(
        "crlib.metrics._fold",
        "setattr(layer, _kernel(layer), own)",
        "kernel.copy_(own)",
        *(
            test_folded.test_layers_with_one_kernel_are_folded_each_by_its_own_normalisation,
        ),
    ),
    "one weight of two layers": Fault(
        "crlib.metrics.balanced",
        "if shares_weights(model):",
        "if False:",
        test_metrics.test_layers_that_share_a_weight_are_not_balanced,
    ),
    "a weight of the head": Fault(
        "crlib.compress.layers.hidden",
        "if any(id(p) in own for layer in layers for p in layer.parameters()):",
        "if False:",
        test_compress_layers.test_a_parameter_of_the_head_is_not_changed_with_a_hidden_layer,
        {"act": "prune"},
    ),
    "one name of a layer": Fault(
        "crlib.models.replace",
        "remove_duplicate=False",
        "",
        test_compress_layers.test_a_layer_is_factorised_under_each_of_its_names,
    ),
    "one name of a normalisation": Fault(
        "crlib.models.replace",
        "remove_duplicate=False",
        "",
        test_folded.test_a_normalisation_goes_under_each_of_its_names,
    ),
    "a head of yesterday": Fault(
        "crlib.models.order_of",
        "if known == state:",
        "if known is not None:",
        test_compress_layers.test_a_head_that_came_later_is_the_head,
    ),
    "a switch of yesterday": Fault(
        "crlib.models._state",
        "v is True or v is False",
        "False",
        test_models.test_the_order_follows_a_model_that_changes,
    ),
    "a step that is zero": Fault(
        "crlib.compress.compressions.quantise",
        "step = torch.where(step > 0, step, 1.0)",
        "step = step.to(weight.dtype).clamp_min(1e-30)",
        test_compress_layers.test_a_row_of_zeros_stays_one_in_any_precision,
        {"act": "quantise", "dtype": torch.float16},
    ),
    "a row that is zero": Fault(
        "crlib.compress.constraints.row_dial",
        "torch.where(norms > 0, target / norms, 0.0)",
        "target / norms.clamp_min(1e-30)",
        test_compress_layers.test_a_row_of_zeros_stays_one_in_any_precision,
        {"act": "row dial", "dtype": torch.float16},
    ),
    "a layer that is zero": Fault(
        "crlib.compress.constraints.fixed_frobenius",
        "torch.where(size > 0, norm / size, 1.0)",
        "norm / size.clamp_min(1e-30)",
        test_compress_layers.test_a_row_of_zeros_stays_one_in_any_precision,
        {"act": "fixed frobenius", "dtype": torch.float16},
    ),
    # Operations that do nothing.
    "computed weights": Fault(
        "crlib.compress.layers.refuse_derived",
        "if not plain:",
        "if False:",
        test_compress_layers.test_a_weight_that_is_computed_is_refused_with_the_cure,
        {"act": "prune", "kind": "spectral norm"},
    ),
    "computed kernels": Fault(
        "crlib.metrics.folded",
        "own = layer is not None and _kernel(layer) in layer._parameters",
        "own = layer is not None",
        *(test_folded.test_what_cannot_be_folded_is_refused, {"name": "computed"}),
    ),
    "behind batch normalisation": Fault(
        "crlib.compress.compressions._zero",
        "(layer, norms.get(layer))",
        "(layer,)",
        test_compress_layers.test_what_is_pruned_behind_a_batch_normalisation_sends_zero,
    ),
    "convolutions of one dimension": Fault(
        "crlib.compress.compressions.size",
        "(_ConvNd, nn.Linear, *LOW_RANK)",
        "(nn.Conv2d, nn.Linear, *LOW_RANK)",
        *(test_compress_layers.test_every_convolution_counts, {"kind": "conv1d"}),
    ),
    "head registered first": Fault(
        "crlib.compress.layers.head_of",
        "layers[-1] if name is None else model.get_submodule(name)",
        "layers[-1]",
        test_compress_layers.test_the_head_is_the_layer_that_runs_last,
    ),
    # What was kept of another call.
    "kind of layer": Fault(
        "crlib.asking._said",
        "words = [type(one).__module__, type(one).__qualname__]",
        "words = []",
        *(another, {"name": "layer"}),
    ),
    "numbers of an object": Fault(
        "crlib.asking._attributes",
        "return [kept, *lines]",
        'return [kept.get("_modules"), *lines]',
        *(another, {"name": "own number"}),
    ),
    "code": Fault(
        "crlib.asking._parts",
        "*_globals(one), one.__code__]",
        "*_globals(one)]",
        *(another, {"name": "constant"}),
    ),
    "names in code": Fault(
        "crlib.asking._said",
        "[one.co_code.hex(), *one.co_names]",
        "[one.co_code.hex()]",
        *(another, {"name": "function of torch"}),
    ),
    "another attack": Fault(
        "crlib.attacks.judging.evaluate",
        "asked = attack, dict(sorted(options.items())), model",
        "asked = dict(sorted(options.items())), model",
        another_call,
    ),
    "another precision": Fault(
        "crlib.attacks.judging.evaluate",
        'f"{__version__} {autocast}"',
        "__version__",
        another_call,
    ),
    # Another question than was asked.
    "files of a target": Fault(
        "crlib.attacks.images.as_images",
        "Search(model, level / 255, y, target, result.norm)",
        "Search(model, level / 255, y, None, result.norm)",
        test_images.test_files_that_sought_a_target_are_judged_by_it,
    ),
    "points of a target": Fault(
        "crlib.attacks.judging.transfer",
        "Search(model, x, y, target, result.norm)",
        "Search(model, x, y, None, result.norm)",
        test_attack_family.test_points_that_sought_a_target_are_judged_by_it,
    ),
    "a target inside a partial": Fault(
        "crlib.attacks.judging.evaluate",
        "while isinstance(attack, partial) and not attack.args:",
        "while False:",
        test_attack_family.test_a_target_inside_a_partial_goes_with_its_samples,
    ),
    "names of low precision": Fault(
        "crlib.attacks.judging._in_low_precision",
        "first = _put(first, again, rows)",
        "_put(first, again, rows)",
        test_attack_family.test_what_full_precision_finds_anew_is_told_too,
    ),
    "a budget that is none": Fault(
        "crlib.attacks.judging.robustness_curve",
        "check(x, y, budget, norm, None, tuple(NORMS))",
        "pass",
        test_attack_family.test_bad_options_are_refused_first,
        {
            "attack": lambda *task, **more: attacks.robustness_curve(*task, **more),
            "options": {"eps": [0.1, -1], "attack": attacks.fmn},
            "message": "eps is -1",
        },
    ),
    # A claim that does not hold.
    "verdicts in another order": Fault(
        "crlib.claims.every",
        "(bool(verdict), verdict.slack)",
        "verdict.slack",
        test_claims.test_no_order_hides_a_verdict_that_fails,
    ),
    "an end at infinity": Fault(
        "crlib.claims.Interval",
        "if 0 < half < math.inf:",
        "if half:",
        test_claims.test_an_end_at_infinity_lies_on_its_side,
        dict.fromkeys(("low", "high"), math.inf)
        | {"above": True, "below": False, "differs": True},
    ),
    # Masked classes, and what is not logits.
    "masked classes": Fault(
        "crlib.attacks.base.rivals_of",
        "logits.clamp_min(least).scatter",
        "logits.scatter",
        test_attack_hygiene.test_rivals_are_all_labels_but_the_true_one_and_the_masked,
    ),
    "tuples": Fault(
        "crlib.asking.ask",
        "if not isinstance(answer, Tensor):",
        "if False:",
        *(refused, {"strange": "tuple", "name": "pgd"}),
    ),
    "one logit": Fault(
        "crlib.checks.logits",
        "or z.shape[1] < 2:",
        "or False:",
        *(refused, {"strange": "one logit", "name": "pgd"}),
    ),
    # What else a reader may trust.
    "levels": Fault(
        "crlib.attacks.base.check",
        'if norm == "linf" and (radius > 1).any():',
        "if False:",
        *(test_strange_models.test_eps_in_levels_is_refused_in_linf, {"name": "pgd"}),
    ),
    "labels of numpy": Fault(
        "crlib.checks.tensor",
        "if isinstance(v, Tensor):",
        "if True:",
        *(bad_input, {"bad": "numpy y", "name": "pgd"}),
    ),
    "the nearest rival": Fault(
        "crlib.attacks.smallest.fmn",
        "walk: int = 5",
        "walk: int = 0",
        *(test_attack_family.test_a_walk_saves_fmn_from_the_wrong_rival,),
        {"norm": "linf"},
    ),
    "small distances": Fault(
        "crlib.attacks.smallest.minimal",
        "middle = low.sqrt() * high.sqrt()",
        "middle = (low + high) / 2",
        test_cascade.test_minimal_sees_distances_of_any_size,
        {"norm": "linf", "far": 1e-6},
    ),
    "a thousand classes": Fault(
        "crlib.attacks.smallest._walk",
        "RIVALS if rivals.shape[1] > EVERY else EVERY",
        "",
        *(test_cascade.test_a_first_step_looks_at_all_rivals_or_the_ten_strongest,),
        {"classes": 200},
    ),
    # What comes in as something else, or goes out as it.
    "white images": Fault(
        "crlib.data._read_part",
        "if deep:",
        "if False:",
        test_own_data.test_an_image_of_sixteen_bits_does_not_become_white,
    ),
    "labels cut to whole numbers": Fault(
        "crlib.reporting.loading._pair",
        "if (y.double() != whole).any():",
        "if False:",
        *(test_reporting.test_a_loader_of_something_else_is_refused_with_what_to_give,),
        {"name": "NaN"},
    ),
    "statistics of many": Fault(
        "crlib.train._refuse_bound",
        "if counts or isinstance(module, _BatchNorm):",
        "if False:",
        test_train.test_what_would_be_another_network_side_by_side_is_refused,
        {"name": "batch normalisation"},
    ),
    "many in training mode": Fault(
        "crlib.train.fit_many",
        "with torch.no_grad(), evaluating(together.like):",
        "with torch.no_grad():",
        test_train.test_held_out_samples_are_judged_in_evaluation_mode,
    ),
    "an infinite ratio": Fault(
        "crlib.reporting.sections._ratio",
        "each[~each.isnan()].tolist()",
        "each[~each.isnan()].nan_to_num().tolist()",
        test_reporting.test_a_ratio_that_is_infinite_stays_infinite,
    ),
    "an unknown ratio": Fault(
        "crlib.reporting.sections._ratio",
        "each[~each.isnan()].tolist()",
        "each.nan_to_num(1.0, math.inf).tolist()",
        test_reporting.test_a_ratio_that_is_infinite_stays_infinite,
    ),
    "two kinds of median": Fault(
        "crlib.reporting.sections._median",
        "np.median(known)",
        "v.nanmedian()",
        test_reporting.test_all_medians_of_a_row_are_medians,
    ),
    "the label of a NaN": Fault(
        "crlib.reporting.subject.Subject",
        "torch.where(z.isnan().any(1), -1, z.argmax(1))",
        "z.argmax(1)",
        test_reporting.test_answers_that_are_no_numbers_are_no_labels,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_comes_back_is_noticed(
    name: str, request: pytest.FixtureRequest
) -> None:
    fault = FAULTS[name]
    wanted = inspect.signature(fault.test).parameters.keys() - fault.given.keys()
    found = {fixture: request.getfixturevalue(fixture) for fixture in wanted}
    check = partial(fault.test, **fault.given, **found)
    check()
    with mutated(fault.where, fault.find, fault.replace), pytest.raises(RED):
        check()


def test_an_attack_that_stays_in_inference_mode_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = test_strange_models.test_a_strange_place_changes_nothing
    check("inference_mode", "pgd")
    told = test_strange_models.ASKED["pgd"].keywords
    with (
        mutated("crlib.attacks.base.door", "    @with_gradients\n", ""),
        # Through the other door.
        mutated("crlib.attacks.ascent.pgd", "def pgd(", "def pgd("),
    ):
        monkeypatch.setitem(
            test_strange_models.ASKED, "pgd", partial(attacks.pgd, **told)
        )
        with pytest.raises(RED):
            check("inference_mode", "pgd")


def test_a_projection_that_steps_back_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mutated("crlib.attacks.balls.L2Ball", "new.maximum(u)", "new"):
        monkeypatch.setitem(balls.BALLS, "l2", balls.L2Ball)
        with pytest.raises(RED):
            test_projection.test_a_projection_of_very_many_coordinates_is_a_number("l2")


def test_a_budget_that_forgets_a_smaller_one_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick, full = judging.QUICK[1:], judging.FULL[1:]
    monkeypatch.setitem(judging.CASCADES, "full", (full, judging.FULL_L1))
    assert quick == full[: len(quick)]
    with pytest.raises(RED):
        test_cascade.test_a_larger_budget_keeps_all_that_a_smaller_one_finds("l2", 0)


def test_a_layer_that_is_unknown_again_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = tuple(kind for kind in reading.KNOWN if kind is not LowRankConv2d)
    monkeypatch.setattr(reading, "KNOWN", known)
    with pytest.raises(RED):
        test_certify_gauges.test_the_bounds_hold_where_layers_became_known(
            "low rank", False
        )
