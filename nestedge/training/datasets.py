"""Images to train and test with: digits that scikit-learn brings along, and torchvision's CIFAR.

Folders of images are read by `nestedge.training.image_folders`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from nestedge.errors import MissingDependencyError, UsageError

Cifar = Literal["cifar10", "cifar100"]

MOST_FOR_STATISTICS = 10_000
"""Images that mean and standard deviation are taken of, spread evenly; they settle long before."""

_CHUNK = 256


class Images(Protocol):
    """Images of one size and what they show, in memory or not."""

    @property
    def classes(self) -> torch.Tensor:
        """The class of every image: int64, shape (count,)."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        ...

    def pixels(self, indices: Sequence[int]) -> torch.Tensor:
        """Some images: uint8, shape (count, channels, height, width), grey or R, G, B.

        Raises:
            FormatError: one of them cannot be read.
        """
        ...

    def subset(self, indices: Sequence[int]) -> Images:
        """Only these images, in this order."""
        ...


@dataclass(frozen=True, eq=False)
class ImageTensor:
    """Images in memory.

    Attributes:
        tensor: uint8, shape (count, channels, height, width).
        classes: int64, shape (count,).
    """

    tensor: torch.Tensor
    classes: torch.Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.tensor.shape
        return channels, height, width

    def pixels(self, indices: Sequence[int]) -> torch.Tensor:
        """Some images, in this order."""
        return self.tensor[torch.as_tensor(indices, dtype=torch.long)]

    def subset(self, indices: Sequence[int]) -> ImageTensor:
        """Only these images, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return ImageTensor(self.tensor[chosen], self.classes[chosen])


@dataclass(frozen=True)
class DataSet:
    """Images to train with, images to test with, and the names of what they show.

    Attributes:
        labels: names of the classes, by their numbers.
        skipped: names of files that were left out because they are broken.
    """

    labels: tuple[str, ...]
    train: Images
    test: Images
    skipped: tuple[str, ...] = ()


def digits() -> DataSet:
    """scikit-learn's 1797 handwritten digits of 8x8 grey pixels.

    Three quarters are to train with, a quarter to test with, every class in proportion.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingDependencyError(
            "the digits need scikit-learn: pip install 'nestedge[demo]'"
        ) from error
    values, classes = datasets.load_digits(return_X_y=True)
    # Its pixels are 0..16; images are of 8 bits.
    pixels = np.round(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    whole = ImageTensor(torch.from_numpy(pixels), torch.from_numpy(np.asarray(classes, np.int64)))
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=0.25, random_state=0, stratify=classes
    )
    parts = [whole.subset(np.asarray(part).tolist()) for part in (train, test)]
    return DataSet(tuple(map(str, range(10))), parts[0], parts[1])


def cifar(kind: Cifar, root: Path) -> DataSet:
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009), as torchvision unpacks it; never downloaded.

    Args:
        kind: which of the two.
        root: the folder that holds "cifar-10-batches-py" or "cifar-100-python".

    Raises:
        MissingDependencyError: torchvision is not installed.
        UsageError: the data is not there, or damaged.
    """
    try:
        datasets = import_module("torchvision.datasets")
    except ImportError as error:
        raise MissingDependencyError(
            f"{kind} needs torchvision: pip install 'nestedge[vision]'; or give its images as a "
            'folder, with kind = "folder"'
        ) from error
    make = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
    try:
        train, test = (
            make(str(root), train=is_train, download=False) for is_train in (True, False)
        )
    except RuntimeError as error:
        raise UsageError(
            f"{root}: no whole {kind} as torchvision unpacks it, and nothing is downloaded: {error}"
        ) from error
    parts = [
        ImageTensor(
            torch.from_numpy(np.ascontiguousarray(part.data)).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(part.targets, dtype=torch.long),
        )
        for part in (train, test)
    ]
    return DataSet(tuple(train.classes), parts[0], parts[1])


def with_fewer(data: DataSet, *, fraction: float = 1.0, limit: int | None = None) -> DataSet:
    """The same data with a part of its training images, every class in proportion.

    Args:
        data: all of it.
        fraction: of the training images, 0 < fraction <= 1.
        limit: the most training images.

    Raises:
        UsageError: fewer images than classes would be left.
    """
    total = len(data.train.classes)
    count = min(round(fraction * total), total if limit is None else limit)
    if count == total:
        return data
    if count < len(data.labels):
        raise UsageError(
            f"data: expected at least {len(data.labels)} training images, one a class, "
            f"found {count} of {total}: give a larger limit or fraction"
        )
    # Evenly spread over images in the order of their classes.
    order = torch.argsort(data.train.classes, stable=True)[spread(total, count)]
    return replace(data, train=data.train.subset(sorted(order.tolist())))


def spread(total: int, count: int) -> list[int]:
    """So many different places of all, spread evenly; all if they are fewer.

    >>> spread(10, 4)
    [0, 2, 5, 7]
    """
    count = min(total, count)
    return [index * total // count for index in range(count)]


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, of pixels of 0..1, to four decimals.

    Raises:
        UsageError: there is no image, or all pixels of a channel are alike.
    """
    chosen = spread(len(images.classes), MOST_FOR_STATISTICS)
    if not chosen:
        raise UsageError("data: expected training images, found none")
    channels = images.shape[0]
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for start in range(0, len(chosen), _CHUNK):
        pixels = images.pixels(chosen[start : start + _CHUNK])
        for channel in range(channels):
            counts[channel] += torch.bincount(pixels[:, channel].flatten().long(), minlength=256)
    shares = counts / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values
    deviation = (shares @ values.square() - mean.square()).clamp(min=0).sqrt()
    found = [tuple(round(float(v), 4) for v in numbers) for numbers in (mean, deviation)]
    if 0 in found[1]:
        raise UsageError(
            f"data: expected different pixels, found those of channel {found[1].index(0)} all "
            "alike: give mean and std"
        )
    return found[0], found[1]
