"""What the pages make of text: minus signs, and formulas that keep their comma."""

import pytest
from docutils import nodes
from docutils.utils import new_document

from book._ext import reading

DEPENDS = ("book/_ext", "book/_tools")


def page(*parts: nodes.Node) -> nodes.document:
    document = new_document("page")
    document += nodes.paragraph("", "", *parts)
    return document


def test_a_computed_number_has_a_minus_in_texts_and_tables() -> None:
    document = page(
        nodes.inline("", "", nodes.Text("-3 [-4, -2]"), classes=["pasted-text"]),
        nodes.Text(" ResNet-18 -5 "),
        nodes.raw(
            "",
            "<style>a {margin: -1px}</style><table><tr><th>of -1</th>"
            "<td>-2 <b>[-3, 1e-4]</b></td><td>2026-11-22</td></tr></table>",
            format="html",
        ),
        nodes.raw("", "<p>-1</p>", format="html"),
    )
    reading.TrueMinus(document).apply()
    assert document.astext() == (
        "\u22123 [\u22124, \u22122] ResNet-18 -5 "
        "<style>a {margin: -1px}</style><table><tr><th>of \u22121</th>"
        "<td>\u22122 <b>[\u22123, 1e-4]</b></td><td>2026-11-22</td></tr></table>"
        "<p>-1</p>"
    )


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("at rank ", ", and", "k,"),
        ("of all (", ") it", "(k)"),
        ("the ", "-winners take", "k-"),
        ("non-", "", "k"),
        ("a ", " b", "k"),
        ("", "th.", "kth."),
    ],
)
def test_a_formula_is_not_parted_from_its_comma(
    before: str, after: str, kept: str
) -> None:
    parts = (nodes.Text(before), nodes.math("", "k"), nodes.Text(after))
    document = page(*(part for part in parts if part.astext()))
    reading.KeepTogether(document).run()
    (together,) = document.findall(nodes.inline)
    assert together["classes"] == ["cr-keep"] and together.astext() == kept
    assert document.astext() == f"{before}k{after}"
