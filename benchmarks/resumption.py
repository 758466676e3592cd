"""A build killed at random moments, and built again: what is made twice, as a Markdown table.

    python -m benchmarks.resumption [MODEL.nest] [-d DEVICE] [-n KILLS]

Each line is a build that was ended by SIGKILL, with the cells that were finished by then, and what
the next build made; exits 1 when that made a cell again, or when the folder differs in one byte
from that of an undisturbed build. Without a file the demo's digits are trained first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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

from nestedge.building.run import LOCK_FILE
from nestedge.demo.training import train_digits


@dataclass(frozen=True)
class Row:
    """A build that was killed, and the one after it.

    Attributes:
        after: seconds after which it was killed.
        finished: cells that were on disk by then.
        made: cells that the next build made.
        total: cells of the whole build.
        is_same: whether the folder then equals that of an undisturbed build, byte for byte.
    """

    after: float
    finished: int
    made: int
    total: int
    is_same: bool

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and nothing made twice."""
        return self.is_same and self.finished + self.made == self.total


def command(model: Path, folder: Path, device: str, jobs: int) -> list[str]:
    """The command line of a build."""
    verb = [sys.executable, "-m", "nestedge", "build", str(model), "-o", str(folder), "--json"]
    return [*verb, "-d", device, "-j", str(jobs)]


def built(model: Path, folder: Path, device: str, jobs: int) -> dict[str, str]:
    """The cells of a build and what became of each, after it ran to its end."""
    result = subprocess.run(
        command(model, folder, device, jobs), check=True, capture_output=True, text=True
    )
    return {row["cell"]: row["state"] for row in json.loads(result.stdout)}


def kill(model: Path, folder: Path, device: str, *, after: float) -> None:
    """Start a build and end it by SIGKILL, without a word to its workers."""
    process = subprocess.Popen(
        command(model, folder, device, jobs=2),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # A worker ends when it notices; until then it might finish what it is writing.
    time.sleep(1)


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file, by its path below the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK_FILE
    }


def measure(model: Path, device: str, kills: int, *, seed: int = 0) -> Iterator[Row]:
    """Kill builds at random moments of their time, each in a folder of its own."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        started = time.monotonic()
        total = len(built(model, whole, device, jobs=2))
        seconds = time.monotonic() - started
        wanted = contents(whole)
        for index in range(kills):
            folder = Path(temporary) / str(index)
            # The first third of it goes by with imports.
            after = rng.uniform(seconds / 3, seconds)
            kill(model, folder, device, after=after)
            finished = len(list(folder.glob("*/[!.]*/artifact.json")))
            states = built(model, folder, device, jobs=2)
            yield Row(
                after=after,
                finished=finished,
                made=sum(state == "made" for state in states.values()),
                total=total,
                is_same=contents(folder) == wanted,
            )


def is_alike(model: Path, device: str) -> bool:
    """Whether one process and two write the same bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {jobs: Path(temporary) / str(jobs) for jobs in (1, 2)}
        for jobs, folder in folders.items():
            built(model, folder, device, jobs=jobs)
        return contents(folders[1]) == contents(folders[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when something was lost, made twice or different."""
    parser = argparse.ArgumentParser(
        description="Builds killed at random moments, and built again."
    )
    parser.add_argument("model", type=Path, nargs="?", help="a .nest; the demo's by default")
    parser.add_argument("-d", "--device", default="raspberry-pi-5")
    parser.add_argument("-n", "--kills", type=int, default=10)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        model = options.model
        if model is None:
            model = Path(temporary) / "digits.nest"
            train_digits()[0].save(model)
        return _report(model, options.device, options.kills)


def _report(model: Path, device: str, kills: int) -> int:
    print("| killed after s | cells finished | made by the next build | of | same bytes |")
    print("|---|---|---|---|---|")
    wrong = 0
    for row in measure(model, device, kills):
        same = "yes" if row.is_same else "NO"
        cells = (f"{row.after:.1f}", row.finished, row.made, row.total, same)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        wrong += not row.passed
    alike = is_alike(model, device)
    print(f"\n-j 1 and -j 2: {'the same bytes' if alike else 'DIFFERENT BYTES'}")
    return int(wrong > 0 or not alike)


if __name__ == "__main__":
    sys.exit(main())
