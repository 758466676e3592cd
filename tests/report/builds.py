"""A build folder with a cell in every state, for this machine and for two that it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nestedge.artifact import Artifact, CalibrationRecord, find_artifacts
from nestedge.devices.profile import Figure
from nestedge.matrix import Cell, ConverterRecord, Matrix, write_matrix
from nestedge.profiling.measurement import Measurement, describe_device, save_measurements
from nestedge.report import write_report
from nestedge.selection import Budget
from nestedge.verify import ENGINE_UNBUILT, Verification, save_verifications
from tests.fakes import DESCRIPTION, fake_artifact, measurement
from tests.matrices import device, fake_matrix
from tests.report.markup import Element, parse

CALIBRATION = CalibrationRecord("ca" * 32, 64)
REMEDY = "int8 needs calibration data: give --calibration FOLDER"
CRASH = "the converter ended by signal SIGKILL"

DEVICES = (
    device("local", {"onnx": ["fp32", "fp16", "int8"]}),
    device("jetson-orin-nano-8gb", {"tensorrt": ["fp16", "int8"], "onnx": ["fp32"]}),
    replace(
        device("pixel-8", {"tflite": ["fp32"], "onnx": ["int8"]}),
        name="Google Pixel 8",
        figures={"memory.total_mb": Figure(8192, "the maker's data sheet", "high")},
    ),
)
BUILT = (("onnx", "fp32"), ("onnx", "fp16"), ("tensorrt", "fp16"), ("tflite", "fp32"))
UNBUILT = (
    *(Cell(level, "onnx", "int8", "skipped", REMEDY) for level in ("small", "full")),
    Cell("small", "tensorrt", "int8", "failed", CRASH, "logs/small-tensorrt-int8.log"),
    Cell("full", "tensorrt", "int8", "skipped", REMEDY),
)


def machine(root: Path) -> str:
    """This machine as `describe_device` calls it, where its system lies in `root`."""
    return describe_device(root / "proc/cpuinfo")


def _artifacts(dist: Path) -> list[Artifact]:
    """Two levels of each runtime and precision that is built."""
    return [
        fake_artifact(
            dist,
            replace(
                DESCRIPTION,
                level=level,
                runtime=runtime,
                precision=precision,
                parameters=parameters,
                checked_by="onnx" if runtime == "tensorrt" else runtime,
                producer={"nestedge": "0.1.0", f"{runtime}-writer": "3.2"},
                calibration=CALIBRATION if precision == "fp16" else None,
            ),
            seed=10 * parameters + index,
        )
        for level, parameters in (("small", 1500), ("full", 27000))
        for index, (runtime, precision) in enumerate(BUILT)
    ]


def build_folder(dist: Path) -> Matrix:
    """A build folder in which nothing was verified or measured."""
    found = fake_matrix(dist, _artifacts(dist), devices=DEVICES, unbuilt=UNBUILT)
    packages = {"torch": "2.13.0+cpu", "onnx": "1.22.0"}
    source = replace(
        found.source,
        model="digits.nest",
        sha256="d1" * 32,
        levels={"small": "aa" * 32, "full": "bb" * 32},
        converters={"onnx": ConverterRecord(("fp32", "fp16"), packages)},
    )
    matrix = replace(found, source=source, calibration=CALIBRATION)
    write_matrix(dist, matrix)
    return matrix


def verification(artifact: Artifact, *, max_error: float = 2e-6) -> Verification:
    """What a runtime found of an artifact; an error above 1e-5 is too large."""
    passed = max_error <= artifact.tolerance
    return Verification(
        cell=artifact.cell,
        model_sha256=artifact.files[artifact.model].sha256,
        runtime=artifact.checked_by,
        runtime_version=f"{artifact.checked_by} 7.8",
        device="the host",
        max_error=max_error,
        tolerance=artifact.tolerance,
        passed=passed,
        output="logits" if math.isfinite(max_error) else "",
        reason="" if passed else "its outputs are others",
        cases=3,
        note=ENGINE_UNBUILT if artifact.is_engine_unbuilt else "",
    )


def known_of(artifacts: Sequence[Artifact], root: Path) -> list[Measurement]:
    """Accuracy of all, and latency of what is not TensorRT's, measured on this machine."""
    found = []
    for artifact in artifacts:
        accuracy = 90.0 if artifact.level == "small" else 97.5
        found.append(measurement(artifact, "accuracy_percent", accuracy, width=1.25))
        if artifact.runtime != "tensorrt":
            latency = 2.0 if artifact.level == "small" else 9.0
            found.append(
                replace(measurement(artifact, "latency_ms", latency, width=0.125), p90=latency + 1)
            )
            found.append(measurement(artifact, "load_ms", 30 * latency, width=1.0))
    return [replace(record, device=machine(root)) for record in found]


def complete_folder(dist: Path, root: Path) -> Matrix:
    """A build folder in which everything was verified and measured that can be here."""
    matrix = build_folder(dist)
    artifacts = find_artifacts(dist)
    save_verifications(dist, [verification(artifact) for artifact in artifacts])
    save_measurements(dist, known_of(artifacts, root))
    return matrix


def page(dist: Path, root: Path, *, budget: Budget | None = None) -> Element:
    """The page about a build folder, read strictly."""
    output = dist.parent / "report.html"
    write_report(dist, output, budget=budget, root=root)
    return parse(output.read_text())


def section(document: Element, identity: str) -> Element:
    """The section of one device."""
    (found,) = document.find("section", id=f"device-{identity}")
    return found


def row(document: Element, identity: str, cell: str) -> Element:
    """A cell in the matrix of a device."""
    (found,) = section(document, identity).find("tr", data_cell=cell)
    return found
