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
    "cifar100",
    "fashion_mnist",
    "fashion_mnist_sample",
    "gaussian_classes",
    "linear_teacher",
    "mnist",
    "sign_cube",
    "svhn",
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

    def double(self) -> "Dataset":
        """Return the same data in float64; a network trained on it follows.

        In float32 two processors round differently, one ReLU falls on the other side,
        and the paths of a training part; in float64 they agree to about ``1e-13``.
        The fingerprint stays: it names the data, not its precision.
        """
        return replace(self, x_train=self.x_train.double(), x_test=self.x_test.double())


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


def _gaussian(*shape: int, generator: torch.Generator) -> Tensor:
    """Draw in float64, which processors agree on, and round once to float32."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).float()


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
        teacher = _gaussian(dim, generator=generator)
    if teacher.shape != (dim,) or not teacher.any():
        raise ValueError(f"teacher must be a vector ({dim},) that is not zero.")
    # Sides and gaps in float64, which processors agree on; the points in float32.
    w = teacher.double() / torch.linalg.vector_norm(teacher.double())

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = scale * _gaussian(n, dim, generator=generator)
        inner = x.double() @ w
        side = inner.sign() + (inner == 0)
        short = (gap - side * inner).clamp_min(0)
        x = (0.5 + x + ((short * side)[:, None] * w).float()).clamp(0, 1)
        return x, ((x.double() - 0.5) @ w > 0).long()

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
        g = _gaussian(n, means.shape[1], generator=generator)
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
    a = _gaussian(dim, dim, generator=generator)
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
_MNIST_HOME = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
_SVHN_HOME = "http://ufldl.stanford.edu/housenumbers/"
_SVHN_FILES = {
    "train_32x32.mat": (
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
    ),
    "test_32x32.mat": (
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
    ),
}
_CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
_CIFAR_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_CIFAR100_ARCHIVE = "cifar-100-binary.tar.gz"
_CIFAR100_SHA256 = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
_CIFAR_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
_FASHION_CLASSES = (
    "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot".split()
)
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach
couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket
rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
turtle wardrobe whale willow_tree wolf woman worm
""".split()


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
    return _idx_set("Fashion-MNIST", _FASHION_HOME, _FASHION_FILES, folder, progress)


def mnist(*, progress: bool = True) -> Dataset:
    """Return MNIST: 60,000 training and 10,000 test images of digits.

    Args:
        progress: show a progress bar while downloading.

    Raises:
        DataError: the data is absent and unreachable, or damaged.
    """
    folder = _user_folder("mnist", "MNIST")
    if folder is not None and (tree := _tree(folder)) is not None:
        return _read_tree(tree, "MNIST", list("0123456789"), (28, 28), "L")
    # The files have the names of Fashion-MNIST's: a folder of its own in the cache.
    return _idx_set("MNIST", _MNIST_HOME, _MNIST_FILES, folder, progress, "mnist")


def _idx_set(
    name: str,
    home: str,
    files: dict[str, str],
    folder: Path | None,
    progress: bool,
    under: str = "",
) -> Dataset:
    paths = [_obtain(n, home, d, folder, progress, under) for n, d in files.items()]
    arrays = [_read_idx(path) for path in paths]
    return _dataset(
        _images(arrays[0]),
        _labels(arrays[1]),
        _images(arrays[2]),
        _labels(arrays[3]),
        name=name,
        source="original files",
    )


def svhn(*, progress: bool = True) -> Dataset:
    """Return SVHN, cropped: 73,257 training, 26,032 test digits ``(N, 3, 32, 32)``.

    Args:
        progress: show a progress bar while downloading.

    Raises:
        DataError: the data is absent and unreachable, or damaged.
    """
    from scipy.io import loadmat

    folder = _user_folder("svhn", "SVHN")
    if folder is not None and (tree := _tree(folder)) is not None:
        return _read_tree(tree, "SVHN", list("0123456789"), (32, 32), "RGB")
    parts = []
    for name, digest in _SVHN_FILES.items():
        file = _obtain(name, _SVHN_HOME, digest, folder, progress)
        try:
            held = loadmat(str(file))
            # The file calls the digit 0 ten.
            parts += [
                _images(held["X"].transpose(3, 2, 0, 1)),
                _labels(held["y"].ravel() % 10),
            ]
        # What scipy raises on a damaged file depends on where the damage is.
        except Exception as error:
            raise DataError(
                f"{file} is damaged ({error}): delete it and try again."
            ) from error
    return _dataset(*parts, name="SVHN", source="original files")


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
    train = [f"cifar-10-batches-bin/data_batch_{k}.bin" for k in (1, 2, 3, 4, 5)]
    return _cifar("CIFAR-10", archive, train, "cifar-10-batches-bin/test_batch.bin", 1)


def cifar100(*, progress: bool = True) -> Dataset:
    """Return CIFAR-100 with its hundred fine classes: 50,000 and 10,000 images.

    As :func:`cifar10`: the binary archive, or a tree of images.

    Args:
        progress: show a progress bar while downloading.

    Raises:
        DataError: the data is absent and unreachable, or damaged.
    """
    folder = _user_folder("cifar100", "cifar-100", "cifar-100-binary")
    if folder is not None and (tree := _tree(folder)) is not None:
        return _read_tree(tree, "CIFAR-100", _CIFAR100_CLASSES, (32, 32), "RGB")
    archive = _obtain(
        _CIFAR100_ARCHIVE, _CIFAR_HOME, _CIFAR100_SHA256, folder, progress
    )
    members = ["cifar-100-binary/train.bin"], "cifar-100-binary/test.bin"
    return _cifar("CIFAR-100", archive, *members, 2)


def _cifar(
    name: str, archive: Path, train: Sequence[str], test: str, labels: int
) -> Dataset:
    """Read records of some label bytes, the last one used, and an image."""
    try:
        with tarfile.open(archive) as tar:
            read = [_member(tar, member, labels + 3072) for member in (*train, test)]
    except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
        raise DataError(
            f"{archive} is damaged ({error}): delete it and try again."
        ) from error
    parts = []
    for records in (np.concatenate(read[:-1]), read[-1]):
        parts += [
            _images(records[:, labels:].reshape(-1, 3, 32, 32)),
            _labels(records[:, labels - 1]),
        ]
    return _dataset(*parts, name=name, source="original binary archive")


def _member(tar: tarfile.TarFile, name: str, size: int) -> np.ndarray:
    stream = tar.extractfile(name)
    if stream is None:
        raise KeyError(f"{name} is not a file")
    raw = np.frombuffer(stream.read(), np.uint8)
    if len(raw) == 0 or len(raw) % size:
        raise KeyError(f"{name} has {len(raw)} bytes, not a multiple of {size}")
    return raw.reshape(-1, size)


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
    name: str,
    home: str,
    sha256: str,
    folder: Path | None,
    progress: bool,
    under: str = "",
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
    cache = Path(os.environ.get("CRLIB_CACHE") or pooch.os_cache("crlib")) / under
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
