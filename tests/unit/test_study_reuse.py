"""The study of reuse runs on a small scale, and its table holds what must be."""

import pytest

from crlib import studies
from crlib.data import Dataset
from crlib.studies import reuse, transfer


def test_the_cascade_judges_the_networks_of_the_other_study(
    fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "NEXT_EPOCHS", 1)
    monkeypatch.setattr(reuse, "ATTACKED", 20)
    images = fashion.double()
    config = reuse.STUDY.grids["quick"][0] | {"way": "rank", "strength": 4}
    found = reuse.run(config | {"epochs": 1, "seed": 1}, images)
    source, target = (images.of_classes(part) for part in transfer.split(1))
    old = transfer.pretrained("rank", 4, 1, source, epochs=1).model
    for name, learn in (("target", transfer.frozen), ("tuned", transfer.tuned)):
        numbers = reuse.judge(learn(old, target, 1).model, target)
        assert {f"{name} {k}": v for k, v in numbers.items()}.items() <= found.items()
    assert set(found) <= set(studies.published("reuse"))


def test_the_table_is_of_the_networks_of_the_other_one() -> None:
    table, first = (studies.published(name) for name in ("reuse", "transfer"))
    both = table.astype({"strength": float}).merge(
        first, on=["way", "strength", "epochs", "seed"]
    )
    assert len(both) == len(table) > 0
    for name in ("target", "tuned"):
        gap = both[f"{name} accuracy_x"] - both[f"{name} accuracy_y"]
        assert gap.abs().max() < 1e-8
        # One budget, two attackers, the same images.
        told = both[f"{name} cascade l2"] - both[f"{name} robust l2"]
        assert told.abs().max() < 0.05
    # Nearly the budget of the other study, in linf a little more.
    assert (both["target cascade linf"] <= both["target robust linf"] + 0.02).all()
