"""How long four levels for three runtimes take, beside one network by the frameworks' own tools.

    python -m benchmarks.building [NETWORK ...] [--precisions fp32 ...]

`nestedge build` makes four widths for ONNX Runtime, LiteRT and TensorRT, into an empty folder and
again where everything is up to date, with one process and with two. The tools are programs of their
own, as they are for their users: torch.onnx for ONNX Runtime, once more for TensorRT, and
litert-torch, one after the other, of the full level only. Times are of the wall clock and of all
cores together; memory is the largest sum of what all processes of a run hold.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.converters.stock import CASES
from benchmarks.subjects import EVERY, RESNET18, WIDTHS, Subject, find
from nestedge.nested import nest
from nestedge.nestfile import save
from nestedge.precisions import BASIC

DEVICES = ("local", "jetson-orin-nano-8gb")
"""This machine, for ONNX Runtime and LiteRT, and one with TensorRT."""

ROUTES = ("onnx", "onnx", "tflite")
"""The stock programs that are run; TensorRT reads an ONNX file too."""

_EVERY = 0.05


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: of the wall clock.
        cpu_seconds: of all processes together.
        peak_bytes: the largest sum of the resident sets of its processes.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measured(command: Sequence[str]) -> Cost:
    """Runs a command to its end.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peaks = [0]
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    watcher.join()
    if code:
        raise subprocess.CalledProcessError(code, list(command))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, used, max(peaks))


def _watch(process: subprocess.Popen[bytes], peaks: list[int]) -> None:
    while process.poll() is None:
        peaks.append(sum(_resident(pid) for pid in _family(process.pid)))
        time.sleep(_EVERY)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def write_network(subject: Subject, path: Path) -> None:
    """A nested network of four widths, with images to calibrate with."""
    torch.manual_seed(0)
    images = subject.images(CASES)
    network = nest(subject.full(), images[:1], {f"w{100 * width:g}": width for width in WIDTHS})
    network.calibrate_with(images)
    save(network, path)


def rows(subject: Subject, precisions: Sequence[str], folder: Path) -> Iterator[str]:
    """The lines of a table: the stock programs first, which the others are compared with."""
    tool = [sys.executable, "-m", "benchmarks.converters.stock"]
    stock = [measured([*tool, route, subject.name, *precisions]) for route in ROUTES]
    base = Cost(
        sum(cost.seconds for cost in stock),
        sum(cost.cpu_seconds for cost in stock),
        max(cost.peak_bytes for cost in stock),
    )
    yield _row(subject, "stock tools, one level", base, base)
    model = folder / "model.nest"
    write_network(subject, model)
    for jobs in (1, 2):
        command = [sys.executable, "-m", "nestedge", "build", str(model), "-j", str(jobs)]
        command += [word for device in DEVICES for word in ("-d", device)]
        command += [word for precision in precisions for word in ("-p", precision)]
        command += ["-o", str(folder / f"dist{jobs}")]
        yield _row(subject, f"nestedge, four levels, `-j {jobs}`", measured(command), base)
        yield _row(subject, "the same, nothing to do", measured(command), base)


def _row(subject: Subject, what: str, cost: Cost, base: Cost) -> str:
    cells = (
        subject.name,
        what,
        f"{cost.seconds:.1f}",
        f"{cost.seconds / base.seconds:.2f}",
        f"{cost.cpu_seconds:.1f}",
        f"{cost.cpu_seconds / base.cpu_seconds:.2f}",
        f"{cost.peak_bytes / 2**20:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main(given: Sequence[str]) -> int:
    """Print a table of some networks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.building")
    parser.add_argument("networks", nargs="*", default=[RESNET18.name])
    parser.add_argument("--precisions", nargs="+", choices=BASIC, default=["fp32"])
    options = parser.parse_args(given)
    print(f"In {', '.join(options.precisions)}:\n")
    print("| network | what | s | of stock | CPU s | of stock | peak MiB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for subject in find(EVERY, tuple(options.networks)):
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(subject, options.precisions, Path(folder)):
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
