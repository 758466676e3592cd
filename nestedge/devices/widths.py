"""The widths that a device works on at once, for levels that are to waste none of it."""

from __future__ import annotations

from dataclasses import dataclass

from nestedge.devices.library import load_profile
from nestedge.devices.profile import DeviceProfile, Target, WidthMultiple
from nestedge.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class DeviceMultiple:
    """A multiple and what it holds for.

    Attributes:
        device: the id of its profile.
        runtime: that computes so many outputs at once.
        precision: in which it does.
        multiple: how many, and where that is said.
    """

    device: str
    runtime: str
    precision: str
    multiple: WidthMultiple


def width_multiple(device: str, *, runtime: str | None = None, precision: str | None = None) -> int:
    """What a device's widths are best a multiple of, as for `Card(divisor=...)`.

    Args:
        device: the id of a known one, or the path of a profile, as for `load_profile`.
        runtime: as for `find_multiple`.
        precision: as for `find_multiple`.

    Raises:
        UsageError: there is no such device, runtime or precision, or its multiple is not known.
        FormatError: the file is not a profile.

    >>> width_multiple("jetson-orin-nano-8gb", runtime="tensorrt", precision="fp16")
    8
    """
    found = find_multiple(load_profile(device), runtime=runtime, precision=precision)
    return found.multiple.value


def find_multiple(
    profile: DeviceProfile, *, runtime: str | None = None, precision: str | None = None
) -> DeviceMultiple:
    """The multiple that a profile knows for a runtime and precision.

    Args:
        profile: of the device.
        runtime: None for the first one of the profile, the preferred one, that has the precision.
        precision: None for the one whose multiple is the largest: widths that fit it fit the
            runtime's other precisions too, as long as multiples are powers of two.

    Raises:
        UsageError: the profile has no such runtime or precision, or does not know the multiple.
    """
    target = _target(profile, runtime, precision)
    known = {
        name: target.multiples[name]
        for name in target.precisions
        if name in target.multiples and precision in (None, name)
    }
    if not known:
        raise UsageError(
            f"{profile.id}: not known how many outputs {target.runtime!r} computes at once"
            f"{f' in {precision}' if precision else ''}{_instead(profile)}"
        )
    largest = max(known, key=lambda name: known[name].value)
    return DeviceMultiple(profile.id, target.runtime, largest, known[largest])


def _target(profile: DeviceProfile, runtime: str | None, precision: str | None) -> Target:
    """The first target that has the runtime and the precision that were asked for."""
    runtimes = [target.runtime for target in profile.targets]
    asked = [target for target in profile.targets if runtime in (None, target.runtime)]
    if not asked:
        wanted = "" if runtime is None else f" {runtime!r}"
        suggestion = did_you_mean(runtime or "", runtimes)
        raise UsageError(f"{profile.id}: no runtime{wanted}; it has {runtimes}{suggestion}")
    for target in asked:
        if precision is None or precision in target.precisions:
            return target
    precisions = list(dict.fromkeys(name for target in asked for name in target.precisions))
    of_runtime = "" if runtime is None else f" of {runtime!r}"
    raise UsageError(f"{profile.id}: no precision {precision!r}{of_runtime}; it has {precisions}")


def _instead(profile: DeviceProfile) -> str:
    """What is known of other runtimes and precisions, for errors."""
    known = [
        f"{target.runtime} in {name}" for target in profile.targets for name in target.multiples
    ]
    return f"; known for {', '.join(known)}" if known else "; its profile says no multiple"
