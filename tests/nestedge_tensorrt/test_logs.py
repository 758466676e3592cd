from __future__ import annotations

import pytest

from nestedge_tensorrt.logs import BuildLog, failure, read_log
from nestedge_tensorrt.places import Finished
from tests.nestedge_tensorrt import recorded


@pytest.mark.parametrize(
    ("output", "log"),
    [
        (recorded.PASSED_8_5, BuildLog(True, 12.4375, "7.2")),
        (recorded.PASSED_10, BuildLog(True, 30.25, "8.7")),
        (recorded.PARSING, BuildLog(False, None, "")),
        (recorded.NOT_SAVED, BuildLog(False, 3.5, "")),
        ("", BuildLog(False, None, "")),
        (f"{recorded.PASSED_8_5}{recorded.PARSING}", BuildLog(False, 12.4375, "7.2")),
        ("a file says &&&& PASSED TensorRT.trtexec\n", BuildLog(False, None, "")),
    ],
    ids=["8.5", "10.16", "not parsed", "not saved", "nothing", "two runs", "not a line's start"],
)
def test_a_log_is_read(output: str, log: BuildLog) -> None:
    assert read_log(output) == log


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (recorded.PARSING, 'trtexec: Tile -> "/T": [6] Invalid Node - /Tile'),
        (
            recorded.PLUGIN,
            (
                'trtexec: Mish -> "y": [8] Assertion failed: creator && "Plugin not found, are the '
                'plugin name, version correct?": the parser of this TensorRT does not take the '
                "operator: update JetPack or change the net"
            ),
        ),
        (
            recorded.BUILDER,
            (
                "trtexec: Error[10]: Could not find any implementation for node {ForeignNode[x]}."
                ": no kernel fits: give it more workspace, or another precision"
            ),
        ),
        (
            recorded.UNKNOWN_OPTION,
            (
                "trtexec: Unknown option: --skipInference: this trtexec is of another TensorRT"
                " than it says: reinstall libnvinfer-bin"
            ),
        ),
        (
            recorded.SHAPES,
            "trtexec: Static model does not take explicit shapes since the shape of",
        ),
        (
            recorded.NOT_SAVED,
            "trtexec: Saving engine to file failed.: is its disk full? make room on the device",
        ),
        (
            recorded.MEMORY,
            (
                "trtexec: Error[1]: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime"
                " (out of memory): close other programs, limit the workspace (--workspace), or"
                " build a smaller level"
            ),
        ),
        (
            "cp: error writing 'x': No space left on device\n",
            (
                "trtexec: cp: error writing 'x': No space left on device: is its disk full? make "
                "room on the device"
            ),
        ),
        (
            'Traceback (most recent call last):\n  File "x", line 1\nValueError: it broke\n',
            "trtexec: ValueError: it broke",
        ),
        ("error: no DLA core 2: this device has 0\n", "trtexec: no DLA core 2: this device has 0"),
        ("", "trtexec: it ended with status 1"),
    ],
    ids=[
        *("node", "plugin", "implementation", "option", "shapes", "saving", "memory", "disk"),
        *("python", "job", "silence"),
    ],
)
def test_a_failure_is_one_line_and_a_remedy(output: str, message: str) -> None:
    assert failure(Finished(1, output), "trtexec") == message


def test_a_killed_build_is_short_of_memory() -> None:
    found = failure(Finished(137, recorded.PASSED_10[:200]), "trtexec")
    assert found.startswith("trtexec was killed, as the kernel does where memory is short: close")


def test_a_long_error_is_cut() -> None:
    line = f"[04/27/2026-18:38:45] [E] {'x' * 900}\n"
    assert len(failure(Finished(1, line), "trtexec")) < 350
