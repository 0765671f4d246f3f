"""Importing crlib is quick and quiet; profiles, versions and public names."""

import ast
import importlib
import inspect
import math
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import crlib
from crlib import exercises

DEPENDS = ("crlib", "CITATION.cff", "CHANGELOG.md")
ROOMS = [name for name in dir(crlib) if name not in crlib.__all__]


def run(code: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout


def test_importing_crlib_is_quick_and_leaves_torch_alone() -> None:
    code = (
        "import sys, time; t = time.process_time(); import crlib;"
        "print(time.process_time() - t, *sys.modules)"
    )
    # The best of three: another process may hold the files.
    runs = [run(code).split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.3
    for heavy in ("torch", "numpy", "scipy", "matplotlib", "requests", "pooch"):
        assert heavy not in runs[0][1:]


def test_using_a_room_imports_it() -> None:
    code = "import crlib, sys; crlib.metrics; print('torch' in sys.modules)"
    assert run(code).strip() == "True"
    for name in ROOMS:
        assert getattr(crlib, name) is importlib.import_module(f"crlib.{name}")


def test_importing_every_room_asks_no_host() -> None:
    code = (
        "import socket, importlib\n"
        "def refuse(*_): raise SystemExit('a host was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        f"for name in {ROOMS}: importlib.import_module('crlib.' + name)\n"
        "print('quiet')"
    )
    assert run(code).strip() == "quiet"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="'crlib' has no attribute 'attack'"):
        _ = crlib.attack
    with pytest.raises(AttributeError, match="has no attribute 'ch99'"):
        _ = exercises.ch99


@pytest.mark.parametrize("room", [*ROOMS, "version"])
def test_every_public_name_exists_and_is_documented(room: str) -> None:
    module = importlib.import_module(f"crlib.{room}")
    for name in getattr(module, "__all__", []):
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{room}.{name} has no docstring"


def test_the_attacks_stay_small_enough_to_be_read_aloud() -> None:
    files = (Path(crlib.__file__).parent / "attacks").glob("*.py")
    trees = [ast.parse(file.read_text()) for file in files]
    statements = sum(isinstance(n, ast.stmt) for tree in trees for n in ast.walk(tree))
    assert len(trees) > 5 and 500 < statements <= 1600


def test_the_profile_chooses_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crlib.profile() == "quick" and crlib.by_profile(quick=1, full=2) == 1
    monkeypatch.setenv("CRLIB_PROFILE", "full")
    assert crlib.profile() == "full" and crlib.by_profile(quick=1, full=2) == 2
    monkeypatch.setenv("CRLIB_PROFILE", "fast")
    with pytest.raises(ValueError, match="'quick'.*'full'"):
        crlib.by_profile(quick=1, full=2)


@pytest.mark.parametrize(
    ("library", "notebook", "fits"),
    [
        ("0.2.0", "0.2.0", True),
        ("0.2.3", "0.2.0", True),
        ("0.2.0", "0.2.3", False),
        ("0.2.0", "0.3.0", False),
        ("0.3.0", "0.2.0", False),
        ("1.2.0", "0.2.0", False),
        ("0.10.0", "0.9.0", False),
        ("0.2.10", "0.2.9", True),
        ("0.2.0.dev0", "0.2.0.dev0", True),
        ("0.2.0.dev2", "0.2.0.dev1", True),
        ("0.2.0.dev1", "0.2.0.dev2", False),
        ("0.2.0.dev1", "0.2.0", False),
        ("0.2.0", "0.2.0.dev1", True),
        ("0.1.0", "0.2.0.dev0", False),
    ],
)
def test_a_notebook_of_another_release_or_a_newer_one_is_refused(
    library: str, notebook: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crlib, "__version__", library)
    if fits:
        return crlib.require(notebook)
    with pytest.raises(ImportError, match=f"{notebook} and found {library}. Install"):
        crlib.require(notebook)


@pytest.mark.parametrize("text", ["", "0.1", "v0.1.0", "0.1.0rc1", "main"])
def test_what_is_no_version_is_refused(text: str) -> None:
    crlib.require(crlib.__version__)
    with pytest.raises(ValueError, match="no version: write it as '0.1.0'"):
        crlib.require(text)


def assert_positive(answer: object) -> None:
    assert answer() > 0, "The answer must be positive."


def assert_silently(answer: object) -> None:
    if not answer() > 0:
        raise AssertionError


def assert_seven(answer: object) -> None:
    assert answer() == 7, "Not seven."


def assert_three(answer: object) -> None:
    assert answer().shape == (3,), "Not three."


def assert_refusal(answer: object) -> None:
    with pytest.raises(ValueError):
        answer()
    raise AssertionError("It is refused, and yet positive.")


def unwritten() -> int:
    raise NotImplementedError


def unwilling() -> int:
    raise ValueError


def fail(reason: str) -> None:
    raise AssertionError(reason)


class Anything:
    """Equals whatever it is compared with."""

    __hash__ = None

    def __eq__(self, _: object) -> bool:
        return True


class Number(float):
    """Equals every number."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float)


def test_check_lets_a_user_interrupt() -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check(assert_positive, interrupted)


@pytest.mark.parametrize(
    ("test", "answer", "passed", "message"),
    [
        (assert_positive, lambda: 1, True, "Passed."),
        (assert_positive, lambda: -1, False, "The answer must be positive."),
        (assert_silently, lambda: -1, False, "An assertion of the test failed."),
        (assert_positive, unwritten, False, "Not written yet."),
        (assert_positive, lambda: 1 / 0, False, "ZeroDivisionError: division by zero"),
        (assert_positive, None, False, "test cannot use what your code gives: Type"),
        (assert_positive, lambda: "1", False, "function returned, a str .TypeError"),
        (assert_positive, lambda: None, False, "returned None: did you forget"),
        (assert_silently, lambda: None, False, "returned None: did you forget"),
        (assert_positive, lambda: fail("mine"), False, "Your code raised Ass.*mine"),
        (assert_positive, lambda: sys.exit(3), False, "Your code raised SystemExit: 3"),
        (assert_refusal, unwilling, False, "It is refused, and yet positive."),
        (assert_seven, lambda: 7, True, "Passed."),
        (assert_seven, lambda: (7, torch.ones(3), math.nan), False, "Not seven."),
        (assert_three, lambda: torch.ones(3), True, "Passed."),
        (assert_three, lambda: np.ones(2), False, "Not three."),
        (assert_three, lambda: [1.0], False, "function returned, a list .Attribute"),
        (assert_seven, lambda: torch.ones(3), False, "a Tensor of shape .3,. .Runtime"),
        (assert_seven, Anything, False, "returned an Anything: return a tensor"),
        (assert_seven, lambda: Number(), False, "returned a Number: return a tensor"),
        (assert_seven, lambda: [7, {"a": Anything()}], False, "returned an Anything"),
        (assert_seven, lambda: np.array(Anything()), False, "returned a NumPy array"),
    ],
)
def test_check_reports_and_never_raises(
    test: object, answer: object, passed: bool, message: str
) -> None:
    found = exercises.check(test, answer)
    assert found.passed is passed
    assert re.search(message, found.message)
    assert repr(found).startswith("✓" if passed else "✗")


def test_grade_raises_what_check_says() -> None:
    assert exercises.grade(assert_positive, lambda: 1) is None
    for answer in (lambda: -1, lambda: sys.exit(), unwritten, None):
        said = exercises.check(assert_positive, answer).message
        with pytest.raises(AssertionError, match=re.escape(said)):
            exercises.grade(assert_positive, answer)


@pytest.mark.parametrize(
    "value", [None, 1, 2.5, 1j, "a", np.float32(1), torch.ones(2), np.ones(2)]
)
def test_plain_values_are_themselves(value: object) -> None:
    assert exercises.plain(value) is value


def test_what_holds_plain_values_is_built_anew() -> None:
    for value in ([1, (2, "b")], {"a": {1, 2}}, frozenset({1.5})):
        assert exercises.plain(value) == value
    # torch returns named tuples, whose class could be anybody's.
    found = exercises.plain(torch.ones(2, 3).max(1))
    assert type(found) is tuple and found[0].shape == (2,)
    endless: list[object] = []
    endless.append(endless)
    assert not exercises.check(assert_positive, lambda: endless).passed


def test_the_papers_of_the_house_name_the_same_version() -> None:
    """Between two releases they name the last one, and what is not released yet."""
    root = Path(__file__).parents[2]
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    named = crlib.__version__
    if ".dev" in named:
        assert "## Unreleased\n" in changes
        named = re.findall(r"(?m)^## (\d.*)$", changes)[0]
    assert f"version: {named}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {named}\n" in changes


UNITS = sorted(module.name for module in pkgutil.iter_modules(exercises.__path__))


@pytest.mark.parametrize("unit", UNITS)
def test_exercises_of_a_unit_are_found_by_name(unit: str) -> None:
    expected = importlib.import_module(f"crlib.exercises.{unit}")
    assert getattr(exercises, unit) is expected
    public = {
        name
        for name, thing in vars(expected).items()
        if inspect.isfunction(thing)
        and thing.__module__ == expected.__name__
        and not name.startswith("_")
    }
    assert public == set(expected.__all__)


def test_results_show_themselves_in_a_line() -> None:
    x = torch.rand(256, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Flatten()
    y = model(x).argmax(1)
    found = crlib.attacks.fgsm(model, x, y, eps=0.01)
    for result in (found, crlib.attacks.universal(model, x[:8], y[:8], eps=0.01)):
        assert len(repr(result)) < 200 and "linf" in repr(result)
    assert f"{int(found.success.sum())} fooled" in repr(found)
    assert "256 samples" in repr(found)
