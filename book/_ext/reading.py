"""What makes a page kind: folds, numbers, dark figures, cards, ways to run it."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

from book._tools import folds
from book._tools.release import ref
from book._tools.units import Unit
from crlib.version import __version__

# Longer theorems are read where they stand.
CARD_CHARACTERS = 6000
# Of a table in print: fewer than make LaTeX leave the widths of columns unbalanced.
PAGE_ROWS = 25


class FoldPlumbing(SphinxTransform):
    """Fold the code of a cell under its bar; mark figures that may turn dark."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        cells = [
            node
            for node in self.document.findall(nodes.container)
            if node.get("nb_element") == "cell_code"
        ]
        photographers = {".imshow", ".images"}
        for cell in cells:
            source = code_of(cell)
            if source is None:
                continue
            photographers |= drawing(source, photographers)
            if not photographers & used(source):
                cell["classes"].append("cr-plot")
            told = cell["cell_metadata"]
            tags = told.get("tags", [])
            figure = "figure" in told.get("mystnb", {})
            name = folds.bar(source, tags, figure=figure)
            hidden = cell.get("hide_mode")
            if hidden == "input" or name and not hidden:
                cell["hide_mode"] = "input"
                cell["prompt_show"] = cell["prompt_hide"] = name or folds.CODE
            if "public-test" in tags:
                # On a page nobody has answered yet; the test would say so every time.
                for output in list(cell.children[1:]):
                    cell.remove(output)


def code_of(cell: nodes.Element) -> str | None:
    first = cell.children[0] if cell.children else None
    if (
        isinstance(first, nodes.Element)
        and first.get("nb_element") == "cell_code_source"
    ):
        return first.astext()
    return None


def used(source: str) -> set[str]:
    """Return the names in a cell, those of attributes with a dot before them."""
    try:
        parts = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return set()
    attributes = {f".{part.attr}" for part in parts if isinstance(part, ast.Attribute)}
    return attributes | {part.id for part in parts if isinstance(part, ast.Name)}


def drawing(source: str, known: set[str]) -> set[str]:
    """Return the functions defined in a cell that use one of those known."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return set()
    return {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef) and known & used(ast.unparse(node))
    }


def true_minus(text: str) -> str:
    return re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", text)


class TrueMinus(SphinxTransform):
    """Write a minus, not a hyphen, before a computed number in texts and tables."""

    default_priority = 900

    def apply(self, **kwargs: Any) -> None:
        for inline in self.document.findall(nodes.inline):
            if "pasted-text" in inline["classes"]:
                for text in list(inline.findall(nodes.Text)):
                    text.parent.replace(text, nodes.Text(true_minus(text)))
        for raw in self.document.findall(nodes.raw):
            if raw["format"] == "html" and "<table" in raw.astext():
                soup = BeautifulSoup(raw.astext(), "html.parser")
                for cell in soup.select("th, td"):
                    for string in cell.find_all(string=True):
                        string.replace_with(true_minus(string))
                raw.children = [nodes.Text(str(soup))]


class KeepTogether(SphinxPostTransform):
    """Let no line break part a formula from what touches it, such as a comma."""

    default_priority = 500
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            siblings = formula.parent.children
            place = siblings.index(formula)
            before, after = siblings[:place][-1:], siblings[place + 1 :][:1]
            kept = nodes.inline("", "", classes=["cr-keep"])
            formula.replace_self(kept)
            kept += formula
            if before and isinstance(before[0], nodes.Text):
                rest = re.sub(r"[^\s-]*\Z", "", before[0])
                kept.insert(0, nodes.Text(before[0][len(rest) :]))
                kept.parent.replace(before[0], nodes.Text(rest))
            if after and isinstance(after[0], nodes.Text):
                rest = re.sub(r"\A[^\s-]*-?", "", after[0])
                kept += nodes.Text(after[0].removesuffix(rest))
                kept.parent.replace(after[0], nodes.Text(rest))


class ForPrint(SphinxPostTransform):
    """Leave out what is folded on a page; set a cell's HTML table as a table."""

    # Before MyST-NB chooses among the forms of an output.
    default_priority = 3
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("hide_mode") == "input" and code_of(cell) is not None:
                cell.pop(0)
        for bundle in list(self.document.findall(nodes.container)):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            forms = [n for n in bundle.children if isinstance(n, nodes.Element)]
            html = "".join(
                form.astext() for form in forms if form["mime_type"] == "text/html"
            )
            if "<table" in html:
                bundle.replace_self(tables_of(html))


def tables_of(html: str) -> list[nodes.table]:
    """Return the table that a cell shows as HTML, in pieces that fit on a page."""
    soup = BeautifulSoup(html, "html.parser")
    rows = [cells for row in soup.find_all("tr") if (cells := row.select("th, td"))]
    heads, title = len(soup.select("thead tr")), soup.find("caption")
    found = []
    for start in range(heads, len(rows), PAGE_ROWS):
        body = rows[start : start + PAGE_ROWS]
        count = max(map(len, [*rows[:heads], *body]))
        group = nodes.tgroup("", cols=count)
        group += [nodes.colspec(colwidth=1) for _ in range(count)]
        if heads:
            group += nodes.thead("", *map(row_of, rows[:heads]))
        group += nodes.tbody("", *map(row_of, body))
        first = title if start == heads else None
        named = [nodes.title("", "", *formulas(first.get_text()))] if first else []
        found.append(nodes.table("", *named, group, classes=["colwidths-auto"]))
    return found


def row_of(cells: Sequence[Tag]) -> nodes.row:
    return nodes.row("", *(entry(cell.get_text(" ", strip=True)) for cell in cells))


def entry(text: str) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", *formulas(text)))


def formulas(text: str) -> list[nodes.Node]:
    """Return text with what stands between dollars as formulas."""
    return [
        nodes.math("", piece) if number % 2 else nodes.Text(piece)
        for number, piece in enumerate(text.split("$"))
        if piece
    ]


def ways_to_run(app: Sphinx, unit: Unit) -> dict[str, str]:
    """Return the addresses at which the notebook of a unit runs or is had."""
    options = app.config.html_theme_options
    repository = options["repository_url"].removeprefix("https://github.com/")
    branch = ref(__version__, {"repository": {"branch": options["repository_branch"]}})
    notebook = f"chapters/{unit.notebook}.ipynb"
    return {
        "Colab": "https://colab.research.google.com/github/"
        f"{repository}/blob/{branch}/{notebook}",
        "Binder": f"https://mybinder.org/v2/gh/{repository}/{branch}"
        f"?urlpath=lab/tree/{notebook}",
        "notebook": f"https://github.com/{repository}/raw/{branch}/{notebook}",
    }


def run_line(app: Sphinx, docname: str) -> str:
    """Return the line of links under the title of a unit, nothing for other pages."""
    unit = Unit.of(docname)
    if not unit:
        return ""
    at = ways_to_run(app, unit)
    links = " · ".join(
        f'<a href="{at[key]}">{text}</a>'
        for key, text in (
            ("Colab", "Open in Colab"),
            ("Binder", "Open in Binder"),
            ("notebook", "Download the notebook"),
        )
    )
    return f'<p class="cr-run">{links}</p>'


def entries(html: str) -> Iterator[tuple[str, str]]:
    """Yield anchor and content of each term, cited work and theorem of a page."""
    for match in re.finditer(
        r'<dt id="(term-[^"]+)">.*?</dt><dd>(.*?)</dd>', html, re.S
    ):
        yield match[1], match[2]
    opening = r'<div class="(?:proof \w+ admonition|citation)" id="([^"]+)"[^>]*>'
    for match in re.finditer(opening, html):
        depth = 1
        for tag in re.finditer(r"<(/?)div\b", html[match.end() :]):
            depth += -1 if tag[1] else 1
            if not depth:
                yield match[1], html[match.end() : match.end() + tag.start()]
                break


def plain(html: str) -> str:
    """Return the content of a card: no links, and no names a page has already."""
    html = re.sub(r'<a class="headerlink".*?</a>', "", html, flags=re.S)
    html = re.sub(r"<a\b[^>]*>(.*?)</a>", r"\1", html, flags=re.S)
    return re.sub(r' id="[^"]*"', "", html)


def deal_cards(app: Sphinx, error: Exception | None) -> None:
    """Put into each page, as templates, what its links to entries show on the way.

    They lie in the page itself, so that a book read from a folder has them too.
    """
    if error or app.builder.format != "html":
        return
    pages = {path.name: path for path in Path(app.outdir, "book").glob("*.html")}
    written = {name: path.read_text(encoding="utf-8") for name, path in pages.items()}
    known = {
        (name, anchor): plain(content)
        for name, html in written.items()
        for anchor, content in entries(html)
        if len(content) < CARD_CHARACTERS
    }
    for name, html in written.items():
        links = set(re.findall(r'href="([\w.-]*)#([^"]+)"', html))
        dealt = "".join(
            f'<template class="cr-hover" data-of="{page}#{anchor}">'
            f"{known[page or name, anchor]}</template>"
            for page, anchor in sorted(links)
            if (page or name, anchor) in known
        )
        if dealt and 'class="cr-hover"' not in html:
            html = html.replace("</article>", dealt + "</article>", 1)
            pages[name].write_text(html, encoding="utf-8")


def dress(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Put the line of links and the description into a page."""
    if "body" not in context or doctree is None:
        return
    line = run_line(app, pagename)
    context["body"] = context["body"].replace("</h1>", "</h1>" + line, 1)
    context["metatags"] = context.get("metatags", "") + metatags(context, doctree)


def metatags(context: dict[str, Any], doctree: nodes.document) -> str:
    """Return the description that search engines and shared links show."""
    said = ""
    for text in doctree.findall(nodes.paragraph):
        if isinstance(text.parent, nodes.section):
            said = " ".join(text.astext().split())
            break
    said = re.sub(r"\s+\S*$", "", said[:200]) if len(said) > 200 else said
    title = re.sub(r"<[^>]*>", "", context.get("title", ""))
    return "".join(
        f"<meta {kind}={json.dumps(name)} content={escaped(value)} />\n"
        for kind, name, value in (
            ("name", "description", said),
            ("property", "og:title", title),
            ("property", "og:description", said),
            ("property", "og:type", "article"),
        )
        if value
    )


def escaped(text: str) -> str:
    for old, new in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;")):
        text = text.replace(old, new)
    return f'"{text}"'


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(FoldPlumbing)
    app.add_transform(TrueMinus)
    app.add_post_transform(KeepTogether)
    app.add_post_transform(ForPrint)
    app.connect("html-page-context", dress, priority=950)
    app.connect("build-finished", deal_cards)
    return {"version": "1", "parallel_read_safe": False}
