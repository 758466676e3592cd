"""Broken and hostile networks, each in as few lines as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.hostile import modules

RUNTIMES = ("onnx", "tflite", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Hostile:
    """A network that something cannot take.

    Attributes:
        name: in the table.
        make: the module.
        shape: of its input, with a batch of 2.
        dtype: of its input.
        expected: what its cells end in, by "nest" or by runtime and precision: a code, or "not
            verified"; the others are built and verified.
        cases: how many calibration cases it brings; 0 where numpy has no such type.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 8)
    dtype: torch.dtype = torch.float32
    expected: dict[str, str] = field(default_factory=dict)
    cases: int = 4

    def inputs(self, batch: int, *, seed: int) -> Tensor:
        """Inputs of it: noise, or small whole numbers."""
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, *self.shape[1:])
        if self.dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(self.dtype)
        return torch.randint(0, 8, shape, generator=generator).to(self.dtype)


IMAGE = (2, 3, 16, 16)
VOLUME = (2, 3, 8, 8, 8)
_NO_INT8 = {f"{name}-int8": "nothing-to-quantise" for name in RUNTIMES}


def _everywhere(code: str, *runtimes: str) -> dict[str, str]:
    names = runtimes or RUNTIMES
    return {f"{name}-{precision}": code for name in names for precision in PRECISIONS}


NETWORKS: Sequence[Hostile] = (
    Hostile(
        "no rule",
        lambda: modules.Between(modules.inverse),
        expected={"nest": "unsupported-operator"},
    ),
    Hostile(
        "spectrum", lambda: modules.Between(modules.spectrum), expected={"nest": "complex-numbers"}
    ),
    Hostile(
        "complex view",
        lambda: modules.Between(modules.as_complex),
        expected={"nest": "complex-numbers"},
    ),
    Hostile(
        "selected rows", lambda: modules.Between(modules.select), expected={"nest": "dynamic-shape"}
    ),
    Hostile(
        "branch on a value",
        lambda: modules.Between(modules.branch),
        expected={"nest": "data-dependent"},
    ),
    Hostile(
        "through numpy",
        lambda: modules.Between(modules.through_numpy),
        expected={"nest": "not-exportable"},
    ),
    Hostile(
        "adaptive max pooling",
        lambda: modules.Behind(lambda x: F.adaptive_max_pool2d(x, 5)),
        IMAGE,
        expected=_everywhere("unsupported-operator"),
    ),
    Hostile(
        "attention in three dimensions",
        lambda: modules.Between(modules.attend),
        expected=_everywhere("unsupported-operator", "onnx", "tensorrt"),
    ),
    Hostile(
        "5-D pooling",
        lambda: modules.Behind(lambda x: F.avg_pool3d(x, 2), dims=3),
        VOLUME,
        expected={"tflite-int8": "quantiser-failed"},
    ),
    Hostile(
        "sort",
        lambda: modules.Between(modules.ranked),
        expected=_everywhere("refused-by-runtime", "tflite"),
    ),
    Hostile(
        "fold",
        lambda: modules.Behind(modules.folded),
        IMAGE,
        expected={
            **_everywhere("refused-by-runtime", "tflite"),
            **_everywhere("unparsable-by-tensorrt", "tensorrt"),
        },
    ),
    Hostile(
        "scatter_add",
        lambda: modules.Between(modules.added_at),
        expected={
            **_everywhere("refused-by-runtime", "tflite"),
            **_everywhere("unparsable-by-tensorrt", "tensorrt"),
        },
    ),
    Hostile(
        "eight dimensions",
        lambda: modules.Behind(modules.many_dimensions),
        IMAGE,
        expected=_everywhere("too-many-dimensions", "tflite"),
    ),
    Hostile(
        "double precision",
        lambda: modules.Between(torch.sin).double(),
        dtype=torch.float64,
        expected={
            **_everywhere("unsupported-dtype", "tflite", "tensorrt"),
            "onnx-int8": "nothing-to-quantise",
            "tensorrt-int8": "nothing-to-quantise",
        },
    ),
    Hostile(
        "NaN weight",
        lambda: modules.Weighted(float("nan")),
        expected=_everywhere("not-finite-weight"),
    ),
    Hostile(
        "infinite weight",
        lambda: modules.Weighted(float("inf")),
        expected=_everywhere("not-finite-weight"),
    ),
    Hostile(
        "weight beyond fp16",
        lambda: modules.Weighted(1e6),
        expected={f"{name}-fp16": "out-of-range-for-fp16" for name in RUNTIMES},
    ),
    Hostile(
        "zero over zero",
        lambda: modules.Between(modules.nothing_over_nothing),
        expected=_everywhere("not-finite-output"),
    ),
    Hostile("output is input", lambda: modules.Middle(lambda x: x), expected=_NO_INT8),
    Hostile("no layer", lambda: modules.Middle(torch.sin), expected=_NO_INT8),
    Hostile("output twice", modules.Twice, expected={"tflite-int8": "output-lost"}),
    Hostile(
        "LSTM with states",
        modules.Recurrent,
        (2, 5, 8),
        expected={**_NO_INT8, "tflite-int8": "output-lost"},
    ),
    # A table is no layer of onnxruntime's quantiser, and is one of ai-edge-quantizer's.
    Hostile(
        "int64 input",
        lambda: nn.Embedding(8, 8),
        (2, 3),
        torch.int64,
        expected={**_NO_INT8, "tflite-int8": "verified"},
    ),
    # What is next to zero is above it or below, so that 8 bits give other truth values.
    Hostile(
        "truth values",
        lambda: modules.Behind(lambda x: x > 0),
        IMAGE,
        expected={f"{name}-int8": "not verified" for name in RUNTIMES},
    ),
    Hostile("scalar output", lambda: modules.Behind(lambda x: x.sum()), IMAGE),
    Hostile(
        "no entries",
        lambda: modules.Behind(lambda x: x[:, :, :0]),
        IMAGE,
        expected=_everywhere("empty-tensor"),
    ),
    Hostile(
        "names",
        lambda: modules.Names("aten"),
        expected=_everywhere("name-clash", "onnx", "tensorrt"),
    ),
    Hostile(
        "a word of Python's", lambda: modules.Names("class"), expected=_everywhere("python-word")
    ),
    # Numbers up to four million become infinite in half precision, and their sine no number.
    Hostile("large constant", modules.Constant, expected={"onnx-fp16": "not verified"}),
    Hostile(
        "more than 2 GB",
        modules.Large,
        expected={
            **_everywhere("file-too-large", "onnx", "tensorrt"),
            **_everywhere("constant-too-large", "tflite"),
        },
    ),
)
"""All of them; the last takes 10 GB of memory."""
