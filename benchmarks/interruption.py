"""A training killed at random moments, and run again: what is lost, as a Markdown table.

    python -m benchmarks.interruption [-n KILLS] [--every STEPS]

Each line is a training of the demo's network, with dropout, augmentation and drawn levels, that was
ended by SIGKILL, and how many of its steps the next call found done. Exits 1 when the .nest then
differs in one byte from that of an undisturbed training.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from nestedge.demo.network import DigitsNet
from nestedge.training import Checkpoints
from nestedge.training.recipes import recipe_from, run_recipe

EPOCHS = 4
RECIPE = {
    "levels": {"small": 0.25, "medium": 0.5, "full": 1.0},
    "data": {"kind": "digits", "batch": 64, "augmentation": "crop-flip"},
    "method": {"name": "sandwich", "drawn": 1},
    "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
    "schedule": {"name": "cosine"},
    "training": {"epochs": EPOCHS},
}


@dataclass(frozen=True)
class Row:
    """A training that was killed, and the one after it.

    Attributes:
        after: seconds after which it was killed.
        done: steps that were in its checkpoint by then.
        total: steps of a whole training.
        is_same: whether the .nest is that of an undisturbed training, byte for byte.
    """

    after: float
    done: int
    total: int
    is_same: bool


def network() -> nn.Module:
    """The demo's network with dropout, which draws random numbers in every step."""
    model = DigitsNet()
    model.head = nn.Sequential(nn.Dropout(0.1), model.head)  # type: ignore[assignment]
    return model


def trained(folder: Path, every: int) -> Path:
    """Train in a folder, from where a call before this one was."""
    recipe = recipe_from({"model": {"factory": network}, **RECIPE}, folder=folder)
    output = folder / "net.nest"
    run_recipe(recipe, output, checkpoints=Checkpoints(folder / "checkpoints", every=every))
    return output


def command(folder: Path, every: int) -> list[str]:
    """The command line of a training in a process of its own."""
    module = [sys.executable, "-W", "ignore", "-m", "benchmarks.interruption"]
    return [*module, "--worker", str(folder), "--every", str(every)]


def kill(folder: Path, every: int, *, after: float) -> None:
    """Start a training and end it by SIGKILL."""
    process = subprocess.Popen(command(folder, every))
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def measure(kills: int, every: int, *, seed: int = 0) -> Iterator[Row]:
    """Kill trainings at random moments of their time, each in a folder of its own."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(index) for index in range(kills + 1)]
        for folder in folders:
            folder.mkdir()
        started = time.monotonic()
        subprocess.run(command(folders[-1], every), check=True)
        seconds = time.monotonic() - started
        wanted = (folders[-1] / "net.nest").read_bytes()
        whole = _done(folders[-1])
        for folder in folders[:-1]:
            # The first third of it goes by with imports.
            after = rng.uniform(seconds / 3, seconds)
            kill(folder, every, after=after)
            done = _done(folder)
            subprocess.run(command(folder, every), check=True)
            yield Row(after, done, whole, (folder / "net.nest").read_bytes() == wanted)


def _done(folder: Path) -> int:
    state = Checkpoints(folder / "checkpoints").read()
    return 0 if state is None else int(state["place"]["number"])


def main(given: Sequence[str]) -> int:
    """Measure and print; 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interruption")
    parser.add_argument("-n", "--kills", type=int, default=10)
    parser.add_argument("--every", type=int, default=3, help="steps between checkpoints")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.worker:
        trained(options.worker, options.every)
        return 0
    print("| killed after (s) | steps done by then | of | same bytes at the end |")
    print("|---:|---:|---:|---|")
    rows = []
    for row in measure(options.kills, options.every):
        rows.append(row)
        same = "yes" if row.is_same else "NO"
        print(f"| {row.after:.1f} | {row.done} | {row.total} | {same} |")
    return int(not all(row.is_same for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
