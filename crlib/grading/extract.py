"""Take the wanted functions from a submitted file, whatever state it is in.

No cell runs. The last definition of a name that is no stub counts, in any cell, with
the module-level names that it reads. So names of files, ids, metadata, order and kernel
do not matter, and what else stands in the notebook does nothing.
"""

import ast
import json
import re
import symtable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crlib.grading.packs import Task, uses

MOST = 200 * 2**20
# In an answer to an exercise of this book these are worth a look.
ODD_NAMES = "eval exec getattr globals locals open setattr vars __builtins__ __import__"
ODD_MODULES = "builtins ctypes gc importlib inspect os socket subprocess sys"
_MAGIC = re.compile(r"(?m)^[ \t]*(?:[%!?].*|.*\?)$")


class Unreadable(ValueError):
    """A file that is no notebook; the text says so to the student."""


@dataclass(frozen=True)
class Answer:
    """What was found for a task.

    Attributes:
        source: of the function and what it needs, empty if there is none.
        note: why there is none.
        flags: what an instructor may want to look at.
    """

    source: str = ""
    note: str = ""
    flags: tuple[str, ...] = ()


def answers(raw: bytes, tasks: Iterable[Task]) -> dict[str, Answer]:
    """Return what a file holds for each task, by label.

    Raises:
        Unreadable: it is no notebook.
    """
    statements, faults = _statements(cells(raw))
    return {task.label: _answer(statements, faults, task) for task in tasks}


def cells(raw: bytes) -> list[str]:
    """Return the code cells of a notebook of any version, or a Python file as one cell.

    Raises:
        Unreadable: it is neither.
    """
    return [source for kind, source in _cells(raw) if kind == "code"]


def written(raw: bytes, given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return what a student wrote to questions that a hand grades, as Markdown.

    What stands in new or changed cells below a question, and above the next cell that
    students were given, was written to it.

    Args:
        raw: the file.
        given: the cells that students were given: the label of the question to which a
            cell belongs, or nothing, and its source.

    Raises:
        Unreadable: it is no notebook.
    """
    known = {source.strip(): label for label, source in given}
    # Who types into the question itself leaves its first line.
    heads = {s.strip().partition("\n")[0]: label for label, s in given if label}
    found: dict[str, list[str]] = {}
    label = ""
    for kind, source in _cells(raw):
        text = source.strip()
        if text in known:
            label = known[text]
            continue
        label = heads.get(text.partition("\n")[0], label)
        if label and text:
            shown = f"```python\n{text}\n```" if kind == "code" else text
            found.setdefault(label, []).append(shown)
    return {label: "\n\n".join(texts) for label, texts in found.items()}


def _cells(raw: bytes) -> list[tuple[str, str]]:
    """Return the type and the source of each cell."""
    text = raw.decode(errors="replace").strip()
    if not text:
        raise Unreadable("Your file is empty.")
    if len(raw) > MOST:
        raise Unreadable("Your file is larger than 200 MB: clear the outputs.")
    if text[0] == "<":
        raise Unreadable("Your file is a web page: download the notebook as .ipynb.")
    if text[0] != "{":
        return [("code", text)]
    try:
        notebook = json.loads(text)
        sheets = [notebook, *notebook.get("worksheets", [])]
        found = [cell for sheet in sheets for cell in sheet.get("cells", [])]
        kinds = [str(cell.get("cell_type")) for cell in found]
        sources = [cell.get("source", cell.get("input", "")) for cell in found]
        texts = [s if isinstance(s, str) else "".join(s) for s in sources]
        return list(zip(kinds, texts, strict=True))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Unreadable(
            "Your file is damaged or no notebook: download it again as .ipynb."
        ) from None


def _statements(sources: Iterable[str]) -> tuple[list[ast.stmt], list[str]]:
    """Return the statements of all cells that bind names, and cells with a fault."""
    statements: list[ast.stmt] = []
    faults = []
    for number, source in enumerate(sources, 1):
        try:
            body = _parsed(source)
            statements += [node for node in body if binds(node) or touches(node)]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            faults.append(f"{source}\0Code cell {number} is no Python: {error}.")
    return statements, faults


def _parsed(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        # IPython's own lines; never in a cell that is Python without them.
        return ast.parse(_MAGIC.sub("", source)).body


def _answer(statements: list[ast.stmt], faults: list[str], task: Task) -> Answer:
    try:
        source = program(statements, task.function)
    except (ValueError, RecursionError, MemoryError):
        return Answer(note="Your code is nested too deeply to be read.")
    if source:
        return Answer(source, flags=flags(source, task))
    named = re.compile(rf"\b{task.function}\b")
    for fault in faults:
        cell, _, note = fault.partition("\0")
        if named.search(cell):
            return Answer(note=note)
    return Answer(note="Not written yet.")


def program(statements: list[ast.stmt], wanted: str) -> str:
    """Return the last definition of ``wanted`` with all that it needs, or nothing."""
    written = [k for k, s in enumerate(statements) if not is_stub(s)]
    named = [k for k in written if wanted in binds(statements[k])]
    keep = set([k for k in named if may_be_function(statements[k])][-1:])
    todo = list(keep)
    while todo:
        k = todo.pop()
        for name in reads(statements[k]):
            defined = [j for j in written if name in binds(statements[j])]
            # What stands above, as the cells ran; else what stands below.
            last = ([j for j in defined if j < k] or defined)[-1:]
            # What no statement names may come by ``from math import *``.
            every = [] if defined else written
            stars = [j for j in every if "*" in binds(statements[j])]
            later = [j for j in written if name in touches(statements[j])]
            between = [j for j in later if last and last[0] < j < k]
            new = {*last, *stars, *between} - keep
            keep |= new
            todo += new
    return "\n".join(ast.unparse(statements[k]) for k in sorted(keep))


def is_stub(node: ast.stmt) -> bool:
    """Whether a function does nothing but raise NotImplementedError."""
    if not isinstance(node, ast.FunctionDef):
        return False
    body = [n for n in node.body if not _is_constant(n)]
    return (
        len(body) == 1
        and isinstance(body[0], ast.Raise)
        and "NotImplementedError" in ast.unparse(body[0])
    )


def may_be_function(node: ast.stmt) -> bool:
    """Whether a statement can bind a function; a table of the chapter cannot."""
    called = ast.Lambda | ast.Name | ast.Attribute | ast.Call
    return not isinstance(node, ast.Assign) or isinstance(node.value, called)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def binds(node: ast.stmt) -> set[str]:
    """Return the names that a statement at the level of a cell defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(a.asname or a.name).partition(".")[0] for a in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        return {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return set()


def touches(node: ast.stmt) -> set[str]:
    """Return the names whose objects an assignment changes: ``t[k] = v``, ``n += 1``.

    >>> touches(ast.parse("table[k] = 3").body[0])
    {'table'}
    """
    if isinstance(node, ast.AugAssign):
        return {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
    found = set()
    for target in node.targets if isinstance(node, ast.Assign) else []:
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
            if isinstance(target, ast.Name):
                found.add(target.id)
    return found


def reads(node: ast.stmt) -> set[str]:
    """Return the module-level names that a statement reads, by the symbol table.

    The parameters and local names of functions are not among them.
    """
    found = set()
    todo = [symtable.symtable(ast.unparse(node), "<cell>", "exec")]
    while todo:
        table = todo.pop()
        module = table.get_type() == "module"
        for symbol in table.get_symbols():
            # Inside a function "global n" and "n += 1" read it too.
            if symbol.is_referenced() if module else symbol.is_global():
                found.add(symbol.get_name())
        todo += table.get_children()
    own = binds(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()
    return (found | touches(node)) - own


def flags(source: str, task: Task) -> tuple[str, ...]:
    """Return what in an answer is worth a look: crlib's own answers, ways to cheat."""
    found = uses(source) - set(task.uses)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in ODD_NAMES.split():
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [module, *(alias.name for alias in node.names)]
            found |= {n for n in names if n.partition(".")[0] in ODD_MODULES.split()}
        elif isinstance(node, ast.Attribute) and node.attr.startswith("__"):
            found.add(node.attr)
    return tuple(sorted(found))
