"""What is known about a device, where each figure comes from, and what it can run.

A profile has one shape, as TOML and as JSON, so that one reader checks both: sections of figures,
each `{ value = ..., source = "...", confidence = "high" }`, and one `[[runtime]]` for each sort of
artifact, with the widths that its hardware works on at once. What is unknown is left out: a zero
would be believed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from nestedge.documents import Value
from nestedge.errors import FormatError, did_you_mean
from nestedge.precisions import PRECISIONS

Confidence = Literal["high", "medium", "low"]
Kind = Literal["jetson", "android", "linux"]
LOCAL = "local"
"""The id of the machine that detects itself."""

FigureValue = int | float | str | tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One thing that is known about a device.

    Attributes:
        value: in the unit that the figure's name ends in.
        source: where that is said, or how it was derived.
        confidence: "high" from the maker or the device itself, "medium" from elsewhere or derived,
            "low" where it is only likely.
    """

    value: FigureValue
    source: str
    confidence: Confidence


@dataclass(frozen=True)
class WidthMultiple:
    """How many outputs of a layer a runtime computes at once, in one precision.

    A layer whose outputs are no multiple of them takes as long as one with the next multiple.

    Attributes:
        value: the number of outputs, which of convolutions are channels.
        source: where that is said, or how it was derived.
        confidence: as in `Figure`.
    """

    value: int
    source: str
    confidence: Confidence


@dataclass(frozen=True)
class Target:
    """A sort of artifact that a device runs.

    Attributes:
        runtime: that the artifacts are for, as in "tflite".
        versions: of the runtime's package that run on the device, oldest first.
        precisions: that are worth building for it.
        source: where that is said, or why it was chosen.
        confidence: as in `Figure`.
        multiples: of channels that are worked on at once, by precision; the unknown are not there.
    """

    runtime: str
    versions: tuple[str, ...]
    precisions: tuple[str, ...]
    source: str = ""
    confidence: Confidence = "low"
    multiples: Mapping[str, WidthMultiple] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return {
            "name": self.runtime,
            "versions": list(self.versions),
            "precisions": list(self.precisions),
            "source": self.source,
            "confidence": self.confidence,
            "multiple": {name: asdict(multiple) for name, multiple in self.multiples.items()},
        }

    @classmethod
    def from_json(cls, value: Value) -> Target:
        """The target in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        fields = ("name", "versions", "precisions", "source", "confidence", "multiple")
        plain = {key: member.data for key, member in value.members().items()}
        # No multiple may be known.
        whole = Value({"multiple": {}} | plain, value.document, value.path)
        name, versions, precisions, source, confidence, multiple = whole.fields(*fields)
        for precision in precisions.elements():
            precision.choice(*PRECISIONS)
        built = _texts(precisions)
        return cls(
            name.name(),
            _texts(versions),
            built,
            source=source.string(),
            confidence=_confidence(confidence),
            multiples=_multiples(multiple, built),
        )


@dataclass(frozen=True)
class DeviceProfile:
    """A device, as far as it is known.

    Attributes:
        id: as in "raspberry-pi-5"; "local" is the machine that detected itself.
        name: for people.
        kind: how one gets at it and what it can say of itself.
        targets: what it runs, the preferred runtime first.
        figures: what is known, by a name of `FIGURES`; what is unknown is not there.
        match: what a device says of itself if it is this one: for every key, one of the values.
    """

    id: str
    name: str
    kind: Kind
    targets: tuple[Target, ...]
    figures: Mapping[str, Figure]
    match: Mapping[str, tuple[str, ...]]

    def matches(self, said: Mapping[str, Collection[str]]) -> bool:
        """Whether a device is this one, by every value of each thing that it says of itself."""
        # What asks for nothing would be every device.
        return bool(self.match) and all(
            not set(values).isdisjoint(said.get(key, ())) for key, values in self.match.items()
        )

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        document: dict[str, object] = {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "runtime": [target.to_json() for target in self.targets],
            "match": {key: list(values) for key, values in self.match.items()},
        }
        sections: dict[str, dict[str, object]] = {}
        for name, figure in self.figures.items():
            section, _, key = name.partition(".")
            sections.setdefault(section, {})[key] = _figure_json(figure)
        return document | sections

    @classmethod
    def from_json(cls, value: Value) -> DeviceProfile:
        """The profile in a JSON object, or in the same shape of another format.

        Raises:
            FormatError: a field is missing, unknown or wrong; the message names it.
        """
        members = value.members()
        sections = {key: member for key, member in members.items() if key not in _PLAIN}
        plain = {key: member.data for key, member in members.items() if key in _PLAIN}
        # What is the only one of its sort needs nothing to be told by.
        fields = Value({"match": {}} | plain, value.document, value.path)
        identity, name, kind, runtime, match = fields.fields(*_PLAIN)
        return cls(
            identity.name(),
            _text(name),
            kind.choice("jetson", "android", "linux"),
            targets=_targets(runtime),
            figures=_figures(sections),
            match={key: _texts(values) for key, values in match.members().items()},
        )


def _targets(value: Value) -> tuple[Target, ...]:
    found: dict[str, Target] = {}
    for element in value.elements():
        target = Target.from_json(element)
        if target.runtime in found:
            raise FormatError(f"{element.where}.name: runtime {target.runtime!r} stands twice")
        found[target.runtime] = target
    return tuple(found.values())


def _multiples(value: Value, precisions: Collection[str]) -> dict[str, WidthMultiple]:
    found: dict[str, WidthMultiple] = {}
    for precision, member in value.members().items():
        if precision not in precisions:
            # Of other precisions there are no artifacts whose widths it could be about.
            raise FormatError(f"{member.where}: unknown; expected {', '.join(precisions)}")
        channels, source, confidence = member.fields("value", "source", "confidence")
        found[precision] = WidthMultiple(_count(channels), _text(source), _confidence(confidence))
    return found


def _figures(sections: Mapping[str, Value]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for section, content in sections.items():
        _refuse_sparse(section, content)
        if section not in SECTIONS:
            expected = ", ".join((*_PLAIN, *SECTIONS))
            raise FormatError(f"{content.where}: unknown; expected {expected}")
        for key, member in content.members().items():
            name = f"{section}.{key}"
            _refuse_sparse(key, member)
            if name not in FIGURES:
                raise FormatError(f"{member.where}: unknown figure{did_you_mean(name, FIGURES)}")
            found[name] = _figure(member, FIGURES[name])
    return found


def _figure(member: Value, parse: Callable[[Value], FigureValue]) -> Figure:
    value, source, confidence = member.fields("value", "source", "confidence")
    return Figure(parse(value), _text(source), _confidence(confidence))


def _figure_json(figure: Figure) -> dict[str, object]:
    value = list(figure.value) if isinstance(figure.value, tuple) else figure.value
    return {"value": value, "source": figure.source, "confidence": figure.confidence}


def _refuse_sparse(key: str, member: Value) -> None:
    if "sparse" in key.lower():
        raise FormatError(
            f"{member.where}: a figure for 2:4 sparse weights, which no artifact here has; "
            "give the dense one"
        )


def _confidence(value: Value) -> Confidence:
    return value.choice("high", "medium", "low")


def _count(value: Value) -> int:
    return value.integer(minimum=1)


def _positive(value: Value) -> float:
    number = value.number()
    if number <= 0:
        raise value.error("a number above 0; leave out what is unknown")
    return number


def _text(value: Value) -> str:
    if not value.string().strip():
        raise value.error("a text that says something")
    return value.string()


def _texts(value: Value) -> tuple[str, ...]:
    texts = tuple(_text(element) for element in value.elements())
    if not texts or len(set(texts)) != len(texts):
        raise value.error("at least one text, and none twice")
    return texts


_PLAIN = ("id", "name", "kind", "runtime", "match")

FIGURES: Mapping[str, Callable[[Value], FigureValue]] = {
    "soc.model": _text,
    "cpu.arch": _text,
    "cpu.clusters": _texts,
    "cpu.cores": _count,
    "cpu.clock_ghz": _positive,
    "cpu.isa": _texts,
    "cpu.peak_fp32_gflops": _positive,
    "memory.total_mb": _count,
    "memory.bandwidth_gbs": _positive,
    "memory.type": _text,
    "gpu.model": _text,
    "gpu.compute_capability": _text,
    "gpu.sm_count": _count,
    "gpu.clock_ghz": _positive,
    "gpu.dense_fp32_tflops": _positive,
    "gpu.dense_fp16_tflops": _positive,
    "gpu.dense_int8_tops": _positive,
    "power.modes": _texts,
    "power.mode": _text,
    "os.name": _text,
    "os.jetpack": _texts,
    "os.l4t": _text,
}
"""How the value of each figure is read. docs/devices.md says what each one means."""

SECTIONS = tuple(dict.fromkeys(name.partition(".")[0] for name in FIGURES))
