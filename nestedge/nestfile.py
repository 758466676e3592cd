"""A nested network as one file: a .nest, a zip of two JSON documents and the tensors.

The file is data only. Loading needs none of the user's code and runs nothing of the file's: no
pickle, no torch.export.load (which executes pickles and expression strings), no eval.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from safetensors.torch import save as safetensors_bytes

from nestedge import __version__
from nestedge.archive import Archive, archive_bytes
from nestedge.documents import Value, json_bytes, parse_json, write_whole
from nestedge.errors import FormatError, UsageError
from nestedge.inputs import calibration_tensors
from nestedge.manifest import FORMAT, Manifest, check_format, manifest_from_json, manifest_to_json
from nestedge.materialization import stored_tensors
from nestedge.model import NestedModel
from nestedge.program.graph import Program
from nestedge.program.lines import lines_to_json, with_lines
from nestedge.program.serialization import program_from_json, program_to_json
from nestedge.restoring import restore
from nestedge.stored import difference, expected_forms, forms_of

_MANIFEST, _PROGRAM, _TENSORS = "manifest.json", "program.json", "tensors.safetensors"

_WITHOUT_LINES = 4
"""The last version of the format in which a program does not say where it comes from."""

JSON_LIMIT = 256 * 2**20
"""The most bytes that a JSON document of a .nest may have; 40 convolutions take 0.1 MB."""

Programs = tuple[Program, Program]
"""The program in evaluation mode and the one in training mode."""


def save(nested: NestedModel, path: str | os.PathLike[str]) -> None:
    """Write a nested network as a .nest: the same network is the same bytes.

    The training program is captured if it was not yet. An interrupted call leaves what was at
    `path` before.

    Raises:
        UsageError: torch.export cannot take the network in training mode, or the network holds
            something that the format has no place for.
        OSError: the file cannot be written.
    """
    programs, manifest = (nested.elastic.program, nested.training_program), _manifest(nested)
    tensors = stored_tensors(nested)
    tensors |= {f"examples/{name}": example for name, example in nested.examples.items()}
    if nested.calibration is not None:
        cases = calibration_tensors(programs[0], nested.calibration)
        tensors |= {f"calibration/{name}": tensor for name, tensor in cases.items()}
    expected = expected_forms(programs[0], nested.nesting, cases=manifest.calibration_cases)
    if wrong := difference(expected, forms_of(tensors)):
        raise UsageError(f"cannot save the network: {wrong}; convert it back first")
    content = {
        _MANIFEST: json_bytes(manifest_to_json(manifest)),
        _PROGRAM: _program_bytes(programs),
        _TENSORS: safetensors_bytes({name: t.cpu().contiguous() for name, t in tensors.items()}),
    }
    write_whole(Path(path), archive_bytes(content))


def _manifest(nested: NestedModel) -> Manifest:
    return Manifest(
        format=FORMAT,
        nestedge=__version__,
        nesting=nested.nesting,
        labels=nested.card.labels,
        preprocessing=nested.card.preprocessing,
        divisor=nested.card.divisor,
        batch_norm=nested.card.batch_norm,
        own=nested.card.own,
        aliases=nested.aliases,
        examples=tuple(nested.examples),
        calibration_cases=None if nested.calibration is None else nested.calibration.cases,
    )


def _program_bytes(programs: Programs) -> bytes:
    """The program document, read once more: what cannot be loaded must not be written."""
    modes = zip(("eval", "train"), programs, strict=True)
    data = {mode: program_to_json(program) for mode, program in modes}
    document = {**data, "lines": lines_to_json(programs[0])}
    try:
        text = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
        again = _read_programs(parse_json(text, document=_PROGRAM), version=FORMAT)
    except (FormatError, ValueError) as error:
        raise UsageError(f"cannot save the network: {error}") from error
    # As data, because a NaN does not equal itself.
    same = [program_to_json(program) for program in again] == list(data.values())
    assert same, "a program is the same when it is read again"
    return text


def load(path: str | os.PathLike[str]) -> NestedModel:
    """The nested network in a .nest, on the CPU and in evaluation mode.

    Every parameter of floating point can be trained, whatever it was before.

    Raises:
        UsageError: there is no such file.
        FormatError: it is not a whole .nest that this nestedge can read; one line says why.
    """
    path = Path(path)
    with Archive(path, kind=".nest") as archive:
        document = None
        if _MANIFEST in archive:
            # First, because another version may have other entries.
            document = _read_document(archive, _MANIFEST)
            check_format(document, reader=__version__)
        archive.check_names((_MANIFEST, _PROGRAM, _TENSORS))
        assert document is not None, "check_names found it"
        manifest = manifest_from_json(document)
        programs = _read_programs(_read_document(archive, _PROGRAM), version=manifest.format)
        tensors = _read_tensors(archive)
    try:
        return restore(manifest, programs, tensors)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def _read_document(archive: Archive, name: str) -> Value:
    return parse_json(archive.read(name, limit=JSON_LIMIT), document=f"{archive.path}: {name}")


def _read_programs(value: Value, *, version: int) -> Programs:
    names = ("eval", "train", "lines") if version > _WITHOUT_LINES else ("eval", "train")
    reference, training, *lines = value.fields(*names)
    programs = program_from_json(reference), program_from_json(training)
    if lines:
        programs = with_lines(programs[0], lines[0]), programs[1]
    for part in ("inputs", "arguments"):
        if getattr(programs[0], part) != getattr(programs[1], part):
            raise FormatError(f"{training.where}.{part}: expected those of eval, found others")
    for name in sorted(programs[1].used_tensors()):
        if programs[0].tensors.get(name) != programs[1].tensors[name]:
            raise FormatError(f"{training.where}: tensor {name!r} is not the one that eval has")
    return programs


def _read_tensors(archive: Archive) -> dict[str, torch.Tensor]:
    content = archive.read(_TENSORS)
    try:
        return read_safetensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise FormatError(f"{archive.path}: {_TENSORS}: not safetensors: {error}") from error
