"""The five papers' methods beside their baselines, on CIFAR-10.

    python -m benchmarks.seeds --data FOLDER_OR_TAR [--only EXPERIMENT ...] [--processes N]
    python -m benchmarks.seeds --table

Every method and its baselines have the same data, augmentation, optimizer, schedule and number of
updates, and of two learning rates the better one counts; networks and budgets fit two cores and a
few hours (`experiments`). Records are appended to a file of JSON lines, with seeds and versions; a
second run does only what is missing there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from benchmarks import records
from benchmarks.seeds.data import load_images
from benchmarks.seeds.experiments import EXPERIMENTS
from benchmarks.seeds.table import Key, page
from benchmarks.seeds.trial import Record, Trial

RESULTS = Path(__file__).parents[1] / "results" / "seeds.jsonl"


def read_records(path: Path) -> dict[Key, Record]:
    """The last record of every training."""
    return records.read_records(
        path, lambda r: (r["experiment"], r["variant"], r["seed"], r["rate"])
    )


def missing(only: Sequence[str], seeds: int, known: dict[Key, Record]) -> list[Key]:
    """What is still to be trained: the first seed of everything before the second."""
    wanted = [
        (name, variant, seed, rate)
        for seed in range(seeds)
        for name in only
        for rate in EXPERIMENTS[name].budget.rates
        for variant in EXPERIMENTS[name].variants
    ]
    return [key for key in wanted if key not in known]


def trained(key: Key, *, archive: Path, cache: Path) -> Record:
    """Train one, and say what came out."""
    # These networks gain little from a second thread, which a second training uses better.
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name, variant, seed, rate = key
    experiment = EXPERIMENTS[name]
    images = load_images(archive, cache, experiment.budget)
    begun = time.monotonic()
    found = experiment.variants[variant](Trial(images, experiment.budget, seed, rate))
    return {
        "experiment": name,
        "variant": variant,
        "seed": seed,
        "rate": rate,
        "budget": asdict(experiment.budget),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "seconds": round(time.monotonic() - begun, 1),
        **found,
    }


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds")
    data = os.environ.get("NESTEDGE_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(data) if data else None,
        help="CIFAR-10 as JPEG: class folders in train/ and test/, in a folder or a .tar",
    )
    parser.add_argument("--cache", type=Path, default=Path("cifar10.npz"), help="decoded images")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="train nothing, print the tables")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Train what is missing and print the tables."""
    options = arguments(given)
    known = read_records(options.results)
    if not options.table:
        if options.data is None:
            print("--data or NESTEDGE_DATA: expected the images, found neither", file=sys.stderr)
            return 2
        open_ = missing(options.only, options.seeds, known)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        # Decoded once, before several processes want it.
        load_images(options.data, options.cache, EXPERIMENTS[options.only[0]].budget)
        work = partial(trained, archive=options.data, cache=options.cache)
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            for number, record in enumerate(pool.imap_unordered(work, open_), start=1):
                with options.results.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                said = {name: round(value, 2) for name, value in record["accuracies"].items()}
                what = f"{record['variant']}, seed {record['seed']}, rate {record['rate']:g}"
                print(f"{number}/{len(open_)} {what}: {said}", file=sys.stderr, flush=True)
        known = read_records(options.results)
    print("\n".join(page(known)))
    return 0
