"""Profiles as files: one TOML a device, read strictly.

The folder of known profiles lies beside the package in a checkout, and inside it in a wheel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from nestedge.devices.profile import LOCAL, DeviceProfile
from nestedge.documents import Value
from nestedge.errors import FormatError, NestedgeError
from nestedge.toml import read_toml

FOLDER = "device_profiles"
SUFFIX = ".toml"


def profiles_folder(package: Path = Path(__file__).parents[1]) -> Path:
    """The folder of the known profiles.

    Args:
        package: the folder of nestedge itself.

    Raises:
        NestedgeError: there is none, so that nestedge is not installed whole.
    """
    for folder in (package / FOLDER, package.parent / FOLDER):
        if folder.is_dir():
            return folder
    raise NestedgeError(f"{package}: no {FOLDER} in it or beside it: reinstall nestedge")


def known_ids() -> tuple[str, ...]:
    """Ids of the known profiles, sorted."""
    return tuple(sorted(path.stem for path in profiles_folder().glob(f"*{SUFFIX}")))


def known_profile(device: str) -> DeviceProfile:
    """The known profile of that id.

    Raises:
        FormatError: the file is not a profile.
        OSError: it cannot be read.
    """
    return read_profile(profiles_folder() / f"{device}{SUFFIX}")


def read_profile(path: Path) -> DeviceProfile:
    """The profile in a TOML file.

    Raises:
        UsageError: there is no such file.
        FormatError: it is not TOML, or not a profile, as in
            `pixel-8.toml: memory.total_mb.source: missing`.
        OSError: it cannot be read.
    """
    document = read_toml(path)
    _check_values(document)
    profile = DeviceProfile.from_json(document)
    _check_file(profile, path)
    return profile


def match_profile(said: Mapping[str, Collection[str]]) -> str | None:
    """The id of the known profile that a device is, by what it says of itself; None for none.

    Args:
        said: every value of each thing that the device says: "compatible" holds the entries of its
            device tree, and a key such as "ro.soc.model" the property of an Android phone.
    """
    ids = known_ids()
    return next((device for device in ids if known_profile(device).matches(said)), None)


def _check_values(value: Value) -> None:
    """TOML has dates, which no field of a profile is, and which errors could not show."""
    if isinstance(value.data, dict):
        for member in value.members().values():
            _check_values(member)
    elif isinstance(value.data, list):
        for element in value.elements():
            _check_values(element)
    elif not isinstance(value.data, (str, int, float)):
        raise FormatError(f"{value.where}: expected no date or time, found {value.data}")


def _check_file(profile: DeviceProfile, path: Path) -> None:
    """What a file must say beyond what a profile must: who it is about, and why to believe it."""
    if profile.id != path.stem:
        raise FormatError(f"{path}: id: expected {path.stem!r}, as the file, found {profile.id!r}")
    if profile.id == LOCAL:
        raise FormatError(f"{path}: id: {LOCAL!r} is the machine that detects itself; rename it")
    if not profile.targets:
        raise FormatError(f"{path}: runtime: expected at least one [[runtime]]")
    for index, target in enumerate(profile.targets):
        if not target.source.strip():
            raise FormatError(f"{path}: runtime[{index}].source: expected a text, found none")
