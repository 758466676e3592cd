from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nestedge.errors import FormatError, MissingDependencyError, NestedgeError, UsageError
from nestedge.preprocessing import Preprocessing
from nestedge.training.datasets import DataSet, with_fewer
from nestedge.training.image_batches import plain_batches, training_batches
from nestedge.training.image_folders import FolderImages, image_folder, read_images

Content = Mapping[str, bytes]


def png(value: int, *, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> bytes:
    """An image of one colour, and of a width and height."""
    content = io.BytesIO()
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(content, "png")
    return content.getvalue()


def split_content() -> dict[str, bytes]:
    """Two classes, as CIFAR-10's images are laid out; the value of a pixel is an image's number."""
    folders = ("train/cat", "train/dog", "test/cat", "test/dog")
    names = [f"{folder}/{number:02d}.png" for folder in folders for number in range(3)]
    return {name: png(index) for index, name in enumerate(names)}


def as_folder(content: Content, path: Path) -> Path:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    path.mkdir(exist_ok=True)
    return path


def _as_tar(content: Content, path: Path, mode: Any) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _tar(content: Content, path: Path) -> Path:
    return _as_tar(content, path / "x.tar", "w")


def _compressed(content: Content, path: Path) -> Path:
    return _as_tar(content, path / "x.tar.xz", "w:xz")


FORMS: dict[str, Callable[[Content, Path], Path]] = {
    "folder": lambda content, path: as_folder(content, path / "x"),
    "tar": _tar,
    "compressed tar": _compressed,
    "tar with a folder around": lambda c, p: _tar({f"cifar/{n}": d for n, d in c.items()}, p),
}


def _values(images: Any) -> list[int]:
    found: list[int] = images.pixels(range(len(images.classes)))[:, 0, 0, 0].tolist()
    return found


@pytest.mark.parametrize("form", list(FORMS.values()), ids=list(FORMS))
@pytest.mark.parametrize("memory", [2**20, 0], ids=["in memory", "read when asked for"])
def test_images_have_the_class_of_their_folder(
    form: Callable[[Content, Path], Path], memory: int, tmp_path: Path
) -> None:
    content = {**split_content(), "train/cat/notes.txt": b"", "train/.hidden/x.png": b""}
    data = image_folder(form(content, tmp_path))
    data = read_images(data, memory=memory, skip_broken=False)
    assert isinstance(data.train, FolderImages) == (memory == 0)
    assert data.labels == ("cat", "dog")
    assert data.train.shape == (3, 4, 4)
    for part, first in ((data.train, 0), (data.test, 6)):
        assert _values(part) == list(range(first, first + 6))
        assert part.classes.tolist() == [0, 0, 0, 1, 1, 1]
    assert _values(data.train.subset([4, 1])) == [4, 1]


def test_a_compressed_tar_that_does_not_fit_is_to_be_unpacked(tmp_path: Path) -> None:
    path = _compressed(split_content(), tmp_path)
    with pytest.raises(UsageError, match=r"more memory than data\.memory_mb allows; unpack it"):
        image_folder(path, memory=100)


def test_without_folders_a_share_is_put_aside_and_new_images_move_no_others(
    tmp_path: Path,
) -> None:
    names = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(60)]
    folder = as_folder({name: png(9) for name in names}, tmp_path / "x")
    before = _names(image_folder(folder, test_share=0.25))
    assert sorted(before["train"] + before["test"]) == sorted(names)
    assert 18 <= len(before["test"]) <= 42
    as_folder({"cat/new.png": png(9)}, folder)
    after = _names(image_folder(folder, test_share=0.25))
    for part, found in after.items():
        assert set(found) - {"cat/new.png"} == set(before[part])


def _names(data: DataSet) -> dict[str, list[str]]:
    found = {}
    for name, part in (("train", data.train), ("test", data.test)):
        assert isinstance(part, FolderImages)
        found[name] = list(part.names)
    return found


def _without(content: dict[str, bytes], *starts: str) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if not name.startswith(starts)}


WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing in it": ({}, "a folder for each of two classes or more, found none"),
    "one class": ({"cat/1.png": png(1), "cat/2.png": png(2)}, "two classes or more, found cat$"),
    "no folder to test with": (
        _without(split_content(), "test"),
        "has 'train', and neither 'test' nor 'val' beside it",
    ),
    "a class only to train with": (
        _without(split_content(), "test/dog"),
        "expected the class 'dog' in 'test' too",
    ),
    "a class only to test with": (
        _without(split_content(), "train/dog"),
        "expected the class 'dog' in 'train' too",
    ),
    "an image of no class": (
        {**split_content(), "train/x.png": png(1)},
        r"train/x\.png: expected an image inside the folder of a class",
    ),
    "a class without an image": (
        {**_without(split_content(), "train/dog"), "train/dog/notes.txt": b""},
        "train/dog: expected images, found none",
    ),
    "too few to put aside": (
        {"cat/1.png": png(1), "dog/1.png": png(2)},
        r"none of the 1 images of '(cat|dog)' is left to (test|train) with; .* data\.test",
    ),
    "a broken first image": (
        {**split_content(), "train/cat/00.png": b"text"},
        r"train/cat/00\.png: not an image; mend it, or leave it out by skip_broken",
    ),
    "a truncated image": (
        {**split_content(), "train/dog/01.png": png(1, size=(40, 40))[:60]},
        r"train/dog/01\.png: .*; mend it",
    ),
    "another size": (
        {**split_content(), "test/dog/01.png": png(1, size=(5, 4))},
        r"test/dog/01\.png: expected 4x4 pixels .* found 5x4: give data\.size",
    ),
    "16 bits": (
        {**split_content(), "test/dog/01.png": png(1, mode="I;16")},
        r"test/dog/01\.png: expected an image of 8 bits a channel, found mode I;16",
    ),
}


@pytest.mark.parametrize(("content", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_wrong_folder_is_refused_in_one_line(
    content: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    folder = as_folder(content, tmp_path / "x")
    with pytest.raises(NestedgeError, match=message) as caught:
        read_images(image_folder(folder), memory=2**20, skip_broken=False)
    assert "\n" not in str(caught.value)


def test_no_folder_and_no_tar_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none: no such folder or \.tar"):
        image_folder(tmp_path / "none")
    (tmp_path / "x.tar").write_bytes(b"no archive")
    with pytest.raises(FormatError, match=r"x\.tar: not a whole \.tar"):
        image_folder(tmp_path / "x.tar")


@pytest.mark.parametrize("memory", [2**20, 0], ids=["in memory", "read when asked for"])
def test_broken_images_are_left_out_and_named_where_that_is_asked_for(
    memory: int, tmp_path: Path
) -> None:
    content = {**split_content(), "train/cat/00.png": b"text", "test/dog/02.png": b""}
    folder = as_folder(content, tmp_path / "x")
    data = read_images(image_folder(folder, skip_broken=True), memory=memory, skip_broken=True)
    assert data.skipped == ("train/cat/00.png", "test/dog/02.png")
    assert _values(data.train) == [1, 2, 3, 4, 5]
    assert data.train.classes.tolist() == [0, 0, 1, 1, 1]
    assert _values(data.test) == [6, 7, 8, 9, 10]


def test_a_class_of_broken_images_alone_is_not_left_out(tmp_path: Path) -> None:
    broken = {f"test/dog/{n:02d}.png": b"text" for n in range(3)}
    folder = as_folder({**split_content(), **broken}, tmp_path / "x")
    with pytest.raises(FormatError, match="all images of 'dog' to test with are broken"):
        read_images(image_folder(folder, skip_broken=True), memory=2**20, skip_broken=True)


def test_images_are_stretched_and_made_grey_where_that_is_asked_for(tmp_path: Path) -> None:
    content = {**split_content(), "train/dog/01.png": png(200, size=(9, 7))}
    folder = as_folder(content, tmp_path / "x")
    data = read_images(
        image_folder(folder, size=(6, 5), colour="GRAY"), memory=2**20, skip_broken=False
    )
    assert data.train.shape == (1, 6, 5)
    assert _values(data.train) == [0, 1, 2, 3, 200, 5]


def test_fewer_images_are_chosen_before_any_is_read(tmp_path: Path) -> None:
    content = {**split_content(), "train/cat/02.png": b"text"}
    data = with_fewer(image_folder(as_folder(content, tmp_path / "x")), limit=2)
    assert _values(read_images(data, memory=2**20, skip_broken=False).train) == [0, 3]


def test_a_broken_image_is_one_line_where_a_worker_finds_it(tmp_path: Path) -> None:
    content = {**split_content(), "test/dog/02.png": b"text"}
    data = image_folder(as_folder(content, tmp_path / "x"))
    steps = Preprocessing("x", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(FormatError, match=r"^\S*test/dog/02\.png: not an image"):
        list(plain_batches(data.test, steps, batch=2, device=torch.device("cpu"), workers=1))


def test_batches_are_the_same_from_memory_and_from_disk(tmp_path: Path) -> None:
    data = image_folder(as_folder(split_content(), tmp_path / "x"))
    steps = Preprocessing("x", scale=1 / 255, mean=(0.5,) * 3, std=(0.2,) * 3)
    found = []
    for memory in (2**20, 0):
        images = read_images(data, memory=memory, skip_broken=False).train
        torch.manual_seed(0)
        batches = training_batches(
            images,
            steps,
            batch=2,
            augmentation="crop-flip",
            workers=0,
            device=torch.device("cpu"),
            seed=0,
        )
        found.append([np.concatenate([inputs.numpy() for inputs, _ in batches])])
    assert np.array_equal(found[0], found[1])


def test_without_pillow_the_line_to_type_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = as_folder(split_content(), tmp_path / "x")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nestedge\[image\]'"):
        image_folder(folder)
