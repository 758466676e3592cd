from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nestedge.devices.files import known_ids
from nestedge.devices.library import load_profile
from nestedge.devices.profile import FIGURES, DeviceProfile, Figure, Target, WidthMultiple
from nestedge.documents import Value
from nestedge.errors import FormatError
from tests.json_changes import places, put

DOCS = Path(__file__).parents[2] / "docs" / "devices.md"

PROFILE = DeviceProfile(
    id="my-board",
    name="My board",
    kind="linux",
    targets=(
        Target(
            "onnx",
            ("1.31.1",),
            ("fp32", "int8"),
            source="tried",
            confidence="high",
            multiples={"int8": WidthMultiple(16, "its kernels", "medium")},
        ),
    ),
    figures={
        "cpu.cores": Figure(4, "its data sheet", "high"),
        "cpu.isa": Figure(("neon", "fp16"), "/proc/cpuinfo", "high"),
        "memory.bandwidth_gbs": Figure(17.1, "derived", "medium"),
        "memory.type": Figure("LPDDR4", "a forum", "low"),
    },
    match={"compatible": ("me,my-board",)},
)


def _document() -> Any:
    # Through text, as JSON has no tuples.
    return json.loads(json.dumps(PROFILE.to_json()))


def _read(data: object) -> DeviceProfile:
    return DeviceProfile.from_json(Value(data, "x.toml"))


@pytest.mark.parametrize("device", [*known_ids(), "my-board"])
def test_a_profile_survives_its_json(device: str) -> None:
    profile = PROFILE if device == "my-board" else load_profile(device)
    data = json.loads(json.dumps(profile.to_json(), allow_nan=False))
    assert _read(data) == profile


def test_match_may_be_left_out() -> None:
    data = _document()
    del data["match"]
    assert _read(data).match == {}


def test_multiples_may_be_left_out() -> None:
    data = _document()
    del data["runtime"][0]["multiple"]
    assert _read(data).targets[0].multiples == {}


def _refusal(data: object) -> str | None:
    try:
        _read(data)
    except FormatError as error:
        return str(error)
    return None


def test_a_profile_that_asks_for_nothing_matches_nothing() -> None:
    said = {"compatible": ("me,my-board",)}
    assert PROFILE.matches(said)
    assert not dataclasses.replace(PROFILE, match={}).matches(said)


def _figure(**changed: object) -> dict[str, object]:
    return {"value": 4, "source": "its data sheet", "confidence": "high", **changed}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            put("cpu", "cores", to=4), "cpu.cores: expected an object, found 4", id="bare"
        ),
        pytest.param(
            put("cpu", "cores", to={"value": 4, "confidence": "high"}),
            "cpu.cores.source: missing",
            id="no source",
        ),
        pytest.param(
            put("cpu", "cores", to=_figure(source=" ")),
            'cpu.cores.source: expected a text that says something, found " "',
            id="empty source",
        ),
        pytest.param(
            put("cpu", "cores", to=_figure(confidence="sure")),
            'cpu.cores.confidence: expected "high" or "medium" or "low", found "sure"',
            id="another confidence",
        ),
        pytest.param(
            put("cpu", "cores", to=_figure(unit="cores")),
            "cpu.cores.unit: unknown; expected value, source, confidence",
            id="unknown key of a figure",
        ),
        pytest.param(
            put("cpu", "cores", to=_figure(value=0)),
            "cpu.cores.value: expected an integer of at least 1, found 0",
            id="zero for unknown",
        ),
        pytest.param(
            put("cpu", "cores", to=_figure(value="4")),
            'cpu.cores.value: expected an integer of at least 1, found "4"',
            id="text for a count",
        ),
        pytest.param(
            put("memory", "bandwidth_gbs", to=_figure(value=0.0)),
            "memory.bandwidth_gbs.value: expected a number above 0; leave out what is unknown",
            id="zero for an unknown rate",
        ),
        pytest.param(
            put("memory", "bandwidth_gbs", to=_figure(value=float("inf"))),
            "memory.bandwidth_gbs.value: expected a finite number, found Infinity",
            id="infinite",
        ),
        pytest.param(
            put("cpu", "isa", to=_figure(value="neon")),
            'cpu.isa.value: expected an array, found "neon"',
            id="text for a list",
        ),
        pytest.param(
            put("cpu", "isa", to=_figure(value=["neon", "neon"])),
            "cpu.isa.value: expected at least one text, and none twice",
            id="twice in a list",
        ),
        pytest.param(
            put("cpu", "isa", to=_figure(value=[])),
            "cpu.isa.value: expected at least one text, and none twice",
            id="empty list",
        ),
        pytest.param(
            put("cpu", "core", to=_figure()),
            "cpu.core: unknown figure; did you mean 'cpu.cores'?",
            id="unknown figure",
        ),
        pytest.param(
            put("cpus", to={}),
            "cpus: unknown; expected id, name, kind, runtime, match, soc, cpu,",
            id="unknown section",
        ),
        pytest.param(
            put("gpu", to={"sparse_int8_tops": _figure()}),
            "gpu.sparse_int8_tops: a figure for 2:4 sparse weights, which no artifact here has; "
            "give the dense one",
            id="sparse figure",
        ),
        pytest.param(
            put("gpu_Sparse", to={}), "gpu_Sparse: a figure for 2:4 sparse", id="sparse section"
        ),
        pytest.param(
            put("kind", to="fridge"),
            'kind: expected "jetson" or "android" or "linux", found "fridge"',
            id="unknown kind",
        ),
        pytest.param(put("id", to="a/b"), "id: expected a plain name", id="id of two parts"),
        pytest.param(put("name", to=""), "name: expected a text that says", id="no name"),
        pytest.param(
            put("runtime", 0, "precisions", 1, to="fp8"),
            'runtime[0].precisions[1]: expected "fp32" or "fp16" or "int8" or "int8-full" or '
            '"int8-dynamic" or "int16x8", found "fp8"',
            id="unknown precision",
        ),
        pytest.param(
            put("runtime", 0, "precisions", to=[]),
            "runtime[0].precisions: expected at least one text",
            id="no precision",
        ),
        pytest.param(
            put("runtime", 0, "multiple", "int8", to=16),
            "runtime[0].multiple.int8: expected an object, found 16",
            id="bare multiple",
        ),
        pytest.param(
            put("runtime", 0, "multiple", "fp16", to=_figure(value=8)),
            "runtime[0].multiple.fp16: unknown; expected fp32, int8",
            id="multiple of a precision that is not built",
        ),
        pytest.param(
            put("runtime", 0, "multiple", "int8", "value", to=0),
            "runtime[0].multiple.int8.value: expected an integer of at least 1, found 0",
            id="zero for an unknown multiple",
        ),
        pytest.param(
            put("runtime", 0, "multiple", "int8", "value", to=16.0),
            "runtime[0].multiple.int8.value: expected an integer of at least 1, found 16.0",
            id="multiple that is no integer",
        ),
        pytest.param(
            put("runtime", 0, "multiple", "int8", "source", to=""),
            'runtime[0].multiple.int8.source: expected a text that says something, found ""',
            id="multiple without a source",
        ),
        pytest.param(
            put("runtime", 0, "multiple", "int8", "confidence", to="sure"),
            'runtime[0].multiple.int8.confidence: expected "high" or "medium" or "low"',
            id="multiple of another confidence",
        ),
        pytest.param(
            put("runtime", 0, "multiple", "int8", "unit", to="channels"),
            "runtime[0].multiple.int8.unit: unknown; expected value, source, confidence",
            id="unknown key of a multiple",
        ),
        pytest.param(
            put("runtime", 0, "multiple", to=16),
            "runtime[0].multiple: expected an object, found 16",
            id="one multiple for all precisions",
        ),
        pytest.param(
            put("runtime", 0, to=1), "runtime[0]: expected an object, found 1", id="bare runtime"
        ),
        pytest.param(
            put("runtime", to=[PROFILE.targets[0].to_json()] * 2),
            "runtime[1].name: runtime 'onnx' stands twice",
            id="runtime twice",
        ),
        pytest.param(
            put("match", "compatible", to="me,my-board"),
            'match.compatible: expected an array, found "me,my-board"',
            id="match of one text",
        ),
    ],
)
def test_a_profile_that_is_not_one_is_refused(change: Callable[[Any], None], message: str) -> None:
    data = _document()
    change(data)
    with pytest.raises(FormatError, match=f"^{re.escape(f'x.toml: {message}')}"):
        _read(data)


def test_no_key_may_be_missing() -> None:
    for index in range(len(places(_document()))):
        data = _document()
        parent, key = places(data)[index]
        if not isinstance(parent, dict) or key in ("match", "cpu", "memory", "multiple"):
            continue
        if parent in (data["cpu"], data["memory"], data["match"], data["runtime"][0]["multiple"]):
            continue
        del parent[key]
        with pytest.raises(FormatError, match=rf"\b{key}: missing$"):
            _read(data)


@pytest.mark.parametrize("wrong", [None, True, [], {}, 7, "x"])
def test_whatever_stands_anywhere_an_error_names_the_place(wrong: object) -> None:
    for index in range(len(places(_document()))):
        data = copy.deepcopy(_document())
        parent, key = places(data)[index]
        parent[key] = wrong
        message = _refusal(data)
        # Some places take what is put there; none may fail in another way.
        assert message is None or message.startswith("x.toml: ")


def test_an_embedded_profile_is_named_by_its_place() -> None:
    value = Value({"id": "a"}, "build.json", "devices.a")
    with pytest.raises(FormatError, match=r"^build\.json: devices\.a\.name: missing$"):
        DeviceProfile.from_json(value)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_explained(name: str) -> None:
    assert f"`{name}`" in DOCS.read_text()
