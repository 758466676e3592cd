from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.documents import json_bytes, parse_json
from nestedge.errors import FormatError
from nestedge_tensorrt.fingerprint import Fingerprint
from nestedge_tensorrt.options import EngineOptions
from nestedge_tensorrt.store import BuiltEngine, built_engines, store_engine, write_state
from tests.json_changes import Json, put
from tests.nestedge_tensorrt.test_fingerprint import VALUES

BUILT = BuiltEngine(
    engine_sha256="0" * 64,
    fingerprint=Fingerprint(VALUES),
    options=EngineOptions(dla_core=0, timing_cache=True),
    built_by="trtexec --onnx=model.onnx",
    build_seconds=12.5,
)
VERIFIED = replace(BUILT, state="verified", max_error=1e-6, runtime_version="TensorRT 10.3.0.30")
UNTIMED = replace(BUILT, build_seconds=None)


def _read(data: Json) -> BuiltEngine:
    return BuiltEngine.from_json(parse_json(json_bytes(data), document="x.json"))


@pytest.mark.parametrize("built", [BUILT, VERIFIED, UNTIMED], ids=["built", "verified", "untimed"])
def test_a_file_gives_back_what_was_written(built: BuiltEngine) -> None:
    assert _read(built.to_json()) == built


WRONG: dict[str, tuple[Callable[[Json], None], str]] = {
    "another version": (put("format", to=2), "format: expected 1: another version"),
    "another state": (put("state", to="fine"), 'state: expected "built, unverified" or "verified"'),
    "no hash": (put("engine_sha256", to="x"), "engine_sha256: expected 64 hex digits"),
    "half a fingerprint": (put("fingerprint", to={}), r"fingerprint\.model_sha256: missing"),
    "other options": (put("options", to={}), r"options\.strongly_typed: missing"),
    "an unknown field": (put("note", to=""), "note: unknown"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_file_that_says_something_else_is_refused(
    change: Callable[[Json], None], message: str
) -> None:
    document = json.loads(json_bytes(BUILT.to_json()))
    change(document)
    with pytest.raises(FormatError, match=f"^x.json: {message}"):
        _read(document)


def test_an_engine_is_stored_whole_and_its_state_replaced(tmp_path: Path) -> None:
    (tmp_path / "new.engine").write_bytes(b"plan")
    folder = store_engine(tmp_path, tmp_path / "new.engine", built=BUILT, log="a log")
    assert folder == tmp_path / "engines" / BUILT.fingerprint.key
    assert {path.name: path.read_bytes()[:5] for path in folder.iterdir()} == {
        "model.engine": b"plan",
        "build.log": b"a log",
        "engine.fingerprint.json": b'{\n "b',
    }
    write_state(tmp_path, VERIFIED)
    assert built_engines(tmp_path) == [VERIFIED]


def test_a_folder_without_engines_has_none(tmp_path: Path) -> None:
    assert built_engines(tmp_path) == []
