"""The demo from end to end: train, build, verify, measure, pick, report, ship, fetch and run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nestedge.artifact import Artifact, find_artifacts
from nestedge.building import Request, build
from nestedge.demo.data import DigitsData
from nestedge.demo.training import train_digits
from nestedge.devices.library import load_profile
from nestedge.devices.profile import LOCAL
from nestedge.documents import write_arrays
from nestedge.errors import NestedgeError
from nestedge.images import read_image
from nestedge.matrix import Matrix
from nestedge.nestfile import save
from nestedge.packaging.fetching import fetch
from nestedge.packaging.shipping import ship
from nestedge.profiling.measure import (
    Measurement,
    measure_accuracies,
    profile_folder,
    save_measurements,
)
from nestedge.report import write_report
from nestedge.runtime import Label, NestedRuntime
from nestedge.selection import Budget, DeviceSelection, select_for_device
from nestedge.training import Progress
from nestedge.verify import Verification, save_verifications, verify_folder

MODEL_FILE = "digits.nest"
TEST_FILE = "digits-test.npz"
IMAGE_FILE = "digit.png"
BUILD_FOLDER = "dist"
REPORT_FILE = "report.html"
REPOSITORY = "repo"
DEVICE_FOLDER = "device"

DEVICES = ("jetson-orin-nano-8gb", "pixel-8", "raspberry-pi-5", LOCAL)


@dataclass(frozen=True)
class Answer:
    """What a level, run by NestedRuntime from the fetched folder, says of the image.

    Attributes:
        cell: what ran.
        labels: the best first.
    """

    cell: str
    labels: Sequence[Label]


@dataclass(frozen=True)
class Story:
    """What the demo did.

    Attributes:
        matrix: the cells, and the devices that they are for.
        artifacts: by cell.
        verifications: of every artifact, by cell.
        measurements: latency, load time and accuracy.
        selections: what was picked for every device within the budget.
        answers: of every level that was fetched for this machine, from the smallest on.
    """

    matrix: Matrix
    artifacts: Mapping[str, Artifact]
    verifications: Mapping[str, Verification]
    measurements: Sequence[Measurement]
    selections: Mapping[str, DeviceSelection]
    answers: Sequence[Answer]


def tell(
    folder: Path,
    *,
    budget: Budget,
    devices: Sequence[str] = DEVICES,
    rounds: int = 200,
    seed: int = 0,
    announce: Callable[[str], None] = print,
    progress: Callable[[Progress], None] | None = None,
) -> Story:
    """Run the demo in a folder.

    Args:
        folder: where everything is written.
        budget: what to pick for.
        devices: to build and pick for; the last is run from what was shipped for it.
        rounds: runs of each artifact that its latency is taken from.
        seed: of training and of the order of measurements.
        announce: is called with a line before every step.
        progress: is called while training.

    Raises:
        NestedgeError: an artifact could not be built, or none fits the budget.
        MissingDependencyError: a package that it needs is not installed.
    """
    announce("training three nested levels on scikit-learn's handwritten digits")
    data = _train(folder, seed, progress)
    announce(f"wrote {MODEL_FILE}; building every level and precision for {len(devices)} devices")
    dist = folder / BUILD_FOLDER
    request = Request([load_profile(device) for device in devices])
    processes = min(4, os.cpu_count() or 1)
    built = build(folder / MODEL_FILE, dist, request, processes=processes)
    failed = [f"{cell.name}: {cell.reason}" for cell in built.asked.values() if cell.reason]
    if failed:
        raise NestedgeError("; ".join(failed))
    announce(f"verifying {len(built.asked)} artifacts, each against its level")
    verifications = verify_folder(dist)
    save_verifications(dist, verifications)
    announce("measuring latency and accuracy on this machine")
    labels = np.array(data.test.digits)
    measurements = [
        *profile_folder(dist, rounds=rounds, seed=seed),
        *measure_accuracies(dist, inputs=data.test.images, labels=labels),
    ]
    save_measurements(dist, measurements)
    # Written first: it also tells why nothing may fit the budget.
    write_report(dist, folder / REPORT_FILE, budget=budget)
    selections = {device: select_for_device(dist, device, budget) for device in devices}
    announce(f"wrote {REPORT_FILE}; shipping to {REPOSITORY}/, fetching for {devices[-1]}")
    chosen = {device: found.selection.chosen for device, found in selections.items()}
    ship(dist, folder / REPOSITORY, devices=devices, default=chosen)
    shipped = folder / DEVICE_FOLDER
    fetch(str(folder / REPOSITORY), device=devices[-1], destination=shipped)
    return Story(
        matrix=built.matrix,
        artifacts={artifact.cell: artifact for artifact in find_artifacts(dist)},
        verifications={result.cell: result for result in verifications},
        measurements=measurements,
        selections=selections,
        answers=list(_answers(shipped, folder / IMAGE_FILE)),
    )


def _train(folder: Path, seed: int, progress: Callable[[Progress], None] | None) -> DigitsData:
    """Writes the trained network and what to try it with; the data."""
    trained, data = train_digits(progress, seed=seed)
    save(trained, folder / MODEL_FILE)
    test = data.test
    write_arrays(folder / TEST_FILE, {"inputs": test.images, "labels": test.digits})
    Image.fromarray(test.images[0, :, :, 0]).save(folder / IMAGE_FILE)
    return data


def _answers(folder: Path, image: Path) -> Iterator[Answer]:
    """What every level says of an image, switched to in one process."""
    runtime = NestedRuntime(folder)
    steps = runtime.artifact.preprocessing
    assert steps is not None, "the demo's card has them"
    pixels = read_image(image, steps)
    for level in runtime.levels:
        runtime.switch(level)
        yield Answer(runtime.cell, runtime.classify(pixels, top=1))
