"""A device of scripts: trtexec, nvidia-smi, python3 with a TensorRT, and ssh."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from nestedge.artifact import Artifact, reference_bytes, write_artifact
from nestedge.documents import json_bytes
from nestedge.expressions import Array
from nestedge.plugins import TensorInfo
from nestedge.precisions import PRECISIONS
from nestedge_tensorrt.engine import ENGINE_FILE, EngineSpec
from nestedge_tensorrt.options import EngineOptions
from tests.fakes import DESCRIPTION
from tests.nestedge_tensorrt.fake_tensorrt import INPUTS, OUTPUTS, WEIGHT

MODEL = b"onnx"

TRTEXEC = r"""#!/bin/sh
# What `mode` says, it does. Each call's arguments are kept.
here=$(dirname "$0")
echo "$*" >> "$here/trtexec.calls"
mode=$(cat "$here/mode" 2>/dev/null)
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v$(cat "$here/version")] # trtexec $*"
[ "$1" = --help ] && exit 0
[ -f model.onnx ] || exit 9
case "$mode" in
killed) kill -9 $$ ;;
failed)
    echo "[01/01/2026-00:00:00] [E] Error[10]: Could not find any implementation for node {x}."
    echo "&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec"; exit 1 ;;
full)
    echo "[01/01/2026-00:00:00] [E] Saving engine to file failed."
    echo "&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec"; exit 1 ;;
nothing) echo "&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec"; exit 0 ;;
other) echo "[01/01/2026-00:00:00] [I] Compute Capability: 8.9" ;;
*) echo "[01/01/2026-00:00:00] [I] Compute Capability: 8.6" ;;
esac
cp model.onnx "$here/model.sent"
cat "$here/plan" > model.engine
[ -f timing.cache ] && printf '+more' >> timing.cache
echo "[01/01/2026-00:00:01] [I] Engine built in 1.5 sec."
echo "&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec"
"""

SMI = """#!/bin/sh
cat "$(dirname "$0")/gpu"
"""

PYTHON = """#!/bin/sh
PYTHONPATH={paths} exec {python} -S "$@"
"""

MODULE = """import ctypes, sys
from tests.nestedge_tensorrt import fake_tensorrt
ctypes.CDLL = fake_tensorrt.Cuda
sys.modules[__name__] = fake_tensorrt.module({version!r}, factor=float('{factor!r}'))
"""

SSH = r"""#!/bin/sh
# Runs the remote command here, or does what `ssh.mode` says.
here=$(dirname "$0")
echo "$*" >> "$here/ssh.calls"
while [ "$1" != -- ]; do shift; done
host=$2; shift 2
mode=$(cat "$here/ssh.mode" 2>/dev/null)
case "$mode" in
denied) echo "$host: Permission denied (publickey)." >&2; exit 255 ;;
unknown) echo "Host key verification failed." >&2; exit 255 ;;
refused) echo "ssh: connect to host $host port 22: Connection refused" >&2; exit 255 ;;
esac
# A connection that breaks while trtexec runs, or while the engine is brought.
case "$mode $*" in
"lost "*--skipInference*|"lost-late "*model.engine*cat*)
    printf 'begun'; echo "Connection to $host closed by remote host." >&2; exit 255 ;;
"silent "*) exit 255 ;;
esac
cd /
exec sh -c "$*"
"""


@dataclass(frozen=True)
class FakeDevice:
    """The folder of the scripts, and what they do.

    Attributes:
        folder: on the search path.
    """

    folder: Path

    def say(self, name: str, text: str) -> None:
        """Changes what a script says, or does."""
        (self.folder / name).write_text(text)

    def calls(self, name: str) -> list[str]:
        """The arguments of each call of a script."""
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def remove(self, name: str) -> None:
        """Takes a script away."""
        (self.folder / name).unlink()

    def install_tensorrt(self, version: str, *, factor: float = 1.0) -> None:
        """Gives python3 a TensorRT."""
        package = self.folder / "site" / "tensorrt"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(MODULE.format(version=version, factor=factor))


def make_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """A device with TensorRT 10.3, which is the only one on the search path."""
    device = FakeDevice(folder)
    root = Path(__file__).parents[2]
    paths = ":".join(map(str, (folder / "site", root, root / "converters")))
    python = PYTHON.format(paths=paths, python=sys.executable)
    scripts = {"trtexec": TRTEXEC, "nvidia-smi": SMI, "python3": python, "ssh": SSH}
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    device.say("version", "100300")
    device.say("gpu", "Fake GPU, 8.6, 535.1\n")
    device.say("plan", "a plan")
    device.install_tensorrt("10.3")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return device


def _outputs(inputs: Mapping[str, Array]) -> dict[str, Array]:
    product = inputs["x"] @ np.array(WEIGHT)
    return {"product": product, "sum": product + inputs["bias"]}


def real_model() -> bytes:
    """The network that the fake engines compute, for one sample, as the shipped file has it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["found"], "the_product"),
        helper.make_node("Reshape", ["found", "shape"], ["product"], "the_shape", allowzero=1),
        helper.make_node("Add", ["product", "bias"], ["sum"], "the_sum"),
    ]
    graph = helper.make_graph(
        nodes,
        "real",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in INPUTS.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in OUTPUTS.items()],
        [
            numpy_helper.from_array(np.array(WEIGHT, np.float32), "w"),
            numpy_helper.from_array(np.array([1, 3], np.int64), "shape"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def make_cell(
    folder: Path, *, precision: str = "fp32", minimum: str = "8.5", model: bytes = MODEL
) -> Artifact:
    """An artifact of TensorRT, of the network that the fake engines compute."""
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.standard_normal((4, *shape)).astype(np.float32) for name, shape in INPUTS.items()
    }
    outputs = {name: array.astype(np.float32) for name, array in _outputs(inputs).items()}
    description = replace(
        DESCRIPTION,
        runtime="tensorrt",
        checked_by="onnx",
        model="model.onnx",
        precision=precision,
        inputs=tuple(TensorInfo(name, shape, "float32") for name, shape in INPUTS.items()),
        outputs=tuple(TensorInfo(name, shape, "float32") for name, shape in OUTPUTS.items()),
        preprocessing=None,
        labels=None,
        tolerance=PRECISIONS[precision].tolerance,
    )
    spec = EngineSpec(
        precision=precision,
        model_sha256="0" * 64,
        opset=17,
        minimum_tensorrt=minimum,
        batch=1,
        inputs=description.inputs,
        outputs=description.outputs,
        calibration_cases=16 if precision == "int8" else None,
        options=EngineOptions(sparsity=True),
    )
    files = {"model.onnx": model, "reference.safetensors": reference_bytes(inputs, outputs)}
    sha256 = write_artifact(folder, description, files=files).files["model.onnx"].sha256
    files[ENGINE_FILE] = json_bytes(replace(spec, model_sha256=sha256).to_json())
    return write_artifact(folder, description, files=files)
