"""What a device says of itself, asked in one script, and read from what its programs print."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nestedge.errors import MissingDependencyError, NestedgeError
from nestedge_tensorrt.fingerprint import Fingerprint

PROBE = r"""
exec 2>/dev/null
section() { printf '\n@@ %s\n' "$1"; }
section model; tr -d '\000' </proc/device-tree/model
section compatible; tr '\000' '\n' </proc/device-tree/compatible
section release; head -n 1 /etc/nv_tegra_release
section packages; dpkg-query --show 'libnvinfer[0-9]*' nvidia-jetpack
section power; nvpmodel -q
section gpu; nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader
section cuda; cat /usr/local/cuda/version.json
section header; grep -h '#define' /usr/include/NvInferVersion.h /usr/include/*/NvInferVersion.h
"""
"""Asks for all but the tools; what is missing prints nothing, and the rest still runs."""

PROBE_TOOLS = r"""
section trtexec
tool=$(command -v trtexec || ls /usr/src/tensorrt/bin/trtexec /opt/tensorrt/bin/trtexec)
tool=$(printf '%s' "$tool" | head -n 1); echo "$tool"
section banner; [ -n "$tool" ] && "$tool" --help | head -n 1
section python; python3 -c 'import tensorrt; print(tensorrt.__version__)'
"""
"""Asks, after `PROBE`, for what builds engines."""

_CAPABILITIES = {
    # As in the table CUDA_TABLE of jetson_stats, jtop/core/jetson_variables.py.
    "nvidia,tegra210": "5.3",
    "nvidia,tegra186": "6.2",
    "nvidia,tegra194": "7.2",
    "nvidia,tegra234": "8.7",
    "nvidia,tegra264": "11.0",
}

_INSTALL = {
    "trtexec": "sudo apt-get install libnvinfer-bin, which puts it into /usr/src/tensorrt/bin",
    "python": "sudo apt-get install python3-libnvinfer; it is for the system's python3",
}


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a device has said; each is "" where it has no such thing.

    Attributes:
        model: of the board, or of the GPU on a PC.
        compute_capability: of the GPU.
        driver: L4T of a Jetson, or the version of the driver on a PC.
        jetpack: its version.
        cuda: its version.
        power_mode: name of the mode of nvpmodel.
        builds: versions of TensorRT that are installed, as exact as anything told them.
        trtexec: path of the program.
        banner: version that it said.
        python: version of Python's module tensorrt.
    """

    model: str
    compute_capability: str
    driver: str
    jetpack: str
    cuda: str
    power_mode: str
    builds: tuple[str, ...]
    trtexec: str
    banner: str
    python: str

    def exact(self, version: str) -> str:
        """A version of TensorRT with its build number, where anything told that.

        trtexec before 10.4 and Python's module on a Jetson say three numbers of the four.
        """
        longer = (found for found in self.builds if found.startswith(f"{version}."))
        return next(longer, version)

    def tool(self, by: str) -> str:
        """The version of TensorRT of "trtexec" or "python".

        Raises:
            MissingDependencyError: it is not installed; the message says what to type.
        """
        version = self.banner if by == "trtexec" else self.python
        if not version:
            what = "trtexec" if by == "trtexec" else "Python's module tensorrt"
            raise MissingDependencyError(f"no {what} on the device: {_INSTALL[by]}")
        return self.exact(version)


def read_device(output: str) -> Device:
    """What the output of `PROBE`, with or without `PROBE_TOOLS`, says."""
    said = _sections(output)
    compatible = said.get("compatible", "").split()
    gpu = [cell.strip() for cell in _first_line(said, "gpu").split(",")]
    name, capability, driver = gpu if len(gpu) == len(("name", "cap", "driver")) else ("", "", "")
    tegra = [_CAPABILITIES[entry] for entry in compatible if entry in _CAPABILITIES]
    # Some JetPacks have an nvidia-smi that knows nothing of the Jetson's GPU.
    return Device(
        model=_first_line(said, "model") or name,
        compute_capability=tegra[0] if tegra else _number(capability),
        driver=_l4t(said) or driver,
        jetpack=_package(said, "nvidia-jetpack"),
        cuda=_cuda(said),
        power_mode=_power_mode(said),
        builds=_builds(said),
        trtexec=_first_line(said, "trtexec"),
        banner=banner_version(_first_line(said, "banner")),
        python=_number(_first_line(said, "python")),
    )


def fingerprint_of(
    device: Device, *, tensorrt: str, model_sha256: str, precision: str, options: str
) -> Fingerprint:
    """What an engine belongs to that is built on a device.

    Raises:
        NestedgeError: the device does not say which GPU it has.
    """
    if not device.compute_capability:
        raise NestedgeError(
            "the device does not say its GPU's compute capability: it is no Jetson that is known, "
            "and nvidia-smi --query-gpu=compute_cap is missing or too old: update the driver"
        )
    values = {
        "model_sha256": model_sha256,
        "precision": precision,
        "options": options,
        "tensorrt": tensorrt,
        "compute_capability": device.compute_capability,
        "device": device.model,
        "driver": device.driver,
        "jetpack": device.jetpack,
        "cuda": device.cuda,
        "power_mode": device.power_mode,
    }
    return Fingerprint(values)


def banner_version(line: str) -> str:
    """The version in the first line that trtexec prints; "" where there is none.

    It is NV_TENSORRT_VERSION, thousands of the major version up to 8, ten thousands from 10 on, and
    from 10.4 on the build.

    >>> banner_version("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --help")
    '8.5.2'
    >>> banner_version("&&&& RUNNING TensorRT.trtexec [TensorRT v100800] [b43] # trtexec")
    '10.8.0.43'
    """
    found = re.search(r"\[TensorRT v(\d+)\](?: \[b(\d+)\])?", line)
    if found is None:
        return ""
    number = int(found.group(1))
    thousands = 1000 if number < 10_000 else 10_000
    parts = [number // thousands, number % thousands // 100, number % 100]
    build = found.group(2)
    return ".".join(map(str, parts)) + (f".{build}" if build else "")


def _sections(output: str) -> dict[str, str]:
    found = re.split(r"^@@ (\w+)$", output, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def _first_line(said: Mapping[str, str], name: str) -> str:
    return said.get(name, "").strip().partition("\n")[0].strip()


def _number(text: str) -> str:
    """A version; "" for what is none, as nvidia-smi's "[N/A]"."""
    return text if re.fullmatch(r"\d+(\.\d+)+", text) else ""


def _l4t(said: Mapping[str, str]) -> str:
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", said.get("release", ""))
    return f"L4T {found.group(1)}.{found.group(2)}" if found else ""


def _package(said: Mapping[str, str], name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s+(\S+)", said.get("packages", ""), re.MULTILINE)
    return found.group(1) if found else ""


def _cuda(said: Mapping[str, str]) -> str:
    found = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', said.get("cuda", ""))
    return found.group(1) if found else ""


def _power_mode(said: Mapping[str, str]) -> str:
    # The number behind it means another mode on another module.
    found = re.search(r"^NV Power Mode: (\S+)", said.get("power", ""), re.MULTILINE)
    return found.group(1) if found else ""


def _builds(said: Mapping[str, str]) -> tuple[str, ...]:
    """The versions of TensorRT with four numbers, from the header and from the packages."""
    header = said.get("header", "")
    # From TensorRT 10.11 on, the numbers stand in macros of other names.
    parts = [
        re.search(rf"^#define (?:NV_TENSORRT_{name}|TRT_{name}_ENTERPRISE) (\d+)", header, re.M)
        for name in ("MAJOR", "MINOR", "PATCH", "BUILD")
    ]
    found = [".".join(part.group(1) for part in parts if part)] if all(parts) else []
    packages = said.get("packages", "")
    found += re.findall(r"^libnvinfer\d+\s+(\d+(?:\.\d+){3})", packages, re.M)
    return tuple(dict.fromkeys(found))
