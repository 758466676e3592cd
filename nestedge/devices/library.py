"""The devices that can be named: the known ones, the local machine, and profiles of one's own."""

from __future__ import annotations

from pathlib import Path

from nestedge.devices.detection import detect
from nestedge.devices.files import SUFFIX, known_ids, known_profile, read_profile
from nestedge.devices.profile import LOCAL, DeviceProfile
from nestedge.errors import UsageError, did_you_mean


def load_profile(device: str) -> DeviceProfile:
    """The profile of a device.

    Args:
        device: the id of a known one, "local" for this machine, or the path of a profile of one's
            own, which ends in ".toml".

    Raises:
        UsageError: there is no such device, or no such file.
        FormatError: the file is not a profile; the message names file and field.
    """
    if device.endswith(SUFFIX):
        return read_profile(Path(device))
    if device == LOCAL:
        return detect()
    known = [*known_ids(), LOCAL]
    if device not in known:
        raise UsageError(f"no device {device!r}; known are {known}{did_you_mean(device, known)}")
    return known_profile(device)
