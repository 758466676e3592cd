from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestedge.errors import FormatError, UsageError
from nestedge.profiling.labelled import LabelledData, read_labelled


def test_a_data_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    inputs, labels = np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([1, 0])
    np.savez(tmp_path / "test.npz", inputs=inputs, labels=labels)
    found = read_labelled(tmp_path / "test.npz")
    assert np.array_equal(found.inputs, inputs)
    assert np.array_equal(found.labels, labels)
    assert found.sha256 == LabelledData(inputs, labels).sha256


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (LabelledData(np.zeros((2, 2)), np.array([0, 1])), True),
        (LabelledData(np.zeros((4, 1)), np.array([0, 1])), False),
        (LabelledData(np.zeros((2, 2), np.float32), np.array([0, 1])), False),
        (LabelledData(np.zeros((2, 2)), np.array([1, 0])), False),
    ],
    ids=["itself", "shape", "dtype", "labels"],
)
def test_the_hash_is_of_all_that_the_data_is(other: LabelledData, is_same: bool) -> None:
    data = LabelledData(np.zeros((2, 2)), np.array([0, 1]))
    assert (other.sha256 == data.sha256) is is_same


def test_a_file_with_other_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", x=np.zeros(1))
    with pytest.raises(FormatError, match=r"arrays 'inputs' and 'labels', found \['x'\]"):
        read_labelled(tmp_path / "test.npz")
    np.save(tmp_path / "test.npy", np.zeros(1))
    with pytest.raises(FormatError, match=r"found \['one array without a name'\]"):
        read_labelled(tmp_path / "test.npy")
    with pytest.raises(UsageError, match="no such file"):
        read_labelled(tmp_path / "none.npz")
