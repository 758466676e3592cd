from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import zoo, zoo_checks, zoo_networks
from benchmarks.zoo_networks import Entry, Heads, Outputs, Subject, tensors_of
from benchmarks.zoo_scaling import live_norms, randomise
from benchmarks.zoo_table import is_exact, markdown

Record = dict[str, Any]
ENTRY = Entry("small", "resnet", 1000, 1, None)


def _level(**changes: float) -> Record:
    usual = {"error": 0.0, "smallest": 1.0, "largest": 2.0, "ratio": 0.3, "seconds": 0.5}
    usual |= {"zeroed": 1e-7, "varies": 0.1}
    return {**usual, **changes}


def _record(level: Record, **changes: Any) -> Record:
    usual = {
        "network": "small",
        "check": "nestedge",
        "stage": "done",
        "form": "whole",
        "not_whole": None,
        "levels": {"0.5": level},
        "seconds": {"export": 1.0, "analysis": 0.1},
    }
    return {**usual, **changes}


class _Deep(nn.Module):
    """Sixty layers that without any scaling give numbers far from order 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.Sequential(*(nn.Linear(16, 16) for _ in range(60)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.stem(images)).mean((2, 3))
        return {"out": self.layers(features)}


def test_only_what_is_missing_is_run_and_what_failed_when_asked() -> None:
    known: dict[zoo.Key, Record] = {("a", "nestedge"): {}, ("b", "nestedge"): {"failed": "no rule"}}
    names, checks = ["a", "b", "c"], ["nestedge", "onnx"]
    open_ = [("c", "nestedge"), ("a", "onnx"), ("b", "onnx"), ("c", "onnx")]
    assert zoo.missing(names, checks, known, retry_failed=False) == open_
    again = zoo.missing(names, checks, known, retry_failed=True)
    assert again == [("b", "nestedge"), *open_]


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "zoo.jsonl"
    assert zoo.read_records(path) == {}
    whole = json.dumps({"network": "a", "check": "onnx", "stage": "done"})
    path.write_text(f'{whole}\n{whole.replace("done", "later")}\n{{"network": "b", "che')
    records = zoo.read_records(path)
    assert list(records) == [("a", "onnx")]
    assert records["a", "onnx"]["stage"] == "later"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(_record(_level()), True, id="exact"),
        pytest.param(_record(_level(error=2e-5)), False, id="another value"),
        pytest.param(_record(_level(error=math.nan)), False, id="no number"),
        pytest.param(_record(_level(smallest=0.0)), False, id="an output of zeros"),
        pytest.param(_record(_level(varies=1e-6)), False, id="what biases make of it"),
        pytest.param(_record(_level(largest=math.inf)), False, id="overflow"),
        pytest.param(_record(_level(), stage="zeroing"), False, id="not finished"),
    ],
)
def test_a_network_is_exact_when_all_levels_are_and_give_something(
    record: Record, *, expected: bool
) -> None:
    assert is_exact(record) is expected


def test_the_table_counts_and_gives_reasons() -> None:
    failed = {"network": "b", "check": "nestedge", "stage": "export", "failed": "UsageError: a|b"}
    pruned = {"network": "small", "check": "torch-pruning", "stage": "pruning", "failed": "shape"}
    records = {(r["network"], r["check"]): r for r in (_record(_level()), failed, pruned)}
    lines, exact = markdown(["small", "b"], records)
    assert not exact
    assert lines[2] == (
        "| small | yes | 0.5 | 0.0e+00 | 1.0e-07 | 1 - 2, 0.1 | 0.300 |  | 1.0, 0.1, 0.5 "
        "| failed: shape |"
    )
    assert lines[3] == "| b | no: UsageError: a/b |  |  |  |  |  |  |  |  |"
    assert lines[-1] == "2 networks: 1 exported, 1 nested, 1 exact; torch-pruning 0 of 1"
    assert markdown(["small"], records)[1]


def test_a_deep_network_gives_numbers_of_order_one_after_redrawing() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    subject = Subject(_Deep().eval(), (images,), "whole")
    randomise(subject, seed=0)
    (output,) = tensors_of(subject.module(images))
    assert 0.3 < output.abs().max() < 30
    assert (output[0] - output[1]).abs().max() > 0.3
    assert all(bias.abs().max() > 0.05 for n, bias in subject.module.named_parameters() if "b" in n)


def test_the_smallest_size_that_a_network_takes_is_used() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 94 * 94, 2))
    (images,) = zoo_networks._smallest(ENTRY, network, seed=1)
    assert images.shape == (2, 3, 96, 96)
    with pytest.raises(ValueError, match="small takes no image of 1 to 518"):
        zoo_networks._smallest(ENTRY, nn.Conv2d(5, 4, 3), seed=1)


def test_a_network_is_nested_and_its_levels_are_what_zeroing_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 5))
    forms = (lambda: Subject(network.eval(), (images,), "whole"),)
    monkeypatch.setattr(zoo_checks, "subjects", lambda _: forms)
    *_, record = zoo_checks.check_nesting(ENTRY)
    assert record["stage"] == "done"
    assert record["form"] == "whole"
    assert list(record["levels"]) == ["0.75", "0.5", "0.25"]
    for width, level in record["levels"].items():
        assert level["error"] <= 1e-6
        assert level["zeroed"] <= 1e-6
        assert level["ratio"] == pytest.approx(float(width), rel=0.02)
    json.dumps(record)


def test_a_network_that_nothing_takes_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sorting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.sort(dim=1).values

    forms = (lambda: Subject(Sorting(), (torch.randn(2, 3),), "outputs as a tuple"),)
    monkeypatch.setattr(zoo_checks, "randomise", lambda _, seed: None)
    monkeypatch.setattr(zoo_checks, "subjects", lambda _: forms)
    with pytest.raises(Exception, match=r"aten\.sort") as caught:
        list(zoo_checks.check_nesting(ENTRY))
    assert zoo_checks.failure(caught.value)["failed"].startswith("UsageError: ")


def test_a_layer_norm_over_what_lives_is_that_of_the_narrower_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, narrow = nn.LayerNorm(8), nn.LayerNorm(5)
    value = torch.randn(4, 8, generator=generator)
    with torch.no_grad():
        for tensor in (wide.weight, wide.bias):
            tensor.copy_(torch.randn(8, generator=generator))
            tensor[5:] = 0
        narrow.weight.copy_(wide.weight[:5])
        narrow.bias.copy_(wide.bias[:5])
    value[:, 5:] = 0
    (handle,) = live_norms(wide)
    torch.testing.assert_close(wide(value)[:, :5], narrow(value[:, :5]))
    handle.remove()
    assert (wide(value)[:, :5] - narrow(value[:, :5])).abs().max() > 0.1


def test_outputs_in_any_nesting_come_as_a_tuple() -> None:
    given = Outputs(_Deep())(torch.randn(2, 3, 8, 8))
    assert [tuple(value.shape) for value in given] == [(2, 16)]


def test_a_detector_is_cut_down_to_its_backbone_and_heads() -> None:
    detector = nn.Module()
    detector.backbone = nn.Conv2d(3, 4, 1)
    detector.rpn = nn.Module()
    detector.rpn.head = nn.Sequential(_First(), nn.Conv2d(4, 2, 1))
    detector.roi_heads = nn.Module()
    pool = nn.Module()
    pool.output_size = (7, 7)  # type: ignore[assignment]
    detector.roi_heads.box_roi_pool = pool
    detector.roi_heads.box_head = nn.Flatten()
    detector.roi_heads.box_predictor = nn.Linear(4 * 49, 6)
    outputs = Heads(detector)(torch.randn(2, 3, 16, 16))
    assert [tuple(value.shape) for value in outputs] == [(2, 2, 16, 16), (2, 6)]


class _First(nn.Module):
    """The first of a list of feature maps."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[0]
