"""Files of images: in a folder or in a .tar, and the pixels in each."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import numpy as np
import torch

from nestedge.errors import FormatError, MissingDependencyError, UsageError
from nestedge.images import IMAGE_SUFFIXES

Colour = Literal["RGB", "GRAY"]

_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


class Files(Protocol):
    """The files of a folder, or of what is read like one.

    Attributes:
        root: what errors call it.
        names: of all files, sorted, with "/" between folders.
        folders: names of all folders.
    """

    root: Path
    names: tuple[str, ...]
    folders: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """The content of a file."""
        ...


@dataclass
class _Disk:
    """A folder on disk."""

    root: Path
    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names, folders = list[str](), list[str]()
        for folder, inner, files in os.walk(self.root):
            at = Path(folder).relative_to(self.root)
            folders += [(at / name).as_posix() for name in inner]
            names += [(at / name).as_posix() for name in files]
        self.names, self.folders = tuple(sorted(names)), tuple(sorted(folders))

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


@dataclass
class _Tar:
    """A .tar: not compressed, its files are read where they lie; compressed, all at once."""

    root: Path
    memory: int
    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_plain = self._is_plain()
        folders = set[str]()
        try:
            # As a stream, so that what is compressed is unpacked once.
            with tarfile.open(self.root, "r:" if is_plain else "r|*") as archive:
                for member in archive:
                    name = str(PurePosixPath(member.name))
                    if member.isdir():
                        folders.add(name)
                    elif member.isfile() and is_image(name):
                        self._take(archive, member, name, is_plain=is_plain)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise FormatError(f"{self.root}: not a whole .tar: {error}") from error
        names = sorted({**self.places, **self.contents})
        parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
        self.names, self.folders = tuple(names), tuple(sorted((folders | parents) - {"."}))

    def _is_plain(self) -> bool:
        try:
            with tarfile.open(self.root, "r:"):
                return True
        except tarfile.TarError:
            return False

    def _take(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, *, is_plain: bool
    ) -> None:
        if is_plain:
            self.places[name] = (member.offset_data, member.size)
            return
        self.memory -= member.size
        if self.memory < 0:
            raise UsageError(
                f"{self.root}: its files take more memory than data.memory_mb allows; unpack it, "
                "or give a .tar that is not compressed, which is read where it lies"
            )
        file = archive.extractfile(member)
        assert file is not None, "it is a file"
        self.contents[name] = file.read()

    def read(self, name: str) -> bytes:
        if name in self.contents:
            return self.contents[name]
        start, size = self.places[name]
        with self.root.open("rb") as file:
            file.seek(start)
            return file.read(size)


def open_files(root: Path, *, memory: int) -> Files:
    """The images of a folder or of a .tar.

    Args:
        root: the one or the other.
        memory: the most bytes that the files of a compressed .tar may take.

    Raises:
        UsageError: there is no such folder or file, or it is too large to unpack.
        FormatError: it is a file, and no whole .tar.
    """
    if root.is_dir():
        return _Disk(root)
    if not root.is_file():
        raise UsageError(f"{root}: no such folder or .tar")
    return _Tar(root, memory)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name; what begins with a dot is not."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(p[0] == "." for p in path.parts)


def decode(
    content: bytes, where: str, *, colour: Colour, size: tuple[int, int] | None
) -> torch.Tensor:
    """The pixels of an image file: uint8, shape (channels, height, width).

    Args:
        content: of the file.
        where: what errors call it.
        colour: what it is converted to.
        size: height and width that it is stretched to; None leaves them as they are.

    Raises:
        MissingDependencyError: pillow is not installed.
        FormatError: it is no image, is truncated, or has more than 8 bits a channel.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("images need pillow: pip install 'nestedge[image]'") from error
    broken = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in _EIGHT_BITS:
                raise FormatError(
                    f"{where}: expected an image of 8 bits a channel, found mode {image.mode}"
                )
            found = image.convert("L" if colour == "GRAY" else "RGB")
            if size is not None and found.size != size[::-1]:
                found = found.resize(size[::-1], Image.Resampling.BILINEAR)
    except broken as error:
        # Pillow's message holds the address of the buffer, and says no more than this.
        reason = "not an image" if "cannot identify" in str(error) else str(error)
        raise FormatError(f"{where}: {reason}; mend it, or leave it out by skip_broken") from error
    pixels = torch.from_numpy(np.array(found, dtype=np.uint8))
    return pixels[None] if colour == "GRAY" else pixels.permute(2, 0, 1)
