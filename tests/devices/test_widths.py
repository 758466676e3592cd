from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nestedge
from nestedge.devices.files import known_ids
from nestedge.devices.library import load_profile
from nestedge.devices.profile import DeviceProfile, Target, WidthMultiple
from nestedge.devices.widths import find_multiple, width_multiple
from nestedge.errors import UsageError
from tests.devices.test_files import BOARD

ROOT = Path(__file__).parents[2]


def _multiple(value: int) -> WidthMultiple:
    return WidthMultiple(value, f"says {value}", "medium")


PROFILE = DeviceProfile(
    id="board",
    name="A board",
    kind="linux",
    targets=(
        Target(
            "tflite",
            ("2.3.0",),
            ("fp32", "int8"),
            multiples={"int8": _multiple(16), "fp32": _multiple(4)},
        ),
        Target("onnx", ("1.31.1",), ("fp32", "fp16"), multiples={"fp16": _multiple(64)}),
        Target("tensorrt", ("10.3.0",), ("fp32", "int8")),
    ),
    figures={},
    match={},
)


@pytest.mark.parametrize(
    ("runtime", "precision", "expected"),
    [
        pytest.param("tflite", "fp32", ("tflite", "fp32", 4), id="both"),
        pytest.param("onnx", None, ("onnx", "fp16", 64), id="the precision that is known"),
        pytest.param("tflite", None, ("tflite", "int8", 16), id="the largest of a runtime"),
        pytest.param(None, None, ("tflite", "int8", 16), id="the largest of the first runtime"),
        pytest.param(None, "fp32", ("tflite", "fp32", 4), id="the first runtime with a precision"),
        pytest.param(None, "fp16", ("onnx", "fp16", 64), id="the only runtime with a precision"),
    ],
)
def test_the_preferred_runtime_and_the_largest_multiple_count_unless_told(
    runtime: str | None, precision: str | None, expected: tuple[str, str, int]
) -> None:
    found = find_multiple(PROFILE, runtime=runtime, precision=precision)
    assert found.device == "board"
    assert (found.runtime, found.precision, found.multiple.value) == expected
    assert found.multiple.source == f"says {expected[2]}"


def test_of_equal_multiples_the_first_precision_counts() -> None:
    multiples = {"fp16": _multiple(8), "fp32": _multiple(8)}
    target = Target("onnx", ("1.31.1",), ("fp32", "fp16"), multiples=multiples)
    profile = DeviceProfile("board", "A board", "linux", (target,), {}, {})
    assert find_multiple(profile).precision == "fp32"


_KNOWN = "known for tflite in int8, tflite in fp32, onnx in fp16"


@pytest.mark.parametrize(
    ("runtime", "precision", "message"),
    [
        pytest.param(
            "tflit",
            None,
            "board: no runtime 'tflit'; it has ['tflite', 'onnx', 'tensorrt']; "
            "did you mean 'tflite'?",
            id="runtime",
        ),
        pytest.param(
            None,
            "fp8",
            "board: no precision 'fp8'; it has ['fp32', 'int8', 'fp16']",
            id="precision",
        ),
        pytest.param(
            "tflite",
            "fp16",
            "board: no precision 'fp16' of 'tflite'; it has ['fp32', 'int8']",
            id="precision of a runtime",
        ),
        pytest.param(
            "onnx",
            "fp32",
            f"board: not known how many outputs 'onnx' computes at once in fp32; {_KNOWN}",
            id="unknown multiple",
        ),
        pytest.param(
            "tensorrt",
            None,
            f"board: not known how many outputs 'tensorrt' computes at once; {_KNOWN}",
            id="runtime without any",
        ),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(
    runtime: str | None, precision: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        find_multiple(PROFILE, runtime=runtime, precision=precision)


def test_a_device_without_a_runtime_is_refused() -> None:
    bare = DeviceProfile("local", "this machine", "linux", (), {}, {})
    with pytest.raises(UsageError, match=r"^local: no runtime; it has \[\]$"):
        find_multiple(bare)


def test_a_profile_of_ones_own_says_its_multiple(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(BOARD)
    with pytest.raises(UsageError, match=r"at once; its profile says no multiple$"):
        width_multiple(str(path))
    known = 'int8 = { value = 24, source = "tried", confidence = "high" }'
    path.write_text(f"{BOARD}\n[runtime.multiple]\n{known}\n")
    assert width_multiple(str(path)) == 24


@pytest.mark.parametrize(
    ("device", "runtime", "precision", "expected"),
    [
        ("jetson-orin-nano-8gb", "tensorrt", "fp16", 8),
        ("jetson-orin-nano-8gb", "tensorrt", "int8", 32),
        ("jetson-orin-nano-8gb", "onnx", "int8", 16),
        ("pixel-8", "tflite", "fp32", 8),
        ("pixel-8", "tflite", "int8", 16),
        ("raspberry-pi-5", "tflite", "fp16", 8),
        ("raspberry-pi-5", "onnx", "fp32", 8),
    ],
)
def test_known_devices_say_theirs(device: str, runtime: str, precision: str, expected: int) -> None:
    assert width_multiple(device, runtime=runtime, precision=precision) == expected


@pytest.mark.parametrize("device", known_ids())
def test_widths_that_fit_the_default_fit_every_multiple_of_its_runtime(device: str) -> None:
    profile = load_profile(device)
    found = find_multiple(profile)
    assert found.runtime == profile.targets[0].runtime
    multiples = [known.value for known in profile.targets[0].multiples.values()]
    assert multiples
    assert all(found.multiple.value % value == 0 for value in multiples)


def test_it_is_public_and_needs_no_torch() -> None:
    assert nestedge.width_multiple is width_multiple
    code = (
        "import sys, nestedge; assert nestedge.width_multiple('pixel-8') == 16; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "False", done.stderr
