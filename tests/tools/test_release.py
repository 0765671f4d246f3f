"""One place knows the address; no placeholder, number or tag is released wrongly."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

import crlib
from book._ext import reading
from book._tools import notebooks, release
from book._tools.units import Unit

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/canary/sample"
DEPENDS = ("tests/canary/sample", "book/_tools", "book/_ext", "_config.yml")


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "tag.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *words], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small book that may be released as 0.3.0."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@b.c")
    copy = tmp_path / "small"
    shutil.copytree(SAMPLE, copy)
    (copy / "crlib").mkdir()
    (copy / "crlib/version.py").write_text('__version__ = "0.3.0"\n')
    (copy / "CITATION.cff").write_text("version: 0.3.0\n")
    (copy / "CHANGELOG.md").write_text("# Changelog\n\n## 0.3.0\n\n- All of it.\n")
    assert release.main(["--root", str(copy), "address", "owner/a-book"]) == 0
    git(copy, "init", "-q")
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "All of it")
    return copy


def plant(root: Path, name: str, find: str, replace: str) -> None:
    text = (root / name).read_text()
    assert text.count(find) == 1
    (root / name).write_text(text.replace(find, replace))


def test_the_address_goes_to_every_place_at_once(root: Path) -> None:
    assert release.address(root) == "owner/a-book"
    settings = yaml.safe_load((root / "_config.yml").read_text())
    assert settings["repository"]["url"] == "https://github.com/owner/a-book"
    notebook = (root / "chapters/07_sample.ipynb").read_text()
    assert "git+https://github.com/owner/a-book@v0.3.0" in notebook
    assert "example-org" not in notebook and notebooks.differences(root) == []


@pytest.mark.parametrize(
    "text", ["a/b.c", "https://github.com/a/b.c", "https://github.com/a/b.c.git"]
)
def test_an_address_is_taken_as_people_have_it(root: Path, text: str) -> None:
    release.set_address(root, text)
    assert release.address(root) == "a/b.c"


@pytest.mark.parametrize("text", ["", "owner", "a/b/c", "https://example.org/a/b"])
def test_what_is_no_address_is_refused_and_nothing_is_written(
    root: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (root / "_config.yml").read_text()
    assert release.main(["--root", str(root), "address", text]) == 1
    assert "make address ADDRESS=owner/name" in capsys.readouterr().err
    assert (root / "_config.yml").read_text() == before


def test_a_release_is_tagged_once(root: Path) -> None:
    options = ["--root", str(root), "check", "--repository", "owner/a-book"]
    assert release.main([*options, "--tag", "v0.3.0"]) == 0
    assert release.main(["--root", str(root), "tag"]) == 0
    assert git(root, "tag") == "v0.3.0"
    assert git(root, "rev-parse", "v0.3.0^{commit}") == git(root, "rev-parse", "HEAD")
    assert release.main(["--root", str(root), "tag"]) == 1


FAULTS: dict[str, tuple[tuple[str, str, str], str]] = {
    "placeholder": (("_config.yml", "owner/", "example-org/"), "no address yet"),
    "development": (("crlib/version.py", "0.3.0", "0.3.0.dev4"), "says 0.3.0.dev4"),
    "citation": (("CITATION.cff", "0.3.0", "0.2.0"), "CITATION.cff does not say"),
    "changelog": (("CHANGELOG.md", "0.3.0", "Unreleased"), "no section 0.3.0"),
    "notebooks": (("crlib/version.py", "0.3.0", "0.3.1"), "out of date"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_stands_against_a_release_is_named(
    root: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place, message = FAULTS[name]
    plant(root, *place)
    if name == "placeholder":
        options = ["--root", str(root), "address", "--is", "example-org/a-book"]
        assert release.main(options) == 1
    for part in ("check", "tag"):
        assert release.main(["--root", str(root), part]) == 1
        assert message in capsys.readouterr().err
    assert git(root, "tag") == ""


def test_another_repository_and_another_tag_are_named(root: Path) -> None:
    assert release.faults(root, "owner/a-book", "v0.3.0") == []
    (other,) = release.faults(root, repository="fork/a-book")
    assert "says owner/a-book, this is fork/a-book" in other
    for repository, status in (("owner/a-book", 0), ("fork/a-book", 1)):
        options = ["--root", str(root), "address", "--is", repository]
        assert release.main(options) == status
    assert release.address(root) == "owner/a-book"
    (wrong,) = release.faults(root, tag="v0.4.0")
    assert "v0.4.0 is not v0.3.0" in wrong


def test_what_is_not_committed_is_not_tagged(root: Path) -> None:
    (root / "new.txt").write_text("new")
    (fault,) = release.make_tag(root, "0.3.0")
    assert "not committed" in fault and git(root, "tag") == ""


@pytest.mark.parametrize(
    ("version", "at"), [("0.3.0", "v0.3.0"), ("0.4.0.dev1", "main")]
)
def test_notebooks_and_buttons_lead_to_the_same_place(
    root: Path, version: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release leads to its tag; between two releases both lead to the branch."""
    (root / "crlib/version.py").write_text(f'__version__ = "{version}"\n')
    files, _ = notebooks.derive(notebooks.load(root))
    assert f"git+https://github.com/owner/a-book@{at}" in files["07_sample.ipynb"]
    monkeypatch.setattr(reading, "__version__", version)
    theme = {"repository_url": "https://github.com/o/b", "repository_branch": "main"}
    app: Any = SimpleNamespace(config=SimpleNamespace(html_theme_options=theme))
    unit = Unit.of("book/ch07_sample")
    assert unit is not None
    for address in reading.ways_to_run(app, unit).values():
        assert f"/{at}" in address


def run_first_cell(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the first cell of a notebook as on Colab; return the magics it calls."""
    files, _ = notebooks.derive(notebooks.load(root))
    cell = notebooks.nbformat.reads(files["07_sample.ipynb"], as_version=4).cells[0]
    typed: list[str] = []
    shell = SimpleNamespace(run_line_magic=lambda *words: typed.append(" ".join(words)))
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("colab"))
    source = TransformerManager().transform_cell(cell.source)
    exec(compile(source, "cell", "exec"), {"get_ipython": lambda: shell})
    return typed


def test_a_first_cell_installs_what_it_then_requires(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crlib, "__version__", "0.3.0")
    (line,) = run_first_cell(root, monkeypatch)
    source = '"crlib @ git+https://github.com/owner/a-book@v0.3.0"'
    assert line == f"pip install -q {source}"
    monkeypatch.setattr(crlib, "__version__", "0.3.0.dev1")
    with pytest.raises(ImportError, match="written for crlib 0.3.0 and found 0.3.0.d"):
        run_first_cell(root, monkeypatch)


def test_a_first_cell_whose_installation_failed_stops_with_what_to_type(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "crlib", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        run_first_cell(root, monkeypatch)
    what = "pip install 'crlib @ git+https://github.com/owner/a-book@v0.3.0'"
    assert what in str(raised.value) and raised.value.__suppress_context__
