"""Which symbols the notation page declares, and which the chapters' statements use.

The page has tables for the whole book and, under "Local symbols", one for each chapter.
A symbol is a letter, with an index (``m_``), with an argument (``m(``) or plain
(``m``): these are three symbols if the page declares them apart.
"""

import re
from collections.abc import Iterator

from book._tools.manuscript import Manuscript, walk

# What stands for itself: numbers, laws and operators of mathematics.
_NAMES = set(
    r"""
    frac tfrac sqrt sum prod int max min sup inf log exp arccos cos sin lim norm
    lvert rvert big Big bigg Bigg left right top perp parallel star prime le ge
    ne neq in to sim infty cdot dots ldots cdots circ quad qquad sign
    operatorname subset times nabla partial tilde hat bar dot mid colon text tr
    R E Pr pi leftarrow lceil rceil lfloor rfloor pm mathbf mathrm displaystyle
    approx otimes ast binom
    """.split()
)
_DROPPED = (
    r":label:[^\n]*",
    r"\\(?:operatorname|text|mathrm|mathbb|mathbf|label|begin|end)\*?\s*(?:\{[^{}]*\}|\d)",
    r"\}_(?:F|\\infty|\*|[0-9pq](?![a-z]))",  # which norm
    r"\\gamma_2",  # a norm with a name
    r"\\ell_|\\chi\^2_?|(?<![A-Za-z\\])[eO](?=[\^(])|\\tfrac",  # norms, a law, powers
)
_LETTER = re.compile(r"\\mathcal\{[A-Z]\}|\\[A-Za-z]+|[A-Za-z]")
_TAIL = re.compile(
    r"(?:'|\^\{?\\?(?:star|top|perp|parallel|\*|l)\}?|\^\{?-1\}?)*([_(])?"
)
_INDEX = re.compile(r"_(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?[A-Za-z0-9]+)")
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+?)\$|`{3,}\{math\}(.+?)`{3,}", re.DOTALL
)


def formulas(text: str) -> Iterator[str]:
    for match in _FORMULA.finditer(text):
        yield next(group for group in match.groups() if group)


def symbols(formula: str) -> Iterator[tuple[str, ...]]:
    """Yield for each letter the names it may be declared under, the closest first."""
    for pattern in _DROPPED:
        formula = re.sub(pattern, "} " if pattern[0:2] == r"\}" else " ", formula)
    for match in _LETTER.finditer(_INDEX.sub("_ ", formula)):
        letter = match[0]
        if letter.startswith("\\") and letter[1:] in _NAMES:
            continue
        tail = _TAIL.match(_INDEX.sub("_ ", formula), match.end())
        mark = tail[1] if tail and tail[1] else ""
        yield (letter + mark, letter) if mark else (letter,)


def _rows(page: Manuscript) -> Iterator[tuple[str, int, str]]:
    """Yield (heading above, line, first cell) of the rows of all tables of symbols."""
    heading, inside = "", False
    for n, line in enumerate(page.text.splitlines(), 1):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == "Symbol":
            inside = True
        elif inside and not cells[0].startswith("---"):
            yield heading, n, cells[0]


def declared(page: Manuscript) -> dict[str, dict[str, list[int]]]:
    """Return chapter -> symbol -> lines of its rows; "" is the whole book."""
    found: dict[str, dict[str, list[int]]] = {"": {}}
    for heading, line, cell in _rows(page):
        chapter = re.search(r"\(((?:ch|lab)\d\d)_", heading)
        table = found.setdefault(chapter[1] if chapter else "", {})
        names = {
            next(iter(symbols(part)))[0]
            for formula in formulas(cell)
            for part in re.split(r"=|\\in|\\ge|,\s*\\dots", formula)[:1]
            if list(symbols(part))
        }
        for name in names:
            table.setdefault(name, []).append(line)
    return found


def statements(book: Manuscript) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of definitions, theorems and what else is stated."""
    for block in walk(book.blocks):
        if block.name.startswith("prf:") and block.name != "prf:proof":
            yield block.line, block.body


def problems(page: Manuscript, chapters: list[Manuscript]) -> list[str]:
    """Return where the notation page and the chapters disagree."""
    tables = declared(page)
    book = tables[""]
    told = [
        f"{page.path.name}:{lines[1]}: {name} has a row above already: one meaning each"
        for table in tables.values()
        for name, lines in table.items()
        if len(lines) > 1
    ]
    for chapter in chapters:
        here = tables.get(chapter.unit.name if chapter.unit else "", {})
        if here is book:
            here = {}
        prose = "\n".join(
            block.body if block.kind != "math" else f"$${block.body}$$"
            for block in walk(chapter.blocks)
            if block.kind != "cell"
        )
        used = {name for f in formulas(prose) for names in symbols(f) for name in names}
        for name, lines in here.items():
            if name in book:
                told.append(
                    f"{page.path.name}:{lines[0]}: {name} is a symbol of the whole"
                    f" book: give {chapter.path.stem} another one"
                )
            if name not in used:
                told.append(
                    f"{page.path.name}:{lines[0]}: {chapter.path.stem} has no {name}:"
                    " take the row out"
                )
        unknown: dict[str, int] = {}
        for line, text in statements(chapter):
            for formula in formulas(text):
                for names in symbols(formula):
                    if not set(names) & (set(book) | set(here)):
                        unknown.setdefault(names[0], line)
        told += [
            f"{chapter.path.name}:{line}: notation.md does not know {name}: declare it"
            for name, line in unknown.items()
        ]
    return told
