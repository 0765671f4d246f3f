"""The front of the book, made from its parts: cards, a map, results, how to cite it."""

import datetime
import math
import os
import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx_proof.nodes import proof_node

from book._tools import manuscript, notebooks, plans
from book._tools.manuscript import Block, Entry
from book._tools.units import Unit
from crlib.version import __version__

ROOT = Path(__file__).resolve().parents[2]
# Prose; what is stated and proved is read with a pencil.
WORDS_PER_MINUTE, STATED_WORDS_PER_MINUTE = 180, 70
SECONDS_PER_CODE_LINE = 4
STATED = ("theorem", "proposition", "lemma", "corollary")


def parts(root: Path) -> list[tuple[str, list[str]]]:
    """Return the parts that hold units, each with the names of its pages."""
    listed = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    found = [
        (part.get("caption", ""), [page["file"] for page in part["chapters"]])
        for part in listed
    ]
    return [(name, pages) for name, pages in found if any(map(Unit.of, pages))]


def link(env: BuildEnvironment, docname: str, to: str, text: str) -> nodes.Element:
    """Return a link to a page that Sphinx resolves later."""
    found = addnodes.pending_xref(
        refdoc=docname,
        reftarget=f"/{to}",
        reftype="doc",
        refdomain="std",
        refexplicit=True,
        refwarn=True,
    )
    found += nodes.inline(text=text)
    return found


def minutes_to_read(env: BuildEnvironment, docname: str) -> int:
    """Return minutes to read a page, counted once for all who show them."""
    known: dict[str, int] = env.__dict__.setdefault("crbook_minutes", {})
    if docname not in known:
        known[docname] = reading_minutes(env.get_doctree(docname))
    return known[docname]


def reading_minutes(document: nodes.document) -> int:
    """Return minutes to read the text and the open code of a page, without outputs."""
    minutes = 0.0
    for node in document.findall(nodes.Text):
        parent = node.parent
        if isinstance(parent, nodes.literal_block):
            cell = parent.parent.parent
            folded = isinstance(cell, nodes.container) and cell.get("hide_mode")
            output = "cell_output" in parent.parent.get("classes", [])
            lines = 0 if folded or output else len(node.splitlines())
            minutes += lines * SECONDS_PER_CODE_LINE / 60
        else:
            pace = (
                STATED_WORDS_PER_MINUTE if stands_in_proof(node) else WORDS_PER_MINUTE
            )
            minutes += len(node.split()) / pace
    return max(1, round(minutes))


def stands_in_proof(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, proof_node):
            return True
    return False


class part_cards(nodes.General, nodes.Element):
    """Stands for the cards of the parts until titles and times are known."""


class PartCards(SphinxDirective):
    """A card for each part: its page, and its chapters with their minutes."""

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["shows_times"] = True
        return [part_cards()]


class FillInParts(SphinxPostTransform):
    """Put the cards of the parts where they stand."""

    default_priority = 7

    def run(self, **kwargs: Any) -> None:
        for place in list(self.document.findall(part_cards)):
            cards = nodes.container(classes=["cr-parts"])
            for name, pages in parts(ROOT):
                cards += self.card(name, pages)
            place.replace_self(cards)
        for shown in list(self.document.findall(minutes_of)):
            minutes = minutes_to_read(self.env, shown["page"])
            shown.replace_self(nodes.Text(f"{minutes} min"))

    def card(self, name: str, pages: list[str]) -> nodes.Element:
        card, head = nodes.container(classes=["cr-part"]), nodes.paragraph()
        own = [page for page in pages if not Unit.of(page)]
        title = self.link(own[0], name) if own else nodes.Text(name)
        head += nodes.strong("", "", title)
        listed = nodes.bullet_list()
        for page in pages:
            unit = Unit.of(page)
            if unit:
                line = nodes.paragraph()
                text = f"{unit.label} {self.env.titles[page].astext()}"
                line += [self.link(page, text), nodes.Text(self.minutes(page))]
                listed += nodes.list_item("", line)
        card += [head, listed]
        return card

    def link(self, page: str, text: str) -> nodes.Element:
        return link(self.env, self.env.docname, page, text)

    def minutes(self, page: str) -> str:
        return f" · {minutes_to_read(self.env, page)}\N{NO-BREAK SPACE}min"


class minutes_of(nodes.General, nodes.Inline, nodes.Element):
    """Stands for the minutes to read a page until they are known."""


class Session(SphinxDirective):
    """A plan for a session on a chapter; its minutes, exercises and usual mistakes."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["shows_times"] = True
        name = self.arguments[0]
        books = {m.unit.name: m for m in manuscript.chapters(ROOT) if m.unit}
        if name not in books:
            raise self.error(f"session: there is no unit {name!r}")
        book = books[name]
        page = f"book/{book.path.stem}"
        head = link(self.env, self.env.docname, page, f"{book.number} {book.title}")
        plan = nodes.container(classes=["cr-session"])
        self.state.nested_parse(self.content, self.content_offset, plan)
        times = nodes.paragraph("", "", minutes_of(page=page))
        times += nodes.Text(self.effort(book))
        said = plans.mistakes(ROOT, name)
        wrong = nodes.bullet_list()
        for label, title, *_ in plans.asked(book):
            if label in said:
                told = nodes.Text(": " + " ".join(said[label]))
                shown, _ = self.state.inline_text(title, self.lineno)
                line = nodes.paragraph("", "", nodes.emphasis("", "", *shown), told)
                wrong += nodes.list_item("", line)
        return [nodes.rubric("", "", head), plan, times, wrong]

    def effort(self, book: manuscript.Manuscript) -> str:
        """Return in words what the exercises ask for."""
        found = plans.asked(book)
        minutes = sum(minutes for *_, minutes, _ in found)
        judged = sum(points for *_, kind, _, points in found if kind == "write")
        by_hand = sum(points for *_, points in found) - judged
        return (
            f" to read; {len(found)} exercises of {minutes} min, {judged} points and"
            f" {by_hand} more by hand. What goes wrong in them:"
        )


class ChapterMap(SphinxDirective):
    """A picture of which unit needs which, as their cards say, or chapters alone."""

    option_spec = {"chapters": directives.flag}

    def run(self) -> list[nodes.Node]:
        needs = needed(ROOT)
        if "chapters" in self.options:
            needs = {
                label: n for label, n in needs.items() if not label.startswith("L")
            }
        return [nodes.raw("", drawn(needs), format="html"), *in_words(needs)]


def needed(root: Path) -> dict[str, list[str]]:
    """Return, for the label of each unit, the labels that its card links to."""
    found = {}
    for book in manuscript.chapters(root):
        cards = [b for b in book.blocks if b.name == "chapter-card"]
        said = " ".join(str(card.options.get("needs") or "") for card in cards)
        named = re.findall(r"\b((?:ch|lab)\d\d_\w+)\.md", said)
        units = [Unit.of(name) for name in named]
        own = sorted({u.label for u in units if u}, key=order)
        found[book.number] = [label for label in own if label != book.number]
    return found


def order(label: str) -> tuple[bool, int]:
    return label.startswith("L"), int(label.lstrip("L"))


def drawn(needs: dict[str, list[str]]) -> str:
    """Return the map: chapters on a line, an arc from each to those that need it."""
    labels = sorted(needs, key=order)
    step, top = 34, 17 * max(1, len(labels) // 2)
    at = {label: 20 + step * i for i, label in enumerate(labels)}
    arcs = "".join(
        f'<path d="M{at[a]} {top} A{r} {r} 0 0 1 {at[b]} {top}"/>'
        for b, sources in needs.items()
        for a in sources
        if (r := (at[b] - at[a]) / 2) > 0
    )
    dots = "".join(
        f'<circle cx="{x}" cy="{top}" r="4"/>'
        f'<text x="{x}" y="{top + 22}">{label}</text>'
        for label, x in at.items()
    )
    reach = max((at[b] - at[a] for b, s in needs.items() for a in s), default=0) / 2
    high = math.ceil(top - reach - 6)
    box = f"0 {high} {40 + step * (len(labels) - 1)} {top + 34 - high}"
    said = "Chapters on a line, with an arc from each to the chapters that need it."
    return (
        f'<svg class="cr-map" viewBox="{box}" role="img" aria-label="{said}">'
        f'<g class="cr-arcs">{arcs}</g>{dots}</svg>'
    )


def in_words(needs: dict[str, list[str]]) -> list[nodes.Node]:
    said = [
        f"{b} needs {', '.join(sources)}" for b, sources in needs.items() if sources
    ]
    return [nodes.paragraph(text="; ".join(said) + ".", classes=["cr-map-words"])]


HEADS = ("Result", "What it says", "Whose")


class ListOfResults(SphinxDirective):
    """Every theorem of the book: number, title, whose it is."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        numbers = notebooks.labels(ROOT)
        entries = manuscript.bibliography(ROOT / "book/references.bib")
        for book in manuscript.chapters(ROOT):
            rows = [self.row(b, numbers, entries) for b in stated(book.blocks)]
            if rows:
                title = f"{book.number} {book.title}"
                page = link(self.env, self.env.docname, f"book/{book.path.stem}", title)
                found += [nodes.rubric("", "", page), *self.table(rows)]
        return found

    def row(
        self, block: Block, numbers: dict[str, str], entries: dict[str, Entry]
    ) -> list[list[nodes.Node]]:
        proof = addnodes.pending_xref(
            refdoc=self.env.docname,
            reftarget=block.label,
            reftype="ref",
            refdomain="prf",
            refexplicit=True,
            refwarn=True,
        )
        proof += nodes.inline(text=numbers[str(block.label)])
        title, _ = self.state.inline_text(block.argument, self.lineno)
        return [[proof], title, [nodes.Text(whose(block.body, entries))]]

    def table(self, rows: list[list[list[nodes.Node]]]) -> list[nodes.Node]:
        group = nodes.tgroup("", cols=3)
        group += [nodes.colspec(colwidth=width) for width in (22, 53, 25)]
        body = nodes.tbody()
        for row in rows:
            cells = [nodes.entry("", nodes.paragraph("", "", *cell)) for cell in row]
            body += nodes.row("", *cells)
        heads = [nodes.entry("", nodes.paragraph(text=t)) for t in HEADS]
        group += [nodes.thead("", nodes.row("", *heads)), body]
        return [nodes.table("", group, classes=["cr-results"])]


def stated(blocks: list[Block]) -> list[Block]:
    return [b for b in manuscript.walk(blocks) if b.name.removeprefix("prf:") in STATED]


def whose(body: str, entries: dict[str, Entry]) -> str:
    """Return whose a result is, from what its statement says in brackets."""
    said = " ".join(body.split())
    bracket = re.findall(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)", said)
    for note in reversed(bracket):
        if re.match(r"(?i)ours\b", note):
            return "ours"
    cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", said)
    keys = {key.strip() for group in cited for key in group.split(",")}
    if keys:
        return "after " + ", ".join(sorted({entries[k].authors[0][0] for k in keys}))
    return "classical"


class Colophon(SphinxDirective):
    """Authors, version, date, licences, and how to cite the book."""

    def run(self) -> list[nodes.Node]:
        cite = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        names = ", ".join(
            author.get("name") or f"{author['given-names']} {author['family-names']}"
            for author in cite["authors"]
        )
        day = today()
        address = self.config.html_theme_options.get("repository_url", "")
        entry = (
            f"@misc{{crbook{day.year},\n"
            f"  title   = {{{cite['title']}}},\n"
            f"  author  = {{{{{names}}}}},\n"
            f"  year    = {{{day.year}}},\n"
            f"  version = {{{__version__}}},\n"
            f"  url     = {{{address}}}\n}}"
        )
        facts = f"{names}. Version {__version__}, built {day:%-d %B %Y}."
        licences = "Text: CC BY 4.0. Code: BSD 3-Clause."
        shown = nodes.literal_block(entry, entry, language="bibtex")
        return [nodes.paragraph(text=f"{facts} {licences}"), shown]


def today() -> datetime.date:
    """Return the date of the build, or the one that a reproducible build asks for."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).date()
    return datetime.datetime.now(datetime.UTC).date()


def write_sitemap(app: Sphinx, error: Exception | None) -> None:
    """List the pages for search engines, where the book knows its own address."""
    base = app.config.html_baseurl
    if error or app.builder.format != "html" or not base:
        return
    pages = sorted(Path(app.outdir, "book").glob("*.html"))
    entries = "".join(
        f"<url><loc>{base.rstrip('/')}/book/{page.name}</loc></url>\n" for page in pages
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns='
    head += '"http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    Path(app.outdir, "sitemap.xml").write_text(f"{head}{entries}</urlset>\n")


def address(app: Sphinx, config: Config) -> None:
    """Say where the pages will be, from where the repository is."""
    options = config.html_theme_options
    owner, _, name = options["repository_url"].rpartition("/")
    if not config.html_baseurl:
        config.html_baseurl = f"https://{owner.rpartition('/')[2]}.github.io/{name}/"
    config.html_favicon = str(ROOT / "book" / "_static" / "icon.svg")
    config.templates_path.append(str(Path(__file__).parent / "templates"))
    config.html_additional_pages["404"] = "404.html"
    config.html_context["home"] = config.html_baseurl


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(part_cards)
    app.add_node(minutes_of)
    app.add_directive("session", Session)
    app.add_directive("part-cards", PartCards)
    app.add_directive("chapter-map", ChapterMap)
    app.add_directive("list-of-results", ListOfResults)
    app.add_directive("colophon", Colophon)
    app.add_post_transform(FillInParts)
    app.connect("config-inited", address)
    app.connect("build-finished", write_sitemap)
    return {"version": "1", "parallel_read_safe": False}
