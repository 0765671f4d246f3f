"""Functions are taken from a file by name, with what they need and nothing else."""

import ast
from dataclasses import replace
from typing import Any

import pytest

from crlib.grading import extract
from crlib.grading.extract import Answer, Unreadable
from crlib.grading.packs import uses
from tests.unit.hostile import CURVE, RANK, UNREADABLE, notebook

F = replace(RANK, function="f")


def found(*sources: str) -> Answer:
    return extract.answers(notebook(*sources), [F])[F.label]


def names(source: str) -> set[str]:
    return {name for node in ast.parse(source).body for name in extract.binds(node)}


def test_the_last_definition_counts_unless_it_is_a_stub() -> None:
    stub = "def f(x):\n    '''Do it.'''\n    raise NotImplementedError('soon')"
    one, two = ("def f(x):\n    return 1", "def f(x):\n    return 2")
    assert "return 2" in found(one, two, stub).source
    assert "return 1" in found(stub, two, one).source
    assert found(stub) == Answer(note="Not written yet.")
    assert "lambda" in found(one, "f = lambda x: 3").source
    # A table of the chapter that has the same name.
    assert "return 1" in found(one, "f = {1: 2}").source
    assert not found("f = [k for k in range(3)]").source


@pytest.mark.parametrize(
    ("cells", "needed"),
    [
        # Parameters and local names are not the module's.
        (("x = 1", "def f(x):\n    y = x\n    return y"), {"f"}),
        (("k = 1", "def f(x, y=k):\n    return y"), {"f", "k"}),
        (("k = 1", "def g(x):\n    return k", "def f(x):\n    return g(x)"), {*"fgk"}),
        (("import a.b\nimport c", "def f(x):\n    return a.b(x)"), {"f", "a"}),
        (("from m import a as b, c", "def f(x):\n    return b"), {"f", "b", "c"}),
        (("a, (b, *c) = 1, (2, 3)", "f = sorted(c)"), {*"abcf"}),
        (("class C:\n    k = 1", "def f(x: C):\n    return x"), {"f", "C"}),
        (("d = id", "@d\ndef f(x):\n    return x"), {"f", "d"}),
        (("n: int = 1", "def f():\n    global n\n    n += 1"), {"f", "n"}),
        (("def f(n):\n    return f(n - 1)",), {"f"}),
        (("def f(x):\n    return late", "late = 1"), {"f", "late"}),
        (("x = 1\nx = x + 1", "def f():\n    return x"), {"f", "x"}),
    ],
)
def test_what_a_function_needs_comes_along(
    cells: tuple[str, ...], needed: set[str]
) -> None:
    assert names(found("unused = 1", *cells).source) == needed


def test_what_stands_above_goes_before_what_stands_below() -> None:
    source = found("k = 1", "def f():\n    return k", "k = 2").source
    assert "k = 1" in source and "k = 2" not in source


def test_changes_of_what_is_needed_come_along_in_order() -> None:
    cells = (
        "t = {}\nt['a'] = 0",
        "t = {}\nt['b'] = 1\nt['b'] += 2",
        "def f(): return t",
    )
    space: dict[str, object] = {}
    exec(found(*cells, "t['c'] = 3").source, space)
    assert space["t"] == {"b": 3}


def test_lines_of_ipython_are_dropped_only_where_nothing_else_parses() -> None:
    whole = 'def f(x):\n    """What?\n    %d?\n    """\n    return (x\n        % 3)'
    space: dict[str, object] = {}
    exec(found(whole).source, space)
    assert space["f"](5) == 2 and "%d?" in space["f"].__doc__
    assert found("%%time\n  !ls\nimport math\nmath?\ndef f(x):\n    return 1").source


def test_a_fault_in_the_cell_of_the_function_is_told() -> None:
    assert found("a = (", "def f(x:\n    pass").note.startswith("Code cell 2 is no Py")
    assert found("a = (").note == "Not written yet."
    assert "nested too deeply" in found(f"f = lambda: {'-' * 600}1").note


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_notebook_is_refused_with_a_sentence(name: str) -> None:
    raw, said = UNREADABLE[name]
    with pytest.raises(Unreadable, match=said):
        extract.answers(raw, [CURVE])


def test_too_large_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "MOST", 10)
    with pytest.raises(Unreadable, match="clear the outputs"):
        extract.cells(notebook("a = 1"))


@pytest.mark.parametrize(
    ("source", "flagged"),
    [
        ("def f(x):\n    return x.sum()", ()),
        ("import os.path as p\ndef f(x):\n    return p", ("os.path",)),
        ("def f(x):\n    import sys\n    return sys.exit", ("sys",)),
        ("def f(x):\n    return eval('x').__class__", ("__class__", "eval")),
        ("from ctypes import CDLL\ndef f(x):\n    return CDLL", ("ctypes",)),
        ("def f(x):\n    return metrics.spread(x)", ("metrics.spread",)),
    ],
)
def test_what_is_worth_a_look_is_flagged(source: str, flagged: tuple[str, ...]) -> None:
    assert found(source).flags == flagged


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("import crlib\ncrlib.metrics.spread(v)", {"metrics.spread"}),
        ("from crlib.theory import gap", {"theory.gap"}),
        ("from crlib import metrics as m", {"metrics.*"}),
        ("import crlib.metrics as m", {"metrics.*"}),
        ("from crlib import metrics\nfrom . import x", set()),
        ("a.metrics.spread", set()),
    ],
)
def test_what_is_used_of_crlib_is_known(source: str, used: set[str]) -> None:
    assert uses(source) == used


@pytest.mark.parametrize("stars", [("math",), ("math", "string")])
def test_a_star_comes_along(stars: tuple[str, ...]) -> None:
    cells = [f"from {name} import *" for name in stars]
    found = extract._statements([*cells, "def f(x):\n    return sqrt(x)"])[0]
    space: dict[str, Any] = {}
    exec(extract.program(found, "f"), space)
    assert space["f"](4) == 2
