"""A key changes with whatever can change the outcome, and with nothing else."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from book._tools import chromium, depends, manuscript
from book._tools.depends import ROOT, Sources, module
from tests.units import cells

DEPENDS = ("cells", "book/_tools")
FILES = {
    "requirements.lock": "torch==2.13.0\n",
    "crlib/__init__.py": "",
    "crlib/norms.py": """
'''Norms.'''
SIZES = {"l1": 1}


def helper(v):
    '''Add up.'''
    return sum(v)  # all of them


def l1(v):
    return helper(v) * SIZES["l1"]


def unused(v):
    return 0


class Ball:
    def project(self, v):
        return l1(v)
""",
    "crlib/attacks/__init__.py": "from crlib.attacks.ascent import pgd, fgsm\n",
    "crlib/attacks/ascent.py": """
from crlib import norms


def fgsm(x):
    return norms.Ball().project(x)


def pgd(x):
    from crlib.late import step

    return step(x)
""",
    "crlib/late.py": "import random\nprint('imported')\n\ndef step(x):\n    return x\n",
    "crlib/results/first.csv": "seed,value\n0,1\n",
    "crlib/results/second.csv": "seed,value\n0,1\n",
    "book/ch01_first.md": """# First

```{code-cell} ipython3
from crlib import attacks, norms
norms.l1([1, 2])
attacks.fgsm([1])
table = "first"
```
""",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def key(root: Path) -> str:
    return Sources(root).page(root / "book/ch01_first.md")


def change(root: Path, name: str, find: str, replace: str) -> None:
    text = (root / name).read_text()
    assert text.count(find) == 1, f"{find!r} occurs {text.count(find)} times"
    (root / name).write_text(text.replace(find, replace))


@pytest.mark.parametrize(
    ("name", "find", "replace"),
    [
        ("crlib/norms.py", "return sum(v)", "return max(v)"),
        ("crlib/norms.py", '{"l1": 1}', '{"l1": 2}'),
        ("crlib/norms.py", "return l1(v)", "return helper(v)"),
        ("crlib/attacks/ascent.py", ".project(x)", ".project([x])"),
        ("crlib/attacks/__init__.py", "pgd, fgsm", "pgd, pgd as fgsm"),
        ("crlib/results/first.csv", "0,1", "0,2"),
        ("requirements.lock", "2.13.0", "2.13.1"),
        ("book/ch01_first.md", "norms.l1([1, 2])", "norms.l1([1, 3])"),
        ("book/ch01_first.md", "norms.l1([1, 2])", "norms.l1([1, 2])  # so"),
    ],
)
def test_what_decides_the_outcome_changes_the_key(
    root: Path, name: str, find: str, replace: str
) -> None:
    before = key(root)
    change(root, name, find, replace)
    assert key(root) != before


@pytest.mark.parametrize(
    ("name", "find", "replace"),
    [
        ("crlib/norms.py", "# all of them", "# every one"),
        ("crlib/norms.py", "Add up.", "Return the sum."),
        ("crlib/norms.py", "return 0", "return 1"),
        ("crlib/late.py", "return x", "return -x"),
        ("crlib/results/second.csv", "0,1", "0,2"),
        ("book/ch01_first.md", "# First", "# The first"),
    ],
)
def test_what_decides_nothing_leaves_the_key(
    root: Path, name: str, find: str, replace: str
) -> None:
    before = key(root)
    change(root, name, find, replace)
    assert key(root) == before


def test_a_text_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRLIB_BOOK_CACHE", str(tmp_path))
    name, text = "crlib.attacks", FILES["crlib/attacks/ascent.py"]
    first = depends.read_once(name, text)
    assert first == module(text, name)
    monkeypatch.setattr(depends, "module", None)
    assert depends.read_once(name, text) == first
    with pytest.raises(TypeError, match="not callable"):
        depends.read_once("crlib.theory", text)


def test_profile_and_python_belong_to_the_key(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(root)
    monkeypatch.setenv("CRLIB_PROFILE", "full")
    assert key(root) != before
    monkeypatch.undo()
    monkeypatch.setattr(sys, "version_info", (3, 99))
    assert key(root) != before


@pytest.mark.parametrize("cause", ["profile", "package", "Chromium"])
def test_what_is_skipped_or_tried_on_this_machine_belongs_to_the_key_of_a_test(
    root: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    test = root / "tests/test_norms.py"
    test.parent.mkdir()
    test.write_text("def test(): pass\n")
    monkeypatch.setattr(chromium, "find", lambda: None)
    before, page = Sources(root).test(test), key(root)
    if cause == "profile":
        monkeypatch.setenv("HYPOTHESIS_PROFILE", "wide")
    elif cause == "package":
        monkeypatch.setattr(depends, "OPTIONAL", ("no_such_package",))
    else:
        monkeypatch.setattr(chromium, "find", lambda: "/usr/bin/chromium")
    assert Sources(root).test(test) != before
    assert key(root) == page, "what a page computes does not hang on it"


def test_an_import_inside_a_function_counts_with_what_the_import_runs(
    root: Path,
) -> None:
    change(root, "book/ch01_first.md", "attacks.fgsm", "attacks.pgd")
    before = key(root)
    change(root, "crlib/late.py", "print('imported')", "print('again')")
    assert key(root) != before


@pytest.mark.parametrize("use", ["vars(norms)", "getattr(norms, name)"])
def test_a_module_used_as_a_whole_is_reached_as_a_whole(root: Path, use: str) -> None:
    change(root, "book/ch01_first.md", "norms.l1([1, 2])", use)
    before = key(root)
    change(root, "crlib/norms.py", "return 0", "return 1")
    assert key(root) != before


def test_a_function_called_like_a_table_does_not_name_it(root: Path) -> None:
    change(root, "crlib/norms.py", "SIZES =", '__all__ = ["l1", "second"]\nSIZES =')
    change(root, "book/ch01_first.md", "norms.l1([1, 2])", "vars(norms)")
    before = key(root)
    change(root, "crlib/results/second.csv", "0,1", "0,2")
    assert key(root) == before


def test_a_test_depends_on_its_fixtures_and_on_the_files_it_names(root: Path) -> None:
    folder = root / "tests/unit"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text(CONFTEST)
    test = folder / "test_norms.py"
    test.write_text("DEPENDS = ('requirements.lock',)\n\n\ndef test(one): pass\n")
    keys = [Sources(root).test(test)]
    change(root, "tests/unit/conftest.py", "return 3", "return 4")
    assert Sources(root).test(test) == keys[0], "a fixture that nobody names"
    # One that is named, one that this one names, what everybody has, and a hook.
    for number in (1, 2, 5, 6):
        change(root, "tests/unit/conftest.py", f"return {number}", f"return {number}0")
        keys.append(Sources(root).test(test))
    change(root, "crlib/norms.py", "return 0", "return 1")
    assert Sources(root).test(test) == keys[-1]
    change(root, "requirements.lock", "2.13.0", "2.13.1")
    keys.append(Sources(root).test(test))
    assert len(set(keys)) == 6


CONFTEST = """
import pytest
from crlib import norms


def two(): return 2


def one(two): return 1


def three(): return 3 + norms.unused(0)


@pytest.fixture(autouse=True)
def always(): return 5


def pytest_configure(): return 6
"""


@pytest.mark.parametrize(
    ("said", "reached"),
    [
        ("crlib", 0),
        ("crlib.norms.unused", 1),
        # Of f"crlib.norms.{name}", and what is no dotted name at all.
        ("crlib.norms.", 0),
        ("crlib.norms:unused", 0),
    ],
)
def test_the_name_of_a_package_is_not_all_that_is_in_it(
    root: Path, said: str, reached: int
) -> None:
    """A list of packages that are not the reader's own may hold ours."""
    change(root, "crlib/norms.py", "def helper(v):", f"def helper(v, own={said!r}):")
    before = key(root)
    change(root, "crlib/norms.py", "return 0", "return 1")
    assert (key(root) != before) == reached


def test_a_test_of_cells_and_exercises_leaves_prose_alone(root: Path) -> None:
    page, test = root / "book/ch01_first.md", root / "tests/test_cells.py"
    asked = (
        "\n```{exercise-start} Add\n```\nHow much?\n```{solution-end}\n```\nProse.\n"
    )
    page.write_text(page.read_text() + asked)
    test.parent.mkdir(exist_ok=True)
    test.write_text("DEPENDS = ('cells',)\n")
    keys = [Sources(root).test(test)]
    change(root, "book/ch01_first.md", "Prose.", "Better prose.")
    assert Sources(root).test(test) == keys[0]
    change(root, "book/ch01_first.md", "How much?", "How many?")
    keys.append(Sources(root).test(test))
    change(root, "book/ch01_first.md", "norms.l1", "norms.helper")
    keys.append(Sources(root).test(test))
    assert len(set(keys)) == 3


def test_a_test_of_one_unit_leaves_the_others_alone(root: Path) -> None:
    test, other = root / "tests/test_first.py", root / "book/ch02_second.md"
    test.parent.mkdir(exist_ok=True)
    test.write_text("DEPENDS = ('ch01',)\n")
    first = (root / "book/ch01_first.md").read_text(encoding="utf-8")
    other.write_text(first, encoding="utf-8")
    before = Sources(root).test(test)
    change(root, "book/ch02_second.md", "norms.l1", "norms.helper")
    assert Sources(root).test(test) == before
    change(root, "book/ch01_first.md", "norms.l1", "norms.helper")
    assert Sources(root).test(test) != before


def called(book: manuscript.Manuscript) -> set[tuple[str, int]]:
    """Return file and line of every function of crlib that setup and checks call."""
    seen: set[tuple[str, int]] = set()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        # The bodies of modules and classes, which an import runs, have no fast locals.
        function = code.co_flags & inspect.CO_OPTIMIZED
        if event == "call" and function and "crlib" in code.co_filename:
            seen.add((code.co_filename, code.co_firstlineno))

    wanted = [c for c in book.cells if any(t.startswith("check-") for t in c.tags)]
    namespace = cells.fresh()
    # What an import calls, such as a decorator, it calls once and for whoever is first.
    for name in Sources().files:
        if name.startswith("crlib"):
            importlib.import_module(name)
    sys.setprofile(watch)
    try:
        cells.run_all([*book.tagged("setup"), *wanted], namespace)
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize("name", ["ch02", "ch05", "ch17", "lab03", "lab13"])
def test_what_a_page_really_calls_is_reached(name: str) -> None:
    """The reach is read from the sources; here it is held against a run."""
    (path,) = (ROOT / "book").glob(f"{name}_*.md")
    book, sources = manuscript.read(path), Sources()
    own = module("\n\n".join(cell.body for cell in book.cells), "")
    reached = set(sources.reach(own))
    names = {str(file): name for name, file in sources.files.items()}
    missed = set()
    for file, line in called(book):
        if file not in names:
            continue
        for node in ast.parse(Path(file).read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0):
                missed |= {f"{names[file]}:{node.name}"} - reached
    # Importing runs these, whoever asks for the module.
    assert missed <= {"crlib:__getattr__", "crlib.exercises:__getattr__"}


def test_a_unit_knows_its_tables_and_few_others() -> None:
    """So a change of one attack, or of one table, leaves most units alone."""
    sources, units, attacked, read = Sources(), 0, 0, 0
    for path in sorted((ROOT / "tests/units").glob("*[0-9][0-9].py")):
        (page,) = (ROOT / "book").glob(f"{path.stem}_*.md")
        bodies = [cell.body for cell in manuscript.read(page).cells]
        own = [*sources.own(path), depends.read_once("", *bodies)]
        reached = sources.reach(*own)
        tables = {Path(name).stem for name in sources.tables(own, reached)}
        assert {*re.findall(r'published\(\s*"(\w+)"', "\n".join(bodies))} <= tables
        units += 1
        assert not any(place.startswith(depends.ENGINE) for place in reached)
        attacked += "crlib.attacks.universal:top_direction" in reached
        read += "repair" in tables
    assert 0 < attacked < units / 2
    assert 0 < read < units / 4
