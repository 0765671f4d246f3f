"""Derive the runnable notebooks in chapters/ from the manuscript in book/.

    python -m book._tools.notebooks [--check] [--root .]

Nothing runs: directives and roles become plain Markdown, code cells keep their tags,
and theorems, equations, figures and exercises carry the numbers of the pages. With
``--check`` nothing is written: the names of notebooks that differ from a fresh
derivation, are missing or are left over are printed, and the exit code is 1.
"""

import argparse
import hashlib
import re
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from book._tools import manuscript as ms
from book._tools import release
from book._tools.manuscript import Block, Entry, Label, Manuscript, ManuscriptError
from book._tools.units import Unit

INSTALL = """\
import sys

if "google.colab" in sys.modules:
    %pip install -q "crlib @ git+{url}@{ref}"

try:
    import crlib
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "crlib is not here. Type: pip install 'crlib @ git+{url}@{ref}'"
        " and run this cell again. On Colab, the lines above say why that failed."
    ) from None

crlib.require("{version}")"""

ABOUT = """\
{unit} of *{book}*, version {version}. This notebook is derived from the book.

A number that the book computes appears here as **‹name›**. The cell that computes it
prints the name with its value."""

ADMONITIONS = {
    "attention": "Attention",
    "caution": "Caution",
    "danger": "Danger",
    "error": "Error",
    "hint": "Hint",
    "important": "Important",
    "margin": "Aside",
    "note": "Note",
    "seealso": "See also",
    "sidebar": "Aside",
    "tip": "Tip",
    "topic": "Aside",
    "warning": "Warning",
}

_ROLE = r"\{(?P<role>[\w:.+-]+)\}(?P<rtick>`+)(?P<content>.+?)(?P=rtick)"
_CODE = r"(?P<ctick>`+)(?P<code>.+?)(?<!`)(?P=ctick)(?!`)"
_MATH2 = r"(?<!\\)\$\$(?P<display>.+?)\$\$"
_MATH1 = r"(?<![\\$])\$(?![\s$])(?P<inline>(?:[^$\\]|\\.)+?)(?<!\s)\$(?!\d)"
_LINK = r"(?P<bang>!?)\[(?P<text>[^\[\]]*)\]\((?P<url>[^()\s]*)(?:\s+\"[^\"]*\")?\)"
_OTHER = (
    r"(?P<foot>\[\^[^\]]+\])|\{\{\s*(?P<subst>\w+)\s*\}\}|(?P<attrs>\{[#.]\w[^}]*\})"
)
INLINE = re.compile(
    "|".join([r"\\[`*_{}\[\]()#+.!$-]", _ROLE, _CODE, _MATH2, _MATH1, _LINK, _OTHER]),
    re.DOTALL,
)
_TITLED_TARGET = re.compile(r"^(?P<text>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)


@dataclass(frozen=True)
class Book:
    """What the derivation of one chapter needs to know about the others."""

    root: Path
    version: str
    settings: dict[str, Any]
    chapters: list[Manuscript]
    labels: dict[str, Label]
    titles: dict[str, str]
    entries: dict[str, Entry]

    @property
    def url(self) -> str:
        return str(self.settings["repository"]["url"]).rstrip("/")

    @property
    def ref(self) -> str:
        return release.ref(self.version, self.settings)

    @property
    def macros(self) -> dict[str, Any]:
        sphinx = self.settings.get("sphinx", {}).get("config", {})
        return sphinx.get("mathjax3_config", {}).get("tex", {}).get("macros", {})


def load(root: Path) -> Book:
    """Read the book under ``root``."""
    settings = ms.config(root)
    chapters, others = ms.chapters(root), ms.pages(root)
    return Book(
        root,
        release.version_of(root),
        settings,
        chapters,
        ms.index(chapters, others, ms.number_formats(settings)),
        {m.path.stem: m.title for m in [*chapters, *others]},
        ms.bibliography(root / "book/references.bib"),
    )


def labels(root: Path) -> dict[str, str]:
    """Return what the pages show for every numbered label, such as "Theorem 5.1"."""
    found = load(root).labels
    return {name: v.text for name, v in found.items() if v.kind != "section"}


def expand(tex: str, macros: dict[str, Any]) -> str:
    """Write out the macros of _config.yml, which plain MathJax does not know."""
    if not macros:
        return tex
    names = "|".join(map(re.escape, macros))
    # An even number of backslashes before is line breaks: \\R is no \R.
    pattern = re.compile(rf"(?<!\\)((?:\\\\)*)\\({names})(?![A-Za-z])")
    for _ in range(1000):
        match = pattern.search(tex)
        if not match:
            return tex
        macro = macros[match[2]]
        value, arity = (macro, 0) if isinstance(macro, str) else macro[:2]
        end = match.end()
        for k in range(1, int(arity) + 1):
            argument, end = _argument(tex, end)
            value = value.replace(f"#{k}", argument)
        start = match.start() + len(match[1])
        if start and tex[start - 1] in "^_":
            value = "{" + value + "}"
        if re.search(r"\\[A-Za-z]+$", value) and tex[end : end + 1].isalpha():
            value += " "
        tex = tex[:start] + value + tex[end:]
    raise ValueError(f"a macro of _config.yml calls itself: {tex[:80]!r}")


def _argument(tex: str, at: int) -> tuple[str, int]:
    while at < len(tex) and tex[at].isspace():
        at += 1
    if tex[at : at + 1] == "{":
        depth = 0
        for end in range(at, len(tex)):
            if tex[end - 1] != "\\" or end == at:
                depth += {"{": 1, "}": -1}.get(tex[end], 0)
            if depth == 0:
                return tex[at + 1 : end], end + 1
    command = re.compile(r"\\[A-Za-z]+|\\?.").match(tex, at)
    return (command[0], command.end()) if command else ("", at)


def quote(markdown: str) -> str:
    """Return a block quote; its formulas on one line, where ``>`` cannot enter them."""
    joined = re.sub(
        r"\$\$.*?\$\$", lambda m: " ".join(m[0].split()), markdown, flags=re.DOTALL
    )
    return "\n".join(f"> {line}".rstrip() for line in joined.splitlines())


def details(summary: str, markdown: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{markdown}\n\n</details>"


def join_lead(lead: str, children: list[str], first: Block | None) -> str:
    """Put ``lead`` before the first paragraph, or above it where it is none."""
    text = first is not None and first.kind == "text"
    if text and not re.match(r"\s*([-*+|]|\d+\.)\s?", children[0]):
        return "\n\n".join([f"{lead} {children[0]}", *children[1:]])
    return "\n\n".join([lead, *children])


def items(block: Block) -> list[str]:
    """Return the ``- `` items of a card or a question, each on one line."""
    found: list[str] = []
    for line in block.body.splitlines():
        if line.startswith("- "):
            found.append(line[2:].strip())
        elif line.strip() and found:
            found[-1] = f"{found[-1]} {line.strip()}"
    return found


def turned(question: str, listed: list[Any]) -> list[Any]:
    """Return options in a cyclic order of their own for each question.

    Authors write the right one last, or second: a reader would soon know.
    """
    first = zlib.crc32(question.encode()) % max(1, len(listed))
    return listed[first:] + listed[:first]


def options(question: Block) -> list[tuple[str, bool, str]]:
    """Return what a question to predict offers as (text, right, explanation)."""
    found = []
    for item in items(question):
        right = item.startswith("[x] ")
        text, _, why = item.removeprefix("[x] ").partition(" :: ")
        found.append((text.strip(), right, why.strip()))
    return turned(question.argument, found)


# What an exercise asks for; one that names no kind in its classes asks for a function.
ASKS = {
    "write": "write a function",
    "derive": "derive",
    "judge": "judge a claim",
    "change": "change the experiment",
}


def asks(classes: Iterable[str]) -> str:
    """Return the kind of an exercise, one of ``ASKS``."""
    return next((name for name in classes if name in ASKS), "write")


def exercise(block: Block) -> tuple[str, int, int, int]:
    """Return (title, stars, minutes, points) of an exercise; 0 where absent."""
    found = {}
    for name in ("stars", "minutes", "points"):
        match = re.search(rf"(?:^|\s){name}-(\d+)(?:\s|$)", " ".join(block.classes))
        found[name] = int(match[1]) if match else 0
    return block.argument, found["stars"], found["minutes"], found["points"]


RUBRIC = "Rubric"
# How a line of a rubric begins that is worth points.
WORTH = {"*One point:*": 1, "*Two points:*": 2, "*Three points:*": 3}


def rubric(blocks: list[Block], label: str) -> list[str]:
    """Return the lines of the rubric of an exercise, which its solution ends with.

    Empty if it has none. A line says what a full answer holds and begins with one of
    ``WORTH``; the last one may name the usual wrong turn.
    """
    inside = False
    for block in blocks:
        if block.name == "solution-start":
            inside = block.argument == label
        if inside and block.name == "admonition" and block.argument == RUBRIC:
            return items(block)
    return []


def worth(line: str) -> int:
    """Return the points of a line of a rubric.

    >>> worth("*Two points:* the sign."), worth("*Usual wrong turn:* none.")
    (2, 0)
    """
    return next((n for start, n in WORTH.items() if line.startswith(start)), 0)


def apart(blocks: list[Block]) -> tuple[list[Block], list[Block]]:
    """Return the blocks of a unit without its solutions, and those of the solutions.

    Colab folds nothing: right below its exercise a solution would be read first.
    """
    told: list[Block] = []
    solutions: list[Block] = []
    inside = False
    for block in blocks:
        inside |= block.name == "solution-start"
        (solutions if inside else told).append(block)
        inside &= block.name != "solution-end"
    return told, solutions


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def short_authors(entry: Entry) -> str:
    names = [last for last, _ in entry.authors]
    if len(names) == 1:
        return names[0]
    if len(names) == 2 and names[1] != "others":
        return f"{names[0]} and {names[1]}"
    return f"{names[0]} et al."


def reference(entry: Entry) -> str:
    """Return one line of a list of references."""
    fields = entry.fields
    names = [f"{given} {last}".strip() for last, given in entry.authors]
    if names and names[-1] == "others":
        who = ", ".join(names[:-1]) + " and others"
    else:
        who = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    parts = [
        f"{who} ({fields.get('year', 'no year')}).",
        f"*{fields['title']}*.",
    ]
    place = fields.get("journal") or fields.get("booktitle") or fields.get("publisher")
    if place:
        parts.append(f"{place}.")
    if "doi" in fields:
        parts.append(f"<https://doi.org/{fields['doi']}>")
    elif "eprint" in fields:
        parts.append(f"<https://arxiv.org/abs/{fields['eprint']}>")
    elif "url" in fields:
        parts.append(f"<{fields['url']}>")
    return " ".join(parts)


@dataclass
class Derivation:
    """The derivation of one chapter's notebook."""

    book: Book
    chapter: Manuscript
    cells: list[Any] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    cited: set[str] = field(default_factory=set)
    sections: list[int] = field(default_factory=lambda: [0] * 6)

    def notebook(self) -> nbformat.NotebookNode:
        install = INSTALL.format(
            url=self.book.url, ref=self.book.ref, version=self.book.version
        )
        self.code(install, {})
        told, solutions = apart(self.chapter.blocks)
        self.blocks(told)
        if solutions:
            self.flush()
            self.pending.append("## Solutions")
            self.blocks(solutions)
        if self.cited:
            self.flush()
            entries = [self.book.entries[key] for key in sorted(self.cited)]
            listed = "\n".join(f"- {reference(entry)}" for entry in entries)
            self.pending.append(f"## References\n\n{listed}")
        self.flush()
        self.name_cells()
        metadata = {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
        return nbformat.v4.new_notebook(cells=self.cells, metadata=metadata)

    def blocks(self, blocks: list[Block]) -> None:
        for block in blocks:
            if block.kind == "cell":
                self.cell(block)
                continue
            starts = ("exercise-start", "solution-start")
            if block.kind == "heading" or block.name in starts:
                self.flush()
            if text := self.markdown(block):
                self.pending.append(text)

    def error(self, line: int, message: str) -> ManuscriptError:
        return ManuscriptError(self.chapter.path, line, message)

    def code(self, source: str, metadata: dict[str, Any]) -> None:
        self.cells.append(nbformat.v4.new_code_cell(source, metadata=metadata))

    def flush(self) -> None:
        if self.pending:
            text = "\n\n".join(self.pending)
            self.cells.append(nbformat.v4.new_markdown_cell(text))
            self.pending = []

    def name_cells(self) -> None:
        """Give each cell an id that changes only with its own text."""
        seen: dict[str, int] = {}
        for cell in self.cells:
            digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode())
            name = digest.hexdigest()[:12]
            seen[name] = seen.get(name, 0) + 1
            cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"

    def cell(self, block: Block) -> None:
        if {"hidden-test", "wrong-answer"} & set(block.tags):
            return
        self.flush()
        metadata: dict[str, Any] = {"tags": block.tags} if block.tags else {}
        if "solution" in block.tags or "hide-input" in block.tags:
            metadata["jupyter"] = {"source_hidden": True}
        self.code(block.body, metadata)
        if block.figure and block.figure.get("caption"):
            # A period inside the emphasis keeps a caption with stars of its own whole.
            caption = self.inline(str(block.figure["caption"]).strip(), block.line)
            self.pending.append(f"*{block.options['numbered']}.* {caption}")

    def children(self, block: Block) -> list[str]:
        return [text for child in block.children if (text := self.markdown(child))]

    def markdown(self, block: Block) -> str:
        if block.kind == "text":
            return self.inline(block.body, block.line)
        if block.kind == "heading":
            return self.heading(block)
        if block.kind == "math":
            return self.math(block)
        if block.kind == "verbatim":
            return block.body
        if block.kind == "target":
            return ""
        return self.directive(block)

    def heading(self, block: Block) -> str:
        title = self.inline(block.argument, block.line)
        number = ms.section_number(self.chapter, self.sections, block.level)
        text = f"{'#' * block.level} {number} {title}"
        if block.level > 1:
            return text
        assert self.chapter.unit
        about = ABOUT.format(
            unit=f"{self.chapter.unit.rules.word.capitalize()} {self.chapter.number}",
            book=self.book.settings["title"],
            version=self.book.version,
        )
        return f"{text}\n\n{about}"

    def math(self, block: Block) -> str:
        tex = expand(block.body, self.book.macros)
        if re.search(r"\n\s*\n", tex):
            raise self.error(block.line, "a blank line in a formula: take it out")
        # Sphinx does the same, so that & and line breaks need no environment.
        if r"\\" in tex and not tex.lstrip().startswith(r"\begin"):
            tex = rf"\begin{{split}}{tex}\end{{split}}"
        if block.label:
            tex += rf" \tag{{{block.options['number']}}}"
        lines = f"$$\n{tex}\n$$".splitlines()
        return "\n".join(block.indent + line for line in lines)

    def directive(self, block: Block) -> str:
        name = block.name
        kind = name.removeprefix("prf:")
        if name.startswith("prf:") and kind in ms.THEOREMS:
            return self.theorem(block, kind)
        if name == "prf:proof":
            return self.proof(block)
        if name in ADMONITIONS or name in ("admonition", "dropdown"):
            return self.admonition(block)
        if name in ("code", "code-block"):
            return f"```{block.argument}\n{block.body}\n```"
        if name == "table":
            caption = self.inline(block.argument, block.line)
            lead = f"*{block.options['numbered']}.* {caption}" if caption else ""
            return "\n\n".join(filter(None, [lead, *self.children(block)]))
        special: dict[str, Callable[[Block], str]] = {
            "chapter-card": self.card,
            "predict": self.predict,
            "explore": self.explore,
            "exercise-start": self.exercise,
            "solution-start": self.solution,
        }
        if name in special:
            return special[name](block)
        if name in ("exercise-end", "solution-end"):
            return ""
        raise self.error(
            block.line,
            f"the directive {{{name}}} has no form in a notebook: use another one, or"
            " teach it to book/_tools/notebooks.py",
        )

    def theorem(self, block: Block, kind: str) -> str:
        head = block.options.get("numbered") or kind.title()
        if block.argument:
            head += f" ({self.inline(block.argument, block.line)})"
        first = block.children[0] if block.children else None
        return quote(join_lead(f"**{head}.**", self.children(block), first))

    def proof(self, block: Block) -> str:
        children = self.children(block)
        if block.children and block.children[-1].kind == "text":
            children[-1] += " ∎"
        else:
            children.append("∎")
        if "dropdown" in block.classes:
            return details("Proof", "\n\n".join(children))
        first = block.children[0] if block.children else None
        return join_lead("*Proof.*", children, first)

    def admonition(self, block: Block) -> str:
        head = self.inline(block.argument, block.line) or ADMONITIONS.get(
            block.name, ""
        )
        if block.name == "dropdown" or "dropdown" in block.classes:
            return details(head, "\n\n".join(self.children(block)))
        first = block.children[0] if block.children else None
        lead = f"**{head}.**" if head[-1:] not in tuple(".?!:") else f"**{head}**"
        return quote(join_lead(lead, self.children(block), first))

    def card(self, block: Block) -> str:
        needs = self.inline(str(block.options.get("needs") or "nothing"), block.line)
        goals = [self.inline(text, block.body_line) for text in items(block)]
        listed = "\n".join(f"- {goal}" for goal in goals)
        end = "" if needs.endswith(".") else "."
        return quote(
            f"**You need:** {needs}{end}\n\n**After this chapter you can:**\n\n{listed}"
        )

    def predict(self, block: Block) -> str:
        question = f"**Predict.** {self.inline(block.argument, block.line)}"
        asked, answered = [], []
        for option, right, why in options(block):
            text = self.inline(option, block.body_line)
            because = self.inline(why, block.body_line)
            asked.append(f"- {text}")
            answered.append(f"- {text} **{'Right' if right else 'Not so'}.** {because}")
        answers = details("Answers", "\n".join(answered))
        return quote("\n\n".join([question, "\n".join(asked), answers]))

    def explore(self, block: Block) -> str:
        """Point to the page, which alone can move."""
        caption = " ".join(self.children(block))
        return f"*{block.options['numbered']}, on the page of the book.* {caption}"

    def exercise(self, block: Block) -> str:
        title, stars, minutes, points = exercise(block)
        shown = "★" * stars + "☆" * (3 - stars)
        head = f"### {block.options['numbered']}: {self.inline(title, block.line)}"
        told = [shown, ASKS[asks(block.classes)], count(minutes, "minute")]
        return f"{head} ({', '.join([*told, count(points, 'point')])})"

    def solution(self, block: Block) -> str:
        label = self.book.labels.get(block.argument)
        if not label or label.kind != "exercise":
            raise self.error(block.line, f"there is no exercise {block.argument!r}")
        return f"**Solution of {label.text[0].lower()}{label.text[1:]}**"

    def inline(self, text: str, line: int) -> str:
        """Return ``text`` with its roles, formulas and links in plain Markdown."""

        def replace(match: re.Match[str]) -> str:
            at = line + text.count("\n", 0, match.start())
            if match["role"]:
                return self.role(match["role"], " ".join(match["content"].split()), at)
            if match["display"] is not None:
                return f"$${expand(match['display'], self.book.macros)}$$"
            if match["inline"] is not None:
                tex = expand(match["inline"], self.book.macros)
                return f"${' '.join(tex.split())}$"
            if match["url"] is not None:
                return self.link(match["bang"], match["text"], match["url"], at)
            if match["subst"]:
                parse = self.book.settings.get("parse", {})
                known = parse.get("myst_substitutions", {})
                if match["subst"] not in known:
                    raise self.error(at, f"unknown substitution {match['subst']!r}")
                return str(known[match["subst"]])
            if match["foot"]:
                raise self.error(at, "notebooks show no footnotes: use {margin}")
            if match["attrs"]:
                raise self.error(at, f"notebooks show {match['attrs']} as it stands")
            return match[0]

        return INLINE.sub(replace, text)

    def link(self, bang: str, text: str, url: str, line: int) -> str:
        if bang:
            raise self.error(line, "an image: draw it in a code cell with alt text")
        if re.match(r"(https?|mailto):", url):
            return f"[{self.inline(text, line)}]({url})"
        page, _, anchor = url.partition("#")
        if page:
            stem = Path(page).stem
            if stem not in self.book.titles:
                raise self.error(line, f"there is no page {page!r} in book/")
            shown = self.inline(text or self.book.titles[stem], line)
            # Of a unit the reader has the notebook; other pages are read elsewhere.
            if Unit.of(stem) is not None:
                return shown
            return f"[{shown}]({self.book.url}/blob/{self.book.ref}/book/{stem}.md)"
        return self.inline(text, line) or self.label(anchor, line).text

    def label(self, name: str, line: int) -> Label:
        if name not in self.book.labels:
            raise self.error(line, f"there is no label {name!r}")
        return self.book.labels[name]

    def role(self, role: str, content: str, line: int) -> str:
        titled = _TITLED_TARGET.match(content)
        text = titled["text"] if titled else ""
        target = titled["target"] if titled else content
        if role in ("prf:ref", "ref", "eq", "numref", "math:numref"):
            return self.crossref(role, text, target, line)
        if role in ("cite", "cite:p", "cite:t", "cite:ps", "cite:ts"):
            return self.cite(role, content, line)
        if role == "term":
            return f"*{text or target}*"
        if role in ("glue:text", "glue"):
            return f"**‹{content.split(':')[0]}›**"
        if role == "doc":
            return text or self.link("", "", f"{Path(target).stem}.md", line)
        if role == "math":
            return f"${expand(content, self.book.macros)}$"
        if role in ("code", "kbd", "file", "samp"):
            return f"`{content}`"
        if role in ("sub", "sup"):
            return f"<{role}>{content}</{role}>"
        if role in ("abbr", "download"):
            return text or content
        if role.removeprefix("py:") in (
            "attr", "class", "data", "exc", "func", "meth", "mod", "obj"
        ):  # fmt: skip
            short = target.rpartition(".")[2] if target.startswith("~") else target
            return f"`{text or short}`"
        raise self.error(
            line,
            f"the role {{{role}}} has no form in a notebook: use another one, or teach"
            " it to book/_tools/notebooks.py",
        )

    def crossref(self, role: str, text: str, target: str, line: int) -> str:
        label = self.label(target, line)
        if role in ("eq", "math:numref") and label.kind != "equation":
            raise self.error(line, f"{target!r} is no equation: it is {label.text}")
        if role == "prf:ref" and label.kind not in ms.THEOREMS:
            raise self.error(line, f"{target!r} is no theorem: it is {label.text}")
        if text:
            return text.replace("%s", label.number).replace("{number}", label.number)
        if role == "numref" and label.kind == "section":
            return f"Section {label.number}"
        return self.inline(label.text, line)

    def cite(self, role: str, content: str, line: int) -> str:
        shown = []
        for key in (part.strip() for part in content.split(",")):
            if key not in self.book.entries:
                raise self.error(line, f"references.bib has no entry {key!r}")
            self.cited.add(key)
            entry = self.book.entries[key]
            year = entry.fields.get("year", "no year")
            who = short_authors(entry)
            textual = role in ("cite:t", "cite:ts")
            shown.append(f"{who} ({year})" if textual else f"{who}, {year}")
        if role in ("cite:t", "cite:ts"):
            return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
        return f"({'; '.join(shown)})"


def derive(book: Book) -> tuple[dict[str, str], list[str]]:
    """Return the notebooks as file name -> text, and what could not be derived."""
    files, problems = {}, []
    for chapter in book.chapters:
        try:
            notebook = Derivation(book, chapter).notebook()
        except ManuscriptError as error:
            problems.append(str(error))
            continue
        text = nbformat.writes(notebook, version=4, indent=1)
        assert chapter.unit
        files[f"{chapter.unit.notebook}.ipynb"] = text.rstrip("\n") + "\n"
    return files, problems


def differences(root: Path) -> list[str]:
    """Return one line for each notebook that a fresh derivation would change."""
    files, problems = derive(load(root))
    return problems + outdated(root, files)


def outdated(root: Path, files: dict[str, str]) -> list[str]:
    """Return one line for each notebook that is not what was derived now."""
    problems, folder = [], root / "chapters"
    for name, text in files.items():
        path = folder / name
        if not path.exists():
            problems.append(f"chapters/{name}: missing, run `make notebooks`")
        elif path.read_text(encoding="utf-8") != text:
            problems.append(f"chapters/{name}: out of date, run `make notebooks`")
    for path in sorted(folder.glob("*.ipynb")):
        if path.name not in files:
            problems.append(f"chapters/{path.name}: left over, run `make notebooks`")
    return problems


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            problems = differences(options.root)
        else:
            files, problems = derive(load(options.root))
            folder = options.root / "chapters"
            folder.mkdir(exist_ok=True)
            for path in folder.glob("*.ipynb"):
                if path.name not in files and not problems:
                    path.unlink()
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
                print(f"chapters/{name}")
    except ManuscriptError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
