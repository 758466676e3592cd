from __future__ import annotations

from dataclasses import replace

import pytest

from nestedge.errors import MissingDependencyError, NestedgeError
from nestedge_tensorrt.places import Here
from nestedge_tensorrt.probe import (
    PROBE,
    PROBE_TOOLS,
    Device,
    banner_version,
    fingerprint_of,
    read_device,
)
from tests.nestedge_tensorrt.recorded import ORIN_6, PC, XAVIER_5

DEVICES = {
    "Orin Nano, JetPack 6.2": (
        ORIN_6,
        Device(
            model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            compute_capability="8.7",
            driver="L4T 36.4.7",
            jetpack="6.2.1+b38",
            cuda="12.6.11",
            power_mode="MAXN_SUPER",
            builds=("10.3.0.30",),
            trtexec="/usr/src/tensorrt/bin/trtexec",
            banner="10.3.0",
            python="10.3.0",
        ),
    ),
    "Xavier NX, JetPack 5.1": (
        XAVIER_5,
        Device(
            model="NVIDIA Jetson Xavier NX Developer Kit",
            compute_capability="7.2",
            driver="L4T 35.4.1",
            jetpack="5.1.2-b104",
            cuda="",
            power_mode="MODE_20W_6CORE",
            builds=(),
            trtexec="/usr/src/tensorrt/bin/trtexec",
            banner="8.5.2",
            python="8.5.2.2",
        ),
    ),
    "a PC": (
        PC,
        Device(
            model="NVIDIA H100 80GB HBM3",
            compute_capability="9.0",
            driver="550.54.15",
            jetpack="",
            cuda="",
            power_mode="",
            builds=("10.16.0.72",),
            trtexec="/usr/bin/trtexec",
            banner="10.16.0.72",
            python="",
        ),
    ),
}


def _quiet(output: str) -> str:
    """The output without what went to stderr, which the script drops."""
    kept = (line for line in output.splitlines() if "No such file" not in line)
    return "\n".join(line for line in kept if "not found" not in line and "no packages" not in line)


@pytest.mark.parametrize(("output", "device"), DEVICES.values(), ids=DEVICES)
def test_what_a_device_prints_is_read(output: str, device: Device) -> None:
    assert read_device(_quiet(output)) == device


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --help", "8.2.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v9200] # trtexec", "9.2.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100001] # trtexec", "10.0.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101302] [b6] # trtexec", "10.13.2.6"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106] # trtexec", "11.1.0.106"),
        ("&&&& RUNNING TensorRT.trtexec # trtexec --help", ""),
        ("sh: trtexec: not found", ""),
    ],
)
def test_the_banner_of_each_version_is_read(line: str, version: str) -> None:
    assert banner_version(line) == version


ORIN = DEVICES["Orin Nano, JetPack 6.2"][1]


@pytest.mark.parametrize(
    ("by", "device", "version"),
    [
        ("trtexec", ORIN, "10.3.0.30"),
        ("python", ORIN, "10.3.0.30"),
        # Another TensorRT, from a package index, has no header of its own.
        ("python", replace(ORIN, python="10.16.0.72"), "10.16.0.72"),
        ("python", replace(ORIN, python="10.3"), "10.3.0.30"),
        ("trtexec", DEVICES["Xavier NX, JetPack 5.1"][1], "8.5.2"),
    ],
)
def test_a_version_is_as_exact_as_anything_tells_it(by: str, device: Device, version: str) -> None:
    assert device.tool(by) == version


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("trtexec", "no trtexec on the device: sudo apt-get install libnvinfer-bin"),
        ("python", "no Python's module tensorrt on the device: sudo apt-get install python3-libnv"),
    ],
)
def test_a_missing_tool_is_named_with_the_line_to_type(by: str, message: str) -> None:
    with pytest.raises(MissingDependencyError, match=message):
        replace(ORIN, banner="", python="").tool(by)


def test_a_device_whose_gpu_is_unknown_has_no_fingerprint() -> None:
    with pytest.raises(NestedgeError, match="does not say its GPU's compute capability"):
        fingerprint_of(
            replace(ORIN, compute_capability=""),
            tensorrt="10.3.0.30",
            model_sha256="0" * 64,
            precision="fp16",
            options="",
        )


def test_the_script_runs_to_its_end_whatever_is_missing() -> None:
    found = Here().run(PROBE + PROBE_TOOLS + "section end; echo here")
    assert found.output.rstrip().endswith("@@ end\nhere")
    assert isinstance(read_device(found.output), Device)
