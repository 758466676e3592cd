"""OpenVINO by nestedge's doors alone: levels become files, are verified and measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from nestedge.artifact import Artifact
from nestedge.convert import BuildSpec, Converted
from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.plugins import TensorInfo
from nestedge.precisions import PRECISIONS
from nestedge.profiling.measure import profile_folder
from nestedge.verify import verify_folder
from nestedge_openvino.converter import OpenvinoConverter, OpenvinoExported
from nestedge_openvino.intermediate import WEIGHTS_FILE, to_intermediate
from nestedge_openvino.runtime import OpenvinoRuntime
from tests.builds import build_here
from tests.conversions import unconvertible_level
from tests.fakes import declare_plugins
from tests.further_targets import small_cnn

IMAGE = TensorInfo("image", (1, 3, 8, 8), "float32")


@pytest.fixture(scope="module")
def exported() -> OpenvinoExported:
    return OpenvinoConverter().export(fold_batch_norms(level_program(small_cnn(), "medium")))


@pytest.fixture(autouse=True)
def declared(site: Path) -> None:
    """The plug-ins are installed, whenever this environment was made."""
    converter = "nestedge_openvino.converter:OpenvinoConverter"
    runtime = "nestedge_openvino.runtime:OpenvinoRuntime"
    declare_plugins(site, group="nestedge.converters", entries={"openvino": converter})
    declare_plugins(site, group="nestedge.runtimes", entries={"openvino": runtime})


def _write(made: Converted, folder: Path) -> Path:
    for name, content in {"model.xml": made.model, **made.files}.items():
        (folder / name).write_bytes(content)
    return folder / "model.xml"


def test_every_level_in_every_precision_is_verified_and_measured(tmp_path: Path) -> None:
    folder, precisions = tmp_path / "dist", OpenvinoConverter.precisions
    built = build_here(small_cnn(), folder, targets=("openvino",), precisions=precisions)
    found = verify_folder(folder)
    assert len(found) == 3 * len(precisions)
    assert [result.reason for result in found if not result.passed] == []
    assert {result.runtime for result in found} == {"openvino"}
    measured = profile_folder(folder, rounds=2, seed=0)
    assert {m.cell for m in measured} == {result.cell for result in found}
    for artifact in built:
        names = ("model.xml", WEIGHTS_FILE)
        sizes = [(artifact.folder / name).stat().st_size for name in names]
        assert artifact.size_bytes == sum(sizes)
    single, half, whole = (_weights(built, f"full/openvino-{name}") for name in precisions)
    assert whole < half < 0.6 * single


def _weights(artifacts: list[Artifact], cell: str) -> int:
    (artifact,) = (found for found in artifacts if found.cell == cell)
    return artifact.files[WEIGHTS_FILE].size_bytes


def test_a_file_takes_and_gives_what_the_network_does(
    exported: OpenvinoExported, tmp_path: Path
) -> None:
    made = exported.convert(BuildSpec())
    session = OpenvinoRuntime().open(_write(made, tmp_path), threads=2)
    assert session.inputs == made.inputs == (IMAGE,)
    assert session.outputs == made.outputs
    assert [(info.name, info.shape) for info in made.outputs] == [
        ("logits", (1, 4)),
        ("features", (1, 16)),
    ]
    # An array that may not be written to is an input as any other.
    image = np.broadcast_to(np.float32(1.5), IMAGE.shape)
    first = session.run({"image": image})
    kept = {name: array.copy() for name, array in first.items()}
    session.run({"image": -np.ones(IMAGE.shape, np.float32)})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])


@pytest.mark.parametrize("precision", OpenvinoConverter.precisions)
def test_the_same_level_gives_the_same_bytes(exported: OpenvinoExported, precision: str) -> None:
    images = np.random.default_rng(0).standard_normal((4, *IMAGE.shape)).astype(np.float32)
    calibration = {"image": images} if PRECISIONS[precision].is_calibrated else None
    one, other = (exported.convert(BuildSpec(precision, calibration)) for _ in range(2))
    assert one == other
    assert str(Path.home()).encode() not in one.model


def test_other_weights_are_another_model_file() -> None:
    # Verifications and measurements know an artifact by the hash of its model file.
    levels = [level_program(small_cnn(), "small") for _ in range(2)]
    levels[1] = replace(
        levels[1], tensors={name: t + (t.ndim == 4) for name, t in levels[1].tensors.items()}
    )
    one, other = (OpenvinoConverter().export(level).convert(BuildSpec()) for level in levels)
    assert one.files[WEIGHTS_FILE] != other.files[WEIGHTS_FILE]
    assert one.model != other.model


def test_inputs_that_do_not_fit_are_refused(exported: OpenvinoExported, tmp_path: Path) -> None:
    session = OpenvinoRuntime().open(_write(exported.convert(BuildSpec()), tmp_path))
    with pytest.raises(ValueError, match=r"expected shape .* and dtype float32, found .* float64"):
        session.run({"image": np.zeros(IMAGE.shape)})


def _cut(folder: Path) -> None:
    path = folder / "model.xml"
    path.write_bytes(path.read_bytes()[:-500])


def _text(folder: Path) -> None:
    (folder / "model.xml").write_text("this is no model")


def _no_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()


def _few_weights(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("damage", [_cut, _text, _no_weights, _few_weights])
def test_what_is_no_model_is_refused_in_one_line(
    exported: OpenvinoExported,
    tmp_path: Path,
    damage: Callable[[Path], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = _write(exported.convert(BuildSpec()), tmp_path)
    damage(tmp_path)
    with pytest.raises(FormatError, match=r"model\.xml: OpenVINO refuses it: [A-Z]") as caught:
        OpenvinoRuntime().open(path)
    assert "\n" not in str(caught.value)
    assert "Exception from" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.xml: no such file"):
        OpenvinoRuntime().open(tmp_path / "none.xml")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BuildSpec("int8"), "openvino: int8 needs calibration data"),
        (BuildSpec("int8-dynamic"), "openvino: no precision 'int8-dynamic'; it has"),
    ],
    ids=["calibration", "precision"],
)
def test_what_it_cannot_make_is_refused(
    exported: OpenvinoExported, spec: BuildSpec, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        exported.convert(spec)


def test_what_openvino_cannot_read_is_an_error_with_its_reason() -> None:
    with pytest.raises(NestedgeError, match=r"OpenVINO cannot convert the level: Unable to read"):
        to_intermediate(b"no ONNX", halve=False)
    with pytest.raises(NestedgeError, match=r"torch.onnx cannot export the level: "):
        OpenvinoConverter().export(unconvertible_level())


def _printed(program: str, *arguments: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.split()


def test_it_runs_where_there_is_no_torch() -> None:
    program = "import sys, nestedge_openvino.runtime; print('torch' in sys.modules)"
    assert _printed(program) == ["False"]


SIGNALS = """
import gc, signal, subprocess, sys
from pathlib import Path
from nestedge_openvino.runtime import OpenvinoRuntime

signal.signal(signal.SIGCHLD, lambda *_: None)
sessions = [OpenvinoRuntime().open(Path(sys.argv[1])) for _ in range(3)]
while sessions:
    sessions.pop(0)
    gc.collect()
subprocess.run([sys.executable, "-c", ""])
print("alive")
"""


def test_signals_are_handled_after_sessions_have_gone_in_any_order(
    exported: OpenvinoExported, tmp_path: Path
) -> None:
    path = _write(exported.convert(BuildSpec("fp32")), tmp_path)
    assert _printed(SIGNALS, str(path)) == ["alive"]
