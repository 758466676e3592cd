"""What a failing conversion shows: one line, and nothing of what the frameworks print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestedge.nested import nest

_ROOT = Path(__file__).parents[2]


class Network(nn.Module):
    """What torch.onnx has no form of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 4, 3, 3)."""
        return F.adaptive_max_pool2d(self.conv(x), 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("failures") / "net.nest"
    nest(Network(), torch.zeros(2, 3, 8, 8), {"full": 1.0}).save(path)
    return path


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(_ROOT), str(_ROOT / "converters")])
    return subprocess.run(
        [sys.executable, "-m", "nestedge", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_failing_export_is_one_line_and_a_log(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "full.onnx"
    done = _run("export", str(model), "full", "-o", str(target), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["code"] == "unsupported-operator"
    assert found["operator"] == "aten.adaptive_max_pool2d.default"
    assert found["source"].startswith("the network (Network), test_failures.py:")
    assert found["log"] == f"{target}.log"
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: torch.onnx cannot export the level: No ONNX function found")
    assert line.endswith(f"log: {target}.log [unsupported-operator]")
    assert "Traceback" in Path(f"{target}.log").read_text()
    assert not target.exists()


def test_a_failing_build_is_a_row_a_line_and_a_log(model: Path, tmp_path: Path) -> None:
    options = ["-d", "raspberry-pi-5", "-t", "onnx", "-p", "fp32"]
    done = _run("build", str(model), "-o", str(tmp_path / "dist"), *options)
    assert done.returncode == 1
    header, row, log, folder = done.stdout.splitlines()
    assert header.split()[:3] == ["cell", "state", "bytes"]
    assert row.startswith("full/onnx-fp32  failed      -  torch.onnx cannot export the level")
    assert row.endswith("[unsupported-operator]")
    assert folder == f"in {tmp_path / 'dist'}"
    assert "Traceback" in Path(log.removeprefix("log: ")).read_text()
    assert done.stderr == "error: 1 of 1 failed: full/onnx-fp32 (unsupported-operator)\n"
