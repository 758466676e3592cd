"""What a level that does not exist yet would take, measured on this machine."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from nestedge.building.plain import convert_level
from nestedge.building.reference import reference_inputs
from nestedge.convert import BuildSpec
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.plugins import load_runtime
from nestedge.profiling.timing import Clock, measure_interleaved
from nestedge.training.evolution import Measure
from nestedge.training.subnets import temporary_level

ROUNDS = 30


def latency_of(
    nested: NestedModel,
    target: str = "onnx",
    *,
    spec: BuildSpec | None = None,
    threads: int = 1,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter_ns,
) -> Measure:
    """How many milliseconds a level takes on this machine, with a batch of 1.

    Each call materialises the level, converts it and times its file: the median of some runs after
    a warm-up. That takes a second or more, and two calls differ by the machine's noise, so a limit
    wants a margin of a few percent.

    Args:
        nested: the network; its levels stay as they are.
        target: a converter, and the runtime of its name.
        spec: precision and calibration data; fp32 unless given.
        threads: of the runtime.
        rounds: runs that are timed.
        clock: a monotonic clock in nanoseconds.

    Returns:
        A cost for `nestedge.training.search`. It raises UsageError where a level is out of range,
        and NestedgeError where the converter cannot express it.

    Raises:
        UsageError: no such target exists.
        MissingDependencyError: its runtime is not installed.
    """
    runtime = load_runtime(target)

    def measure(level: Level) -> float:
        with temporary_level(nested, level, batch_norm="shared") as name:
            model = convert_level(nested, name, target, spec=spec)
            inputs = reference_inputs(nested, cases=1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            path.write_bytes(model)
            session = runtime.open(path, threads=threads)
            call = partial(session.run, {key: cases[0] for key, cases in inputs.items()})
            rng = np.random.default_rng(0)
            times = measure_interleaved({name: call}, rounds=rounds, rng=rng, clock=clock)
        return float(np.median(times[name]))

    return measure
