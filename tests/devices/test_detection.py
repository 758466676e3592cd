from __future__ import annotations

from pathlib import Path

import pytest

from nestedge.devices import detection
from nestedge.devices.detection import detect, matching_profile
from nestedge.errors import MissingDependencyError
from nestedge.plugins import Runtime
from tests.devices.boards import MINI_PC, ORIN_NANO, RASPBERRY_PI_5, write_board
from tests.fakes import FakeRuntime


@pytest.fixture(autouse=True)
def only_tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has one runtime of the two."""

    def load(name: str) -> Runtime:
        if name == "tflite":
            return FakeRuntime()
        raise MissingDependencyError(f"runtime {name!r} needs something")

    monkeypatch.setattr(detection, "load_runtime", load)


def _values(root: Path) -> dict[str, object]:
    return {name: figure.value for name, figure in detect(root).figures.items()}


def test_a_jetson_says_what_it_is(tmp_path: Path) -> None:
    profile = detect(write_board(tmp_path, ORIN_NANO))
    assert profile.id == "local"
    assert profile.kind == "jetson"
    assert profile.name == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert _values(tmp_path) == {
        "cpu.arch": "aarch64",
        "cpu.clusters": ("6x Cortex-A78AE",),
        "cpu.cores": 6,
        "cpu.isa": ("neon", "fp16", "dotprod"),
        "cpu.clock_ghz": 1.5104,
        "memory.total_mb": 7471,
        "os.name": "Ubuntu 22.04.5 LTS",
        "os.l4t": "36.4.7",
    }


def test_a_raspberry_pi_says_what_it_is(tmp_path: Path) -> None:
    profile = detect(write_board(tmp_path, RASPBERRY_PI_5))
    assert profile.kind == "linux"
    assert profile.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert _values(tmp_path) == {
        "cpu.arch": "aarch64",
        "cpu.clusters": ("4x Cortex-A76",),
        "cpu.cores": 4,
        "cpu.isa": ("neon", "fp16", "dotprod"),
        "cpu.clock_ghz": 2.4,
        "memory.total_mb": 3925,
        "os.name": "Debian GNU/Linux 12 (bookworm)",
    }


def test_a_machine_without_a_device_tree_is_named_by_its_processor(tmp_path: Path) -> None:
    profile = detect(write_board(tmp_path, MINI_PC))
    assert profile.name == "4x Intel(R) N100"
    assert profile.figures["os.name"].value == "Debian"


def test_the_source_of_a_figure_is_the_file_that_said_so(tmp_path: Path) -> None:
    figures = detect(write_board(tmp_path, ORIN_NANO)).figures
    assert figures["memory.total_mb"].source == "/proc/meminfo"
    assert figures["os.l4t"].source == "/etc/nv_tegra_release"
    assert {figure.confidence for figure in figures.values()} == {"high"}


def test_a_phone_is_told_by_what_starts_its_apps(tmp_path: Path) -> None:
    assert detect(write_board(tmp_path, {"system/bin/app_process": ""})).kind == "android"


def test_the_release_of_jetpack_5_is_read(tmp_path: Path) -> None:
    line = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n"
    write_board(tmp_path, {"etc/nv_tegra_release": line})
    assert _values(tmp_path) == {"os.l4t": "35.4.1"}


def test_a_machine_that_says_nothing_still_has_a_profile(tmp_path: Path) -> None:
    profile = detect(tmp_path)
    assert profile.name == "this machine"
    assert profile.figures == {}
    assert matching_profile(tmp_path) is None


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    # A folder stands for what the user may not read: root, as in containers, may read any file.
    for name in ORIN_NANO:
        (tmp_path / name).mkdir(parents=True)
    assert detect(tmp_path).figures == {}


def test_what_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    write_board(tmp_path, dict.fromkeys(ORIN_NANO, "\0\xff: what\n\n:\n"))
    assert detect(tmp_path).figures == {}


def test_targets_are_the_runtimes_that_work_here(tmp_path: Path) -> None:
    (target,) = detect(tmp_path).targets
    assert (target.runtime, target.versions) == ("tflite", ("1.0",))
    assert target.precisions == ("fp32", "fp16", "int8")
    assert target.source == "fake 1.0 is installed here"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(ORIN_NANO, "jetson-orin-nano-8gb", id="Jetson Orin Nano"),
        pytest.param(RASPBERRY_PI_5, "raspberry-pi-5", id="Raspberry Pi 5"),
        pytest.param(MINI_PC, None, id="x86"),
        pytest.param(
            {"proc/device-tree/compatible": "raspberrypi,5-compute-module\0brcm,bcm2712\0"},
            None,
            id="the same SoC on another board",
        ),
    ],
)
def test_a_known_device_is_known_by_its_device_tree(
    tmp_path: Path, files: dict[str, str], expected: str | None
) -> None:
    assert matching_profile(write_board(tmp_path, files)) == expected
