"""Faults planted for the tools: style, types, coverage, and the tests of crlib."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPENDS = ("pyproject.toml", "crlib", "tests/unit")
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "pyproject.toml"


def run(
    *arguments: str, folder: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("code", "wrong"), [("x = 1\n", False), ("import os\n", True), ("x  = 1;\n", True)]
)
def test_style(tmp_path: Path, code: str, wrong: bool) -> None:
    file = tmp_path / "planted.py"
    file.write_text(code)
    result = run("ruff", "check", "--config", str(CONFIG), str(file))
    assert bool(result.returncode) is wrong, result.stdout


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("def f(x: int) -> int:\n    return x\n", False),
        ("def f(x):\n    return x\n", True),
        ("def f(x: int) -> str:\n    return x\n", True),
    ],
)
def test_types(tmp_path: Path, code: str, wrong: bool) -> None:
    file = tmp_path / "planted.py"
    file.write_text(code)
    cache = str(tmp_path / "cache")
    result = run("mypy", "--config-file", str(CONFIG), "--cache-dir", cache, str(file))
    assert bool(result.returncode) is wrong, result.stdout


def test_coverage(tmp_path: Path) -> None:
    result = run(
        "pytest",
        "tests/unit/test_claims.py",
        "--cov=crlib",
        "--cov-branch",
        "--cov-fail-under=95",
        COVERAGE_FILE=str(tmp_path / "coverage"),
    )
    assert result.returncode
    assert "Required test coverage" in result.stdout


FAULTS = {
    "a projection that forgets the box": (
        "attacks/balls.py",
        "self.x + reach, out=z).clamp_(0, 1)",
        "self.x + reach, out=z)",
        "test_projection.py",
    ),
    "an entropy in place of a rank": (
        "metrics.py",
        "torch.special.entr(p).sum().exp()",
        "torch.special.entr(p).sum()",
        "test_metrics.py",
    ),
    "a dual norm made primal": (
        "theory/linear.py",
        '"linf": math.inf, "l2": 2, "l1": 1, "l0": 0',
        '"linf": 1, "l2": 2, "l1": math.inf, "l0": 0',
        "test_linear.py",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unit_tests(tmp_path: Path, fault: str) -> None:
    module, good, bad, tests = FAULTS[fault]
    shutil.copytree(ROOT / "crlib", tmp_path / "crlib")
    file = tmp_path / "crlib" / module
    source = file.read_text()
    assert source.count(good) == 1
    file.write_text(source.replace(good, bad))
    # The working directory comes first on the path, since the tests' own home is
    # appended to it: there the faulty copy lies.
    tests = str(ROOT / "tests" / "unit" / tests)
    result = run("pytest", "--import-mode=append", tests, "-x", "-q", folder=tmp_path)
    assert result.returncode == 1, result.stdout
