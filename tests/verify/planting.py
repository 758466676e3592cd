"""Artifacts with an error planted in the weight of one layer, and all hashes as they should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact, write_artifact


def with_wrong_weight(artifact: Artifact, module: str, folder: Path) -> Artifact:
    """The artifact in another build folder, the weight of a layer with its bytes turned round.

    Args:
        artifact: what was built.
        module: path of the layer in the user's network.
        folder: the other build folder.
    """
    files = {name: (artifact.folder / name).read_bytes() for name in artifact.files}
    constants = json.loads(files["constants.json"])["constants"]
    name = f'"name": "shared/{module}.weight"'
    found = max(
        (item for item in constants if name in json.dumps(item["expression"])),
        key=lambda item: item["bytes"],
    )
    start, end = found["offset"], found["offset"] + found["bytes"]
    content = files[artifact.model]
    weight = np.frombuffer(content[start:end], found["dtype"])
    files[artifact.model] = content[:start] + weight[::-1].tobytes() + content[end:]
    return write_artifact(folder / artifact.cell, artifact, files=files)


def copied(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact in another build folder, as it is."""
    files = {name: (artifact.folder / name).read_bytes() for name in artifact.files}
    return write_artifact(folder / artifact.cell, artifact, files=files)
