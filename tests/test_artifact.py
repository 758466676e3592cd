from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestedge.artifact import (
    Artifact,
    DropRecord,
    check_integrity,
    find_artifacts,
    read_artifact,
    read_reference,
    reference_bytes,
    write_artifact,
)
from nestedge.errors import FormatError, IntegrityError, UsageError
from nestedge.plugins import TensorInfo
from tests.fakes import DESCRIPTION, fake_artifact, fake_build, model_bytes

X = np.zeros((2, 1, 1, 2, 2), np.float32)
Y = np.zeros((2, 1, 3), np.float32)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = fake_artifact(tmp_path)
    assert written.folder == tmp_path / "small" / "fake-fp32"
    assert written.cell == "small/fake-fp32"
    assert read_artifact(written.folder) == written
    assert written.size_bytes == len(model_bytes())
    check_integrity(written)
    assert sorted(path.name for path in written.folder.parent.iterdir()) == ["fake-fp32"]


def test_the_document_is_sorted_and_ends_in_a_newline(tmp_path: Path) -> None:
    text = (fake_artifact(tmp_path).folder / "artifact.json").read_text()
    document = json.loads(text)
    assert text == json.dumps(document, sort_keys=True, indent=1) + "\n"
    assert document["format"] == 3


DROP = DropRecord(
    allowed=1.0, before=3.5, after=0.5, exact_percent=92.0, data_sha256="da" * 32, samples=200
)
FALLEN = replace(DESCRIPTION, half_layers=("stem", "layer1.0.conv2"), drop=DROP)


def test_layers_in_half_precision_are_recorded_with_the_drop(tmp_path: Path) -> None:
    written = fake_artifact(tmp_path, FALLEN)
    assert (written.half_layers, written.drop) == (FALLEN.half_layers, DROP)
    assert read_artifact(written.folder) == written
    assert written.note == (
        "accuracy -0.50 points beside single precision, -3.50 with every layer in 8 bits; "
        "2 in half precision: stem, layer1.0.conv2"
    )


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"half_layers": (), "drop": None}, ""),
        ({"drop": None}, "2 in half precision: stem, layer1.0.conv2"),
        (
            {"half_layers": (), "drop": replace(DROP, before=-0.25, after=-0.25)},
            "accuracy +0.25 points beside single precision; none in half precision",
        ),
    ],
    ids=["nothing", "no drop", "no layer"],
)
def test_a_note_says_what_is_known(changes: dict[str, Any], note: str) -> None:
    assert replace(FALLEN, **changes).note == note


def test_an_artifact_of_format_2_has_no_layers_in_half_precision(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)

    def age(document: dict[str, Any]) -> None:
        document["format"] = 2
        del document["half_layers"], document["drop"]

    _edit(artifact, age)
    assert read_artifact(artifact.folder) == artifact
    assert artifact.half_layers == ()
    assert artifact.drop is None
    _edit(artifact, lambda document: document.update(half_layers=[]))
    with pytest.raises(FormatError, match="half_layers: unknown"):
        read_artifact(artifact.folder)


def _edit(artifact: Artifact, edit: Callable[[dict[str, Any]], object]) -> None:
    path = artifact.folder / "artifact.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(format=1), r"artifact\.json: format: expected 3: another version"),
        (lambda d: d.pop("format"), r"artifact\.json: format: missing"),
        (lambda d: d.pop("macs"), r"artifact\.json: macs: missing"),
        (lambda d: d.update(extra=1), r"artifact\.json: extra: unknown"),
        (
            lambda d: d["files"]["model.fake"].update(sha256="abc"),
            r'artifact\.json: files\.model\.fake\.sha256: expected 64 hex digits, found "abc"',
        ),
        (
            lambda d: d["files"].update({"../evil": d["files"]["model.fake"]}),
            r'files\.\.\./evil \(its name\): expected a plain name .*, found "\.\./evil"',
        ),
        (
            lambda d: d["files"].update({"/etc/passwd": d["files"]["model.fake"]}),
            "expected a plain name",
        ),
        (lambda d: d.update(model="../model.fake"), "model: expected a plain name"),
        (lambda d: d.update(model="other.fake"), "files: expected a record of 'other.fake'"),
        (lambda d: d["files"].pop("reference.safetensors"), "expected a record of 'reference"),
        (
            lambda d: d["files"].update({"artifact.json": d["files"]["model.fake"]}),
            r"expected no record of artifact\.json itself",
        ),
        (lambda d: d.update(level="../x"), "level: expected a plain name"),
        (lambda d: d.update(tolerance=-1), "tolerance: expected a number of at least 0"),
        (lambda d: d.update(parameters=True), "parameters: expected an integer"),
        (lambda d: d.update(inputs=[]), "inputs: expected at least one tensor"),
        (lambda d: d.update(outputs=d["outputs"] * 2), "outputs: .* each of another name"),
        (
            lambda d: d["inputs"][0].update(shape=[1, 0]),
            r"inputs\[0\]\.shape\[1\]: expected",
        ),
        (lambda d: d["inputs"][0].update(dtype="object"), r"inputs\[0\]\.dtype: expected"),
        (lambda d: d["preprocessing"].update(input="y"), r"input: expected the name of an input"),
        (
            lambda d: d["inputs"][0].update(shape=[1, 3, 2, 2]),
            "preprocessing.input: input 'input' of shape .* takes no NCHW image of 1 channels",
        ),
        (lambda d: d.update(labels=[1]), r"labels\[0\]: expected a string"),
        (lambda d: d.pop("drop"), r"artifact\.json: drop: missing"),
        (lambda d: d.update(half_layers=[1]), r"half_layers\[0\]: expected a string"),
        (lambda d: d.update(drop={"allowed": 1}), r"drop\.before: missing"),
        (lambda d: d.update(producer={"torch": 2}), r"producer\.torch: expected a string"),
    ],
)
def test_a_wrong_field_is_refused_by_its_place(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    artifact = fake_artifact(tmp_path)
    _edit(artifact, edit)
    with pytest.raises(FormatError, match=message):
        read_artifact(artifact.folder)


def test_a_name_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    description = replace(DESCRIPTION, level="..")
    with pytest.raises(FormatError, match="level: expected a plain name"):
        write_artifact(tmp_path / "x" / "y", description, files={"model.fake": b""})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_artifact_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    fake_artifact(tmp_path)
    for wrong in ("smal/fake-fp32", "small/fake-fp16"):
        with pytest.raises(UsageError, match=r"did you mean '.*/small/fake-fp32'\?"):
            read_artifact(tmp_path / wrong)


def test_a_relative_folder_without_an_artifact_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no artifact at x; make some with 'nestedge build'"):
        read_artifact(Path("x"))


def test_artifacts_are_found_by_build_level_and_cell(tmp_path: Path) -> None:
    fake_build(tmp_path)
    cells = ["full/fake-fp32", "small/fake-fp32"]
    assert [artifact.cell for artifact in find_artifacts(tmp_path)] == cells
    assert [artifact.cell for artifact in find_artifacts(tmp_path / "full")] == cells[:1]
    assert [a.cell for a in find_artifacts(tmp_path / "small" / "fake-fp32")] == cells[1:]


def test_a_folder_in_the_place_of_a_description_is_no_artifact(tmp_path: Path) -> None:
    small, _ = fake_build(tmp_path)
    (small.folder / "artifact.json").unlink()
    (small.folder / "artifact.json").mkdir()
    assert [artifact.cell for artifact in find_artifacts(tmp_path)] == ["full/fake-fp32"]


def test_what_an_interrupted_write_left_is_not_an_artifact(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    shutil.copytree(artifact.folder, artifact.folder.with_name(".fake-fp32.1.tmp"))
    assert len(find_artifacts(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "state"),
    [
        (".", "holds no artifact"),
        ("x", "no such folder"),
        ("net.nest", "is a file, not the folder of a build"),
    ],
)
def test_a_folder_without_artifacts_is_an_error(tmp_path: Path, name: str, state: str) -> None:
    (tmp_path / "net.nest").write_bytes(b"")
    with pytest.raises(UsageError, match=state):
        find_artifacts(tmp_path / name)


def test_two_folders_of_one_cell_are_refused(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    shutil.copytree(artifact.folder, tmp_path / "copy" / "fake-fp32")
    with pytest.raises(FormatError, match="cell 'small/fake-fp32' is also at"):
        find_artifacts(tmp_path)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    content = bytearray(artifact.model_path.read_bytes())
    content[-1] ^= 1
    artifact.model_path.write_bytes(content)
    expected = artifact.files["model.fake"].sha256
    with pytest.raises(
        IntegrityError, match=rf"^small/fake-fp32: model\.fake: expected sha256 {expected}, found "
    ):
        check_integrity(artifact)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    (artifact.folder / "constants.json").unlink()
    with pytest.raises(IntegrityError, match=r"^small/fake-fp32: constants\.json: missing"):
        check_integrity(artifact)


def test_a_transposed_reference_is_stored_as_it_reads(tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 2, 1, 1, 2).transpose(4, 2, 3, 0, 1)
    artifact = fake_artifact(tmp_path, reference=reference_bytes({"input": x}, {"logits": Y}))
    reference = read_reference(artifact)
    np.testing.assert_array_equal(reference.inputs["input"], x)
    assert reference.cases == 2
    np.testing.assert_array_equal(reference.case(1)["input"], x[1])


@pytest.mark.parametrize("kept", [0, 7, 60, -1])
def test_a_truncated_reference_is_one_line(tmp_path: Path, kept: int) -> None:
    artifact = fake_artifact(tmp_path)
    path = artifact.folder / "reference.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match=r"reference\.safetensors: not safetensors") as caught:
        read_reference(artifact)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"input": X}, {}, r"expected \['inputs/input', 'outputs/logits'\], found"),
        ({"x": X}, {"logits": Y}, r"found \['inputs/x', 'outputs/logits'\]"),
        ({"input": X}, {"logits": Y[:1]}, "expected shape"),
        (
            {"input": X},
            {"logits": Y[:, 0]},
            r"logits: expected shape \(cases, \*\(1, 3\)\)",
        ),
        ({"input": X.astype(np.float64)}, {"logits": Y}, "dtype float32, found .* float64"),
        ({"input": X[:0]}, {"logits": Y[:0]}, "expected at least one case, found none"),
    ],
    ids=["missing", "name", "cases", "shape", "dtype", "empty"],
)
def test_a_reference_of_another_network_is_refused(
    tmp_path: Path, inputs: dict[str, Any], outputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        fake_artifact(tmp_path, reference=reference_bytes(inputs, outputs))
    assert list(tmp_path.iterdir()) == []


def test_writing_again_replaces_the_artifact(tmp_path: Path) -> None:
    first = fake_artifact(tmp_path, seed=0)
    (first.folder / "stale.txt").write_text("of the old artifact")
    second = fake_artifact(tmp_path, seed=1)
    assert first.files != second.files
    check_integrity(read_artifact(second.folder))
    assert not (second.folder / "stale.txt").exists()
    assert [path.name for path in second.folder.parent.iterdir()] == ["fake-fp32"]


def test_a_failed_write_leaves_the_old_artifact(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path, seed=0)
    # The disk fails at the swap: the place for the old artifact is taken by a file.
    blocked = artifact.folder.with_name(f".fake-fp32.{os.getpid()}.old")
    blocked.write_text("")
    with pytest.raises(OSError, match=r"directory"):
        fake_artifact(tmp_path, seed=1)
    assert read_artifact(artifact.folder) == artifact
    check_integrity(artifact)
    blocked.unlink()
    assert [path.name for path in artifact.folder.parent.iterdir()] == ["fake-fp32"]


def test_an_interrupt_between_the_two_renames_puts_the_old_artifact_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = fake_artifact(tmp_path, seed=0)
    rename = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fake_artifact(tmp_path, seed=1)
    assert read_artifact(artifact.folder) == artifact
    check_integrity(artifact)
    assert [path.name for path in artifact.folder.parent.iterdir()] == ["fake-fp32"]


def test_the_rest_of_a_crash_of_the_same_process_id_is_no_obstacle(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path, seed=0)
    for ending in ("tmp", "old"):
        rest = artifact.folder.with_name(f".fake-fp32.{os.getpid()}.{ending}")
        shutil.copytree(artifact.folder, rest)
    check_integrity(fake_artifact(tmp_path, seed=1))
    assert [path.name for path in artifact.folder.parent.iterdir()] == ["fake-fp32"]


IMAGE = np.array([[0, 255], [255, 0]], np.uint8)


@pytest.mark.parametrize(
    "array",
    [
        IMAGE,
        IMAGE[..., np.newaxis],
        np.array([[[-1, 1], [1, -1]]], np.float32),
        np.array([[[[-1, 1], [1, -1]]]], np.float32),
    ],
    ids=["grey", "one channel", "no batch axis", "batch"],
)
def test_a_batch_is_made_of_what_fits(tmp_path: Path, array: Any) -> None:
    batch = fake_artifact(tmp_path).batch(array)
    assert batch["input"].tolist() == [[[[-1, 1], [1, -1]]]]


def test_a_batch_is_not_made_of_what_does_not_fit(tmp_path: Path) -> None:
    artifact = fake_artifact(tmp_path)
    with pytest.raises(ValueError, match=r"expected shape \(1, 1, 2, 2\) and dtype float32"):
        artifact.batch(np.zeros((2, 2), np.float64))
    with pytest.raises(ValueError, match=r"expected an image of uint8 and shape \(2, 2, 1\)"):
        artifact.batch(np.zeros((3, 2), np.uint8))
    two = replace(artifact, inputs=(*artifact.inputs, TensorInfo("z", (1,), "float32")))
    with pytest.raises(UsageError, match=r"has inputs \['input', 'z'\]; give a \.npz"):
        two.batch(IMAGE)
