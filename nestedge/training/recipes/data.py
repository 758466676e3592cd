"""The data of a recipe: where it is, and how it becomes batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nestedge.documents import Value
from nestedge.errors import FormatError, UsageError
from nestedge.training.datasets import DataSet, cifar, digits, with_fewer
from nestedge.training.image_batches import AUGMENTATIONS, Augmentation
from nestedge.training.image_files import Colour
from nestedge.training.image_folders import image_folder, read_images
from nestedge.training.recipes.tables import Table, at, table

Kind = Literal["digits", "folder", "cifar10", "cifar100"]

_ALL = (
    "kind",
    "batch",
    "augmentation",
    "workers",
    "fraction",
    "limit",
    "calibration",
    "mean",
    "std",
)
_FOLDER = ("root", "size", "colour", "test", "skip_broken", "memory_mb")
_KEYS: dict[Kind, tuple[str, ...]] = {
    "digits": _ALL,
    "folder": (*_ALL, *_FOLDER),
    "cifar10": (*_ALL, "root"),
    "cifar100": (*_ALL, "root"),
}


@dataclass(frozen=True)
class DataTable:
    """The data of a recipe.

    Attributes:
        kind: of the data.
        root: folder or .tar; None for digits, or where the command line names it.
        batch: images of a step.
        augmentation: of every training image.
        workers: processes that read images.
        fraction: of the training images to train with.
        limit: the most training images to train with.
        calibration: training images that travel with the network for int8.
        mean: of every channel, of pixels of 0..1; None is that of the training images.
        std: as the mean, the standard deviation.
        size: height and width that the images of a folder are stretched to.
        colour: what the images of a folder are converted to.
        test: the share of a folder's images to put aside, where no folder says which.
        skip_broken: whether broken images of a folder are left out.
        memory_mb: the most that a folder's images may take; more are read batch by batch.
    """

    kind: Kind
    root: Path | None
    batch: int
    augmentation: Augmentation
    workers: int
    fraction: float
    limit: int | None
    calibration: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    size: tuple[int, int] | None
    colour: Colour
    test: float
    skip_broken: bool
    memory_mb: int

    def load(self) -> DataSet:
        """The images.

        Raises:
            UsageError: there are none, or too few.
            FormatError: one is broken.
            MissingDependencyError: a package that reads them is not installed.
        """
        if self.kind == "digits":
            return self._fewer(digits())
        if self.root is None:
            raise UsageError(f"data.root: missing: the folder of {self.kind}; or give --data")
        if self.kind != "folder":
            return self._fewer(cifar(self.kind, self.root))
        memory = self.memory_mb * 2**20
        found = image_folder(
            self.root,
            size=self.size,
            colour=self.colour,
            test_share=self.test,
            skip_broken=self.skip_broken,
            memory=memory,
        )
        return read_images(self._fewer(found), memory=memory, skip_broken=self.skip_broken)

    def _fewer(self, data: DataSet) -> DataSet:
        return with_fewer(data, fraction=self.fraction, limit=self.limit)


def data_table(value: Value, folder: Path) -> DataTable:
    """The data that a table describes.

    Args:
        value: the table.
        folder: what its root is relative to.

    Raises:
        FormatError: a key is unknown, missing, or out of range.
    """
    if not isinstance(value.data, dict):
        raise value.error("a table")
    if "kind" not in value.data:
        raise FormatError(f"{at(value, 'kind')}: missing")
    kind: Kind = value.members()["kind"].choice("digits", "folder", "cifar10", "cifar100")
    found = table(value, _KEYS[kind])
    root, limit, augmentation = found.string("root"), found.get("limit"), found.get("augmentation")
    mean, std = found.numbers("mean"), found.numbers("std")
    if (mean is None) != (std is None):
        raise FormatError(f"{value.where}: expected both 'mean' and 'std', or neither")
    return DataTable(
        kind=kind,
        root=None if root is None else folder / Path(root).expanduser(),
        batch=found.required("batch").integer(minimum=1),
        augmentation="none" if augmentation is None else augmentation.choice(*AUGMENTATIONS),
        workers=found.integer("workers", 0, minimum=0),
        fraction=found.share("fraction", 1.0),
        limit=None if limit is None else limit.integer(minimum=1),
        calibration=found.integer("calibration", 128, minimum=0),
        mean=mean,
        std=std,
        size=_size(found),
        colour=_colour(found),
        test=_test(found),
        skip_broken=found.truth("skip_broken", False),
        memory_mb=found.integer("memory_mb", 2048),
    )


def _size(found: Table) -> tuple[int, int] | None:
    value = found.get("size")
    if value is None:
        return None
    if not isinstance(value.data, list):
        side = value.integer(minimum=1)
        return side, side
    sides = [side.integer(minimum=1) for side in value.elements()]
    if len(sides) != 2:
        raise value.error("a side, or [height, width]")
    return sides[0], sides[1]


def _colour(found: Table) -> Colour:
    value = found.get("colour")
    return "RGB" if value is None else value.choice("RGB", "GRAY")


def _test(found: Table) -> float:
    share = found.share("test", 0.2)
    if share == 1:
        raise found.required("test").error("a share below 1")
    return share
