"""Folders of images, one folder a class, on disk or in a .tar.

Either there is a folder "train" and one "test" (or "val"), which hold the classes; or the classes
lie at the top, and a share of the images is put aside to test with, by a hash of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nestedge.errors import FormatError, UsageError
from nestedge.training.datasets import DataSet, Images, ImageTensor
from nestedge.training.image_files import Colour, Files, decode, is_image, open_files

_TRAIN, _TEST = "train", ("test", "val")

Names = dict[str, list[str]]
"""The names of the images of every class."""


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Images that are read when they are asked for.

    Attributes:
        files: where they are.
        names: of the images among the files.
        classes: int64, shape (count,).
        shape: channels, height and width of every image.
        is_resized: whether images of another size are stretched to that one.
    """

    files: Files
    names: tuple[str, ...]
    classes: torch.Tensor
    shape: tuple[int, int, int]
    is_resized: bool

    def pixels(self, indices: Sequence[int]) -> torch.Tensor:
        """Some images, in this order.

        Raises:
            FormatError: one of them is broken.
            UsageError: one of them is of another size.
        """
        found = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        for place, index in enumerate(indices):
            found[place] = self.image(int(index))
        return found

    def image(self, index: int) -> torch.Tensor:
        """One image.

        Raises:
            FormatError: it is broken.
            UsageError: it is of another size.
        """
        name, (channels, *size) = self.names[index], self.shape
        where, content = f"{self.files.root}/{name}", self.files.read(name)
        colour: Colour = "GRAY" if channels == 1 else "RGB"
        wanted = (size[0], size[1])
        found = decode(content, where, colour=colour, size=wanted if self.is_resized else None)
        if found.shape[1:] != wanted:
            raise UsageError(
                f"{where}: expected {wanted[1]}x{wanted[0]} pixels as the first image has, found "
                f"{found.shape[2]}x{found.shape[1]}: give data.size, to which all are stretched"
            )
        return found

    def subset(self, indices: Sequence[int]) -> FolderImages:
        """Only these images, in this order."""
        names = tuple(self.names[int(index)] for index in indices)
        return replace(self, names=names, classes=self.classes[list(indices)])


def image_folder(
    root: Path,
    *,
    size: tuple[int, int] | None = None,
    colour: Colour = "RGB",
    test_share: float = 0.2,
    skip_broken: bool = False,
    memory: int = 2**31,
) -> DataSet:
    """The images of a folder, each of which is read when it is asked for; see `in_memory`.

    Args:
        root: a folder, or a .tar of one.
        size: height and width that all images are stretched to; None expects that all are as
            large as the first.
        colour: what images are converted to.
        test_share: of the images to put aside, where no folder says which are to test with.
        skip_broken: whether the first image may be broken.
        memory: the most bytes that the files of a compressed .tar may take.

    Raises:
        UsageError: there is no such folder, fewer than two classes, a class without an image, or
            other classes to test with than to train with.
        FormatError: the first image is broken, or the .tar is.
        MissingDependencyError: pillow is not installed.
    """
    files = open_files(root, memory=memory)
    train, test = _split(files, test_share)
    first = [name for names in train.values() for name in names]
    shape = _shape(files, first, colour=colour, size=size, skip_broken=skip_broken)
    parts = [
        FolderImages(
            files,
            tuple(name for label in train for name in part[label]),
            torch.tensor([n for n, label in enumerate(train) for _ in part[label]]),
            shape,
            size is not None,
        )
        for part in (train, test)
    ]
    return DataSet(tuple(train), parts[0], parts[1])


def _split(files: Files, test_share: float) -> tuple[Names, Names]:
    top = _top(files)
    inner = {folder.rpartition("/")[2]: folder for folder in _inside(files, top)}
    if _TRAIN not in inner:
        classes = _classes(files, top)
        _check_count(classes, files.root)
        return _put_aside(classes, test_share, files.root)
    testing = next((inner[name] for name in _TEST if name in inner), None)
    if testing is None:
        raise UsageError(f"{files.root}: has 'train', and neither 'test' nor 'val' beside it")
    train, test = _classes(files, inner[_TRAIN]), _classes(files, testing)
    for one, other, name in ((train, test, _TRAIN), (test, train, testing.rpartition("/")[2])):
        if missing := sorted(other.keys() - one.keys()):
            raise UsageError(f"{files.root}: expected the class {missing[0]!r} in {name!r} too")
    _check_count(train, files.root)
    return train, test


def _check_count(classes: Names, root: Path) -> None:
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        raise UsageError(
            f"{root}: expected a folder for each of two classes or more, found {found}"
        )


def _top(files: Files) -> str:
    """The folder that holds the classes, or "train" and "test": archives often have one around."""
    top = ""
    while True:
        inner = _inside(files, top)
        if len(inner) != 1 or inner[0].rpartition("/")[2] == _TRAIN or not _inside(files, inner[0]):
            return top
        top = inner[0]


def _inside(files: Files, folder: str) -> list[str]:
    """The folders right inside a folder; "" is the root."""
    return [f for f in files.folders if f.rpartition("/")[0] == folder and not _is_hidden(f)]


def _is_hidden(folder: str) -> bool:
    return folder.rpartition("/")[2].startswith(".")


def _classes(files: Files, folder: str) -> Names:
    prefix = f"{folder}/" if folder else ""
    found: Names = {f.rpartition("/")[2]: [] for f in _inside(files, folder)}
    for name in filter(is_image, files.names):
        if not name.startswith(prefix):
            continue
        label, separator, _ = name.removeprefix(prefix).partition("/")
        if not separator:
            raise UsageError(f"{files.root}/{name}: expected an image inside the folder of a class")
        found[label].append(name)
    for label, names in found.items():
        if not names:
            raise UsageError(f"{files.root}/{prefix}{label}: expected images, found none")
    return found


def _put_aside(classes: Names, share: float, root: Path) -> tuple[Names, Names]:
    """A share of every class to test with, by a hash: a new image moves no other one."""
    parts: tuple[Names, Names] = ({}, {})
    for label, names in classes.items():
        for part, is_test in zip(parts, (False, True), strict=True):
            part[label] = [name for name in names if (_hashed(name) < share) == is_test]
            if not part[label]:
                what = "test" if is_test else "train"
                raise UsageError(
                    f"{root}: none of the {len(names)} images of {label!r} is left to {what} with; "
                    "give other shares by data.test, or folders 'train' and 'test'"
                )
    return parts


def _hashed(name: str) -> float:
    """A number of 0 to 1 that only the last two parts of a name decide: its class and its file."""
    text = "/".join(name.split("/")[-2:])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _shape(
    files: Files,
    names: Sequence[str],
    *,
    colour: Colour,
    size: tuple[int, int] | None,
    skip_broken: bool,
) -> tuple[int, int, int]:
    """Channels, height and width: as asked for, or as the first image has them."""
    channels = 1 if colour == "GRAY" else 3
    if size is not None:
        return (channels, *size)
    for name in names:
        try:
            pixels = decode(files.read(name), f"{files.root}/{name}", colour=colour, size=None)
        except FormatError:
            if not skip_broken:
                raise
            continue
        return channels, int(pixels.shape[1]), int(pixels.shape[2])
    raise FormatError(f"{files.root}: all of its {len(names)} images are broken")


def read_images(data: DataSet, *, memory: int, skip_broken: bool) -> DataSet:
    """The images of a folder in memory, if they fit; else as they are, to be read batch by batch.

    Args:
        data: what `image_folder` gave, or a part of it.
        memory: the most bytes that all images may take.
        skip_broken: leaves broken images out and names them, for which all are read once, even
            those that do not fit.

    Raises:
        FormatError: an image is broken, or all of a class are.
        UsageError: an image is of another size.
    """
    parts = (data.train, data.test)
    needed = sum(len(part.classes) for part in parts) * _product(data.train.shape)
    if needed > memory and not skip_broken:
        return data
    skipped: list[str] = []
    found = [_read(part, skipped, keeps=needed <= memory, skips=skip_broken) for part in parts]
    for part, good, what in zip(parts, found, ("train", "test"), strict=True):
        for number in sorted(set(part.classes.tolist()) - set(good.classes.tolist())):
            raise FormatError(f"all images of {data.labels[number]!r} to {what} with are broken")
    return replace(data, train=found[0], test=found[1], skipped=tuple(skipped))


def _read(images: Images, skipped: list[str], *, keeps: bool, skips: bool) -> Images:
    """The images that can be read, in memory if they are kept; names of others are added."""
    assert isinstance(images, FolderImages), "image_folder gave it"
    pixels = torch.empty((len(images.names) if keeps else 1, *images.shape), dtype=torch.uint8)
    good: list[int] = []
    for index, name in enumerate(images.names):
        try:
            pixels[len(good) if keeps else 0] = images.image(index)
        except FormatError:
            if not skips:
                raise
            skipped.append(name)
            continue
        good.append(index)
    if not keeps:
        return images.subset(good)
    return ImageTensor(pixels[: len(good)], images.classes[good])


def _product(shape: tuple[int, int, int]) -> int:
    channels, height, width = shape
    return channels * height * width
