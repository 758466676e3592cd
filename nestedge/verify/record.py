"""What a verification found, and verifications.json, which keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nestedge.artifact import Artifact
from nestedge.documents import Value, json_bytes, latest, read_json, write_whole
from nestedge.verify.closeness import Closeness
from nestedge.verify.data import DataCheck
from nestedge.verify.steps import Localisation

VERIFICATIONS_FILE = "verifications.json"
FORMAT = 2
ENGINE_UNBUILT = "engine unbuilt and unverified: only its ONNX ran"
_OLD_FORMAT = 1
_SINCE_2 = ("closeness", "data", "localisation")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What the comparison of one artifact with its level gave.

    Attributes:
        cell: the artifact.
        model_sha256: of the model file that ran; one built since did not.
        runtime: name of the runtime plug-in that ran it.
        runtime_version: its framework and the version of that.
        device: the machine that it ran on.
        max_error: of the worst output, max|a - b| / max|b| over all cases; inf where an output is
            missing, misshaped or not a number. It alone decides.
        tolerance: the artifact's.
        passed: whether the error is within the tolerance.
        output: name of the worst output, or "" where nothing ran.
        reason: why it failed, or "".
        cases: how many reference inputs were run.
        note: what the comparison leaves open, or "".
        closeness: further figures; None where an output has none.
        data: accuracy on a data set, where one was given.
        localisation: at which operator the error arises, where that was asked.
    """

    cell: str
    model_sha256: str
    runtime: str
    runtime_version: str
    device: str
    max_error: float
    tolerance: float
    passed: bool
    output: str
    reason: str
    cases: int
    note: str
    closeness: Closeness | None = None
    data: DataCheck | None = None
    localisation: Localisation | None = None

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        # JSON has no infinity.
        max_error = self.max_error if math.isfinite(self.max_error) else None
        parts = {name: getattr(self, name) for name in _SINCE_2}
        nested = {name: part and part.to_json() for name, part in parts.items()}
        return {**asdict(self), "max_error": max_error, **nested}

    @classmethod
    def from_json(cls, value: Value, *, version: int = FORMAT) -> Verification:
        """The result in a JSON object.

        Args:
            value: the object.
            version: of the document; one of version 1 lacks the figures that came later.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        later = _SINCE_2 if version == FORMAT else ()
        names = tuple(name for name in cls.__dataclass_fields__ if name not in _SINCE_2) + later
        field = dict(zip(names, value.fields(*names), strict=True))
        error = field["max_error"].optional()
        max_error = math.inf if error is None else error.number()
        tolerance = field["tolerance"].number()
        passed = max_error <= tolerance
        if field["passed"].data is not passed:
            raise field["passed"].error(f"{str(passed).lower()}, by max_error and tolerance")
        given = {name: field[name].optional() for name in later}
        closeness, data, where = (given.get(name) for name in _SINCE_2)
        return cls(
            cell=field["cell"].string(),
            model_sha256=field["model_sha256"].sha256(),
            runtime=field["runtime"].name(),
            runtime_version=field["runtime_version"].string(),
            device=field["device"].string(),
            max_error=max_error,
            tolerance=tolerance,
            passed=passed,
            output=field["output"].string(),
            reason=field["reason"].string(),
            cases=field["cases"].integer(minimum=1),
            note=field["note"].string(),
            closeness=None if closeness is None else Closeness.from_json(closeness),
            data=None if data is None else DataCheck.from_json(data),
            localisation=None if where is None else Localisation.from_json(where),
        )


def load_verifications(folder: Path) -> list[Verification]:
    """The results kept in a build folder, by cell and runtime; none where there is no file.

    Those of the format before are read too; what it did not have is None.

    Raises:
        FormatError: the file is not one of verifications; the message names the field.
    """
    path = folder / VERIFICATIONS_FILE
    if not path.is_file():
        return []
    document = read_json(path)
    version = document.version(FORMAT, _OLD_FORMAT)
    (verifications,) = document.versioned(version, "verifications")
    results = (Verification.from_json(item, version=version) for item in verifications.elements())
    return sorted(results, key=_key)


def save_verifications(folder: Path, verifications: Iterable[Verification]) -> Path:
    """Adds results to those in a build folder; the file.

    One of the same cell and runtime is replaced, all others stay.

    Raises:
        FormatError: the file that is there is not one of verifications.
        OSError: it cannot be written; the old one stays.
    """
    kept = latest([*load_verifications(folder), *verifications], _key)
    path = folder / VERIFICATIONS_FILE
    records = [found.to_json() for found in kept]
    write_whole(path, json_bytes({"format": FORMAT, "verifications": records}))
    return path


def deciding(artifact: Artifact, verifications: Sequence[Verification]) -> list[Verification]:
    """The results that decide whether an artifact may be used, of those of this very artifact.

    The runtime that it is for decides, and where that never ran it, the one that it was built to be
    checked by. Where neither did, as on a device too old for them, those decide that did.
    """
    for runtime in (artifact.runtime, artifact.checked_by):
        own = [found for found in verifications if found.runtime == runtime]
        if own:
            return own
    return list(verifications)


def _key(found: Verification) -> tuple[str, str]:
    return found.cell, found.runtime
