from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from nestedge import __version__
from nestedge.building.keys import cell_key
from nestedge.documents import json_bytes
from nestedge.matrix import Cell
from nestedge.precisions import PRECISIONS

LIMIT = {"points": 1.0, "data": "da" * 32}


def _key(max_drop: Mapping[str, object] | None = None) -> str:
    return cell_key(
        Cell("small", "onnx", "int8"),
        level_sha256="1e" * 32,
        converter="onnx",
        packages={"onnx": "1.22.0"},
        calibration_sha256="ca" * 32,
        weight_steps="family",
        max_drop=max_drop,
    )


def test_without_a_limit_the_key_is_what_it_was_before_there_were_limits() -> None:
    document = {
        "nestedge": __version__,
        "cell": "small/onnx-int8",
        "level": "1e" * 32,
        "converter": "onnx",
        "packages": {"onnx": "1.22.0"},
        "tolerance": PRECISIONS["int8"].tolerance,
        "calibration": "ca" * 32,
        "weight_steps": "family",
    }
    assert _key() == hashlib.sha256(json_bytes(document)).hexdigest()


@pytest.mark.parametrize(
    "other",
    [None, {**LIMIT, "points": 2.0}, {**LIMIT, "data": "ad" * 32}],
    ids=["no limit", "points", "data"],
)
def test_another_limit_is_another_key(other: Mapping[str, object] | None) -> None:
    assert _key(LIMIT) == _key(dict(LIMIT))
    assert _key(LIMIT) != _key(other)
