"""Well-known networks on every runtime and in every precision, beside the stock tools' files.

    python -m benchmarks.converters [--only NETWORK ...] [--results FILE]
    python -m benchmarks.converters --table

Needs torchvision, and onnx2tf on PATH for `--targets onnx2tf`. Every network is nested with three
levels; each is converted for ONNX Runtime and LiteRT in fp32, fp16 and int8, and by the frameworks'
own tools, called directly, of the level as a network of its own. Records are appended to a file of
JSON lines; a second run does what is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.converters.measuring import measure
from benchmarks.converters.networks import NETWORKS, WIDTHS, subject
from benchmarks.converters.stock import TARGETS
from benchmarks.converters.table import RESULTS, page, read_records
from nestedge.nested import nest

_PACKAGES = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-litert"),
    "ai-edge-quantizer",
)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.converters")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=["onnx", "tflite"])
    parser.add_argument("--levels", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the page")
    return parser.parse_args(given)


def run(name: str, levels: Sequence[str], targets: Sequence[str], results: Path) -> None:
    """Append the records of a network that are missing."""
    known = read_records(results)
    left = [
        (level, target)
        for level in levels
        for target in targets
        if (name, level, target, "fp32") not in known
    ]
    if not left:
        return
    found = subject(name)
    nested = nest(found.module, found.images[-1:], WIDTHS).eval()
    versions = {package: version(package) for package in _PACKAGES}
    for level, target in left:
        with tempfile.TemporaryDirectory() as folder:
            cells = list(measure(found, nested, level, target, Path(folder)))
        with results.open("a") as file:
            for cell in cells:
                record = {**cell.to_json(), "versions": versions, "machine": platform.machine()}
                file.write(json.dumps(record) + "\n")
                print(
                    f"{name} {level} {target}-{cell.precision}: error {cell.error}, "
                    f"to stock {cell.to_stock} {cell.failure}",
                    file=sys.stderr,
                    flush=True,
                )


def main(given: Sequence[str]) -> int:
    """Measure what is missing and print the page."""
    options = arguments(given)
    if not options.table:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        options.results.parent.mkdir(parents=True, exist_ok=True)
        for name in options.only:
            run(name, options.levels, options.targets, options.results)
    print("\n".join(page(read_records(options.results))))
    return 0
