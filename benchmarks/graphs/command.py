"""Random networks of every operator: each level is the user's own network without the rest.

    python -m benchmarks.graphs --graphs 2000 --seed 0 --results graphs.jsonl [--processes 2]
    python -m benchmarks.graphs --only SEED ...
    python -m benchmarks.graphs --summary --results graphs.jsonl
    python -m benchmarks.graphs --disable --results graphs.jsonl

A seed stands for a network, its weights, inputs and levels (`networks`, `levels`);
what is checked of it is in `checks`. Records are appended to a file of JSON lines; a second
run does only what is missing there. `--disable` breaks the rule of one operator after another, and
says which networks notice (`disabling`). Exits 1 when a property does not hold.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks import records
from benchmarks.graphs.checks import check
from benchmarks.graphs.descriptions import describe
from benchmarks.graphs.disabling import disable
from benchmarks.graphs.subjects import PropertyError, Record
from benchmarks.graphs.summary import summary
from nestedge.errors import UsageError


def record_of(seed: int) -> Record:
    """The record of one network; what went wrong is in it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    begun = time.process_time()
    try:
        record = check(describe(seed))
    except PropertyError as error:
        record = {"seed": seed, "failed": str(error)}
    except UsageError as error:
        record = {"seed": seed, "rejected": str(error)}
    except Exception as error:  # noqa: BLE001
        # Whatever a network makes nestedge raise is the result.
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        record = {"seed": seed, "failed": f"{type(error).__name__}: {error} ({where})"[:500]}
    return record | {"seconds": round(time.process_time() - begun, 2)}


def read_records(path: Path) -> dict[int, Record]:
    """The last record of every seed; what was cut off while being written is not."""
    return records.read_records(path, lambda record: int(record["seed"]))


def run(seeds: Iterable[int], results: Path, *, processes: int) -> None:
    """Append the records of networks to a file, each as soon as it is there."""
    # Each process starts anew, so that torch's threads are its own.
    context = multiprocessing.get_context("spawn")
    with results.open("a") as file, context.Pool(processes, maxtasksperchild=250) as pool:
        for record in pool.imap_unordered(record_of, seeds):
            file.write(json.dumps(record) + "\n")
            file.flush()
            if "failed" in record:
                print(f"{record['seed']}: {record['failed'][:200]}", file=sys.stderr, flush=True)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs")
    parser.add_argument("--graphs", type=int, default=2000, help="how many networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first; others follow")
    parser.add_argument("--results", type=Path, default=Path("graphs.jsonl"), help="JSON lines")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", metavar="SEED", help="print their records")
    parser.add_argument("--retry-failed", action="store_true", help="run what failed once more")
    parser.add_argument("--summary", action="store_true", help="run nothing, print the summary")
    parser.add_argument(
        "--disable", nargs="*", metavar="OPERATOR", help="break these rules, or all"
    )
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Run what is missing and print the summary; 1 when a property does not hold."""
    options = arguments(given)
    if options.only:
        found = [record_of(seed) for seed in options.only]
        print("\n".join(json.dumps(record, indent=1) for record in found))
        return int(any("failed" in record for record in found))
    known = read_records(options.results)
    if options.disable is not None:
        return disable(known, tuple(options.disable))
    seeds = range(options.seed, options.seed + options.graphs)
    open_ = [s for s in seeds if s not in known or (options.retry_failed and "failed" in known[s])]
    if not options.summary:
        run(open_, options.results, processes=options.processes)
        known = read_records(options.results)
    lines, is_clean = summary([known[seed] for seed in seeds if seed in known])
    print("\n".join(lines))
    return int(not is_clean)
