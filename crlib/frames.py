"""Sliders: precomputed frames in a page, live widgets where a kernel is there.

A page of the book has no kernel, so a widget that asks one for its next picture is
dead there. :func:`slider` draws every frame once and emits plain HTML that works from
a file, by keyboard, without any script library. In a notebook it is an ipywidgets
slider that draws on demand.
"""

import base64
import html
import io
import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

__all__ = ["Frames", "slider"]

_SCRIPT = (
    "const box=this.closest('.cr-frames'),k=+this.value;"
    "box.querySelectorAll('img').forEach((m,i)=>{m.hidden=i!==k});"
    "const t=JSON.parse(box.dataset.values)[k];"
    "box.querySelector('output').value=t;"
    "this.setAttribute('aria-valuetext',t)"
)
# As many characters under the track as a phone has room for.
_TICKS = 40


@dataclass(frozen=True, repr=False)
class Frames:
    """A picture that depends on one value, drawn once for every value.

    Made by :func:`slider`. In a page it shows itself as HTML (a labelled range input
    over the frames), in a notebook as a widget; in print, and wherever a saved notebook
    is read without its widgets, as the PNG of the start frame with its text.
    """

    draw: Callable[[Any], Figure]
    values: Sequence[Any]
    label: str
    alt: Callable[[Any], str]
    start: int
    fmt: Callable[[Any], str] = str
    dpi: int = 100

    def png(self, value: Any) -> bytes:
        """Draw the frame for ``value`` and return it as a PNG with opaque ground."""
        figure = self.draw(value)
        buffer = io.BytesIO()
        # A fixed size and no tight box: every frame has the same extent, so the
        # picture does not jump as the slider moves. No Software entry: the bytes
        # depend on the picture only.
        figure.savefig(
            buffer,
            format="png",
            dpi=self.dpi,
            facecolor="white",
            metadata={"Software": None},
        )
        plt.close(figure)
        return buffer.getvalue()

    def html(self) -> str:
        """Return the slider as a fragment of HTML that needs nothing else.

        Raises:
            ValueError: the alternative text of a frame says no value, or two frames
                have the same.
        """
        name = f"cr-frames-{uuid.uuid4().hex[:8]}"
        texts = [self.fmt(v) for v in self.values]
        images = "".join(
            f'<img src="data:image/png;base64,{base64.b64encode(self.png(v)).decode()}"'
            f' alt="{html.escape(said)}"{"" if i == self.start else " hidden"}>'
            for i, (v, said) in enumerate(zip(self.values, self.said(), strict=True))
        )
        return (
            f'<div class="cr-frames" data-values="{html.escape(json.dumps(texts))}">'
            f'<label for="{name}">{html.escape(self.label)}</label> '
            f'<output for="{name}">{html.escape(texts[self.start])}</output>'
            f'<input id="{name}" type="range" min="0" max="{len(texts) - 1}" step="1"'
            f' value="{self.start}" autocomplete="off"'
            f' aria-valuetext="{html.escape(texts[self.start])}"'
            f' oninput="{_SCRIPT}">'
            f'<div class="cr-ticks" aria-hidden="true">{self.ticks(texts)}</div>'
            f"<div>{images}</div></div>"
        )

    def said(self) -> list[str]:
        """Return the alternative text of each frame; raise if one tells nothing."""
        said = [self.alt(value) for value in self.values]
        for text in said:
            if said.count(text) > 1 or not re.search(r"\d", text):
                raise ValueError(
                    f"The frame of a slider says {text!r}. Let alt(value) say what is"
                    " to be seen at this value, with the numbers: no two frames alike."
                )
        return said

    def ticks(self, texts: Sequence[str]) -> str:
        """Return a tick for each value, with its text where there is room for all."""
        room = sum(len(text) + 2 for text in texts) <= _TICKS
        named = {0, self.start, len(texts) - 1}
        return "".join(
            f"<span>{html.escape(text) if room or i in named else ''}</span>"
            for i, text in enumerate(texts)
        )

    def live(self) -> Any:
        """Return an ipywidgets slider that redraws on demand (needs a kernel)."""
        import ipywidgets

        image = ipywidgets.Image(format="png")
        control = ipywidgets.SelectionSlider(
            options=[(self.fmt(v), v) for v in self.values],
            value=self.values[self.start],
            description=self.label,
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "min(40em, 100%)"},
        )
        drawn: dict[int, bytes] = {}

        def show(_: object = None) -> None:
            key = control.index
            if key not in drawn:
                drawn[key] = self.png(self.values[key])
            image.value = drawn[key]

        control.observe(show, names="value")
        show()
        return ipywidgets.VBox([control, image])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        start = self.values[self.start]
        if os.environ.get("CRLIB_BOOK"):
            png = base64.b64encode(self.png(start)).decode()
            bundle: dict[str, object] = {
                "text/html": self.html(),
                "image/png": png,
                "text/plain": repr(self),
            }
            display(bundle, raw=True)
            return
        # Written out, since what ipywidgets shows of itself, 7 as 8, has no picture:
        # who reads a saved notebook without its widgets would find an empty space.
        box = self.live()
        _, image = box.children
        bundle = {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": box.model_id,
            },
            "image/png": base64.b64encode(image.value).decode(),
            "text/plain": self.alt(start),
        }
        display(bundle, raw=True)

    def __repr__(self) -> str:
        return f"Frames({self.label}: {', '.join(map(self.fmt, self.values))})"


def slider(
    draw: Callable[[Any], Figure],
    values: Sequence[Any],
    *,
    label: str,
    alt: Callable[[Any], str],
    start: int,
    fmt: Callable[[Any], str] = str,
    dpi: int = 100,
) -> Frames:
    """Return a picture with a slider over ``values``.

    Args:
        draw: takes one value, returns a matplotlib figure.
        values: what the slider runs over, in order.
        label: the slider's visible name, with the unit.
        alt: takes one value, returns the frame's alternative text, with the numbers
            that are to be seen.
        start: index of the frame shown first, and in print: one that tells something.
        fmt: takes one value, returns the text shown beside the slider.
        dpi: resolution of the frames.

    Raises:
        ValueError: no values, or ``start`` is not an index of them.
    """
    if not len(values):
        raise ValueError("A slider needs at least one value.")
    if not 0 <= start < len(values):
        raise ValueError(f"start is {start}, and there are {len(values)} values.")
    return Frames(draw, list(values), label, alt, start, fmt, dpi)
