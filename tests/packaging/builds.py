"""A build folder of fake artifacts, verified, for two devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nestedge.artifact import Artifact
from nestedge.devices.profile import DeviceProfile, Target
from nestedge.matrix import Cell, Matrix, Source, write_matrix
from nestedge.verify import save_verifications, verify_artifact
from tests.fakes import DESCRIPTION, FakeRuntime, fake_artifact

CELLS = ("small/fake-int8", "small/fake-fp32", "full/fake-int8", "full/fake-fp32")
"""Those of the phone, in the order of its shipment; the board has no fp32."""


def profile(device: str, *precisions: str) -> DeviceProfile:
    """A device with the fake runtime."""
    return DeviceProfile(
        id=device,
        name=device.replace("-", " "),
        kind="linux",
        targets=(Target("fake", ("1.0",), precisions),),
        figures={},
        match={},
    )


def verified_build(dist: Path) -> dict[str, Artifact]:
    """Writes two levels in two precisions, with build.json and verifications.json; by cell."""
    artifacts = {}
    for seed, level in enumerate(("small", "full")):
        for precision, tolerance in (("fp32", 1e-5), ("int8", 0.1)):
            description = replace(
                DESCRIPTION,
                level=level,
                precision=precision,
                tolerance=tolerance,
                parameters=15 * (seed + 1),
            )
            artifact = fake_artifact(dist, description, seed=seed)
            artifacts[artifact.cell] = artifact
    build = Matrix(
        nestedge="0.1.0",
        source=Source(
            model="net.nest",
            sha256="a" * 64,
            levels={"small": "b" * 64, "full": "c" * 64},
            calibration=None,
            converters={},
        ),
        calibration=None,
        devices={
            "phone": profile("phone", "int8", "fp32"),
            "board": profile("board", "int8"),
        },
        cells={
            name: Cell(artifact.level, artifact.runtime, artifact.precision)
            for name, artifact in artifacts.items()
        },
    )
    write_matrix(dist, build)
    verify(dist, artifacts)
    return artifacts


def verify(dist: Path, artifacts: dict[str, Artifact]) -> None:
    """Records what the fake runtime gives for them."""
    save_verifications(dist, [verify_artifact(a, FakeRuntime()) for a in artifacts.values()])


def change(path: Path) -> None:
    """Changes the last byte of a file, as an attacker or a failing disk would."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, hidden ones too, by path below it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
