from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from nestedge.documents import json_bytes, parse_json
from nestedge.errors import FormatError
from nestedge_tensorrt.fingerprint import FINGERPRINT, Fingerprint

VALUES = {
    "model_sha256": "0" * 64,
    "precision": "fp16",
    "options": "",
    "tensorrt": "10.3.0.30",
    "compute_capability": "8.7",
    "device": "NVIDIA Jetson Orin Nano",
    "driver": "L4T 36.4.7",
    "jetpack": "6.2.1+b38",
    "cuda": "12.6.11",
    "power_mode": "15W",
}
FOUND = Fingerprint(VALUES)

MISMATCHES = {
    "model_sha256": "the engine is of another network",
    "precision": "the engine is of another network",
    "options": "the engine was built otherwise",
    "tensorrt": "TensorRT does not load the engine here",
    "compute_capability": "TensorRT does not load the engine here",
    "device": "NVIDIA does not support the engine here",
    "driver": "NVIDIA does not support the engine here",
    "jetpack": "NVIDIA does not support the engine here",
    "cuda": "NVIDIA does not support the engine here",
    "power_mode": "it computes the same, but its kernels were timed at other clocks",
}


def test_every_field_is_looked_at() -> None:
    assert [item.field for item in FINGERPRINT] == list(MISMATCHES)
    assert all(asdict(item)["read"] for item in FINGERPRINT)


def test_the_same_device_is_no_difference() -> None:
    assert FOUND.differences(Fingerprint(dict(VALUES))) == []
    assert FOUND.key == Fingerprint(dict(VALUES)).key


@pytest.mark.parametrize(("name", "meaning"), MISMATCHES.items())
def test_a_difference_names_the_field_both_values_and_what_it_means(
    name: str, meaning: str
) -> None:
    other = Fingerprint({**VALUES, name: "other"})
    was = repr(VALUES[name]) if VALUES[name] else "unknown"
    assert FOUND.differences(other) == [f"{name}: built for {was}, here it is 'other': {meaning}"]
    assert other.key != FOUND.key


def test_the_worst_difference_stands_first() -> None:
    other = Fingerprint({**VALUES, "power_mode": "", "tensorrt": "10.3.0.31"})
    found = FOUND.differences(other)
    assert [text.partition(":")[0] for text in found] == ["tensorrt", "power_mode"]
    assert found[1].startswith("power_mode: built for '15W', here it is unknown: it computes")


def test_a_document_gives_back_what_was_written() -> None:
    document = parse_json(json_bytes(FOUND.to_json()), document="x.json")
    assert Fingerprint.from_json(document) == FOUND


@pytest.mark.parametrize("name", VALUES)
def test_a_document_that_lacks_a_field_is_refused(name: str) -> None:
    data = json.loads(json_bytes(FOUND.to_json()))
    del data[name]
    with pytest.raises(FormatError, match=f"x.json: {name}: missing"):
        Fingerprint.from_json(parse_json(json_bytes(data), document="x.json"))
