"""What trtexec, or the builder in Python, printed: whether there is an engine, and why not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nestedge_tensorrt.places import KILLED, Finished

_LEVEL = re.compile(r"^\[[\d/:-]+\] (?:\[TRT\] )?\[([EWIV])\] (?:\[TRT\] )?(.*)$")
_SECONDS = re.compile(r"Engine (?:built in|generation completed in) ([\d.]+) sec")
_SPACE = "No space left on device"
_LONGEST = 300

# They say that something failed, behind the line that says what.
_ECHOES = (
    *("Failed to parse onnx file", "Parsing model failed", "Failed to create engine from model"),
    *("Engine set up failed", "Building engine failed", "Engine could not be created from network"),
    *("Network And Config setup failed", "ModelImporter.cpp"),
)

_REMEDIES = (
    (rf"{_SPACE}|Saving engine to file failed", "is its disk full? make room on the device"),
    (
        r"Unknown option|Unrecognized option",
        "this trtexec is of another TensorRT than it says: reinstall libnvinfer-bin",
    ),
    (
        r"out of memory|OutOfMemory|Cuda Runtime \(out|could not allocate|insufficient memory",
        "close other programs, limit the workspace (--workspace), or build a smaller level",
    ),
    (
        r"Could not find any implementation",
        "no kernel fits: give it more workspace, or another precision",
    ),
    (
        r"Plugin not found|No importer registered|No Op registered|not supported|Unsupported",
        "the parser of this TensorRT does not take the operator: update JetPack or change the net",
    ),
    (r"scaleAllPositive", "a scale of int8 is zero: build the artifact again"),
)


@dataclass(frozen=True)
class BuildLog:
    """What a log of a build says.

    Attributes:
        passed: whether the program says of itself that it has built the engine.
        seconds: that the build took; None where the log does not say it.
        compute_capability: of the GPU; "" where the log does not say it.
    """

    passed: bool
    seconds: float | None
    compute_capability: str


def read_log(output: str) -> BuildLog:
    """What the output of trtexec says.

    A build is passed where the last line is "&&&& PASSED", of an engine that says so itself.
    """
    results = re.findall(r"^&&&& (PASSED|FAILED|WAIVED) ", output, re.MULTILINE)
    seconds = _SECONDS.findall(output)
    capability = re.search(r"Compute Capability: (\d+\.\d+)", output)
    return BuildLog(
        passed=results[-1:] == ["PASSED"],
        seconds=float(seconds[-1]) if seconds else None,
        compute_capability=capability.group(1) if capability else "",
    )


def failure(finished: Finished, tool: str) -> str:
    """Why a build failed, in one line with the remedy where one is known."""
    if finished.status == KILLED:
        return (
            f"{tool} was killed, as the kernel does where memory is short: close other programs, "
            "add swap, limit the workspace (--workspace), or build a smaller level"
        )
    said = _first_error(finished.output) or f"it ended with status {finished.status}"
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, finished.output, re.IGNORECASE):
            return f"{tool}: {said}: {remedy}"
    return f"{tool}: {said}"


def _first_error(output: str) -> str:
    """The first error that says anything; what the parser says comes with its operator."""
    lines = output.splitlines()
    node = ""
    for index, line in enumerate(lines):
        found = _LEVEL.match(line)
        message = found.group(2) if found else ""
        if found is None or found.group(1) != "E":
            if _SPACE in line or line.startswith(("terminate called", "Traceback", "error:")):
                return _shortened(_text_of(lines, index))
            continue
        if parsing := re.search(r"While parsing node number \d+ \[([^\]]*)", message):
            node = node or f"{parsing.group(1).strip()}: "
        elif "ERROR:" in message:
            # The importer says where it is on this line, and what is wrong on the next.
            told = lines[index + 1] if index + 1 < len(lines) else message
            return _shortened(f"{node}{told.strip()}")
        elif not message.startswith(_ECHOES):
            return _shortened(f"{node}{message.strip()}")
    return ""


def _text_of(lines: list[str], index: int) -> str:
    """A line that no logger wrote; of a Python traceback, its last."""
    if not lines[index].startswith("Traceback"):
        return lines[index].removeprefix("error:").strip()
    return next(line for line in reversed(lines) if line.strip()).strip()


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
