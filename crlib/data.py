"""Data sets as tensors with inputs in [0, 1]: generated, embedded, or from disk.

A generated set and the embedded Fashion-MNIST sample need nothing. The full sets are
found in the folder named by the environment variable ``CRLIB_DATA``, or downloaded
once from their homes, with a checksum, when asked for. Nothing is unpickled.
"""

import gzip
import hashlib
import math
import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "DataError",
    "Dataset",
    "cifar10",
    "fashion_mnist",
    "fashion_mnist_sample",
    "gaussian_classes",
    "linear_teacher",
    "sign_cube",
]


class DataError(RuntimeError):
    """A data set is absent, unreachable or damaged; the message says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Inputs in [0, 1] and integer labels.

    Attributes:
        x_train: ``(N, ...)`` float32.
        y_train: ``(N,)`` int64.
        x_test: ``(M, ...)`` float32.
        y_test: ``(M,)`` int64.
        name: of the data set.
        source: where it came from.
        fingerprint: twelve hexadecimal digits that change with any pixel or label.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    name: str
    source: str
    fingerprint: str

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return int(torch.cat([self.y_train, self.y_test]).max()) + 1

    def subset(self, n_train: int, n_test: int, *, seed: int = 0) -> "Dataset":
        """Return a random part, with a fingerprint of its own.

        Raises:
            ValueError: more samples are asked for than there are.
        """
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for n, x, y in (
            (n_train, self.x_train, self.y_train),
            (n_test, self.x_test, self.y_test),
        ):
            if not 0 < n <= len(x):
                raise ValueError(f"{n} samples asked for: choose from 1 to {len(x)}.")
            rows = torch.randperm(len(x), generator=generator)[:n]
            parts += [x[rows], y[rows]]
        return _dataset(*parts, name=self.name, source=f"part of {self.source}")

    def to(self, device: str | torch.device) -> "Dataset":
        """Return the same data on ``device``."""
        return replace(
            self,
            x_train=self.x_train.to(device),
            y_train=self.y_train.to(device),
            x_test=self.x_test.to(device),
            y_test=self.y_test.to(device),
        )


def _dataset(
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    *,
    name: str,
    source: str,
) -> Dataset:
    digest = hashlib.sha256()
    for part in (x_train, y_train, x_test, y_test):
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
        digest.update(part.contiguous().numpy().tobytes())
    return Dataset(
        x_train, y_train, x_test, y_test, name, source, digest.hexdigest()[:12]
    )


def _images(x: np.ndarray) -> Tensor:
    """Turn uint8 ``(N, H, W)`` or ``(N, C, H, W)`` into float32 in [0, 1] with C."""
    tensor = torch.from_numpy(x.astype(np.float32) / 255)
    return tensor[:, None] if tensor.ndim == 3 else tensor


def _labels(y: np.ndarray) -> Tensor:
    return torch.from_numpy(y.astype(np.int64))


def linear_teacher(
    n_train: int,
    n_test: int,
    dim: int,
    *,
    teacher: Tensor | None = None,
    scale: float = 0.1,
    gap: float = 0.0,
    seed: int = 0,
) -> Dataset:
    r"""Return points of a Gaussian labelled by a hyperplane.

    :math:`x = \tfrac12 + \mathrm{scale} \cdot g`, :math:`g \sim N(0, I)`, clipped to
    [0, 1]; :math:`y = 1` where :math:`w^\top (x - \tfrac12) > 0`.

    Args:
        n_train: number of training points.
        n_test: number of test points.
        dim: d.
        teacher: ``(d,)`` normal w of the hyperplane, not zero; None draws one
            uniformly from the sphere. Its length does not matter.
        scale: standard deviation of a coordinate; at 0.1 clipping has probability
            below one in a million.
        gap: points closer to the hyperplane than this (l2, input units) are pushed
            away along w until they are at least this far.
        seed: of points and teacher.

    Raises:
        ValueError: a teacher that is zero or of the wrong shape, or a size below 1.
    """
    if min(n_train, n_test, dim) < 1 or scale <= 0 or gap < 0:
        raise ValueError("Sizes and scale must be positive, gap not negative.")
    generator = torch.Generator().manual_seed(seed)
    if teacher is None:
        teacher = torch.randn(dim, generator=generator)
    if teacher.shape != (dim,) or not teacher.any():
        raise ValueError(f"teacher must be a vector ({dim},) that is not zero.")
    w = teacher / torch.linalg.vector_norm(teacher)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = scale * torch.randn(n, dim, generator=generator)
        side = (x @ w).sign() + ((x @ w) == 0)
        short = (gap - side * (x @ w)).clamp_min(0)
        x = (0.5 + x + (short * side)[:, None] * w).clamp(0, 1)
        return x, ((x - 0.5) @ w > 0).long()

    return _dataset(
        *draw(n_train), *draw(n_test), name="linear teacher", source="generated"
    )


def gaussian_classes(
    n_train: int,
    n_test: int,
    means: Tensor,
    *,
    noise: float = 0.05,
    seed: int = 0,
) -> Dataset:
    r"""Return Gaussian clouds, one a class, of equal size up to rounding.

    :math:`x = \mu_y + \mathrm{noise} \cdot g`, :math:`g \sim N(0, I)`, clipped to
    [0, 1].

    Args:
        n_train: number of training points.
        n_test: number of test points.
        means: ``(K, d)`` class means in [0, 1], K at least 2.
        noise: standard deviation of a coordinate, in input units.
        seed: of the points.

    Raises:
        ValueError: means outside [0, 1], or fewer than two.
    """
    if means.ndim != 2 or len(means) < 2 or not ((means >= 0) & (means <= 1)).all():
        raise ValueError("means must be (K, d) in [0, 1] with at least two classes.")
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(n) % len(means)
        y = y[torch.randperm(n, generator=generator)]
        g = torch.randn(n, means.shape[1], generator=generator)
        return (means[y].float() + noise * g).clamp(0, 1), y

    return _dataset(
        *draw(n_train), *draw(n_test), name="Gaussian classes", source="generated"
    )


def sign_cube(dim: int, *, n_test: int = 1000, seed: int = 0) -> Dataset:
    r"""Return the corners of a random parallelepiped, labelled by their last sign.

    :math:`x = \tfrac12 + s A z` for all :math:`z \in \{-1, 1\}^d` with Gaussian A, and
    :math:`y = 1` where :math:`z_d = 1` (Gao et al. 2026, theorem 5). The number s is
    the largest that keeps all corners in [0, 1].

    Args:
        dim: d, from 2 to 16: there are :math:`2^d` training points.
        n_test: the test part repeats that many of the corners, drawn at random.
        seed: of A and the test part.

    Raises:
        ValueError: ``dim`` out of range.
    """
    if not 2 <= dim <= 16:
        raise ValueError(f"dim is {dim}: choose it from 2 to 16 (2**dim corners).")
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(dim, dim, generator=generator)
    bits = (torch.arange(2**dim)[:, None] >> torch.arange(dim)) & 1
    corners = (2 * bits - 1).float() @ a.T
    x = (0.5 + 0.5 * corners / corners.abs().max()).clamp(0, 1)
    y = bits[:, -1].clone()
    rows = torch.randint(len(x), (n_test,), generator=generator)
    return _dataset(x, y, x[rows], y[rows], name="sign cube", source="generated")


def fashion_mnist_sample() -> Dataset:
    """Return the embedded part of Fashion-MNIST: 8,000 training, 2,000 test images.

    800 training and 200 test images a class, ``(N, 1, 28, 28)``. No download.
    """
    file = resources.files("crlib.embedded") / "fashion_mnist_sample.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    return _dataset(
        _images(parts["x_train"]),
        _labels(parts["y_train"]),
        _images(parts["x_test"]),
        _labels(parts["y_test"]),
        name="Fashion-MNIST sample",
        source="embedded in crlib",
    )


_FASHION_HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_FILES = {
    "train-images-idx3-ubyte.gz": (
        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
    ),
    "train-labels-idx1-ubyte.gz": (
        "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
    ),
}
_CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
_CIFAR_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_CIFAR_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
_FASHION_CLASSES = (
    "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot".split()
)


def fashion_mnist(*, progress: bool = True) -> Dataset:
    """Return all of Fashion-MNIST: 60,000 training and 10,000 test images.

    Args:
        progress: show a progress bar while downloading.

    Raises:
        DataError: the data is absent and unreachable, or damaged.
    """
    folder = _user_folder("fashion-mnist", "fashion_mnist")
    if folder is not None and (tree := _tree(folder)) is not None:
        return _read_tree(tree, "Fashion-MNIST", _FASHION_CLASSES, (28, 28), "L")
    arrays = [
        _read_idx(_obtain(name, _FASHION_HOME, digest, folder, progress))
        for name, digest in _FASHION_FILES.items()
    ]
    return _dataset(
        _images(arrays[0]),
        _labels(arrays[1]),
        _images(arrays[2]),
        _labels(arrays[3]),
        name="Fashion-MNIST",
        source="original files",
    )


def cifar10(*, progress: bool = True) -> Dataset:
    """Return CIFAR-10: 50,000 training and 10,000 test images ``(N, 3, 32, 32)``.

    The binary archive is read, not the pickled one. A tree of images is read as it is:
    recompressed copies are close to the original and not equal to it, which the
    fingerprint shows.

    Args:
        progress: show a progress bar while downloading.

    Raises:
        DataError: the data is absent and unreachable, or damaged.
    """
    folder = _user_folder("cifar10", "cifar-10", "cifar-10-batches-bin")
    if folder is not None and (tree := _tree(folder)) is not None:
        return _read_tree(tree, "CIFAR-10", _CIFAR_CLASSES, (32, 32), "RGB")
    archive = _obtain(_CIFAR_ARCHIVE, _CIFAR_HOME, _CIFAR_SHA256, folder, progress)
    parts = []
    try:
        with tarfile.open(archive) as tar:
            for k in (1, 2, 3, 4, 5):
                parts.append(_member(tar, f"data_batch_{k}.bin"))
            test = _member(tar, "test_batch.bin")
    except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
        raise DataError(
            f"{archive} is damaged ({error}): delete it and try again."
        ) from error
    train = np.concatenate(parts)
    return _dataset(
        _images(train[:, 1:].reshape(-1, 3, 32, 32)),
        _labels(train[:, 0]),
        _images(test[:, 1:].reshape(-1, 3, 32, 32)),
        _labels(test[:, 0]),
        name="CIFAR-10",
        source="original binary archive",
    )


def _member(tar: tarfile.TarFile, name: str) -> np.ndarray:
    stream = tar.extractfile(f"cifar-10-batches-bin/{name}")
    if stream is None:
        raise KeyError(f"{name} is not a file")
    raw = np.frombuffer(stream.read(), np.uint8)
    if len(raw) == 0 or len(raw) % 3073:
        raise KeyError(f"{name} has {len(raw)} bytes, not a multiple of 3073")
    return raw.reshape(-1, 3073)


def _user_folder(*names: str) -> Path | None:
    """Return the folder under ``CRLIB_DATA`` that holds this set, if one is named."""
    root = os.environ.get("CRLIB_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise DataError(f"CRLIB_DATA names {root}, which is not a folder.")
    for name in names:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    return Path(root)


def _tree(folder: Path) -> Path | None:
    """Return ``folder`` if it holds ``train/<class>/`` and ``test/<class>/``."""
    both = all((folder / part).is_dir() for part in ("train", "test"))
    return folder if both else None


def _read_tree(
    folder: Path, name: str, classes: Sequence[str], size: tuple[int, int], mode: str
) -> Dataset:
    from PIL import Image, UnidentifiedImageError

    parts: list[Tensor] = []
    for part in ("train", "test"):
        found = sorted(p.name for p in (folder / part).iterdir() if p.is_dir())
        if found != sorted(classes):
            raise DataError(
                f"{folder / part} holds the classes {found}; {name} has"
                f" {sorted(classes)}. CRLIB_DATA may point at another data set."
            )
        images, labels = [], []
        for label, kind in enumerate(classes):
            files = sorted((folder / part / kind).iterdir())
            files = [f for f in files if f.suffix.lower() in (".png", ".jpg", ".jpeg")]
            if not files:
                raise DataError(f"{folder / part / kind} holds no .png or .jpg files.")
            for file in files:
                try:
                    with Image.open(file) as image:
                        pixels = np.asarray(image.convert(mode))
                except (UnidentifiedImageError, OSError) as error:
                    raise DataError(f"{file} is not a readable image.") from error
                if pixels.shape[:2] != size:
                    raise DataError(
                        f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels;"
                        f" {name} has {size[1]} x {size[0]}."
                    )
                images.append(pixels)
                labels.append(label)
        stack = np.stack(images)
        parts.append(_images(stack if mode == "L" else stack.transpose(0, 3, 1, 2)))
        parts.append(_labels(np.array(labels)))
    return _dataset(*parts, name=name, source="tree of images")


def _read_idx(file: Path) -> np.ndarray:
    try:
        raw = gzip.decompress(file.read_bytes())
        shape = [
            int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])
        ]
        if raw[:3] != b"\0\0\x08" or math.prod(shape) != len(raw) - 4 - 4 * raw[3]:
            raise ValueError("the header does not fit the length")
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(
            f"{file} is damaged ({error}): delete it and try again."
        ) from error
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def _obtain(
    name: str, home: str, sha256: str, folder: Path | None, progress: bool
) -> Path:
    """Return the path of an original file: the user's, the cached, or downloaded."""
    import pooch
    import requests

    if folder is not None and (folder / name).is_file():
        if pooch.file_hash(str(folder / name)) != sha256:
            raise DataError(
                f"{folder / name} is damaged or not the original (its checksum"
                " differs): fetch it again."
            )
        return folder / name
    cache = Path(os.environ.get("CRLIB_CACHE") or pooch.os_cache("crlib"))
    try:
        path = pooch.retrieve(
            home + name,
            known_hash=f"sha256:{sha256}",
            fname=name,
            path=cache,
            downloader=_Resumable(cache / f"{name}.part", progress),
        )
    except (requests.RequestException, OSError, ValueError) as error:
        damaged = isinstance(error, ValueError) and not isinstance(error, OSError)
        if damaged:
            (cache / f"{name}.part").unlink(missing_ok=True)
        reason = "its checksum differs" if damaged else f"{error}"
        raise DataError(
            f"{name} could not be had from {home} ({reason}). Three ways to get it:"
            " (1) connect to the network and try again; a download that broke off is"
            f" resumed. (2) Fetch {home}{name} elsewhere, put it into a folder and name"
            " that folder in the environment variable CRLIB_DATA. (3) Put the images"
            " there as train/<class>/*.png and test/<class>/*.png."
        ) from error
    return Path(path)


class _Resumable:
    """A downloader for pooch that goes on where a broken download stopped."""

    def __init__(self, part: Path, progress: bool) -> None:
        self.part, self.progress = part, progress

    def __call__(self, url: str, output_file: Any, _: Any) -> None:
        import requests
        from tqdm.auto import tqdm

        self.part.parent.mkdir(parents=True, exist_ok=True)
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
            whole = answer.status_code == 416
            if not whole:
                answer.raise_for_status()
                have = have if answer.status_code == 206 else 0
                size = int(answer.headers.get("Content-Length", 0)) + have
                bar = tqdm(
                    total=size or None,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    desc=self.part.stem,
                    disable=not self.progress,
                )
                with bar, self.part.open("ab" if have else "wb") as out:
                    for chunk in answer.iter_content(1 << 16):
                        out.write(chunk)
                        bar.update(len(chunk))
                if size and self.part.stat().st_size < size:
                    raise requests.ConnectionError("the connection broke off")
        os.replace(self.part, output_file)
