"""The demo from end to end: train, save, build, verify, measure, pick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact, find_artifacts
from nestedge.build import build
from nestedge.demo.training import train_digits
from nestedge.documents import write_arrays
from nestedge.nestfile import load, save
from nestedge.plugins import load_runtime
from nestedge.profiling.measure import (
    Measurement,
    measure_accuracy,
    profile_folder,
    save_measurements,
)
from nestedge.selection import Budget, Selection, candidates, select
from nestedge.training import Progress
from nestedge.verify import Verification, verify_folder

MODEL_FILE = "digits.nest"
TEST_FILE = "digits-test.npz"
DIGIT_FILE = "digit.npy"
BUILD_FOLDER = "dist"


@dataclass(frozen=True)
class Story:
    """What the demo did.

    Attributes:
        artifacts: by cell.
        verifications: of every artifact, by cell.
        measurements: latency, load time and accuracy of every artifact.
        selection: the artifact picked for the budget.
    """

    artifacts: Mapping[str, Artifact]
    verifications: Mapping[str, Verification]
    measurements: tuple[Measurement, ...]
    selection: Selection


def tell(
    folder: Path,
    *,
    budget: Budget,
    targets: tuple[str, ...] = ("onnx", "tflite"),
    rounds: int = 200,
    seed: int = 0,
    announce: Callable[[str], None] = print,
    progress: Callable[[Progress], None] | None = None,
) -> Story:
    """Run the demo in a folder.

    Args:
        folder: where digits.nest, the test digits and dist/ are written.
        budget: what to pick for.
        targets: runtimes to build for.
        rounds: runs of each artifact that its latency is taken from.
        seed: of training and of the order of measurements.
        announce: is called with a line before every step.
        progress: is called while training.

    Raises:
        VerificationError: an artifact is not its level.
        BudgetError: none fits the budget.
        MissingDependencyError: a package that it needs is not installed.
    """
    announce("training three nested levels on scikit-learn's handwritten digits")
    trained, data = train_digits(progress, seed=seed)
    save(trained, folder / MODEL_FILE)
    test = data.test
    write_arrays(folder / TEST_FILE, {"inputs": test.images, "labels": test.digits})
    write_arrays(folder / DIGIT_FILE, {"": test.images[0]})
    announce(f"wrote {MODEL_FILE}; materialising and converting every level")
    dist = folder / BUILD_FOLDER
    # From the file, which is all that anybody else would have.
    build(load(folder / MODEL_FILE), dist, targets=targets)
    announce("verifying every artifact against its level")
    verifications = {result.cell: result for result in verify_folder(dist)}
    announce("measuring latency and accuracy on this machine")
    measurements = profile_folder(dist, rounds=rounds, seed=seed)
    artifacts = find_artifacts(dist)
    for artifact in artifacts:
        runtime = load_runtime(artifact.runtime)
        measurements.append(
            measure_accuracy(artifact, runtime, inputs=test.images, labels=np.array(test.digits))
        )
    save_measurements(dist, measurements)
    return Story(
        artifacts={artifact.cell: artifact for artifact in artifacts},
        verifications=verifications,
        measurements=tuple(measurements),
        selection=select(candidates(artifacts, measurements), budget),
    )
