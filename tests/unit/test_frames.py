"""A slider carries every frame, its words and its start, and works without a kernel."""

import base64
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from crlib.frames import Frames, slider

VALUES = [0.0, 0.5, 1.0]


def draw(value: float) -> Figure:
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1], [0, value])
    ax.set_ylim(0, 1)
    return fig


def alt(value: float) -> str:
    return f'A line from zero to {value}, "steeper" & higher for larger values'


def make(start: int = 0, **options: Any) -> Frames:
    label = "height <in units>"
    return slider(draw, VALUES, label=label, alt=alt, start=start, **options)


class Page(HTMLParser):
    """Collects tags with their attributes, and the text inside each."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(source)
        assert not self.open, "a tag is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts[self.open[-1]] = data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.mark.parametrize("start", [0, 2])
def test_the_page_has_every_frame_with_its_text_and_shows_the_start(start: int) -> None:
    page = Page(make(start=start, fmt=lambda v: f"{v:.1f} <cm>").html())
    images = page.all("img")
    assert [image["alt"] for image in images] == [alt(v) for v in VALUES]
    assert ["hidden" not in image for image in images] == [i == start for i in range(3)]
    pictures = {image["src"] for image in images}
    assert len(pictures) == 3
    for source in pictures:
        raw = base64.b64decode(str(source).removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(raw)).size == (200, 100)
    (control,) = page.all("input")
    assert (control["type"], control["min"], control["max"]) == ("range", "0", "2")
    assert control["value"] == str(start)
    text = f"{VALUES[start]:.1f} <cm>"
    assert control["aria-valuetext"] == page.texts["output"] == text
    (label,) = page.all("label")
    assert label["for"] == control["id"] and page.texts["label"] == "height <in units>"
    texts = json.loads(str(page.all("div")[0]["data-values"]))
    assert texts == [f"{v:.1f} <cm>" for v in VALUES]


def ticks(frames: Frames) -> list[str]:
    inside = frames.html().partition('aria-hidden="true">')[2].partition("</div>")[0]
    assert inside.count("<span>") == len(frames.values)
    return inside.removeprefix("<span>").removesuffix("</span>").split("</span><span>")


def test_every_value_has_a_tick_and_few_have_their_text() -> None:
    assert ticks(make(start=1)) == ["0.0", "0.5", "1.0"]
    long = make(start=1, fmt=lambda v: f"a height of {v} metres")
    assert ticks(long) == [f"a height of {v} metres" for v in VALUES]
    many = slider(
        draw,
        list(np.linspace(0, 1, 5)),
        label="height",
        alt=alt,
        start=3,
        fmt="{:.9f}".format,
    )
    assert ticks(many) == ["0.000000000", "", "", "0.750000000", "1.000000000"]


@pytest.mark.parametrize(
    "said", [lambda v: "The same line 1.", lambda v: "x" * int(v + 3)]
)
def test_a_slider_whose_frames_say_nothing_is_refused(
    said: Callable[[Any], str],
) -> None:
    mute = slider(draw, [0, 1], label="height", alt=said, start=0)
    with pytest.raises(ValueError, match="no two frames alike"):
        mute.html()


def test_the_page_asks_nothing_of_any_host_and_two_sliders_do_not_clash() -> None:
    first, second = make().html(), make().html()
    assert "http" not in first and "<script" not in first
    ids = [Page(source).all("input")[0]["id"] for source in (first, second)]
    assert ids[0] != ids[1]


def test_a_frame_is_opaque_reproducible_and_closed() -> None:
    before = plt.get_fignums()
    frames = make(dpi=50)
    raw = frames.png(0.5)
    assert raw == frames.png(0.5) and raw != frames.png(1.0)
    assert plt.get_fignums() == before
    pixels = np.asarray(Image.open(io.BytesIO(raw)).convert("RGBA"))
    assert (pixels[..., 3] == 255).all() and (pixels[0, 0] == 255).all()
    assert b"matplotlib" not in raw.lower()


def test_the_widget_draws_on_demand_and_once_a_value() -> None:
    drawn = []

    def counted(value: float) -> Figure:
        drawn.append(value)
        return draw(value)

    box = slider(counted, VALUES, label="height", alt=alt, start=1).live()
    control, image = box.children
    assert control.value == 0.5 and drawn == [0.5]
    assert image.value == make().png(0.5)
    control.index = 2
    assert image.value == make().png(1.0)
    control.index = 1
    assert image.value == make().png(0.5)
    assert drawn == [0.5, 1.0]
    assert control.description == "height"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    import IPython.display

    def display(what: Any, raw: bool = False) -> None:
        seen.append((what, raw))

    monkeypatch.setattr(IPython.display, "display", display)
    return seen


def test_a_book_gets_the_page_with_a_picture_for_print(
    shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRLIB_BOOK", "1")
    frames = make(start=1)
    frames._ipython_display_()
    ((bundle, raw),) = shown
    assert raw and Page(bundle["text/html"]).all("img")
    assert base64.b64decode(bundle["image/png"]) == frames.png(0.5)
    assert bundle["text/plain"] == repr(frames)
    assert repr(frames) == "Frames(height <in units>: 0.0, 0.5, 1.0)"


def test_a_notebook_gets_the_widget(
    shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[Any] = []
    live = Frames.live

    def kept(frames: Frames) -> Any:
        boxes.append(live(frames))
        return boxes[-1]

    monkeypatch.setattr(Frames, "live", kept)
    make(start=1)._ipython_display_()
    ((bundle, raw),) = shown
    (box,) = boxes
    assert raw and box.children[0].value == 0.5
    assert bundle["application/vnd.jupyter.widget-view+json"] == {
        "version_major": 2,
        "version_minor": 0,
        "model_id": box.model_id,
    }


def saved(folder: Path) -> Any:
    """Run a notebook with a slider and return it as it is saved."""
    source = """
import matplotlib.pyplot as plt
from crlib import frames

def draw(value):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, value])
    return fig

frames.slider(draw, [1, 2], label="height", alt=lambda v: f"A line up to {v}.", start=1)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    options = {"timeout": 120, "kernel_name": "python3", "store_widget_state": False}
    nbclient.NotebookClient(
        notebook, resources={"metadata": {"path": str(folder)}}, **options
    ).execute()
    return notebook


def test_a_saved_notebook_shows_the_frame_without_its_widgets(tmp_path: Path) -> None:
    (output,) = saved(tmp_path).cells[0].outputs
    raw = base64.b64decode(output.data["image/png"])
    assert Image.open(io.BytesIO(raw)).size == (200, 100)
    assert output.data["text/plain"] == "A line up to 2."
    assert "application/vnd.jupyter.widget-view+json" in output.data


@pytest.mark.parametrize(
    ("values", "start", "message"),
    [([], 0, "at least one value"), ([1], 1, "start is 1"), ([1], -1, "start is -1")],
)
def test_a_slider_without_its_start_is_refused(
    values: list[int], start: int, message: str
) -> None:
    never: Callable[[Any], Any] = lambda value: 1 / 0  # noqa: E731
    with pytest.raises(ValueError, match=message):
        slider(never, values, label="", alt=never, start=start)
