from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.portability import REFERENCE, main, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network "small" that adds 1, and a file that is none."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    small = tmp_path / "small"
    small.mkdir()
    onnx.save(model, small / "fp32.onnx")
    (small / "fp32.ort").write_bytes(b"none")
    np.savez(small / REFERENCE, x=np.array([1, 3], np.float32), y=np.array([2, 5], np.float32))
    return tmp_path


def test_a_file_is_run_by_the_interpreter_and_compared_with_the_network(folder: Path) -> None:
    computed, refused = run(folder / "small", sys.executable)
    assert (computed.file, computed.version) == ("small/fp32.onnx", onnxruntime.__version__)
    assert computed.error == pytest.approx(0.2)
    assert refused.error is None
    assert refused.refusal


def test_the_table_has_every_file_and_a_refusal_is_a_failure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(folder), sys.executable]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| file | {onnxruntime.__version__} |"
    assert lines[2].startswith("| small/fp32.onnx | 2.0e-01, ")
    assert lines[3].startswith("| small/fp32.ort | refused: ")
    (folder / "small" / "fp32.ort").unlink()
    assert main(["run", str(folder), sys.executable]) == 0
