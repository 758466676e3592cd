"""The plug-ins that are installed: the only reader of entry points.

A converter writes an artifact on the host, a runtime runs it, there or on a device, and an engine
builder compiles on the device what runs nowhere else. Each is a class that takes no arguments,
declared under the entry-point group `nestedge.converters`, `nestedge.runtimes` or
`nestedge.engines`. A plug-in imports its framework at the top of its module; loading the entry
point is the one lazy door, and a framework that is missing becomes one line that says what to type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from nestedge.errors import MissingDependencyError, NestedgeError, UsageError, did_you_mean

if TYPE_CHECKING:
    from nestedge.artifact import Artifact
    from nestedge.convert import Converter
    from nestedge.engines import EngineBuilder

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class TensorInfo:
    """What a network takes or gives.

    Attributes:
        name: the same in every runtime.
        shape: with the batch axis; -1 is a dimension of any size, which artifacts never have.
        dtype: numpy's name, as in "float32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


class Session(Protocol):
    """A network loaded by a runtime."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What `run` wants."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What `run` gives."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
        """
        ...


class Runtime(Protocol):
    """A plug-in that runs artifacts of one format.

    One that opens the files of another runtime says so by an attribute `reads`, that runtime's
    name, as "tflite-legacy" reads those of "tflite"; without it, a runtime reads its own.

    One that can say where it runs the operators of a file has the methods `placement` and
    `operators` too: see `nestedge.placement.PlacingRuntime`. One that runs files on a choice of
    accelerators has the method `on_provider`: see `ProviderRuntime`.
    """

    @property
    def name(self) -> str:
        """How artifacts call it: "onnx", "tflite"."""
        ...

    def version(self) -> str:
        """The framework and its version, as in "onnxruntime 1.31.1"."""
        ...

    def open(self, path: Path, *, threads: int = 1) -> Session:
        """The network in a file, ready to run on `threads` CPU threads.

        Raises:
            UsageError: there is no such file.
            FormatError: the framework does not accept the file.
        """
        ...


class ProviderRuntime(Runtime, Protocol):
    """A runtime plug-in whose framework runs a file on one of several execution providers."""

    def on_provider(self, name: str) -> Runtime:
        """The same plug-in, which does on that provider whatever it does.

        Its `version` names the provider, and so does every record that has the version.

        Raises:
            UsageError: the framework here has no such provider; the message names those it has.
        """
        ...


@dataclass(frozen=True)
class _Kind:
    """A sort of plug-in: its group, and which extra installs the framework of one by that name."""

    noun: str
    group: str
    extra: str


_CONVERTER = _Kind("converter", "nestedge.converters", "convert")
_RUNTIME = _Kind("runtime", "nestedge.runtimes", "{name}")
_ENGINE_BUILDER = _Kind("engine builder", "nestedge.engines", "{name}")


def converters() -> tuple[str, ...]:
    """Names of the converters that are declared, whether or not their frameworks are installed."""
    return tuple(sorted(_declared(_CONVERTER)))


def runtimes() -> tuple[str, ...]:
    """Names of the runtimes that are declared, whether or not their frameworks are installed."""
    return tuple(sorted(_declared(_RUNTIME)))


def engine_builders() -> tuple[str, ...]:
    """Names of the runtimes whose engines are built on devices, by plug-ins that are declared."""
    return tuple(sorted(_declared(_ENGINE_BUILDER)))


def load_converter(name: str) -> Converter:
    """The converter called `name`.

    Raises:
        UsageError: no such converter is declared.
        MissingDependencyError: its framework is not installed, or cannot be imported.
    """
    converter: Converter = _load(_CONVERTER, name)
    return converter


def load_runtime(name: str, *, provider: str | None = None) -> Runtime:
    """The runtime called `name`.

    Args:
        name: of it.
        provider: which of the framework's execution providers is to run files, as in "cuda";
            without one, that which the runtime uses.

    Raises:
        UsageError: no such runtime is declared, it takes no provider, or lacks this one.
        MissingDependencyError: its framework is not installed, or cannot be imported.
    """
    runtime: Runtime = _load(_RUNTIME, name)
    if provider is None:
        return runtime
    if not hasattr(runtime, "on_provider"):
        raise UsageError(
            f"runtime {name!r} takes no provider, and {provider!r} was asked for: leave it out, or "
            "choose artifacts of a runtime that does, as of 'onnx'"
        )
    providing: ProviderRuntime = runtime  # type: ignore[assignment]
    return providing.on_provider(provider)


def load_engine_builder(name: str) -> EngineBuilder:
    """The builder of engines for the runtime called `name`.

    Raises:
        UsageError: that runtime needs no engines, or no builder of them is declared.
        MissingDependencyError: what the builder needs is not installed, or cannot be imported.
    """
    builder: EngineBuilder = _load(_ENGINE_BUILDER, name)
    return builder


def reads(runtime: Runtime) -> str:
    """Name of the runtime whose model files `runtime` opens: its own, unless it says another."""
    name: str = getattr(runtime, "reads", runtime.name)
    return name


def readable(artifacts: Sequence[Artifact], runtime: Runtime) -> list[Artifact]:
    """The artifacts whose model files, or what was compiled from them, `runtime` opens.

    Raises:
        UsageError: there are none.
    """
    read = reads(runtime)
    found = [found for found in artifacts if read in (found.checked_by, found.runtime)]
    if not found:
        known = sorted({artifact.checked_by for artifact in artifacts})
        raise UsageError(
            f"runtime {runtime.name!r} opens artifacts of {read!r}; these are of {known}"
        )
    return found


def check_inputs(expected: Sequence[TensorInfo], given: Mapping[str, Array]) -> None:
    """Refuses inputs that are not the expected ones; some runtimes would resize without a word.

    Raises:
        ValueError: naming the input, what was expected and what was found.
    """
    names = [info.name for info in expected]
    for name in given:
        if name not in names:
            raise ValueError(f"no input {name!r}; inputs are {names}{did_you_mean(name, names)}")
    for info in expected:
        if info.name not in given:
            raise ValueError(f"input {info.name!r} is missing; given are {sorted(given)}")
        array = given[info.name]
        sizes = zip(info.shape, array.shape, strict=False)
        fits = len(info.shape) == array.ndim and all(want in (-1, size) for want, size in sizes)
        if not fits or array.dtype.name != info.dtype:
            raise ValueError(
                f"input {info.name!r}: expected shape {info.shape} and dtype {info.dtype}, "
                f"found {array.shape} and {array.dtype.name}"
            )


def _declared(kind: _Kind) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=kind.group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise NestedgeError(
                f"{kind.noun} {entry.name!r} is declared twice, as {other.value} and as "
                f"{entry.value}: uninstall one of the two packages"
            )
    return found


def _load(kind: _Kind, name: str) -> Any:
    declared = _declared(kind)
    if name not in declared:
        known = sorted(declared) or "none: reinstall nestedge"
        raise UsageError(
            f"no {kind.noun} {name!r}; installed are {known}{did_you_mean(name, declared)}"
        )
    entry = declared[name]
    try:
        plugin = entry.load()
    except ModuleNotFoundError as error:
        raise MissingDependencyError(_missing(kind, entry, error.name or str(error))) from error
    except AttributeError as error:
        raise NestedgeError(
            f"{kind.noun} {name!r} is declared as {entry.value}: {error}"
        ) from error
    except (ImportError, OSError) as error:
        # A shared library that does not fit this machine is an OSError.
        raise MissingDependencyError(f"{kind.noun} {name!r} cannot be imported: {error}") from error
    return plugin()


def _missing(kind: _Kind, entry: EntryPoint, module: str) -> str:
    package = module.partition(".")[0]
    subject = f"{kind.noun} {entry.name!r}"
    if package == entry.module.partition(".")[0]:
        owner = entry.dist.name if entry.dist else "the package that declares it"
        return f"{subject} is declared, but {module} is missing: reinstall {owner}"
    shared = kind.extra.format(name=entry.name)
    extra = entry.name if _brings(entry.dist, entry.name, package) else shared
    requirement = _requirement(entry.dist, extra, package)
    return f"{subject} needs {package}: pip install '{requirement}'"


def _brings(owner: Distribution | None, extra: str, package: str) -> bool:
    """Whether an extra of a distribution installs a package itself."""
    wanted = re.compile(rf"{re.escape(package)}\b.*extra == .{re.escape(extra)}.")
    lines = (owner.requires or []) if owner else []
    return any(wanted.match(line) for line in lines)


def _requirement(owner: Distribution | None, extra: str, package: str) -> str:
    """What to install: the extra of the plug-in's distribution that brings the package, if any."""
    extras = owner.metadata.get_all("Provides-Extra") or [] if owner else []
    return f"{owner.name}[{extra}]" if owner and extra in extras else package
