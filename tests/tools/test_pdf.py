"""What is lost on the way to print is found, and what sticks out of it."""

import shutil
from pathlib import Path

import pytest
from docutils import nodes

from book._ext import reading
from book._tools import manuscript, notebooks, pdf
from book._tools.manuscript import Manuscript

DEPENDS = ("tests/canary/sample", "book/_ext", "book/_tools")
SAMPLE = Path(__file__).parents[1] / "canary" / "sample"
PAGE = "book/ch07_sample"
CHAPTER = rf"""\chapter{{A sample \emph{{chapter}}}}
\label{{\detokenize{{{PAGE}:a-sample}}}}\label{{\detokenize{{{PAGE}::doc}}}}
"""


@pytest.fixture
def book(tmp_path: Path) -> tuple[list[Manuscript], dict[str, str]]:
    root = tmp_path / "small"
    shutil.copytree(SAMPLE, root)
    (root / "crlib").mkdir()
    (root / "crlib/version.py").write_text('__version__ = "0.1"\n', encoding="utf-8")
    return manuscript.chapters(root), notebooks.labels(root)


def written(books: list[Manuscript], numbers: dict[str, str]) -> str:
    """Write LaTeX that has all of a small book, as Sphinx writes it."""
    parts = [CHAPTER]
    for block in manuscript.walk(books[0].blocks):
        figure = block.kind == "cell" and block.figure
        name = figure["name"] if figure else block.label
        if figure or block.name == "explore":
            parts.append(f"\\caption{{A}}\\label{{\\detokenize{{{PAGE}:{name}}}}}")
        elif block.name == "prf:proof":
            parts.append(
                "\\begin{sphinxadmonition}{note}\n\\sphinxAtStartPar\nProof. So it is."
            )
        elif block.name == "solution-start":
            parts.append("\\begin{sphinxadmonition}{note}{Solution to Exercise 7.1}")
        elif block.label and block.name.startswith(("prf:", "exercise-start")):
            parts.append(
                f"\\begin{{sphinxadmonition}}{{note}}{{{numbers[block.label]} (A)}}"
            )
    return "\n".join(parts)


def test_a_chapter_has_the_number_of_its_file_and_a_page_has_none() -> None:
    page = CHAPTER.replace("ch07_sample", "notation")
    lab = CHAPTER.replace("ch07", "lab03")
    told = pdf.numbered(CHAPTER + page + lab)
    assert told.count("\\chapter{") == 3
    for head in ("\\crunit{Chapter}{7}", "\\crpage", "\\crunit{Lab}{L3}"):
        assert told.count(f"{head}\n\\chapter{{") == 1


@pytest.mark.parametrize(
    "told",
    ["Proof. It is.", "\\sphinxstylestrong{Proof}\n\n\\sphinxAtStartPar\nIt is."],
)
def test_a_proof_has_a_title(told: str) -> None:
    start = "\\begin{sphinxadmonition}{note}"
    text = pdf.numbered(f"{start}\n\\sphinxAtStartPar\n{told}")
    assert text == f"{start}{{Proof}}\n\\sphinxAtStartPar\nIt is."


def test_a_whole_print_lacks_nothing(
    book: tuple[list[Manuscript], dict[str, str]],
) -> None:
    assert list(pdf.missing(pdf.numbered(written(*book)), *book)) == []


@pytest.mark.parametrize(
    ("find", "told"),
    [
        ("\\chapter", "no chapter numbered 7"),
        (":fig-line}", "no figure fig-line"),
        (":fig-turn}", "no figure fig-turn"),
        ("Theorem 7.1", "thm-hoelder"),
        ("Exercise 7.1 (", "ex-sum"),
        ("{Proof}", "proofs"),
        ("Solution to ", "solutions"),
    ],
)
def test_what_is_lost_is_named(
    book: tuple[list[Manuscript], dict[str, str]], find: str, told: str
) -> None:
    tex = pdf.numbered(written(*book))
    assert find in tex
    (fault,) = pdf.missing(tex.replace(find, "", 1), *book)
    assert told in fault


def test_a_number_that_differs_from_the_page_is_named() -> None:
    aux = f"\\newlabel{{{PAGE}:fig-a}}{{{{7.2}}{{5}}{{}}}}\n"
    aux += f"\\newlabel{{equation:{PAGE}:eq-b}}{{{{7.1}}{{6}}{{}}}}\n"
    numbers = {"fig-a": "Fig. 7.2", "eq-b": "(7.1)", "thm-c": "Theorem 7.1"}
    assert list(pdf.misnumbered(aux, numbers)) == []
    (fault,) = pdf.misnumbered(aux.replace("7.2", "4.2"), numbers)
    assert fault == "fig-a: 4.2 in print, 7.2 on the page"
    (fault,) = pdf.misnumbered(aux.replace("7.1", "7.3"), numbers)
    assert "eq-b" in fault
    (fault,) = pdf.misnumbered("", numbers)
    assert "no figure" in fault


def test_lines_that_stick_out_and_characters_that_no_font_has_are_found() -> None:
    log = (
        "Overfull \\hbox (2.9pt too wide) in paragraph at lines 1--2\n"
        "Overfull \\hbox (3.1pt too wide) detected at line 7\n"
        "Missing character: There is no ✗ (U+2717) in font FreeMono!\n" * 2
    )
    assert len(list(pdf.overfull(log))) == 2 and all(
        "3.1" in f for f in pdf.overfull(log)
    )
    assert list(pdf.lacking(log)) == ["There is no ✗ (U+2717) in font FreeMono!"]


def test_a_table_that_a_cell_shows_as_html_is_a_table_in_print() -> None:
    (table,) = reading.tables_of(
        "<table><caption>In $\\ell_2$</caption><thead><tr><th>Way</th><th>b</th></tr>"
        "</thead><tbody><tr><td>rank $k$</td><td>1 | 2</td></tr></tbody></table>"
    )
    assert [len(list(table.findall(kind))) for kind in (nodes.thead, nodes.row)] == [
        1,
        2,
    ]
    assert [math.astext() for math in table.findall(nodes.math)] == ["\\ell_2", "k"]
    assert [cell.astext() for cell in table.findall(nodes.entry)] == [
        "Way",
        "b",
        "rank k",
        "1 | 2",
    ]


def test_a_long_table_is_set_in_pieces_with_its_head() -> None:
    head = "<table><thead><tr><th>Way</th></tr></thead><tbody>"
    lines = "".join(f"<tr><td>{n}</td></tr>" for n in range(32))
    pieces = reading.tables_of(f"{head}{lines}</tbody></table>")
    cells = [[c.astext() for c in piece.findall(nodes.entry)] for piece in pieces]
    assert [piece[0] for piece in cells] == ["Way", "Way"]
    assert [n for piece in cells for n in piece[1:]] == [str(n) for n in range(32)]
