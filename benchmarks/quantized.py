"""What int8 costs a trained network: the accuracy of every level on CIFAR-10, as a Markdown table.

    python -m benchmarks.quantized --data FOLDER_OR_TAR [--network net.nest] [--fine-tune]

The published ResNet-20 beside the images (resnet20-cifar10.safetensors) is nested and trained
further with all levels, once, and kept in a file. Every level is converted for ONNX Runtime and
LiteRT in single precision and in int8, with ranges of 128 training images: of weights on the grid
that all levels share, of weights with steps of the level's own, and, as a naive conversion of a
family would have it, with the ranges of the activations that the full level has (ONNX only:
ai-edge-quantizer takes ranges from data alone).

With --fine-tune there are two networks more, made once too: all levels trained further by as many
steps, with the rounding of int8 and without. So what rounding gains is not what more steps gain.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from benchmarks.int8 import borrowing, ranges_of, spread
from benchmarks.networks.resnet import CifarResNet
from benchmarks.seeds.budget import Budget, schedule, sgd
from benchmarks.seeds.data import Images, load_images
from benchmarks.seeds.trial import FULL, Trial
from nestedge.convert import BuildSpec, Exported, LevelProgram
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.model import NestedModel
from nestedge.nestfile import load
from nestedge.plugins import Runtime
from nestedge.precisions import WeightSteps
from nestedge.training import FakeQuantization, joint_objective, train
from nestedge_onnx.converter import OnnxConverter
from nestedge_onnx.exporter import export_model
from nestedge_onnx.quantization import FOR_ONNXRUNTIME, quantize
from nestedge_onnx.runtime import OnnxRuntime
from nestedge_tflite.converter import TfliteConverter
from nestedge_tflite.runtime import LiteRtRuntime

BUDGET = Budget(10_000, 4, pixels=32, rates=(0.02,), start="resnet20-cifar10.safetensors")
FURTHER = replace(BUDGET, epochs=2, rates=(0.002,), precision="float32")
AS_TRAINED = "as trained"
NETWORKS = {"plain": "trained further", "rounded": "trained further, rounded"}
"""What fine-tuning makes of the network, by what its file has in its name."""

LEVELS = {"quarter": 0.25, "half": 0.5, FULL: 1.0}
CASES = 128
STEPS: tuple[WeightSteps, ...] = ("family", "level")


@dataclass(frozen=True)
class Row:
    """One level for one runtime.

    Attributes:
        network: how it was trained.
        level: its name.
        runtime: that ran it.
        accuracies: percent of the test images, by variant; a variant that there is not is missing.
    """

    network: str
    level: str
    runtime: str
    accuracies: dict[str, float]


def trained(images: Images, start: Path) -> NestedModel:
    """The published network, nested and trained further with all levels."""
    trial = Trial(images, BUDGET, seed=0, rate=BUDGET.rates[0], start=load_file(start))
    nested = trial.nested(CifarResNet, LEVELS)
    trial.fit(nested, joint_objective(list(LEVELS), F.cross_entropy))
    (inputs, _), *_ = images.calibration(BUDGET.images)
    nested.calibrate_with(inputs[torch.from_numpy(spread(len(inputs), CASES))])
    return nested.eval()


def fine_tuned(
    nested: NestedModel, images: Images, *, quantization: FakeQuantization | None
) -> NestedModel:
    """The same network, trained further with all levels, rounded or not."""
    optimizer = sgd(nested.parameters(), FURTHER.rates[0])
    train(
        nested,
        images.train(FURTHER),
        epochs=FURTHER.epochs,
        objective=joint_objective(list(LEVELS), F.cross_entropy),
        optimizer=optimizer,
        schedule=schedule(optimizer, FURTHER, FURTHER.epochs),
        precision=FURTHER.precision,
        quantization=quantization,
    )
    return nested.eval()


def networks(path: Path, images: Images) -> Iterator[tuple[str, NestedModel]]:
    """The trained network and what fine-tuning makes of it, which is kept in files beside it."""
    yield AS_TRAINED, load(path)
    for suffix, name in NETWORKS.items():
        kept = path.with_name(f"{path.stem}-{suffix}.nest")
        if not kept.exists():
            nested = load(path)
            quantization = FakeQuantization(nested) if suffix == "rounded" else None
            fine_tuned(nested, images, quantization=quantization).save(kept)
        yield name, load(kept)


def measured(nested: NestedModel, images: Images, *, network: str) -> Iterator[Row]:
    """The accuracies of every level for both runtimes.

    Args:
        nested: the trained network, with calibration data.
        images: to test with.
        network: how it was trained.
    """
    assert nested.calibration is not None
    calibration = nested.calibration.inputs
    programs = {name: fold_batch_norms(level_program(nested, name)) for name in LEVELS}
    lent = ranges_of(quantize(export_model(programs[FULL]), calibration))
    for name, program in programs.items():
        onnx, tflite = OnnxConverter().export(program), TfliteConverter().export(program)
        borrowed = quantize(
            export_model(program), calibration, borrowing(FOR_ONNXRUNTIME, lent)
        ).SerializeToString()
        onnx_files = {**_files(onnx, calibration), "int8, borrowed ranges": borrowed}
        for runtime, files in (
            (OnnxRuntime(), onnx_files),
            (LiteRtRuntime(), _files(tflite, calibration)),
        ):
            accuracy = _accuracy(runtime, program, images)
            found = {kind: accuracy(file) for kind, file in files.items()}
            yield Row(network, name, runtime.name, found)


def _files(exported: Exported, calibration: Mapping[str, Array]) -> dict[str, bytes]:
    """The files of a level: in single precision, and in int8 with either sort of steps."""
    found = {"fp32": exported.convert(BuildSpec()).model}
    for steps in STEPS:
        made = exported.convert(BuildSpec("int8", calibration, steps))
        found[f"int8, steps of the {steps}"] = made.model
    return found


def _accuracy(runtime: Runtime, program: LevelProgram, images: Images) -> Callable[[bytes], float]:
    """Gives the percentage of test images that a file recognises."""
    (spec,), ((output, _),) = program.program.inputs, program.program.outputs

    def accuracy(file: bytes) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            path.write_bytes(file)
            session = runtime.open(path)
            right, count = 0, 0
            for inputs, target in images.test():
                for image, wanted in zip(inputs.numpy(), target.tolist(), strict=True):
                    right += int(session.run({spec.name: image[None]})[output].argmax() == wanted)
                    count += 1
        return 100 * right / count

    return accuracy


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table: accuracies, and what int8 costs in points."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.accuracies))
    yield f"| network | level | runtime | {' | '.join(kinds)} |"
    yield "|---|---|---|" + "---:|" * len(kinds)
    for row in rows:
        cells = [
            _cell(row.accuracies.get(kind), row.accuracies["fp32"], is_base=kind == "fp32")
            for kind in kinds
        ]
        yield f"| {row.network} | {row.level} | {row.runtime} | {' | '.join(cells)} |"


def _cell(accuracy: float | None, base: float, *, is_base: bool) -> str:
    if accuracy is None:
        return "-"
    return f"{accuracy:.2f}" if is_base else f"{accuracy:.2f} ({accuracy - base:+.2f})"


def main(arguments: list[str] | None = None) -> int:
    """Train the network where it is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantized")
    data = os.environ.get("NESTEDGE_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None)
    parser.add_argument("--cache", type=Path, default=Path("cifar10.npz"), help="decoded images")
    parser.add_argument("--network", type=Path, default=Path("resnet20.nest"), help="is made once")
    parser.add_argument("--fine-tune", action="store_true", help="train further, rounded and not")
    options = parser.parse_args(arguments)
    if options.data is None:
        print("--data or NESTEDGE_DATA: expected the images, found neither", file=sys.stderr)
        return 2
    images = load_images(options.data, options.cache, BUDGET)
    if not options.network.exists():
        assert BUDGET.start is not None
        trained(images, options.data.parent / BUDGET.start).save(options.network)
    found = networks(options.network, images)
    asked = found if options.fine_tune else islice(found, 1)
    rows = [row for name, nested in asked for row in measured(nested, images, network=name)]
    count = len(images.data.test.classes)
    print(f"{OnnxRuntime().version()}, {LiteRtRuntime().version()}; {count} test images\n")
    print("\n".join(lines(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
