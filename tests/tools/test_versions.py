"""What an installation asks for: no more than Colab has, and bounds that can be run."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from book._tools import lowest

ROOT = Path(__file__).parents[2]
DEPENDS = (
    *("pyproject.toml", "requirements.lock", "environment.yml", "tests/colab.txt"),
    *("crlib", "Makefile", "_config.yml"),
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
NEEDED = [Requirement(text) for text in PROJECT["project"]["dependencies"]]


def pins(file: str) -> dict[str, str]:
    """Read the lines ``name==version`` of a file."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line[:1] not in ("#", ""))
    return {canonicalize_name(name): version for name, version in pairs}


def refused(needed: list[Requirement], have: dict[str, str]) -> list[str]:
    """Return the requirements that an installation would have to meet anew."""
    return [
        str(need)
        for need in needed
        if canonicalize_name(need.name) not in have
        or have[canonicalize_name(need.name)] not in need.specifier
    ]


def test_an_installation_on_colab_changes_nothing_but_crlib() -> None:
    assert not refused(NEEDED, pins("tests/colab.txt"))


def test_what_colab_has_fits_itself() -> None:
    """A list copied wrongly would prove nothing: IPython 7 goes with ipykernel 6."""
    colab = pins("tests/colab.txt")
    assert Version(colab["ipython"]) < Version("8")
    assert Version(colab["ipykernel"]) < Version("7")
    assert Version(colab["ipywidgets"]) < Version("8")
    assert {canonicalize_name(need.name) for need in NEEDED} < set(colab)


@pytest.mark.parametrize("text", ["ipython>=8", "ipywidgets>=8.1", "gym>=0.26"])
def test_a_requirement_that_colab_does_not_meet_is_noticed(text: str) -> None:
    assert refused([*NEEDED, Requirement(text)], pins("tests/colab.txt")) == [text]


def test_the_pins_meet_the_bounds() -> None:
    """Of all that ``make lock`` asks for; the tests of a cluster need ``scale``."""
    asked = re.search(r"-e \.\[([\w,]+)\]", (ROOT / "Makefile").read_text("utf-8"))
    assert asked
    extras = asked[1].split(",")
    assert set(extras) == {"book", "test", "scale"}
    known = PROJECT["project"]["optional-dependencies"]
    needed = [Requirement(text) for extra in extras for text in known[extra]]
    assert not refused([*NEEDED, *needed], pins("requirements.lock"))


def test_the_lowest_versions_are_the_bounds() -> None:
    found = dict(line.split("==") for line in lowest.constraints(ROOT))
    assert set(found) == {need.name for need in NEEDED}
    assert found["joblib"] == "1.4" and found["matplotlib"] == "3.8.4"
    for need in NEEDED:
        assert found[need.name] in need.specifier
        (bound,) = (s for s in need.specifier if s.operator == ">=")
        assert bound.version == found[need.name]


@pytest.mark.parametrize(
    ("name", "known_to_fail"),
    [("joblib", "1.3.2"), ("scipy", "1.11.4"), ("matplotlib", "3.8.0")],
)
def test_versions_that_were_run_and_failed_are_not_admitted(
    name: str, known_to_fail: str
) -> None:
    (need,) = (need for need in NEEDED if need.name == name)
    assert known_to_fail not in need.specifier


@pytest.mark.parametrize("requirement", ["numpy", "numpy==2.0", "numpy<3"])
def test_a_requirement_without_a_lower_bound_is_refused(
    tmp_path: Path, requirement: str
) -> None:
    text = f'[project]\ndependencies = ["{requirement}"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ValueError, match="no lower bound"):
        lowest.constraints(tmp_path)


def test_the_licence_is_written_as_setuptools_wants_it() -> None:
    """The table that was there before is refused from February 2027 on."""
    assert isinstance(PROJECT["project"]["license"], str)
    (builder,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert builder.name == "setuptools" and "76.9" not in builder.specifier
    for file in PROJECT["project"]["license-files"]:
        assert (ROOT / file).is_file()


def test_binder_has_the_torch_of_the_pins() -> None:
    text = (ROOT / "environment.yml").read_text("utf-8")
    assert f"torch=={pins('requirements.lock')['torch']}\n" in text


def test_the_wheel_holds_every_folder_and_file_of_crlib() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    held: dict[str, list[str]] = {}  # the files of each package
    for path in (ROOT / "crlib").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            package = ".".join(path.relative_to(ROOT).parent.parts)
            held.setdefault(package, []).append(path.name)
    assert sorted(held) == sorted(setuptools["packages"])
    for package, names in held.items():
        patterns = ["*.py", *setuptools["package-data"].get(package, ())]
        for name in names:
            assert any(fnmatch(name, pattern) for pattern in patterns), (package, name)


def test_no_environment_is_taken_for_pages() -> None:
    """Packages bring texts of their own, whose warnings would end the build."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    made = re.findall(r"^\w*VENV := (\S+)$", makefile, re.MULTILINE)
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    left_out = config["exclude_patterns"]
    assert len(made) == 2
    assert all(any(fnmatch(name, pattern) for pattern in left_out) for name in made)
