from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nestedge.artifact import Artifact, read_reference, reference_bytes
from nestedge.cli import main
from tests.fakes import DESCRIPTION, PREPROCESSING, fake_artifact
from tests.packaging.builds import verified_build

PIXELS = np.array([[0, 255], [51, 204]], np.uint8)
BATCH = ((PIXELS / 255 - 0.5) / 0.5).astype(np.float32)[None, None]


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, args)])


@pytest.fixture
def artifact(tmp_path: Path, fake_runtime: Path) -> Artifact:
    return fake_artifact(tmp_path / "dist")


def test_the_labels_are_printed_best_first(tmp_path: Path, artifact: Artifact) -> None:
    reference = read_reference(artifact)
    np.save(tmp_path / "x.npy", reference.inputs["input"][0])
    result = _run(artifact.folder, tmp_path / "x.npy")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    scores = reference.outputs["logits"][0, 0]
    assert lines[0] == ["label", "score"]
    assert [line[0] for line in lines[1:]] == [
        ("zero", "one", "two")[index] for index in np.argsort(-scores)
    ]
    assert [float(line[1]) for line in lines[1:]] == pytest.approx(sorted(scores)[::-1], rel=1e-4)


@pytest.mark.parametrize("form", ["png", "npy of pixels", "npy", "npz"])
def test_an_image_and_its_arrays_give_the_same(
    tmp_path: Path, artifact: Artifact, form: str
) -> None:
    path = tmp_path / {"png": "x.png", "npz": "x.npz"}.get(form, "x.npy")
    if form == "png":
        Image.fromarray(PIXELS).save(path)
    elif form == "npz":
        np.savez(path, input=BATCH)
    else:
        np.save(path, PIXELS if form == "npy of pixels" else BATCH)
    output = tmp_path / "out.npz"
    result = _run(artifact.folder, path, "-o", output, "--json")
    assert result.exit_code == 0, result.stderr
    np.save(tmp_path / "same.npy", BATCH)
    expected = json.loads(_run(artifact.folder, tmp_path / "same.npy", "--json").stdout)
    assert json.loads(result.stdout) == expected
    with np.load(output) as written:
        assert written["logits"].max() == pytest.approx(expected["labels"][0]["score"])


def test_without_labels_the_outputs_are_summarized(tmp_path: Path, fake_runtime: Path) -> None:
    plain = replace(DESCRIPTION, labels=None, preprocessing=None)
    artifact = fake_artifact(tmp_path / "dist", plain)
    np.save(tmp_path / "x.npy", BATCH)
    result = _run(artifact.folder, tmp_path / "x.npy")
    assert result.stdout.splitlines()[1].split()[:3] == ["logits", "1x3", "float32"]
    result = _run(artifact.folder, tmp_path / "x.npy", "--json")
    assert json.loads(result.stdout)["labels"] == []
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    result = _run(artifact.folder, tmp_path / "x.png")
    assert result.exit_code == 2
    assert "says no preprocessing for images" in result.stderr


def test_a_colour_artifact_takes_a_palette_image_but_no_alpha(
    tmp_path: Path, fake_runtime: Path
) -> None:
    # Only the reading of the image is looked at: the fake's own input has one channel.
    steps = replace(PREPROCESSING, colour="RGB", mean=(0.0,) * 3, std=(1.0,) * 3)
    colour = replace(DESCRIPTION.inputs[0], shape=(1, 3, 2, 2))
    x, y = np.zeros((1, 1, 3, 2, 2), np.float32), np.zeros((1, 1, 3), np.float32)
    artifact = fake_artifact(
        tmp_path / "dist",
        replace(DESCRIPTION, inputs=(colour,), preprocessing=steps),
        reference=reference_bytes({"input": x}, {"logits": y}),
    )
    image = Image.fromarray(np.stack([PIXELS] * 3, axis=-1))
    image.convert("P").save(tmp_path / "p.png")
    image.convert("RGBA").save(tmp_path / "a.png")
    assert "found (1, 3, 2, 2)" in _run(artifact.folder, tmp_path / "p.png").stderr
    refused = _run(artifact.folder, tmp_path / "a.png")
    assert "expected an image of mode RGB, found RGBA; convert it" in refused.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "none.npy: no such file"),
        ("x.png", b"no image", "x.png: not an image"),
        ("x.npy", b"no array", "x.npy: not a .npy or .npz of plain arrays"),
    ],
)
def test_an_input_that_is_none_exits_2(
    tmp_path: Path, artifact: Artifact, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = _run(artifact.folder, tmp_path / name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_truncated_image_exits_2(tmp_path: Path, artifact: Artifact) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(np.tile(PIXELS, (40, 40))).save(path)
    path.write_bytes(path.read_bytes()[:60])
    result = _run(artifact.folder, path)
    assert result.exit_code == 2
    assert "x.png: " in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_image_of_another_size_is_refused_by_its_name(
    tmp_path: Path, artifact: Artifact
) -> None:
    Image.fromarray(np.tile(PIXELS, (2, 2))).save(tmp_path / "x.png")
    result = _run(artifact.folder, tmp_path / "x.png")
    assert result.exit_code == 2
    assert "x.png: expected an image of uint8 and shape (2, 2, 1)" in result.stderr


def test_inputs_of_other_names_are_refused_with_a_suggestion(
    tmp_path: Path, artifact: Artifact
) -> None:
    np.savez(tmp_path / "x.npz", inputs=BATCH)
    result = _run(artifact.folder, tmp_path / "x.npz")
    assert result.exit_code == 2
    assert "no input 'inputs'; inputs are ['input']; did you mean 'input'?" in result.stderr


def test_a_changed_model_is_not_run(tmp_path: Path, artifact: Artifact) -> None:
    artifact.model_path.write_bytes(b"")
    np.save(tmp_path / "x.npy", BATCH)
    assert _run(artifact.folder, tmp_path / "x.npy").exit_code == 6


def test_an_output_that_is_no_npz_is_refused_before_anything_runs(
    tmp_path: Path, artifact: Artifact
) -> None:
    np.save(tmp_path / "x.npy", BATCH)
    result = _run(artifact.folder, tmp_path / "x.npy", "-o", tmp_path / "out.txt")
    assert result.exit_code == 2
    assert "out.txt: expected a name that ends in .npz" in result.stderr


def test_an_unknown_artifact_is_refused_with_a_suggestion(artifact: Artifact) -> None:
    result = _run(artifact.folder.parent / "fake-fp16", "x.npy")
    assert result.exit_code == 2
    assert f"did you mean '{artifact.folder}'?" in result.stderr


def test_the_level_and_precision_of_a_build_are_chosen(tmp_path: Path, fake_runtime: Path) -> None:
    verified_build(tmp_path / "dist")
    np.save(tmp_path / "x.npy", PIXELS)

    def cell(*args: object) -> str:
        result = _run(tmp_path / "dist", tmp_path / "x.npy", "--json", *args)
        assert result.exit_code == 0, result.stderr
        found: str = json.loads(result.stdout)["cell"]
        return found

    assert cell() == "full/fake-fp32"
    assert cell("--level", "small") == "small/fake-fp32"
    assert cell("-l", "small", "-p", "int8", "-r", "fake") == "small/fake-int8"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-l", "smal"), "no level 'smal'; there are ['small']; did you mean 'small'?"),
        (("-p", "fp16"), "level 'small': no precision 'fp16'"),
        (("-r", "fak"), "no runtime 'fak'"),
    ],
    ids=["level", "precision", "runtime"],
)
def test_what_the_folder_has_not_is_refused(
    tmp_path: Path, artifact: Artifact, args: tuple[str, ...], message: str
) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    result = _run(artifact.folder, tmp_path / "x.npy", *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_provider_runs_it_or_is_refused(tmp_path: Path, provider_runtime: Path) -> None:
    fake_artifact(tmp_path / "dist")
    np.save(tmp_path / "x.npy", PIXELS)
    plain = _run(tmp_path / "dist", tmp_path / "x.npy")
    result = _run(tmp_path / "dist", tmp_path / "x.npy", "--provider", "npu")
    assert (result.exit_code, result.stdout) == (0, plain.stdout)
    result = _run(tmp_path / "dist", tmp_path / "x.npy", "--provider", "gpu")
    assert result.exit_code == 2
    assert "no provider 'gpu' here; it has ['dead', 'npu']" in result.stderr
    assert _run(tmp_path / "dist", tmp_path / "x.npy", "--provider", "dead").exit_code == 4
