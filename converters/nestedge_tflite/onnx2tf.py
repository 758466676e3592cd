"""The converter plug-in "tflite-onnx2tf": TFLite files from ONNX files, by the program onnx2tf.

onnx2tf pins its dependencies to versions that fit no other environment, so it is never imported:
the executable runs as a process of its own, in whatever environment it was installed into.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import onnx
from ai_edge_litert import schema_py_generated as schema

from nestedge.affine import fold_affine
from nestedge.convert import BuildSpec, Converted, LevelProgram, check_spec
from nestedge.errors import MissingDependencyError, NestedgeError
from nestedge.folding import lower_batch_norms
from nestedge.reasons import conversion_error
from nestedge_onnx.exporter import export_model
from nestedge_tflite.flatbuffer import described, operators, signature

INSTALL = "pipx install --python 3.12 'onnx2tf==2.6.9'"
"""What to type where onnx2tf is missing; any environment of its own on PATH will do."""

# XNNPACK computes in half precision where it finds this key, which onnx2tf writes into every file.
_ALLOWS_HALF = b"reduced_precision_support"
_UNKNOWN_KEY = b"withdrawn_half_precision_"


class Onnx2tfConverter:
    """The converter plug-in "tflite-onnx2tf"."""

    name = "tflite-onnx2tf"
    runtime = "tflite"
    checked_by = "tflite"
    suffix = ".tflite"
    precisions = ("fp32",)
    packages = ("torch", "onnx", "onnxscript")

    def version(self) -> str:
        """The program that it runs, its version, and where it is.

        Raises:
            MissingDependencyError: it is not on PATH.
            NestedgeError: it does not run, or it is older than 2.
        """
        executable = _executable()
        return f"onnx2tf {_version(executable)} at {executable}"

    def export(self, level: LevelProgram, *, batch: int = 1) -> Onnx2tfExported:
        """The level as a TFLite file of a fixed batch size, its signature named as the network's.

        Raises:
            MissingDependencyError: there is no onnx2tf on PATH.
            NestedgeError: torch.onnx or onnx2tf cannot express the network.
        """
        executable = _executable()
        producer = {name: version(name) for name in self.packages}
        producer["onnx2tf"] = _version(executable)
        folded = fold_affine(lower_batch_norms(level))
        content = _translated(export_model(folded, batch=batch), executable)
        return Onnx2tfExported(self, described(content, folded, producer=producer))


class Onnx2tfExported:
    """A level as the one file that onnx2tf makes of it."""

    def __init__(self, converter: Onnx2tfConverter, converted: Converted) -> None:
        self._converter = converter
        self._converted = converted

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as a TFLite file.

        Raises:
            UsageError: the precision is not the one it has.
        """
        check_spec(self._converter, spec)
        return self._converted


def _executable() -> Path:
    found = shutil.which("onnx2tf")
    if found is None:
        raise MissingDependencyError(
            f"converter 'tflite-onnx2tf' needs the program onnx2tf on PATH: {INSTALL}"
        )
    return Path(found)


def _version(executable: Path) -> str:
    """The version of an executable: 1.x is refused, as it needs the network and minutes."""
    words = _run([str(executable), "--version"], folder=executable.parent).split()
    found = re.fullmatch(r"(\d+)\.[\w.]+", words[-1] if words else "")
    if found is None or int(found[1]) < 2:
        said = " ".join(words)[-80:]
        raise NestedgeError(f"{executable}: expected onnx2tf 2 or later, found {said!r}: {INSTALL}")
    return found[0]


def _translated(model: onnx.ModelProto, executable: Path) -> bytes:
    """An ONNX model as TFLite, with inputs and outputs of the same names and shapes."""
    inputs = [value.name for value in model.graph.input]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # onnx2tf overwrites the file that it reads.
        onnx.save(model, folder / "model.onnx")
        # It would give images the channels last.
        options = ["--keep_shape_absolutely_input_names", *inputs, "--non_verbose"]
        command = [str(executable), "-i", "model.onnx", "-o", "out", *options]
        _run(command, folder=folder)
        path = folder / "out" / "model_float32.tflite"
        if not path.is_file():
            raise NestedgeError(f"{executable}: it ended well but wrote no {path.name}")
        content = path.read_bytes()
    _check(content, model)
    return content.replace(_ALLOWS_HALF, _UNKNOWN_KEY)


def _run(command: Sequence[str], *, folder: Path) -> str:
    """What a command prints, run in an environment that knows nothing of ours.

    Raises:
        NestedgeError: it fails; the message has the last line that it printed.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise NestedgeError(f"{command[0]}: it cannot be run: {error}") from error
    if done.returncode != 0:
        reason = _last_line(done.stderr) or _last_line(done.stdout) or "it printed nothing"
        raise conversion_error("program-failed", f"{Path(command[0]).name} failed: {reason}")
    return done.stdout


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would lead its Python to our packages, and without a way to the network."""
    kept = {
        name: value
        for name, value in ours.items()
        if not name.startswith("PYTHON")
        and name != "VIRTUAL_ENV"
        and not name.lower().endswith("_proxy")
    }
    # Some of its options fetch sample images; a proxy that nothing listens at stops that.
    nowhere = "http://127.0.0.1:9"
    return {**kept, "http_proxy": nowhere, "https_proxy": nowhere, "PYTHONHASHSEED": "0"}


def _last_line(text: str) -> str:
    """The last line that is no progress bar, without colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
    told = [line for line in lines if line and "it/s" not in line and "?it" not in line]
    return told[-1] if told else ""


def _check(content: bytes, model: onnx.ModelProto) -> None:
    """Refuses a file that is not the model: onnx2tf does not fail for what it cannot express."""
    if schema.BuiltinOperator.CUSTOM in operators(content):
        raise NestedgeError("onnx2tf cannot convert the level: it made up operators of its own")
    found = signature(content)
    for value in [*model.graph.input, *model.graph.output]:
        name, shape = value.name, tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        if name not in found:
            raise NestedgeError(
                f"onnx2tf cannot convert the level: {name!r} is missing, found {sorted(found)}"
            )
        if found[name].shape != shape:
            raise NestedgeError(
                f"onnx2tf cannot convert the level: expected {name!r} of shape {shape}, "
                f"found {found[name].shape}"
            )
