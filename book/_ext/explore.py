"""Explorable figures: ``{explore} NAME`` puts one into a page, with its data.

The page carries what the figure computes with; a script of its own, loaded by the pages
that need it, draws it. Where no script runs a sentence stands in its place.
"""

import json
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book._tools import explorables, explored


class explorable(nodes.General, nodes.Element):
    """The place of one; its child says what is to be seen where no script runs."""


class Explore(SphinxDirective):
    """A numbered figure that computes in the page; the content is its caption."""

    required_arguments = 1
    has_content = True
    option_spec = {
        "name": directives.unchanged_required,
        # JSON: values of controls, such as {"setting": "rank 16"}.
        "start": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in explorables.NAMES:
            known = ", ".join(explorables.NAMES)
            raise self.error(f"explore: {name!r} is none of {known}")
        if not self.content or not self.options.get("name"):
            raise self.error("explore: give it a :name: and, as content, a caption")
        start = self.options.get("start", "{}")
        try:
            json.loads(start)
        except ValueError as error:
            raise self.error(f"explore: :start: is no JSON: {error}") from error
        parsed = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, parsed)
        if len(parsed) != 1 or not isinstance(parsed[0], nodes.paragraph):
            raise self.error("explore: the caption is one paragraph")
        instead = nodes.paragraph(
            text=explorables.SAID[name], classes=["cr-explore-instead"]
        )
        figure = nodes.figure("", explorable("", instead, kind=name, start=start))
        figure += nodes.caption("", "", *parsed[0].children)
        self.add_name(figure)
        return [figure]


def visit(self: Any, node: explorable) -> None:
    told = {"data-explore": node["kind"], "data-start": node["start"]}
    self.body.append(self.starttag(node, "div", "", CLASS="cr-explore", **told))


def depart(self: Any, node: explorable) -> None:
    told = json.dumps(explored.data(node["kind"]), separators=(",", ":"))
    told = told.replace("<", r"\u003c")
    self.body.append(f'<script type="application/json">{told}</script></div>')


def pass_by(self: Any, node: explorable) -> None:
    """Leave the sentence to stand alone."""


def load(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Load the scripts of the explorables of a page, and nothing on other pages."""
    kinds = {node["kind"] for node in doctree.findall(explorable)} if doctree else set()
    if kinds:
        app.add_css_file("explore/explore.css")
        for name in ("core", *sorted(kinds)):
            app.add_js_file(f"explore/{name}.js")


def setup(app: Sphinx) -> dict[str, Any]:
    nothing = (pass_by, pass_by)
    app.add_node(explorable, html=(visit, depart), latex=nothing, text=nothing)
    app.add_directive("explore", Explore)
    app.connect("html-page-context", load)
    return {"version": "1", "parallel_read_safe": False}
