"""`nestedge build --max-drop`: layers that fall back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nestedge.artifact import read_artifact
from nestedge.building import MaxDrop, Request
from nestedge.building.planning import make_plan
from nestedge.cli import main
from nestedge.matrix import read_matrix
from tests.matrices import device
from tests.outliers import nested_outlier, outlier_data

BENCH = device("bench", {"onnx": ["fp32", "int8"]})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .nest, and a data set for it."""
    found = tmp_path_factory.mktemp("outlier")
    nested_outlier().save(found / "net.nest")
    data = outlier_data()
    np.savez(found / "test.npz", inputs=data.inputs, labels=data.labels)
    return found


def _build(folder: Path, *options: str) -> Result:
    asked = ("-d", "local", "-t", "onnx", "-p", "int8", "-o", str(folder / "dist"), "-j", "1")
    return run("build", str(folder / "net.nest"), *asked, *options)


def _limited(folder: Path, points: str, *options: str) -> Result:
    return _build(folder, "--max-drop", points, "--data", str(folder / "test.npz"), *options)


@pytest.fixture(scope="module")
def built(folder: Path) -> Result:
    """A build in which a point may be lost."""
    return _limited(folder, "1", "--json")


def test_the_layers_that_fell_back_are_listed_and_recorded(built: Result, folder: Path) -> None:
    assert built.exit_code == 0, built.output
    (row,) = json.loads(built.stdout)
    artifact = read_artifact(folder / "dist" / "full" / "onnx-int8")
    assert artifact.half_layers[0] == "middle"
    assert len(artifact.half_layers) < 3
    drop = artifact.drop
    assert drop is not None
    assert (drop.allowed, drop.exact_percent, drop.samples) == (1.0, 100.0, 200)
    assert drop.data_sha256 == outlier_data().sha256
    assert drop.before > 20
    assert drop.after <= 1
    assert row["state"] == "made"
    assert row["half_layers"] == list(artifact.half_layers)
    assert row["drop"] == drop.to_json()
    assert row["note"] == artifact.note
    # A second build has nothing to do, and says the same.
    again = _limited(folder, "1")
    assert f"full/onnx-int8: {artifact.note}" in again.output
    assert "up to date" in again.output
    assert "half precision: middle" in artifact.note
    listed = json.loads((folder / "dist" / "full" / "onnx-int8" / "constants.json").read_text())
    halves = [c["name"] for c in listed["constants"] if c["dtype"] == "float16"]
    assert halves == [f"{name}.weight" for name in artifact.half_layers]


def test_the_report_lists_them_too(built: Result, folder: Path) -> None:
    assert built.exit_code == 0
    page = folder / "report.html"
    assert run("report", str(folder / "dist"), "-o", str(page)).exit_code == 0
    artifact = read_artifact(folder / "dist" / "full" / "onnx-int8")
    assert f'<span class="detail">{artifact.note}</span>' in page.read_text()


def test_another_limit_is_built_anew_and_the_same_is_not(built: Result, folder: Path) -> None:
    assert built.exit_code == 0
    source, data = read_matrix(folder / "dist").source, folder / "test.npz"
    other = folder / "other.npz"
    np.savez(other, inputs=outlier_data().inputs[:9], labels=outlier_data().labels[:9])

    def missing(limit: MaxDrop | None) -> set[str]:
        request = Request([BENCH], max_drop=limit)
        return set(make_plan(folder / "dist", request, source).missing)

    both = {"full/onnx-fp32", "full/onnx-int8"}
    assert missing(MaxDrop(1.0, data)) == {"full/onnx-fp32"}
    for limit in (None, MaxDrop(2.0, data), MaxDrop(1.0, other)):
        assert missing(limit) == both


def test_what_no_layer_can_help_fails_the_cell_with_a_code(folder: Path) -> None:
    # Nothing of int8-full may be in half precision.
    asked = ("-d", "local", "-t", "tflite", "-p", "int8-full", "-o", str(folder / "full"))
    limit = ("--max-drop", "1", "--data", str(folder / "test.npz"))
    result = run("build", str(folder / "net.nest"), *asked, *limit, "-j", "1", "--json")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout.splitlines()[0])
    assert (row["state"], row["code"]) == ("failed", "accuracy-lost")
    assert "at most 1 are allowed, and none of the layers can fall back" in row["reason"]


def _without_labels(path: Path) -> None:
    np.savez(path, inputs=outlier_data().inputs)


def _of_other_classes(path: Path) -> None:
    np.savez(
        path, inputs=outlier_data().inputs, labels=np.array(outlier_data().labels, np.int64) + 1
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-drop", "1"), "--max-drop needs --data: a .npz of 'inputs' and 'labels'"),
        (("--data", "{data}"), "--data goes with --max-drop POINTS"),
        (("--max-drop", "-1", "--data", "{data}"), "points from 0 to 100, found -1"),
        (("--max-drop", "nan", "--data", "{data}"), "points from 0 to 100, found nan"),
        (("--max-drop", "inf", "--data", "{data}"), "points from 0 to 100, found inf"),
        (("--max-drop", "1", "--data", "{data}.gone"), "test.npz.gone: no such file"),
        (("--max-drop", "1", "--data", "{unlabelled}"), "expected the arrays 'inputs' and 'labels"),
        (("--max-drop", "1", "--data", "{classes}"), "labels must be 0..2, one of 3 classes"),
        (("--max-drop", "1", "--data", "{data}", "-p", "fp32"), "no cell of ['int8', "),
    ],
    ids=["no data", "no limit", "negative", "nan", "inf", "gone", "labels", "classes", "no int8"],
)
def test_what_makes_no_sense_is_one_error_and_no_artifact(
    folder: Path, options: tuple[str, ...], message: str
) -> None:
    files = {name: folder / f"{name}.npz" for name in ("unlabelled", "classes")}
    _without_labels(files["unlabelled"])
    _of_other_classes(files["classes"])
    given = {"data": folder / "test.npz", **files}
    words = [word.format(**given) for word in options]
    if "fp32" not in words:
        words += ["-p", "int8"]
    output = folder / "refused"
    asked = ("-d", "local", "-t", "onnx", "-o", str(output), "-j", "1")
    result = run("build", str(folder / "net.nest"), *asked, *words)
    assert result.exit_code in (1, 2)
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert message in result.output
    assert not list(output.glob("*/*/artifact.json"))
