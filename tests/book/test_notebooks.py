"""The notebooks in chapters/ equal a fresh derivation, and a runner can use them."""

import functools
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from book._tools import leaks, manuscript, notebooks, run
from tests.book import lints

ROOT = Path(__file__).parents[2]
DEPENDS = ("_config.yml", "book", "chapters", "crlib/version.py")
BOOK = notebooks.load(ROOT)
NAMES = [f"{m.unit.notebook}.ipynb" for m in BOOK.chapters if m.unit]


@functools.cache
def derived() -> tuple[dict[str, str], list[str]]:
    """Only where a test asks: every worker collects this file."""
    return notebooks.derive(BOOK)


def test_every_chapter_has_a_notebook() -> None:
    files, problems = derived()
    assert not problems, "\n".join(problems)
    assert list(files) == NAMES


def test_notebooks_are_up_to_date() -> None:
    problems = notebooks.outdated(ROOT, derived()[0])
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", NAMES)
def test_notebook(name: str) -> None:
    notebook = nbformat.reads(derived()[0][name], as_version=4)
    nbformat.validate(notebook)
    hidden = [c.body for m in BOOK.chapters for c in m.tagged("hidden-test")]
    problems = lints.lint_notebook(notebook, name, BOOK.macros, hidden)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", NAMES)
def test_the_cells_of_a_page_are_those_of_its_notebook(name: str) -> None:
    stem = Path(name).stem
    (book,) = (m for m in BOOK.chapters if m.unit and m.unit.notebook == stem)
    cells = run.code(nbformat.reads(derived()[0][name], as_version=4))
    shown = [cell for cell in run.code(run.read(book.path)) if not run.is_hidden(cell)]
    # What belongs to a solution comes last, in its order.
    _, solutions = notebooks.apart(book.blocks)
    last = {block.body for block in solutions if block.kind == "cell"}
    page = sorted((cell.source for cell in shown), key=last.__contains__)
    assert [cell.source for cell in cells[1:]] == page


def test_the_right_option_stands_in_each_place_about_equally_often() -> None:
    places = Counter(
        [right for _, right, _ in notebooks.options(block)].index(True)
        for book in BOOK.chapters
        for block in manuscript.walk(book.blocks)
        if block.name == "predict" and len(notebooks.options(block)) == 3
    )
    assert len(places) == 3
    assert max(places.values()) < 2 * min(places.values()), places


MACROS = {"R": r"\mathbb{R}", "norm": [r"\lVert #1 \rVert", 1], "x": r"\mathbf x"}


@pytest.mark.parametrize(
    ("tex", "plain"),
    [
        (r"\R^d", r"\mathbb{R}^d"),
        (r"\Re x", r"\Re x"),
        (r"2^\R", r"2^{\mathbb{R}}"),
        (r"\norm{a_{1}}_2", r"\lVert a_{1} \rVert_2"),
        (r"\norm{\norm\x}", r"\lVert \lVert \mathbf x \rVert \rVert"),
        (r"\norm v", r"\lVert v \rVert"),
        (r"\norm \x", r"\lVert \mathbf x \rVert"),
        (r"a \\R", r"a \\R"),
        (r"a \\\R", r"a \\\mathbb{R}"),
    ],
)
def test_macros_are_written_out(tex: str, plain: str) -> None:
    assert notebooks.expand(tex, MACROS) == plain


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"{\c{S}}im{\c{s}}ekli", "Şimşekli"),
        (r"Ant{\^o}nio", "Antônio"),
        (r"M{\k{a}}dry", "Mądry"),
        (r"Schotth{\"o}fer", "Schotthöfer"),
        (r"R{\'e}mi {\L}ukasz Stra{\ss}e", "Rémi Łukasz Straße"),
    ],
)
def test_names_are_plain_text(tex: str, text: str) -> None:
    assert manuscript.plain(tex) == text


def test_every_solution_is_a_secret_and_seen_where_it_is_shown() -> None:
    known = leaks.secrets(BOOK, tests=False)
    exercises_of = {
        f"{m.unit.name}, {block.label}"
        for m in BOOK.chapters
        for block in m.blocks
        if m.unit and block.name == "exercise-start"
    }
    assert set(known) == exercises_of
    told = leaks.found([ROOT / "chapters"], known)
    seen = {line.partition("gives away ")[2].partition(":")[0] for line in told}
    assert seen == exercises_of
