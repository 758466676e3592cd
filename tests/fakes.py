"""A runtime plug-in in numpy, declared like any other, and artifacts that it runs.

Its models are one linear layer: a safetensors file with "weight" and "bias".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from nestedge.artifact import Artifact, Description, reference_bytes, write_artifact
from nestedge.errors import FormatError, PlacementError, UsageError
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge.preprocessing import Preprocessing
from nestedge.profiling.measurement import Measurement

PREPROCESSING = Preprocessing("input", scale=1 / 255, mean=(0.5,), std=(0.5,), colour="GRAY")
INPUT = TensorInfo("input", (1, 1, 2, 2), "float32")
OUTPUT = TensorInfo("logits", (1, 3), "float32")
LABELS = ("zero", "one", "two")


class FakeRuntime:
    """The runtime plug-in "fake"."""

    name = "fake"

    def version(self) -> str:
        return "fake 1.0"

    def open(self, path: Path, *, threads: int = 1) -> FakeSession:
        try:
            return FakeSession(safetensors.load(path.read_bytes()))
        except SafetensorError as error:
            raise FormatError(f"{path}: fake refuses it: {error}") from error


class ProviderFake(FakeRuntime):
    """The fake runtime on one of two providers, of which one cannot be started."""

    def __init__(self, provider: str = "") -> None:
        self._provider = provider

    def on_provider(self, name: str) -> ProviderFake:
        if name not in ("npu", "dead"):
            raise UsageError(f"fake has no provider {name!r} here; it has ['dead', 'npu']")
        return ProviderFake(name)

    def version(self) -> str:
        return f"fake 1.0 ({self._provider})" if self._provider else "fake 1.0"

    def open(self, path: Path, *, threads: int = 1) -> FakeSession:
        if self._provider == "dead":
            raise PlacementError("fake could not start dead")
        return super().open(path, threads=threads)


class FakeSession:
    """A linear layer."""

    inputs = (INPUT,)
    outputs = (OUTPUT,)

    def __init__(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self._weight, self._bias = tensors["weight"], tensors["bias"]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.inputs, inputs)
        return {"logits": linear(inputs["input"], self._weight, self._bias)}


def linear(x: Array, weight: Array, bias: Array) -> npt.NDArray[np.float32]:
    """The outputs of cases or of one batch: the last three axes are flattened."""
    flat = x.reshape(*x.shape[:-3], -1).astype(np.float32)
    return (flat @ weight.astype(np.float32).T + bias.astype(np.float32)).astype(np.float32)


DESCRIPTION = Description(
    level="small",
    runtime="fake",
    precision="fp32",
    model="model.fake",
    inputs=(INPUT,),
    outputs=(OUTPUT,),
    preprocessing=PREPROCESSING,
    labels=LABELS,
    tolerance=1e-5,
    parameters=15,
    macs=12,
    producer={"nestedge": "0.1.0"},
    checked_by="fake",
    peak_memory_bytes=92,
    calibration=None,
    key="0" * 64,
)


def model_bytes(seed: int = 0) -> bytes:
    """A model that the fake runtime opens."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((3, 4)).astype(np.float32)
    return safetensors.save({"weight": weight, "bias": np.arange(3, dtype=np.float32)})


def fake_artifact(
    dist: Path,
    description: Description = DESCRIPTION,
    *,
    seed: int = 0,
    reference: bytes | None = None,
) -> Artifact:
    """An artifact of the fake runtime, written into a build folder under its cell."""
    model = model_bytes(seed)
    if reference is None:
        tensors = safetensors.load(model)
        x = np.random.default_rng(1).standard_normal((3, 1, 1, 2, 2)).astype(np.float32)
        y = linear(x, tensors["weight"], tensors["bias"])
        reference = reference_bytes({"input": x}, {"logits": y})
    files = {
        description.model: model,
        "reference.safetensors": reference,
        "constants.json": b"{}\n",
    }
    return write_artifact(dist / description.cell, description, files=files)


def fake_build(dist: Path, levels: Sequence[str] = ("small", "full")) -> list[Artifact]:
    """One artifact for each level; the later ones have more parameters."""
    return [
        fake_artifact(
            dist, replace(DESCRIPTION, level=level, parameters=15 * (index + 1)), seed=index
        )
        for index, level in enumerate(levels)
    ]


def measurement(artifact: Artifact, quantity: str, value: float, *, width: float) -> Measurement:
    """A measurement whose interval reaches as far as `width` to both sides."""
    return Measurement(
        cell=artifact.cell,
        model_sha256=artifact.files[artifact.model].sha256,
        quantity=quantity,
        value=value,
        p90=None,
        low=value - width,
        high=value + width,
        samples=10,
        origin="measured",
        device="a test",
        runtime_version="fake 1.0",
        threads=1,
        data_sha256=hashlib.sha256(b"").hexdigest() if quantity == "accuracy_percent" else None,
    )


def declare_plugins(
    site: Path, *, group: str, entries: Mapping[str, str], extras: Sequence[str] = ()
) -> None:
    """Writes the metadata of a distribution that declares plug-ins, as an installer would.

    With `site` on sys.path, importlib.metadata finds it like any installed package.
    """
    name = f"fake{len(list(site.glob('*.dist-info')))}"
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    points = [f"{entry} = {value}" for entry, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *points]) + "\n")
    os.utime(site)
