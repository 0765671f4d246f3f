"""What a program can judge in a manuscript and in a derived notebook.

Each rule is a function that returns problems, one line each:
``file:line: what is wrong, and what to do``.
"""

import ast
import functools
import math
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from book._tools import explorables, folds, notebooks
from book._tools import manuscript as ms
from book._tools.manuscript import Block, Entry, Manuscript, walk
from book._tools.units import KINDS, Kind

LINES, WIDTH, PERCENTILE_90 = 25, 88, 15
WORDS = 45
INTERVALS = 4
CHECKED = ("theorem", "proposition", "lemma", "corollary")
TAGS = {
    "setup",
    "claim",
    "failure",
    "exercise",
    "public-test",
    "hidden-test",
    "solution",
    folds.OPEN,
    "hide-input",
    "hide-output",
    "hide-cell",
    "remove-input",
    "remove-output",
    "remove-cell",
}
_ROLE = re.compile(r"\{([\w:.+-]+)\}(`+)(.+?)\2", re.DOTALL)
# A number, but not the tail of a name such as CIFAR-10, H100 or ResNet-18.
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])(?<![A-Za-z]-)\d+(?:[.,/]\d+)*")
_UNIT = re.compile(r"units?\b|pixel|/\s*255|\[0,\s*1\]", re.IGNORECASE)
# What has one spelling in the whole book: the wrong one, and what to write.
_SPELLINGS = {
    r"\bper\s+cent\b": "write percent",
    r"\b(linf|l[012])\b": r"write the norm as a formula, $\ell_2$",
    r"\b(last|next|previous|first) chapter\b|\bchapter (before|after)\b"
    r"|(?<!this )\bchapter (one|two|three|four|five|six|seven|eight|nine|ten)\b": (
        "link the chapter by its number, [chapter 2](ch02_slug.md)"
    ),
    r"\brank none\b": "say full",
}
_IMAGE_FILE = re.compile(r"[\w./-]+\.(png|jpe?g|svg|gif|pdf)")


@dataclass
class Shelf:
    """What the rules know about the whole book."""

    chapters: list[Manuscript]
    pages: list[Manuscript] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)

    @cached_property
    def terms(self) -> set[str]:
        """The glossary's terms, in lower case."""
        found = set()
        for page in self.pages:
            for block in walk(page.blocks):
                if block.name == "glossary":
                    lines = block.body.splitlines()
                    found |= {t.strip().lower() for t in lines if t[:1].strip()}
        return found

    @cached_property
    def intervals(self) -> set[str]:
        """Names glued to an interval: ``value.format(spec)``, or a verdict on one."""
        return {
            name
            for book in [*self.chapters, *self.pages]
            for cell in book.cells
            for call in calls(cell, "glue")
            if call.args and any(map(_is_interval, ast.walk(call)))
            for name in _strings(call.args[0])
        }

    @cached_property
    def keys(self) -> set[str]:
        """The keys cited anywhere in the book."""
        return {k for m in [*self.chapters, *self.pages] for _, k in citations(m)}


def shelf(root: Path) -> Shelf:
    entries = ms.bibliography(root / "book/references.bib")
    return Shelf(ms.chapters(root), ms.pages(root), entries)


def rules(book: Manuscript) -> Kind:
    """Return what a unit of this kind must have."""
    return book.unit.rules if book.unit else KINDS["ch"]


def prose(book: Manuscript) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of everything a reader reads as prose, markup included."""
    for block in walk(book.blocks):
        if block.kind == "text":
            yield block.line, block.body
        elif block.kind == "heading":
            yield block.line, block.argument
        elif block.kind == "cell" and block.figure:
            yield block.line, str(block.figure.get("caption") or "")
        elif block.kind == "directive":
            if block.name not in ("solution-start", "code", "code-block"):
                yield block.line, block.argument
            if block.name in ("predict", "chapter-card"):
                yield block.line, str(block.options.get("needs") or "")
                yield block.body_line, block.body


def bare(text: str) -> str:
    """Return prose without math, code, roles, links and tags, lines kept."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n") + "¤"

    for pattern in (
        r"<!--.*?-->",
        _ROLE.pattern,
        r"(`+).+?(?<!`)\1(?!`)",
        r"\$\$.+?\$\$",
        r"(?<!\\)\$(?:[^$\\]|\\.)+?\$",
        r"!?\[[^\[\]]*\]\([^()\s]*\)",
        r"<https?://[^>]*>|https?://\S+",
        r"</?[a-z][^>]*>",
    ):
        text = re.sub(pattern, blank, text, flags=re.DOTALL)
    return re.sub(r"^(\s*)\d+[.)]\s", r"\1", text, flags=re.MULTILINE)


def roles(book: Manuscript, *names: str) -> Iterator[tuple[int, str]]:
    """Yield (line, content) of every use of these roles."""
    for line, text in prose(book):
        for match in _ROLE.finditer(text):
            if match[1] in names:
                content = " ".join(match[3].split())
                yield line + text.count("\n", 0, match.start()), content


def target(content: str) -> str:
    """Return what a role points at: ``text <target>`` or ``target``."""
    return content.rpartition("<")[2].rstrip(">").strip()


def citations(book: Manuscript) -> Iterator[tuple[int, str]]:
    for line, content in roles(book, "cite", "cite:t", "cite:p", "cite:ts", "cite:ps"):
        for key in content.split(","):
            yield line, key.strip()


def tree(cell: Block) -> ast.Module | None:
    """Return the parsed source of a cell, magics left out; None if it is no Python."""
    return _tree(cell.body)


# Every rule asks for the cells of every page.
@functools.cache
def _tree(source: str) -> ast.Module | None:
    python = re.sub(r"^[%!].*", "pass", source, flags=re.MULTILINE)
    try:
        return ast.parse(python)
    except SyntaxError:
        return None


@functools.cache
def _calls(source: str) -> list[ast.Call]:
    nodes = ast.walk(_tree(source) or ast.Module([], []))
    return [node for node in nodes if isinstance(node, ast.Call)]


def calls(cell: Block, *names: str) -> Iterator[ast.Call]:
    return (call for call in _calls(cell.body) if called(call) in names)


def called(node: ast.Call) -> str:
    """Return the name a call is made by: ``slider`` for ``frames.slider(...)``."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def asserts(cell: Block) -> bool:
    nodes = list(ast.walk(tree(cell) or ast.Module([], [])))
    return any(isinstance(n, ast.Assert) for n in nodes) or any(calls(cell, "claim"))


def digits(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for line, text in prose(book):
        for n, row in enumerate(bare(text).splitlines()):
            for match in _NUMBER.finditer(row):
                yield (
                    line + n,
                    f"the number {match[0]} is typed: glue it if it was computed, put"
                    " it in $...$ if it is mathematics, write a word if it counts",
                )


def cells(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for cell in book.cells:
        lines = cell.body.splitlines()
        if len(lines) > LINES:
            yield cell.line, f"a cell of {len(lines)} lines: split it, at most {LINES}"
        for n, text in enumerate(lines):
            if len(text) > WIDTH:
                yield (
                    cell.body_line + n,
                    f"{len(text)} columns of code: break the line, at most {WIDTH}",
                )
        if tree(cell) is None:
            yield cell.line, "a cell that is no Python: mend it"


def tags(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for cell in book.cells:
        for tag in cell.tags:
            if tag not in TAGS and not re.match(r"(check|ex)-", tag):
                yield cell.line, f"unknown tag {tag!r}: use one of {sorted(TAGS)}"


def card(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    cards = [b for b in book.blocks if b.name == "chapter-card"]
    if not cards or book.blocks[1] is not cards[0]:
        yield 1, "no chapter-card right after the title: write one"
    for block in cards:
        goals = notebooks.items(block)
        least = rules(book).objectives
        if not least <= len(goals) <= 6:
            yield block.line, f"{len(goals)} objectives: state {least} to 6"
        if not block.options.get("needs"):
            yield block.line, "the card has no :needs:: say what the reader must know"


def predicts(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    found = [b for b in walk(book.blocks) if b.name == "predict"]
    if len(found) < rules(book).questions:
        yield 1, f"{len(found)} questions to predict: ask {rules(book).questions}"
    for block in found:
        options = notebooks.options(block)
        if not block.argument:
            yield block.line, "a predict without a question: put it after {predict}"
        if len(options) < 2:
            yield block.line, f"{len(options)} options: offer two or more"
        marked = sum(option[1] for option in options)
        if marked != 1:
            yield block.line, f"{marked} right options: mark exactly one with [x]"
        for text, _right, why in options:
            if not why:
                yield block.line, f"no explanation of {text!r}: add one after ::"


def theorems(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for n, block in enumerate(book.blocks):
        kind = block.name.removeprefix("prf:")
        if not block.name.startswith("prf:") or kind not in CHECKED:
            continue
        if not block.label:
            yield block.line, f"a {kind} without :label:: give it one"
            continue
        tag = f"check-{block.label}"
        after = [b for b in book.blocks[n:] if b.kind == "cell" and tag in b.tags]
        if not after:
            yield block.line, f"no check of {block.label} below: tag a cell {tag}"
        elif not any(map(asserts, after)):
            yield after[0].line, f"{tag} cannot fail: assert or claim something"
    known = {b.label for b in walk(book.blocks) if b.name.startswith("prf:")}
    for cell in book.cells:
        for tag in cell.tags:
            if tag.startswith("check-") and tag.removeprefix("check-") not in known:
                yield cell.line, f"{tag} checks no theorem here: mend the tag"


def figures(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    named = {target(c) for _, c in roles(book, "numref")}
    for cell in book.cells:
        figure = cell.figure
        if figure is None:
            if draws(cell):
                yield cell.line, "a figure without mystnb name, caption, alt: add them"
            continue
        name, caption = figure.get("name"), str(figure.get("caption") or "").strip()
        if not name or not caption:
            yield cell.line, "a figure needs a name and a caption: add them"
        if name and name not in named:
            yield cell.line, f"nothing refers to {name}: add {{numref}}`{name}`"
        if any(calls(cell, "slider")):
            continue
        alt = " ".join(cell.alt.split())
        if not 30 <= len(alt) <= 300:
            yield cell.line, f"alt text of {len(alt)} characters: write 30 to 300"
        elif alt == " ".join(caption.split()) or _IMAGE_FILE.fullmatch(alt):
            yield cell.line, "the alt text repeats the caption: say what is to be seen"
        if "robust accuracy" in caption.lower() and not _UNIT.search(caption):
            yield cell.line, "robust accuracy without the unit of epsilon: state it"
    for block in walk(book.blocks):
        if block.name == "explore":
            yield from explorable(block, named)


def explorable(block: Block, named: set[str]) -> Iterator[tuple[int, str]]:
    if block.argument not in explorables.NAMES:
        known = ", ".join(explorables.NAMES)
        yield block.line, f"no explorable {block.argument!r}: choose one of {known}"
    if not block.label or not block.body.strip():
        yield block.line, "an explorable needs a :name: and a caption: add them"
    elif block.label not in named:
        yield block.line, f"nothing refers to {block.label}: add {{numref}}"


def draws(cell: Block) -> bool:
    """Say whether a cell shows a matplotlib figure of its own."""
    if {"setup", "remove-output", "remove-cell", "exercise"} & set(cell.tags):
        return False
    body = (tree(cell) or ast.Module([], [])).body
    top = [n for n in body if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    found = {
        called(n)
        for statement in top
        for n in ast.walk(statement)
        if isinstance(n, ast.Call)
    }
    return bool(found & {"show", "subplots", "imshow"}) and "close" not in found


def sliders(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for cell in book.cells:
        for call in calls(cell, "slider"):
            for part in {"alt", "label", "start"} - {k.arg for k in call.keywords}:
                yield cell.line, f"a slider without {part}=: see frames.slider"
            if cell.figure is None:
                yield cell.line, "a slider without mystnb name and caption: add them"


def exercises(book: Manuscript, shelf: Shelf) -> Iterator[tuple[int, str]]:
    starts = [
        (n, b) for n, b in enumerate(book.blocks) if b.name.startswith("exercise-start")
    ]
    asked = [notebooks.asks(block.classes) for _, block in starts]
    # Where each kind is wanted, functions are counted by themselves.
    found = asked.count("write") if rules(book).asks else len(asked)
    if found < rules(book).exercises:
        yield 1, f"{found} exercises: set {rules(book).exercises} or more"
    for kind in rules(book).asks:
        if kind not in asked:
            yield 1, f"no exercise to {kind}: set one, with {kind} in its :class:"
    for n, block in starts:
        title, stars, minutes, points = notebooks.exercise(block)
        label = block.label
        if not label or not title:
            yield block.line, "an exercise needs a title and a :label:: add them"
            continue
        if not 1 <= stars <= 3:
            yield block.line, f"{label}: give it stars-1, stars-2 or stars-3"
        if not minutes or not points:
            yield block.line, f"{label}: state minutes-N and points-N"
        parts = list(_exercise_parts(book.blocks[n + 1 :], label))
        wanted = ["exercise-end", "hint", "exercise", "public-test", "hidden-test"]
        wanted += ["solution-start", "solution", "solution-end"]
        if notebooks.asks(block.classes) != "write":
            # Words answer it, and a folded answer in words, perhaps with a cell.
            told = sum(map(notebooks.worth, notebooks.rubric(book.blocks, label)))
            if told not in (0, points):
                yield block.line, f"{label}: its rubric gives {told} of {points} points"
            cells = ("exercise", "public-test", "hidden-test", "solution")
            parts = [part for part in parts if part != "solution"]
            wanted = [part for part in wanted if part not in cells]
        for part in wanted:
            if part not in parts:
                yield block.line, f"{label} has no {part}: add it"
        if set(wanted) <= set(parts) and parts != wanted:
            yield block.line, f"{label}: bring its parts in this order: {wanted}"
    graded = [b for _, b in starts if notebooks.rubric(book.blocks, b.label)]
    if rules(book).asks and not graded:
        yield 1, "no exercise has a rubric: end a solution in words with one"
    for cell in book.tagged("hidden-test"):
        if "remove-cell" not in cell.tags:
            yield cell.line, "a hidden test on the page: tag it remove-cell too"


def _exercise_parts(blocks: list[Block], label: str) -> Iterator[str]:
    """Yield the parts of one exercise in order, each kind of cell once in a row."""
    last = ""
    for block in blocks:
        if block.name == "exercise-start":
            return
        if block.kind == "cell":
            kinds = [t for t in block.tags if t in TAGS and t != "remove-cell"]
            part = kinds[0] if label in block.tags and kinds else ""
        elif block.name == "solution-start" and block.argument != label:
            part = ""
        elif block.name in ("exercise-end", "hint", "solution-start", "solution-end"):
            part = block.name
        else:
            part = ""
        if part and part != last:
            yield part
        last = part or last
        if part == "solution-end":
            return


def failures(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    found = book.tagged("failure")
    if len(found) < rules(book).failures:
        yield 1, f"{len(found)} cells tagged failure: show {rules(book).failures}"
    for cell in found:
        if not asserts(cell):
            yield cell.line, "a failure that asserts nothing: claim that it fails"
    claims = book.tagged("claim")
    if not claims:
        yield 1, "no cell tagged claim: assert a claim of the text"
    for cell in claims:
        if not asserts(cell):
            yield cell.line, "a claim cell that asserts nothing: call claim(...)"


def sections(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    first = book.blocks[0] if book.blocks else None
    if first is None or first.kind != "heading" or first.level != 1:
        yield 1, "the first line after the header is not `# Title`: put it there"
    found = {b.argument for b in book.blocks if b.kind == "heading"}
    for title in rules(book).sections:
        if title not in found:
            yield 1, f"no section {title!r}: add it"
    length = len(book.text.splitlines())
    if length > rules(book).lines:
        yield 1, f"{length} lines: shorten it to {rules(book).lines} or split it"


def ends(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for cell in book.cells:
        for call in calls(cell, "claim"):
            for node in ast.walk(call):
                if isinstance(node, ast.Compare) and _compares_ends(node):
                    yield (
                        cell.body_line + node.lineno - 1,
                        "ends of an interval compared by hand, which hides how little"
                        " room is left: write .above(), .below() or .differs()",
                    )


def _compares_ends(node: ast.Compare) -> bool:
    """Say whether ``low`` or ``high`` of something stands beside a < or >."""
    sides = [node.left, *node.comparators]
    # As in max(mark.high for mark in marks); a width is a difference, and no end.
    sides += [
        part
        for side in sides
        if isinstance(side, ast.Call) and called(side) in ("min", "max")
        for part in ast.walk(side)
        if isinstance(part, ast.expr)
    ]
    ordered = any(isinstance(o, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for o in node.ops)
    return ordered and any(
        isinstance(side, ast.Attribute) and side.attr in ("low", "high")
        for side in sides
    )


def leftovers(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for n, line in enumerate(book.text.splitlines(), 1):
        if match := re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield n, f"{match[0]} is left: do it or take it out"


def sentences(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for block in walk(book.blocks):
        if block.kind != "text":
            continue
        text = bare(block.body)
        pieces = re.split(r"(?:[.!?:;]['\")*]*\s)|\n\s*\n|\n\s*(?:[-*+>|])\s", text)
        at = 0
        for piece in pieces:
            words = [w for w in piece.split() if w != "|"]
            if len(words) > WORDS and not piece.lstrip().startswith("|"):
                line = block.line + text.count("\n", 0, text.find(piece, at))
                start = " ".join(words[:5])
                yield line, f"{len(words)} words in a sentence: split {start!r} ..."
            at += len(piece)


def links(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for line, text in prose(book):
        for match in re.finditer(
            r"!\[[^\]]*\]\(\s*https?://|<img\b|<a\s+href", text, re.IGNORECASE
        ):
            yield (
                line + text.count("\n", 0, match.start()),
                f"{match[0]!r}: draw images in a cell, write links in Markdown",
            )


def terms(book: Manuscript, shelf: Shelf) -> Iterator[tuple[int, str]]:
    for line, content in roles(book, "term"):
        if target(content).lower() not in shelf.terms:
            yield line, f"the glossary has no {target(content)!r}: add it there"


def cited(book: Manuscript, shelf: Shelf) -> Iterator[tuple[int, str]]:
    for line, key in citations(book):
        if key not in shelf.entries:
            yield line, f"references.bib has no {key!r}: add it there"


def glued(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    prefix = f"{book.unit.name}_" if book.unit else ""
    defined: dict[str, int] = {}
    for cell in book.cells:
        for call in calls(cell, "glue"):
            first = call.args[0] if call.args else None
            if not isinstance(first, ast.Constant):
                yield cell.line, "glue with a computed name: write it as a string"
            elif not str(first.value).startswith(prefix):
                yield cell.line, f"{first.value!r}: begin glued names with {prefix}"
            else:
                defined[str(first.value)] = cell.line
    used = dict((c.split(":")[0], n) for n, c in roles(book, "glue:text", "glue"))
    for name, line in used.items():
        if name not in defined:
            yield line, f"nothing glues {name}: glue it in a cell of this chapter"
    for name, line in defined.items():
        if name not in used:
            yield line, f"{name} is glued and never shown: show it or take it out"


def intervals(book: Manuscript, shelf: Shelf) -> Iterator[tuple[int, str]]:
    for line, text in prose(book):
        for match in re.finditer(r"(?:^(?![ \t]*\|).+\n?)+", text, re.MULTILINE):
            # Each item of a list is a paragraph of its own.
            for piece in re.split(
                r"^[ \t]*(?:[-*+]|\d+\.) ", match[0], flags=re.MULTILINE
            ):
                shown = [m[3] for m in _ROLE.finditer(piece) if m[1] == "glue:text"]
                # A page of another unit stands before "::", a format after ":".
                names = [name.rpartition("::")[2].split(":")[0] for name in shown]
                found = sum(name in shelf.intervals for name in names)
                if found > INTERVALS:
                    at = line + text.count("\n", 0, text.index(piece))
                    yield (
                        at,
                        f"{found} computed intervals in a paragraph: at most"
                        f" {INTERVALS}, more become a small table with verdict words",
                    )


def _is_interval(node: ast.AST) -> bool:
    """Say whether a node formats an interval; ``"{:.2f}".format`` formats a number."""
    if not isinstance(node, ast.Call):
        return False
    if called(node) == "verdict":
        return True
    of = getattr(node.func, "value", None)
    text = isinstance(of, ast.JoinedStr) or (
        isinstance(of, ast.Constant) and isinstance(of.value, str)
    )
    return called(node) == "format" and of is not None and not text


def spellings(book: Manuscript, _: Shelf) -> Iterator[tuple[int, str]]:
    for line, text in prose(book):
        # A link's text is prose too; where it leads is not.
        shown = bare(re.sub(r"\[([^\[\]]*)\]\([^()\s]*\)", r"\1", text))
        for pattern, cure in _SPELLINGS.items():
            for match in re.finditer(pattern, shown, re.IGNORECASE):
                at = line + shown.count("\n", 0, match.start())
                yield at, f"{' '.join(match[0].split())!r}: {cure}"
    for cell in book.cells:
        for call in calls(cell, "set", "set_xlabel", "set_ylabel"):
            for text in _strings(call):
                if re.search(r"(?<![\w$\\])(linf|l[012])\b", text):
                    yield cell.line, rf"{text!r} on an axis: write $\ell_2$"
        for call in calls(cell, "glue"):
            specs = (n.format_spec for n in ast.walk(call) if _is_value(n))
            told = [text for spec in specs if spec for text in _strings(spec)]
            told += [text for text in _strings(call) if re.search(r"\{:[^}]*%\}", text)]
            if any("%" in text for text in told):
                yield cell.line, "a share glued as 79.7%: write {100 * share:.1f} %"


def _strings(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def _is_value(node: ast.AST) -> TypeGuard[ast.FormattedValue]:
    return isinstance(node, ast.FormattedValue)


Rule = Callable[[Manuscript, Shelf], Iterator[tuple[int, str]]]
RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        digits,
        cells,
        tags,
        card,
        predicts,
        theorems,
        figures,
        sliders,
        exercises,
        failures,
        sections,
        leftovers,
        sentences,
        links,
        terms,
        cited,
        glued,
        intervals,
        ends,
        spellings,
    )
}


def lint(book: Manuscript, shelf: Shelf, rules: list[str] | None = None) -> list[str]:
    """Return what is wrong with one chapter, by all rules or by some."""
    return [
        f"{book.path.name}:{line}: {message}"
        for name in rules or RULES
        for line, message in RULES[name](book, shelf)
    ]


def cell_lengths(books: list[Manuscript]) -> list[str]:
    """Judge the cells whose code stays open: median and 90th percentile of a kind."""
    problems = []
    for kind in KINDS.values():
        cells = [c for book in books if rules(book) == kind for c in book.cells]
        shown = [
            c for c in cells if not folds.bar(c.body, c.tags, figure=bool(c.figure))
        ]
        lengths = sorted(len(c.body.splitlines()) for c in shown)
        if not lengths:
            continue
        median = statistics.median(lengths)
        percentile = lengths[math.ceil(0.9 * len(lengths)) - 1]
        for name, found, most in (
            ("median", median, kind.median),
            ("90th percentile", percentile, PERCENTILE_90),
        ):
            if found > most:
                problems.append(
                    f"{kind.word}s: {name} of {found} open lines: at most {most}"
                )
    return problems


def references(shelf: Shelf) -> list[str]:
    """Judge references.bib: every entry cited, and with an address."""
    problems = []
    for key, entry in shelf.entries.items():
        if key not in shelf.keys:
            problems.append(f"references.bib: nothing cites {key}: cite or remove it")
        if not set(ms.ADDRESSES) & set(entry.fields):
            problems.append(f"references.bib: {key} has no doi, eprint or url: add one")
    return problems


def lint_notebook(
    notebook: Any, name: str, macros: dict[str, Any], hidden: list[str] | None = None
) -> list[str]:
    """Return what is wrong with a derived notebook.

    Args:
        notebook: as nbformat reads it.
        name: shown in the problems.
        macros: the MathJax macros of _config.yml, none of which may be left.
        hidden: sources of the chapter's hidden tests, none of which may appear.
    """
    problems = []
    sources = [cell.source for cell in notebook.cells]
    if not sources or "crlib.require(" not in sources[0]:
        problems.append(f"{name}:0: the first cell does not check the version of crlib")
    for n, cell in enumerate(notebook.cells):
        text = cell.source
        if cell.cell_type == "code":
            if cell.get("outputs") or cell.get("execution_count") is not None:
                problems.append(f"{name}:{n}: an output: derive the notebook afresh")
            leaked = any(h.strip() and h.strip() in text for h in hidden or [])
            if leaked or "hidden-test" in cell.metadata.get("tags", []):
                problems.append(f"{name}:{n}: a hidden test: derive it afresh")
            continue
        shown = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        formulas = re.sub(r"`[^`]*`", "", shown)
        raw = re.search(
            r"^\s*>*\s*[`~:]{3,}\s*\{|\{[\w:.+-]+\}`|^\s*:label:", shown, re.MULTILINE
        )
        if re.search(r"^[>\s]*[`~:]{3,}\s*\{", text, re.MULTILINE) or raw:
            problems.append(f"{name}:{n}: a raw directive or role: teach notebooks.py")
        for macro in macros:
            if re.search(rf"(?<!\\)\\{macro}(?![A-Za-z])", formulas):
                problems.append(f"{name}:{n}: \\{macro} in a formula: expand it")
    return problems
