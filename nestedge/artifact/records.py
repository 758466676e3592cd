"""What an artifact's description says of the data that it was made with."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from nestedge.documents import Value


@dataclass(frozen=True)
class CalibrationRecord:
    """Which calibration data the ranges of an artifact were taken from.

    Attributes:
        sha256: of the data.
        cases: how many inputs there were.
    """

    sha256: str
    cases: int

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return {"sha256": self.sha256, "cases": self.cases}

    @classmethod
    def from_json(cls, value: Value) -> CalibrationRecord:
        """The record in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        sha256, cases = value.fields("sha256", "cases")
        return cls(sha256.sha256(), cases.integer(minimum=1))


@dataclass(frozen=True, kw_only=True)
class DropRecord:
    """How much accuracy 8 bits cost an artifact, in points: percent of the samples.

    Attributes:
        allowed: the most that it may be.
        before: with every layer in 8 bits.
        after: as the artifact is, some layers in half precision.
        exact_percent: accuracy of the level in single precision.
        data_sha256: of the data set that all of it was measured on.
        samples: how many that has.
    """

    allowed: float
    before: float
    after: float
    exact_percent: float
    data_sha256: str
    samples: int

    @property
    def line(self) -> str:
        """What it cost, in words.

        >>> data = {"exact_percent": 90.0, "data_sha256": "0" * 64, "samples": 400}
        >>> DropRecord(allowed=0.5, before=3.25, after=0.5, **data).line
        'accuracy -0.50 points beside single precision, -3.25 with every layer in 8 bits'
        """
        # 0 - 0 is no negative zero.
        found = f"accuracy {0 - self.after:+.2f} points beside single precision"
        changed = self.after != self.before
        return f"{found}, {0 - self.before:+.2f} with every layer in 8 bits" if changed else found

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Value) -> DropRecord:
        """The record in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        names = tuple(cls.__dataclass_fields__)
        *numbers, data, samples = value.fields(*names)
        points = {name: item.number() for name, item in zip(names, numbers, strict=False)}
        return cls(**points, data_sha256=data.sha256(), samples=samples.integer(minimum=1))
