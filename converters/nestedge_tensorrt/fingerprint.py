"""What an engine belongs to: the network, and the device that built it, down to the power mode.

TensorRT itself refuses an engine of another version or GPU, in words that help nobody; it takes one
of another power mode, whose kernels were chosen at other clocks. Here each difference has its name,
both values, and what it means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from nestedge.documents import Value, json_bytes

_KEY_DIGITS = 16


@dataclass(frozen=True)
class FingerprintField:
    """One of the things that an engine belongs to.

    Attributes:
        field: its name.
        read: the command, or the place, that shows it on the device.
        mismatch: what an engine is worth where it differs: "another network", "another engine",
            "does not load", "not supported" or "other timing".
    """

    field: str
    read: str
    mismatch: str


FINGERPRINT = (
    FingerprintField("model_sha256", "sha256sum model.onnx", "another network"),
    FingerprintField("precision", "precision of engine.json", "another network"),
    FingerprintField("options", "options of engine.json", "another engine"),
    FingerprintField("tensorrt", "dpkg-query --show 'libnvinfer[0-9]*'", "does not load"),
    FingerprintField(
        "compute_capability", "'Compute Capability:' in what trtexec prints", "does not load"
    ),
    FingerprintField("device", "cat /proc/device-tree/model", "not supported"),
    FingerprintField(
        "driver", "head -n 1 /etc/nv_tegra_release, or nvidia-smi on a PC", "not supported"
    ),
    FingerprintField("jetpack", "dpkg-query --show nvidia-jetpack", "not supported"),
    FingerprintField("cuda", "cat /usr/local/cuda/version.json", "not supported"),
    FingerprintField("power_mode", "nvpmodel -q", "other timing"),
)
"""What is written down beside an engine; on a Jetson the GPU driver is part of L4T."""

_MEANING = {
    "another network": "the engine is of another network",
    "another engine": "the engine was built otherwise",
    "does not load": "TensorRT does not load the engine here",
    "not supported": "NVIDIA does not support the engine here",
    "other timing": "it computes the same, but its kernels were timed at other clocks",
}


@dataclass(frozen=True)
class Fingerprint:
    """What one engine belongs to.

    Attributes:
        values: of every field of `FINGERPRINT`; "" where a device has no such thing.
    """

    values: Mapping[str, str]

    @property
    def key(self) -> str:
        """Name of the folder of the engine: short, and another one for another fingerprint."""
        return hashlib.sha256(json_bytes(self.to_json())).hexdigest()[:_KEY_DIGITS]

    def to_json(self) -> dict[str, str]:
        """The JSON object that `from_json` reads."""
        return {item.field: self.values[item.field] for item in FINGERPRINT}

    @classmethod
    def from_json(cls, value: Value) -> Fingerprint:
        """The fingerprint in a JSON object.

        Raises:
            FormatError: a field is missing, unknown, or no text.
        """
        names = [item.field for item in FINGERPRINT]
        fields = zip(names, value.fields(*names), strict=True)
        return cls({name: field.string() for name, field in fields})

    def differences(self, here: Fingerprint) -> list[str]:
        """What keeps an engine of this fingerprint from being used here, the worst first.

        Args:
            here: the fingerprint that an engine built here and now would have.
        """
        return [
            f"{item.field}: built for {_shown(self.values[item.field])}, here it is "
            f"{_shown(here.values[item.field])}: {_MEANING[item.mismatch]}"
            for item in FINGERPRINT
            if self.values[item.field] != here.values[item.field]
        ]


def _shown(value: str) -> str:
    return repr(value) if value else "unknown"
