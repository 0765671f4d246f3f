"""The explorable figures: their numbers are crlib's, and the keyboard drives them."""

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page

from book._tools import build, explorables, explored, manuscript
from crlib import attacks, certify, compress, metrics, theory
from crlib.attacks.ascent import Steady
from crlib.attacks.base import Search, rivals_of
from crlib.claims import interval
from crlib.models import MLP, evaluating
from tests.book import pages

DEPENDS = ("_config.yml", "book/_ext", "book/_static", "book/_tools")
CLOSE = 1e-6
HEAD = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# A page

"""


TOC = """format: jb-book
root: book/home
parts:
- caption: Part
  numbered: true
  chapters:
  - file: book/ch07_page
"""
# Among figures that cells draw, each kind counts on.
ANOTHER = """See {numref}`fig-line` and {numref}`fig-again`.

```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-line
    caption: A line.
  image:
    alt: A line that falls from the upper left to the lower right.
---
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
ax.plot([1, 0])
plt.show()
```

```{explore} forking
:name: fig-again
:start: {"table": "CIFAR-10, small ResNet", "setting": "rank 4", "n": 3}
Once more, from another start.
```"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a book of one page that holds every explorable."""
    folder = tmp_path_factory.mktemp("explorables")
    (folder / "_toc.yml").write_text(TOC)
    (folder / "book").mkdir()
    (folder / "book" / "references.bib").write_text("")
    figures = "\n\n".join(
        f"See {{numref}}`fig-{name}`.\n\n```{{explore}} {name}\n:name: fig-{name}\n"
        f"The explorable called {name}.\n```"
        for name in explorables.NAMES
    )
    figures += "\n\n" + ANOTHER
    (folder / "book" / "home.md").write_text(HEAD)
    (folder / "book" / "ch07_page.md").write_text(HEAD + figures + "\n")
    assert build.build(folder) == 0
    return folder / "_build" / "html" / "book" / "ch07_page.html"


@pytest.fixture(scope="module")
def driver() -> Iterator[Browser]:
    with pages.browser() as found:
        yield found


@pytest.fixture(scope="module")
def tab(driver: Browser, page: Path) -> Iterator[Page]:
    with pages.opened(driver, page) as (found, trouble):
        yield found
        assert not trouble, "\n".join(trouble)


def told(tab: Page, name: str) -> Any:
    """Return the data that the page carries for an explorable."""
    return tab.evaluate(
        "name => document.querySelector(`[data-explore=${name}]`).panel.data", name
    )


def float64(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def worst(found: list[list[float]], wanted: list[list[float]]) -> float:
    """Return the largest difference, relative where numbers are large."""
    assert len(found) == len(wanted) >= 200
    return max(
        abs(a - b) / max(1.0, abs(b))
        for mine, own in zip(found, wanted, strict=True)
        for a, b in zip(mine, own, strict=True)
    )


def test_every_script_belongs_to_an_explorable() -> None:
    scripts = {path.stem for path in (build.ROOT / "book/_static/explore").glob("*.js")}
    assert scripts == {*explorables.NAMES, "core"}
    assert set(explored.MAKERS) == set(explorables.NAMES)


def test_lens_is_the_theorem(tab: Page) -> None:
    ranks = (1.0, 1.05, 1.3, 1.6, 2.0)
    settings = list(itertools.product(ranks, range(0, 91, 10), range(0, 90, 10)))
    found = tab.evaluate(
        """list => list.map(([s, p, t]) => explore.premises(s, p, t))
          .map(q => [q.ratio, q.alignment, q.signal, q.worst, q.bound])""",
        settings,
    )
    wanted = []
    for s, p, t in settings:
        w = torch.diag(float64([1 / s, 1 - 1 / s]).sqrt())
        head, apart = (
            float64([math.cos(v), math.sin(v)]) for v in map(math.radians, (t, p))
        )
        q = theory.radius_premises(w, head, apart)
        wanted.append([q.ratio, q.alignment, q.signal, q.worst, q.bound])
    assert worst(found, wanted) < CLOSE


def plane_network(data: dict[str, Any]) -> MLP:
    net = MLP((2, 8, 3), bias=True, mean=data["mean"], std=data["std"]).double()
    weights = zip(net.layers, data["weights"], data["biases"], strict=True)
    for layer, w, b in weights:
        layer.weight.data = float64(w)
        layer.bias.data = float64(b)
    return net


class Scaled(torch.nn.Module):
    def __init__(self, net: MLP, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.net(x)


def test_logits_in_the_plane_are_those_of_torch(tab: Page) -> None:
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(0)).double()
    found: list[list[float]] = []
    wanted: list[list[float]] = []
    for data in told(tab, "attack")["networks"]:
        found += tab.evaluate(
            "([net, xs]) => xs.map(x => explore.forward(net, x).logits)",
            [data, x.tolist()],
        )
        wanted += plane_network(data)(x).detach().tolist()
    assert worst(found, wanted) < CLOSE


def climbed_to(
    net: torch.nn.Module, x: torch.Tensor, loss: str, norm: str, eps: float, steps: int
) -> tuple[torch.Tensor, bool]:
    """Return where crlib's PGD ends, and whether it met a gradient of zero."""
    y = net(x).argmax(1)
    if loss in ("ce", "margin"):
        got = attacks.pgd(net, x, y, eps=eps, norm=norm, steps=steps, loss=loss)
        return got.x_adv, bool(got.zero_gradient.any())
    run = Search(net, x, y, None, norm)
    radius, source = x.new_tensor([eps]), torch.Generator().manual_seed(0)
    with evaluating(net):
        rivals = rivals_of(net(x).detach(), y)[:, int(loss) :][:, :1]
        at = Steady.start(run, radius, None, 1, rivals)
        at.length = radius
        at.shares = (1 - torch.arange(steps) / steps).tolist()
        at.go(run, steps, source)
    result = run.result()
    return result.x_adv, bool(result.zero_gradient.any())


def test_steps_end_where_those_of_crlib_end(tab: Page) -> None:
    networks = told(tab, "attack")["networks"]
    places = [[0.42, 0.86], [0.05, 0.1], [0.93, 0.33], [0.47, 0.64], [0.98, 0.97]]
    settings = list(
        itertools.product(
            range(len(networks)), places, ("l2", "linf"), (0.1, 0.25),
            ("ce", "margin", "0", "1"), (1, 100), (3, 8),
        )
    )  # fmt: skip
    ends = tab.evaluate(
        """([nets, list]) => list.map(([i, x, norm, eps, loss, scale, steps]) => {
          const { way } = explore.pgd(nets[i], x, { norm, eps, loss, scale, steps });
          return [way.at(-1).at, way.some(look => look.blind)];
        })""",
        [networks, settings],
    )
    models = [plane_network(data) for data in networks]
    found, wanted, blind = [], [], 0
    for (i, x, norm, eps, loss, scale, steps), (end, dark) in zip(
        settings, ends, strict=True
    ):
        at = float64([x])
        mine, zero = climbed_to(Scaled(models[i], scale), at, loss, norm, eps, steps)
        assert zero == dark
        # Where the gradient is zero crlib steps at random, and the figure says so.
        if zero:
            blind += 1
            continue
        found.append(end)
        wanted.append(mine[0].tolist())
    assert worst(found, wanted) < CLOSE
    assert 0 < blind < len(settings) / 2


def test_nearest_label_is_the_exact_one(tab: Page) -> None:
    data = told(tab, "attack")["networks"][0]
    net = plane_network(data)
    x = float64([[0.42, 0.86], [0.2, 0.3], [0.9, 0.1], [0.5, 0.5]])
    exact = certify.exact_distance(net, x, net(x).argmax(1), norm="linf")
    found = tab.evaluate(
        "([net, xs]) => xs.map(x => explore.nearest(net, x, 'linf').distance)",
        [data, x.tolist()],
    )
    for mine, wanted in zip(found, exact.distance.tolist(), strict=True):
        # A grid of so many cells cannot be further off, and never below.
        assert wanted - CLOSE <= mine <= wanted + 1 / 400


def test_drawing_is_the_bridge(tab: Page) -> None:
    data = told(tab, "draw")
    right, left, head = (explored.unpacked(data[k]) for k in ("right", "left", "head"))
    net = MLP((784, 128, 10), rank=8, mean=data["mean"], std=data["std"]).double()
    net.layers[0].right.data, net.layers[0].left.data = right, left
    net.layers[1].weight.data = head
    x = torch.rand(200, 784, generator=torch.Generator().manual_seed(0)).double()
    logits, seen = tab.evaluate(
        """([data, xs]) => {
          const net = { mean: data.mean, std: data.std };
          for (const k of ["left", "right", "head"]) net[k] = explore.matrix(data[k]);
          const basis = explore.basis(net.right);
          return [xs.map(x => explore.logits(net, x)),
                  xs.map(x => Array.from(explore.seen(basis, x)))];
        }""",
        [data, x.tolist()],
    )
    assert worst(logits, net(x).detach().tolist()) < CLOSE
    bridge = theory.bridge_attack(net.layers[0].weight, torch.zeros(784).double(), x)
    assert worst(seen, bridge.e.tolist()) < CLOSE


def test_verdicts_are_those_of_claims(tab: Page) -> None:
    data = told(tab, "forking")
    found = tab.evaluate(
        """data => data.tables.flatMap((table, t) => table.settings.flatMap((_, s) =>
          explore.comparisons(data, t, s).map(c =>
            [[t, s, c.rule, c.measure, c.control, c.n, c.verdict],
             [c.interval.mean, c.interval.low, c.interval.high]])))""",
        data,
    )
    few = random.Random(0).sample(found, 600)
    mine, wanted = [], []
    for (t, s, rule, measure, control, n, verdict), numbers in few:
        values = data["tables"][t]["values"]
        own, other = (values[k][rule][measure][:n] for k in (s, control))
        pairs = [(u, v) for u, v in zip(own, other, strict=True) if None not in (u, v)]
        ratio = data["measures"][measure]["kind"] == "ratio"
        got = interval(math.log(u / v) if ratio else 100 * (u - v) for u, v in pairs)
        assert verdict == (
            "loss" if got.below(0) else "gain" if got.above(0) else "open"
        )
        back = math.exp if ratio else float
        mine.append(numbers)
        wanted.append([back(got.mean), back(got.low), back(got.high)])
    assert worst(mine, wanted) < CLOSE
    assert {verdict for (*_, verdict), _ in few} == {"loss", "open", "gain"}


def test_gauge_is_measured_by_crlib(tab: Page) -> None:
    data = told(tab, "gauge")
    draw = random.Random(0)
    turns = [[draw.uniform(-7, 7) for _ in range(4)] for _ in range(200)]
    places = [0.0, 0.3, 0.55, 0.8, 1.0]
    found = tab.evaluate(
        """([data, turns, places]) => turns.map(t => {
          const net = explore.rescaled(data, t), q = explore.measured(net);
          return [...q.rows, ...q.errors, q.lasso, q.lipschitz,
                  ...places.map(x => explore.value(net, x))];
        })""",
        [data, turns, places],
    )
    x = float64(places)[:, None]
    # crlib certifies logits, at least two: here zero and the value of the curve.
    net = MLP((1, 4, 2), bias=True).double()
    first, head = net.layers
    wanted = []
    for t in turns:
        factor = float64(t).exp()
        first.weight.data = (float64(data["w"]) * factor)[:, None]
        first.bias.data = float64(data["b"]) * factor
        own = float64(data["a"]) / factor
        head.weight.data = torch.stack([torch.zeros_like(own), own])
        head.bias.data = float64([0, data["c"]])
        rows = metrics.row_norms(first.weight.detach())
        errors = [metrics.best_k_error(rows, k) for k in (1, 2, 3)]
        lasso = float(compress.group_lasso(1)(net).detach())
        bound = certify.lipschitz_bound(net, (1,))
        curve = net(x).detach()[:, 1]
        wanted.append([*rows.tolist(), *errors, lasso, bound, *curve.tolist()])
    assert worst(found, wanted) < CLOSE


def test_knots_of_the_gauge(tab: Page) -> None:
    knots = [0, 0.25, 0.5, 0.75, 1]
    values = tab.evaluate(
        "([data, xs]) => xs.map(x => explore.value(data, x))",
        [told(tab, "gauge"), knots],
    )
    sine = [math.sin(1.5 * math.pi * x) for x in knots]
    assert values == pytest.approx(sine, abs=CLOSE)


STILL = "No logit has moved"
SAID = "box => box.querySelector('.cr-explore-said').textContent"
LOOK = "box => [...box.querySelectorAll('svg')].map(s => s.outerHTML).join('')"


@pytest.mark.parametrize("name", explorables.NAMES)
def test_every_control_answers_the_keyboard(tab: Page, name: str) -> None:
    box = tab.query_selector(f"[data-explore={name}]")
    assert box
    controls = box.query_selector_all("input, select, button, [tabindex='0']")
    assert len(controls) >= 4
    for control in controls:
        kind = control.evaluate("c => c.type || c.getAttribute('role')")
        before = control.evaluate("c => [c.value, c.checked]")
        said = box.evaluate(SAID)
        assert len(said) > 30
        # By Tab, as a reader comes to it.
        control.evaluate("c => c.focus()")
        assert control.evaluate("c => document.activeElement === c")
        key = {"checkbox": "Space", "button": "Enter", "application": "Space"}
        last = kind == "range" and control.evaluate("c => c.value === c.max")
        end = kind == "select-one" and control.evaluate(
            "c => c.selectedIndex === c.length - 1"
        )
        tab.keyboard.press(
            key.get(kind) or ("ArrowLeft" if last else "ArrowUp" if end else "ArrowDown"
                              if kind == "select-one" else "ArrowRight")
        )  # fmt: skip
        after = control.evaluate("c => [c.value, c.checked]")
        alone = kind == "select-one" and control.evaluate("c => c.length") == 1
        assert kind in ("button", "application") or after != before or alone
        if kind == "range":
            heard, seen = control.evaluate(
                """c => [c.getAttribute('aria-valuetext'),
                         c.closest('.cr-explore-row').querySelector('output').value]"""
            )
            assert heard == seen
        assert (
            control.evaluate(
                "c => c.labels === undefined || c.type === 'button' || c.labels.length"
            )
            or kind == "application"
        )


def press(tab: Page, name: str, *labels: str) -> str:
    for label in labels:
        button = tab.locator(f"[data-explore={name}] button", has_text=label)
        button.focus()
        tab.keyboard.press("Enter")
    said: str = tab.eval_on_selector(f"[data-explore={name}]", SAID)
    return said


def anew(tab: Page, name: str) -> None:
    tab.eval_on_selector(
        f"[data-explore={name}]",
        "box => box.panel.set(structuredClone(box.panel.start))",
    )


def test_the_attack_starts_where_one_rival_alone_finds(tab: Page) -> None:
    ends = {}
    for loss in ("ce", "margin", "0", "1"):
        anew(tab, "attack")
        tab.select_option("[data-explore=attack] [name=loss]", loss)
        assert "Step 1 of 8" in press(tab, "attack", "One step")
        ends[loss] = press(tab, "attack", "All steps")
    assert "failed" in ends["ce"] and "failed" in ends["margin"]
    assert sum("fooled" in ends[rival] for rival in "01") == 1
    assert "lies at distance" in press(tab, "attack", "Show the nearest")


def test_what_the_network_cannot_see_moves_nothing_until_it_is_clipped(
    tab: Page,
) -> None:
    anew(tab, "draw")
    assert STILL in press(tab, "draw", "Wipe", "Bridge", "Keep what it c")
    anew(tab, "draw")
    board = tab.locator("[data-explore=draw] canvas[tabindex]")
    board.focus()
    for key in ("ArrowRight", "ArrowUp", "Space", "Space"):
        tab.keyboard.press(key)
    assert STILL in press(tab, "draw", "Keep what it cannot see")
    tab.check("[data-explore=draw] [name=box]")
    assert STILL not in press(tab, "draw")
    anew(tab, "draw")
    assert "It says trouser" in press(tab, "draw", "Bridge")


def test_a_page_chooses_another_start(tab: Page) -> None:
    said = tab.locator("#fig-again .cr-explore-said").inner_text()
    assert "3 seeds" in said and "Verdict" in said
    for name, value in (("table", "CIFAR-10, small ResNet"), ("setting", "rank 4")):
        assert tab.locator(f"#fig-again [name={name}]").input_value() == value


def test_the_challenges_of_the_gauge_can_be_met(tab: Page) -> None:
    anew(tab, "gauge")
    assert tab.locator("[data-explore=gauge] li", has_text="Done").count() == 0
    done = tab.locator("[data-explore=gauge] li", has_text="Done")
    # One neuron far above the others; then two, and the others heard louder.
    for keys, task in (
        ({"t0": "End"}, "compressible"),
        ({"t0": "End", "t1": "End", "t2": "Home", "t3": "Home"}, "bound"),
    ):
        for name, key in keys.items():
            tab.locator(f"[data-explore=gauge] [name={name}]").focus()
            tab.keyboard.press(key)
        assert done.count() == 1
        assert task in done.inner_text()
    press(tab, "gauge", "Balance")
    assert tab.locator("[data-explore=gauge] li", has_text="Done").count() == 0


def test_print_shows_the_start_and_then_all_comes_back(tab: Page) -> None:
    for name in explorables.NAMES:
        anew(tab, name)
    start = tab.evaluate(f"[...document.querySelectorAll('.cr-explore')].map({LOOK})")
    tab.locator("[data-explore=lens] [name=s]").focus()
    tab.keyboard.press("End")
    press(tab, "gauge", "Balance")
    moved = tab.evaluate(f"[...document.querySelectorAll('.cr-explore')].map({LOOK})")
    assert moved != start
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert start == tab.evaluate(
        f"[...document.querySelectorAll('.cr-explore')].map({LOOK})"
    )
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert moved == tab.evaluate(
        f"[...document.querySelectorAll('.cr-explore')].map({LOOK})"
    )


def test_numbers_are_those_of_the_notebook(page: Path) -> None:
    source = page.parents[3] / "book" / "ch07_page.md"
    formats = manuscript.number_formats(manuscript.config(build.ROOT))
    labels = manuscript.index([manuscript.read(source)], [], formats)
    shown = {
        str(figure["id"]): figure.select_one(".caption-number").get_text(strip=True)
        for figure in pages.article(page).find_all("figure", id=True)
    }
    assert len(shown) == len(explorables.NAMES) + 2
    assert shown == {label: labels[label].text for label in shown}


def test_without_a_script_a_sentence_stands_there(page: Path) -> None:
    boxes = pages.article(page).select(".cr-explore")
    assert len(boxes) == len(explorables.NAMES) + 1
    for box in boxes:
        instead = box.select_one(".cr-explore-instead")
        assert instead and len(instead.get_text()) > 60


def test_pages_are_clean_in_light_and_dark_and_narrow(
    driver: Browser, page: Path
) -> None:
    with pages.opened(driver, page) as (tab, trouble):
        problems = [*pages.overflow(tab)]
        problems += pages.accessibility(tab, dark=False)
        problems += pages.darken(tab)
        problems += [*pages.accessibility(tab, dark=True), *trouble]
        tab.set_viewport_size(pages.PHONE)
        problems += pages.accessibility(tab, dark=False)
    assert not problems, "\n".join(problems)


def test_scripts_are_loaded_only_where_they_are_needed(page: Path) -> None:
    assert "explore/core.js" in page.read_text(encoding="utf-8")
    other = page.parent.parent / "genindex.html"
    assert "explore/" not in other.read_text(encoding="utf-8")
