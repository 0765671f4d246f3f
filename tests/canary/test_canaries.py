"""The gates can fail: each finds its planted fault, and nothing in a good book."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

import crlib
from book._tools import gates, manuscript, notebooks
from tests.book import lints, symbols
from tests.units import Mutation, mutating

DEPENDS = ("tests/canary/sample", "book/_tools", "crlib/version.py")
SAMPLE = Path(__file__).parent / "sample"
CHAPTER = "book/ch07_sample.md"
WRONG = {
    "ex-sum": ["def sum_abs(v):\n    return sum(v)", "def sum_abs(v):\n    return 0"],
    "ex-max": ["def max_abs(v):\n    return max(v)"],
    "ex-dot": ["def inner(u, v):\n    return sum(u) * sum(v)"],
}
LONG = " ".join(["word"] * 50)

GLUED = 'glue("ch07_total", f"{total}")\n```\n\nThe sum is {glue:text}`ch07_total`.'
FOUR_MORE = " {glue:text}`ch07_total`" * 4

# (rule, find, replace): find occurs once in the good chapter.
FAULTS = [
    ("digits", "A dual norm bounds an", "A dual norm of 0.85 bounds an"),
    ("digits", "Length helps, and", "Length helps in 90 % of cases, and"),
    ("digits", "caption: Robust accuracy", "caption: A fall to 12 of robust accuracy"),
    ("digits", "Sum the terms of", "Sum the 3 terms of"),
    ("digits", "Use `zip`", "Use 2 lists and `zip`"),
    ("cells", "total = l1([1, 2, 3])", "x = 1\n" * 25 + "total = l1([1, 2, 3])"),
    ("cells", "total = l1([1, 2, 3])", f"total = l1([1, 2, 3])  # {'-' * 80}"),
    ("cells", "total = l1([1, 2, 3])", "total = l1([1, 2, 3]"),
    ("tags", ":tags: [claim]", ":tags: [claims, claim]"),
    ("card", "{chapter-card}", "{note}"),
    ("card", "- Explain why one bound is tight.\n", ""),
    ("card", ":needs: sums; [notation](notation.md)\n", ""),
    ("predicts", "{predict} Does a zero entry", "{note} Does a zero entry"),
    ("predicts", "- [x] Neither. ::", "- Neither. ::"),
    ("predicts", "- The long one. ::", "- [x] The long one. ::"),
    ("predicts", "- The short one. :: It has fewer entries.", "- The short one."),
    ("predicts", "{predict} Is the maximum a norm?", "{predict}"),
    ("theorems", ":label: thm-hoelder\n", ""),
    ("theorems", "[check-thm-hoelder]", "[check-thm-other]"),
    ("theorems", "[check-thm-hoelder]\nu, v",
     "[check-thm-hoelder]\nprint()\n```\n\n```{code-cell} ipython3\nu, v"),
    ("figures", "    name: fig-line\n", ""),
    ("figures", "{numref}`fig-line` shows", "A line shows"),
    ("figures", "alt: A line that falls from the upper left to the lower", "alt: A"),
    ("figures", "alt: A line that falls from", f"alt: {'A line ' * 50}"),
    ("figures", "alt: A line that falls from the upper left to the lower right corner.",
     r"alt: Robust accuracy against the radius $\epsilon$ in input units, in $\R$."),
    ("figures", "alt: A line that falls from the upper left to the lower right corner.",
     "alt: book/_build/jupyter_execute/book/ch07_sample_12_0.png"),
    ("figures", "$ in input units, in", "$ in"),
    ("figures", 'claim("The sum is six.", total == 6)',
     'claim("The sum is six.", total == 6)\nplt.subplots()\nplt.show()'),
    ("figures", "{explore} lens", "{explore} lense"),
    ("figures", "A layer with a boundary in $\\R$.", ""),
    ("figures", "{numref}`fig-turn` turns", "This turns"),
    ("digits", "A layer with a", "A layer of 2 rows with a"),
    ("sliders", 'claim("The sum is six.", total == 6)',
     'claim("The sum is six.", total == 6)\nframes.slider(draw, [1, 2], label="r")'),
    ("exercises", "stars-1 minutes-5", "stars-5 minutes-5"),
    ("exercises", "stars-1 minutes-5", "stars-1"),
    ("exercises", "minutes-5 points-2", "minutes-5"),
    ("exercises", "```{hint}\n:class: dropdown\nUse `zip`.\n```\n", ""),
    ("exercises", ":tags: [exercise, ex-dot]", ":tags: [ex-dot]"),
    ("exercises", ":tags: [public-test, ex-dot]", ":tags: [public-test]"),
    ("exercises", ":tags: [hidden-test, ex-dot, remove-cell]", ":tags: [remove-cell]"),
    ("exercises", ":tags: [hidden-test, ex-dot, remove-cell]",
     ":tags: [hidden-test, ex-dot]"),
    ("exercises", ":tags: [solution, ex-dot]", ":tags: [ex-dot]"),
    ("exercises", "{exercise-start} The product\n:label: ex-dot",
     "{exercise-start} The product\n:label: ex-other"),
    ("exercises", "{exercise-start} The product", "{note} The product"),
    ("exercises", ":class: derive stars-2", ":class: stars-2"),
    ("exercises", ":class: judge stars-1", ":class: stars-1"),
    ("exercises", ":class: change stars-1", ":class: derive stars-1"),
    ("exercises", "{solution-start} ex-claim", "{note} ex-claim"),
    ("exercises", "{admonition} Rubric", "{admonition} Marks"),
    ("exercises", "*Two points:* a vector", "*One point:* a vector"),
    ("failures", ":tags: [failure]\nassert", ":tags: [setup]\nassert"),
    ("failures", 'assert l1([]) == 0, "an', 'print("an'),
    ("failures", ":tags: [claim]", ":tags: [hide-input]"),
    ("failures", 'claim("The sum is six.", total == 6)', "print(total)"),
    ("sections", "## Background", "## Literature"),
    ("sections", "## What to remember", "## Summary"),
    ("sections", "## What could go wrong", "## Pitfalls"),
    ("sections", "# A sample chapter", "## A sample chapter"),
    ("leftovers", "The sum is {glue", "TODO: more. The sum is {glue"),
    ("sentences", "A dual norm bounds an", f"A dual norm {LONG} bounds an"),
    ("links", "The sum is {glue", "![plot](https://example.org/a.png) is {glue"),
    ("links", "The sum is {glue", '<img src="a.png"> is {glue'),
    ("links", "The sum is {glue", '<a href="nowhere.html">It</a> is {glue'),
    ("terms", "{term}`dual norm`", "{term}`predual norm`"),
    ("cited", "{cite:t}`duffin1952` study", "{cite:t}`duffin1953` study"),
    ("glued", "{glue:text}`ch07_total`", "{glue:text}`ch07_sum`"),
    ("intervals", GLUED, GLUED.replace('f"{total}"', 'gap.format(".2f")') + FOUR_MORE),
    ("intervals", GLUED, GLUED.replace('f"{total}"', "verdict(gap)") + FOUR_MORE),
    ("ends", 'claim("The sum is six.", total == 6)',
     'claim("The sum is six.", total == 6)\nclaim("So.", gap.low > 0.5)'),
    ("ends", 'claim("The sum is six.", total == 6)',
     'claim("The sum is six.", total == 6)\n'
     'claim("So.", 0.8 > max(gap.high for gap in gaps))'),
    ("spellings", "Length helps, and", "Length helps one per\ncent, and"),
    ("spellings", "Length helps, and", "Length helps in l2, and"),
    ("spellings", "Length helps, and", "As [the last chapter](notation.md) shows, and"),
    ("spellings", 'claim("The sum is six.", total == 6)',
     'claim("The sum is six.", total == 6)\nax.set_xlabel("l2 budget")'),
    ("spellings", 'glue("ch07_total", ', 'glue("ch07_total", f"{total:.0%}" + '),
    ("glued", "{glue:text}`ch07_total`", "six"),
    ("glued", 'glue("ch07_total"', 'glue("total"'),
    ("glued", 'glue("ch07_total"', 'glue("ch07_" + "total"'),
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a copy of the good small book, for the crlib at hand."""
    copy = tmp_path / "small"
    shutil.copytree(SAMPLE, copy)
    version = f'__version__ = "{crlib.__version__}"\n'
    (copy / "crlib").mkdir()
    (copy / "crlib/version.py").write_text(version, encoding="utf-8")
    return copy


def plant(root: Path, find: str, replace: str, name: str = CHAPTER) -> None:
    path = root / name
    text = path.read_text(encoding="utf-8")
    assert text.count(find) == 1, f"{find!r} occurs {text.count(find)} times"
    path.write_text(text.replace(find, replace), encoding="utf-8")


def problems(root: Path, rule: str | None = None) -> list[str]:
    shelf = lints.shelf(root)
    return lints.lint(shelf.chapters[0], shelf, [rule] if rule else None)


def test_good_book_is_clean(root: Path) -> None:
    shelf = lints.shelf(root)
    assert problems(root) == []
    assert lints.cell_lengths(shelf.chapters) == []
    assert lints.references(shelf) == []


def test_every_rule_has_a_fault() -> None:
    assert {rule for rule, _, _ in FAULTS} == set(lints.RULES)


@pytest.mark.parametrize(("rule", "find", "replace"), FAULTS)
def test_lint_finds_fault(root: Path, rule: str, find: str, replace: str) -> None:
    plant(root, find, replace)
    assert problems(root, rule)


SLIDER = """```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-moved
    caption: A line of a length to choose.
---
frames.slider(draw, [1, 2], label="length", alt=said, start=1)
```

{numref}`fig-moved` moves. The sum is {glue"""


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        (', label="length"', ""),
        (", alt=said", ""),
        (", start=1", ""),
        ("    name: fig-moved\n", ""),
        ("    caption: A line of a length to choose.\n", ""),
        ("{numref}`fig-moved` moves", "It moves"),
        (SLIDER.partition("frames")[0].partition("\n")[2], ""),
    ],
)
def test_a_slider_has_what_a_figure_has(root: Path, find: str, replace: str) -> None:
    plant(root, "The sum is {glue", SLIDER)
    assert problems(root) == []
    plant(root, find, replace)
    assert problems(root, "sliders") + problems(root, "figures")


@pytest.mark.parametrize(
    "name", ["CIFAR-10", "ResNet-18", "H100", "ViT-B-16", "$0.85$", "`0.85`"]
)
def test_names_and_formulas_are_no_typed_numbers(root: Path, name: str) -> None:
    plant(root, "A dual norm bounds an", f"A dual norm on {name} bounds an")
    assert problems(root, "digits") == []


def test_long_cells_over_the_book(root: Path) -> None:
    book = lints.shelf(root).chapters[0]
    for cell in book.cells:
        cell.body = "x = 1\n" * 20
    assert len(lints.cell_lengths([book])) == 2


def test_code_that_folds_asks_for_no_reading(root: Path) -> None:
    book = lints.shelf(root).chapters[0]
    for cell in book.cells:
        cell.options, cell.body = {}, "import math\n" * 20
    assert lints.cell_lengths([book]) == []


def test_references_unused_or_without_address(root: Path) -> None:
    (root / "book/references.bib").open("a").write("@misc{lost, title = {Lost}}")
    found = lints.references(lints.shelf(root))
    assert len(found) == 2
    assert all("lost" in problem for problem in found)


NOTATION = "book/notation.md"
# What the notation page must not do: lose a row, repeat one, keep one that is not used.
MISDECLARED = [
    ("| $u$ | vector of norm one |\n", "", "does not know u"),
    ("| $d$ | number", "| $x$ | output |\n| $d$ | number", "x has a row above"),
    ("| $v$ |", "| $u$ | unit |\n| $v$ |", "u has a row above"),
    ("| $v$ |", "| $d$ | difference |\n| $v$ |", "d is a symbol of the whole book"),
    ("| $v$ |", "| $v_i$ | entry |\n| $v$ |", "has no v_"),
]


@pytest.mark.parametrize(("find", "replace", "told"), MISDECLARED)
def test_notation_finds_fault(root: Path, find: str, replace: str, told: str) -> None:
    def judged() -> list[str]:
        shelf = lints.shelf(root)
        page = next(p for p in shelf.pages if p.path.name == "notation.md")
        return symbols.problems(page, shelf.chapters)

    assert judged() == []
    plant(root, find, replace, NOTATION)
    (problem,) = judged()
    assert told in problem


def derived(root: Path) -> Any:
    files, found = notebooks.derive(notebooks.load(root))
    assert not found
    return nbformat.reads(files["07_sample.ipynb"], as_version=4)


def notebook_problems(root: Path, notebook: Any) -> list[str]:
    book = notebooks.load(root)
    hidden = [c.body for c in book.chapters[0].tagged("hidden-test")]
    return lints.lint_notebook(notebook, "07_sample", book.macros, hidden)


def test_good_notebook_is_clean(root: Path) -> None:
    assert notebook_problems(root, derived(root)) == []


@pytest.mark.parametrize(
    "source",
    [
        "```{note}\nA note.\n```",
        "> :::{tip}\n> A tip.\n> :::",
        "See {ref}`sec-norms`.",
        ":label: eq-a",
        r"The norm $\norm{x}$.",
    ],
)
def test_raw_directive_role_or_macro_in_notebook(root: Path, source: str) -> None:
    notebook = derived(root)
    notebook.cells.append(nbformat.v4.new_markdown_cell(source))
    assert notebook_problems(root, notebook)


def test_hidden_test_in_notebook(root: Path) -> None:
    hidden = notebooks.load(root).chapters[0].tagged("hidden-test")[0]
    notebook = derived(root)
    notebook.cells.append(nbformat.v4.new_code_cell(hidden.body))
    assert notebook_problems(root, notebook)


def test_explorable_in_notebook_points_to_the_page(root: Path) -> None:
    text = "\n".join(cell.source for cell in derived(root).cells)
    assert "*Fig. 7.2, on the page of the book.* A layer with a boundary" in text
    assert "Fig. 7.2 turns with the reader" in text


def test_output_in_notebook(root: Path) -> None:
    notebook = derived(root)
    notebook.cells[0].execution_count = 1
    assert notebook_problems(root, notebook)


def test_notebook_without_version_check(root: Path) -> None:
    notebook = derived(root)
    del notebook.cells[0]
    assert notebook_problems(root, notebook)


def test_stale_missing_and_left_over_notebooks(root: Path) -> None:
    arguments = ["--root", str(root)]
    assert notebooks.main([*arguments, "--check"]) == 1  # missing
    assert notebooks.main(arguments) == 0
    assert notebooks.main([*arguments, "--check"]) == 0
    plant(root, "A dual norm bounds an", "Every dual norm bounds an")
    assert notebooks.main([*arguments, "--check"]) == 1  # out of date
    notebooks.main(arguments)
    shutil.copy(root / "chapters/07_sample.ipynb", root / "chapters/08_gone.ipynb")
    assert notebooks.main([*arguments, "--check"]) == 1  # left over
    notebooks.main(arguments)
    assert not (root / "chapters/08_gone.ipynb").exists()


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("{prf:remark}", "{mystery}"),
        ("{term}`dual norm`", "{mystery}`dual norm`"),
        ("{prf:ref}`def-dual`", "{prf:ref}`def-gone`"),
        ("{ref}`ex-sum`", "{ref}`ex-gone`"),
        ("{eq}`eq-hoelder`", "{eq}`eq-gone`"),
        ("[Norms](notation.md)", "[Norms](gone.md)"),
        ("{cite:t}`duffin1952` study", "{cite:t}`gone` study"),
        ("```{prf:remark}", "````{prf:remark}"),
        (":label: rem-tight", ":label: def-dual"),
        ("Sum the terms", "$$ a $$\nSum\n$$ b $$ (eq-b)\nthe terms"),
        ("Sum the terms", "$$ a\nSum the terms"),
    ],
)
def test_what_has_no_notebook_form_is_named(
    root: Path, find: str, replace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(root, find, replace)
    assert notebooks.main(["--root", str(root)]) == 1
    assert "ch07_sample.md:" in capsys.readouterr().err


def setup(root: Path) -> tuple[manuscript.Manuscript, dict[str, Any]]:
    book = manuscript.chapters(root)[0]
    names = gates.fresh()
    gates.run_all(book.tagged("setup"), names)
    return book, names


def test_good_exercises_are_clean(root: Path) -> None:
    book, names = setup(root)
    for label in gates.exercise_labels(book):
        assert gates.faults(book, label, names, WRONG[label]) == []


@pytest.mark.parametrize(
    ("find", "replace", "wrong", "finding"),
    [
        ("f([1, 2]) == 3", "1", WRONG["ex-sum"], "the stub passes the public"),
        ("f([1, -k]) == 1 + k", "1", WRONG["ex-sum"], "the stub passes the hidden"),
        ("f([1, 2]) == 3", "f([1, 2]) == 4", WRONG["ex-sum"], "the solution fails"),
        (
            "f([1, -k]) == 1 + k",
            "f([k]) == k",
            WRONG["ex-sum"],
            "the wrong answer passes",
        ),
        ("k = 2 + seed % 5", "k = 2", WRONG["ex-sum"], "draws nothing from its seed"),
        ("f([1, 2]) == 3", "f([1, 2]) in (None, 3)", WRONG["ex-sum"], "None passes"),
        ("Three and eight", "They", [], "no wrong answer is given"),
        ("Three and eight", "They", WRONG["ex-sum"][:1], "fails the public test"),
    ],
)
def test_exercise_gate(
    root: Path, find: str, replace: str, wrong: list[str], finding: str
) -> None:
    plant(root, find, replace)
    book, names = setup(root)
    found = gates.faults(book, "ex-sum", names, wrong)
    assert any(finding in problem for problem in found)


def test_mutation_gate(root: Path) -> None:
    book = manuscript.chapters(root)[0]
    assert mutating.labels(book) == ["thm-hoelder"]
    label = "thm-hoelder"
    mutating.check(book, label)
    sign = Mutation(label, "setup", "a * b for", "abs(a * b) + a for")
    with pytest.raises(AssertionError):
        mutating.check(book, label, sign)
    with pytest.raises(AssertionError):
        primal = Mutation(label, "check", "== l1(u) * linf(v)", "== linf(u) * linf(v)")
        mutating.check(book, label, primal)
    with pytest.raises(ValueError, match="occurs 0 times"):
        mutating.check(book, label, Mutation(label, "setup", "sqrt", "abs"))


def test_mutation_of_the_library(root: Path) -> None:
    plant(root, "assert abs(dot(u, v)) == l1(u) * linf(v)",
          "import crlib\nassert crlib.by_profile(quick=1, full=2) == 1")  # fmt: skip
    book = manuscript.chapters(root)[0]
    fault = Mutation(
        "thm-hoelder", "crlib.by_profile", "return quick if", "return full if"
    )
    with pytest.raises(AssertionError):
        mutating.check(book, "thm-hoelder", fault)
    mutating.check(book, "thm-hoelder")


def nbval(*options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the notebooks under ``folder``, from where no crlib hides the library."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env"]
    command += ["-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        cwd=folder.parent,
        check=False,
    )


def test_nbval_finds_a_raising_cell_and_a_stale_number(root: Path) -> None:
    # Apart from the small book, whose folder crlib would hide the library.
    folder = root.parent / "run"
    folder.mkdir()
    for name, find, replace in [
        ("good", "total = l1([1, 2, 3])", "total = l1([3, 2, 1])"),
        ("raising", "total = l1([3, 2, 1])", "total = l1([3, 2, 1]) / 0"),
        ("stale", "total = l1([3, 2, 1]) / 0", "total = l1([3, 2, 2])"),
    ]:
        plant(root, find, replace)
        notebooks.main(["--root", str(root)])
        (root / "chapters/07_sample.ipynb").rename(folder / f"{name}.ipynb")
    result = nbval(folder=folder)
    report = result.stdout
    assert result.returncode == 1, report
    failed = [line for line in report.splitlines() if line.startswith("FAILED")]
    assert any("raising.ipynb" in line for line in failed), report
    assert any("stale.ipynb" in line for line in failed), report
    assert not any("good.ipynb" in line for line in failed), report
