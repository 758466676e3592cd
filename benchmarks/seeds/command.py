"""The five papers' methods beside their baselines, on CIFAR-10.

    python -m benchmarks.seeds --data FOLDER_OR_TAR [--only EXPERIMENT ...] [--processes N]
    python -m benchmarks.seeds --table

Every method and its baselines have the same data, augmentation, optimizer, schedule and number of
updates, and the better of two learning rates, which the first seed decides; networks and budgets
fit two cores and a few hours (`experiments`). Records are appended to a file of JSON lines, with
seeds and versions; a second run does only what is missing there.
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks import records
from benchmarks.seeds.budget import Budget
from benchmarks.seeds.data import decode_images, load_images
from benchmarks.seeds.experiments import EXPERIMENTS
from benchmarks.seeds.table import Key, figures, page
from benchmarks.seeds.trial import Record, Trial

RESULTS = Path(__file__).parents[1] / "results" / "seeds.jsonl"


def read_records(path: Path) -> dict[Key, Record]:
    """The last record of every training that had its experiment's budget."""
    found = records.read_records(
        path, lambda r: (r["experiment"], r["variant"], r["seed"], r["rate"])
    )
    return {
        key: record
        for key, record in found.items()
        if key[0] in EXPERIMENTS and record["budget"] == plain_budget(EXPERIMENTS[key[0]].budget)
    }


def plain_budget(budget: Budget) -> Record:
    """A budget as JSON gives it back, without what it lacks."""
    plain: Record = json.loads(json.dumps(asdict(budget)))
    return {name: value for name, value in plain.items() if value is not None}


def missing(only: Sequence[str], seed: int, known: Mapping[Key, Record]) -> list[Key]:
    """What is still to be trained with a seed.

    Args:
        only: the experiments.
        seed: 0 tries all learning rates; all others have each variant's better one.
        known: what is trained already, with seed 0 all of it before any other.
    """
    wanted: list[Key] = []
    for name in only:
        for variant in EXPERIMENTS[name].variants:
            rates = EXPERIMENTS[name].budget.rates
            if seed and (chosen := figures(known, name, variant)) is not None:
                rates = (chosen.rate,)
            wanted += [(name, variant, seed, rate) for rate in rates]
    return [key for key in wanted if key not in known]


def trained(key: Key, *, archive: Path, cache: Path) -> Record:
    """Train one, and say what came out."""
    # These networks gain little from a second thread, which a second training uses better.
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name, variant, seed, rate = key
    experiment = EXPERIMENTS[name]
    budget = experiment.budget
    images = load_images(archive, cache, budget)
    start = load_file(archive.parent / budget.start) if budget.start else None
    begun = time.monotonic()
    found = experiment.variants[variant](Trial(images, budget, seed, rate, start))
    return {
        "experiment": name,
        "variant": variant,
        "seed": seed,
        "rate": rate,
        "budget": plain_budget(budget),
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


def _said(record: Record) -> str:
    accuracies = {name: round(value, 2) for name, value in record["accuracies"].items()}
    what = f"{record['experiment']}, {record['variant']}"
    return f"{what}, seed {record['seed']}, rate {record['rate']:g}: {accuracies}"


def main(given: Sequence[str]) -> int:
    """Train what is missing and print the tables."""
    options = arguments(given)
    known = read_records(options.results)
    if not options.table:
        if options.data is None:
            print("--data or NESTEDGE_DATA: expected the images, found neither", file=sys.stderr)
            return 2
        options.results.parent.mkdir(parents=True, exist_ok=True)
        # Decoded once, before several processes want it.
        decode_images(options.data, options.cache)
        work = partial(trained, archive=options.data, cache=options.cache)
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            for seed in range(options.seeds):
                left = missing(options.only, seed, known)
                for number, record in enumerate(pool.imap_unordered(work, left), start=1):
                    with options.results.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                    print(f"{number}/{len(left)} {_said(record)}", file=sys.stderr, flush=True)
                known = read_records(options.results)
    print("\n".join(page(known)))
    return 0
