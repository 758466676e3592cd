"""The demo's training recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from nestedge.card import Card
from nestedge.demo.data import NAMES, PREPROCESSING, DigitsData, Split, load_digits
from nestedge.demo.network import DigitsNet
from nestedge.model import NestedModel
from nestedge.nested import nest
from nestedge.training import Batch, Progress, accuracy, joint_objective, train

LEVELS = {"small": 0.25, "medium": 0.5, "full": 1.0}

EPOCHS = 10
BATCH = 64
LEARNING_RATE = 0.1
CALIBRATION_CASES = 128


def train_digits(
    progress: Callable[[Progress], None] | None = None, *, seed: int = 0
) -> tuple[NestedModel, DigitsData]:
    """Nest the demo's network and train its levels together, in less than a minute.

    Args:
        progress: as for `nestedge.training.train`.
        seed: of the first weights and of the order of the images.

    Returns:
        The trained network, in evaluation mode, and its data.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    data = load_digits()
    images, digits = _tensors(data.train)
    nested = _nested(images, seed)
    dataset = TensorDataset(images, digits)
    # Whole batches are drawn from the tensors: collating single images would take longer.
    order = BatchSampler(RandomSampler(dataset), BATCH, drop_last=True)
    optimizer = torch.optim.SGD(
        nested.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    test = as_batches(data.test)
    with _one_thread():
        train(
            nested,
            DataLoader(dataset, sampler=order, batch_size=None),
            epochs=EPOCHS,
            objective=joint_objective(nested.levels, F.cross_entropy),
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(order)),
            seed=seed,
            progress=progress,
            evaluate=lambda n: {level: accuracy(n, test, level) for level in n.levels},
        )
    return nested, data


def as_batches(split: Split) -> list[Batch]:
    """A split as batches, in order."""
    images, digits = _tensors(split)
    return list(zip(torch.split(images, 256), torch.split(digits, 256), strict=True))


def _tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.inputs()), torch.from_numpy(split.digits)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A block in which torch computes in one thread.

    The layers are too small to gain from more, and on a busy machine threads wait for one another:
    minutes instead of seconds. One thread also sums in the same order whatever the cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _nested(images: torch.Tensor, seed: int) -> NestedModel:
    # The first weights are drawn from the global generator, which others may be using.
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = DigitsNet()
    card = Card(labels=NAMES, preprocessing=PREPROCESSING)
    # The images are in no order, so that the first ones are as good as any.
    calibration = images[:CALIBRATION_CASES]
    return nest(model, images[:1], LEVELS, card=card, calibration=calibration)
