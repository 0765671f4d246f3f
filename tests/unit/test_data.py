"""Data from package, disk and network: read exactly, or refused with what to do."""

import gzip
import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crlib import data
from crlib.data import DataError

REAL = os.environ.get("CRLIB_DATA")
RANDOM = np.random.default_rng(0)
FASHION = {
    "train-images-idx3-ubyte.gz": RANDOM.integers(0, 256, (6, 28, 28), np.uint8),
    "train-labels-idx1-ubyte.gz": np.array([0, 1, 2, 9, 8, 7], np.uint8),
    "t10k-images-idx3-ubyte.gz": RANDOM.integers(0, 256, (4, 28, 28), np.uint8),
    "t10k-labels-idx1-ubyte.gz": np.array([3, 4, 5, 6], np.uint8),
}
FIRST = next(iter(FASHION))
CIFAR = "cifar-10-binary.tar.gz"


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def cifar_records(n: int, seed: int) -> np.ndarray:
    records = np.random.default_rng(seed).integers(0, 256, (n, 3073), np.uint8)
    records[:, 0] = np.arange(n) % 10
    return records


def cifar_archive(
    members: dict[str, bytes], folder: str = "cifar-10-batches-bin"
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


BATCHES = {
    **{f"data_batch_{k}.bin": cifar_records(10, k).tobytes() for k in range(1, 6)},
    "test_batch.bin": cifar_records(10, 6).tobytes(),
}
FILES = {name: idx(array) for name, array in FASHION.items()}
FILES[CIFAR] = cifar_archive(BATCHES)
FINE = {
    part: np.concatenate([np.full((n, 1), 7, np.uint8), cifar_records(n, seed)], axis=1)
    for part, n, seed in (("train", 10, 7), ("test", 5, 8))
}
HUNDRED = cifar_archive(
    {f"{part}.bin": records.tobytes() for part, records in FINE.items()},
    "cifar-100-binary",
)


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}


def change(monkeypatch: pytest.MonkeyPatch, key: str, **entries: object) -> None:
    """Let a set come from elsewhere, or have other checksums."""
    monkeypatch.setitem(data.SETS, key, replace(data.SETS[key], **entries))


def expect(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """Let the checksums be those of ``files``."""
    known = digests(files)
    change(monkeypatch, "fashion_mnist", files={n: known[n] for n in FASHION})
    change(monkeypatch, "cifar10", files={CIFAR: known[CIFAR]})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, FILES)


def fill(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


class Site:
    """A web site on this machine with a few ways to misbehave."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.ranges = True
        self.cut: int | None = None
        self.status = 200
        self.asked: list[tuple[str, str | None]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, wanted = self.path[1:], self.headers.get("Range")
                site.asked.append((name, wanted))
                if site.status != 200 or name not in site.files:
                    return self.send_error(site.status if site.status != 200 else 404)
                raw = site.files[name]
                start = 0
                if wanted and site.ranges:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(raw):
                        return self.send_error(416)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(raw) - start))
                self.end_headers()
                stop = None if site.cut is None else start + site.cut
                self.wfile.write(raw[start:stop])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.home = f"http://127.0.0.1:{self.server.server_port}/"
        # Polling often lets the server stop at once.
        threading.Thread(
            target=self.server.serve_forever, args=(0.01,), daemon=True
        ).start()


@pytest.fixture
def site(small: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()
    for key in ("fashion_mnist", "cifar10"):
        change(monkeypatch, key, home=site.home)
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def check_fashion(found: data.Dataset) -> None:
    for part, x, y in (
        ("train", found.x_train, found.y_train),
        ("t10k", found.x_test, found.y_test),
    ):
        pixels = FASHION[f"{part}-images-idx3-ubyte.gz"]
        expected = torch.from_numpy(pixels.astype(np.float32) / 255)[:, None]
        assert x.equal(expected)
        assert y.tolist() == FASHION[f"{part}-labels-idx1-ubyte.gz"].tolist()


def check_cifar(found: data.Dataset) -> None:
    assert found.x_train.shape == (50, 3, 32, 32)
    assert found.x_test.shape == (10, 3, 32, 32)
    second = cifar_records(10, 2)
    expected = second[3, 1:].reshape(3, 32, 32).astype(np.float32) / 255
    assert np.array_equal(found.x_train[13].numpy(), expected)
    assert found.y_train.tolist() == [*range(10)] * 5


# The embedded sample.


def test_the_sample_is_balanced_and_needs_nothing() -> None:
    d = data.fashion_mnist_sample()
    assert d.x_train.shape == (8000, 1, 28, 28) and d.x_test.shape == (2000, 1, 28, 28)
    assert d.y_train.bincount().tolist() == [800] * 10
    assert d.y_test.bincount().tolist() == [200] * 10
    assert d.x_train.dtype == torch.float32 and d.y_train.dtype == torch.int64
    assert d.x_train.min() == 0 and d.x_train.max() == 1 and d.classes == 10
    assert d.fingerprint == data.fashion_mnist_sample().fingerprint


def test_the_sample_is_small_and_carries_its_licence() -> None:
    folder = resources.files("crlib.embedded")
    total = sum(len(item.read_bytes()) for item in folder.iterdir() if item.is_file())
    assert total < 5_000_000
    licence = (folder / "LICENSE").read_text()
    assert "MIT" in licence and "Zalando" in licence
    raw = io.BytesIO((folder / "fashion_mnist_sample.npz").read_bytes())
    with np.load(raw, allow_pickle=False) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.uint8)}


@pytest.mark.skipif(
    not (REAL and (Path(REAL) / "fashion-mnist" / FIRST).is_file()),
    reason="CRLIB_DATA does not hold fashion-mnist",
)
def test_the_sample_is_the_first_of_every_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CRLIB_DATA", str(REAL))
    full, part = data.fashion_mnist(), data.fashion_mnist_sample()
    assert len(full.x_train) == 60_000 and len(full.x_test) == 10_000
    for x, y, some_x, some_y, n in (
        (full.x_train, full.y_train, part.x_train, part.y_train, 800),
        (full.x_test, full.y_test, part.x_test, part.y_test, 200),
    ):
        first = torch.cat([(y == k).nonzero().squeeze(1)[:n] for k in range(10)])
        first = first.sort().values
        assert y[first].equal(some_y) and x[first].equal(some_x)


@pytest.mark.skipif(
    not (REAL and any((Path(REAL) / p).is_dir() for p in ("cifar10", "cifar-10"))),
    reason="CRLIB_DATA does not hold cifar10",
)
def test_the_full_cifar_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRLIB_DATA", str(REAL))
    d = data.cifar10()
    assert d.x_train.shape == (50_000, 3, 32, 32)
    assert d.y_train.bincount().tolist() == [5000] * 10
    assert d.y_test.bincount().tolist() == [1000] * 10


# Files on disk.


@pytest.mark.parametrize("folder", [".", "fashion-mnist", "fashion_mnist"])
def test_original_files_are_found_under_the_names_people_use(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    fill(tmp_path / folder)
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    check_fashion(data.fashion_mnist(progress=False))


@pytest.mark.parametrize("folder", [".", "cifar10", "cifar-10", "cifar-10-batches-bin"])
def test_the_binary_archive_is_found_under_the_names_people_use(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    fill(tmp_path / folder)
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    check_cifar(data.cifar10(progress=False))


def test_a_folder_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRLIB_DATA", "/nowhere/at/all")
    for load in (data.fashion_mnist, data.cifar10):
        with pytest.raises(DataError, match="/nowhere/at/all, which is not a folder"):
            load()


@pytest.mark.parametrize("harm", [lambda raw: raw[:-9], lambda raw: raw + b"\0"])
def test_a_file_of_the_user_that_is_damaged_is_named_and_kept(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[bytes], bytes],
) -> None:
    spoilt = harm(FILES[FIRST])
    fill(tmp_path, FILES | {FIRST: spoilt})
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"{FIRST} is damaged.*fetch it again"):
        data.fashion_mnist()
    assert (tmp_path / FIRST).read_bytes() == spoilt


def flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return (
        raw[:middle]
        + bytes(255 - b for b in raw[middle : middle + 40])
        + raw[middle + 40 :]
    )


BROKEN_IDX = {
    "not gzip": b"hello",
    "empty": b"",
    "truncated": FILES[FIRST][:-20],
    "flipped bytes": flipped(FILES[FIRST]),
    "no header": gzip.compress(b"\0\0"),
    "another type": gzip.compress(b"\0\0\x0d\x01" + (1).to_bytes(4, "big") + b"abcd"),
    "too short": gzip.compress(b"\0\0\x08\x01" + (9).to_bytes(4, "big") + b"abcd"),
}


@pytest.mark.parametrize("name", BROKEN_IDX)
def test_a_broken_idx_file_is_refused_even_with_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = FILES | {FIRST: BROKEN_IDX[name]}
    expect(monkeypatch, files)
    fill(tmp_path, files)
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="(?s)is damaged .*delete it and try again"):
        data.fashion_mnist()


def a_folder_in_place_of_a_batch() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    return out.getvalue()


BROKEN_CIFAR = {
    "not tar": b"hello",
    "truncated": FILES[CIFAR][: len(FILES[CIFAR]) // 2],
    "flipped bytes": flipped(FILES[CIFAR]),
    "a batch is missing": cifar_archive({"test_batch.bin": BATCHES["test_batch.bin"]}),
    "a batch is short": cifar_archive(BATCHES | {"data_batch_3.bin": b"1" * 3072}),
    "a batch is empty": cifar_archive(BATCHES | {"test_batch.bin": b""}),
    "a batch is a folder": a_folder_in_place_of_a_batch(),
}


@pytest.mark.parametrize("name", BROKEN_CIFAR)
def test_a_broken_archive_is_refused_even_with_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = FILES | {CIFAR: BROKEN_CIFAR[name]}
    expect(monkeypatch, files)
    fill(tmp_path, files)
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="(?s)is damaged .*delete it and try again"):
        data.cifar10()


# CIFAR-100 goes the same ways.


def test_the_hundred_classes_are_the_fine_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = {"cifar-100-binary.tar.gz": HUNDRED}
    fill(tmp_path / "cifar100", archive)
    change(monkeypatch, "cifar100", files=digests(archive))
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    found = data.cifar100()
    assert found.y_train.tolist() == list(range(10)) and found.name == "CIFAR-100"
    expected = FINE["test"][3, 2:].reshape(3, 32, 32).astype(np.float32) / 255
    assert np.array_equal(found.x_test[3].numpy(), expected)


# Trees of images.


def tree(folder: Path, classes: list[str], mode: str, side: int, ending: str) -> Path:
    for part, count in (("train", 2), ("test", 1)):
        for label, kind in enumerate(classes):
            (folder / part / kind).mkdir(parents=True)
            for i in range(count):
                colour = (20 * label + 5 * i) % 256
                fill_ = colour if mode == "L" else (colour, 0, 255 - colour)
                image = Image.new(mode, (side, side), fill_)
                if mode == "RGB" and ending == "png":
                    image.putpixel((5, 0), (colour, 255, 255 - colour))
                image.save(folder / part / kind / f"{i:04}.{ending}")
            (folder / part / kind / "notes.txt").write_text("not an image")
    return folder


def cifar_tree(folder: Path, ending: str = "png") -> Path:
    return tree(folder, data.SETS["cifar10"].classes, "RGB", 32, ending)


def test_the_hundred_classes_can_be_a_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = data.SETS["cifar100"].classes
    tree(tmp_path, classes, "RGB", 32, "png")
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    found = data.cifar100()
    assert found.y_test.tolist() == list(range(100))
    assert classes == sorted(classes) and found.source == "tree of images"


@pytest.mark.parametrize("folder", [".", "cifar10"])
def test_a_tree_of_images_is_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    cifar_tree(tmp_path / folder)
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    d = data.cifar10()
    assert d.x_train.shape == (20, 3, 32, 32) and d.x_test.shape == (10, 3, 32, 32)
    assert d.y_train.tolist() == [k for k in range(10) for _ in range(2)]
    red = (d.x_train[:, 0].mean((1, 2)) * 255).round().int().tolist()
    assert red == [20 * k + 5 * i for k in range(10) for i in range(2)]
    assert d.x_test[:, 1, 0, 5].tolist() == [1] * 10
    assert d.x_test[:, 1].sum((1, 2)).tolist() == [1] * 10
    assert d.source == "tree of images"


def test_a_tree_of_jpegs_and_of_grey_images_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / "fashion-mnist", data.SETS["fashion_mnist"].classes, "L", 28, "png")
    cifar_tree(tmp_path / "cifar10", "jpg")
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    grey = data.fashion_mnist()
    assert grey.x_train.shape == (20, 1, 28, 28)
    torch.testing.assert_close(grey.x_test[:, 0, 0, 0] * 255, 20.0 * torch.arange(10))
    blue = data.cifar10().x_test[:, 2].mean((1, 2)) * 255
    torch.testing.assert_close(blue, 255 - 20.0 * torch.arange(10), atol=4, rtol=0)


def spoil_classes(folder: Path) -> None:
    (folder / "train" / "cat").rename(folder / "train" / "lion")


def spoil_emptied(folder: Path) -> None:
    for file in (folder / "test" / "dog").iterdir():
        file.unlink()


def spoil_image(folder: Path) -> None:
    (folder / "train" / "ship" / "0001.png").write_bytes(b"not an image")


def spoil_half(folder: Path) -> None:
    file = folder / "train" / "ship" / "0001.png"
    file.write_bytes(file.read_bytes()[:60])


def spoil_size(folder: Path) -> None:
    Image.new("RGB", (31, 32)).save(folder / "train" / "frog" / "0000.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_classes, "lion.*may point at another data set"),
        (spoil_emptied, "dog holds no .png or .jpg"),
        (spoil_image, "0001.png is not a readable image"),
        (spoil_half, "0001.png is not a readable image"),
        (spoil_size, "0000.png is 31 x 32 pixels; CIFAR-10 has 32 x 32"),
    ],
)
def test_a_tree_that_is_not_the_data_set_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(cifar_tree(tmp_path))
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=message):
        data.cifar10()


# Downloads.


def test_a_download_is_read_and_kept(site: Site, cache: Path) -> None:
    check_fashion(data.fashion_mnist(progress=False))
    assert [name for name, _ in site.asked] == list(FASHION)
    check_fashion(data.fashion_mnist(progress=True))
    assert len(site.asked) == 4
    assert {p.name for p in cache.iterdir()} == set(FASHION)
    check_cifar(data.cifar10(progress=True))


def test_a_user_folder_without_the_file_falls_back_to_the_download(
    site: Site, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("CRLIB_DATA", str(tmp_path / "mine"))
    check_fashion(data.fashion_mnist(progress=False))
    assert not list((tmp_path / "mine").iterdir())


def refused(cache: Path) -> str:
    """Ask for the archive, expect a refusal with its cure and nothing half-written."""
    with pytest.raises(DataError) as error:
        data.cifar10(progress=False)
    message = str(error.value)
    assert "CRLIB_DATA" in message and CIFAR in message and "try again" in message
    assert not (cache / CIFAR).exists()
    left = {p.name for p in cache.iterdir()} if cache.exists() else set()
    assert left <= {f"{CIFAR}.part"}
    return message


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_resumed(
    site: Site, cache: Path, ranges: bool
) -> None:
    site.cut, site.ranges = 100_000, ranges
    refused(cache)
    part = (cache / f"{CIFAR}.part").read_bytes()
    assert len(part) > 50_000 and FILES[CIFAR].startswith(part)
    site.cut = None
    check_cifar(data.cifar10(progress=False))
    assert site.asked[-1] == (CIFAR, f"bytes={len(part)}-")
    assert {p.name for p in cache.iterdir()} == {CIFAR}


def test_a_download_can_break_off_many_times(site: Site, cache: Path) -> None:
    site.cut = 70_000
    refused(cache)
    refused(cache)
    check_cifar(data.cifar10(progress=False))
    assert len(site.asked) == 3


def test_a_part_that_is_already_whole_is_used(site: Site, cache: Path) -> None:
    fill(cache, {f"{CIFAR}.part": FILES[CIFAR]})
    check_cifar(data.cifar10(progress=False))


def test_another_file_than_expected_is_refused_and_not_kept(
    site: Site, cache: Path
) -> None:
    site.files[CIFAR] = FILES[CIFAR][:-1] + b"?"
    assert "checksum differs" in refused(cache)
    assert not list(cache.iterdir())
    site.files[CIFAR] = FILES[CIFAR]
    check_cifar(data.cifar10(progress=False))


def test_a_part_of_another_file_does_not_spoil_the_next_try(
    site: Site, cache: Path
) -> None:
    fill(cache, {f"{CIFAR}.part": b"?" * 100})
    assert "checksum differs" in refused(cache)
    check_cifar(data.cifar10(progress=False))


def test_a_damaged_file_in_the_cache_is_fetched_again(site: Site, cache: Path) -> None:
    fill(cache, {CIFAR: b"damaged"})
    check_cifar(data.cifar10(progress=False))


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_site_that_refuses_is_reported(site: Site, cache: Path, status: int) -> None:
    site.status = status
    assert str(status) in refused(cache)


def test_a_site_out_of_reach_is_reported(
    small: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = f"http://127.0.0.1:{port}/"
    change(monkeypatch, "cifar10", home=home)
    assert home in refused(cache)


def test_a_cache_that_cannot_be_written_is_reported(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CRLIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="CRLIB_DATA"):
        data.cifar10(progress=False)
