"""What the machine that this runs on says of itself.

Every figure is read from a file of the system, and the file is its source. What cannot be read is
left out: a container may hide /sys, and only a Jetson has /etc/nv_tegra_release.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nestedge.devices.cpuinfo import architecture, clusters, instruction_sets, parse_cores
from nestedge.devices.files import match_profile
from nestedge.devices.profile import LOCAL, DeviceProfile, Figure, FigureValue, Kind, Target
from nestedge.errors import NestedgeError
from nestedge.plugins import load_runtime
from nestedge.precisions import BASIC

_CPUINFO = "proc/cpuinfo"
_MEMINFO = "proc/meminfo"
_MODEL = "proc/device-tree/model"
_COMPATIBLE = "proc/device-tree/compatible"
_TEGRA_RELEASE = "etc/nv_tegra_release"
_OS_RELEASE = "etc/os-release"
# What starts every Android app; build.prop is hidden from them.
_ANDROID = "system/bin/app_process"
_CLOCKS = "sys/devices/system/cpu"
_CLOCK = "cpufreq/cpuinfo_max_freq"

_RUNTIMES = ("onnx", "tflite")


def detect(root: Path = Path("/")) -> DeviceProfile:
    """The profile of this machine, with the id "local".

    Args:
        root: the folder in which the files of the system lie.
    """
    figures = {
        name: Figure(value, source=f"/{source}", confidence="high")
        for name, value, source in _figures(root)
    }
    return DeviceProfile(
        id=LOCAL,
        name=_name(root),
        kind=_kind(root),
        targets=tuple(_targets()),
        figures=figures,
        match={},
    )


def matching_profile(root: Path = Path("/")) -> str | None:
    """The id of the known profile that this machine is, by its device tree; None for none.

    Args:
        root: as for `detect`.

    Raises:
        FormatError: a known profile is not one.
    """
    return match_profile({"compatible": _compatible(root)})


def _figures(root: Path) -> Iterator[tuple[str, FigureValue, str]]:
    """The names, values and files of what the system tells."""
    cores = parse_cores(_read(root / _CPUINFO))
    if arch := architecture(cores):
        yield "cpu.arch", arch, _CPUINFO
    if named := clusters(cores):
        yield "cpu.clusters", named, _CPUINFO
    if cores:
        yield "cpu.cores", len(cores), _CPUINFO
    if isa := instruction_sets(cores):
        yield "cpu.isa", isa, _CPUINFO
    if clock := _clock_ghz(root):
        yield "cpu.clock_ghz", clock, f"{_CLOCKS}/cpu*/{_CLOCK}"
    if total := re.search(r"^MemTotal:\s*(\d+) kB", _read(root / _MEMINFO), re.MULTILINE):
        yield "memory.total_mb", int(total.group(1)) // 1024, _MEMINFO
    if name := re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(root / _OS_RELEASE), re.MULTILINE):
        yield "os.name", name.group(1), _OS_RELEASE
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _read(root / _TEGRA_RELEASE))
    if release:
        yield "os.l4t", ".".join(release.groups()), _TEGRA_RELEASE


def _clock_ghz(root: Path) -> float | None:
    """The highest clock of any core."""
    texts = [_read(path) for path in (root / _CLOCKS).glob(f"cpu[0-9]*/{_CLOCK}")]
    clocks = [int(text) for text in texts if text.strip().isdigit()]
    return max(clocks) / 1e6 if clocks else None


def _name(root: Path) -> str:
    """What the board calls itself, or else its processor."""
    cores = parse_cores(_read(root / _CPUINFO))
    model = _read(root / _MODEL).strip("\0 \n")
    return model or ", ".join(clusters(cores)) or "this machine"


def _kind(root: Path) -> Kind:
    if any(entry.startswith("nvidia,tegra") for entry in _compatible(root)):
        return "jetson"
    return "android" if _is_file(root / _ANDROID) else "linux"


def _compatible(root: Path) -> tuple[str, ...]:
    """The entries of the device tree, the most exact first."""
    return tuple(entry for entry in _read(root / _COMPATIBLE).split("\0") if entry.strip())


def _targets() -> Iterator[Target]:
    """The runtimes that can be imported here; what they accept is theirs to say."""
    for name in _RUNTIMES:
        try:
            version = load_runtime(name).version()
        except NestedgeError:
            continue
        yield Target(
            name,
            versions=(version.split()[-1],),
            precisions=BASIC,
            source=f"{version} is installed here",
            confidence="high",
        )


def _read(path: Path) -> str:
    """The text of a file; none where it is missing or forbidden."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
