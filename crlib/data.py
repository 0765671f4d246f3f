"""Data sets as tensors with inputs in [0, 1]: generated, embedded, or from disk.

A generated set and the embedded Fashion-MNIST sample need nothing. The full sets are
found in the folder named by the environment variable ``CRLIB_DATA``, or downloaded
once from their homes, with a checksum, when asked for. Nothing is unpickled. Data of
one's own come in by :func:`dataset` or :func:`from_folder`.
"""

import gzip
import hashlib
import json
import math
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from crlib import checks, fetch
from crlib.fetch import DataError

__all__ = [
    "DataError",
    "Dataset",
    "cifar10",
    "cifar100",
    "class_folders",
    "corruptions",
    "dataset",
    "fashion_mnist",
    "fashion_mnist_sample",
    "from_folder",
    "gaussian_classes",
    "linear_teacher",
    "sign_cube",
]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Inputs in [0, 1] and integer labels; of your own data, see :func:`dataset`.

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

    def __repr__(self) -> str:
        shape, dtype = tuple(self.x_train.shape[1:]), str(self.x_train.dtype)
        return (
            f"Dataset({self.name}, {self.source}: {len(self.x_train)} training and"
            f" {len(self.x_test)} test inputs {shape}, {self.classes} classes,"
            f" {dtype.removeprefix('torch.')}, fingerprint {self.fingerprint})"
        )

    def subset(self, n_train: int, n_test: int, *, seed: int = 0) -> "Dataset":
        """Return a random part, with a fingerprint of its own.

        Raises:
            ValueError: a count is no whole number, below one, or more than there are.
        """
        checks.at_least(1, n_train=n_train, n_test=n_test)
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for n, x, y in (
            (n_train, self.x_train, self.y_train),
            (n_test, self.x_test, self.y_test),
        ):
            if n > len(x):
                raise ValueError(f"{n} samples asked for: choose from 1 to {len(x)}.")
            rows = torch.randperm(len(x), generator=generator)[:n]
            parts += [x[rows], y[rows]]
        return _dataset(*parts, name=self.name, source=f"part of {self.source}")

    def of_classes(self, classes: Sequence[int]) -> "Dataset":
        """Return the samples of some classes, with a fingerprint of its own.

        Args:
            classes: two labels or more; the first becomes label 0, the second 1.

        Raises:
            ValueError: no list, a class twice, fewer than two, or one without samples.

        Example:
            >>> from crlib import data
            >>> shoes = data.fashion_mnist_sample().of_classes([5, 7, 9])
            >>> len(shoes.x_train), shoes.classes
            (2400, 3)
        """
        try:
            wanted = torch.as_tensor(classes)
        except (TypeError, ValueError, RuntimeError):
            wanted = torch.empty(0)
        if wanted.ndim != 1 or not 1 < len(wanted) == len(wanted.unique()):
            raise ValueError(
                f"classes is {classes!r}: name two or more, each once, in a list."
            )
        parts = []
        for part, x, y in (
            ("training", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            hit = y[:, None] == wanted.to(y.device)  # (N, classes)
            absent = wanted[~hit.any(0).cpu()].tolist()
            if absent:
                raise ValueError(
                    f"No {part} sample has the label {absent[0]}: choose from"
                    f" {y.unique().tolist()}."
                )
            rows = hit.any(1)
            parts += [x[rows], hit[rows].long().argmax(1)]
        source = f"classes {', '.join(map(str, wanted.tolist()))} of {self.source}"
        return _dataset(*parts, name=self.name, source=source)

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
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return Dataset(
        x_train, y_train, x_test, y_test, name, source, digest.hexdigest()[:12]
    )


def dataset(
    x_train: Tensor | np.ndarray,
    y_train: Tensor | np.ndarray,
    x_test: Tensor | np.ndarray,
    y_test: Tensor | np.ndarray,
    *,
    name: str = "own data",
    source: str = "given as tensors",
) -> Dataset:
    """Return your own data, with a fingerprint computed from every number.

    By its fingerprint a study knows that the data changed, and runs again.

    Args:
        x_train: ``(N, ...)`` float32 or float64 in [0, 1], not normalised.
        y_train: ``(N,)`` integers from 0 on.
        x_test: ``(M, ...)``, each of the shape of a training input.
        y_test: ``(M,)`` integers.
        name: of the data set.
        source: where it came from.

    Raises:
        ValueError: inputs that are not numbers in [0, 1], labels that are not one
            integer each, a part without samples, or parts of different shapes.

    Example:
        >>> import torch
        >>> from crlib import data
        >>> x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> mine = data.dataset(x[:4], y[:4], x[4:], y[4:], name="six squares")
        >>> len(mine.fingerprint), mine.classes
        (12, 3)
    """
    parts = [*_checked("train", x_train, y_train), *_checked("test", x_test, y_test)]
    shapes = [tuple(x.shape[1:]) for x in parts[::2]]
    if shapes[0] != shapes[1] or parts[0].dtype != parts[2].dtype:
        raise ValueError(
            f"A training input is {parts[0].dtype} of shape {shapes[0]}, a test input"
            f" {parts[2].dtype} of shape {shapes[1]}: they must be alike."
        )
    return _dataset(*parts, name=name, source=source)


def _checked(part: str, *given: object) -> tuple[Tensor, Tensor]:
    """Refuse what is no part of a data set; return labels as int64."""
    try:
        x, y = map(torch.as_tensor, given)
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = " and ".join(type(thing).__name__ for thing in given)
        raise ValueError(
            f"x_{part} and y_{part} are {kinds}: give tensors or arrays. The batches of"
            " a DataLoader become one with torch.cat."
        ) from error
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"x_{part} is {x.dtype}: give float32 or float64 in [0, 1]; of bytes,"
            " x / 255."
        )
    checks.inputs(x, f"x_{part}")
    if not len(x):
        raise ValueError(f"x_{part} holds no sample.")
    if not y.is_floating_point() and not y.is_complex():
        y = y.long()
    checks.labels(y, len(x), f"y_{part}")
    return x.detach(), y


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
        ValueError: means outside [0, 1], or fewer than two; a size below 1; a noise
            that is negative or NaN.
    """
    checks.at_least(1, n_train=n_train, n_test=n_test)
    checks.not_negative(noise=noise)
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


@dataclass(frozen=True)
class Source:
    """Where a full set comes from, and what it holds.

    Attributes:
        name: of the set.
        origin: what the dataset says of its source.
        home: address that the names of the files follow.
        folders: what its folder under ``CRLIB_DATA`` may be called.
        files: original files with their SHA-256.
        classes: names of the classes, in the order of the labels.
        size: height and width of an image.
        mode: ``"L"`` or ``"RGB"``.
    """

    name: str
    origin: str
    home: str
    folders: list[str]
    files: dict[str, str]
    classes: list[str]
    size: list[int]
    mode: str


SETS = {
    key: Source(**entry)
    for key, entry in json.loads(
        (resources.files("crlib.embedded") / "sets.json").read_text("utf-8")
    ).items()
}


def fashion_mnist(*, progress: bool = True) -> Dataset:
    """Return all of Fashion-MNIST: 60,000 training and 10,000 test images.

    Args:
        progress: show a progress bar while downloading.

    Raises:
        DataError: the data is absent and unreachable, or damaged.
    """
    return _full(SETS["fashion_mnist"], _read_idx_files, progress)


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
    folder = "cifar-10-batches-bin"
    train = [f"{folder}/data_batch_{k}.bin" for k in (1, 2, 3, 4, 5)]
    read = partial(_read_cifar, train, f"{folder}/test_batch.bin", 1)
    return _full(SETS["cifar10"], read, progress)


def cifar100(*, progress: bool = True) -> Dataset:
    """Return CIFAR-100 with its hundred fine classes: 50,000 and 10,000 images.

    As :func:`cifar10`: the binary archive, or a tree of images.

    Args:
        progress: show a progress bar while downloading.

    Raises:
        DataError: the data is absent and unreachable, or damaged.
    """
    folder = "cifar-100-binary"
    read = partial(_read_cifar, [f"{folder}/train.bin"], f"{folder}/test.bin", 2)
    return _full(SETS["cifar100"], read, progress)


def _full(
    source: Source, read: Callable[[list[Path]], list[Tensor]], progress: bool
) -> Dataset:
    """Return a full set: a tree of the user's, or its original files."""
    folder = fetch.user_folder(source.folders)
    if folder is not None and (tree := _tree(folder)) is not None:
        parts, origin = _read_tree(tree, source), "tree of images"
    else:
        paths = [
            fetch.obtain(name, source.home, sha256, folder=folder, progress=progress)
            for name, sha256 in source.files.items()
        ]
        parts, origin = read(paths), source.origin
    return _dataset(*parts, name=source.name, source=origin)


def _read_idx_files(paths: list[Path]) -> list[Tensor]:
    """Read images and labels to train on, and those to test."""
    x_train, y_train, x_test, y_test = (_read_idx(path) for path in paths)
    return [_images(x_train), _labels(y_train), _images(x_test), _labels(y_test)]


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


def _read_cifar(
    train: list[str], test: str, labels: int, paths: list[Path]
) -> list[Tensor]:
    """Read records of some label bytes, the last one used, and an image."""
    (archive,) = paths
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
    return parts


def _member(tar: tarfile.TarFile, name: str, size: int) -> np.ndarray:
    stream = tar.extractfile(name)
    if stream is None:
        raise KeyError(f"{name} is not a file")
    raw = np.frombuffer(stream.read(), np.uint8)
    if len(raw) == 0 or len(raw) % size:
        raise KeyError(f"{name} has {len(raw)} bytes, not a multiple of {size}")
    return raw.reshape(-1, size)


def _tree(folder: Path) -> Path | None:
    """Return ``folder`` if it holds ``train/<class>/`` and ``test/<class>/``."""
    both = all((folder / part).is_dir() for part in ("train", "test"))
    return folder if both else None


def _read_tree(folder: Path, source: Source) -> list[Tensor]:
    """Read the images of a known set: its classes, in its order, of its size."""
    for part in ("train", "test"):
        found = _subfolders(folder / part)
        if found != sorted(source.classes):
            raise DataError(
                f"{folder / part} holds the classes {found}; {source.name} has"
                f" {sorted(source.classes)}. CRLIB_DATA may point at another data set."
            )
    parts: list[Tensor] = []
    for part in ("train", "test"):
        parts += _read_part(
            folder / part, source.classes, source.mode, source.size, source.name
        )
    return parts


def from_folder(
    path: str | Path, *, mode: str = "RGB", name: str | None = None
) -> Dataset:
    """Return your own images from a tree ``train/<class>/*.png``, ``test/<class>/*``.

    Labels follow the names of the classes in alphabetical order. Files are .png, .jpg
    or .jpeg, all of one size; others are passed over.

    Args:
        path: the folder that holds ``train`` and ``test``.
        mode: ``"RGB"``, images ``(N, 3, H, W)``, or ``"L"``, grey ones
            ``(N, 1, H, W)``; files are converted.
        name: of the data set; None takes the folder's.

    Raises:
        ValueError: an unknown mode.
        DataError: no such tree, other classes in ``test`` than in ``train``, a class
            without images, a file that is no image or has more than 8 bits a channel,
            or images of different sizes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from crlib import data
        >>> folder = Path(tempfile.mkdtemp())
        >>> for part in ("train", "test"):
        ...     for k, kind in enumerate(("dark", "light")):
        ...         (folder / part / kind).mkdir(parents=True)
        ...         Image.new("L", (8, 8), 200 * k).save(folder / part / kind / "1.png")
        >>> data.from_folder(folder, mode="L", name="shades").x_train.shape
        torch.Size([2, 1, 8, 8])
    """
    checks.one_of("mode", mode, ("RGB", "L"))
    folder = Path(path)
    if _tree(folder) is None:
        raise DataError(
            f"{folder} does not hold the folders train and test: put the images there"
            " as train/<class>/*.png and test/<class>/*.png."
        )
    classes = _subfolders(folder / "train")
    if len(classes) < 2 or classes != _subfolders(folder / "test"):
        raise DataError(
            f"{folder} holds the classes {classes} in train and"
            f" {_subfolders(folder / 'test')} in test: give both the same ones, two or"
            " more, a folder each."
        )
    parts = _read_part(folder / "train", classes, mode)
    height, width = parts[0].shape[-2:]
    parts += _read_part(folder / "test", classes, mode, [height, width])
    return dataset(
        *parts,
        name=folder.resolve().name if name is None else name,
        source="tree of images",
    )


def class_folders(path: str | Path, *, mode: str = "RGB") -> tuple[Tensor, Tensor]:
    """Return images and labels from one tree ``<class>/*.png``.

    As :func:`from_folder` reads each of its two.

    Args:
        path: the folder that holds a folder for each class.
        mode: ``"RGB"``, images ``(N, 3, H, W)``, or ``"L"``, grey ones
            ``(N, 1, H, W)``; files are converted.

    Returns:
        Images in [0, 1], float32, and labels ``(N,)``, by the names of the classes. The
        classes take turns, each by the names of its files, so that the first inputs
        are of all.

    Raises:
        ValueError: an unknown mode.
        DataError: no two folders, one without images, a file that is no image or has
            more than 8 bits a channel, or images of different sizes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from crlib import data
        >>> folder = Path(tempfile.mkdtemp())
        >>> for k, kind in enumerate(("dark", "light")):
        ...     (folder / kind).mkdir()
        ...     Image.new("L", (8, 8), 200 * k).save(folder / kind / "1.png")
        >>> data.class_folders(folder, mode="L")[1]
        tensor([0, 1])
    """
    checks.one_of("mode", mode, ("RGB", "L"))
    classes = _subfolders(Path(path)) if Path(path).is_dir() else []
    if len(classes) < 2:
        raise DataError(
            f"{path} holds the folders {classes}: give two or more, one a class."
        )
    x, y = _read_part(Path(path), classes, mode)
    turns = torch.cat([torch.arange(n) for n in y.bincount().tolist()])
    order = turns.argsort(stable=True)
    return x[order], y[order]


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"
    )


def _read_part(
    folder: Path,
    classes: list[str],
    mode: str,
    size: list[int] | None = None,
    name: str = "the first image",
) -> list[Tensor]:
    """Read ``<class>/*`` as images and labels; no size: that of the first image."""
    from PIL import Image, UnidentifiedImageError

    images, labels = [], []
    for label, kind in enumerate(classes):
        files = sorted((folder / kind).iterdir())
        files = [f for f in files if f.suffix.lower() in (".png", ".jpg", ".jpeg")]
        if not files:
            raise DataError(f"{folder / kind} holds no .png or .jpg files.")
        for file in files:
            try:
                with Image.open(file) as image:
                    deep = image.mode[0] in "IF"
                    pixels = np.asarray(image.convert(mode))
            except (UnidentifiedImageError, OSError) as error:
                raise DataError(f"{file} is not a readable image.") from error
            if deep:
                # The conversion would make everything above 255 white.
                raise DataError(
                    f"{file} has more than 8 bits a channel: save it with 8."
                )
            size = list(pixels.shape[:2]) if size is None else size
            if list(pixels.shape[:2]) != size:
                raise DataError(
                    f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels;"
                    f" {name} has {size[1]} x {size[0]}. Images of a set have one size:"
                    " resize them."
                )
            images.append(pixels)
            labels.append(label)
    stack = np.stack(images)
    stack = stack if mode == "L" else stack.transpose(0, 3, 1, 2)
    return [_images(stack), _labels(np.array(labels))]


# Five severities each: standard deviation, reach of the blur in pixels, shift, factor
# around the mean, and step of the rounded cosines in levels of 255.
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
SHIFT = (0.05, 0.1, 0.15, 0.2, 0.3)
FACTOR = (0.75, 0.5, 0.4, 0.3, 0.15)
COARSE = (8, 12, 16, 24, 32)


def corruptions(
    x: Tensor, *, severity: int = 3, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    r"""Return images with five kinds of damage that nobody aimed: a baseline.

    Gaussian noise, Gaussian blur, more light, less contrast, and the cosines of blocks
    of eight by eight pixels rounded to multiples that grow with their frequency, as a
    JPEG file does. In the manner of Hendrycks and Dietterich (2019), whose benchmark
    has fifteen kinds and parameters of its own: accuracies are not comparable. A
    network that keeps its labels here may lose all of them to an attack.

    Args:
        x: ``(N, C, H, W)`` in [0, 1].
        severity: from 1 to 5.
        generator: source of the noise; None means a new one of seed 0.

    Returns:
        By name, images of the shape of ``x`` in [0, 1].

    Raises:
        ValueError: bad input, or a severity out of range.

    Example:
        >>> import torch
        >>> from crlib import data
        >>> bad = data.corruptions(torch.full((1, 1, 8, 8), 0.5), severity=2)
        >>> list(bad)
        ['noise', 'blur', 'brightness', 'contrast', 'jpeg']
        >>> bool(torch.allclose(bad["brightness"], torch.tensor(0.6)))
        True
    """
    checks.inputs(x)
    if x.ndim != 4:
        raise ValueError(f"x is {tuple(x.shape)}: give images (N, C, H, W).")
    if severity not in range(1, 6):
        raise ValueError(f"severity is {severity}: a whole number from 1 to 5.")
    k, x = severity - 1, x.detach()
    mean = x.mean((1, 2, 3), keepdim=True)
    source = checks.chance(generator)
    # Drawn on the generator's device, so that one of the CPU serves any images.
    device = source.device
    noise = torch.randn(x.shape, generator=source, dtype=x.dtype, device=device)
    damaged = {
        "noise": x + NOISE[k] * noise.to(x.device),
        "blur": _blurred(x, BLUR[k]),
        "brightness": x + SHIFT[k],
        "contrast": mean + FACTOR[k] * (x - mean),
        "jpeg": _coarse(x, COARSE[k]),
    }
    return {name: v.clamp(0, 1) for name, v in damaged.items()}


def _blurred(x: Tensor, reach: float) -> Tensor:
    at = torch.arange(-3, 4, dtype=x.dtype, device=x.device)
    line = (-0.5 * (at / reach).square()).exp()
    line /= line.sum()
    flat = x.reshape(-1, 1, *x.shape[2:])
    for kernel, sides in ((line[:, None], (0, 0, 3, 3)), (line[None], (3, 3, 0, 0))):
        wide = functional.pad(flat, sides, mode="replicate")
        flat = functional.conv2d(wide, kernel[None, None])
    return flat.view_as(x)


def _coarse(x: Tensor, step: float) -> Tensor:
    height, width = x.shape[2:]
    wide = functional.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    n = torch.arange(8, dtype=x.dtype, device=x.device)
    cosines = ((2 * n + 1) * n[:, None] * torch.pi / 16).cos() / 2  # (frequency, pixel)
    cosines[0] /= 2**0.5
    # (N, C, rows of blocks, 8, columns of blocks, 8), the blocks then as they come.
    blocks = wide.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    waves = cosines @ blocks @ cosines.T
    unit = step * (1 + (n + n[:, None]) / 2) / 255
    blocks = cosines.T @ (unit * (waves / unit).round()) @ cosines
    whole = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return whole[..., :height, :width]
