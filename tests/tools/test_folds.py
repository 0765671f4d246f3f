"""What a reader sees open, and what folds under a bar."""

import pytest

from book._tools import folds


@pytest.mark.parametrize(
    ("source", "tags", "name"),
    [
        ("import torch\nSIZE = 3", ["setup"], folds.SETUP),
        ("fig, ax = plt.subplots()\nax.plot(x)", [], folds.FIGURE),
        ("def draw(ax):\n    ax.plot(x)", ["setup"], folds.FIGURE),
        ("frames.slider(picture, [1, 2])", [], folds.SLIDER),
        ("glue('gap', interval(gap))", [], folds.NUMBERS),
        ("claim('It grows.', interval(gap).above(0))", ["claim"], folds.NUMBERS),
        ("def five(way):\n    return studies.runs(table, way=way)", [], folds.NUMBERS),
        ("for k in ks:\n    print(k, error(k))", [], folds.TABLE),
        ("assert low <= high", ["check-thm-sharp"], folds.CHECK),
        ("net = train.fit(net, photos).model", [], None),
        ("def step(z, g):\n    return z + g.sign()", ["setup"], None),
        ("claim('It fails.', wrong > 0.5)", ["failure"], None),
        ("exercises.check(ch01.gain, gain)", ["exercise", "ex-gain"], None),
        ("fig, ax = plt.subplots()", [folds.OPEN], None),
        ("%pip install crlib", [], None),
        ("", [], None),
    ],
)
def test_a_cell_folds_by_what_it_does(
    source: str, tags: list[str], name: str | None
) -> None:
    assert folds.bar(source, tags) == name


def test_a_numbered_figure_folds_whatever_draws_it() -> None:
    assert folds.bar("show(images)", [], figure=True) == folds.FIGURE
