"""Figures: a style that goes away again, series that differ in more than colour."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from crlib import figures
from crlib.claims import interval
from tests.unit.support import rng


@pytest.fixture(autouse=True)
def close() -> object:
    yield
    plt.close("all")


def test_the_style_holds_inside_the_block_only() -> None:
    before = dict(mpl.rcParams)
    with figures.style():
        assert mpl.rcParams["axes.spines.top"] is False
        assert mpl.rcParams["figure.facecolor"] == "white"
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
        assert tuple(cycle) == figures.COLOURS
    assert dict(mpl.rcParams) == before


def test_the_style_goes_away_after_an_error_too() -> None:
    before = dict(mpl.rcParams)
    with pytest.raises(KeyError), figures.style():
        raise KeyError
    assert dict(mpl.rcParams) == before


def test_the_style_stays_without_a_block() -> None:
    with mpl.rc_context():
        figures.style()
        assert mpl.rcParams["axes.spines.right"] is False


def test_series_differ_in_colour_marker_and_line() -> None:
    looks = [figures.series(i) for i in range(7)]
    for key in ("color", "marker", "linestyle"):
        assert len({str(look[key]) for look in looks}) == 7
    assert figures.series(7) == figures.series(0)


def test_a_band_is_the_mean_within_its_interval() -> None:
    runs = torch.randn(5, 3, generator=rng(0))
    _, ax = plt.subplots()
    figures.band(ax, [1, 2, 3], runs, label="runs", index=1)
    (line,) = ax.get_lines()
    marks = [interval(column) for column in runs.T.tolist()]
    np.testing.assert_allclose(line.get_ydata(), [m.mean for m in marks], rtol=1e-6)
    assert line.get_label() == "runs"
    assert to_rgb(line.get_color()) == to_rgb(figures.COLOURS[1])
    (area,) = ax.collections
    low, high = area.get_paths()[0].get_extents().intervaly
    assert low == pytest.approx(min(m.low for m in marks))
    assert high == pytest.approx(max(m.high for m in marks))


@pytest.mark.parametrize("relative", [True, False])
def test_a_spectrum_is_sorted_on_logarithmic_axes(relative: bool) -> None:
    v = torch.tensor([1.0, -4.0, 2.0])
    _, ax = plt.subplots()
    figures.spectrum(ax, {"a": v, "b": 2 * v}, relative=relative)
    first, second = ax.get_lines()
    scale = 4 if relative else 1
    assert first.get_ydata().tolist() == [4 / scale, 2 / scale, 1 / scale]
    assert second.get_ydata().tolist() == [
        (1 if relative else 2) * y for y in first.get_ydata()
    ]
    assert first.get_marker() != second.get_marker()
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ("largest" in ax.get_ylabel()) is relative
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts == ["a", "b"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_drawn_by_row_with_names_and_titles(channels: int) -> None:
    clean = torch.rand(4, channels, 5, 5, generator=rng(0))
    delta = 0.1 * torch.randn(4, 1, 5, 5, generator=rng(1))
    fig = figures.images(
        {"clean": clean, "change": delta},
        titles=["a", "b", "c", "d"],
        signed=["change"],
    )
    axes = np.array(fig.axes).reshape(2, 4)
    assert [ax.get_title() for ax in axes[0]] == ["a", "b", "c", "d"]
    assert [row[0].get_ylabel() for row in axes] == ["clean", "change"]
    shown = axes[0, 2].images[0].get_array()
    np.testing.assert_allclose(
        np.asarray(shown), clean[2].permute(1, 2, 0).squeeze(-1).numpy()
    )
    scales = {ax.images[0].get_clim() for ax in axes[1]}
    assert len(scales) == 1
    low, high = scales.pop()
    assert low == -high == pytest.approx(-float(delta.abs().max()))
    assert not len(axes[0, 0].get_xticks())


def test_a_row_of_no_change_can_be_drawn() -> None:
    fig = figures.images({"change": torch.zeros(2, 1, 3, 3)}, signed=["change"])
    assert fig.axes[0].images[0].get_clim() == (-1, 1)
