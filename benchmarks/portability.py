"""What our ONNX files compute in older releases of onnxruntime, as a Markdown table.

    python -m benchmarks.portability convert FOLDER NETWORK [NETWORK ...]
    python -m benchmarks.portability run FOLDER PYTHON [PYTHON ...]

The first writes torchvision's networks, of random weights, in every precision as .onnx and .ort.
The second runs these files by each interpreter, which needs onnxruntime and numpy, in one thread of
the CPU. Errors are relative to the network itself; times are those of the thread, the median of
some runs, so that other load on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.networks.redraw import redraw
from nestedge.convert import BuildSpec
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge_onnx.converter import OnnxConverter, OnnxExported
from nestedge_onnx.exporter import ONNXRUNTIME_OPSET, export_model
from nestedge_onnx.mobile import OrtConverter, OrtExported

CASES = 8
RUNS = 9
REFERENCE = "reference.npz"
ENDINGS = (".onnx", ".ort")

_PROGRAM = f"""
import json, os, sys, time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime
reference = numpy.load(sys.argv[1])
for path in sys.argv[2:]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    found = {{"version": onnxruntime.__version__}}
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {{session.get_inputs()[0].name: reference["x"]}}
        y, times = session.run(None, inputs)[0], []
        for _ in range({RUNS}):
            start = time.thread_time()
            session.run(None, inputs)
            times.append(1000 * (time.thread_time() - start))
        error = abs(y - reference["y"]).max() / abs(reference["y"]).max()
        found.update(error=float(error), ms=float(numpy.median(times)))
    except Exception as error:
        found["refusal"] = str(error).strip().splitlines()[0]
    print(json.dumps(found))
"""


@dataclass(frozen=True)
class Run:
    """A file in one release of onnxruntime.

    Attributes:
        file: as in "resnet18/int8.onnx".
        version: of onnxruntime.
        error: of its output, relative to the network's; None where it does not run.
        ms: median of one run; None as above.
        refusal: why it does not run.
    """

    file: str
    version: str
    error: float | None = None
    ms: float | None = None
    refusal: str = ""


def convert(name: str, folder: Path) -> None:
    """Writes a network of torchvision in every precision, and what it computes itself."""
    import torchvision  # pyright: ignore[reportMissingImports]

    network = torchvision.models.get_model(name, weights=None).eval()
    redraw(network, seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(CASES, 1, 3, 224, 224, generator=generator)
    level = fold_batch_norms(level_program(nest(network, images[0], {"full": 1.0}), "full"))
    model = export_model(level, opset=ONNXRUNTIME_OPSET)
    exported = {
        ".onnx": OnnxExported(OnnxConverter(), level, model),
        ".ort": OrtExported(OrtConverter(), level, model),
    }
    calibration = {model.graph.input[0].name: images.numpy()}
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    for precision in OnnxConverter.precisions:
        for ending in ENDINGS:
            made = exported[ending].convert(BuildSpec(precision, calibration))
            (folder / f"{precision}{ending}").write_bytes(made.model)
    with torch.no_grad():
        np.savez(folder / REFERENCE, x=images[0].numpy(), y=network(images[0]).numpy())


def run(folder: Path, interpreter: str) -> list[Run]:
    """The files of one network, each run by an interpreter with an onnxruntime of its own.

    Raises:
        subprocess.CalledProcessError: it has no onnxruntime.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
    command = [interpreter, "-c", _PROGRAM, str(folder / REFERENCE), *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return [Run(f"{folder.name}/{p.name}", **each) for p, each in zip(paths, found, strict=True)]


def table(runs: Sequence[Run]) -> str:
    """A row for each file, a column for each onnxruntime, as Markdown."""
    versions = list(dict.fromkeys(each.version for each in runs))
    cells = {(each.file, each.version): _cell(each) for each in runs}
    rows = [
        ["file", *versions],
        ["---"] * (len(versions) + 1),
        *(
            [file, *(cells[file, version] for version in versions)]
            for file in dict.fromkeys(each.file for each in runs)
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(found: Run) -> str:
    if found.error is None or found.ms is None:
        return f"refused: {found.refusal}"
    return f"{found.error:.1e}, {found.ms:.1f} ms"


def main(arguments: Sequence[str]) -> int:
    """Converts, or runs and prints the table; 1 where a file was refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("convert", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", help="networks to convert, or interpreters")
    given = parser.parse_args(arguments)
    if given.action == "convert":
        for name in given.names:
            convert(name, given.folder)
        return 0
    networks = sorted(path.parent for path in given.folder.glob(f"*/{REFERENCE}"))
    runs = [found for name in given.names for folder in networks for found in run(folder, name)]
    print(table(runs))
    return int(any(found.refusal for found in runs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
