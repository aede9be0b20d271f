"""Data sets: read from files in the exact formats, cut to limits, and refused in words when broken or missing."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import os
import pickle
import struct
import subprocess
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, STL10, FashionMNIST

import ssl_lab.datasets
from ssl_lab.config import FOLDER, RunConfig, preset
from ssl_lab.datasets import Dataset, load_dataset
from ssl_lab.errors import DataError

Bytes = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test goes to the network, and none reads or writes the user's own folders."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSL_LAB_DATA", str(tmp_path / "data"))


def load(dataset: str | Path, **fields: Any) -> Dataset:
    return load_dataset(RunConfig(dataset=str(dataset), **fields))


def noise(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


# ---------------------------------------------------------------- digits


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = load("digits")
    assert data.labelled is data.train
    assert data.train.images.shape == (1437, 1, 8, 8)
    assert data.test.images.shape == (360, 1, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert data.classes == tuple("0123456789")
    assert (data.info.image_size, data.info.channels) == (8, 1)
    bunch = load_digits()
    want = {
        (np.rint(x * 255 / 16).astype(np.uint8).tobytes(), int(y))
        for x, y in zip(bunch.images, bunch.target, strict=True)
    }
    splits = [
        {(image.numpy().tobytes(), int(label)) for image, label in zip(s.images, s.labels, strict=True)}
        for s in (data.train, data.test)
    ]
    assert splits[0] | splits[1] == want
    assert not splits[0] & splits[1]
    # Stratified: a fifth of each class, give or take one image.
    share = data.test.labels.bincount() / torch.from_numpy(np.bincount(bunch.target)) * 5
    assert (share - 1).abs().max() < 0.03
    pixels = data.train.images.float() / 255
    assert pixels.mean().item() == pytest.approx((data.info.recipe.mean or (0,))[0], abs=2e-3)
    assert pixels.std().item() == pytest.approx((data.info.recipe.std or (0,))[0], abs=2e-3)


def test_digits_split_is_fixed() -> None:
    a, b = load("digits", seed=0), load("digits", seed=1)
    assert torch.equal(a.train.images, b.train.images)
    digest = hashlib.sha256(a.test.images.numpy().tobytes() + a.test.labels.numpy().tobytes()).hexdigest()
    assert digest == "83c99461e31a25765a26614f1c1bc7016c08dfc462b1b66cee9e5f3c29308a0a"


def test_digits_come_through_scikit_learn_if_its_file_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = load("digits")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    imported = load("digits")
    assert torch.equal(direct.train.images, imported.train.images)
    assert torch.equal(direct.test.labels, imported.test.labels)


# ---------------------------------------------------------------- limits


def test_a_limit_takes_an_even_share_of_each_class_from_the_front() -> None:
    whole, cut = load("digits"), load("digits", train_limit=43, test_limit=20)
    assert cut.train.labels.bincount().tolist() == [5, 5, 5, 4, 4, 4, 4, 4, 4, 4]
    assert cut.test.labels.bincount().tolist() == [2] * 10
    assert cut.labelled is cut.train
    for label in range(10):
        first = whole.train.images[whole.train.labels == label]
        kept = cut.train.images[cut.train.labels == label]
        assert torch.equal(kept, first[: len(kept)])


def test_a_limit_above_the_size_takes_all() -> None:
    data = load("digits", train_limit=10_000, test_limit=10_000)
    assert (len(data.train), len(data.test)) == (1437, 360)


def test_small_classes_leave_their_share_to_the_others(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", {"a": 1, "b": 6, "c": 2})
    assert load(tmp_path / "set", train_limit=6).train.labels.tolist() == [0, 1, 1, 1, 2, 2]


# ---------------------------------------------------------------- CIFAR-10


def python2_pickle(batch: dict[str, Any]) -> bytes:
    """As Python 2 wrote the official batches: byte strings, and a NumPy type with 0 and 1 for its flags."""
    text = pickle.dumps(batch, protocol=2)
    return text.replace(pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3, b"K\x00K\x01" + pickle.TUPLE3)


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bytes, Bytes]:
    """Five batches of 20 images and 20 test images; returns both sets of images."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = noise(120, 3, 32, 32)
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for n, name in enumerate(names):
        part = slice(20 * n, 20 * n + 20)
        batch = {"data": images[part].reshape(20, 3072), "labels": [k % 10 for k in range(20)]}
        (folder / name).write_bytes(python2_pickle(batch))
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": words}, protocol=2))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(folder / name)] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[5], md5(folder / names[5])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    return images[:100], images[100:]


def test_cifar10_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = write_cifar10(tmp_path, monkeypatch)
    data = load("cifar10", data_dir=str(tmp_path))
    assert np.array_equal(data.train.images, train)
    assert np.array_equal(data.test.images, test)
    assert data.train.images.is_contiguous()
    assert data.train.labels.tolist() == list(range(10)) * 10
    assert data.labelled is data.train
    assert data.classes[:2] == ("airplane", "automobile")
    assert (data.info.image_size, data.info.channels) == (32, 3)


def test_the_data_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "data", monkeypatch)
    assert len(load("cifar10").train) == 100
    monkeypatch.delenv("SSL_LAB_DATA")
    monkeypatch.chdir(tmp_path)
    assert len(load("cifar10", train_limit=20).train) == 20


def test_an_archive_put_there_by_hand_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "made", monkeypatch)
    root = tmp_path / "data"
    root.mkdir()
    archive = root / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    assert len(load("cifar10").train) == 100


def test_a_broken_batch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"data_batch_3 is broken .* Delete it and try again") as caught:
        load("cifar10", data_dir=str(tmp_path))
    assert str(batch) in str(caught.value)
    assert "data_batch_2" not in str(caught.value)


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "data" / CIFAR10.filename
    archive.parent.mkdir()
    archive.write_bytes(b"half a downl")
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz is broken") as caught:
        load("cifar10")
    assert str(archive) in str(caught.value)


def test_files_that_hold_something_else_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.write_bytes(pickle.dumps({"data": noise(20, 3072), "labels": [10] * 20}, protocol=2))
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(batch)]])
    with pytest.raises(DataError, match="a label is not one of the ten classes"):
        load("cifar10", data_dir=str(tmp_path))


# ---------------------------------------------------------------- STL-10


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Bytes]:
    """20 labelled, 30 unlabelled and 10 test images, column by column and with labels from 1, as in the real files."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    images = {"train": noise(20, 3, 96, 96), "unlabeled": noise(30, 3, 96, 96, seed=1)}
    images["test"] = noise(10, 3, 96, 96, seed=2)
    for name, x in images.items():
        x.swapaxes(2, 3).tofile(folder / f"{name}_X.bin")
    (np.arange(20) % 10 + 1).astype(np.uint8).tofile(folder / "train_y.bin")
    (np.arange(10) + 1).astype(np.uint8).tofile(folder / "test_y.bin")
    for table in ("train_list", "test_list"):
        monkeypatch.setattr(STL10, table, [[name, md5(folder / name)] for name, _ in getattr(STL10, table)])
    return images


def test_stl10_trains_on_all_images_and_probes_on_the_labelled_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_stl10(tmp_path, monkeypatch)
    (tmp_path / "stl10_binary" / "class_names.txt").write_text("\n".join("abcdefghij") + "\n")
    data = load("stl10", data_dir=str(tmp_path))
    assert np.array_equal(data.train.images, np.concatenate((images["train"], images["unlabeled"])))
    assert np.array_equal(data.labelled.images, images["train"])
    assert np.array_equal(data.test.images, images["test"])
    assert data.train.images.is_contiguous()
    assert data.labelled.images.data_ptr() == data.train.images.data_ptr()
    assert data.train.labels.tolist() == [*range(10), *range(10), *[-1] * 30]
    assert data.labelled.labels.tolist() == [*range(10), *range(10)]
    assert data.test.labels.tolist() == list(range(10))
    assert data.classes == tuple("abcdefghij")
    assert (data.info.image_size, data.info.channels) == (96, 3)


def test_a_limit_on_stl10_takes_labelled_images_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_stl10(tmp_path, monkeypatch)
    data = load("stl10", data_dir=str(tmp_path), train_limit=25)
    assert data.train.labels.tolist() == [*range(10), *range(10), *[-1] * 5]
    assert np.array_equal(data.train.images[20:], images["unlabeled"][:5])
    assert len(data.labelled) == 20
    assert load("stl10", data_dir=str(tmp_path), train_limit=10).labelled.labels.tolist() == list(range(10))
    assert data.classes[0] == "airplane"


def test_stl10_is_streamed_into_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real files are 2.9 GB: what is read must not be in memory twice, and what is not used not at all."""
    import tracemalloc

    write_stl10(tmp_path, monkeypatch)
    more = tmp_path / "stl10_binary" / "unlabeled_X.bin"
    images = noise(2500, 3, 96, 96, seed=5)
    images.swapaxes(2, 3).tofile(more)
    monkeypatch.setattr(
        STL10, "train_list", [[n, md5(more) if n == more.name else digest] for n, digest in STL10.train_list]
    )
    load("stl10", data_dir=str(tmp_path), train_limit=30)
    sizes = {}
    for limit in (None, 100):
        tracemalloc.start()
        data = load("stl10", data_dir=str(tmp_path), train_limit=limit)
        sizes[limit] = tracemalloc.get_traced_memory()[1] / data.train.images[:1].numel()
        tracemalloc.stop()
        assert np.array_equal(data.train.images[20:].numpy(), images[: len(data.train) - 20])
        del data
    # In images: the set itself, a piece of 500 on its way, and the test images.
    assert sizes[None] < 2520 + 700
    assert sizes[100] < 100 + 300


def test_stl10_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """96x96 pixels, the large stem, blur, no normalisation: trained on all, probed on the labelled."""
    from dataclasses import replace

    from ssl_lab import Trainer
    from ssl_lab.evaluation import SEED_PROBE, linear_probe

    write_stl10(tmp_path, monkeypatch)
    config = preset("directpred", dataset="stl10", data_dir=str(tmp_path), width=4, batch_size=16, device="cpu")
    trainer = Trainer(config)
    assert (config.stem, config.encoder, trainer.steps_per_epoch) == ("large-image", "resnet18", 3)
    recipe = trainer.dataset.info.recipe
    assert (recipe.blur_taps, recipe.mean, recipe.jitter) == (9, None, (0.8, 0.8, 0.8, 0.2))
    losses = [trainer.step().loss for _ in range(3)]
    assert all(-2 <= loss <= 2 for loss in losses)
    data = trainer.dataset
    found = linear_probe(
        trainer.features(data.labelled.images), data.labelled.labels, trainer.features(data.test.images),
        data.test.labels, replace(SEED_PROBE, epochs=2), seed=0, num_classes=10,
    )  # fmt: skip
    assert 0 <= found.accuracy_last <= 1
    assert trainer.features(data.labelled.images).shape == (20, 32)


def test_a_truncated_stl10_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stl10(tmp_path, monkeypatch)
    file = tmp_path / "stl10_binary" / "unlabeled_X.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"unlabeled_X.bin is broken"):
        load("stl10", data_dir=str(tmp_path))


# ---------------------------------------------------------------- Fashion-MNIST


def idx(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()


def write_fashion_mnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bytes, Bytes]:
    """The four .gz files, as they are downloaded; returns 30 training and 10 test images."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    train, test = noise(30, 28, 28), noise(10, 28, 28, seed=1)
    labels = (np.arange(30) % 10).astype(np.uint8)
    resources = []
    for (name, _), array in zip(FashionMNIST.resources, (train, labels, test, labels[:10]), strict=True):
        (folder / name).write_bytes(gzip.compress(idx(array)))
        resources.append((name, md5(folder / name)))
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    return train, test


def test_fashion_mnist_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = write_fashion_mnist(tmp_path, monkeypatch)
    data = load("fashion-mnist", data_dir=str(tmp_path))
    assert np.array_equal(data.train.images[:, 0], train)
    assert np.array_equal(data.test.images[:, 0], test)
    assert data.train.labels.tolist() == list(range(10)) * 3
    assert data.classes[9] == "Ankle boot"
    assert (data.info.image_size, data.info.channels) == (28, 1)


@pytest.mark.parametrize("keep", [2, 10, 1000])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_truncated_idx_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, keep: int) -> None:
    write_fashion_mnist(tmp_path, monkeypatch)
    load("fashion-mnist", data_dir=str(tmp_path))
    file = tmp_path / "FashionMNIST" / "raw" / name
    file.write_bytes(file.read_bytes()[: min(keep, file.stat().st_size - 1)])
    with pytest.raises(DataError, match=f"{name} is broken"):
        load("fashion-mnist", data_dir=str(tmp_path))
    file.unlink()
    assert len(load("fashion-mnist", data_dir=str(tmp_path)).train) == 30


def test_a_truncated_gz_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path, monkeypatch)
    file = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz is broken"):
        load("fashion-mnist", data_dir=str(tmp_path))


# ---------------------------------------------------------------- no network


@pytest.mark.parametrize(
    ("dataset", "file", "folder"),
    [
        ("cifar10", "cifar-10-python.tar.gz", "."),
        ("stl10", "stl10_binary.tar.gz", "."),
        ("fashion-mnist", "t10k-labels-idx1-ubyte.gz", "FashionMNIST/raw"),
    ],
)
def test_without_a_network_the_way_out_is_told(dataset: str, file: str, folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load(dataset, data_dir=str(tmp_path / "here"))
    message = str(caught.value)
    assert file in message
    assert f"into {tmp_path / 'here' / folder} and" in message
    assert "https://" in message


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="could not be downloaded"):
        load("cifar10", data_dir=str(tmp_path / "file" / "data"))


# ---------------------------------------------------------------- folders


def write_folder(root: Path, classes: dict[str, int], size: int = 32, suffix: str = ".png") -> None:
    """``classes[name]`` training images and one test image for each class."""
    for split in ("train", "test"):
        for n, (name, count) in enumerate(classes.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count if split == "train" else 1):
                pixels = noise(size, size, 3, seed=100 * n + k + (50 if split == "test" else 0))
                Image.fromarray(pixels).save(folder / f"{k:02}{suffix}")


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    write_folder(tmp_path, {"zebra": 2, "ant": 3})
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    data = load(tmp_path)
    assert data.classes == ("ant", "zebra")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    want = [noise(32, 32, 3, seed=seed).transpose(2, 0, 1) for seed in (100, 101, 102, 0, 1)]
    assert np.array_equal(data.train.images, np.stack(want))
    assert data.train.images.is_contiguous()
    assert data.labelled is data.train
    assert data.info.name == FOLDER.name
    assert (data.info.image_size, data.info.channels) == (32, 3)


def test_other_sizes_are_resized_and_cut_as_torchvision_does(tmp_path: Path) -> None:
    import torchvision.transforms.functional as TF

    write_folder(tmp_path, {"a": 1})
    Image.fromarray(noise(50, 77, 3)).save(tmp_path / "train" / "a" / "wide.png")
    Image.fromarray(noise(21, 16, 3)).save(tmp_path / "train" / "a" / "tall.png")
    data = load(tmp_path, image_size=24)
    assert data.info.image_size == 24
    for k, name in enumerate(["00.png", "tall.png", "wide.png"]):
        with Image.open(tmp_path / "train" / "a" / name) as image:
            want = TF.center_crop(TF.resize(image, 24), [24, 24])
        assert np.array_equal(data.train.images[k], np.asarray(want).transpose(2, 0, 1)), name


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", ".PNG"), ("RGBA", ".webp"), ("CMYK", ".JPEG"), ("1", ".bmp"), ("I;16", ".png"), ("P", ".Png")],
)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    write_folder(tmp_path, {"a": 1})
    level = 153  # in Pillow's palette, so that nothing is dithered
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), level * 256, dtype=np.uint16))
    else:
        image = Image.new("RGB", (32, 32), (level, level, level)).convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes([255, 0])
    image.save(tmp_path / "train" / "a" / f"x{suffix}")
    pixels = load(tmp_path).train.images[1].float()
    if mode == "1":  # dithered to black and white
        assert set(pixels.flatten().tolist()) == {0.0, 255.0}
    else:
        assert (pixels - level).abs().max() <= 3


def test_large_files_are_decoded_by_threads_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "set", {"a": 90, "b": 80}, size=8)
    one = load(tmp_path / "set", image_size=8)
    monkeypatch.setattr(ssl_lab.datasets, "THREADS_FROM", 0)
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "other"))
    many = load(tmp_path / "set", image_size=8)
    assert torch.equal(one.train.images, many.train.images)


def break_missing(root: Path) -> Path:
    return root / "nothing"


def break_no_test(root: Path) -> Path:
    (root / "test").rename(root / "validation")
    return root


def break_no_class(root: Path) -> Path:
    for folder in (root / "train").iterdir():
        folder.rename(root / folder.name)
    return root


def break_empty_class(root: Path) -> Path:
    (root / "train" / "a" / "00.png").unlink()
    return root


def break_other_class(root: Path) -> Path:
    (root / "test" / "b").rename(root / "test" / "c")
    return root


def break_cut_image(root: Path) -> Path:
    file = root / "train" / "b" / "00.png"
    file.write_bytes(file.read_bytes()[:500])
    return root


def break_no_image(root: Path) -> Path:
    (root / "test" / "b" / "00.png").write_text("not an image")
    return root


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_missing, r"There is no folder .*nothing"),
        (break_no_test, r"set/test cannot be read: No such file"),
        (break_no_class, r"set/train has no folders of classes"),
        (break_empty_class, r"set/train/a has no images"),
        (break_other_class, r"differ: b in train but not in test"),
        (break_cut_image, r"set/train/b/00.png cannot be read"),
        (break_no_image, r"set/test/b/00.png cannot be read"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path, damage: Callable[[Path], Path], message: str) -> None:
    write_folder(tmp_path / "set", {"a": 1, "b": 2})
    with pytest.raises(DataError, match=message):
        load(damage(tmp_path / "set"))


# ---------------------------------------------------------------- the cache


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the images that were decoded."""
    seen: list[str] = []
    decode = ssl_lab.datasets._decode

    def counted(path: str, size: int) -> Bytes:
        seen.append(path)
        return decode(path, size)

    monkeypatch.setattr(ssl_lab.datasets, "_decode", counted)
    return seen


def test_a_second_start_decodes_nothing(tmp_path: Path, decodes: list[str]) -> None:
    write_folder(tmp_path / "set", {"a": 3, "b": 2})
    first = load(tmp_path / "set")
    assert len(decodes) == 7
    second = load(tmp_path / "set")
    assert len(decodes) == 7
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.images, second.test.images)
    assert torch.equal(first.train.labels, second.train.labels)


def test_changed_files_are_decoded_again_and_the_old_cache_goes(tmp_path: Path, decodes: list[str]) -> None:
    write_folder(tmp_path / "set", {"a": 3})
    load(tmp_path / "set")
    file = tmp_path / "set" / "train" / "a" / "01.png"
    Image.fromarray(noise(32, 32, 3, seed=99)).save(file)
    os.utime(file, (1, 1))
    data = load(tmp_path / "set")
    assert len(decodes) == 8
    assert np.array_equal(data.train.images[1], noise(32, 32, 3, seed=99).transpose(2, 0, 1))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    load(tmp_path / "set", image_size=16)
    load(tmp_path / "set", train_limit=2)
    assert len(decodes) == 8 + 4 + 3
    load(tmp_path / "set")
    assert len(decodes) == 8 + 4 + 3
    assert len(list((tmp_path / "cache").iterdir())) == 3


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def other_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))


def other_shape(file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, train=np.zeros((1, 3, 32, 32), dtype=np.uint8), test=np.zeros((1, 3, 32, 32), dtype=np.uint8))


@pytest.mark.parametrize("damage", [cut, flip_a_bit, empty, other_array, other_shape])
def test_a_broken_cache_is_made_anew(tmp_path: Path, decodes: list[str], damage: Callable[[Path], None]) -> None:
    write_folder(tmp_path / "set", {"a": 3})
    first = load(tmp_path / "set")
    (file,) = (tmp_path / "cache").iterdir()
    damage(file)
    assert torch.equal(load(tmp_path / "set").train.images, first.train.images)
    assert len(decodes) == 8
    load(tmp_path / "set")
    assert len(decodes) == 8


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, decodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "set", {"a": 1})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "file" / "cache"))
    load(tmp_path / "set")
    load(tmp_path / "set")
    assert len(decodes) == 4


def test_a_full_disk_leaves_no_half_written_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, **_: Any) -> None:
        stream.write(b"PK")
        raise OSError(28, "No space left on device")

    write_folder(tmp_path / "set", {"a": 1})
    monkeypatch.setattr(np, "savez", full)
    load(tmp_path / "set")
    assert list((tmp_path / "cache").iterdir()) == []


def a_bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train", "test"):
            body = io.BytesIO()
            np.save(body, np.zeros((2, 3, 32, 32), dtype=np.uint8))
            archive.writestr(f"{name}.npy", body.getvalue())


def a_pickle(file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, train=np.array([Payload()], dtype=object), test=np.zeros((2, 3, 32, 32), dtype=np.uint8))


def a_head_that_lies(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data.replace(b"(2, 3, 32, 32)", b"(9, 9, 99, 99)"))


@pytest.mark.parametrize("damage", [a_bomb, a_pickle, a_head_that_lies])
def test_a_crafted_cache_is_not_read(
    tmp_path: Path, decodes: list[str], damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNED", str(tmp_path / "owned"))
    write_folder(tmp_path / "set", {"a": 1, "b": 1})
    first = load(tmp_path / "set")
    (file,) = (tmp_path / "cache").iterdir()
    damage(file)
    assert torch.equal(load(tmp_path / "set").train.images, first.train.images)
    assert len(decodes) == 8
    assert not (tmp_path / "owned").exists()


# ---------------------------------------------------------------- what a stranger made


class Payload:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["OWNED"],)


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("archive", [None, "broken", "another"])
def test_no_pickle_is_looked_into_that_is_not_of_the_official_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: str | None
) -> None:
    monkeypatch.setenv("OWNED", str(tmp_path / "owned"))
    evil = pickle.dumps({"data": Payload(), "labels": []}, protocol=2)
    names = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
    for name in (*names, CIFAR10.meta["filename"]):
        put(tmp_path / "data" / CIFAR10.base_folder / name, evil)
    if archive == "broken":
        put(tmp_path / "data" / CIFAR10.filename, b"\x1f\x8b half")
    if archive == "another":
        with tarfile.open(tmp_path / "data" / CIFAR10.filename, "w:gz") as tar:
            for path in ("../outside", str(tmp_path / "outside"), f"{CIFAR10.base_folder}/data_batch_1"):
                entry = tarfile.TarInfo(path)
                entry.size = len(evil)
                tar.addfile(entry, io.BytesIO(evil))
    with pytest.raises(DataError, match="data_batch_1"):
        load("cifar10")
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "outside").exists()


def test_a_pickle_of_the_right_checksum_may_hold_arrays_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNED", str(tmp_path / "owned"))
    write_cifar10(tmp_path, monkeypatch)
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.write_bytes(pickle.dumps({"data": Payload(), "labels": [1]}, protocol=2))
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(batch)]])
    with pytest.raises(DataError, match="expected NumPy arrays"):
        load("cifar10", data_dir=str(tmp_path))
    assert not (tmp_path / "owned").exists()


def test_pickles_that_torchvision_once_wrote_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNED", str(tmp_path / "owned"))
    train, _ = write_fashion_mnist(tmp_path, monkeypatch)
    for name in ("training.pt", "test.pt"):
        put(tmp_path / "FashionMNIST" / "processed" / name, pickle.dumps(Payload()))
    assert np.array_equal(load("fashion-mnist", data_dir=str(tmp_path)).train.images[:, 0], train)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "head",
    [
        bytes([0, 0, 8, 3]) + np.array([2**31 - 1, 28, 28], dtype=">i4").tobytes(),
        # Whose product wraps around to nothing.
        bytes([0, 0, 8, 4]) + np.array([2**16] * 4, dtype=">i4").tobytes(),
        bytes([0, 0, 8, 3]) + np.array([-30, -28, 28], dtype=">i4").tobytes(),
        bytes([0, 0, 8, 255]),
        bytes([0, 0, 14, 3]) + np.array([30, 28, 28], dtype=">i4").tobytes(),
    ],
)
def test_an_idx_file_that_lies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    write_fashion_mnist(tmp_path, monkeypatch)
    load("fashion-mnist", data_dir=str(tmp_path))
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(head + file.read_bytes()[16:])
    with pytest.raises(DataError, match="train-images-idx3-ubyte is broken"):
        load("fashion-mnist", data_dir=str(tmp_path))


def test_names_of_classes_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stl10(tmp_path, monkeypatch)
    for content in (b"\xff" * 20, b"x\n" * 10**6, b"a\nb"):
        put(tmp_path / "stl10_binary" / "class_names.txt", content)
        assert load("stl10", data_dir=str(tmp_path), train_limit=10).classes[0] == "airplane"


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def eps(_: Path) -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(owned) (w) file closefile\nshowpage\n"


def gif(folder: Path) -> bytes:
    Image.new("RGB", (9, 9)).save(folder / "x.gif")
    return (folder / "x.gif").read_bytes()


def many_scans(folder: Path) -> bytes:
    Image.fromarray(noise(40, 40, 3)).save(folder / "x.jpg", progressive=True)
    data = (folder / "x.jpg").read_bytes()
    return data[:-2] + data[data.index(b"\xff\xda") : -2] * 500


def packed_bmp(folder: Path) -> bytes:
    Image.new("L", (9, 9)).save(folder / "x.bmp")
    data = bytearray((folder / "x.bmp").read_bytes())
    data[30] = 1
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (eps, "cannot identify"),
        (gif, "cannot identify"),
        (lambda _: png(9_000, 9_000, b"\0"), "at most 25 million pixels and says that it has 9000 x 9000"),
        (lambda _: png(1, 2_000_000, b"\0" * 8_000_000), "as narrow as 1 x 2000000"),
        (many_scans, "at most 100 scans"),
        (packed_bmp, "should not be compressed"),
    ],
)
def test_an_image_that_is_no_picture_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[Path], bytes], words: str
) -> None:
    """Whatever it is called; some kinds would start another program, others take all memory."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("another program was started"))
    write_folder(tmp_path / "set", {"a": 1})
    file = tmp_path / "set" / "train" / "a" / "00.png"
    file.write_bytes(content(tmp_path))
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path / "set")
    assert str(file) in str(caught.value)


def test_images_are_brought_to_another_size() -> None:
    whole, small = (load_dataset(preset("byol", train_limit=50, test_limit=20, image_size=size)) for size in (None, 16))
    assert small.info.image_size == 16
    assert small.train.images.shape == (50, 1, 16, 16)
    assert small.train.images.dtype == torch.uint8
    assert small.labelled is small.train
    assert torch.equal(small.train.labels, whole.train.labels)
    # The same pictures: averaged back they differ by the interpolation only.
    back = torch.nn.functional.avg_pool2d(small.test.images.float(), 2)
    both = torch.stack([back.flatten(), whole.test.images.float().flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.97
