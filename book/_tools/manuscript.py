"""Read the manuscript: blocks, code cells, labels and numbers, bibliography.

Only the MyST that the book uses is understood. Anything else raises
:class:`ManuscriptError`, which names the file and the line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pybtex.database import parse_file
from pybtex.richtext import Text

from book._tools.units import Unit, units

THEOREMS = (
    "axiom",
    "theorem",
    "lemma",
    "algorithm",
    "definition",
    "remark",
    "conjecture",
    "corollary",
    "criterion",
    "example",
    "property",
    "observation",
    "proposition",
    "assumption",
    "notation",
)
ADDRESSES = ("doi", "eprint", "url")
# The defaults of Sphinx and sphinx-exercise; _config.yml may change them.
NUMBER_FORMATS = {
    "figure": "Fig. %s",
    "table": "Table %s",
    "section": "Section %s",
    "exercise": "Exercise %s",
}
# These parse their body themselves, line by line.
RAW_BODY = ("chapter-card", "predict", "code-block", "code", "literalinclude")
# The text after their name is their title; elsewhere it opens the body.
TITLED = (
    "admonition",
    "code",
    "code-block",
    "dropdown",
    "exercise-start",
    "explore",
    "margin",
    "predict",
    "session",
    "sidebar",
    "solution-start",
    "table",
    "topic",
)

# Eight times as fast as the one in Python, where it was built.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}|:{3,})\s*(.*?)\s*$")
_DIRECTIVE = re.compile(r"^\{([\w:.+-]+)\}\s*(.*)$")
_OPTION = re.compile(r"^:([\w-]+):\s*(.*)$")
_TARGET = re.compile(r"^\(([\w:.-]+)\)=\s*$")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*$")
_MATH_LINE = re.compile(r"^( *)\$\$(.+?)\$\$\s*(?:\(([\w-]+)\))?\s*$")
_MATH_END = re.compile(r"^(.*?)\$\$\s*(?:\(([\w-]+)\))?\s*$")


class ManuscriptError(Exception):
    """The manuscript holds something that cannot be understood."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(f"{path.name}:{line}: {message}")


@dataclass
class Block:
    """A piece of a manuscript: text, heading, target, math, verbatim, cell, directive.

    ``name`` is the directive's name; ``line`` is where the block starts and
    ``body_line`` where its body does, both counted from one.
    """

    kind: str
    line: int
    body: str = ""
    body_line: int = 0
    name: str = ""
    argument: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    children: list["Block"] = field(default_factory=list)
    level: int = 0
    indent: str = ""

    @property
    def label(self) -> str:
        return str(self.options.get("label") or self.options.get("name") or "")

    @property
    def tags(self) -> list[str]:
        return list(self.options.get("tags") or [])

    @property
    def classes(self) -> list[str]:
        return str(self.options.get("class") or "").split()

    @property
    def figure(self) -> dict[str, Any] | None:
        """The figure that a code cell draws: name and caption."""
        return (self.options.get("mystnb") or {}).get("figure")

    @property
    def alt(self) -> str:
        image = (self.options.get("mystnb") or {}).get("image") or {}
        return str(image.get("alt") or "").strip()


@dataclass
class Manuscript:
    """One file of the book; ``unit`` is None on pages that are no chapter or lab."""

    path: Path
    unit: Unit | None
    text: str
    blocks: list[Block]

    @property
    def number(self) -> str:
        """What numbers begin with: 5 in chapter 5, L3 in lab 3, else empty."""
        return self.unit.label if self.unit else ""

    @property
    def title(self) -> str:
        headings = (b for b in self.blocks if b.kind == "heading" and b.level == 1)
        return next((b.argument for b in headings), self.path.stem)

    @property
    def cells(self) -> list[Block]:
        return [b for b in self.blocks if b.kind == "cell"]

    def tagged(self, *tags: str) -> list[Block]:
        """Return the code cells that carry all of ``tags``."""
        return [c for c in self.cells if set(tags) <= set(c.tags)]


@dataclass(frozen=True)
class Label:
    """What a label points at; ``text`` is what a page shows for a reference to it."""

    kind: str
    number: str
    text: str


def walk(blocks: list[Block]) -> Iterator[Block]:
    """Yield all blocks in document order, parents first."""
    for block in blocks:
        yield block
        yield from walk(block.children)


def read(path: Path) -> Manuscript:
    """Read one manuscript file.

    Raises:
        ManuscriptError: a fence or a formula that does not end, options that are no
            YAML, a directive where none can stand.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    start = 0
    if lines and lines[0] == "---":
        start = next((i + 1 for i in range(1, len(lines)) if lines[i] == "---"), 0)
        if not start:
            raise ManuscriptError(path, 1, "the YAML header does not end")
    return Manuscript(path, Unit.of(path), text, _parse(lines[start:], start + 1, path))


def chapters(root: Path) -> list[Manuscript]:
    """Read all units of the book under ``root``: chapters, then labs."""
    return [read(root / "book" / f"{unit.stem}.md") for unit in units(root)]


def pages(root: Path) -> list[Manuscript]:
    """Read the pages of the book that are no units."""
    names = sorted((root / "book").glob("*.md"))
    return [read(p) for p in names if not Unit.of(p)]


def _parse(lines: list[str], first: int, path: Path, top: bool = True) -> list[Block]:
    blocks: list[Block] = []
    text: list[str] = []
    text_start = 0

    def flush() -> None:
        body = "\n".join(text).strip("\n")
        if body.strip():
            lead = next(k for k, t in enumerate(text) if t.strip())
            blocks.append(Block("text", first + text_start + lead, body))
        text.clear()

    i = 0
    while i < len(lines):
        line, start = lines[i], i
        block: Block | None = None
        if (fence := _FENCE.match(line)) and not (
            fence[2][0] == "`" and "`" in fence[3]
        ):
            block, i = _fence(lines, i, first, path, top)
        elif math := _MATH_LINE.match(line):
            block = Block("math", first + i, math[2].strip(), indent=math[1])
            block.options["label"] = math[3]
            i += 1
        elif line.strip().startswith("$$") and line.count("$$") == 1:
            block, i = _dollars(lines, i, first, path)
        elif target := _TARGET.match(line):
            block = Block("target", first + i, options={"label": target[1]})
            i += 1
        elif heading := _HEADING.match(line):
            block = Block("heading", first + i, argument=heading[2])
            block.level = len(heading[1])
            i += 1
        elif line.startswith("%") or line.rstrip() == "+++":
            flush()
            i += 1
            continue
        else:
            if not text:
                text_start = start
            text.append(line)
            i += 1
        if block:
            if block.kind == "math" and not block.name and block.label:
                if text and text[-1].strip():
                    raise ManuscriptError(
                        path, first + start, "a labelled $$ needs a blank line above"
                    )
            flush()
            blocks.append(block)
    flush()
    return blocks


def _fence(
    lines: list[str], i: int, first: int, path: Path, top: bool
) -> tuple[Block, int]:
    opening = _FENCE.match(lines[i])
    assert opening
    indent, mark, info = opening.groups()
    closing = re.compile(rf"^ *{re.escape(mark[0])}{{{len(mark)},}}\s*$")
    end = next((j for j in range(i + 1, len(lines)) if closing.match(lines[j])), None)
    if end is None:
        raise ManuscriptError(path, first + i, "this fence does not end")
    inner, line = lines[i + 1 : end], first + i
    directive = _DIRECTIVE.match(info)
    if not directive:
        if mark[0] == ":":
            raise ManuscriptError(path, line, "a colon fence needs a {directive}")
        return Block("verbatim", line, "\n".join(lines[i : end + 1])), end + 1
    name, argument = directive.groups()
    if indent:
        raise ManuscriptError(path, line, f"start {{{name}}} at the left margin")
    options, used = _options(inner, path, line)
    body, body_line = inner[used:], line + 1 + used
    while body and not body[0].strip():
        body, body_line = body[1:], body_line + 1
    source = "\n".join(body).rstrip()
    if name == "code-cell":
        if not top:
            raise ManuscriptError(path, line, "no code cell inside a directive")
        return Block("cell", line, source, body_line, name, "", options), end + 1
    if name == "math":
        source = "\n".join(filter(None, [argument, source]))
        return Block("math", line, source, body_line, name, "", options), end + 1
    if argument and name not in TITLED and name.removeprefix("prf:") not in THEOREMS:
        body, body_line, argument = [argument, *body], line, ""
        source = "\n".join(body)
    block = Block("directive", line, source, body_line, name, argument, options)
    if name not in RAW_BODY:
        block.children = _parse(body, body_line, path, top=False)
    return block, end + 1


def _options(lines: list[str], path: Path, line: int) -> tuple[dict[str, Any], int]:
    """Read ``:key: value`` lines or a YAML block; return them and the lines used."""
    if lines and lines[0].strip() == "---":
        used = next((k for k in range(1, len(lines)) if lines[k].strip() == "---"), 0)
        if not used:
            raise ManuscriptError(path, line, "the options of this cell do not end")
        source, used = "\n".join(lines[1:used]), used + 1
    else:
        plain: dict[str, Any] = {}
        used, key = 0, ""
        for text in lines:
            if match := _OPTION.match(text):
                key, plain[match[1]] = match[1], match[2]
            elif key and text.startswith("  ") and text.strip():
                plain[key] = f"{plain[key]} {text.strip()}"
            else:
                break
            used += 1
        if "tags" not in plain:
            return plain, used
        source = f"tags: {plain['tags']}"
    try:
        return yaml.load(source, LOADER) or {}, used
    except yaml.YAMLError as error:
        raise ManuscriptError(path, line, f"the options are no YAML: {error}") from None


def _dollars(lines: list[str], i: int, first: int, path: Path) -> tuple[Block, int]:
    indent = lines[i][: len(lines[i]) - len(lines[i].lstrip())]
    body = [lines[i].strip()[2:]]
    for j in range(i + 1, len(lines)):
        if end := _MATH_END.match(lines[j]):
            body.append(end[1])
            block = Block("math", first + i, "\n".join(body).strip(), indent=indent)
            block.options["label"] = end[2]
            return block, j + 1
        body.append(lines[j])
    raise ManuscriptError(path, first + i, "this $$ does not end")


def index(
    books: list[Manuscript], others: list[Manuscript], formats: dict[str, str]
) -> dict[str, Label]:
    """Number everything that the pages number, and return it by label.

    One counter per kind and chapter, in document order, as Sphinx, sphinx-proof and
    sphinx-exercise count; the chapter number is that of the file name.

    Raises:
        ManuscriptError: a label used twice.
    """
    labels: dict[str, Label] = {}

    def add(book: Manuscript, block: Block, name: str, label: Label) -> None:
        if name in labels:
            raise ManuscriptError(book.path, block.line, f"label {name!r} used twice")
        labels[name] = label

    for book in [*books, *others]:
        counts: dict[str, int] = {}
        sections = [0] * 6
        target = ""
        for block in walk(book.blocks):
            if block.kind == "heading":
                number = section_number(book, sections, block.level)
                if target:
                    text = block.argument
                    add(book, block, target, Label("section", number, text))
            target = block.label if block.kind == "target" else ""
            kind, name = _numbered(block)
            if not kind or not book.number:
                continue
            counts[kind] = counts.get(kind, 0) + 1
            number = f"{book.number}.{counts[kind]}"
            if kind == "equation":
                text = f"({number})"
            else:
                text = formats.get(kind, f"{kind.title()} %s") % number
            block.options["number"] = number
            block.options["numbered"] = text
            if name:
                add(book, block, name, Label(kind, number, text))
    return labels


def section_number(book: Manuscript, sections: list[int], level: int) -> str:
    """Count one more heading of ``level`` and return its number, such as 5.2.1."""
    if level == 1:
        return book.number
    sections[level - 1] += 1
    sections[level:] = [0] * (6 - level)
    return ".".join([book.number, *map(str, sections[1:level])])


def _numbered(block: Block) -> tuple[str, str]:
    """Return the counter that a block belongs to (or "") and its label."""
    if block.kind == "math" and block.label:
        return "equation", block.label
    if block.kind == "cell" and block.figure and block.figure.get("caption"):
        return "figure", str(block.figure.get("name") or "")
    if block.name == "explore":
        return "figure", block.label
    if block.kind != "directive" or "nonumber" in block.options:
        return "", ""
    kind = block.name.removeprefix("prf:")
    if block.name.startswith("prf:") and kind in THEOREMS:
        return kind, block.label
    if block.name == "exercise-start":
        return "exercise", block.label
    if block.name == "table" and block.argument:
        return "table", block.label
    return "", ""


def config(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8")) or {}


def number_formats(settings: dict[str, Any]) -> dict[str, str]:
    sphinx = (settings.get("sphinx") or {}).get("config") or {}
    return {**NUMBER_FORMATS, **(sphinx.get("numfig_format") or {})}


@dataclass(frozen=True)
class Entry:
    """A work that the book cites: its fields in plain Unicode, addresses as written.

    ``authors`` are (last name, first names); "others" stands for those left out.
    """

    fields: dict[str, str]
    authors: list[tuple[str, str]]


def plain(tex: str) -> str:
    """Return BibTeX text as Unicode: accents resolved, braces dropped."""
    if "\\" in tex or "$" in tex:
        return str(Text.from_latex(tex).render_as("text"))
    # Nearly all is like this, and reading it as LaTeX takes a fiftieth of a second.
    return re.sub("[{}]", "", tex).replace("--", "–").replace("~", "\u00a0")


def bibliography(path: Path) -> dict[str, Entry]:
    """Read a BibTeX file; return its entries by key."""
    found = {}
    for key, entry in parse_file(str(path)).entries.items():
        fields = {
            name.lower(): value if name in ADDRESSES else plain(value)
            for name, value in entry.fields.items()
        }
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        authors = [
            (
                plain(" ".join([*p.prelast_names, *p.last_names, *p.lineage_names])),
                plain(" ".join([*p.first_names, *p.middle_names])),
            )
            for p in people
        ]
        found[key] = Entry(fields, authors)
    return found
