"""A NestedModel from what a .nest holds, which is checked against itself on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from nestedge import __version__
from nestedge.calibration import Calibration
from nestedge.card import Card
from nestedge.elastic import Elastic, study
from nestedge.errors import FormatError, UsageError, did_you_mean
from nestedge.inputs import calibration_of
from nestedge.layouts import TensorLayout
from nestedge.manifest import Manifest
from nestedge.masks import check_nested_masks
from nestedge.model import NestedModel
from nestedge.nesting import Nesting
from nestedge.nesting_document import FINE, SERVING, kinds_in
from nestedge.program.graph import Program
from nestedge.program.serialization import DTYPES
from nestedge.stored import branch, difference, expected_forms, forms_of, own_specs
from nestedge.voting import check_consensus


def restore(
    manifest: Manifest, programs: tuple[Program, Program], tensors: Mapping[str, torch.Tensor]
) -> NestedModel:
    """The nested network of which these are the parts.

    Args:
        manifest: levels, axes and card.
        programs: for evaluation and for training.
        tensors: by their names in the file.

    Raises:
        FormatError: the parts do not fit each other; the message names the place.
    """
    program, training = programs
    _check_names(manifest, program)
    nesting = _whole(manifest.nesting, program)
    # Before the analysis, which takes the time and the memory that the sizes ask for.
    expected = expected_forms(program, nesting, cases=manifest.calibration_cases)
    if wrong := difference(expected, forms_of(tensors)):
        raise FormatError(f"tensors.safetensors: {wrong}")
    calibration = _calibration(manifest, program, tensors)
    codes = {name: tensors[f"codes/{name}"].numpy() for name in nesting.patterns}
    _check_codes(nesting, codes)
    with _one_line("program.json: eval"):
        elastic = study(program)
    full = elastic.nesting()
    _check_agreement(manifest, nesting, _as_of(manifest.format, full))
    nesting = replace(nesting, axes=full.axes, tensors=full.tensors)
    _check_consensus(elastic, nesting)
    with _one_line("program.json: train"):
        nested = NestedModel(
            elastic,
            branch(tensors, "shared/", specs=program.tensors),
            examples={spec.name: tensors[f"examples/{spec.name}"] for spec in program.inputs},
            card=_card(manifest),
            aliases=manifest.aliases,
            train_program=training,
            calibration=calibration,
        )
    own = {
        level: branch(tensors, f"levels/{level}/", specs=own_specs(program, nesting, level))
        for level in nesting.names
    }
    nested.restore_levels(nesting, own=own, codes=codes)
    return nested


def _card(manifest: Manifest) -> Card:
    return Card(
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        divisor=manifest.divisor,
        batch_norm=manifest.batch_norm,
        own=manifest.own,
    )


def _calibration(
    manifest: Manifest, program: Program, tensors: Mapping[str, torch.Tensor]
) -> Calibration | None:
    if manifest.calibration_cases is None:
        return None
    cases = {spec.name: tensors[f"calibration/{spec.name}"] for spec in program.inputs}
    try:
        return calibration_of(program, cases)
    except UsageError as error:
        raise FormatError(f"tensors.safetensors: {error}") from error


def _check_names(manifest: Manifest, program: Program) -> None:
    named = {
        "layouts": list(manifest.nesting.tensors),
        "levels": sorted(set().union(*manifest.nesting.own.values())),
        "masks": list(manifest.nesting.patterns),
        "aliases": list(manifest.aliases.values()),
    }
    for part, names in named.items():
        for name in names:
            if name not in program.tensors:
                raise FormatError(
                    f"manifest.json: {part}: the program has no tensor {name!r}"
                    f"{did_you_mean(name, program.tensors)}"
                )
    for name, consensus in manifest.nesting.consensus.items():
        if consensus.layer is not None and consensus.layer.dtype not in DTYPES:
            raise FormatError(
                f"manifest.json: consensus: {name!r}: expected one of {', '.join(DTYPES)}, found "
                f"{consensus.layer.dtype!r}"
            )
    inputs = sorted(spec.name for spec in program.inputs)
    if sorted(manifest.examples) != inputs:
        raise FormatError(
            f"manifest.json: examples: expected {inputs}, found {sorted(manifest.examples)}"
        )


def _whole(nesting: Nesting, program: Program) -> Nesting:
    """The nesting with the tensors too that every level has whole."""
    whole = {n: TensorLayout(((),) * len(spec.shape)) for n, spec in program.tensors.items()}
    return replace(nesting, tensors={**whole, **nesting.tensors})


def _as_of(version: int, nesting: Nesting) -> Nesting:
    """The nesting as a version of the format has it.

    Before FINE kernels are whole, and heads keep their width; before SERVING every level gives all
    outputs.
    """
    if version >= SERVING:
        return nesting
    kinds, is_fine = kinds_in(version), version >= FINE
    axes = {name: axis for name, axis in nesting.axes.items() if axis.kind in kinds}
    tensors = {
        name: TensorLayout(
            tuple(
                runs if all(run.axis is None or run.axis in axes for run in runs) else ()
                for runs in layout.dims
            ),
            tuple(needed for needed in layout.requires if needed[0] in axes),
            layout.inner if is_fine else (),
        )
        for name, layout in nesting.tensors.items()
    }
    return Nesting(axes, tensors)


def _check_agreement(manifest: Manifest, stated: Nesting, found: Nesting) -> None:
    compared = {"axes": (stated.axes, found.axes), "layouts": (stated.tensors, found.tensors)}
    for part, (said, seen) in compared.items():
        for name in sorted({*said, *seen}):
            if said.get(name) != seen.get(name):
                raise FormatError(
                    f"manifest.json: {part}.{name}: not what nestedge {__version__} finds in the "
                    f"program; the file is damaged, or only nestedge {manifest.nestedge}, which "
                    "wrote it, can read it"
                )


def _check_consensus(elastic: Elastic, nesting: Nesting) -> None:
    try:
        for name in nesting.consensus:
            check_consensus(elastic, nesting, name)
    except UsageError as error:
        raise FormatError(f"manifest.json: {error}") from error


def _check_codes(nesting: Nesting, codes: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    for name, code in codes.items():
        known, highest = len(nesting.patterns[name]), int(code.max(initial=0))
        if highest >= known:
            raise FormatError(
                f"tensors.safetensors: codes/{name}: expected codes below {known}, as the manifest "
                f"has patterns, found {highest}"
            )
    try:
        for level in nesting.levels:
            check_nested_masks(nesting, level, codes)
    except UsageError as error:
        raise FormatError(f"manifest.json: {error}") from error


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turn whatever a program from outside does wrong into one line."""
    try:
        yield
    except Exception as error:
        # Operators raise dozens of types of error about arguments that they cannot take.
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FormatError(f"{where}: the program cannot run: {reason}") from error
