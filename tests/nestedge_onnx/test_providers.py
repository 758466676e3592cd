from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from onnx import helper

from nestedge.errors import PlacementError, UsageError
from nestedge_onnx.runtime import OnnxRuntime
from tests.nestedge_onnx.graphs import model_of, ramp


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"w": ramp(4)}, [4])
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider"])
def test_a_provider_has_a_short_name_in_any_case(name: str, path: Path) -> None:
    assert OnnxRuntime().on_provider(name).open(path).run({"x": ramp(4)})["y"].tobytes() == (
        (ramp(4) + ramp(4)).tobytes()
    )


def test_a_provider_that_is_not_installed_is_an_error_that_names_those_that_are(path: Path) -> None:
    with pytest.raises(UsageError, match=r"no provider 'cpus' here; it has .*'cpu'.*mean 'cpu'\?"):
        OnnxRuntime().on_provider("cpus")


def test_a_provider_that_cannot_be_started_is_an_error_and_not_the_cpu(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a build for CUDA says of itself on a machine without its driver.
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    runtime = OnnxRuntime().on_provider("cuda")
    for use in (
        lambda: runtime.open(path),
        lambda: runtime.trace(path, {"x": ramp(4)}),
        lambda: runtime.placement(path),
        lambda: OnnxRuntime().placement(path, accelerator="CUDA"),
    ):
        # onnxruntime warns of it, in one of several ways.
        with (
            pytest.warns(UserWarning, match="CUDAExecutionProvider"),
            pytest.raises(PlacementError, match="could not start CUDAExecutionProvider and opened"),
        ):
            use()


def test_a_version_names_the_provider_that_was_asked_for_and_no_other() -> None:
    plain = f"onnxruntime {onnxruntime.__version__}"
    assert OnnxRuntime().version() == plain
    assert OnnxRuntime().on_provider("cpu").version() == f"{plain} (CPUExecutionProvider)"


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="onnxruntime was built without it",
)
def test_what_a_provider_lacks_runs_on_the_cpu_and_its_placement_says_so(path: Path) -> None:
    runtime = OnnxRuntime().on_provider("azure")
    assert runtime.open(path).run({"x": ramp(4)})["y"].tolist() == (ramp(4) + ramp(4)).tolist()
    assert runtime.trace(path, {"x": ramp(4)}).values["y"].tolist() == (2 * ramp(4)).tolist()
    placement = runtime.placement(path)
    assert (placement.accelerator, placement.share) == ("AzureExecutionProvider", 0.0)
    assert placement.source == OnnxRuntime().version()
