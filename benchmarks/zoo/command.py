"""Which of torchvision's networks can be nested, exactly, as a Markdown page.

    python -m benchmarks.zoo --results zoo.jsonl [--only NAME ...] [--checks CHECK ...]
    python -m benchmarks.zoo --results zoo.jsonl --table > docs/zoo.md

Every network of `torchvision.models.list_models()` but the quantised ones, whatever its task: it
is made by its builder without weights, redrawn, captured, nested, and each level materialised and
compared with the level run in the nested network and with the user's own module in which what the
level lacks is zero. Beside it: the level of width 1/2 in onnxruntime, and Torch-Pruning with one
generic call at one half.

Each network and check runs in a process of its own, under a limit of time and of memory. Records
are appended to a file of JSON lines; a second run does only what is missing there. Needs
torchvision, and for their checks onnx, onnxscript, onnxruntime and torch-pruning.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks import records
from benchmarks.zoo.checks import CHECKS, failure
from benchmarks.zoo.networks import Entry, entries
from benchmarks.zoo.page import page
from benchmarks.zoo.table import Record, is_exact

Key = tuple[str, str]


def read_records(path: Path) -> dict[Key, Record]:
    """The last record of every network and check; what was cut off while being written is not."""
    return records.read_records(path, lambda record: (record["network"], record["check"]))


def missing(
    networks: Iterable[str],
    checks: Sequence[str],
    known: dict[Key, Record],
    *,
    retry_failed: bool,
) -> list[Key]:
    """What is still to be run: each check of all networks before the next check."""
    wanted = [(name, check) for check in checks for name in networks]
    return [k for k in wanted if k not in known or (retry_failed and "failed" in known[k])]


def run_check(key: Key, *, seconds: float, gigabytes: float) -> Record:
    """The record of one check, run in a process of its own."""
    name, check = key
    command = [sys.executable, "-m", "benchmarks.zoo", "--worker", name, check]
    command += ["--gigabytes", str(gigabytes)]
    # Python's own seed and torch's threads are fixed, so that two runs give the same.
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    ended = ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=settings, check=False
        )
        text = done.stdout
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            ended = f"the process ended with {done.returncode}: {last[0]}"
    except subprocess.TimeoutExpired as error:
        # What it printed by then is bytes here, whatever was asked for (python/cpython#87597).
        text = error.stdout.decode() if error.stdout else ""
        ended = f"took longer than {seconds:.0f} s"
    record: Record = {"network": name, "check": check, "stage": "start"}
    for line in text.splitlines():
        if line.startswith("{"):
            record |= json.loads(line)
    return record | ({"failed": ended} if ended and "failed" not in record else {})


def work(entry: Entry, check: str, *, gigabytes: float) -> None:
    """Run one check here, and print its record after every stage."""
    limit = int(gigabytes * 2**30)
    # Of memory that is written to: torch maps far more than it uses.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = sys.stdout
    # What networks and tools print is not part of the record.
    sys.stdout = sys.stderr
    try:
        for record in CHECKS[check](entry):
            print(json.dumps(record), file=out, flush=True)
    except Exception as error:  # noqa: BLE001
        # Whatever a network makes any of the tools raise is the result.
        print(json.dumps(failure(error)), file=out, flush=True)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"), help="JSON lines")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--retry-failed", action="store_true", help="run what failed once more")
    parser.add_argument("--table", action="store_true", help="run nothing, print the page")
    parser.add_argument("--seconds", type=float, default=600, help="limit of one check")
    parser.add_argument("--gigabytes", type=float, default=12, help="limit of one check")
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "CHECK"), help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Run what is missing and print the page; 1 when a network is not nested exactly."""
    options = arguments(given)
    zoo = {entry.name: entry for entry in entries()}
    if options.worker:
        name, check = options.worker
        work(zoo[name], check, gigabytes=options.gigabytes)
        return 0
    if unknown := sorted(set(options.only or ()) - zoo.keys()):
        print(f"torchvision has no network {unknown[0]!r}", file=sys.stderr)
        return 2
    names = [name for name in zoo if not options.only or name in options.only]
    known = read_records(options.results)
    open_ = missing(names, options.checks, known, retry_failed=options.retry_failed)
    for number, key in enumerate([] if options.table else open_, start=1):
        record = run_check(key, seconds=options.seconds, gigabytes=options.gigabytes)
        with options.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        known[key] = record
        state = record.get("failed", "done")
        print(f"{number}/{len(open_)} {key[0]} {key[1]}: {state[:150]}", file=sys.stderr)
    print("\n".join(page(names, known)))
    return int(not all(is_exact(known.get((name, "nestedge"), {})) for name in names))
