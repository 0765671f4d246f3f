"""Each study, killed in the midst of a grid and resumed, ends as if it had run through.

What the engine does with a toy study, ``test_sweep.py`` says. Here it is whether a run
is what its configuration says, whatever ran before it in the process: in another order,
in other company, or after a kill.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from crlib import data, studies
from crlib.studies import (
    adversarial,
    debate,
    engine,
    interventions,
    measures,
    pruned,
    referees,
    repair,
    transfer,
    universal,
)
from crlib.studies.engine import PROVENANCE, Config

ROOT = Path(__file__).parents[2]
MODULES: tuple[Any, ...] = (
    adversarial,
    debate,
    interventions,
    pruned,
    referees,
    repair,
    transfer,
    universal,
)
STUDIES = {module.STUDY.name: module.STUDY for module in MODULES}
FEW = {"images": 120, "attacked": 6, "judged": 40}
# Two trainings of each; a training that is judged more than once gives two rows.
PICKED: dict[str, tuple[dict[str, Any], ...]] = {
    "adversarial": (
        {"experiment": "overfitting"},
        {"experiment": "damage", "train": "l2", "way": "rank, both"},
    ),
    "transfer": ({"way": "rank, both", "epochs": 14}, {"way": "plain", "epochs": 0}),
    "universal": ({"way": "rank, both"}, {"way": "scale"}),
    "interventions": ({"way": "rows"}, {"way": "rank, condition"}),
    # The second borrows surrogates, which are trained once a process.
    "referees": (
        {"experiment": "normalisation", "way": "rank, both"},
        {"experiment": "attacks", "way": "plain"},
    ),
    "debate": ({"first": "pixels"}, {"first": "row penalty"}),
    "repair": (
        {"data": "sample", "network": "ConvNet", "way": "rank, both"},
        {"data": "sample", "network": "MLP", "way": "plain"},
    ),
    # Rows of one start share its training, and masks.
    "pruned": ({"mask": "scores", "epochs": 12}, {"mask": "full", "start": "linf"}),
}


def grid(name: str) -> list[Config]:
    """Return a tiny grid of a study."""
    found: list[Config] = []
    for wanted in PICKED[name]:
        fits = [
            config
            for config in STUDIES[name].grids["quick"]
            if all(config[k] == v for k, v in (wanted | {"seed": 1}).items())
        ]
        last = {**fits[-1], "checkpoint": 0}
        alike = [config for config in fits if {**config, "checkpoint": 0} == last]
        found += alike[-2:]
    short = {"epochs": 3 if name == "pruned" else 1}
    return [c | {k: v for k, v in (FEW | short).items() if k in c} for c in found]


def shrink() -> None:
    """Make small what configurations do not."""
    few = data.fashion_mnist_sample().subset(300, 60).double()
    subset = data.Dataset.subset

    def at_most(self: Any, n_train: int, n_test: int, *, seed: int = 0) -> Any:
        counts = min(n_train, len(self.x_train)), min(n_test, len(self.x_test))
        return subset(self, *counts, seed=seed)

    data.Dataset.subset = at_most  # type: ignore[method-assign]
    measures.SETS["sample"] = lambda: few
    interventions.EPOCHS = referees.EPOCHS = transfer.NEXT_EPOCHS = pruned.BEFORE = 1
    interventions.ATTACKED = referees.ATTACKED = 6
    referees.QUERIES = (20, 40)  # type: ignore[assignment]
    # Defaults are those of the definition.
    referees.asked.__kwdefaults__.update(attacked=6, directions=(1, 16))
    for measure in (transfer.judge, transfer.inherited):
        measure.__kwdefaults__.update(attacked=6)


def swept(name: str, configs: list[Config], out: Path) -> pandas.DataFrame:
    return studies.sweep(STUDIES[name], configs, out, progress=False)


def dies_at(count: int) -> None:
    """Let the process be killed when that many rows are written, but not yet there."""
    replace: Callable[[Any, Any], None] = os.replace
    written = 0

    def dying(source: Any, target: Any) -> None:
        nonlocal written
        written += 1
        if written == count:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    engine.os.replace = dying  # type: ignore[assignment]


def through(out: Path) -> None:
    """Sweep everything in one process, from the last run to the first."""
    for name in reversed(PICKED):
        swept(name, grid(name)[::-1], out)


def killed(name: str, out: Path) -> None:
    """Sweep a study, and be killed at its second row."""
    dies_at(2)
    swept(name, grid(name), out)


def resumed(name: str, out: Path) -> None:
    """Go on after a kill, which has left a row and a part of the next."""
    kinds = [file.suffix for file in (out / name).iterdir()]
    assert sorted(kinds) == [".json", ".part"], kinds
    swept(name, grid(name), out)


# A fresh interpreter has one thread, and its forks cost no import.
SCRIPT = """
import os, sys
from pathlib import Path
from tests.unit import test_resume as ours
ours.shrink()
whole, out = map(Path, sys.argv[1:])
for name in ours.PICKED:
    for act, ends in ((ours.killed, -9), (ours.resumed, 0)):
        child = os.fork()
        if child == 0:
            try:
                act(name, out)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == ends, (name, status)
ours.through(whole)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the two folders of results, of what ran through and what was killed."""
    found = {how: tmp_path_factory.mktemp(how) for how in ("through", "killed")}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, found.values())],
        cwd=ROOT,
        # One thread: only such a process may fork.
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=True,
    )
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("name", PICKED)
def test_killed_and_resumed_it_gives_the_same_table(
    name: str, folders: dict[str, Path]
) -> None:
    tables = []
    for out in folders.values():
        table = studies.results(out, STUDIES[name]).drop(columns=[*PROVENANCE])
        keys = [key for key in grid(name)[0] if key in table]
        tables.append(table.sort_values(keys).reset_index(drop=True))
    whole, resumed = tables
    assert len(whole) >= 2 and set(whole) == set(resumed)
    # To the last bit, NaN where nothing was measured.
    pandas.testing.assert_frame_equal(whole, resumed[list(whole)], check_exact=True)
