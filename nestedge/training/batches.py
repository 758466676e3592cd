"""What training data is: batches of inputs and a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data.distributed import DistributedSampler

from nestedge.errors import UsageError
from nestedge.inputs import as_call
from nestedge.model import NestedModel

Batch = tuple[Any, Any] | list[Any]
"""Inputs and a target; a list of the two is what a DataLoader gives.

Inputs are as for `nest`: a tensor, a tuple of positional inputs or a dict of keyword inputs, on
the device of the network.
"""

Batches = Iterable[Batch]
"""A list of batches, a DataLoader, or anything else that gives batches anew each time."""


def read_batches(batches: Iterable[object]) -> Iterator[tuple[Any, Any]]:
    """The batches, each checked to be a pair.

    Raises:
        UsageError: there is no batch, or one is not a pair of inputs and a target.
    """
    count = 0
    for batch in batches:
        # A tensor of two rows would unpack as well, into two samples.
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise UsageError(
                f"batch {count}: expected a pair (inputs, target), found {_shown(batch)}; "
                "give (inputs, None) where there is no target"
            )
        count += 1
        inputs, target = batch
        yield inputs, target
    if not count:
        raise UsageError(
            "batches: expected at least one, found none; give a list or a DataLoader, since an "
            "iterator that has run once is empty"
        )


def _shown(batch: object) -> str:
    length = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    return f"a {type(batch).__name__}{length}"


def predict(nested: NestedModel, inputs: Any) -> Any:
    """What the network gives for the inputs of a batch."""
    args, kwargs = as_call(inputs)
    return nested(*args, **kwargs)


def same(output: Any) -> Any:
    """The output itself: the logits of a network that returns nothing else."""
    return output


def set_epoch(batches: Batches, epoch: int) -> None:
    """Tell a DistributedSampler which epoch it is: else it shuffles alike in all."""
    sampler = getattr(batches, "sampler", None)
    if isinstance(sampler, DistributedSampler):
        sampler.set_epoch(epoch)
