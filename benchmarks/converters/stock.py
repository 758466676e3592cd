"""Files as anyone makes them: the frameworks' tools, called directly with their defaults.

    python -m benchmarks.converters.stock TARGET NETWORK [PRECISION ...]

makes those of one of the project's own networks and forgets them: what a user's own script would
do, for whoever wants to know what that takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import torch
from torch import Tensor, nn

from nestedge.plugins import Array
from nestedge.precisions import BASIC

Files = Mapping[str, Callable[[], bytes]]
"""What makes the file of each precision."""

TARGETS = {"onnx": BASIC, "tflite": BASIC, "onnx2tf": ("fp32",)}
"""The precisions of each tool's files that are worth a comparison: of onnx2tf's networks with 8-bit
or half-precision weights, most do not load."""

CASES = 8


def files(target: str, module: nn.Module, image: Tensor, images: Array) -> Files:
    """The files of a target's own tools; nothing of another's is imported.

    Args:
        target: one of `TARGETS`.
        module: in evaluation mode.
        image: an example, batch of 1.
        images: to calibrate with, shape (cases, *shape of the example).
    """
    tools = import_module(f"benchmarks.converters.stock_{target}")
    made: Files = tools.files(module, image, images)
    return made


def main(given: Sequence[str]) -> None:
    """Make the files of a network."""
    from benchmarks.subjects import EVERY

    target, name, *precisions = given
    (subject,) = (s for s in EVERY if s.name == name)
    torch.set_num_threads(1)
    images = subject.images(CASES)
    made = files(target, subject.full().eval(), images[:1], images[:, None].numpy())
    for precision in precisions:
        made[precision]()


if __name__ == "__main__":
    main(sys.argv[1:])
