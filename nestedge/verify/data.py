"""What an artifact answers on a data set, beside the same level in single precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from nestedge.artifact import DESCRIPTION_FILE, Artifact, check_integrity, read_artifact
from nestedge.documents import Value
from nestedge.plugins import Runtime
from nestedge.profiling.labelled import LabelledData
from nestedge.profiling.measure import accuracy_of, predictions

EXACT = "fp32"
"""The precision that the others are held against."""


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Answers on a data set.

    Attributes:
        data_sha256: of the data set.
        samples: how many it has.
        accuracy_percent: share of right answers.
        low: lower end of its 95 % interval.
        high: upper end of it.
        exact: the cell of the same level and runtime in single precision; "" where there is none.
        exact_accuracy_percent: of that cell; None where there is none.
        agreement_percent: share of the samples for which both give the same answer; None likewise.
    """

    data_sha256: str
    samples: int
    accuracy_percent: float
    low: float
    high: float
    exact: str
    exact_accuracy_percent: float | None
    agreement_percent: float | None

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Value) -> DataCheck:
        """The answers in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        names = tuple(cls.__dataclass_fields__)
        field = dict(zip(names, value.fields(*names), strict=True))
        exact, agreement = (
            None if found is None else found.number()
            for found in (
                field["exact_accuracy_percent"].optional(),
                field["agreement_percent"].optional(),
            )
        )
        return cls(
            data_sha256=field["data_sha256"].sha256(),
            samples=field["samples"].integer(minimum=1),
            accuracy_percent=field["accuracy_percent"].number(),
            low=field["low"].number(),
            high=field["high"].number(),
            exact=field["exact"].string(),
            exact_accuracy_percent=exact,
            agreement_percent=agreement,
        )


def check_on_data(
    artifacts: Sequence[Artifact],
    runtimes: Mapping[str, Runtime],
    *,
    data: LabelledData,
    threads: int = 1,
) -> dict[str, DataCheck]:
    """What artifacts answer on a data set, by cell.

    Args:
        artifacts: of classifiers.
        runtimes: that run them, by cell.
        data: the data set.
        threads: CPU threads of the runtimes.

    Raises:
        UsageError: an artifact is not a classifier of batches of one.
        ValueError: the data does not fit an artifact.
    """
    answers: dict[str, npt.NDArray[np.int64]] = {}
    checks = {}
    for artifact in artifacts:
        exact = exact_sibling(artifact)
        for asked in (artifact, exact):
            if asked is not None and asked.cell not in answers:
                runtime = runtimes[artifact.cell]
                answers[asked.cell] = predictions(asked, runtime, data=data, threads=threads)
        name = "" if exact is None else exact.cell
        checks[artifact.cell] = _check(answers, artifact.cell, name, data)
    return checks


def exact_sibling(artifact: Artifact) -> Artifact | None:
    """The cell of the same level and runtime in single precision, in the same build folder.

    Raises:
        FormatError: its artifact.json is not one.
        IntegrityError: a file of it is missing or changed.
    """
    folder = artifact.folder.parent / f"{artifact.runtime}-{EXACT}"
    if not (folder / DESCRIPTION_FILE).is_file():
        return None
    found = artifact if artifact.precision == EXACT else read_artifact(folder)
    # A folder that was put together by hand may have anything under any name.
    if (found.level, found.runtime, found.precision) != (artifact.level, artifact.runtime, EXACT):
        return None
    check_integrity(found)
    return found


def _check(
    answers: Mapping[str, npt.NDArray[np.int64]], cell: str, exact: str, data: LabelledData
) -> DataCheck:
    found = accuracy_of(answers[cell], data.labels)
    other = answers.get(exact)
    same = None if other is None else float(100 * np.mean((answers[cell] == other) & (other >= 0)))
    return DataCheck(
        data_sha256=data.sha256,
        samples=len(data.labels),
        accuracy_percent=found.value,
        low=found.low,
        high=found.high,
        exact=exact,
        exact_accuracy_percent=None if other is None else accuracy_of(other, data.labels).value,
        agreement_percent=same,
    )
