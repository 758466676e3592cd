"""Batches of images as a network takes them: drawn, augmented and normalised batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torch.utils.data.distributed import DistributedSampler

from nestedge.errors import NestedgeError, UsageError
from nestedge.preprocessing import Preprocessing
from nestedge.training.datasets import Images
from nestedge.training.processes import processes

Augmentation = Literal["none", "crop-flip"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

Drawn = tuple[torch.Tensor, torch.Tensor]
"""Images and their classes."""


class _Batch(Dataset[Drawn | NestedgeError]):
    """Images by lists of indices, because collating single ones would take longer."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images.classes)

    def __getitem__(self, indices: Sequence[int]) -> Drawn | NestedgeError:
        try:
            return self._images.pixels(indices), self._images.classes[list(indices)]
        except NestedgeError as error:
            # Raised in a worker, torch would bury it in the worker's traceback.
            return error


@dataclass(frozen=True)
class ImageBatches:
    """Batches of images; each time it is gone through, they are drawn anew.

    Augmentation draws from torch's global generator in this process, whatever the workers, so that
    a seed gives the same batches and a training that is resumed goes on with them.

    Attributes:
        loader: gives images of 8 bits and their classes.
        steps: how an image becomes the input.
        augmentation: of every image.
        device: where the batches are.
        sampler: what shares the images out to several processes; None in a single one.
    """

    loader: DataLoader[Drawn | NestedgeError]
    steps: Preprocessing
    augmentation: Augmentation
    device: torch.device
    sampler: DistributedSampler[int] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Drawn]:
        for drawn in self.loader:
            if isinstance(drawn, NestedgeError):
                raise drawn
            pixels, classes = (part.to(self.device, non_blocking=True) for part in drawn)
            if self.augmentation == "crop-flip":
                pixels = cropped_and_flipped(pixels)
            yield as_inputs(pixels, self.steps), classes


def training_batches(
    images: Images,
    steps: Preprocessing,
    *,
    batch: int,
    augmentation: Augmentation,
    workers: int,
    device: torch.device,
    seed: int,
) -> ImageBatches:
    """All images in an order that is drawn anew for every epoch; a last smaller batch is left out.

    Args:
        images: to train with.
        steps: how an image becomes the input.
        batch: images of a step, of all processes together.
        augmentation: of every image.
        workers: processes that read images; 0 reads them in this one.
        device: where the batches are to be.
        seed: of the order, where several processes share the images.

    Raises:
        UsageError: the images do not fill one batch, or the processes cannot share it evenly.
    """
    count, data = processes(), _Batch(images)
    if batch % count:
        raise UsageError(f"data.batch: expected a multiple of {count} processes, found {batch}")
    if batch > len(data):
        raise UsageError(
            f"data.batch: expected at most {len(data)}, the training images, found {batch}"
        )
    shared: DistributedSampler[int] | None = None
    if count > 1:
        shared = DistributedSampler(data, seed=seed, drop_last=True)
    order = BatchSampler(shared or RandomSampler(data), batch // count, drop_last=True)
    loader = _loader(data, order, workers)
    return ImageBatches(loader, steps, augmentation, device, shared)


def plain_batches(
    images: Images,
    steps: Preprocessing,
    *,
    batch: int,
    device: torch.device,
    workers: int = 0,
) -> ImageBatches:
    """All images in their order, as they are."""
    data = _Batch(images)
    return ImageBatches(
        _loader(data, BatchSampler(range(len(data)), batch, drop_last=False), workers),
        steps,
        "none",
        device,
    )


def _loader(data: _Batch, order: BatchSampler, workers: int) -> DataLoader[Drawn | NestedgeError]:
    return DataLoader(data, sampler=order, batch_size=None, num_workers=workers)


def as_inputs(pixels: torch.Tensor, steps: Preprocessing) -> torch.Tensor:
    """Images as the network takes them: the same numbers as `steps.apply` gives for each.

    Args:
        pixels: uint8, shape (count, channels, height, width), grey or R, G, B.
        steps: how an image becomes the input.
    """
    if steps.colour == "BGR":
        pixels = pixels.flip(1)
    # In double precision and rounded once, for each value that a pixel can have.
    values = torch.arange(256, dtype=torch.float64)[None] * steps.scale
    mean, deviation = (
        torch.tensor(n, dtype=torch.float64)[:, None] for n in (steps.mean, steps.std)
    )
    known = ((values - mean) / deviation).float().to(pixels.device)
    channels = torch.arange(len(known), device=pixels.device)[:, None, None]
    found = known[channels, pixels.long()]
    return found if steps.layout == "NCHW" else found.permute(0, 2, 3, 1).contiguous()


def cropped_and_flipped(pixels: torch.Tensor, *, padding: int | None = None) -> torch.Tensor:
    """Crops of padded images, half of them mirrored: what CIFAR is usually trained with.

    As in deeply-supervised nets (Lee et al., 2015, arXiv:1409.5185) and residual networks (He et
    al., 2016, arXiv:1512.03385). Draws from torch's global generator, on the CPU, so that every
    device sees the same crops.

    Args:
        pixels: uint8, shape (count, channels, height, width).
        padding: black pixels on every side, of which a crop of the old size is taken; an eighth
            of the shorter side unless given, which is the 4 that CIFAR's 32 pixels get.
    """
    count, _, height, width = pixels.shape
    padding = min(height, width) // 8 if padding is None else padding
    top, left = torch.randint(2 * padding + 1, (2, count, 1))
    mirrored = torch.rand(count, 1) < 0.5
    across = torch.arange(width)
    rows = (top + torch.arange(height)).to(pixels.device)
    columns = (left + torch.where(mirrored, width - 1 - across, across)).to(pixels.device)
    padded = F.pad(pixels, (padding, padding, padding, padding))
    which = torch.arange(count, device=pixels.device)[:, None, None]
    # Indices on both sides of a slice put the sliced axis last.
    found = padded[which, :, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2).contiguous()
