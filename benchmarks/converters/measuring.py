"""Measures the cells of one level: both files, what they compute, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.converters import stock
from benchmarks.converters.cell import Cell
from benchmarks.converters.networks import FULL, Subject
from nestedge.building.cells import prepare_level
from nestedge.building.service import Failure, attempt
from nestedge.convert import BuildSpec
from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge.materialization import materialize
from nestedge.model import NestedModel
from nestedge.plugins import Runtime, Session, load_converter, load_runtime
from nestedge.precisions import BASIC
from nestedge.profiling.timing import measure_interleaved, time_call
from nestedge.redirection import silenced
from nestedge.verify import relative_error

OURS, THEIRS = "ours", "stock"
OPENINGS = 2
SECONDS = 4.0
"""Of timing for all files of a level and a runtime, an opening."""

_CONVERTERS = {"onnx2tf": "tflite"}
"""Ours, where it is not called as the tool is."""

Times = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]


def measure(
    subject: Subject, nested: NestedModel, level: str, target: str, folder: Path
) -> Iterator[Cell]:
    """The cells of a level for one target.

    Args:
        subject: the network.
        nested: it, nested.
        level: of it.
        target: the tool that ours is compared with, of `stock.TARGETS`.
        folder: for the files.
    """
    image, images = subject.images[-1:], subject.images[: stock.CASES, None].numpy()
    with torch.no_grad(), nested.at(level):
        expected = next(iter(_tensors(nested(image)))).numpy()
    name = _CONVERTERS.get(target, target)
    precisions = stock.TARGETS[target]
    made = {
        OURS: _made(lambda: _ours(nested, level, name, images), precisions),
        THEIRS: _made(lambda: _stock(subject, nested, level, target, images), precisions),
    }
    runtime = load_runtime(name)
    opened: dict[tuple[str, str], Path] = {}
    failures: dict[tuple[str, str], str] = {}
    outputs: dict[tuple[str, str], Array] = {}
    for side, files in made.items():
        for precision, content in files.items():
            key = side, precision
            if isinstance(content, Failure):
                failures[key] = content.diagnosis.line
                continue
            path = folder / f"{side}-{precision}"
            path.write_bytes(content)
            try:
                outputs[key] = _output(runtime.open(path), image.numpy())
                opened[key] = path
            except NestedgeError as error:
                failures[key] = str(error).removeprefix(f"{path}: ")
    times = _times(runtime, opened, image.numpy())
    for precision in precisions:
        ours, theirs = (OURS, precision), (THEIRS, precision)
        yield Cell(
            subject.name,
            level,
            target,
            precision,
            failure=failures.get(ours, ""),
            stock_failure=failures.get(theirs, ""),
            error=_error(outputs.get(ours), expected),
            cosine=_cosine(outputs.get(ours), expected),
            stock_error=_error(outputs.get(theirs), expected),
            bytes=_size(opened.get(ours)),
            stock_bytes=_size(opened.get(theirs)),
            ms=float(np.median(times[_name(ours)])) if ours in opened else None,
            to_fp32=_ratio(times, ours, (OURS, "fp32")),
            to_stock=_ratio(times, ours, theirs),
        )


def _ours(
    nested: NestedModel, level: str, target: str, images: Array
) -> Mapping[str, Callable[[], bytes]]:
    program = prepare_level(nested, level).program
    exported = load_converter(target).export(program)
    (spec,) = program.program.inputs
    return {
        precision: lambda p=precision: (
            exported.convert(  # type: ignore[misc]
                BuildSpec(p, {spec.name: images})
            ).model
        )
        for precision in BASIC
    }


def _stock(
    subject: Subject, nested: NestedModel, level: str, target: str, images: Array
) -> Mapping[str, Callable[[], bytes]]:
    # The user's own module is what anyone would give to the tools; of a smaller one there is none.
    module = subject.module if level == FULL else materialize(nested, level).module()
    return stock.files(target, module, subject.images[-1:], images)


def _made(
    begin: Callable[[], Mapping[str, Callable[[], bytes]]], precisions: Sequence[str]
) -> dict[str, bytes | Failure]:
    """The file of every precision, or why there is none."""
    with silenced():
        files = attempt(begin)
        if isinstance(files, Failure):
            return dict.fromkeys(precisions, files)
        return {precision: attempt(files[precision]) for precision in precisions}


def _tensors(results: object) -> list[torch.Tensor]:
    if isinstance(results, torch.Tensor):
        return [results]
    raise TypeError(f"expected logits, found {type(results).__name__}")


def _output(session: Session, image: Array) -> Array:
    return next(iter(session.run({session.inputs[0].name: image}).values()))


def _times(runtime: Runtime, paths: Mapping[tuple[str, str], Path], image: Array) -> Times:
    """Milliseconds of all files, of all openings together, in paired rounds."""
    taken: dict[str, list[np.ndarray[Any, np.dtype[np.float64]]]] = {}
    rng = np.random.default_rng(0)
    for opening in range(OPENINGS):
        # Whoever is opened first has the better memory, if there is one.
        order = list(paths) if opening % 2 else list(paths)[::-1]
        calls = {_name(key): _call(runtime.open(paths[key], threads=1), image) for key in order}
        one = sum(time_call(call) for call in calls.values())
        rounds = max(8, int(1000 * SECONDS / one))
        for name, times in measure_interleaved(calls, rounds=rounds, rng=rng).items():
            taken.setdefault(name, []).append(times)
    return {name: np.concatenate(times) for name, times in taken.items()}


def _name(key: tuple[str, str]) -> str:
    return "-".join(key)


def _call(session: Session, image: Array) -> Callable[[], object]:
    inputs = {session.inputs[0].name: image}
    return lambda: session.run(inputs)


def _ratio(times: Times, key: tuple[str, str], other: tuple[str, str]) -> float | None:
    one, base = times.get(_name(key)), times.get(_name(other))
    return None if one is None or base is None else float(np.median(one / base))


def _error(found: Array | None, expected: Array) -> float | None:
    return None if found is None else relative_error(found, expected)


def _cosine(found: Array | None, expected: Array) -> float | None:
    if found is None:
        return None
    a, b = (array.astype(np.float64).ravel() for array in (found, expected))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _size(path: Path | None) -> int | None:
    return None if path is None else path.stat().st_size
