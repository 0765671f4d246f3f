"""A page gives outputs, seconds and slacks; every way to fail has a name."""

import time
from pathlib import Path

import pytest

from book._tools import run

DEPENDS = ("book/_tools",)
PAGE = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# A page
"""


def page(folder: Path, *cells: str, tags: str = "[claim]") -> Path:
    file = folder / "ch01_page.md"
    body = "".join(
        f"\n```{{code-cell}} ipython3\n:tags: {tags}\n{cell}\n```\n" for cell in cells
    )
    file.write_text(PAGE + body)
    return file


CLAIM = """from crlib.claims import claim, interval
claim("It is above one.", interval([2.0, 2.2, 2.4]).above(1))"""


def test_a_page_gives_outputs_seconds_and_slacks_and_is_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRLIB_BOOK_CACHE", str(tmp_path / "cache"))
    file = page(tmp_path, "print(6 * 7)", CLAIM)
    found = run.outputs(file)
    (first, _, printed), (second, seconds, _) = found.cells
    assert printed[0]["text"] == "42\n" and second > first > 5
    assert 0 < seconds < found.seconds + 1e-9 and 20 < found.megabytes < 1500
    ((sentence, slack),) = found.claims
    assert sentence == "It is above one." and 1 < slack < 2
    notebook = run.filled(file, found)
    assert run.code(notebook)[0].outputs[0].text == "42\n"
    monkeypatch.setattr(run, "run", lambda page: pytest.fail("it ran again"))
    again = run.outputs(file)
    assert again.seconds == found.seconds and again.claims[0][1] == slack


def test_a_figure_is_an_output_whatever_the_tests_say_of_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    ((_, _, outputs),) = run.run(page(tmp_path, draw)).cells
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_hidden_tests_do_not_run(tmp_path: Path) -> None:
    file = page(tmp_path, "raise ValueError", tags="[hidden-test]")
    ((_, seconds, outputs),) = run.run(file).cells
    assert not seconds and not outputs


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("while True:\n    pass", "KeyboardInterrupt"),
        ("import os\nos._exit(3)", "died"),
    ],
    ids=["raises", "never ends", "ends its kernel"],
)
def test_a_cell_that_fails_is_named(tmp_path: Path, cell: str, message: str) -> None:
    file = page(tmp_path, "x = 1", cell)
    with pytest.raises(run.PageError) as error:
        run.run(file, patience=5)
    assert "book/ch01_page.md:13: " in str(error.value)
    assert message in str(error.value)


def test_a_cell_that_hears_no_interrupt_ends_with_its_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "GRACE", 3)
    deaf = "while True:\n    try:\n        while True:\n            pass\n"
    deaf += "    except BaseException:\n        pass"
    file, began = page(tmp_path, "x = 1", deaf), time.monotonic()
    with pytest.raises(run.PageError) as error:
        run.run(file, patience=5)
    assert "book/ch01_page.md:13: did not end in 5 s, nor when" in str(error.value)
    assert time.monotonic() - began < 60


def test_the_limits_count_seconds_of_a_core_and_memory(tmp_path: Path) -> None:
    def told(seconds: float, megabytes: float, name: str) -> list[str]:
        cells = [(7, seconds, []), (9, 25.0, [])] + [(11, 20.0, [])] * 4
        return run.faults(Path(name), run.Run(cells, megabytes, [("So.", 0.3)]))

    assert told(10, 900, "ch01_page.md") == []
    assert "ch01_page.md:7: the cell took 31 s" in told(31, 900, "ch01_page.md")[0]
    assert "1501 MB" in told(10, 1501, "ch01_page.md")[0]
    assert any("at most 30" in line for line in told(10, 900, "lab01_page.md"))


def test_a_busy_core_is_given_its_quarter() -> None:
    def told(seconds: float) -> list[str]:
        found = run.Run([(7, seconds, [])], 900, [("So.", 0.3)])
        return run.faults(Path("lab01_page.md"), found, run.BUSY)

    assert told(37) == []
    assert len(told(38)) == 2


def test_a_claim_that_holds_by_a_hair_is_a_fault() -> None:
    (told,) = run.faults(Path("ch01_page.md"), run.Run([], 900, [("So.", 0.01)]))
    assert "'So.' holds by a hair (0.01" in told
