"""Data sets by name or path, as uint8 tensors and labels.

``digits`` comes with scikit-learn, ``gaussian`` is drawn, ``cifar10``, ``stl10`` and ``fashion-mnist`` are fetched
once by torchvision, and any folder of ``train/<class>/*`` and ``test/<class>/*`` images is read by its path. A whole
set is held in memory as uint8: the trainer puts it on the device once and never waits for a loader.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import math
import os
import pickle
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ssl_lab.config import CODE, DATASETS, FOLDER, DatasetInfo, RunConfig
from ssl_lab.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""Endings, in any case, of the files that a folder's images are in; other files are passed over."""
FOLDER_LAYOUT = "A folder of images holds train/<class>/* and test/<class>/*, as jpg, jpeg, png, bmp or webp."
THREADS_FROM = 4096
"""Mean size of an image file, in bytes, from which several threads decode sooner than one. Below it they only
take the interpreter's lock from one another: 32x32 JPEGs took 156 us each with two threads and 88 with one
(n = 1000, two cores, Python 3.11, Pillow 13.0); the two met at about 3 kB."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Kinds of images that are decoded, whatever a file is called."""
MOST_PIXELS = 50_000_000
"""Pixels of the largest photograph that is decoded, half as many of any other image: either takes up to 500 MB."""
LONGEST_SIDE = 65_535
"""Pixels of a side, as a JPEG can have them."""
LARGE_PIXELS = 4_000_000
"""Pixels from which images are decoded one at a time."""
LARGEST_FILE = 200_000_000
"""Bytes of the largest image file that is read; 50 million pixels without compression have 150 million."""
MOST_SCANS = 100
"""Scans of a JPEG; a progressive one has about ten."""

_LARGE = threading.Lock()

_Bytes = npt.NDArray[np.uint8]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Split:
    """Images and their labels, in one fixed order."""

    images: Tensor
    """(N, C, H, W) uint8, contiguous, on the CPU."""
    labels: Tensor
    """(N,) int64: index into the data set's classes; -1 for an image without a label."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory."""

    info: DatasetInfo
    """What it is; ``image_size`` and ``channels`` are those of the tensors."""
    train: Split
    """What is pre-trained on; labels may be missing (-1)."""
    labelled: Split
    """The training images that have labels, for probes: ``train`` itself, for STL-10 the first part of its memory, and
    none where there are no classes."""
    test: Split
    """Held-out images, all with labels unless there are no classes."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels; none for data without, of which no accuracy can be said."""
    _elsewhere: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Copies of the training images by device: runs of one data set share them."""

    def resident(self, device: torch.device) -> Tensor:
        """The training images (N, C, S, S) uint8 on ``device``, moved there once for all runs."""
        if device.type == "cpu":
            return self.train.images
        name = str(device)
        if name not in self._elsewhere:
            self._elsewhere[name] = self.train.images.to(device)
        return self._elsewhere[name]


def load_dataset(config: RunConfig) -> Dataset:
    """The images of ``config.dataset``, cut to ``train_limit`` and ``test_limit``.

    A limit takes an even share of each class, the first images of each in the set's own order; a class that
    has fewer leaves its share to the others, and a limit above the size takes all. Of STL-10's training set
    the labelled images are taken first, then the unlabelled ones. Nothing depends on the run's seed.

    Raises:
        DataError: the data is missing, broken or cannot be fetched; the message says what, where and what to do.
    """
    name = config.dataset
    if name not in _READERS:
        return _load_folder(config)
    data = _READERS[name](config)
    size = config.image_size
    return data if size is None or size == data.info.image_size else _resized(data, size)


def _resized(data: Dataset, size: int) -> Dataset:
    """The same images ``size`` pixels wide and high, by antialiased bilinear interpolation."""
    made: dict[int, Split] = {}

    def resized(split: Split) -> Split:
        # The labelled images may be the training images themselves.
        if id(split) not in made:
            parts = [
                functional.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().byte()
                for part in torch.split(split.images, 1000)
            ]
            made[id(split)] = Split(torch.cat(parts), split.labels)
        return made[id(split)]

    info = dataclasses.replace(data.info, image_size=size)
    return dataclasses.replace(
        data, info=info, train=resized(data.train), labelled=resized(data.labelled), test=resized(data.test)
    )


# ---------------------------------------------------------------- digits


def _load_digits(config: RunConfig) -> Dataset:
    """scikit-learn's 1797 digits of 8x8 pixels, 0 to 16 brought to 0 to 255.

    They have no official split. Here the images are put in order of class, then of their place in the file, and
    every fifth, from the first on, is a test image: 1437 to train and 360 to test, each class in proportion.
    """
    values, labels = _digits()
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    train = _limited(_split(images[~is_test], labels[~is_test]), config.train_limit)
    test = _limited(_split(images[is_test], labels[is_test]), config.test_limit)
    return _dataset(DATASETS["digits"], train, train, test, [str(digit) for digit in range(10)])


def _digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Pixels (1797, 64), 0 to 16, and labels (1797,).

    Read from the file inside scikit-learn, since importing it takes seconds; through it if the file has moved.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.data, bunch.target.astype(np.int64)


# ---------------------------------------------------------------- Gaussian

_GAUSSIAN_SIZES = (16_384, 1_024)


def _load_gaussian(config: RunConfig) -> Dataset:
    """White Gaussian noise: 16 numbers an "image", no classes; always the same, whatever the run's seed."""
    info = DATASETS["gaussian"]
    counts = [
        count if limit is None else min(limit, count)
        for count, limit in zip(_GAUSSIAN_SIZES, (config.train_limit, config.test_limit), strict=True)
    ]
    spectrum = np.ones(info.channels * info.image_size**2)
    shape = (-1, info.channels, info.image_size, info.image_size)
    train, test = (
        _split(gaussian_bytes(count, spectrum, seed).reshape(shape), np.full(count, -1))
        for seed, count in enumerate(counts)
    )
    return _dataset(info, train, _first(train, 0), test, ())


def gaussian_bytes(count: int, spectrum: npt.NDArray[np.float64], seed: int) -> _Bytes:
    """Gaussian vectors as bytes (count, n), ``rint(32 x + 128)``, x uncorrelated with the variances ``spectrum`` (n,).

    With more than n of them E[x x^T] is their own, and not only in expectation, diag(spectrum) but for the bytes'
    rounding of 1/32, a variance of 8e-5: a run and the theory then have the same data. Variances above 1 would leave
    many x beyond the bytes' range of -4 to 3.97, to which they are cut.

    Raises:
        ValueError: a variance is not in [0, 1].
    """
    if not ((spectrum >= 0) & (spectrum <= 1)).all():
        raise ValueError(f"variances must be from 0 to 1, and are {spectrum.min()} to {spectrum.max()}")
    x = np.random.default_rng(seed).standard_normal((count, len(spectrum)))
    if count > len(spectrum):
        x = np.linalg.solve(np.linalg.cholesky(x.T @ x / count), x.T).T
    zero, one = CODE
    return np.rint(x * np.sqrt(spectrum) * one + zero).clip(0, 255).astype(np.uint8)


# ---------------------------------------------------------------- torchvision's


def _load_cifar10(config: RunConfig) -> Dataset:
    from torchvision.datasets import CIFAR10

    def read(folder: Path) -> tuple[Split, Split, list[str]]:
        # torchvision fetches and checks; what is unpickled is the very bytes that were checked here.
        fetcher = CIFAR10.__new__(CIFAR10)
        fetcher.root = str(folder)
        fetcher.download()
        train, test = (
            [_checked_pickle(inside / name, md5) for name, md5 in files]
            for files in (CIFAR10.train_list, CIFAR10.test_list)
        )
        names = _checked_pickle(inside / CIFAR10.meta["filename"], CIFAR10.meta["md5"])[CIFAR10.meta["key"]]
        if not isinstance(names, list) or not all(isinstance(name, str) and len(name) < 100 for name in names[:1000]):
            raise ValueError("expected a list of the classes' names, found something else")
        return _cifar10_split(train), _cifar10_split(test), names

    folder = _data_folder(config)
    inside = folder / CIFAR10.base_folder
    source = _Source(
        info=DATASETS["cifar10"],
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        folder=folder,
        archives=((CIFAR10.filename, CIFAR10.tgz_md5),),
        parts=(
            *((inside / name, md5) for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list)),
            (inside / CIFAR10.meta["filename"], CIFAR10.meta["md5"]),
        ),
    )
    train, test, classes = _fetched(source, read)
    train, test = _limited(train, config.train_limit), _limited(test, config.test_limit)
    return _dataset(source.info, train, train, test, classes)


class _NumpyUnpickler(pickle.Unpickler):
    """Takes numbers, texts and NumPy arrays out of a pickle, and nothing that could do more."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        raise ValueError(f"expected NumPy arrays, found {module}.{name}")


def _checked_pickle(path: Path, md5: str) -> Any:
    """What a pickle of this checksum holds; one of another is never looked into.

    Raises:
        ValueError: the file is another one.
        OSError: it is not there.
    """
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{path} is not the file of the official page")
    return _NumpyUnpickler(io.BytesIO(content), encoding="latin1").load()


def _cifar10_split(batches: Sequence[Any]) -> Split:
    """Of batches as they come out of the pickles.

    Raises:
        ValueError: one is not (N, 3072) bytes with N labels.
    """
    for batch in batches:
        # Looked at before anything is made of it: NumPy would make arrays of whatever it is given, however large.
        data, labels = (batch.get(key) if isinstance(batch, dict) else None for key in ("data", "labels"))
        whole = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3 * 32 * 32,)
        if not whole or not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise ValueError("expected (N, 3072) bytes with a list of labels, found something else")
    images = np.vstack([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return _split(images, [label for batch in batches for label in batch["labels"]])


def _load_stl10(config: RunConfig) -> Dataset:
    from torchvision.datasets import STL10

    folder = _data_folder(config)
    inside = folder / STL10.base_folder

    def read(folder: Path) -> tuple[Split, Split, list[str]]:
        # torchvision fetches all files; of the large ones it would make two copies.
        fetcher = STL10.__new__(STL10)
        fetcher.root = str(folder)
        fetcher.download()
        if not fetcher._check_integrity():
            raise ValueError("a file is not the one of the official page")
        test = _split(np.ascontiguousarray(_stl10_images(inside / "test_X.bin")), _stl10_labels(inside / "test_y.bin"))
        parts = [_stl10_images(inside / name) for name in ("train_X.bin", "unlabeled_X.bin")]
        known, classes = _stl10_labels(inside / "train_y.bin"), _stl10_classes(inside / STL10.class_names_file)
        if len(known) != len(parts[0]):
            raise ValueError(f"{len(parts[0])} images and {len(known)} labels do not make a set")
        labels = np.concatenate([known, np.full(len(parts[1]), -1)])
        kept = _even_share(torch.from_numpy(labels), config.train_limit).numpy()
        return _split(_streamed(parts, kept), labels[kept]), test, classes

    source = _Source(
        info=DATASETS["stl10"],
        page="https://cs.stanford.edu/~acoates/stl10/",
        folder=folder,
        archives=((STL10.filename, STL10.tgz_md5),),
        parts=tuple((inside / name, md5) for name, md5 in (*STL10.train_list, *STL10.test_list)),
    )
    train, test, classes = _fetched(source, read)
    # The labelled images come first, so that they are a part of the same memory.
    count = int((train.labels >= 0).sum())
    labelled = _first(train, count)
    return _dataset(source.info, train, labelled, _limited(test, config.test_limit), classes)


def _stl10_images(path: Path) -> _Bytes:
    """The images of a file (N, 3, 96, 96), in rows of pixels, none of it read yet: the file has columns."""
    size = path.stat().st_size
    if not size or size % (3 * 96 * 96):
        raise ValueError(f"{path.name} should hold whole images of 27,648 bytes and has {size:,} bytes")
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    return mapped.reshape(-1, 3, 96, 96).swapaxes(2, 3)


def _stl10_labels(path: Path) -> npt.NDArray[np.int64]:
    return np.fromfile(path, dtype=np.uint8).astype(np.int64) - 1


def _stl10_classes(path: Path) -> list[str]:
    """The names that lie beside the images, if they are ten; nothing vouches for that file."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        names = file.read(1000).decode("ascii").split()
        if len(names) == 10 and all(name.isprintable() for name in names):
            return names
    return list(_STL10_CLASSES)


def _streamed(parts: Sequence[_Bytes], kept: npt.NDArray[np.int64]) -> _Bytes:
    """The images of these ascending places of the parts one after the other, in one new array, little by little."""
    images = np.empty((len(kept), *parts[0].shape[1:]), dtype=np.uint8)
    first = 0
    for part in parts:
        places = np.flatnonzero((kept >= first) & (kept < first + len(part)))
        for start in range(0, len(places), 500):
            chunk = places[start : start + 500]
            images[chunk] = part[kept[chunk] - first]
        first += len(part)
    return images


def _load_fashion_mnist(config: RunConfig) -> Dataset:
    from torchvision.datasets import FashionMNIST

    def read(folder: Path) -> tuple[Split, Split, list[str]]:
        # torchvision fetches; its own reader believes the files, and takes older pickles that lie beside them.
        fetcher = FashionMNIST.__new__(FashionMNIST)
        fetcher.root = str(folder)
        fetcher.download()
        parts = [_idx(inside / name.removesuffix(".gz")) for name, _ in FashionMNIST.resources]
        train, test = (_idx_split(*parts[start : start + 2]) for start in (0, 2))
        return train, test, list(FashionMNIST.classes)

    # There is no checksum of the unpacked files, so their sizes are all there is to go by.
    folder = inside = _data_folder(config) / "FashionMNIST" / "raw"
    source = _Source(
        info=DATASETS["fashion-mnist"],
        page="https://github.com/zalandoresearch/fashion-mnist",
        folder=folder,
        archives=tuple(FashionMNIST.resources),
        parts=tuple((folder / name.removesuffix(".gz"), None) for name, _ in FashionMNIST.resources),
        root=_data_folder(config),
    )
    train, test, classes = _fetched(source, read)
    train, test = _limited(train, config.train_limit), _limited(test, config.test_limit)
    return _dataset(source.info, train, train, test, classes)


def _idx(path: Path) -> _Bytes:
    """The bytes of an idx file in the shape that it says, once it has been held against the file's size.

    Raises:
        ValueError: it says something else than it holds.
    """
    if _is_broken(path, None):
        raise ValueError(f"{path.name} does not hold what its first bytes say")
    content = np.fromfile(path, dtype=np.uint8)
    axes = int(content[3])
    shape = content[4 : 4 + 4 * axes].view(">i4").astype(np.int64)
    return content[4 + 4 * axes :].reshape(shape)


def _idx_split(images: _Bytes, labels: _Bytes) -> Split:
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.ndim != 1:
        raise ValueError(f"images of 28x28 pixels and their labels have other shapes: {images.shape}, {labels.shape}")
    return _split(images[:, None], labels)


_STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

_READERS: dict[str, Callable[[RunConfig], Dataset]] = {
    "digits": _load_digits,
    "cifar10": _load_cifar10,
    "stl10": _load_stl10,
    "fashion-mnist": _load_fashion_mnist,
    "gaussian": _load_gaussian,
}


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a data set's files come from and lie, for reading them and for saying what is wrong with them."""

    info: DatasetInfo
    page: str
    folder: Path
    """Where the archives go."""
    archives: tuple[tuple[str, str], ...]
    """Name and md5 of each file on the official page."""
    parts: tuple[tuple[Path, str | None], ...]
    """What torchvision unpacks from them, with md5; None for a file in idx format."""
    root: Path | None = None
    """What torchvision takes as root, if it is not ``folder``."""


def _data_folder(config: RunConfig) -> Path:
    return Path(config.data_dir or os.environ.get("SSL_LAB_DATA") or "data").expanduser().absolute()


def _fetched(source: _Source, read: Callable[[Path], _T]) -> _T:
    """``read(root)``, with every failure told as a DataError."""
    try:
        with warnings.catch_warnings():
            # CIFAR-10's pickles hold NumPy types as Python 2 wrote them.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            return read(source.root or source.folder)
    except MemoryError:
        raise
    except Exception as error:  # reading broken files can end in any error at all
        raise DataError(_diagnosis(source, error)) from error


def _diagnosis(source: _Source, error: Exception) -> str:
    """What is wrong, where, and what to do."""
    archives = [(source.folder / name, md5) for name, md5 in source.archives]
    broken = [path for path, md5 in (*archives, *source.parts) if _is_broken(path, md5)]
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    names = ", ".join(name for name, _ in source.archives)
    by_hand = f"Without a network, put {names} from {source.page} into {source.folder} and try again."
    if broken:
        files, them = ", ".join(map(str, broken)), "it" if len(broken) == 1 else "them"
        verb = "is" if len(broken) == 1 else "are"
        return (
            f"{source.info.title} cannot be read: {files} {verb} broken (cut short or changed). "
            f"Delete {them} and try again. {by_hand}"
        )
    if all(path.is_file() for path, _ in source.parts):
        return (
            f"{source.info.title} cannot be read from {source.folder}: {reason}. Delete its files there and try "
            f"again. {by_hand}"
        )
    return f"{source.info.title} is not in {source.folder} and could not be downloaded: {reason}. {by_hand}"


def _is_broken(path: Path, md5: str | None) -> bool:
    """Whether a file is there but is not what it should be."""
    try:
        if not path.is_file():
            return False
        if md5 is not None:
            with path.open("rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != md5
        # idx: two zero bytes, type 8 (uint8), number of axes, their lengths as big-endian int32, the bytes.
        with path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08":
                return True
            shape = np.frombuffer(file.read(4 * head[3]), dtype=">i4").tolist()
        # In Python's numbers, which do not wrap around.
        return (
            len(shape) != head[3]
            or not 1 <= len(shape) <= 4
            or min(shape) < 0
            or path.stat().st_size != 4 + 4 * head[3] + math.prod(shape)
        )
    except (OSError, ValueError):
        return True


# ---------------------------------------------------------------- a folder of images


def _load_folder(config: RunConfig) -> Dataset:
    """Images of ``train/<class>/`` and ``test/<class>/``, in RGB, ``image_size`` pixels wide and high."""
    folder = Path(config.dataset).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder.absolute()}. Take one of {', '.join(DATASETS)}, or the path of a folder. "
            + FOLDER_LAYOUT
        )
    folder = folder.resolve()
    size = config.image_size or FOLDER.image_size
    classes = _class_names(folder / "train")
    _check_same(folder, classes, _class_names(folder / "test"))
    limits = {"train": config.train_limit, "test": config.test_limit}
    files: dict[str, list[os.DirEntry[str]]] = {}
    labels: dict[str, Tensor] = {}
    for split, limit in limits.items():
        found = [_image_files(folder / split / name) for name in classes]
        known = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor([len(f) for f in found]))
        entries = [entry for one_class in found for entry in one_class]
        # Only what the run uses is decoded.
        kept = _even_share(known, limit)
        files[split] = [entries[k] for k in kept.tolist()]
        labels[split] = known[kept]
    images = _cached(
        place=f"{folder}|{size}|{limits}",
        fingerprint=_fingerprint(files),
        size=size,
        counts={split: len(entries) for split, entries in files.items()},
        make=lambda: {split: _decoded(entries, size) for split, entries in files.items()},
    )
    train, test = (Split(torch.from_numpy(images[split]), labels[split]) for split in ("train", "test"))
    return _dataset(FOLDER, train, train, test, classes)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without hidden files.

    Raises:
        DataError: it is not there or may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}. {FOLDER_LAYOUT}") from error


def _class_names(folder: Path) -> list[str]:
    names = [entry.name for entry in _visible(folder) if entry.is_dir()]
    if not names:
        raise DataError(f"The folder {folder} has no folders of classes in it. {FOLDER_LAYOUT}")
    return names


def _check_same(folder: Path, train: list[str], test: list[str]) -> None:
    for here, there, names in (("train", "test", set(train) - set(test)), ("test", "train", set(test) - set(train))):
        if names:
            raise DataError(
                f"In {folder} the classes of train and test differ: {', '.join(sorted(names))} in {here} but not in "
                f"{there}. Both need the same folders."
            )


def _image_files(folder: Path) -> list[os.DirEntry[str]]:
    files = [e for e in _visible(folder) if os.path.splitext(e.name)[1].lower() in IMAGE_SUFFIXES and e.is_file()]
    if not files:
        raise DataError(
            f"The class {folder} has no images (jpg, jpeg, png, bmp or webp). Add some, or remove the class from "
            "both train and test."
        )
    return files


def _decoded(entries: Sequence[os.DirEntry[str]], size: int) -> _Bytes:
    """(N, 3, size, size): the images of the files in their order, by a thread for each core if they are large."""
    images = np.empty((len(entries), 3, size, size), dtype=np.uint8)

    def decode(start: int) -> None:
        for k in range(start, min(start + 64, len(entries))):
            images[k] = _decode(entries[k].path, size).transpose(2, 0, 1)

    large = sum(entry.stat().st_size for entry in entries) >= THREADS_FROM * len(entries)
    pool = ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1) if large else 1)
    try:
        for _ in pool.map(decode, range(0, len(entries), 64)):
            pass
    finally:
        # After a broken image there is no point in decoding the rest.
        pool.shutdown(cancel_futures=True)
    return images


def _decode(path: str, size: int) -> _Bytes:
    """(size, size, 3): shorter side brought to ``size``, then the middle; untouched if it has that size already.

    Raises:
        DataError: not an image that Pillow can read, or a broken one.
    """
    try:
        with _opened(path) as opened:
            return _brought_to(_rgb(opened), size)
    except MemoryError:
        raise
    except Exception as error:  # a decoder may end in any error on broken bytes
        raise DataError(f"The image {path} cannot be read: {error}. Replace or delete it, and try again.") from error


def _brought_to(image: Image.Image, size: int) -> _Bytes:
    width, height = image.size
    if (width, height) != (size, size):
        # As torchvision's Resize and CenterCrop do it; Pillow's bilinear filter antialiases when it shrinks.
        short = min(width, height)
        width, height = max(size, size * width // short), max(size, size * height // short)
        left, top = round((width - size) / 2), round((height - size) / 2)
        if width * height > MOST_PIXELS:
            raise ValueError(f"an image should not be as narrow as {image.width} x {image.height}")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """An image that may be decoded: of a kind that folders hold, and not larger than pictures are.

    Raises:
        ValueError: it may not; the message says what was expected and what was found.
    """
    size = os.stat(path).st_size
    if size > LARGEST_FILE:
        raise ValueError(f"an image file should have at most {LARGEST_FILE / 1e6:,.0f} MB and has {size / 1e6:,.0f}")
    with open(path, "rb") as file:
        content = file.read(LARGEST_FILE + 1)
    with warnings.catch_warnings():
        # What is too large is refused below; of what is odd in a file nobody need be told who gets its picture.
        warnings.simplefilter("ignore")
        # Whatever the file's name says, Pillow would find out what it is, and start another program for some kinds.
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
            photograph = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
            # What is no photograph is held several times over while it is brought to RGB.
            most = MOST_PIXELS if photograph else MOST_PIXELS // 2
            if not 0 < pixels <= most:
                raise ValueError(
                    f"an image should have at most {most / 1e6:,.0f} million pixels and says that it has "
                    f"{image.width} x {image.height}"
                )
            if max(image.size) > LONGEST_SIDE:
                # A row costs Pillow more than a pixel does.
                raise ValueError(f"an image should not be as narrow as {image.width} x {image.height}")
            # Each scan of a progressive JPEG goes over the whole picture, and may take three bytes.
            scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
            if scans > MOST_SCANS:
                raise ValueError(f"a JPEG should have at most {MOST_SCANS} scans and has {scans}")
            # Pillow decodes it in Python, and for each byte may fill a row.
            if image.format == "BMP" and image.info.get("compression") not in (None, 0, 3):
                raise ValueError("a BMP should not be compressed and is; save it as PNG")
            # One at a time, so that several threads take no more memory than one.
            with _LARGE if pixels > LARGE_PIXELS else contextlib.nullcontext():
                yield image


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB; what is transparent shows the colour that is stored under it."""
    if image.mode.startswith("I"):
        # 16-bit grey; Pillow would clip it at 255.
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # Straight to RGB Pillow warns.
        image = image.convert("RGBA")
    # Of an image that is RGB, converting would make a copy.
    return image if image.mode == "RGB" else image.convert("RGB")


# ---------------------------------------------------------------- the cache of decoded folders


def _fingerprint(files: dict[str, list[os.DirEntry[str]]]) -> str:
    """Changes with the name, the size or the time of any file."""
    digest = hashlib.sha256()
    for split, entries in files.items():
        for entry in entries:
            try:
                stat = entry.stat()
            except OSError as error:
                raise DataError(f"The image {entry.path} cannot be read: {error.strerror}.") from error
            digest.update(f"{split}|{entry.path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _cached(
    place: str, fingerprint: str, size: int, counts: dict[str, int], make: Callable[[], dict[str, _Bytes]]
) -> dict[str, _Bytes]:
    """``make()``, or what it made before for the same place and fingerprint.

    The cache is one uncompressed .npz for a place, in $SSL_LAB_CACHE or ~/.cache/ssl-lab. It only saves time: a
    broken file is made anew, and a folder that cannot be written is no error.
    """
    key = hashlib.sha256(f"1|{place}".encode(errors="surrogateescape")).hexdigest()[:16]
    try:
        folder = Path(os.environ.get("SSL_LAB_CACHE") or "~/.cache/ssl-lab").expanduser()
    except RuntimeError:  # no home
        return make()
    file = folder / f"images-{key}-{fingerprint}.npz"
    try:
        return _read_cache(file, {split: (count, 3, size, size) for split, count in counts.items()})
    except Exception:  # a broken archive may end in any error; then it is made anew
        pass
    images = make()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with _replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **images)  # type: ignore[arg-type]  # the names are none of savez's own
        # The folder's images changed: what was made of the old ones is of no use any more.
        for old in folder.glob(f"images-{key}-*.npz"):
            if old != file:
                old.unlink(missing_ok=True)
    return images


def _read_cache(file: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, _Bytes]:
    """The arrays of these shapes in an uncompressed .npz; nothing is read, or memory taken, for any other.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: it is another file.
    """
    wanted = {f"{split}.npy": shape for split, shape in shapes.items()}
    if file.stat().st_size > sum(map(math.prod, wanted.values())) + 10_000:
        raise ValueError("it is larger than its arrays")
    with zipfile.ZipFile(file) as archive:
        if sorted(archive.namelist()) != sorted(wanted):
            raise ValueError("it holds other arrays")
        images = {}
        for entry in archive.infolist():
            shape = wanted[entry.filename]
            if entry.compress_type != zipfile.ZIP_STORED or not 0 < entry.file_size - math.prod(shape) < 1000:
                raise ValueError("it is not as large as its array")
            with archive.open(entry) as stream:
                version = np.lib.format.read_magic(stream)
                if version != (1, 0):
                    raise ValueError("it is of another version")
                found, in_columns, kind = np.lib.format.read_array_header_1_0(stream)
                if found != shape or in_columns or kind != np.uint8:
                    raise ValueError("it holds another array")
                array = np.empty(shape, dtype=np.uint8)
                place, flat = 0, array.reshape(-1)
                # To the very end, where the checksum is looked at.
                while chunk := stream.read(1 << 20):
                    flat[place : place + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
                    place += len(chunk)
                if place != array.size:
                    raise ValueError("it ends before its array")
            images[entry.filename.removesuffix(".npy")] = array
    return images


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """A new file beside ``file`` that takes its place at the end, or is gone if anything went wrong."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".images-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------- common parts


def _split(images: _Bytes, labels: Any) -> Split:
    """Tensors of arrays (N, C, H, W) and (N,); shares the images' memory where they lie in that order.

    Raises:
        ValueError: the two do not fit, or there are none.
    """
    known = torch.as_tensor(np.asarray(labels).astype(np.int64))
    if images.dtype != np.uint8 or len(images) == 0 or len(images) != len(known):
        raise ValueError(f"{len(images)} images and {len(known)} labels do not make a set")
    if not -1 <= int(known.min()) <= int(known.max()) < 10:
        raise ValueError("a label is not one of the ten classes")
    return Split(torch.from_numpy(np.ascontiguousarray(images)), known)


def _dataset(info: DatasetInfo, train: Split, labelled: Split, test: Split, classes: Sequence[str]) -> Dataset:
    _, channels, height, _ = train.images.shape
    info = dataclasses.replace(info, image_size=height, channels=channels)
    return Dataset(info=info, train=train, labelled=labelled, test=test, classes=tuple(classes))


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])


def _limited(split: Split, limit: int | None) -> Split:
    if limit is None or limit >= len(split):
        return split
    kept = _even_share(split.labels, limit)
    return Split(split.images[kept], split.labels[kept])


def _even_share(labels: Tensor, limit: int | None) -> Tensor:
    """(min(limit, N),) ascending places: the first ones of every class in turn, unlabelled ones (-1) last."""
    count = len(labels)
    if limit is None or limit >= count:
        return torch.arange(count)
    known = labels.numpy()
    by_class = np.argsort(known, kind="stable")
    ordered = known[by_class]
    turn = np.empty(count, dtype=np.int64)
    turn[by_class] = np.arange(count) - np.searchsorted(ordered, ordered)
    # The last key counts first.
    chosen = np.lexsort((known, turn, known < 0))[:limit]
    return torch.from_numpy(np.sort(chosen))
