"""What calibrating every level by itself is worth in int8, as a Markdown table.

    python -m benchmarks.int8 [--cases N] [--seed N]

Trains the demo's network on its digits, and counts the test digits that every level recognises as
ONNX: in single precision, in int8 with ranges of activations from the level's own calibration, and
in int8 with the ranges of the level "full", tensor by tensor. Only the ranges are borrowed: weights
and biases are quantised anew. ONNX only: ai-edge-quantizer takes ranges from data alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from nestedge.demo.data import PREPROCESSING, DigitsData, Split
from nestedge.demo.training import train_digits
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.model import NestedModel
from nestedge_onnx.exporter import export_model
from nestedge_onnx.quantization import FOR_ONNXRUNTIME, Scheme, quantize
from nestedge_onnx.runtime import OnnxRuntime

LENDER = "full"
CASES = 128

Ranges = Mapping[str, tuple[Array, Array]]
"""Scale and zero point of activations, by tensor."""


@dataclass(frozen=True)
class Row:
    """One level in int8 beside itself in single precision.

    Attributes:
        level: its name.
        fp32: percent of the digits that it recognises in single precision.
        own: percent in int8 with its own ranges.
        own_error: of those logits, relative to single precision's.
        borrowed: percent in int8 with the lender's ranges.
        borrowed_error: of those logits.
        widest: the largest factor between a range of the lender and the level's own.
    """

    level: str
    fp32: float
    own: float
    own_error: float
    borrowed: float
    borrowed_error: float
    widest: float


def spread(count: int, cases: int) -> npt.NDArray[np.int64]:
    """Indices of some cases of many, evenly spaced.

    >>> spread(10, 4)
    array([0, 2, 5, 7])
    """
    return np.arange(min(cases, count)) * count // min(cases, count)


def ranges_of(model: onnx.ModelProto) -> Ranges:
    """The ranges of the activations that a model quantises."""
    constants = {item.name: item for item in model.graph.initializer}
    return {
        node.input[0]: (
            numpy_helper.to_array(constants[node.input[1]]),
            numpy_helper.to_array(constants[node.input[2]]),
        )
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }


def borrowing(scheme: Scheme, ranges: Ranges) -> Scheme:
    """A scheme that takes the ranges of some tensors as they are."""
    given = {
        name: [{"scale": scale, "zero_point": zero_point}]
        for name, (scale, zero_point) in ranges.items()
    }
    return replace(scheme, options={**scheme.options, "TensorQuantOverrides": given})


def widest(own: Ranges, lent: Ranges) -> float:
    """The largest factor, up or down, between the scales of the same tensors."""
    if own.keys() != lent.keys():
        raise ValueError(f"ranges of other tensors: {sorted(own.keys() ^ lent.keys())}")
    ratios = [float(lent[name][0] / own[name][0]) for name in own]
    return max(max(ratio, 1 / ratio) for ratio in ratios)


def logits_of(model: onnx.ModelProto, split: Split) -> Array:
    """What a model of a batch of 1 gives for every image, shape (count, classes)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        session = OnnxRuntime().open(path)
        outputs = [session.run({PREPROCESSING.input: image[None]}) for image in split.inputs()]
    return np.stack([next(iter(output.values()))[0] for output in outputs])


def percent(logits: Array, digits: Array) -> float:
    """The share of digits that are recognised.

    >>> percent(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([1, 1]))
    50.0
    """
    return 100 * float((logits.argmax(1) == digits).mean())


def error_of(found: Array, expected: Array) -> float:
    """The root mean square of the difference, in percent of that of the expected.

    >>> error_of(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    10.0
    """
    return 100 * float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def measure(nested: NestedModel, data: DigitsData, *, cases: int) -> Iterator[Row]:
    """Every level in single precision, and in int8 with its own and with the lender's ranges."""
    images = data.train.inputs()
    calibration = {PREPROCESSING.input: images[spread(len(images), cases)][:, None]}
    models = {
        level: export_model(fold_batch_norms(level_program(nested, level)))
        for level in nested.levels
    }
    quantized = {level: quantize(model, calibration) for level, model in models.items()}
    ranges = {level: ranges_of(model) for level, model in quantized.items()}
    scheme = borrowing(FOR_ONNXRUNTIME, ranges[LENDER])
    for level, model in models.items():
        lent = quantize(model, calibration, scheme)
        fp32, own, borrowed = (logits_of(m, data.test) for m in (model, quantized[level], lent))
        yield Row(
            level,
            fp32=percent(fp32, data.test.digits),
            own=percent(own, data.test.digits),
            own_error=error_of(own, fp32),
            borrowed=percent(borrowed, data.test.digits),
            borrowed_error=error_of(borrowed, fp32),
            widest=widest(ranges[level], ranges[LENDER]),
        )


def lines(rows: Iterator[Row]) -> Iterator[str]:
    """The lines of the table."""
    header = (
        *("level", "fp32", "int8, own ranges", "int8, borrowed"),
        *("error of logits, own", "error, borrowed", "widest ratio of ranges"),
    )
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        shares = (row.fp32, row.own, row.borrowed, row.own_error, row.borrowed_error)
        cells = (row.level, *(f"{share:.1f} %" for share in shares), f"{row.widest:.2f}")
        yield f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="int8 accuracy by whose ranges are used")
    parser.add_argument(
        "--cases", type=int, default=CASES, help="training images to calibrate with"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    options = parser.parse_args(arguments)
    nested, data = train_digits(seed=options.seed)
    print(
        f"{OnnxRuntime().version()}; {len(data.test.digits)} test digits, calibrated with "
        f"{options.cases} training images, seed {options.seed}\n"
    )
    for text in lines(measure(nested, data, cases=options.cases)):
        print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
