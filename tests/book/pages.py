"""What a program can judge about built pages: lints of their HTML, checks in a browser.

Every check returns problems as strings; none means good. The canaries run the same
checks on pages with a planted fault.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from book._tools import chromium
from book._tools.units import Unit

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
DESKTOP = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=375, height=900)
MEGABYTES = 1.5
# Of the browser, for what it is asked, in milliseconds.
PATIENCE = 120_000
DRAWN = """() => Promise.resolve(window.MathJax?.startup?.promise).then(() => true)"""
RAW = re.compile(r"\{[a-z:]+\}`|^:(label|name|class|tags):|```|\$\$|\?\?\?|\bUnknown\b")
# Of a question: where its explanations stand.
WHY = "box => [...box.querySelectorAll('.cr-why')]"
# Contrast is a matter of colours, size and weight. A page has thousands of words and a
# hundred looks: one word of each is judged. And nine in ten elements are words of code
# or parts of a drawn formula: one word of each kind stays, of a formula what is read
# aloud. Both turn a minute into seconds. Of single letters axe does not judge contrast.
FEW = """;
    const kinds = new Set();
    const more = [...document.querySelectorAll("pre span")].filter(word => {
      const kind = [word.checkVisibility(), word.textContent.length > 1];
      for (let at = word; at; at = at.parentElement) kind.push(at.className);
      return kinds.size === kinds.add(kind.join()).size;
    });
    more.forEach(word => word.replaceWith(...word.childNodes));
    document.querySelectorAll("mjx-math[aria-hidden=true]").forEach(e => e.remove());
    const looks = new Set();
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].some(
        node => node.nodeType === Node.TEXT_NODE && node.data.trim().length > 1);
      const seen = element.checkVisibility() && element.offsetWidth > 1;
      if (!own || !seen || element.closest("mjx-container")) continue;
      const style = getComputedStyle(element);
      const look = [style.color, style.fontSize, style.fontWeight];
      for (let at = element; at; at = at.parentElement) {
        const { backgroundColor, backgroundImage, opacity } = getComputedStyle(at);
        look.push(backgroundColor, backgroundImage, opacity);
      }
      if (looks.has(look.join())) continue;
      looks.add(look.join());
      element.setAttribute("data-look", "");
    }
    axe.configure({rules: [{id: "color-contrast", selector: "[data-look]"}]});
"""


def pages(html: Path = HTML) -> list[Path]:
    """Return the pages a reader reads, without search and index."""
    return sorted(html.glob("book/*.html"))


def chapters(html: Path = HTML) -> list[Path]:
    """Return the pages of chapters and labs."""
    return [page for page in pages(html) if Unit.of(page)]


def article(page: Path) -> Tag:
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    found = soup.find("article")
    assert isinstance(found, Tag), f"{page.name} has no <article>"
    return found


def pictures(page: Path) -> Iterator[str]:
    """Every picture has a text that says what is seen, 30 to 300 characters."""
    for image in article(page).find_all("img"):
        alt = str(image.get("alt") or "")
        figure = image.find_parent("figure")
        caption = figure.find("figcaption") if figure else None
        words = re.sub(r"^Fig\. [\d.]+ ", "", caption.get_text(" ")) if caption else ""
        if not 30 <= len(alt) <= 300:
            yield f"{page.name}: an alt text of {len(alt)} characters: {alt!r}"
        elif re.search(r"\.(png|svg|jpe?g)$|_images/", alt):
            yield f"{page.name}: the alt text {alt!r} is a file name"
        elif alt.strip().rstrip(".") == words.strip().rstrip("¶# .\n"):
            yield f"{page.name}: the alt text {alt!r} repeats the caption"


def leftovers(page: Path) -> Iterator[str]:
    """No markup of the manuscript stands in the text of the page."""
    text = article(page)
    for code in text.find_all(["pre", "code", "script", "style"]):
        code.decompose()
    for math in text.select(".math"):
        math.decompose()
    for line in text.get_text("\n").splitlines():
        if RAW.search(line.strip()):
            yield f"{page.name}: raw markup in the text: {line.strip()[:80]!r}"
        elif "$" in line:
            yield f"{page.name}: a bare dollar sign: {line.strip()[:80]!r}"


def complaints(page: Path) -> Iterator[str]:
    """No cell has written to the error stream, as warnings do."""
    for output in article(page).select(".output.stderr"):
        yield f"{page.name}: a cell complains: {output.get_text(strip=True)[:120]!r}"


def weight(page: Path) -> Iterator[str]:
    """A page is light before its figures: those in it as data do not count."""
    html = re.sub(r'"data:image/[^"]*"', '""', page.read_text(encoding="utf-8"))
    size = len(html.encode()) / 1e6
    if size > MEGABYTES:
        yield f"{page.name}: {size:.1f} MB before its figures: at most {MEGABYTES}"


def hosts(page: Path) -> Iterator[str]:
    """No page loads anything from elsewhere; links to follow are fine."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for element in soup.find_all(["script", "img", "link", "iframe", "source"]):
        address = str(element.get("src") or element.get("href") or "")
        canonical = "canonical" in (element.get("rel") or [])
        if re.match(r"(https?:)?//", address) and not canonical:
            yield f"{page.name}: <{element.name}> asks {address}"


def buttons(page: Path, repository: str) -> Iterator[str]:
    """Chapter pages, and only they, open their notebook in Binder and Colab."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    links = {str(a["href"]) for a in soup.find_all("a", href=True)}
    running = {a for a in links if "mybinder.org" in a or "colab.research" in a}
    owner = repository.removeprefix("https://github.com/")
    unit = Unit.of(page)
    if not unit:
        if running:
            yield f"{page.name}: a page without a notebook offers {sorted(running)}"
        return
    notebook = f"chapters/{unit.notebook}.ipynb"
    if not (ROOT / notebook).exists():
        yield f"{page.name}: {notebook} does not exist"
    for service in ("mybinder.org", "colab.research.google.com"):
        if not any(service in a and owner in a and notebook in a for a in running):
            yield f"{page.name}: no button opens {notebook} on {service}"


def secrets(html: Path, hidden: list[str]) -> Iterator[str]:
    """What only an autograder may know is in no file that is served."""
    if (html / "_sources").exists():
        yield "the sources of the pages are served under _sources"
    lines = {
        line.strip()
        for body in hidden
        for line in body.splitlines()
        if "_hidden" in line
    }
    for file in [*html.rglob("*.html"), *html.rglob("*.js")]:
        text = file.read_text(encoding="utf-8", errors="replace")
        if file.suffix == ".html":
            text = unescape(re.sub(r"<[^>]*>", "", text))
        for line in lines:
            if line in text:
                yield f"{file.relative_to(html)}: shows the hidden test {line!r}"


@contextmanager
def browser() -> Iterator[Browser]:
    """Open the Chromium that the variable CHROMIUM names, or a usual one."""
    path = chromium.find()
    if path is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("CI needs a Chromium: none was found.")
        pytest.skip("no Chromium found: set CHROMIUM to the path of one")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )


@contextmanager
def opened(
    driver: Browser, page: Path, *, formulas: bool = True
) -> Iterator[tuple[Page, list[str]]]:
    """Open a file with the network watched; yield the page and what went wrong.

    To draw the formulas takes seconds: a page opens light and wide, once, and is made
    dark and narrow later.
    """
    context = driver.new_context(viewport=DESKTOP, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    tab, trouble = context.new_page(), []
    tab.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:", "blob:"))
            else trouble.append(f"{page.name}: asks {request.url}")
        ),
    )
    tab.on("pageerror", lambda error: trouble.append(f"{page.name}: {error}"))
    tab.on(
        "console",
        lambda message: (
            trouble.append(f"{page.name}: console: {message.text}")
            if message.type == "error"
            else None
        ),
    )
    # Whatever the page asks of another host fails, as it does without a network.
    context.route(re.compile(r"^https?://"), lambda route: route.abort())
    if not formulas:
        context.route(re.compile("mathjax"), lambda route: route.abort())
    try:
        tab.goto(page.as_uri(), wait_until="load")
        # Of evaluate there is no limit: a script that never ends is met here.
        tab.wait_for_function(DRAWN)
    except PlaywrightTimeout as error:
        context.close()
        raise AssertionError(f"{page.name}: a script does not end: {error}") from None
    try:
        yield tab, trouble
    finally:
        context.close()


def darken(tab: Page) -> Iterator[str]:
    """Press the page's own button until the page is dark."""
    for _ in range(3):
        if tab.evaluate("document.documentElement.dataset.theme") == "dark":
            return
        tab.evaluate("document.querySelector('.theme-switch-button').click()")
    yield "the button for light and dark does not make the page dark"


def mathematics(tab: Page) -> Iterator[str]:
    """Every formula is typeset, none is an error."""
    found: dict[str, int] = tab.evaluate(
        """() => ({
          sources: document.querySelectorAll("article .math").length,
          drawn: document.querySelectorAll("article .math mjx-container").length,
          // A command that MathJax does not know is no error: it stands there in red.
          errors: document.querySelectorAll(
            "mjx-merror, [data-mjx-error], mjx-mtext[style*=red]").length,
        })"""
    )
    if found["drawn"] < found["sources"]:
        yield f"{found['drawn']} of {found['sources']} formulas are drawn"
    if found["errors"]:
        yield f"{found['errors']} formulas show an error"


def overflow(tab: Page) -> Iterator[str]:
    """The page does not scroll sideways on a phone."""
    tab.set_viewport_size(PHONE)
    wide, room = tab.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    tab.set_viewport_size(DESKTOP)
    if wide > room:
        yield f"the page is {wide} pixels wide in a window of {room}"


def accessibility(tab: Page, *, dark: bool) -> Iterator[str]:
    """Axe finds no violation that it calls serious or critical.

    In the dark only contrast is judged: the rest of the page is that of the light one.
    Most code and formulas are gone from the page after this.
    """
    # Buttons change colour softly; measured halfway, their contrast is a false alarm.
    tab.add_style_tag(content="* {transition: none !important}")
    # Reading the style sheets anew would fail from a file, and fill the console.
    options = {"preload": False, "resultTypes": ["violations"]}
    if dark:
        options["runOnly"] = ["color-contrast"]
    report: dict[str, Any] = Axe(AXE_SCRIPT + FEW).run(tab, None, options).response
    for violation in report["violations"]:
        if violation["impact"] in ("serious", "critical"):
            where = violation["nodes"][0]["html"][:120]
            yield f"{violation['id']} ({violation['impact']}): {where}"


def something_to_move(tab: Page) -> Iterator[str]:
    """There is a slider, or an explorable."""
    if tab.query_selector(".cr-frames, .cr-explore") is None:
        yield "no slider on the page, and no explorable"


def slider_by_keyboard(tab: Page) -> Iterator[str]:
    """An arrow key changes each slider's picture, and what a screen reader hears."""
    state = """box => {
      const images = [...box.querySelectorAll("img")];
      const shown = images.filter(i => i.offsetParent !== null);
      const input = box.querySelector("input");
      return [shown.length, shown[0] ? shown[0].alt : "",
              box.querySelector("output").value, input.getAttribute("aria-valuetext")];
    }"""
    boxes = tab.query_selector_all(".cr-frames")
    for number, box in enumerate(boxes, 1):
        control = box.query_selector("input")
        before = box.evaluate(state)
        if control is None or before[0] != 1:
            yield f"slider {number} shows {before[0]} pictures"
            continue
        control.focus()
        last = control.evaluate("i => +i.value === +i.max")
        tab.keyboard.press("ArrowLeft" if last else "ArrowRight")
        after = box.evaluate(state)
        if after[0] != 1 or after[1] == before[1] or after[2] == before[2]:
            yield f"slider {number}: an arrow key does not change the picture"
        if after[2] != after[3]:
            yield f"slider {number}: a screen reader hears {after[3]!r}"


def questions_by_keyboard(tab: Page) -> Iterator[str]:
    """A question is chosen, committed to and explained by keyboard, and remembered."""
    boxes = tab.query_selector_all(".cr-predict")
    if not boxes:
        yield "no question to predict on the page"
    for number, box in enumerate(boxes, 1):
        radio = box.query_selector("input[type=radio]")
        if radio is None:
            yield f"question {number} cannot be answered"
            continue
        if box.evaluate(WHY + ".some(e => e.checkVisibility())"):
            yield f"question {number} shows its answers before a choice"
        radio.focus()
        for key in ("Space", "ArrowDown", "Tab", "Enter"):
            tab.keyboard.press(key)
        if not box.evaluate(WHY + ".every(e => e.innerText.length > 20)"):
            yield f"question {number} does not explain its answers"
        if not box.evaluate("b => b.querySelector('.cr-said').innerText"):
            yield f"question {number} does not say whether the choice was right"
        kept = "Object.values(localStorage).includes('1')"
        if not tab.evaluate(kept):
            yield f"question {number} forgets the choice"
        tab.keyboard.press("Enter")
        if box.evaluate(WHY + ".some(e => e.checkVisibility())"):
            yield f"question {number} cannot be asked again"


def pages_by_keyboard(tab: Page) -> Iterator[str]:
    """The right arrow opens the next page, except where a control takes it."""
    link = tab.query_selector(".prev-next-footer .right-next")
    if link is None:
        return
    opened = "() => { window.turned = 0; document.querySelector('.right-next')"
    opened += ".addEventListener('click', e => { e.preventDefault(); turned++ }) }"
    tab.evaluate(opened)
    control = tab.query_selector("article input")
    if control is not None:
        control.focus()
        tab.keyboard.press("ArrowRight")
        if tab.evaluate("turned"):
            yield "an arrow key in a control turns the page"
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("ArrowRight")
    if tab.evaluate("turned") != 1:
        yield "the right arrow does not open the next page"


def cards_by_keyboard(tab: Page) -> Iterator[str]:
    """A link to a term shows the term when it has the focus, and Escape hides it."""
    dealt = tab.query_selector_all("template.cr-hover")
    links = {
        to: tab.query_selector_all(f"article a[href='{to}']")
        for to in (card.get_attribute("data-of") for card in dealt)
    }
    yield from (f"the card of {to} belongs to no link" for to in links if not links[to])
    # What is folded away takes no focus.
    seen = [(to, a) for to in links for a in links[to] if a.is_visible()]
    if not seen:
        yield "no link in sight has a card"
        return
    to, link = seen[0]
    link.focus()
    try:
        tab.wait_for_selector("#cr-hovercard:not([hidden])", timeout=3000)
    except PlaywrightTimeout:
        yield f"the link to {to} shows no card"
    tab.keyboard.press("Escape")
    if tab.evaluate("document.querySelector('#cr-hovercard').checkVisibility()"):
        yield "Escape does not hide a card"


def open_code(tab: Page) -> float:
    """Return the share of the page's height that is code open at first view."""
    share: float = tab.evaluate(
        """() => [...document.querySelectorAll("article .cell_input")]
          .filter(code => code.checkVisibility())
          .reduce((sum, code) => sum + code.offsetHeight, 0)
          / document.querySelector("article").offsetHeight"""
    )
    return share
