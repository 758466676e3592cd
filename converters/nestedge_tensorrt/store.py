"""Built engines in the folder of their artifact, each under what it belongs to.

`engines/KEY/` has the engine, engine.fingerprint.json, which says what it was built from and where,
and the log of the build. KEY is made of the fingerprint, so that engines of several devices, or of
several power modes of one, lie side by side, and none is taken for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nestedge.artifact import Artifact
from nestedge.documents import Value, file_sha256, json_bytes, read_json, write_synced, write_whole
from nestedge.errors import IntegrityError, NestedgeError, UsageError
from nestedge.folders import replaced_folder
from nestedge_tensorrt.fingerprint import Fingerprint
from nestedge_tensorrt.options import BUILT_FILE, EngineOptions

ENGINES_FOLDER = "engines"
FINGERPRINT_FILE = "engine.fingerprint.json"
LOG_FILE = "build.log"
FORMAT = 1
UNVERIFIED = "built, unverified"
VERIFIED = "verified"

_FIELDS = (
    *("engine_sha256", "fingerprint", "options", "built_by", "build_seconds", "state"),
    *("max_error", "runtime_version"),
)


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine, and what is known of it.

    Attributes:
        engine_sha256: of the file.
        fingerprint: what it belongs to.
        options: what was asked of the builder.
        built_by: the command line, or "device_build.py".
        build_seconds: that the build took; None where the log does not say it.
        state: "built, unverified", until the reference inputs ran in it where it was built, and the
            outputs were those of the level; then "verified".
        max_error: of the worst output then; None before.
        runtime_version: of what ran it then; "" before.
    """

    engine_sha256: str
    fingerprint: Fingerprint
    options: EngineOptions
    built_by: str
    build_seconds: float | None
    state: str = UNVERIFIED
    max_error: float | None = None
    runtime_version: str = ""

    def to_json(self) -> dict[str, object]:
        """The document that `from_json` reads."""
        return {
            "format": FORMAT,
            "engine_sha256": self.engine_sha256,
            "fingerprint": self.fingerprint.to_json(),
            "options": self.options.to_json(),
            "built_by": self.built_by,
            "build_seconds": self.build_seconds,
            "state": self.state,
            "max_error": self.max_error,
            "runtime_version": self.runtime_version,
        }

    @classmethod
    def from_json(cls, document: Value) -> BuiltEngine:
        """What an engine.fingerprint.json says.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        field = dict(zip(_FIELDS, document.versioned(FORMAT, *_FIELDS), strict=True))
        seconds, error = field["build_seconds"].optional(), field["max_error"].optional()
        return cls(
            engine_sha256=field["engine_sha256"].sha256(),
            fingerprint=Fingerprint.from_json(field["fingerprint"]),
            options=EngineOptions.from_json(field["options"]),
            built_by=field["built_by"].string(),
            build_seconds=None if seconds is None else seconds.number(),
            state=field["state"].choice(UNVERIFIED, VERIFIED),
            max_error=None if error is None else error.number(),
            runtime_version=field["runtime_version"].string(),
        )


def engine_folder(folder: Path, fingerprint: Fingerprint) -> Path:
    """Where the engine of a fingerprint is, or would be, in the folder of an artifact."""
    return folder / ENGINES_FOLDER / fingerprint.key


def store_engine(folder: Path, engine: Path, *, built: BuiltEngine, log: str) -> Path:
    """Moves a built engine into the folder of its artifact; the folder of the engine.

    One of the same fingerprint is replaced.

    Raises:
        OSError: it does not fit.
    """
    target = engine_folder(folder, built.fingerprint)
    with replaced_folder(target) as temporary:
        engine.replace(temporary / BUILT_FILE)
        write_synced(temporary / LOG_FILE, log.encode())
        write_synced(temporary / FINGERPRINT_FILE, json_bytes(built.to_json()))
    return target


def write_state(folder: Path, built: BuiltEngine) -> None:
    """Replaces what is known of an engine in the folder of an artifact."""
    path = engine_folder(folder, built.fingerprint) / FINGERPRINT_FILE
    write_whole(path, json_bytes(built.to_json()))


def built_engines(folder: Path) -> list[BuiltEngine]:
    """The engines in the folder of an artifact, by key.

    Raises:
        FormatError: a file is not what it says it is.
    """
    paths = sorted((folder / ENGINES_FOLDER).glob(f"*/{FINGERPRINT_FILE}"))
    return [
        BuiltEngine.from_json(read_json(path))
        for path in paths
        if not path.parent.name.startswith(".")
    ]


def usable_engine(artifact: Artifact, here: Fingerprint) -> tuple[Path, BuiltEngine]:
    """The file of the engine that was built for this device, and what is known of it.

    Args:
        artifact: of the engine.
        here: what an engine that was built here and now would belong to, whatever its options.

    Raises:
        UsageError: none was built yet.
        NestedgeError: those that are there belong elsewhere; the message says to what, and what
            using them would mean.
        IntegrityError: the file is not the one that was built.
    """
    found = built_engines(artifact.folder)
    if not found:
        raise UsageError(
            f"{artifact.cell}: no engine was built: nestedge engine build {artifact.folder}"
        )
    here_as = {
        built.fingerprint.key: _with_options(here, built.fingerprint.values["options"])
        for built in found
    }
    differences = {
        built.fingerprint.key: built.fingerprint.differences(here_as[built.fingerprint.key])
        for built in found
    }
    usable = [built for built in found if not differences[built.fingerprint.key]]
    if not usable:
        closest = min(differences.values(), key=len)
        raise NestedgeError(
            f"{artifact.cell}: no engine for this device, of {len(found)} that are there; "
            f"{'; '.join(closest)}; build one here: nestedge engine build {artifact.folder}"
        )
    # Of engines that differ in their options, one that was verified.
    built = max(usable, key=lambda item: item.state == VERIFIED)
    path = engine_folder(artifact.folder, built.fingerprint) / BUILT_FILE
    _check(artifact, path, built)
    return path, built


def new_engine(
    engine: Path,
    *,
    fingerprint: Fingerprint,
    options: EngineOptions,
    command: Sequence[str],
    seconds: float | None,
) -> BuiltEngine:
    """What is known of an engine that was built just now."""
    return BuiltEngine(
        engine_sha256=file_sha256(engine),
        fingerprint=fingerprint,
        options=options,
        built_by=" ".join(command),
        build_seconds=seconds,
    )


def _with_options(here: Fingerprint, options: str) -> Fingerprint:
    return Fingerprint({**here.values, "options": options})


def _check(artifact: Artifact, path: Path, built: BuiltEngine) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != built.engine_sha256:
        raise IntegrityError(
            f"{artifact.cell}: {path}: expected sha256 {built.engine_sha256}, found {found}; "
            f"build it again: nestedge engine build {artifact.folder}"
        )
