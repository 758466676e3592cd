from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors

from nestedge.artifact import Artifact, find_artifacts, read_artifact, write_artifact
from nestedge.errors import MissingDependencyError
from nestedge.plugins import Array
from nestedge.verify import (
    Localisation,
    Trace,
    TracedOperator,
    Verification,
    WorstOperator,
    localise,
    localise_failures,
    verify_folder,
)
from tests.fakes import DESCRIPTION, FakeRuntime, declare_plugins, fake_artifact, model_bytes

_X = np.random.default_rng(1).standard_normal((1, 1, 2, 2)).astype(np.float32)


class TracingFake(FakeRuntime):
    """The fake runtime, telling the product before the bias is added."""

    def trace(self, path: Path, inputs: Mapping[str, Array], *, threads: int = 1) -> Trace:
        """A product, and a sum."""
        tensors = safetensors.load(path.read_bytes())
        given = inputs["input"]
        product = given.reshape(1, 4).astype(np.float32) @ tensors["weight"].T
        operators = (
            TracedOperator(
                kind="Product",
                name="node 1",
                inputs=("input",),
                outputs=("product",),
                constants=("weight",),
            ),
            TracedOperator(
                kind="Sum",
                name="node 2",
                inputs=("product",),
                outputs=("sum",),
                constants=("bias",) if "biased" in tensors else (),
            ),
        )
        values = {"input": given, "product": product, "sum": product + tensors["bias"]}
        return Trace(
            operators=operators,
            values=values,
            inputs={"input": "input"},
            outputs={"logits": "sum"},
        )


class FusingFake(TracingFake):
    """The same, with products that go wrong only where they are fused with sums."""

    def trace(self, path: Path, inputs: Mapping[str, Array], *, threads: int = 1) -> Trace:
        """What the right model gives."""
        right = path.parents[1] / "fake-fp32" / path.name
        return super().trace(right, inputs, threads=threads)


class LackingFake(FakeRuntime):
    """Needs a package to tell the values."""

    def trace(self, path: Path, inputs: Mapping[str, Array], *, threads: int = 1) -> Trace:
        """Nothing."""
        raise MissingDependencyError("runtime 'fake' needs spectacles: pip install spectacles")


@pytest.fixture
def tracing_runtime(site: Path) -> Path:
    """The fake runtime with traces, installed."""
    entries = {"fake": "tests.verify.test_localisation:TracingFake"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries)
    return site


def _constant(name: str, tensor: str, size: int) -> dict[str, object]:
    stored = {"op": "stored", "name": f"shared/{tensor}"}
    expression = {"op": "take", "inputs": [stored, {"op": "stored", "name": "shared/z"}]}
    return {"name": name, "shape": [size], "expression": expression}


def _rewritten(
    artifact: Artifact, *, weight: float = 1, bias: float = 1, constants: object = None
) -> Artifact:
    """An artifact whose tensors are multiplied: a wrong one, with the right hashes."""
    tensors = safetensors.load(model_bytes(0))
    changed = {"weight": tensors["weight"] * weight, "bias": tensors["bias"] * bias}
    files = {name: (artifact.folder / name).read_bytes() for name in artifact.files}
    files["model.fake"] = safetensors.save({n: t.astype(np.float32) for n, t in changed.items()})
    if constants is not None:
        files["constants.json"] = json.dumps({"format": 1, "constants": constants}).encode()
    return write_artifact(artifact.folder, artifact, files=files)


def _cells(dist: Path, **changes: float) -> tuple[Artifact, Artifact]:
    """A cell in single precision, and one in 8 bits whose tensors are multiplied."""
    exact = fake_artifact(dist)
    coarse = fake_artifact(dist, replace(DESCRIPTION, precision="int8", tolerance=0.1))
    return exact, _rewritten(
        coarse, **changes, constants=[_constant("weight", "layer1.0.fc.weight", 12)]
    )


@pytest.mark.parametrize(
    ("changes", "kind", "module"),
    [
        ({"weight": 1.5}, "Product", "layer1.0.fc"),
        ({"bias": -2.0}, "Sum", "behind layer1.0.fc"),
        ({"weight": 1.02, "bias": 9.0}, "Sum", "behind layer1.0.fc"),
    ],
    ids=["weight", "bias", "both"],
)
def test_the_operator_with_a_wrong_tensor_is_named(
    tmp_path: Path, changes: dict[str, float], kind: str, module: str
) -> None:
    exact, coarse = _cells(tmp_path, **changes)
    found = localise(coarse, TracingFake())
    assert found.operator is not None
    assert (found.operator.kind, found.operator.module) == (kind, module)
    assert found.operator.output_error > 3 * found.operator.input_error
    assert (found.reference, found.compared, found.values) == (exact.cell, 3, 3)
    assert found.note == ""


def test_a_cell_without_a_neighbour_in_single_precision_says_what_to_build(
    tmp_path: Path,
) -> None:
    coarse = fake_artifact(tmp_path, replace(DESCRIPTION, precision="int8"))
    found = localise(coarse, TracingFake())
    assert found.operator is None
    assert found.note == ("no small/fake-fp32 beside it to compare with: build it, or give --model")


def test_single_precision_wants_the_network(tmp_path: Path) -> None:
    found = localise(fake_artifact(tmp_path), TracingFake())
    assert found.note == "single precision is compared with the network itself: give --model"


@pytest.mark.parametrize(
    ("runtime", "note"),
    [
        (FakeRuntime(), "runtime 'fake' does not tell the values in between"),
        (LackingFake(), "runtime 'fake' needs spectacles: pip install spectacles"),
    ],
    ids=["no trace", "no package"],
)
def test_a_runtime_that_cannot_tell_says_so(
    tmp_path: Path, runtime: FakeRuntime, note: str
) -> None:
    _, coarse = _cells(tmp_path, weight=2)
    found = localise(coarse, runtime)
    assert found == Localisation(reference="", compared=0, values=0, operator=None, note=note)


def test_a_neighbour_that_is_wrong_itself_is_told(tmp_path: Path) -> None:
    exact, coarse = _cells(tmp_path, weight=2)
    _rewritten(exact, weight=3)
    assert localise(coarse, TracingFake()).note == (
        "small/fake-fp32 is wrong too: see to that first"
    )


def test_a_neighbour_that_was_changed_is_not_compared_with(tmp_path: Path) -> None:
    exact, coarse = _cells(tmp_path, weight=2)
    exact.model_path.write_bytes(b"")
    found = localise(coarse, TracingFake())
    assert found.operator is None
    assert "model.fake: expected sha256" in found.note


def test_an_error_that_the_operators_alone_do_not_make_is_the_runtimes(tmp_path: Path) -> None:
    _, coarse = _cells(tmp_path, weight=2)
    found = localise(coarse, FusingFake())
    assert found.operator is None
    assert found.note.startswith("with the runtime's optimisations off the error is within")


@dataclass(frozen=True)
class _Network:
    """What torch gives for the level of `model_bytes(0)`, with names of its own."""

    factor: float = 1.0

    def __call__(self, level: str, inputs: Mapping[str, Array]) -> Trace:
        """The trace of a linear layer, and a sum."""
        tensors = safetensors.load(model_bytes(0))
        given = inputs["input"]
        product = given.reshape(1, 4).astype(np.float32) @ tensors["weight"].T * self.factor
        values = {"input": given, "linear": product, "add": product + tensors["bias"]}
        operators = tuple(
            TracedOperator(
                kind=kind,
                name=output,
                inputs=(read,),
                outputs=(output,),
                constants=constants,
                module=module,
            )
            for kind, read, output, constants, module in (
                ("linear", "input", "linear", ("fc.weight",), "fc"),
                ("add", "linear", "add", ("head.shift",), "head"),
            )
        )
        return Trace(
            operators=operators,
            values=values,
            inputs={"input": "input"},
            outputs={"logits": "add"},
        )


@pytest.mark.parametrize(
    ("changes", "kind", "module"),
    [({"weight": 1.01}, "Product", "fc"), ({"bias": 1.01}, "Sum", "head")],
    ids=["weight", "bias"],
)
def test_single_precision_is_compared_with_the_network(
    tmp_path: Path, changes: dict[str, float], kind: str, module: str
) -> None:
    constants = [_constant("weight", "fc.weight", 12)]
    artifact = _rewritten(fake_artifact(tmp_path), **changes, constants=constants)
    found = localise(artifact, TracingFake(), network=_Network())
    assert found.operator is not None
    assert (found.operator.kind, found.operator.module) == (kind, module)
    assert (found.reference, found.note) == ("the network, run by torch", "")


def test_another_network_than_that_which_was_built_is_told(tmp_path: Path) -> None:
    artifact = _rewritten(fake_artifact(tmp_path), weight=2)
    found = localise(artifact, TracingFake(), network=_Network(factor=1.5))
    assert found.note == "the network given is not the one that this was built from"


def _places(results: list[Verification]) -> dict[str, WorstOperator | None]:
    return {
        result.cell: result.localisation.operator
        for result in results
        if result.localisation is not None
    }


def test_failures_alone_are_localised_unless_all_are_wanted(
    tmp_path: Path, tracing_runtime: Path
) -> None:
    _cells(tmp_path, weight=2)
    results = verify_folder(tmp_path)
    assert [result.passed for result in results] == [True, False]
    found = _places(localise_failures(tmp_path, results))
    assert found.keys() == {"small/fake-int8"}
    assert found["small/fake-int8"] is not None
    assert _places(localise_failures(tmp_path, results, all_cells=True)).keys() == {
        "small/fake-int8",
        "small/fake-fp32",
    }


def test_a_file_that_is_no_model_is_no_traceback(tmp_path: Path, tracing_runtime: Path) -> None:
    _cells(tmp_path, weight=2)
    (exact, coarse) = find_artifacts(tmp_path)
    files = {name: (coarse.folder / name).read_bytes() for name in coarse.files}
    write_artifact(coarse.folder, coarse, files={**files, "model.fake": b"no model"})
    results = localise_failures(tmp_path, verify_folder(tmp_path))
    place = {result.cell: result.localisation for result in results}[coarse.cell]
    assert place is not None
    assert place.operator is None
    assert "fake refuses it" in place.note
    assert read_artifact(exact.folder).cell == "small/fake-fp32"
