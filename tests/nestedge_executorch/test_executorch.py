"""ExecuTorch by nestedge's doors alone: levels become files, are verified and measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

# Also a version of numpy that its libraries are not built for is no ExecuTorch.
pytest.importorskip("executorch.runtime", exc_type=ImportError)

from nestedge.convert import BuildSpec
from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.plugins import TensorInfo
from nestedge.profiling.measure import profile_folder
from nestedge.verify import verify_folder
from nestedge_executorch.converter import ExecutorchConverter, ExecutorchExported
from nestedge_executorch.runtime import ExecutorchRuntime
from tests.builds import build_here
from tests.conversions import unconvertible_level
from tests.fakes import declare_plugins
from tests.further_targets import small_cnn

IMAGE = TensorInfo("image", (1, 3, 8, 8), "float32")


@pytest.fixture(scope="module")
def exported() -> ExecutorchExported:
    return ExecutorchConverter().export(fold_batch_norms(level_program(small_cnn(), "medium")))


@pytest.fixture(scope="module")
def model(exported: ExecutorchExported) -> bytes:
    """The content of a file in single precision."""
    return exported.convert(BuildSpec()).model


@pytest.fixture
def path(model: bytes, tmp_path: Path) -> Path:
    """A file in single precision."""
    (tmp_path / "model.pte").write_bytes(model)
    return tmp_path / "model.pte"


@pytest.fixture(autouse=True)
def declared(site: Path) -> None:
    """The plug-ins are installed, whenever this environment was made."""
    converter = "nestedge_executorch.converter:ExecutorchConverter"
    runtime = "nestedge_executorch.runtime:ExecutorchRuntime"
    declare_plugins(site, group="nestedge.converters", entries={"executorch": converter})
    declare_plugins(site, group="nestedge.runtimes", entries={"executorch": runtime})


def test_every_level_in_every_precision_is_verified_and_measured(tmp_path: Path) -> None:
    folder, precisions = tmp_path / "dist", ExecutorchConverter.precisions
    built = build_here(small_cnn(), folder, targets=("executorch",), precisions=precisions)
    found = verify_folder(folder)
    assert len(found) == 3 * len(precisions)
    assert [result.reason for result in found if not result.passed] == []
    assert {result.runtime for result in found} == {"executorch"}
    measured = profile_folder(folder, rounds=2, seed=0)
    assert {m.cell for m in measured} == {result.cell for result in found}
    sizes = {artifact.cell: artifact.size_bytes for artifact in built}
    assert sizes["full/executorch-int8"] < sizes["full/executorch-fp32"]


def test_a_file_takes_and_gives_what_the_network_does(
    exported: ExecutorchExported, path: Path
) -> None:
    made = exported.convert(BuildSpec())
    session = ExecutorchRuntime().open(path)
    assert session.inputs == made.inputs == (IMAGE,)
    assert session.outputs == made.outputs
    assert [(info.name, info.shape) for info in made.outputs] == [
        ("logits", (1, 4)),
        ("features", (1, 16)),
    ]
    first = session.run({"image": np.ones(IMAGE.shape, np.float32)})
    kept = {name: array.copy() for name, array in first.items()}
    session.run({"image": -np.ones(IMAGE.shape, np.float32)})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])


@pytest.mark.parametrize("precision", ExecutorchConverter.precisions)
def test_the_same_level_gives_the_same_bytes(exported: ExecutorchExported, precision: str) -> None:
    images = np.random.default_rng(0).standard_normal((4, *IMAGE.shape)).astype(np.float32)
    spec = BuildSpec(precision, {"image": images} if precision == "int8" else None)
    one, other = (exported.convert(spec) for _ in range(2))
    assert one == other
    for text in (str(Path.home()), "site-packages", ".py"):
        assert text.encode() not in one.model


def test_nothing_is_printed(path: Path) -> None:
    # Some of its libraries print once a process, so that this wants one of its own.
    program = """
import sys, numpy as np
from pathlib import Path
from nestedge_executorch.runtime import ExecutorchRuntime
session = ExecutorchRuntime().open(Path(sys.argv[1]))
print(*session.run({"image": np.zeros((1, 3, 8, 8), np.float32)}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["logits", "features"]
    assert found.stderr == ""


def test_inputs_that_do_not_fit_are_refused(path: Path) -> None:
    session = ExecutorchRuntime().open(path)
    with pytest.raises(ValueError, match=r"expected shape .* and dtype float32, found .* float64"):
        session.run({"image": np.zeros(IMAGE.shape)})


def test_threads_are_not_changed_under_an_open_program(path: Path) -> None:
    # ExecuTorch would free the pool that the program goes on to use, and crash.
    session = ExecutorchRuntime().open(path, threads=1)
    with pytest.raises(UsageError, match=r"programs are open with 1; close them .* one with 2"):
        ExecutorchRuntime().open(path, threads=2)
    del session
    session = ExecutorchRuntime().open(path, threads=2)
    assert session.run({"image": np.zeros(IMAGE.shape, np.float32)}).keys() == {
        "logits",
        "features",
    }


def _cut(content: bytes) -> bytes:
    return content[:2000]


def _text(content: bytes) -> bytes:
    return b"this is no program"


def _empty(content: bytes) -> bytes:
    return b""


def _names_less(content: bytes) -> bytes:
    return content.replace(b"nestedge_signature", b"another_signature_")


def _names_wrongly(content: bytes) -> bytes:
    return content.replace(b'"inputs"', b'"inpots"')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "ExecuTorch refuses it: "),
        (_text, "ExecuTorch refuses it: "),
        (_empty, "ExecuTorch refuses it: "),
        (_names_less, "expected a method 'nestedge_signature' .*: nestedge did not make it"),
        (_names_wrongly, "nestedge_signature: inputs: missing"),
    ],
    ids=["cut", "text", "empty", "no names", "wrong names"],
)
def test_what_is_no_model_is_refused_in_one_line(
    path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FormatError, match=rf"model\.pte: {message}") as caught:
        ExecutorchRuntime().open(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.pte: no such file"):
        ExecutorchRuntime().open(tmp_path / "none.pte")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BuildSpec("int8"), "executorch: int8 needs calibration data"),
        (BuildSpec("fp16"), "executorch: no precision 'fp16'; it has"),
    ],
    ids=["calibration", "precision"],
)
def test_what_it_cannot_make_is_refused(
    exported: ExecutorchExported, spec: BuildSpec, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        exported.convert(spec)


def test_a_level_with_nothing_to_quantise_is_no_int8() -> None:
    level = level_program(nest(nn.ReLU(), torch.zeros(1, 4), {"full": 1.0}), "full")
    spec = BuildSpec("int8", {"input": np.ones((4, 1, 4), np.float32)})
    with pytest.raises(NestedgeError, match=r"nothing in it can be quantised; build fp32"):
        ExecutorchConverter().export(level).convert(spec)


def test_an_operator_that_it_cannot_express_is_named() -> None:
    with pytest.raises(NestedgeError, match="adaptive_max_pool2d") as caught:
        ExecutorchConverter().export(unconvertible_level()).convert(BuildSpec())
    assert "\n" not in str(caught.value)
