"""What docs/jetson.md and docs/android.md tell people to run, and docs/artifacts.md to expect."""

from __future__ import annotations

import ctypes
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nestedge.artifact import reference_bytes, write_artifact
from nestedge.documents import json_bytes
from nestedge.expressions import Array
from nestedge.matrix import Cell, Matrix, Source
from nestedge.plugins import TensorInfo
from nestedge.profiling.measurement import Measurement
from nestedge.verify import Verification
from nestedge_tensorrt.engine import ENGINE_FILE, trtexec_arguments
from nestedge_tensorrt.options import EngineOptions
from tests.fakes import DESCRIPTION
from tests.nestedge_tensorrt.test_engine import SPEC, SPECS
from tests.nestedge_tensorrt.trtexec_grammar import VERSIONS, parse

DOCS = Path(__file__).parents[2] / "docs"
JETSON = (DOCS / "jetson.md").read_text()
ARTIFACTS = (DOCS / "artifacts.md").read_text()

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1, -1, 1], np.float32)


def _block(language: str, *, having: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", JETSON, flags=re.DOTALL)
    (found,) = [block for block in blocks if having in block]
    return found


def _outputs(inputs: Mapping[str, Array]) -> dict[str, Array]:
    product = inputs["x"] @ WEIGHT
    return {"product": product, "sum": product + inputs["bias"]}


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cell, with a built "engine"; it is the current folder too."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((4, 1, 2)).astype(np.float32)}
    inputs["bias"] = np.broadcast_to(BIAS, (4, 1, 3))
    outputs = {name: array.astype(np.float32) for name, array in _outputs(inputs).items()}
    description = replace(
        DESCRIPTION,
        runtime="tensorrt",
        checked_by="onnx",
        model="model.onnx",
        inputs=(TensorInfo("x", (1, 2), "float32"), TensorInfo("bias", (1, 3), "float32")),
        outputs=tuple(TensorInfo(name, (1, 3), "float32") for name in outputs),
        preprocessing=None,
        labels=None,
    )
    files = {
        "model.onnx": b"onnx",
        "reference.safetensors": reference_bytes(inputs, outputs),
        ENGINE_FILE: json_bytes(SPEC.to_json()),
    }
    write_artifact(tmp_path / "cell", description, files=files)
    (tmp_path / "cell" / "model.engine").write_bytes(b"plan")
    monkeypatch.chdir(tmp_path / "cell")
    return tmp_path / "cell"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
@pytest.mark.parametrize("changed", [False, True])
def test_the_hashes_are_checked_by_the_documented_lines(cell: Path, changed: bool) -> None:
    if changed:
        (cell / "model.onnx").write_bytes(b"onny")
    script = _block("sh", having="sha256sum --check").replace("python3", sys.executable)
    found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    states = dict(line.split(": ") for line in found.stdout.splitlines())
    assert states == {
        "model.onnx": "FAILED" if changed else "OK",
        "reference.safetensors": "OK",
        ENGINE_FILE: "OK",
    }
    assert (found.returncode != 0) is changed


def test_the_fingerprint_lines_are_a_shell_script(tmp_path: Path) -> None:
    script = _block("sh", having="model.engine.txt")
    subprocess.run(["sh", "-n", "-c", script], check=True)
    for field in ("sha256sum model.onnx", "nv_tegra_release", "'libnvinfer[0-9]*'", "nvpmodel -q"):
        assert field in script


def test_the_documented_trtexec_lines_are_those_of_engine_json() -> None:
    lines = re.findall(r"^/usr/src/tensorrt/bin/trtexec (.*?) +# tensorrt-(\w+)$", JETSON, re.M)
    plain = {name: replace(spec, options=EngineOptions()) for name, spec in SPECS.items()}
    assert {precision: shlex.split(line) for line, precision in lines} == {
        precision: list(trtexec_arguments(spec, "10.3")) for precision, spec in plain.items()
    }


def test_every_option_that_is_advised_exists() -> None:
    advised = set(re.findall(r"`(--[\w=:/.]+)`", JETSON))
    assert {"--timingCacheFile=../timing.cache", "--memPoolSize=workspace:512"} <= advised
    refused = {"--shapes", "--calib"}
    # Of nestedge itself.
    own = {"--on", "--batch"}
    for option in advised - refused - own:
        known = [version for version in VERSIONS if _is_known(option, version)]
        assert known, option
    assert _is_known("--buildOnly", "8.5")
    assert not _is_known("--buildOnly", "10.3")
    assert _is_known("--skipInference", "8.6")
    assert not _is_known("--skipInference", "8.5")


def _is_known(option: str, version: str) -> bool:
    try:
        parse(["--onnx=m", option], version)
    except ValueError:
        return False
    return True


class Cuda:
    """libcudart in the host's memory."""

    def __init__(self) -> None:
        self.memory: list[ctypes.Array[ctypes.c_char]] = []

    def cudaMalloc(self, pointer: Any, size: ctypes.c_size_t) -> int:  # noqa: N802
        """Zeroed memory."""
        self.memory.append(ctypes.create_string_buffer(size.value))
        pointer._obj.value = ctypes.addressof(self.memory[-1])
        return 0

    def cudaMemcpy(  # noqa: N802
        self,
        target: ctypes.c_void_p,
        source: ctypes.c_void_p,
        size: ctypes.c_size_t,
        kind: ctypes.c_int,
    ) -> int:
        """1 is to the device, 2 from it."""
        on_device = target if kind.value == 1 else source
        if on_device.value not in [ctypes.addressof(memory) for memory in self.memory]:
            return 1
        ctypes.memmove(target, source, size.value)
        return 0


@dataclass
class Engine:
    """A network with the methods of TensorRT's ICudaEngine and IExecutionContext."""

    factor: float
    width: int = 3

    def __post_init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shapes = {
            "sum": (1, self.width),
            "x": (1, 2),
            "product": (1, self.width),
            "bias": (1, 3),
        }
        self.num_io_tensors = len(self.shapes)

    def get_tensor_name(self, index: int) -> str:
        """Not in the order of artifact.json."""
        return list(self.shapes)[index]

    def get_tensor_mode(self, name: str) -> str:
        """An entry of TensorIOMode."""
        return "INPUT" if name in ("x", "bias") else "OUTPUT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """With the batch axis."""
        return self.shapes[name]

    def create_execution_context(self) -> Engine:
        """One of its own would do the same."""
        return self

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Where a tensor lies."""
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Reads and writes what lies at the addresses."""
        assert stream_handle == 0
        arrays = {name: self._array(name) for name in self.shapes}
        for name, value in _outputs(arrays).items():
            arrays[name][...] = value * self.factor
        return True

    def _array(self, name: str) -> Array:
        shape = self.shapes[name]
        size = int(np.prod(shape))
        memory = (ctypes.c_float * size).from_address(self.addresses[name])
        return np.ctypeslib.as_array(memory).reshape(shape)


def _run_snippet(monkeypatch: pytest.MonkeyPatch, engine: Engine | None) -> None:
    class Runtime:
        def __init__(self, logger: object) -> None:
            assert logger == "logger of warnings"

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            assert plan == b"plan"
            return engine

    class Logger:
        WARNING = "warnings"

        def __new__(cls, severity: str) -> str:  # type: ignore[misc]
            return f"logger of {severity}"

    modes = SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
    module = SimpleNamespace(Runtime=Runtime, Logger=Logger, TensorIOMode=modes)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: Cuda())
    code = _block("python", having="import tensorrt")
    exec(compile(code, "jetson.md", "exec"), {"__name__": "__main__"})


def test_the_documented_program_accepts_an_engine_that_is_its_level(
    cell: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run_snippet(monkeypatch, Engine(1 + 1e-6))
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["product", "sum"]
    assert all(line.endswith("tolerance 1e-05") for line in lines)


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_the_documented_program_refuses_an_engine_that_is_not(
    cell: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    with pytest.raises(SystemExit, match="this engine is not its level"):
        _run_snippet(monkeypatch, Engine(factor))


def test_the_documented_program_says_that_tensorrt_refuses_an_engine(
    cell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="refuses the engine"):
        _run_snippet(monkeypatch, None)


def test_the_documented_program_names_a_tensor_of_another_shape(
    cell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"sum: the engine has shape \(1, 4\)"):
        _run_snippet(monkeypatch, Engine(1.0, width=4))


def test_the_reference_is_written_for_an_app(
    cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "android.md").read_text(), re.DOTALL)
    exec(compile(code, "android.md", "exec"), {})
    assert capsys.readouterr().out == "tolerance 1e-05\n"
    found = {path.name: np.fromfile(path, "<f4") for path in Path("for-the-app").iterdir()}
    assert found.keys() == {
        *("inputs-x.bin", "inputs-bias.bin", "outputs-sum.bin", "outputs-product.bin")
    }
    inputs = {"x": found["inputs-x.bin"], "bias": found["inputs-bias.bin"]}
    np.testing.assert_allclose(found["outputs-sum.bin"], _outputs(inputs)["sum"], rtol=1e-5)


def test_every_field_of_the_two_files_is_documented(cell: Path) -> None:
    description, engine = ARTIFACTS.split("## engine.json")
    for text, name in ((description, "artifact.json"), (engine, ENGINE_FILE)):
        for field in json.loads((cell / name).read_bytes()):
            assert f"`{field}`" in text, f"{name}: {field}"


@pytest.mark.parametrize("kind", [Matrix, Source, Cell, Verification, Measurement])
def test_every_field_of_the_files_of_a_build_is_documented(kind: type) -> None:
    text = ARTIFACTS.split("## The files of a build")[1]
    assert [field.name for field in fields(kind) if f"`{field.name}`" not in text] == []


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_to_other_pages_lead_somewhere(name: str) -> None:
    text = (DOCS / name).read_text()
    for page, anchor in re.findall(r"\]\((\w+\.md)(?:#([\w-]+))?\)", text):
        titles = re.findall(r"^#+ (.*)$", (DOCS / page).read_text(), re.M)
        anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in anchors, f"{page}#{anchor}"
