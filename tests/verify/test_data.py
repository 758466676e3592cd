from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors

from nestedge.artifact import Artifact, Description, write_artifact
from nestedge.documents import json_bytes, parse_json
from nestedge.errors import IntegrityError, UsageError
from nestedge.plugins import TensorInfo
from nestedge.profiling.labelled import LabelledData
from nestedge.verify import DataCheck, check_on_data, verify_folder
from tests.fakes import DESCRIPTION, FakeRuntime, fake_artifact, linear, model_bytes

_X = np.random.default_rng(3).standard_normal((8, 1, 2, 2)).astype(np.float32)
_INT8 = replace(DESCRIPTION, precision="int8", tolerance=1e9)


def _answers(scale: float = 1.0) -> list[int]:
    tensors = safetensors.load(model_bytes(0))
    scores = linear(_X, tensors["weight"] * np.float32(scale), tensors["bias"])
    answers: list[int] = scores.argmax(-1).tolist()
    return answers


def _scaled(dist: Path, scale: float, description: Description = _INT8) -> Artifact:
    """A cell whose weight is multiplied, so that it answers otherwise."""
    artifact = fake_artifact(dist, description)
    tensors = safetensors.load(model_bytes(0))
    files = {name: (artifact.folder / name).read_bytes() for name in artifact.files}
    weight = tensors["weight"] * np.float32(scale)
    files["model.fake"] = safetensors.save({"weight": weight, "bias": tensors["bias"]})
    return write_artifact(artifact.folder, artifact, files=files)


def _data(wrong: int = 2) -> LabelledData:
    """Labels that the cell in single precision finds, but for a few."""
    labels = np.array(_answers())
    labels[:wrong] = (labels[:wrong] + 1) % 3
    return LabelledData(_X, labels)


def _check(artifact: Artifact, data: LabelledData) -> DataCheck:
    return check_on_data([artifact], {artifact.cell: FakeRuntime()}, data=data)[artifact.cell]


def test_answers_are_held_against_those_of_single_precision(tmp_path: Path) -> None:
    exact, coarse = fake_artifact(tmp_path), _scaled(tmp_path, -1)
    same = [a == b for a, b in zip(_answers(), _answers(-1), strict=True)]
    right = [a == b for a, b in zip(_data().labels.tolist(), _answers(-1), strict=True)]
    assert 0 < sum(same) < 8
    found = _check(coarse, _data())
    assert found.accuracy_percent == 100 * sum(right) / 8
    assert found.agreement_percent == 100 * sum(same) / 8
    assert (found.exact, found.exact_accuracy_percent) == (exact.cell, 75.0)
    assert (found.samples, found.data_sha256) == (8, _data().sha256)
    assert found.low < found.accuracy_percent < found.high
    itself = _check(exact, _data())
    assert (itself.accuracy_percent, itself.agreement_percent) == (75.0, 100.0)


def test_a_cell_by_itself_has_an_accuracy_and_no_agreement(tmp_path: Path) -> None:
    found = _check(_scaled(tmp_path, 1), _data())
    assert found.accuracy_percent == 75.0
    assert (found.exact, found.exact_accuracy_percent, found.agreement_percent) == ("", None, None)


def test_a_folder_of_another_level_is_not_compared_with(tmp_path: Path) -> None:
    exact, coarse = fake_artifact(tmp_path), _scaled(tmp_path, 1)
    files = {name: (exact.folder / name).read_bytes() for name in exact.files}
    write_artifact(exact.folder, replace(DESCRIPTION, level="other"), files=files)
    assert _check(coarse, _data()).exact == ""


def test_a_changed_neighbour_is_refused(tmp_path: Path) -> None:
    exact, coarse = fake_artifact(tmp_path), _scaled(tmp_path, 1)
    exact.model_path.write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"small/fake-fp32: model\.fake"):
        _check(coarse, _data())


def test_no_answer_agrees_with_none(tmp_path: Path) -> None:
    _scaled(tmp_path, float("nan"), DESCRIPTION)
    broken = _scaled(tmp_path, float("nan"))
    found = _check(broken, _data())
    assert (found.accuracy_percent, found.agreement_percent) == (0.0, 0.0)


def test_a_folder_is_verified_on_data_too(tmp_path: Path, fake_runtime: Path) -> None:
    fake_artifact(tmp_path)
    _scaled(tmp_path, 1)
    fake_artifact(tmp_path, replace(DESCRIPTION, precision="bad", model="constants.json"))
    found = {result.cell: result.data for result in verify_folder(tmp_path, data=_data())}
    # What cannot run has no answers, and is no reason not to ask the others.
    assert found["small/fake-bad"] is None
    assert found["small/fake-int8"] is not None
    assert found["small/fake-int8"].agreement_percent == 100.0
    assert all(result.data is None for result in verify_folder(tmp_path))


def test_a_network_that_does_not_classify_is_refused(tmp_path: Path) -> None:
    map_of_classes = replace(_INT8, outputs=(TensorInfo("map", (1, 3, 2), "float32"),))
    artifact = replace(fake_artifact(tmp_path), outputs=map_of_classes.outputs)
    with pytest.raises(UsageError, match="accuracy needs one input and one output of shape"):
        _check(artifact, _data())


@pytest.mark.parametrize("other", [None, 50.0])
def test_answers_are_read_as_they_were_written(other: float | None) -> None:
    check = DataCheck(
        data_sha256="0" * 64,
        samples=8,
        accuracy_percent=75.0,
        low=40.0,
        high=93.0,
        exact="" if other is None else "small/fake-fp32",
        exact_accuracy_percent=other,
        agreement_percent=other,
    )
    text = json_bytes(check.to_json())
    assert DataCheck.from_json(parse_json(text, document="x")) == check
