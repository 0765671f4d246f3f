"""Solutions and hidden tests planted in what students get: each must be found."""

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crlib
from book._tools import assignment, leaks, notebooks, student

DEPENDS = ("tests/canary/sample", "book/_tools", "crlib/grading", "_config.yml")
SAMPLE = Path(__file__).parent / "sample"
SOLUTION = "    return sum(map(abs, reversed(list(v))))"
TEST = 'assert f([0], [5 + seed % 5]) == 0, "Nothing times five is nothing."'
COLOURED = (
    '<pre><span class="k">return</span> <span class="nb">sum</span>(<span>map</span>'
    '(<span class="nb">abs</span>, <b>reversed</b>(list(v))))</pre>'
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small book whose exercises have solutions and hidden tests."""
    copy = tmp_path / "book"
    shutil.copytree(SAMPLE, copy)
    # Its own first solution is what the set-up shows already.
    page = copy / "book" / "ch07_sample.md"
    text = page.read_text(encoding="utf-8")
    theirs = "def sum_abs(v):\n    return sum(abs(x) for x in v)"
    assert text.count(theirs) == 1
    text = text.replace(theirs, f"def sum_abs(v):\n{SOLUTION}")
    page.write_text(text, encoding="utf-8")
    (copy / "crlib").mkdir()
    version = f'__version__ = "{crlib.__version__}"\n'
    (copy / "crlib" / "version.py").write_text(version, encoding="utf-8")
    return copy


@pytest.fixture
def known(root: Path) -> dict[str, frozenset[str]]:
    return leaks.secrets(notebooks.load(root))


def test_every_secret_is_known(known: dict[str, frozenset[str]]) -> None:
    labels = [f"ch07, {label}" for label in ("ex-sum", "ex-max", "ex-dot")]
    tests = [f"{label}, the hidden test" for label in labels]
    assert set(known) == {*labels, *tests, "ch07, ex-claim", "ch07, ex-equal"}
    assert leaks.squeezed(SOLUTION) in known["ch07, ex-sum"]


def notebook(**cell: Any) -> str:
    told = {"cell_type": "code", "source": ["x = 1"], "metadata": {}, "outputs": []}
    return json.dumps({"cells": [told | cell]})


PLANTED: dict[str, tuple[str, str]] = {
    "a cell": ("a.ipynb", notebook(source=["def f(v):\n", SOLUTION])),
    "escapes": ("a.ipynb", notebook(source=SOLUTION).replace("(", "\\u0028")),
    "metadata": ("a.ipynb", notebook(metadata={"was": SOLUTION})),
    "an output": ("a.ipynb", notebook(outputs=[{"data": {"text/plain": [TEST]}}])),
    "colours of syntax": ("page.html", COLOURED),
    "entities": ("page.html", TEST.replace('"', "&quot;").replace("=", "&#61;")),
    "a source": ("_sources/page.md.txt", f"```\n{SOLUTION}\n```"),
    "the search index": ("searchindex.js", f'Search.setIndex({{"t":"{SOLUTION}"}})'),
    "a pack": ("pack.json", json.dumps({"tests": TEST})),
}


@pytest.mark.parametrize("where", PLANTED)
def test_what_is_planted_is_found(
    known: dict[str, frozenset[str]], tmp_path: Path, where: str
) -> None:
    name, text = PLANTED[where]
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (told,) = leaks.found([tmp_path / "out"], known)
    assert "ex-sum" in told or "ex-dot, the hidden test" in told
    packed = tmp_path / "g.zip"
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr(name, text)
    with zipfile.ZipFile(packed, "w") as outer:
        outer.write(tmp_path / "w.whl", "w.whl")
    (told,) = leaks.found([packed], known)
    assert "g.zip: w.whl" in told, "a wheel in a zip"


def test_the_labels_of_a_site_are_read(
    known: dict[str, frozenset[str]], tmp_path: Path
) -> None:
    packed = zlib.compress(f"{SOLUTION} std:label 1 page.html -".encode())
    (tmp_path / "objects.inv").write_bytes(b"# one\n# two\n# three\n# four\n" + packed)
    assert leaks.found([tmp_path], known)


@pytest.mark.parametrize(
    ("seed", "text", "is_found"),
    [
        (7, '{"seed": 7}', True),
        (7, '{"points": 7, "seed": 0}', False),
        (20261129, "draw(seed=20261129)", True),
        (20261129, "draw(seed=20261130)", False),
    ],
)
def test_the_seed_of_a_course_is_found(
    tmp_path: Path, seed: int, text: str, is_found: bool
) -> None:
    (tmp_path / "a.json").write_text(text)
    assert bool(leaks.found([tmp_path], {}, seed)) == is_found


def test_a_student_edition_without_secrets_passes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--root", str(root), "--out", str(tmp_path / "out")]
    assert student.main(line) == 0
    text = (tmp_path / "out/notebooks/07_sample.ipynb").read_text(encoding="utf-8")
    assert "raise NotImplementedError" in text and "reversed" not in text
    assert leaks.main([str(tmp_path / "out"), "--root", str(root)]) == 0
    assert "8 secrets, 0 given away" in capsys.readouterr().out


def together(apart: Callable[..., Any]) -> Callable[..., Any]:
    """Forget to take the solutions out."""
    return lambda blocks: (list(blocks), [])


def test_a_notebook_with_its_solutions_is_not_handed_out(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(notebooks, "apart", together(notebooks.apart))
    line = ["--root", str(root), "--out", str(tmp_path / "out")]
    assert student.main(line) == 1
    assert "07_sample.ipynb gives away ch07, ex-sum: " in capsys.readouterr().out


def test_an_assignment_with_its_solutions_is_not_handed_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(notebooks, "apart", together(notebooks.apart))
    assert assignment.main(["lab03", "--out", str(tmp_path / "out")]) == 1
    assert "gives away lab03, " in capsys.readouterr().err


PAGE = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# A page

"""


def test_pages_are_built_without_secrets(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (root / "book" / "ch07_sample.md").read_text(encoding="utf-8")
    exercises = text.partition("## Exercises\n")[2].partition("## What to rem")[0]
    setup = "```{code-cell} ipython3\nfrom crlib import exercises\n```\n\n"
    small = tmp_path / "small"
    (small / "book").mkdir(parents=True)
    (small / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    (small / "book" / "page.md").write_text(PAGE + setup + exercises)
    (small / "book" / "references.bib").write_text("")
    html = student.pages(small, tmp_path / "work")
    assert html is not None
    known = leaks.secrets(notebooks.load(root))
    shown = leaks.squeezed((html / "book" / "page.html").read_text(encoding="utf-8"))
    assert "thesumofabsolutevalues" in shown, "the exercises stay"
    assert leaks.found([html], known) == []
    monkeypatch.setattr(student, "SECRET", student.re.compile("nothing of the kind"))
    with pytest.raises(notebooks.ManuscriptError, match="is left"):
        student.pages(small, tmp_path / "work")
