"""A data set with the right answers, in one file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nestedge.documents import read_arrays
from nestedge.errors import FormatError
from nestedge.plugins import Array


@dataclass(frozen=True)
class LabelledData:
    """Inputs, each with the class that it is of.

    Attributes:
        inputs: shape (cases, ...): uint8 images, which an artifact's preprocessing turns into
            inputs, or what its input takes, with or without its batch axis of one.
        labels: index of the right class, shape (cases,).
    """

    inputs: Array
    labels: Array

    @cached_property
    def sha256(self) -> str:
        """Hash of both."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.labels):
            digest.update(f"{array.dtype.str} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def read_labelled(path: Path) -> LabelledData:
    """The data set in a .npz of 'inputs' and 'labels'.

    Raises:
        UsageError: there is no such file.
        FormatError: it is no .npz, or has other arrays.
    """
    arrays = read_arrays(path)
    if arrays.keys() != {"inputs", "labels"}:
        names = [name or "one array without a name" for name in sorted(arrays)]
        raise FormatError(f"{path}: expected the arrays 'inputs' and 'labels', found {names}")
    return LabelledData(arrays["inputs"], arrays["labels"])
