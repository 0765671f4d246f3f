"""Own data come in by one door: checked, described, with a fingerprint of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crlib import data, models, studies, train
from crlib.data import DataError
from tests.unit.test_data import tree

X = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def mine(**changed: Any) -> data.Dataset:
    parts = {"x_train": X[:4], "y_train": Y[:4], "x_test": X[4:], "y_test": Y[4:]}
    options = {k: changed.pop(k) for k in ("name", "source") if k in changed}
    return data.dataset(*(parts | changed).values(), **options)


def test_own_tensors_are_a_data_set_with_a_fingerprint() -> None:
    found = mine(name="squares", source="drawn by hand")
    assert found.x_train.equal(X[:4]) and found.y_test.equal(Y[4:])
    assert (found.name, found.source, found.classes) == ("squares", "drawn by hand", 3)
    assert found.fingerprint == mine().fingerprint and len(found.fingerprint) == 12
    smaller = found.subset(2, 1)
    assert smaller.fingerprint != found.fingerprint and len(smaller.x_test) == 1


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((1.5, 1), "n_train is 1.5: give a whole number"),
        ((2, "1"), "n_test is '1': give a whole number"),
        ((0, 1), "n_train is 0: at least 1"),
        ((2, -1), "n_test is -1: at least 1"),
        ((2, 3), "3 samples asked for: choose from 1 to 2"),
    ],
)
def test_a_part_has_a_whole_number_of_samples(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mine().subset(*counts)


@pytest.mark.parametrize("part", ["x_train", "x_test", "y_train", "y_test"])
def test_any_number_that_changes_changes_the_fingerprint(part: str) -> None:
    changed = getattr(mine(), part).clone()
    changed[0] = 1 - changed[0]
    assert mine(**{part: changed}).fingerprint != mine().fingerprint


def test_arrays_and_small_integers_are_taken() -> None:
    arrays = mine(x_train=X[:4].numpy(), y_train=Y[:4].numpy().astype(np.uint8))
    assert arrays.y_train.dtype == torch.int64
    assert arrays.fingerprint == mine().fingerprint
    wide = mine(x_train=X[:4].double(), x_test=X[4:].double())
    assert wide.x_train.dtype == torch.float64


def test_a_gradient_is_not_carried_along() -> None:
    assert not mine(x_train=X[:4].clone().requires_grad_()).x_train.requires_grad


LOADER = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": (255 * X[:4]).byte()}, r"x_train is torch.uint8.* x / 255"),
        ({"x_train": 255 * X[:4]}, r"x_train runs from .* inputs lie in \[0, 1\]"),
        ({"x_test": X[4:] - 0.5}, r"x_test runs from .* inputs lie in \[0, 1\]"),
        ({"x_train": X[:4] * torch.nan}, "x_train holds a NaN"),
        ({"x_train": X[:4].half()}, "x_train is torch.float16: give float32 or"),
        ({"x_train": X[0, 0, 0]}, "x_train is torch.float32 of shape"),
        ({"x_test": X[:0], "y_test": Y[:0]}, "x_test holds no sample"),
        ({"x_test": X[4:, :1]}, r"shape \(3, 4, 4\), a test input .*must be alike"),
        ({"x_test": X[4:].double()}, "must be alike"),
        ({"y_train": Y[:3]}, "one integer label .*each of the 4 samples"),
        ({"y_train": Y[:4].float()}, "y_train is torch.float32"),
        ({"y_train": Y[:4] - 1}, "y_train holds the label -1"),
        ({"y_test": torch.eye(3)[Y[4:]]}, "one integer label"),
        ({"x_train": LOADER}, "DataLoader and Tensor: give tensors or arrays"),
        ({"y_train": ["cat", "dog", "cat", "dog"]}, "Tensor and list: give tensors"),
    ],
)
def test_what_is_no_data_set_is_refused_with_what_to_do(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mine(**changed)


def test_a_data_set_shows_itself_in_a_line() -> None:
    shown = repr(mine(name="squares"))
    assert "\n" not in shown and len(shown) < 200
    for part in (
        "squares",
        "4 training",
        "2 test",
        "(3, 4, 4)",
        "3 classes",
        "float32",
    ):
        assert part in shown
    assert mine().fingerprint in shown


def test_training_says_which_door_to_take() -> None:
    model = models.MLP((48, 4, 3))
    for given in (LOADER, (X, Y), None):
        for fit in (train.fit, lambda m, d: train.fit_many([m], d)):
            with pytest.raises(ValueError, match="data is a .*give a Dataset.*dataset"):
                fit(model, given if fit is train.fit else [given])


def test_a_study_runs_again_when_own_data_change(tmp_path: Path) -> None:
    seen = []

    def study(found: data.Dataset) -> studies.Study:
        def run(config: dict[str, Any], device: str) -> dict[str, float]:
            seen.append(found.fingerprint)
            return {"mean": float(found.x_train.mean())}

        grids = {"quick": {"seed": [0]}, "full": {"seed": [0]}}
        return studies.Study("own", run, grids, fingerprint=lambda _: found.fingerprint)

    for given in (mine(), mine(), mine(x_train=1 - X[:4])):
        table = studies.sweep(study(given), {"seed": [0]}, tmp_path, progress=False)
        assert table["mean"].item() == pytest.approx(float(given.x_train.mean()))
    assert len(seen) == 2


# Folders of images.


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_folder_of_images_is_read(tmp_path: Path, mode: str, channels: int) -> None:
    folder = tree(tmp_path / "shades", ["light", "dark", "dull"], mode, 8, "png")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    found = data.from_folder(folder, mode=mode)
    assert found.x_train.shape == (6, channels, 8, 8)
    assert found.x_test.shape == (3, channels, 8, 8)
    # The classes in alphabetical order: dark, dull, light, made in another one.
    assert found.y_train.tolist() == [0, 0, 1, 1, 2, 2]
    red = (found.x_test[:, 0, 7, 7] * 255).round().int().tolist()
    assert red == [20, 40, 0]
    assert (found.name, found.source) == ("shades", "tree of images")
    assert found.fingerprint == data.from_folder(str(folder), mode=mode).fingerprint
    assert data.from_folder(folder, mode=mode, name="mine").name == "mine"


def test_the_classes_of_one_tree_take_turns(tmp_path: Path) -> None:
    for k, (kind, count) in enumerate((("a", 1), ("b", 3), ("c", 2))):
        (tmp_path / kind).mkdir()
        for i in range(count):
            file = tmp_path / kind / f"{i}.png"
            Image.new("L", (8, 8), 50 * k + i).save(file)
    x, y = data.class_folders(tmp_path, mode="L")
    assert y.tolist() == [0, 1, 2, 1, 2, 1]
    shades = (255 * x[:, 0, 0, 0]).round().int().tolist()
    assert shades == [0, 50, 100, 51, 101, 52]


def test_colours_become_grey_and_grey_becomes_colours(tmp_path: Path) -> None:
    folder = tree(tmp_path, ["a", "b"], "L", 8, "png")
    assert data.from_folder(folder).x_train.shape == (4, 3, 8, 8)
    assert data.from_folder(folder, mode="L").x_train.shape == (4, 1, 8, 8)


def test_an_image_of_sixteen_bits_does_not_become_white(tmp_path: Path) -> None:
    for kind, shade in (("dark", 1000), ("light", 21000)):
        (tmp_path / kind).mkdir(exist_ok=True)
        file = tmp_path / kind / "1.png"
        Image.fromarray(np.full((4, 4), shade, np.uint16)).save(file)
    for mode in ("L", "RGB"):
        with pytest.raises(DataError, match=r"dark.1\.png has more than 8 bits"):
            data.class_folders(tmp_path, mode=mode)
    # Saved with 8 they are what they were.
    for kind, shade in (("dark", 1000), ("light", 21000)):
        Image.new("L", (4, 4), shade // 256).save(tmp_path / kind / "1.png")
    shades = data.class_folders(tmp_path, mode="L")[0][:, 0, 0, 0]
    assert torch.allclose(shades, torch.tensor([1000.0, 21000.0]) / 65535, atol=1 / 255)


def drop(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.rename(f.with_name("else")), "train and test: put the images"),
        (lambda f: drop(f / "test" / "b"), "same ones"),
        (lambda f: [drop(f / part / "b") for part in ("train", "test")], "two or more"),
        (
            lambda f: [p.unlink() for p in (f / "train/a").glob("*.png")],
            "holds no .png",
        ),
        (lambda f: (f / "train/a/0000.png").write_text("?"), "not a readable image"),
        (
            lambda f: Image.new("L", (9, 8)).save(f / "test/b/0000.png"),
            "0000.png is 9 x 8 pixels; the first image has 8 x 8. .*resize",
        ),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_with_what_to_do(
    tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = tree(tmp_path / "mine", ["a", "b"], "L", 8, "png")
    spoil(folder)
    with pytest.raises(DataError, match=message):
        data.from_folder(folder)
    with pytest.raises(ValueError, match="mode is 'CMYK': choose one of RGB, L"):
        data.from_folder(folder, mode="CMYK")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        data.class_folders(tmp_path / "none")
