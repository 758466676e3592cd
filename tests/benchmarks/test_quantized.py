from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.quantized import AS_TRAINED, LEVELS, NETWORKS, Row, lines, networks
from benchmarks.seeds.data import Images
from nestedge.nested import nest
from nestedge.preprocessing import Preprocessing
from nestedge.training.datasets import DataSet, ImageTensor


def _images() -> Images:
    """As many images as a batch has."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (128, 3, 8, 8), generator=generator, dtype=torch.uint8)
    found = ImageTensor(pixels, torch.arange(128) % 10)
    steps = Preprocessing(input="x", scale=1 / 255, mean=(0.5,) * 3, std=(0.25,) * 3, colour="RGB")
    return Images(DataSet(tuple("abcdefghij"), found, found), steps)


def test_fine_tuning_makes_two_networks_once_and_leaves_the_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )
    path = tmp_path / "net.nest"
    nest(model, torch.zeros(2, 3, 8, 8), LEVELS).save(path)
    before = path.read_bytes()
    found = dict(networks(path, _images()))
    assert list(found) == [AS_TRAINED, *NETWORKS.values()]
    weights = [nested.state_dict()["shared.0.weight"] for nested in found.values()]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(weights[one], weights[other])
    kept = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert sorted(kept) == ["net-plain.nest", "net-rounded.nest", "net.nest"]
    again = dict(networks(path, _images()))
    assert torch.equal(again[NETWORKS["rounded"]].state_dict()["shared.0.weight"], weights[2])
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == kept
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("accuracies", "cells"),
    [
        ({"fp32": 50.0, "int8": 49.5}, "50.00 | 49.50 (-0.50)"),
        ({"fp32": 50.0}, "50.00 | -"),
    ],
    ids=["both", "missing"],
)
def test_the_table_says_what_int8_costs(accuracies: dict[str, float], cells: str) -> None:
    other = Row("as trained", "full", "onnx", {"fp32": 90.0, "int8": 90.25})
    header, rule, line, last = lines([Row("as trained", "half", "tflite", accuracies), other])
    assert line == f"| as trained | half | tflite | {cells} |"
    assert last.endswith("| 90.00 | 90.25 (+0.25) |")
    assert header.count("|") == rule.count("|") == line.count("|")
