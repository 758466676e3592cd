from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nestedge.devices.files import known_ids
from nestedge.devices.library import load_profile
from nestedge.errors import UsageError
from tests.devices.test_files import BOARD

ROOT = Path(__file__).parents[2]


def test_an_id_gives_its_profile() -> None:
    assert load_profile("pixel-8").name == "Google Pixel 8"


def test_local_is_this_machine() -> None:
    assert load_profile("local").id == "local"
    assert "local" not in known_ids()


def test_a_path_gives_the_profile_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(BOARD)
    assert load_profile(str(path)).name == "A board"


def test_an_unknown_device_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        UsageError,
        match=r"^no device 'pixel-9'; known are \[.*'raspberry-pi-5', 'local'\]; "
        r"did you mean 'pixel-8'\?$",
    ):
        load_profile("pixel-9")


@pytest.mark.parametrize("device", ["", "../pixel-8", "pixel-8/", "PIXEL-8"])
def test_only_a_plain_id_is_one(device: str) -> None:
    with pytest.raises(UsageError, match="no device"):
        load_profile(device)


def test_what_the_other_devices_need_is_known() -> None:
    jetson = load_profile("jetson-orin-nano-8gb")
    assert jetson.figures["gpu.compute_capability"].value == "8.7"
    assert [target.runtime for target in jetson.targets] == ["tensorrt", "onnx"]
    # The sparse rate of the brochures is twice that.
    assert jetson.figures["gpu.dense_int8_tops"].value == pytest.approx(8 * 4096 * 0.625 / 1000)
    assert load_profile("raspberry-pi-5").figures["cpu.cores"].value == 4
    assert load_profile("pixel-8").figures["memory.total_mb"].value == 8192


def test_profiles_need_no_torch() -> None:
    code = (
        "import sys; from nestedge.devices.library import load_profile; "
        "load_profile('pixel-8'), load_profile('local'); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "False", done.stderr
