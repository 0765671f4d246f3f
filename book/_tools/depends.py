"""What a page or a test depends on, as one key: the same key, the same outcome.

A page depends on its cells, on every definition of our packages that its cells reach by
name, on the tables that these name, on the pins, Python and the profile. A comment, a
docstring or a function that nothing here calls changes no key. The reach is read from
the sources, without importing them, and errs on the safe side: a module that is used
as a whole is reached as a whole.
"""

import ast
import hashlib
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from book._tools import cache, chromium
from book._tools.manuscript import read

ROOT = Path(__file__).resolve().parents[2]
# Networks this small gain nothing from more than one thread. Figures go into the page,
# whatever the tests say of windows.
KERNEL = {
    "CRLIB_BOOK": "1",
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
PACKAGES = ("crlib", "book/_tools", "tests")
# How keys are made and kept decides no outcome; what tests that names its file.
ENGINE = ("book._tools.cache", "book._tools.depends")
TABLES = ("crlib/results", "crlib/embedded", "benchmarks/results")
# Packages without which tests are skipped.
OPTIONAL = (
    "distributed",
    "efficientnet_lite_pytorch",
    "nbgrader",
    "safetensors",
    "skimage",
    "sklearn",
)
# How a text is read stands here.
_READER = Path(__file__).read_bytes()
UNIT = re.compile(r"(ch|lab)\d\d")
EXERCISE = re.compile(r"\{exercise-start\}.*?\{solution-end\}", re.DOTALL)


def digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)} ".encode() + data)
    return total.hexdigest()[:32]


def digest_of(root: Path, *names: str) -> str:
    """Return a digest of files and folders, with their places under ``root``."""
    parts: list[str | bytes] = []
    for name in names:
        place = root / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts:
                parts += [path.relative_to(root).as_posix(), path.read_bytes()]
    return digest(*parts)


def missing() -> list[str]:
    """Return what tests need and this machine lacks, in the words of their skips."""
    have: dict[str, object] = {n: importlib.util.find_spec(n) for n in OPTIONAL}
    have["CRLIB_DATA"] = os.environ.get("CRLIB_DATA")
    have["CUDA"] = Path("/dev/nvidia0").exists()
    have["Chromium"] = chromium.find()
    return [name for name, found in have.items() if not found]


@dataclass
class Piece:
    """A definition, or other statements, with what it names.

    Attributes:
        text: of its syntax tree, without docstrings.
        chains: dotted names in it, such as ``("attacks", "pgd")``.
        imports: names that imports inside it bind, and what they stand for.
        strings: constants in it, which may name tables or definitions.
    """

    text: str
    chains: set[tuple[str, ...]] = field(default_factory=set)
    imports: dict[str, str] = field(default_factory=dict)
    strings: set[str] = field(default_factory=set)


@dataclass
class Module:
    """The pieces of a module by name; ``rest`` is what runs when it is imported."""

    pieces: dict[str, Piece]
    rest: Piece
    imports: dict[str, str]

    @property
    def parts(self) -> list[Piece]:
        return [self.rest, *self.pieces.values()]


def piece(nodes: Iterable[ast.AST], package: str) -> Piece:
    """Read statements: what they are, and what they name."""
    found = Piece("")
    for node in nodes:
        parts = list(ast.walk(node))
        for part in parts:
            _drop_docstring(part)
        found.text += ast.dump(node)
        inner = set()
        for part in parts:
            if isinstance(part, ast.Attribute):
                chain = _chain(part)
                if chain:
                    found.chains.add(chain)
                    inner.add(id(_base(part)))
            elif isinstance(part, ast.Import | ast.ImportFrom):
                found.imports |= dict(_imported(part, package))
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                found.strings.add(part.value)
        for part in parts:
            if isinstance(part, ast.Name) and id(part) not in inner:
                found.chains.add((part.id,))
    return found


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]


def _base(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node


def _chain(node: ast.Attribute) -> tuple[str, ...]:
    """Return the names of ``a.b.c``, empty if it does not begin with a name."""
    names: list[str] = []
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        names.append(at.attr)
        at = at.value
    return (at.id, *reversed(names)) if isinstance(at, ast.Name) else ()


def _imported(
    node: ast.Import | ast.ImportFrom, package: str
) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                yield alias.asname, alias.name
            else:
                top = alias.name.partition(".")[0]
                yield top, top
        return
    module = node.module or ""
    if node.level:
        parents = package.split(".")
        parents = parents[: len(parents) - node.level + 1]
        module = ".".join(filter(None, [*parents, module]))
    for alias in node.names:
        # All of a module, for ``import *``.
        whole = alias.name == "*"
        yield alias.asname or alias.name, module if whole else f"{module}.{alias.name}"


def module(source: str, package: str) -> Module:
    """Read the source of a module."""
    tree = ast.parse(source)
    _drop_docstring(tree)
    pieces: dict[str, list[ast.AST]] = {}
    rest: list[ast.AST] = []
    imports: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= dict(_imported(node, package))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            pieces.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in _stored(target)]
            for name in names:
                pieces.setdefault(name, []).append(node)
            if not names:
                rest.append(node)
        else:
            rest.append(node)
    return Module(
        {name: piece(nodes, package) for name, nodes in pieces.items()},
        piece(rest, package),
        imports,
    )


def read_once(package: str, *sources: str) -> Module:
    """Return the module that texts make together; each is read once and then known.

    A cell that is no Python fails when it runs, not here.
    """
    key = digest(_READER, sys.version, package, *sources)
    known = cache.get("modules", key)
    if known is None:
        parts = sources if package else filter(_parses, sources)
        found = module("\n\n".join(parts), package)
        known = [
            [[name, *_written(part)] for name, part in found.pieces.items()],
            _written(found.rest),
            found.imports,
        ]
        cache.put("modules", key, known)
    pieces, rest, imports = known
    return Module({n: _piece(*part) for n, *part in pieces}, _piece(*rest), imports)


def _written(part: Piece) -> list[Any]:
    chains = sorted(".".join(chain) for chain in part.chains)
    return [part.text, chains, part.imports, sorted(part.strings)]


def _piece(
    text: str, chains: list[str], imports: dict[str, str], strings: list[str]
) -> Piece:
    return Piece(text, {tuple(c.split(".")) for c in chains}, imports, set(strings))


def _stored(target: ast.expr) -> list[str]:
    """Return the names that an assignment to a target binds."""
    names = [node for node in ast.walk(target) if isinstance(node, ast.Name)]
    return [name.id for name in names if isinstance(name.ctx, ast.Store)]


@dataclass
class Sources:
    """The modules of our packages under a root, read when they are first needed."""

    root: Path = ROOT
    _read: dict[str, Module] = field(default_factory=dict)
    _pages: dict[Path, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Where each module stands, by its dotted name."""
        found = {}
        for name in PACKAGES:
            for path in (self.root / name).rglob("*.py"):
                parts = path.relative_to(self.root).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
        return found

    def module(self, name: str) -> Module:
        if name not in self._read:
            path = self.files[name]
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            self._read[name] = read_once(package, path.read_text(encoding="utf-8"))
        return self._read[name]

    def reach(self, *start: Module) -> dict[str, Piece]:
        """Return every definition that modules reach by name, with those it reaches."""
        found: dict[str, Piece] = {}
        todo: list[tuple[Piece, dict[str, str], str]] = []

        def add(name: str, symbol: str) -> None:
            known = self.module(name)
            for part in (symbol, ""):
                place = f"{name}:{part}"
                if place not in found:
                    found[place] = known.pieces[part] if part else known.rest
                    todo.append((found[place], known.imports, name))

        def whole(name: str) -> None:
            known = self.module(name)
            for symbol in known.pieces:
                add(name, symbol)
            for target in known.imports.values():
                resolve(target.split("."))

        def resolve(target: list[str]) -> None:
            """Reach what a dotted name stands for, if it is ours."""
            if (tuple(target)) in seen:
                return
            seen.add(tuple(target))
            depth = next(
                (
                    n
                    for n in range(len(target), 0, -1)
                    if ".".join(target[:n]) in self.files
                ),
                0,
            )
            name, more = ".".join(target[:depth]), target[depth:]
            if not depth or name in ENGINE:
                return
            if not more:
                whole(name)
                return
            known, symbol = self.module(name), more[0]
            if symbol in known.pieces:
                add(name, symbol)
            elif symbol in known.imports:
                resolve([*known.imports[symbol].split("."), *more[1:]])
            elif not symbol.startswith("__"):
                whole(name)

        seen: set[tuple[str, ...]] = set()
        for own in start:
            named = {chain[0] for part in own.parts for chain in part.chains}
            for part in own.parts:
                todo.append((part, own.imports | own.rest.imports, ""))
            for alias, target in own.imports.items():
                if alias not in named:
                    resolve(target.split("."))
        while todo:
            part, imports, home = todo.pop()
            bound = imports | part.imports
            beside = self.module(home).pieces if home else {}
            for chain in part.chains:
                if chain[0] in bound:
                    resolve([*bound[chain[0]].split("."), *chain[1:]])
                elif chain[0] in beside:
                    add(home, chain[0])
            for text in part.strings:
                first, *rest = names = text.split(".")
                # The bare word names the package, as in a list of what is not ours; of
                # f"crlib.studies.{name}" another string says which is meant.
                dotted = rest and all(map(str.isidentifier, names))
                if dotted and first in ("crlib", "tests"):
                    resolve(names)
                elif text in beside:
                    # As in __all__, or in a table of names.
                    add(home, text)
        return found

    def key(self, own: Sequence[Module], *more: str) -> str:
        """Return the key of what modules do, with whatever else decides it."""
        reached = self.reach(*own)
        tables = self.tables(own, reached)
        return digest(
            *(part.text for one in own for part in one.parts),
            *(f"{name} {part.text}" for name, part in sorted(reached.items())),
            digest_of(self.root, "requirements.lock", *tables),
            f"{sys.version_info[:2]} {platform.system()} {platform.machine()}",
            os.environ.get("CRLIB_PROFILE", "quick"),
            # What is skipped without them is not proven with them.
            os.environ.get("CRLIB_DATA", ""),
            str(Path("/dev/nvidia0").exists()),
            str(sorted(KERNEL.items())),
            *more,
        )

    def tables(self, own: Sequence[Module], reached: dict[str, Piece]) -> list[str]:
        """Return the tables that strings in modules, or in what they reach, name."""
        parts = [part for one in own for part in one.parts]
        # That a function is called like a table says nothing.
        parts += [p for name, p in reached.items() if not name.endswith(":__all__")]
        strings = {text for part in parts for text in part.strings}
        # Who asks for the names of the studies may read any of their tables.
        every = "crlib.studies:names" in reached
        return [
            path.relative_to(self.root).as_posix()
            for folder in TABLES
            for path in sorted((self.root / folder).glob("*.*"))
            if path.suffix != ".py"
            # The table of a longer grid, as cifar10-large.csv, belongs to its study.
            and (every or {path.name, path.stem, path.stem.split("-")[0]} & strings)
        ]

    def page(self, path: Path) -> str:
        """Return the key of the outputs of a page of the manuscript."""
        if path not in self._pages:
            cells = [cell.body for cell in read(path).cells]
            self._pages[path] = self.key([read_once("", *cells)], *cells)
        return self._pages[path]

    def test(self, path: Path) -> str:
        """Return the key of the outcome of a file of tests.

        What such a file reads as text it names itself: ``DEPENDS = ("book", ...)``.
        The name of a unit stands there for its cells and exercises, and the word
        "cells" for those of all pages.
        """
        own = self.own(path)
        named = own[0].pieces.get("DEPENDS")
        names = set(named.strings) if named else set[str]()
        cells, texts = [], []
        for name in sorted(names):
            if name == "cells" or UNIT.fullmatch(name):
                asked = self._pages_of("*" if name == "cells" else f"{name}_*")
                cells += [part for page in asked for part in self.asked(page)]
            else:
                texts.append(name)
        if path.parent.name == "units":
            # Its unit's cells, which its tests run.
            cells += [self.page(page) for page in self._pages_of(f"{path.stem}_*")]
        # What is skipped here is not proven where it would run.
        where = f"{os.environ.get('HYPOTHESIS_PROFILE', '')} {missing()}"
        return self.key(own, digest_of(self.root, *texts), *cells, where)

    def own(self, path: Path) -> list[Module]:
        """Return a file of tests, then the parts of each conftest that it uses."""
        around = [parent / "conftest.py" for parent in path.parents]
        used = (self._fixtures(file, path) for file in around if file.is_file())
        return [self.module(self._name(path)), *used]

    def _pages_of(self, pattern: str) -> list[Path]:
        return sorted((self.root / "book").glob(f"{pattern}.md"))

    def asked(self, path: Path) -> list[str]:
        """Return the key of a page, with what its exercises say."""
        said = EXERCISE.findall(path.read_text(encoding="utf-8"))
        return [self.page(path), *said]

    def _fixtures(self, around: Path, path: Path) -> Module:
        """Return a conftest without the fixtures that a file of tests does not name."""
        every, text = self.module(self._name(around)), path.read_text(encoding="utf-8")
        kept: dict[str, Piece] = {}
        while True:
            said = [text, *(part.text for part in kept.values())]
            new = {
                name: part
                for name, part in every.pieces.items()
                if name not in kept
                and (
                    name.startswith("pytest_")  # a hook, which nobody names
                    or "autouse" in part.text
                    or any(_says(one, name) for one in said)
                )
            }
            if not new:
                break
            kept |= new
        # What only the others import is not run for this file.
        used, all_used = (
            {chain[0] for part in parts for chain in part.chains}
            for parts in ([every.rest, *kept.values()], every.parts)
        )
        imports = {
            alias: target
            for alias, target in every.imports.items()
            if alias in used or alias not in all_used
        }
        return Module(kept, every.rest, imports)

    def _name(self, path: Path) -> str:
        return ".".join(path.relative_to(self.root).with_suffix("").parts)


def _says(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def _parses(cell: str) -> bool:
    try:
        ast.parse(cell)
    except SyntaxError:
        return False
    return True
