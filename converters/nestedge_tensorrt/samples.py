"""The reference of an artifact in batches."""

from __future__ import annotations

import numpy as np

from nestedge.artifact import Reference
from nestedge.plugins import Array


def in_batches(reference: Reference, size: int) -> Reference:
    """The cases of a reference, each of one sample, as cases of so many samples.

    The first samples stand again at the end of the last batch, where it is not full.
    """
    count = -(-reference.cases // size)
    order = np.arange(count * size) % reference.cases

    def batches(array: Array) -> Array:
        found: Array = array[order]
        return found.reshape(count, size * array.shape[1], *array.shape[2:])

    return Reference(
        {name: batches(array) for name, array in reference.inputs.items()},
        {name: batches(array) for name, array in reference.outputs.items()},
    )
