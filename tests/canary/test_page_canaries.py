"""Faults planted in built pages and in builds: each gate must turn red.

The good page is a chapter of the built book; a canary changes one thing on a copy.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error

from book._tools import manuscript
from tests.book import pages

DEPENDS = ("_config.yml", "book/_ext", "book/_static", "book/_tools")
ROOT = pages.ROOT
PAGE = """---
jupytext:
  text_representation: {{extension: .md, format_name: myst}}
kernelspec: {{display_name: Python 3, language: python, name: python3}}
---
# A page

{body}
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Browser]:
    with pages.browser() as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the built pages that a canary may spoil."""
    folder = tmp_path_factory.mktemp("site") / "html"
    shutil.copytree(pages.HTML, folder)
    return folder


@pytest.fixture
def spoil(site: Path) -> Iterator[Callable[[str, str], Path]]:
    """Return a function that replaces text once in the first chapter's page."""
    page = pages.chapters(site)[0]
    good = page.read_text(encoding="utf-8")

    def change(old: str, new: str) -> Path:
        assert old in good, f"the page has no {old!r} to spoil"
        page.write_text(good.replace(old, new, 1), encoding="utf-8")
        return page

    yield change
    page.write_text(good, encoding="utf-8")


def test_missing_alt(spoil: Callable[[str, str], Path]) -> None:
    assert list(pages.pictures(spoil("<article", '<article><img src="a.png"><x')))


def test_file_name_as_alt(spoil: Callable[[str, str], Path]) -> None:
    image = '<img src="a.png" alt="../_images/0123456789abcdef0123456789.png">'
    assert list(pages.pictures(spoil("<article", f"<article>{image}<x")))


@pytest.mark.parametrize("text", ["see {prf:ref}`thm-x`", "costs $x", "$$x^2$$"])
def test_raw_markup(spoil: Callable[[str, str], Path], text: str) -> None:
    assert list(pages.leftovers(spoil("<article", f"<article><p>{text}</p><x")))


def test_warning(spoil: Callable[[str, str], Path]) -> None:
    good = spoil("<article", "<article")
    assert not list(pages.complaints(good))
    output = '<div class="output stderr highlight-myst-ansi">A warning</div>'
    assert list(pages.complaints(spoil("<article", f"<article>{output}<x")))


def test_heavy_page(spoil: Callable[[str, str], Path]) -> None:
    assert not list(pages.weight(spoil("<article", "<article")))
    figure = f'<article><img src="data:image/png;base64,{"A" * 1_600_000}"><x'
    assert not list(pages.weight(spoil("<article", figure)))
    words = f"<article><p>{'word ' * 320_000}</p><x"
    assert list(pages.weight(spoil("<article", words)))


def test_foreign_script(spoil: Callable[[str, str], Path]) -> None:
    script = '<script src="https://cdn.example.org/a.js"></script></head>'
    assert list(pages.hosts(spoil("</head>", script)))


def test_missing_button(spoil: Callable[[str, str], Path]) -> None:
    repository = manuscript.config(ROOT)["repository"]["url"]
    page = spoil("colab.research.google.com", "colab.example.org")
    assert list(pages.buttons(page, repository))


def test_leaked_hidden_test(site: Path, spoil: Callable[[str, str], Path]) -> None:
    secret = "exercises.check(ch01.energy_hidden, energy)"
    spoil("<article", f"<article><p>{secret}</p><x")
    assert any(pages.secrets(site, [secret]))


def test_served_sources(site: Path) -> None:
    (site / "_sources").mkdir()
    try:
        assert any(pages.secrets(site, []))
    finally:
        (site / "_sources").rmdir()


def test_foreign_request(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    page = spoil("</body>", "<script>fetch('https://example.org/x')</script></body>")
    with pages.opened(driver, page) as (tab, trouble):
        tab.wait_for_timeout(300)
        assert any("asks https://example.org" in line for line in trouble)


def test_console_error(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    page = spoil("</body>", "<script>console.error('broken')</script></body>")
    with pages.opened(driver, page) as (_, trouble):
        assert any("broken" in line for line in trouble)


@pytest.mark.parametrize(
    "when",
    ["{}()", "addEventListener('load', () => setTimeout({}))"],
    ids=["before it is loaded", "once it is loaded"],
)
def test_endless_script(
    driver: Browser,
    spoil: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    monkeypatch.setattr(pages, "PATIENCE", 5000)
    endless = when.format("(() => { while (true) {} })")
    page = spoil("</body>", f"<script>{endless}</script></body>")
    with pytest.raises(AssertionError, match=f"{page.name}: a script does not end"):
        with pages.opened(driver, page):
            pass


def test_script_error(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    page = spoil("</body>", "<script>undefined_function()</script></body>")
    with pages.opened(driver, page) as (_, trouble):
        assert any("undefined_function" in line for line in trouble)


@pytest.mark.parametrize("formula", [r"\frac{1", r"\abs{x}"])
def test_broken_formula(
    driver: Browser, spoil: Callable[[str, str], Path], formula: str
) -> None:
    math = rf'<article><span class="math notranslate">\({formula}\)</span><x'
    with pages.opened(driver, spoil("<article", math)) as (tab, _):
        assert list(pages.mathematics(tab))


PALE = {
    "text": '<p style="{style}">{text}</p>',
    "code": '<pre><span class="k">if</span> <span style="{style}">{text}</span></pre>',
}


@pytest.mark.parametrize("what", PALE)
@pytest.mark.parametrize("dark", [False, True])
def test_pale(
    driver: Browser, spoil: Callable[[str, str], Path], what: str, dark: bool
) -> None:
    style = "color:#333;background:#222" if dark else "color:#ddd;background:#eee"
    pale, short = (
        PALE[what].format(style=style, text=text) for text in ("hard to read", "x")
    )
    twins = f"<article><div hidden>{pale}</div><div>{short}{pale}</div><x"
    with pages.opened(driver, spoil("<article", twins)) as (tab, _):
        assert not dark or not list(pages.darken(tab))
        assert any(
            "color-contrast" in line for line in pages.accessibility(tab, dark=dark)
        )


def test_overflow(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    wide = '<article><div style="width:900px">wide</div><x'
    with pages.opened(driver, spoil("<article", wide)) as (tab, _):
        assert list(pages.overflow(tab))


def test_dead_theme_button(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    page = spoil("theme-switch-button", "theme-switch-button dead")
    with pages.opened(driver, page) as (tab, _):
        tab.evaluate("document.querySelectorAll('.dead').forEach(b => b.disabled = 1)")
        assert list(pages.darken(tab))


def test_dead_slider(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    with pages.opened(driver, spoil("m.hidden=i!==k", "m.hidden=m.hidden")) as (tab, _):
        assert list(pages.slider_by_keyboard(tab))


def test_nothing_to_move(driver: Browser, site: Path) -> None:
    with pages.opened(driver, pages.chapters(site)[0]) as (tab, _):
        assert not list(pages.something_to_move(tab))
        tab.evaluate("document.querySelectorAll('.cr-frames').forEach(b => b.remove())")
        assert list(pages.something_to_move(tab))


def test_dead_question(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    page = spoil("</head>", "<style>.cr-predict{display:none}</style></head>")
    with pages.opened(driver, page) as (tab, _):
        assert list(pages.questions_by_keyboard(tab))


def test_dead_script_of_the_reader(
    driver: Browser, spoil: Callable[[str, str], Path]
) -> None:
    with pages.opened(driver, spoil("reader.js", "gone.js")) as (tab, _):
        assert any("cannot be answered" in p for p in pages.questions_by_keyboard(tab))
        assert list(pages.pages_by_keyboard(tab))
        with pytest.raises(Error):
            list(pages.cards_by_keyboard(tab))


def test_answers_before_a_choice(
    driver: Browser, spoil: Callable[[str, str], Path]
) -> None:
    style = "<style>.cr-why{display:block !important}</style></head>"
    with pages.opened(driver, spoil("</head>", style)) as (tab, _):
        problems = list(pages.questions_by_keyboard(tab))
    assert any("before a choice" in problem for problem in problems)


def test_open_plumbing(driver: Browser, spoil: Callable[[str, str], Path]) -> None:
    page = spoil("</head>", "<style>.cell_input{min-height:3000px}</style></head>")
    with pages.opened(driver, page) as (tab, _):
        assert pages.open_code(tab) > 0.35


def build(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    (folder / "book").mkdir()
    (folder / "book" / "page.md").write_text(PAGE.format(body=body))
    (folder / "book" / "references.bib").write_text("")
    return subprocess.run(
        [sys.executable, "-m", "book._tools.build", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def cell(code: str) -> str:
    return f"```{{code-cell}} ipython3\n{code}\n```"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (cell("print(1)"), 0),
        (cell("raise ValueError('planted')"), 1),
        ("See {prf:ref}`thm-nowhere`.", 1),
        ("As {cite}`nobody2026` says.", 1),
        ("A {term}`word nobody defined`.", 1),
        ("It is {glue:text}`never_glued` times.", 1),
        ("```{predict} Which?\n- One. :: No.\n- Two. :: No.\n```", 1),
    ],
    ids=["good", "raises", "reference", "citation", "term", "glue", "predict"],
)
def test_build(tmp_path: Path, body: str, code: int) -> None:
    result = build(tmp_path, body)
    assert bool(result.returncode) == bool(code), result.stdout + result.stderr
