"""CIFAR-10 as JPEG: class folders in a .tar, decoded once and kept in a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.seeds.budget import Budget
from nestedge.preprocessing import Preprocessing
from nestedge.training import Batch
from nestedge.training.datasets import DataSet, ImageTensor, channel_statistics, with_fewer
from nestedge.training.image_batches import ImageBatches, as_inputs, training_batches
from nestedge.training.image_folders import image_folder, read_images

MEMORY = 2**30
TEST_BATCH = 500


@dataclass(frozen=True)
class Images:
    """The images of a benchmark.

    Attributes:
        data: those of the budget.
        steps: how they become inputs.
    """

    data: DataSet
    steps: Preprocessing

    def train(self, budget: Budget) -> ImageBatches:
        """Batches to train with, cropped and flipped."""
        return training_batches(
            self.data.train,
            self.steps,
            batch=budget.batch,
            augmentation="crop-flip",
            workers=0,
            device=torch.device("cpu"),
            seed=0,
        )

    def calibration(self, count: int = 2000) -> list[Batch]:
        """Training images without augmentation, for batch-norm statistics and training losses."""
        return self._batches(self.data.train, count)

    def test(self) -> list[Batch]:
        """All images to test with."""
        return self._batches(self.data.test, len(self.data.test.classes))

    def _batches(self, images: object, count: int) -> list[Batch]:
        assert isinstance(images, ImageTensor)
        starts = range(0, min(count, len(images.classes)), TEST_BATCH)
        return [
            (
                as_inputs(images.tensor[start : start + TEST_BATCH], self.steps),
                images.classes[start : start + TEST_BATCH],
            )
            for start in starts
        ]


@lru_cache(maxsize=1)
def load_images(archive: Path, cache: Path, budget: Budget) -> Images:
    """The images of a budget.

    Args:
        archive: class folders in "train" and "test", in a folder or a .tar.
        cache: a file that keeps them decoded.
        budget: how many to train with.
    """
    decode_images(archive, cache)
    with np.load(cache) as stored:
        parts = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "labels"}
        labels = tuple(map(str, stored["labels"]))
    train, test = (
        ImageTensor(_averaged(parts[name], budget.pixels), parts[f"{name}_classes"])
        for name in ("train", "test")
    )
    whole = DataSet(labels, train, test)
    mean, std = channel_statistics(whole.train)
    steps = Preprocessing(input="x", scale=1 / 255, mean=mean, std=std, layout="NCHW", colour="RGB")
    return Images(with_fewer(whole, limit=budget.images), steps)


def _averaged(images: torch.Tensor, pixels: int) -> torch.Tensor:
    """Images of that many pixels, the means of squares; uint8, shape (count, channels, *, *)."""
    side = images.shape[-1] // pixels
    return images if side == 1 else F.avg_pool2d(images.float(), side).round().byte()


def decode_images(archive: Path, cache: Path) -> None:
    """Keep the decoded images in a file, unless it is there already."""
    if cache.exists():
        return
    found = read_images(image_folder(archive, memory=MEMORY), memory=MEMORY, skip_broken=False)
    arrays: dict[str, Any] = {}
    for name, images in (("train", found.train), ("test", found.test)):
        assert isinstance(images, ImageTensor)
        arrays |= {name: images.tensor.numpy(), f"{name}_classes": images.classes.numpy()}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.open("wb") as file:
        np.savez(file, labels=np.array(found.labels), **arrays)
