"""How an engine is to be built, and how trtexec of a given TensorRT is told.

Each option of trtexec has the versions that know it, by `samples/common/sampleOptions.cpp` of
github.com/NVIDIA/TensorRT (Apache-2.0) from 8.2.1 to release/11.1. What a version lacks is refused,
with the reason: an engine built otherwise than asked for would be found out by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from nestedge.documents import Value
from nestedge.errors import UsageError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.versions import is_at_least, version_key

MODEL_FILE = "model.onnx"
BUILT_FILE = "model.engine"
TIMING_FILE = "timing.cache"


@dataclass(frozen=True)
class Batches:
    """The batch sizes that an engine of a dynamic batch takes, and the one it is fastest at."""

    least: int
    best: int
    most: int

    @classmethod
    def of(cls, least: int, best: int, most: int) -> Batches:
        """The sizes that somebody asks for.

        Raises:
            UsageError: they are not in ascending order, or less than 1.
        """
        if not 1 <= least <= best <= most:
            raise UsageError(
                f"expected three batch sizes, from the least to the most, got {least}, {best}, "
                f"{most}"
            )
        return cls(least, best, most)

    def to_json(self) -> list[int]:
        """What `from_json` reads."""
        return [self.least, self.best, self.most]

    @classmethod
    def from_json(cls, value: Value) -> Batches:
        """The sizes in a JSON array.

        Raises:
            FormatError: they are not three, or not in ascending order.
        """
        sizes = [size.integer(minimum=1) for size in value.elements()]
        if len(sizes) != len(fields(cls)) or sizes != sorted(sizes):
            raise value.error("three batch sizes, from the least to the most")
        return cls(*sizes)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What is asked of the builder beyond the precision.

    Attributes:
        strongly_typed: layers compute in the types that the model has, and in no others.
        sparsity: kernels for weights of which two in four are zero may be chosen.
        dla_core: of the accelerator beside the GPU that takes the layers that it can; the GPU has
            the rest. None is the GPU alone.
        version_compatible: later versions of TensorRT load the engine too.
        strip_weights: the engine has no weights; they come from the model when it is loaded.
        workspace_mib: memory that kernels may have for themselves; None is all there is.
        timing_cache: timings of kernels are read from a file, and new ones added.
        batches: of a model whose batch is dynamic; None for static shapes.
    """

    strongly_typed: bool = False
    sparsity: bool = False
    dla_core: int | None = None
    version_compatible: bool = False
    strip_weights: bool = False
    workspace_mib: int | None = None
    timing_cache: bool = False
    batches: Batches | None = None

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        batches = self.batches
        return {
            "strongly_typed": self.strongly_typed,
            "sparsity": self.sparsity,
            "dla_core": self.dla_core,
            "version_compatible": self.version_compatible,
            "strip_weights": self.strip_weights,
            "workspace_mib": self.workspace_mib,
            "timing_cache": self.timing_cache,
            "batches": None if batches is None else batches.to_json(),
        }

    @classmethod
    def from_json(cls, value: Value) -> EngineOptions:
        """The options in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        names = tuple(field.name for field in fields(cls))
        field = dict(zip(names, value.fields(*names), strict=True))
        core, workspace = field["dla_core"].optional(), field["workspace_mib"].optional()
        batches = field["batches"].optional()
        return cls(
            strongly_typed=_flag(field["strongly_typed"]),
            sparsity=_flag(field["sparsity"]),
            dla_core=None if core is None else core.integer(minimum=0),
            version_compatible=_flag(field["version_compatible"]),
            strip_weights=_flag(field["strip_weights"]),
            workspace_mib=None if workspace is None else workspace.integer(minimum=1),
            timing_cache=_flag(field["timing_cache"]),
            batches=None if batches is None else Batches.from_json(batches),
        )

    def text(self) -> str:
        """What makes another engine of the same model, in one line; "" where nothing is asked for.

        >>> EngineOptions(dla_core=0, strip_weights=True, timing_cache=True).text()
        'dla_core=0 strip_weights'
        """
        # A timing cache saves time; the choice of kernels is as good without.
        asked = {**self.to_json(), "timing_cache": False}
        shown = [
            name if value is True else f"{name}={value}"
            for name, value in asked.items()
            if value is not None and value is not False
        ]
        return " ".join(shown)


@dataclass(frozen=True)
class _Known:
    """The versions of TensorRT whose trtexec has an option.

    Attributes:
        since: the first that is looked at, or the first that has it.
        below: the first that has it no more; None where all later ones do.
        remedy: what to do where it is missing.
    """

    since: str
    below: str | None
    remedy: str


_TYPED = "TensorRT 11 builds strongly typed networks only: ask for a strongly typed engine"
_KNOWN: Mapping[str, _Known] = {
    "--onnx": _Known("8.2", None, ""),
    "--saveEngine": _Known("8.2", None, ""),
    "--noTF32": _Known("8.2", None, ""),
    "--fp16": _Known("8.2", "11.0", _TYPED),
    "--int8": _Known("8.2", "11.0", _TYPED),
    "--stronglyTyped": _Known("9.0", None, "leave it out: types are chosen layer by layer"),
    "--sparsity": _Known("8.2", None, ""),
    "--useDLACore": _Known("8.2", None, ""),
    "--allowGPUFallback": _Known("8.2", None, ""),
    "--timingCacheFile": _Known("8.2", None, ""),
    "--versionCompatible": _Known("8.6", None, "build again after each update of TensorRT"),
    "--stripWeights": _Known("10.0", None, "build the engine with its weights"),
    "--workspace": _Known("8.2", "8.4", ""),
    "--memPoolSize": _Known("8.4", None, ""),
    "--buildOnly": _Known("8.2", "8.6", ""),
    "--skipInference": _Known("8.6", None, ""),
    "--minShapes": _Known("8.2", None, ""),
    "--optShapes": _Known("8.2", None, ""),
    "--maxShapes": _Known("8.2", None, ""),
}
"""The options that are used here, each with the versions that have it."""

BOUNDARIES = tuple(
    sorted(
        {version for known in _KNOWN.values() for version in (known.since, known.below) if version},
        key=version_key,
    )
)
"""The versions of TensorRT at which an option comes or goes, oldest first."""


def build_arguments(
    precision: str, options: EngineOptions, version: str, *, inputs: Sequence[TensorInfo]
) -> tuple[str, ...]:
    """What trtexec of a version is given, in a folder that has the model, to build and no more.

    Args:
        precision: "fp32", "fp16" or "int8".
        options: what is asked for.
        version: of TensorRT, as in "8.5" or "10.3.0.30".
        inputs: of the model; with a dynamic batch, the first dimension is replaced.

    Raises:
        UsageError: that version has no such option, or two of them exclude each other.
    """
    check_options(precision, options)
    arguments = [f"--onnx={MODEL_FILE}", f"--saveEngine={BUILT_FILE}"]
    arguments += _type_flags(precision, options)
    arguments += ["--sparsity=enable"] if options.sparsity else []
    if options.dla_core is not None:
        arguments += [f"--useDLACore={options.dla_core}", "--allowGPUFallback"]
    arguments += ["--versionCompatible"] if options.version_compatible else []
    arguments += ["--stripWeights"] if options.strip_weights else []
    if options.workspace_mib is not None:
        pool = is_at_least(version, "8.4")
        name = "--memPoolSize=workspace:" if pool else "--workspace="
        arguments.append(f"{name}{options.workspace_mib}")
    arguments += [f"--timingCacheFile={TIMING_FILE}"] if options.timing_cache else []
    if options.batches is not None:
        for name, size in zip(("min", "opt", "max"), options.batches.to_json(), strict=True):
            arguments.append(f"--{name}Shapes={_shapes(inputs, size)}")
    arguments.append("--skipInference" if is_at_least(version, "8.6") else "--buildOnly")
    for argument in arguments:
        _check_known(argument.partition("=")[0], version)
    return tuple(arguments)


def check_options(precision: str, options: EngineOptions) -> None:
    """Refuses options that make no sense together, or with a precision.

    Raises:
        UsageError: naming the two.
    """
    if options.batches is not None and options.strip_weights:
        raise UsageError(
            "an engine without weights takes them from the model that is shipped, which is for one "
            "batch size: build an engine for several with its weights"
        )
    if options.strongly_typed and options.strip_weights and precision == "fp16":
        raise UsageError(
            "an engine without weights takes them from the model that is shipped, whose weights "
            "are fp32: build a strongly typed engine of fp16 with its weights"
        )
    if options.dla_core is not None and precision == "fp32":
        raise UsageError("a DLA computes in fp16 and int8 only: build a cell of these for it")
    if options.dla_core is not None and options.strongly_typed:
        raise UsageError("a DLA chooses types layer by layer: not in a strongly typed engine")


def _type_flags(precision: str, options: EngineOptions) -> list[str]:
    """What says which types layers may compute in."""
    # Without --noTF32 TensorRT multiplies in TF32, of 10 bits, where the GPU has it (Orin does).
    exact = ["--noTF32"] if precision == "fp32" else []
    if options.strongly_typed:
        # The model has the types then: that of a cell of fp16 is rewritten in half precision.
        return ["--stronglyTyped", *exact]
    # In int8, layers without pairs run in half precision.
    return {"fp32": exact, "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}[precision]


def _shapes(inputs: Sequence[TensorInfo], batch: int) -> str:
    shapes = ("x".join(map(str, (batch, *info.shape[1:]))) for info in inputs)
    return ",".join(f"{info.name}:{shape}" for info, shape in zip(inputs, shapes, strict=True))


def _check_known(name: str, version: str) -> None:
    known = _KNOWN[name]
    remedy = f"; {known.remedy}" if known.remedy else ""
    if not is_at_least(version, known.since):
        raise UsageError(f"{name} needs TensorRT {known.since}, found {version}{remedy}")
    if known.below is not None and is_at_least(version, known.below):
        raise UsageError(f"TensorRT {version} has no {name} any more{remedy}")


def _flag(value: Value) -> bool:
    if not isinstance(value.data, bool):
        raise value.error("true or false")
    return value.data
