"""`nestedge inspect --multiple`: widths that gain nothing over the next multiple."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from nestedge.cli import main
from nestedge.levels import Level
from nestedge.nested import Card, nest


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["inspect", *arguments])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A perceptron with levels of 12 and 16 hidden units."""
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10))
    levels = {"narrow": Level({"0": 12}), "full": Level()}
    found = tmp_path_factory.mktemp("model") / "net.nest"
    nest(model, torch.zeros(2, 4), levels, card=Card(divisor=1)).save(found)
    return found


def test_every_wasted_width_is_a_line_with_layer_axis_and_share(path: Path) -> None:
    result = run(str(path), "--multiple", "8")
    assert result.exit_code == 0, result.output
    header, row = result.stdout.splitlines()[-2:]
    expected = ["level", "layer", "axis", "width", "takes", "as", "long", "as", "wasted"]
    assert header.split() == expected
    assert row.split() == ["narrow", "0", "0", "12", "16", "25.0", "%"]


def test_the_multiple_decides_what_is_wasted(path: Path) -> None:
    assert run(str(path), "--multiple", "4").stdout.endswith("every width is a multiple of 4\n")
    lines = run(str(path), "--multiple", "32").stdout.splitlines()
    wasted = {line.split()[0]: line.split()[-2] for line in lines[-2:]}
    assert wasted == {"full": "50.0", "narrow": "62.5"}
    assert "full: no multiple of 32 outputs in 0 (16)" in lines


def test_without_a_multiple_there_is_no_list(path: Path) -> None:
    assert "takes as long as" not in run(str(path)).stdout
    assert "narrow: no multiple of 8 outputs in 0 (12)" in run(str(path)).stdout


def test_wasted_widths_are_in_the_json(path: Path) -> None:
    found = json.loads(run(str(path), "--multiple", "16", "--json").stdout)
    assert found["multiple"] == 16
    entry = {"layer": "0", "axis": "0", "width": 12, "padded": 16, "wasted": 0.25}
    assert found["levels"]["narrow"]["wasted"] == [entry]
    assert found["levels"]["full"]["wasted"] == []


def test_a_multiple_of_one_is_refused(path: Path) -> None:
    assert run(str(path), "--multiple", "1").exit_code == 2


def test_smaller_kernels_and_rings_that_stay_are_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=1), nn.ReLU(), _Plus())
    centre = np.zeros((8, 3, 5, 5), dtype=bool)
    centre[:, :, 2, 2] = True
    masks = {"0.weight": centre, "2.silent.weight": np.zeros((8, 8, 1, 1), dtype=bool)}
    nested = nest(model.eval(), torch.zeros(2, 3, 8, 8), {"sparse": Level(masks=masks)})
    nested.save(tmp_path / "net.nest")
    lines = run(str(tmp_path / "net.nest")).stdout.splitlines()
    assert "sparse: smaller kernels: 0.weight (3x3)" in lines
    assert "sparse: always zero and removed: the branch of 2" in lines
    stayed = "sparse: 2 of 0.weight's rings constant, kept: 0 has less padding than they reach"
    assert any(line.startswith(stayed) for line in lines)


class _Plus(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.silent = nn.Conv2d(8, 8, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.silent(x)
        return y
