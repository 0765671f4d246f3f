"""Strange models through a report: a report, or one clear error.

The models are those that the attacks are tried on; here they are a whole subject.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import crlib
from crlib.asking import evaluating
from crlib.attacks import Doubt
from crlib.reporting.parts import TITLES
from tests.unit import test_strange_models as strange
from tests.unit.support import rng

DEPENDS = ("crlib",)
OPTIONS: dict[str, Any] = {
    "eps": {"l2": 0.1},
    "attacked": 24,
    "progress": False,
    "batch_size": 16,
}
# Whoever must get a report, who may, and who cannot.
KINDS = {
    "same": strange.SAME,
    "own": strange.OWN,
    "refused": strange.REFUSED,
    "dependent": strange.DEPENDENT,
}
MODELS = {f"{k}: {name}": m for k, ms in KINDS.items() for name, m in ms.items()}


def told(model: Any, x: Tensor) -> Tensor:
    """Return the labels that a model itself gives, zero where it gives none."""
    with torch.no_grad():
        try:
            with evaluating(model):
                return model(x.clone()).argmax(1).long()
        except Exception:  # whatever it raises, a report has to say something
            return torch.zeros(len(x), dtype=torch.int64)


def images() -> Tensor:
    return torch.rand(40, *strange.SHAPE, generator=rng(2))


@pytest.mark.parametrize("name", MODELS)
def test_a_strange_model_gets_a_report_or_one_clear_error(
    name: str, tmp_path: Path
) -> None:
    make = MODELS[name]
    if isinstance(make, tuple):
        make = make[0]
    x = images()
    y, model = told(make(), x), make()
    kept, before = strange.state(model), x.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        try:
            found = crlib.report(model, x, y, **OPTIONS)
        except ValueError as error:
            assert 20 < len(str(error)) < 500
            assert not name.startswith("same")
            return
    # Labels of two classes fit a network of two.
    assert not name.startswith("refused") or name == "refused: too few classes"
    assert strange.same(kept, strange.state(model)) and x.equal(before)
    assert {"card", "distances", "trust", "words"} <= set(found.sections)
    assert set(found.sections) | set(found.left_out) == set(TITLES)
    assert all(len(reason) > 10 for reason in found.left_out.values())
    found.html(tmp_path / "r.html")
    found.json(tmp_path / "r.json")
    assert str(found)


def test_there_are_thirty_strange_models_and_more() -> None:
    assert len(MODELS) >= 60
