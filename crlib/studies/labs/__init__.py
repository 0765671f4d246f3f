"""What the labs train, five seeds each: one module a lab, one table for all.

A module ``labNN`` holds ``SETTINGS``, the configurations of its lab without seed, and
``run(config, images)``, which returns the numbers of one of them.
"""

import importlib
import pkgutil
from types import ModuleType

from crlib.data import Dataset
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS

__all__ = ["STUDY"]


def _labs() -> dict[int, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {
        int(name.removeprefix("lab")): importlib.import_module(f"{__name__}.{name}")
        for name in names
    }


_LABS = _labs()


def _run(config: Config, device: str) -> Numbers:
    images: Dataset = SETS[config["data"]]().to(device)
    found: Numbers = _LABS[config["lab"]].run(config, images)
    return found


def _grid(seeds: int) -> list[Config]:
    return [
        {"lab": number, **setting, "seed": seed, "data": "sample"}
        for number, module in _LABS.items()
        for setting in module.SETTINGS
        for seed in range(seeds)
    ]


STUDY = Study(
    name="labs",
    run=_run,
    grids={"quick": _grid(5), "full": _grid(10)},
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
