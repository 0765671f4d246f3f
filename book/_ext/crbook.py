"""What this book needs from Sphinx beyond Jupyter Book.

Chapter numbers from file names, the directives ``chapter-card``, ``predict`` and
``running-times``, the effort line of exercises, links to the runnable notebooks, and
pages that ask no other host for anything.
"""

import importlib.util
import json
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.nodes import exercise_enumerable_node
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles
from sphinx_proof.nodes import proof_node

from crlib.version import __version__

BOOK = Path(__file__).resolve().parent.parent
# Also where somebody calls jupyter-book by hand.
sys.path.insert(0, str(BOOK.parent))

from book._ext.front import link, minutes_to_read  # noqa: E402
from book._tools import notebooks  # noqa: E402
from book._tools.units import Unit  # noqa: E402

logger = logging.getLogger(__name__)

RAW_DIRECTIVE = re.compile(r"(```|:::)\{[\w:-]+\}")
# Of the half-width of an interval: a claim with less room is listed as a thin one.
THIN = 0.5


def unit_label(docname: str) -> str | None:
    """Return 5 for ``book/ch05_slug``, L3 for ``book/lab03_slug``, else None."""
    unit = Unit.of(docname)
    return unit.label if unit else None


def number_by_file_name(
    collector: TocTreeCollector, env: BuildEnvironment
) -> list[str]:
    """Number sections as Sphinx does, then put the file name's number first.

    Figure, theorem, equation and exercise numbers follow, because Sphinx derives them
    from the section numbers right after this.
    """
    old = env.toc_secnumbers
    TocTreeCollector.assign_section_numbers(collector, env)
    for docname, numbers in env.toc_secnumbers.items():
        own = unit_label(docname)
        if own is None:
            # The page of a part stands among chapters, and is none.
            numbers.clear()
            for heading in headings_of(env, docname):
                heading.attributes.pop("secnumber", None)
            continue
        for anchor, number in numbers.items():
            # Sphinx joins what stands in here by dots, be it a number or L3.
            first: Any = own
            numbers[anchor] = (first, *number[1:]) if number else number
        for heading in headings_of(env, docname):
            if heading.get("secnumber"):
                heading["secnumber"] = [own, *heading["secnumber"][1:]]
    return [d for d, n in env.toc_secnumbers.items() if n != old.get(d)]


def headings_of(env: BuildEnvironment, docname: str) -> list[nodes.Element]:
    return [env.titles[docname], *env.tocs[docname].findall(nodes.reference)]


class box(nodes.General, nodes.Element):
    """An HTML element named by ``tag`` with the attributes in ``html``."""


class summary(nodes.General, nodes.TextElement):
    """What a closed ``details`` shows; a paragraph in other formats."""


def visit_box(self: Any, node: box) -> None:
    self.body.append(self.starttag(node, node["tag"], "", **node["html"]))


def depart_box(self: Any, node: box) -> None:
    self.body.append(f"</{node['tag']}>")


def visit_summary(self: Any, node: summary) -> None:
    self.body.append(self.starttag(node, "summary", ""))


def depart_summary(self: Any, node: summary) -> None:
    self.body.append("</summary>")


def visit_as_paragraph(self: Any, node: nodes.Element) -> None:
    self.visit_paragraph(node)


def depart_as_paragraph(self: Any, node: nodes.Element) -> None:
    self.depart_paragraph(node)


def visit_nothing(self: Any, node: nodes.Element) -> None:
    pass


def paragraph(*children: nodes.Node, kind: str = "") -> nodes.paragraph:
    return nodes.paragraph("", "", *children, classes=[kind] if kind else [])


def strong(text: str) -> nodes.strong:
    return nodes.strong(text=text)


def items(lines: list[str], start: int) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each ``- `` item, indented lines joined to it."""
    current: list[str] = []
    first = start
    for number, line in enumerate(lines, start):
        if line.startswith("- "):
            if current:
                yield first, " ".join(current)
            current, first = [line[2:].strip()], number
        elif line.strip() and current:
            current.append(line.strip())
        elif line.strip():
            raise ValueError(f"expected a line that begins with '- ', found {line!r}")
    if current:
        yield first, " ".join(current)


class Items(SphinxDirective):
    """A directive whose content is a list, one item after each ``- ``."""

    has_content = True
    final_argument_whitespace = True

    def listed(self) -> list[tuple[int, str]]:
        try:
            found = list(items(list(self.content), self.content_offset + 1))
        except ValueError as error:
            raise self.error(f"{self.name}: {error}") from error
        if not found:
            raise self.error(f"{self.name}: no item; begin each with '- '")
        return found

    def inline(self, text: str, line: int) -> list[nodes.Node]:
        parsed, messages = self.state.inline_text(text, line)
        return [*parsed, *messages]


class Predict(Items):
    """A question with options; each opens its own explanation, without a script.

    With one (reader.js) a reader chooses first, and sees all explanations then.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        listed = notebooks.turned(self.arguments[0], self.listed())
        options = [self.option(line, text) for line, text in listed]
        right = sum(option.attributes["right"] for option in options)
        if right != 1:
            raise self.error(f"predict: {right} options marked [x], one is needed")
        question_id = f"predict-{self.env.new_serialno('predict')}"
        question = paragraph(
            strong("Predict."), nodes.Text(" "), kind="cr-predict-question"
        )
        question.extend(self.inline(self.arguments[0], self.lineno))
        question["ids"].append(question_id)
        answers = nodes.bullet_list("", *options, classes=["cr-options"])
        attributes = {"role": "group", "aria-labelledby": question_id}
        group = box("", question, answers, tag="div", html=attributes)
        group["classes"].append("cr-predict")
        return [group]

    def option(self, line: int, item: str) -> nodes.list_item:
        text, separator, explanation = item.partition(" :: ")
        if not separator or not explanation.strip():
            raise self.error(f"predict: the option {item!r} has no ':: explanation'")
        right = text.startswith("[x] ")
        verdict = "Right." if right else "Not so."
        shown = summary("", "", *self.inline(text.removeprefix("[x] "), line))
        answer = paragraph(
            strong(verdict), nodes.Text(" "), *self.inline(explanation.strip(), line)
        )
        details = box("", shown, answer, tag="details", html={})
        details["classes"].append("cr-right" if right else "cr-wrong")
        return nodes.list_item("", details, right=right)


class chapter_times(nodes.General, nodes.Element):
    """Stands for minutes to read and seconds to run until both are known."""


class ChapterCard(Items):
    """What a chapter needs, what it teaches, and how long it takes."""

    option_spec = {"needs": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        needs = self.options.get("needs")
        if needs is None:
            raise self.error("chapter-card: say what the chapter needs with :needs:")
        goals = nodes.bullet_list()
        for line, text in self.listed():
            goals += nodes.list_item("", paragraph(*self.inline(text, line)))
        attributes = {"role": "group", "aria-label": "About this chapter"}
        card = box("", tag="div", html=attributes, classes=["cr-card"])
        card += paragraph(
            strong("You need"), nodes.Text(" "), *self.inline(needs, self.lineno)
        )
        card += paragraph(strong("After this chapter you can"))
        card += [goals, chapter_times()]
        return [card]


class running_times(nodes.General, nodes.Element):
    """Stands for the table of running times until every chapter has run."""


class RunningTimes(SphinxDirective):
    """The table of measured times, one row a chapter."""

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["shows_times"] = True
        return [running_times()]


class ThinClaims(SphinxDirective):
    """The table of claims that hold with little room, from the run of the pages."""

    def run(self) -> list[nodes.Node]:
        file = Path(self.env.app.outdir).parent / "claims.json"
        told = json.loads(file.read_text()) if file.exists() else {}
        every = sorted(
            (slack, page, sentence)
            for page, claims in told.items()
            for sentence, slack in claims
        )
        rows = [
            (nodes.Text(f"{unit_label(page) or page}: {sentence}"), f"{slack:.2f}")
            for slack, page, sentence in every
            if slack < THIN
        ]
        count = nodes.Text(
            f"{len(every)} claims rest on an interval. In {len(rows)} of them the room"
            f" is less than {THIN} of its half-width:"
        )
        return [paragraph(count), two_columns(("Claim", "Room"), rows)]


def seconds_to_run(env: BuildEnvironment, docname: str) -> float | None:
    """Return the seconds the page's cells took when they last ran, None if never."""
    ran = getattr(env, "nb_metadata", {}).get(docname, {}).get("exec_data") or {}
    return ran.get("runtime")


class FillInTimes(SphinxPostTransform):
    """Put the measured times where the card and the table stand."""

    default_priority = 8

    def run(self, **kwargs: Any) -> None:
        for card in list(self.document.findall(chapter_times)):
            minutes = minutes_to_read(self.env, self.env.docname)
            text = f"About {minutes} {'minute' if minutes == 1 else 'minutes'} to read"
            solving = sum(map(minutes_to_solve, self.document.findall(nodes.Element)))
            if solving:
                text += f" · {solving} for the exercises"
            seconds = seconds_to_run(self.env, self.env.docname)
            if seconds is not None:
                text += f" · {spell(seconds)} to run"
                text += " on the machine that built this page"
            card.replace_self(paragraph(nodes.Text(text), kind="cr-card-times"))
        for table in list(self.document.findall(running_times)):
            table.replace_self(self.table())

    def table(self) -> list[nodes.Node]:
        rows = []
        total = 0.0
        for docname in sorted(self.env.found_docs):
            seconds = seconds_to_run(self.env, docname)
            if seconds is None:
                continue
            number = unit_label(docname)
            title = self.env.titles[docname].astext()
            text = f"{number} {title}" if number else title
            page = link(self.env, self.env.docname, docname, text)
            rows.append((page, f"{seconds:.1f}"))
            total += seconds
        rows.append((nodes.strong(text="Sum"), f"{total:.1f}"))
        machine = (
            f"Seconds of one processor ({platform.machine()}), with"
            f" Python {platform.python_version()}, crlib {__version__}."
        )
        table = two_columns(("Page", "Seconds"), rows)
        return [table, paragraph(nodes.Text(machine))]


def spell(seconds: float) -> str:
    """Return a duration as a reader says it."""
    whole = max(1, round(seconds))
    return f"{whole} {'second' if whole == 1 else 'seconds'}"


def two_columns(
    head: tuple[str, str], rows: list[tuple[nodes.Node, str]]
) -> nodes.Node:
    def row(*cells: nodes.Node) -> nodes.row:
        return nodes.row("", *(nodes.entry("", paragraph(cell)) for cell in cells))

    group = nodes.tgroup("", cols=2)
    group += [nodes.colspec(colwidth=80), nodes.colspec(colwidth=20)]
    group += nodes.thead("", row(*(nodes.Text(text) for text in head)))
    group += nodes.tbody("", *(row(cell, nodes.Text(text)) for cell, text in rows))
    return nodes.table("", group, classes=["colwidths-auto", "cr-times"])


def rewrite_times(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write the page with the table of times anew whenever anything has run."""
    times = {d: seconds_to_run(env, d) for d in env.found_docs}
    if times == getattr(env, "crbook_times", None):
        return []
    env.crbook_times = times  # type: ignore[attr-defined]
    return [d for d in env.found_docs if "shows_times" in env.metadata[d]]


class TidyBlocks(SphinxTransform):
    """Show the effort of exercises, fold long proofs natively, make ids unique."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.Element):
            for child in block.children:
                if isinstance(child, nodes.section) and block.get("label"):
                    child["ids"] = [f"{block['label']}-content"]
        for text in self.document.findall(nodes.Text):
            if RAW_DIRECTIVE.search(text) and not in_code(text):
                logger.warning(
                    "a directive was not understood and stands in the text; a line of"
                    " backticks that opens one may hold no other backtick: %s",
                    text.split("\n")[0],
                    location=text.parent,
                )
        for exercise in self.document.findall(exercise_enumerable_node):
            add_effort(exercise)
        for number, proof in enumerate(self.document.findall(proof_node), 1):
            proof[0]["ids"] = [f"proof-{number}"]
            if "dropdown" in proof[0]["classes"]:
                fold(proof[0])


def in_code(text: nodes.Text) -> bool:
    return isinstance(text.parent, nodes.literal_block | nodes.literal)


def fold(proof: nodes.Element) -> None:
    """Turn ``Proof. Text`` into a native ``details``; the theme's needs a script."""
    proof["classes"].remove("dropdown")
    first = next(proof.findall(nodes.Text))
    first.parent.replace(first, nodes.Text(first.removeprefix("Proof. ")))
    content = proof.children
    proof.children = []
    shown = summary("", "", strong("Proof"))
    proof += box("", shown, *content, tag="details", html={})


def minutes_to_solve(node: nodes.Element) -> int:
    """Return the minutes that an exercise asks for, 0 for anything else."""
    if not isinstance(node, exercise_enumerable_node):
        return 0
    stated = (re.fullmatch(r"minutes-(\d+)", name) for name in node["classes"])
    return sum(int(match[1]) for match in stated if match)


def add_effort(exercise: nodes.Element) -> None:
    found = {
        match[1]: int(match[2])
        for name in exercise["classes"]
        if (match := re.fullmatch(r"(stars|minutes|points)-(\d+)", name))
    }
    if len(found) == 3:
        kind = notebooks.ASKS[notebooks.asks(exercise["classes"])]
        line = effort(kind, found["stars"], found["minutes"], found["points"])
        exercise.insert(1, line)


def effort(kind: str, stars: int, minutes: int, points: int) -> nodes.Node:
    words = f"difficulty {stars} of 3"
    picture = stars_node("", stars=stars, words=words)
    points_text = f"{points} {'point' if points == 1 else 'points'}"
    text = f" · {kind} · {minutes} {'minute' if minutes == 1 else 'minutes'}"
    text += f" · {points_text}"
    return paragraph(picture, nodes.Text(text), kind="cr-effort")


class stars_node(nodes.Inline, nodes.Element):
    """A difficulty: stars in pages, words elsewhere."""


def visit_stars(self: Any, node: stars_node) -> None:
    drawn = "★" * node["stars"] + "☆" * (3 - node["stars"])
    self.body.append(f'<span role="img" aria-label="{node["words"]}">{drawn}</span>')
    raise nodes.SkipNode


def visit_stars_elsewhere(self: Any, node: stars_node) -> None:
    self.visit_Text(nodes.Text(node["words"]))
    raise nodes.SkipNode


def configure(app: Sphinx, config: Config) -> None:
    config.version = config.release = __version__
    config.html_static_path.append(str(BOOK / "_static"))
    for style in sorted((BOOK / "_latex").glob("*.sty")):
        config.latex_additional_files.append(str(style))
    # Without it the theme logs an error on a reader's first page.
    config.html_context.setdefault("default_mode", "auto")
    config.mathjax_path = "mathjax/tex-chtml-full.js"
    config.html_theme_options["extra_footer"] = (
        f'<p class="cr-version">Version {__version__} of the book and of crlib</p>'
    )


def number_by_unit(app: Sphinx) -> None:
    """Number in print as on the pages, where the theme for LaTeX counts parts too."""
    app.config.numfig_secnum_depth = 1


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put MathJax and its fonts beside the pages, from the package that carries it."""
    if error or app.builder.format != "html":
        return
    spec = importlib.util.find_spec("mathjax")
    if spec is None or not spec.submodule_search_locations:
        raise ExtensionError(
            "MathJax is not installed: pip install django-static-mathjax"
        )
    source = Path(spec.submodule_search_locations[0], "static", "mathjax")
    target = Path(app.outdir, "_static", "mathjax")
    fonts = Path("output", "chtml", "fonts", "woff-v2")
    if target.exists():
        return
    shutil.copytree(source / "es5" / fonts, target / fonts)
    shutil.copy(source / "es5" / "tex-chtml-full.js", target)
    shutil.copy(source / "LICENSE", target)


def drop_thebe(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop the loader of Thebe, which Jupyter Book adds even where it is off."""

    def wanted(asset: Any) -> bool:
        body = (getattr(asset, "attributes", None) or {}).get("body") or ""
        name = str(getattr(asset, "filename", asset))
        return "THEBE_JS_URL" not in body and "thebe" not in name

    for key in ("script_files", "css_files"):
        context[key] = [asset for asset in context.get(key, []) if wanted(asset)]


def setup(app: Sphinx) -> dict[str, Any]:
    # sphinx_external_toc replaces Sphinx's collector by this one.
    setattr(  # noqa: B010
        TocTreeCollectorWithStyles, "assign_section_numbers", number_by_file_name
    )
    nothing = (visit_nothing, visit_nothing)
    as_paragraph = (visit_as_paragraph, depart_as_paragraph)
    app.add_node(box, html=(visit_box, depart_box), latex=nothing, text=nothing)
    app.add_node(
        summary,
        html=(visit_summary, depart_summary),
        latex=as_paragraph,
        text=as_paragraph,
    )
    app.add_node(
        stars_node,
        html=(visit_stars, None),
        latex=(visit_stars_elsewhere, None),
        text=(visit_stars_elsewhere, None),
    )
    app.add_directive("chapter-card", ChapterCard)
    app.add_directive("predict", Predict)
    app.add_directive("running-times", RunningTimes)
    app.add_directive("thin-claims", ThinClaims)
    app.add_transform(TidyBlocks)
    app.add_post_transform(FillInTimes)
    app.connect("config-inited", configure)
    app.connect("builder-inited", number_by_unit, priority=900)
    app.connect("env-updated", rewrite_times)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    for name in ("reading", "front", "explore"):
        app.setup_extension(f"book._ext.{name}")
    return {"version": __version__, "env_version": 1, "parallel_read_safe": False}
