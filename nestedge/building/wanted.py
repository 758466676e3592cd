"""Which cells a build is asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nestedge.devices.profile import DeviceProfile
from nestedge.errors import UsageError, did_you_mean
from nestedge.matrix import Cell
from nestedge.plugins import converters
from nestedge.precisions import PRECISIONS, WeightSteps


def with_precisions(device: DeviceProfile, precisions: Collection[str]) -> DeviceProfile:
    """A device, to be built for in precisions too that its profile does not speak of."""
    offered = {precision for target in device.targets for precision in target.precisions}
    extra = tuple(name for name in precisions if name in PRECISIONS and name not in offered)
    targets = (replace(t, precisions=(*t.precisions, *extra)) for t in device.targets)
    return replace(device, targets=tuple(targets))


def is_limited(precision: str) -> bool:
    """Whether `MaxDrop` is about a precision: int8 and its kin with ranges from calibration."""
    found = PRECISIONS[precision]
    return found.weight_bytes == 1 and found.is_calibrated


@dataclass(frozen=True)
class MaxDrop:
    """How much accuracy an artifact of 8-bit weights may lose beside its level.

    Attributes:
        points: percent of the samples.
        data: a .npz of 'inputs' and 'labels'.

    Raises:
        UsageError: the points are no number from 0 to 100.
    """

    points: float
    data: Path

    def __post_init__(self) -> None:
        if math.isnan(self.points) or not 0 <= self.points <= 100:
            raise UsageError(f"--max-drop: expected points from 0 to 100, found {self.points:g}")


@dataclass(frozen=True)
class Request:
    """What is asked of a build.

    Attributes:
        devices: for which cells are made: all that their profiles have, but for what follows.
        levels: only these; all when empty.
        runtimes: only these; all when empty.
        precisions: only these, and then each of them must be made; all when empty.
        calibration: a folder of representative inputs, in place of those in the .nest.
        routes: the converter to use for a runtime, where it is not the one of the same name.
        weight_steps: as `nestedge.convert.BuildSpec` has it.
        max_drop: what 8 bits may cost; the worst layers of an artifact that loses more fall back
            to half precision. None where it is not looked at.
    """

    devices: Sequence[DeviceProfile]
    levels: Sequence[str] = ()
    runtimes: Sequence[str] = ()
    precisions: Sequence[str] = ()
    calibration: Path | None = None
    routes: Mapping[str, str] = field(default_factory=dict)
    weight_steps: WeightSteps = "family"
    max_drop: MaxDrop | None = None

    def converter(self, runtime: str) -> str:
        """The converter that makes the artifacts of a runtime."""
        return self.routes.get(runtime, runtime)

    def targets(self) -> dict[str, tuple[str, ...]]:
        """The precisions asked for, by runtime, in the order in which devices have them.

        Raises:
            UsageError: no device has a runtime or precision that was asked for by name, or one has
                a runtime that no converter here writes for.
        """
        offered: dict[str, list[str]] = {}
        for device in self.devices:
            for target in device.targets:
                offered.setdefault(target.runtime, []).extend(target.precisions)
        ids = [device.id for device in self.devices]
        every = {precision for precisions in offered.values() for precision in precisions}
        _check_known("runtime", self.runtimes, offered, where=f" on {ids}")
        _check_known("precision", self.precisions, every, where=f" on {ids}")
        wanted = {
            runtime: tuple(dict.fromkeys(_only(offered[runtime], self.precisions)))
            for runtime in _only(offered, self.runtimes)
        }
        routes = [self.converter(runtime) for runtime in wanted]
        _check_known("converter", routes, converters(), where="")
        return wanted

    def cells(self, levels: Collection[str]) -> list[Cell]:
        """Every cell asked for, of a network with some levels.

        Raises:
            UsageError: as for `targets`, or a level asked for by name does not exist.
        """
        _check_known("level", self.levels, levels, where="")
        return [
            Cell(level, runtime, precision)
            for level in _only(levels, self.levels)
            for runtime, precisions in self.targets().items()
            for precision in precisions
        ]


def _only(names: Collection[str], wanted: Collection[str]) -> list[str]:
    return [name for name in names if not wanted or name in wanted]


def _check_known(noun: str, asked: Collection[str], known: Collection[str], *, where: str) -> None:
    for name in asked:
        if name not in known:
            raise UsageError(
                f"no {noun} {name!r}{where}; known are {list(known)}{did_you_mean(name, known)}"
            )
