"""Calibration data: inputs as a network meets them, from which the ranges of int8 are taken.

numpy only. The data comes from a folder, preprocessed like every image, or travels in a .nest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nestedge.documents import file_sha256, json_bytes, read_arrays
from nestedge.errors import UsageError
from nestedge.images import IMAGE_SUFFIXES, as_batch, read_image
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge.preprocessing import Preprocessing

MOST_FILES = 256
"""Files that are taken of a folder; ranges hardly change with more."""

_ARRAY_SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True)
class Calibration:
    """Inputs as a network meets them.

    Attributes:
        inputs: by name, each of shape (cases, *shape of the input at a batch of 1).
        sha256: of what they were made from.
    """

    inputs: Mapping[str, Array]
    sha256: str

    @property
    def cases(self) -> int:
        """How many there are, at least one."""
        return len(next(iter(self.inputs.values())))


def read_calibration(
    folder: Path, inputs: Sequence[TensorInfo], *, preprocessing: Preprocessing | None
) -> Calibration:
    """The calibration data in a folder, one case a file.

    The folder is searched recursively for images, which are preprocessed; for .npy, which hold the
    only input, with or without its batch axis of one, or an image of uint8; and for .npz with an
    entry for every input. Files and folders whose names begin with a dot, and other files, are
    passed over. Of more than `MOST_FILES` files as many are taken, spread evenly by path.

    Args:
        folder: what to search.
        inputs: what the network takes, at a batch of 1.
        preprocessing: of the input that takes images, if one does.

    Raises:
        UsageError: there is no such folder, nothing in it, or a file that does not fit the inputs;
            the message names the file.
        FormatError: a file is not what its name says.
        MissingDependencyError: there are images, and pillow is not installed.
    """
    paths = _chosen(folder)
    # Filled case by case: to stack a list of them would take the memory twice.
    cases: dict[str, Array] = {
        info.name: np.empty((len(paths), *info.shape), info.dtype) for info in inputs
    }
    for index, path in enumerate(paths):
        case = _read_case(path, inputs, preprocessing)
        for name, array in case.items():
            cases[name][index] = array
    return Calibration(cases, _sha256_of_files(folder, paths))


def calibration_sha256(folder: Path) -> str:
    """The `sha256` that `read_calibration` gives for a folder, from the files' bytes alone.

    Raises:
        UsageError: there is no such folder, or nothing in it.
        OSError: a file cannot be read.
    """
    return _sha256_of_files(folder, _chosen(folder))


def sha256_of_arrays(arrays: Mapping[str, Array]) -> str:
    """A hash of the names, dtypes, shapes and values of arrays, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json_bytes([name, array.dtype.name, list(array.shape)]))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_finite(arrays: Mapping[str, Array]) -> None:
    """Refuses numbers from which no range can be taken.

    Raises:
        ValueError: an array holds a NaN or an infinity.
    """
    for name, array in arrays.items():
        wrong = ~np.isfinite(array)
        if wrong.any():
            place = [int(axis[0]) for axis in np.nonzero(wrong)]
            found = array[tuple(place)]
            raise ValueError(f"input {name!r}: expected finite numbers, found {found} at {place}")


def _chosen(folder: Path) -> list[Path]:
    """The files that are taken, in the order of their paths."""
    if not folder.is_dir():
        raise UsageError(f"calibration: {folder}: no such folder")
    suffixes = (*IMAGE_SUFFIXES, *_ARRAY_SUFFIXES)
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        raise UsageError(f"calibration: {folder}: holds no image, .npy or .npz")
    found.sort(key=lambda path: path.relative_to(folder).as_posix())
    taken = min(len(found), MOST_FILES)
    return [found[index * len(found) // taken] for index in range(taken)]


def _sha256_of_files(folder: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        # A name is bytes to the system, and not always text.
        name = path.relative_to(folder).as_posix().encode(errors="surrogateescape")
        digest.update(b"%d\n%s\n%s\n" % (len(name), name, file_sha256(path).encode()))
    return digest.hexdigest()


def _read_case(
    path: Path, inputs: Sequence[TensorInfo], preprocessing: Preprocessing | None
) -> dict[str, Array]:
    is_image = path.suffix.lower() in IMAGE_SUFFIXES
    if is_image and preprocessing is None:
        raise UsageError(
            f"calibration: {path}: the network says no preprocessing for images; give .npy files"
        )
    if is_image:
        assert preprocessing is not None, "it was checked"
        arrays = {"": read_image(path, preprocessing)}
    else:
        arrays = read_arrays(path)
    try:
        if arrays.keys() == {""}:
            arrays = {_only(inputs): arrays[""]}
        by_name = {info.name: info for info in inputs}
        case = {
            name: as_batch(array, by_name[name], preprocessing) if name in by_name else array
            for name, array in arrays.items()
        }
        check_inputs(inputs, case)
        check_finite(case)
    except ValueError as error:
        raise UsageError(f"calibration: {path}: {error}") from error
    return case


def _only(inputs: Sequence[TensorInfo]) -> str:
    """The name of the only input, which a file without names is for."""
    names = [info.name for info in inputs]
    if len(names) != 1:
        raise ValueError(f"the network has inputs {names}; give a .npz with these names")
    return names[0]
