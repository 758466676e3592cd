"""A TensorRT for Python that has the names of one version, by tensorrt_names.json, and no others.

It builds "engines" that say what was asked for, and runs them in the host's memory: what a program
uses that a version lacks is an AttributeError there, as it would be on the device.
"""

from __future__ import annotations

import ctypes
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TABLE = json.loads(Path(__file__).with_name("tensorrt_names.json").read_text())
NAMES: dict[str, tuple[str, str | None]] = TABLE["names"]
VERSIONS: list[str] = list(TABLE["versions"])
INPUTS = {"x": (1, 2), "bias": (1, 3)}
OUTPUTS = {"product": (1, 3), "sum": (1, 3)}
WEIGHT = ((0.0, 1.0, 2.0), (3.0, 4.0, 5.0))
UNPARSABLE = b"unparsable"
SHAPES = {**INPUTS, **OUTPUTS}
STREAM = 7


def has(name: str, version: str) -> bool:
    """Whether a version has a name, as in "Builder.create_network"."""
    if name not in NAMES:
        return False
    since, until = NAMES[name]
    index = VERSIONS.index(version)
    return VERSIONS.index(since) <= index and (until is None or index < VERSIONS.index(until))


class Strict:
    """An object with the public names that its class has in the version of the last module."""

    version = VERSIONS[-1]
    factor = 1.0
    named = ""

    def __getattribute__(self, name: str) -> Any:
        """The attribute, if TensorRT has it.

        Raises:
            AttributeError: it has not.
        """
        get = super().__getattribute__
        kind = get("named") or type(self).__name__
        if not name.startswith("_") and name not in ("version", "factor", "named"):
            _check(f"{kind}.{name}", get("version"))
        return get(name)

    def __setattr__(self, name: str, value: object) -> None:
        """Sets the attribute, if TensorRT has it: Python's own would take any."""
        if not name.startswith("_"):
            _check(f"{self.named or type(self).__name__}.{name}", self.version)
        super().__setattr__(name, value)


def _check(name: str, version: str) -> None:
    if not has(name, version):
        raise AttributeError(f"TensorRT {version} has no {name}")


class _Members(Strict):
    """An enumeration."""

    def __init__(self, named: str) -> None:
        object.__setattr__(self, "named", named)
        for index, name in enumerate(sorted(NAMES)):
            kind, _, member = name.partition(".")
            if kind == named and member:
                value: object = index if named.endswith("CreationFlag") else name
                object.__setattr__(self, member, value)


class Logger(Strict):
    INFO, WARNING = "INFO", "WARNING"

    def __init__(self, severity: str) -> None:
        assert severity in ("INFO", "WARNING")


class INetworkDefinition(Strict):
    def __init__(self, flags: int) -> None:
        self._flags = flags


class ITimingCache(Strict):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content + b"+timings"


class IOptimizationProfile(Strict):
    def __init__(self) -> None:
        self._shapes: dict[str, object] = {}

    def set_shape(self, name: str, least: object, best: object, most: object) -> None:
        self._shapes[name] = [least, best, most]


class IBuilderConfig(Strict):
    default_device_type: object = None
    DLA_core = -1

    def __init__(self) -> None:
        # TensorRT's own default.
        self._flags = {"BuilderFlag.TF32"}
        self._pools: dict[str, int] = {}
        self._cache: ITimingCache | None = None
        self._profiles: list[object] = []

    def set_flag(self, flag: str) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self._flags.remove(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self._pools[pool] = size

    def create_timing_cache(self, content: bytes) -> ITimingCache:
        return ITimingCache(content)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return ignore_mismatch or not cache._content.startswith(b"other")

    def get_timing_cache(self) -> ITimingCache:
        assert self._cache is not None
        return self._cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile._shapes)
        return 0


class Builder(Strict):
    num_DLA_cores = 2  # noqa: N815

    def __init__(self, logger: Logger) -> None:
        assert isinstance(logger, Logger)

    def create_network(self, flags: int) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes:
        plan = {
            "version": self.version,
            "factor": self.factor,
            "network": network._flags,
            "flags": sorted(config._flags),
            "pools": config._pools,
            "device": config.default_device_type,
            "core": config.DLA_core,
            "profiles": config._profiles,
        }
        return json.dumps(plan).encode()


class ParserError(Strict):
    def desc(self) -> str:
        return "Unsupported operator: Mish"


class OnnxParser(Strict):
    num_errors = 1

    def __init__(self, network: INetworkDefinition, logger: Logger) -> None:
        assert isinstance(logger, Logger)

    def parse_from_file(self, path: str) -> bool:
        return Path(path).read_bytes() != UNPARSABLE

    def get_error(self, index: int) -> ParserError:
        return ParserError()


class IExecutionContext(Strict):
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._addresses: dict[str, int] = {}
        self._batch = 0 if plan["profiles"] else 1

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._plan["profiles"][0][name]
        fits = all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        self._batch = shape[0] if fits else 0
        return fits

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        assert self._batch, "the shape of an input is not known"
        for sample in range(self._batch):
            self._run(sample)
        return True

    def _run(self, sample: int) -> None:
        found = {
            name: _floats(self._addresses[name] + 4 * sample * math.prod(shape), shape)
            for name, shape in SHAPES.items()
        }
        for column, bias in enumerate(found["bias"]):
            terms = (x * row[column] for x, row in zip(found["x"], WEIGHT, strict=True))
            found["product"][column] = sum(terms) * self._plan["factor"]
            found["sum"][column] = found["product"][column] + bias


class ICudaEngine(Strict):
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._weights = "BuilderFlag.STRIP_PLAN" not in plan["flags"]

    num_io_tensors = len(INPUTS) + len(OUTPUTS)

    def get_tensor_name(self, index: int) -> str:
        return sorted(SHAPES)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "TensorIOMode.INPUT" if name in INPUTS else "TensorIOMode.OUTPUT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = SHAPES[name]
        return (-1, *shape[1:]) if self._plan["profiles"] else shape

    def create_execution_context(self) -> IExecutionContext:
        assert self._weights, "an engine without weights computes nothing"
        return IExecutionContext(self._plan)


class Runtime(Strict):
    engine_host_code_allowed = False

    def __init__(self, logger: object) -> None:
        pass

    def deserialize_cuda_engine(self, content: bytes) -> ICudaEngine | None:
        plan = json.loads(content)
        code = "BuilderFlag.VERSION_COMPATIBLE" in plan["flags"]
        fits = plan["version"] == self.version or code
        allowed = not code or self.engine_host_code_allowed
        return ICudaEngine(plan) if fits and allowed else None


class Refitter(Strict):
    def __init__(self, engine: ICudaEngine, logger: object) -> None:
        self._engine = engine
        self._weights = False

    def refit_cuda_engine(self) -> bool:
        self._engine._weights = self._weights
        return self._weights


class OnnxParserRefitter(Strict):
    def __init__(self, refitter: Refitter, logger: object) -> None:
        self._refitter = refitter

    def refit_from_file(self, path: str) -> bool:
        self._refitter._weights = Path(path).is_file()
        return True


def module(version: str, *, exact: str = "", factor: float = 1.0) -> Any:
    """What `import tensorrt` gives.

    Args:
        version: one of the table.
        exact: what it says of itself; without one, the version and two zeros.
        factor: what its engines multiply their outputs with; 1 is right.
    """
    Strict.version, Strict.factor = version, factor
    found = SimpleNamespace(__version__=exact or f"{version}.0.0")
    for name in {name.partition(".")[0] for name in NAMES}:
        if not name.startswith("__") and has(name, version):
            setattr(found, name, _thing(name))
    return found


def _thing(name: str) -> object:
    """What stands in the module under a name."""
    if name == "init_libnvinfer_plugins":
        return lambda logger, namespace: namespace == ""
    return globals()[name] if name in globals() else _Members(name)


def _floats(address: int, shape: tuple[int, ...]) -> Any:
    """The numbers at an address, which may be written to."""
    # No numpy: a device has none, and processes that have it start slowly.
    return (ctypes.c_float * math.prod(shape)).from_address(address)


class Cuda:
    """libcudart in the host's memory."""

    def __init__(self, name: str = "") -> None:
        self.memory: dict[int, Any] = {}

    def cudaStreamCreate(self, pointer: Any) -> int:  # noqa: N802
        """A stream that `execute_async_v3` knows."""
        pointer._obj.value = STREAM
        return 0

    def cudaStreamSynchronize(self, stream: ctypes.c_void_p) -> int:  # noqa: N802
        """Everything is done at once."""
        return 0 if stream.value == STREAM else 1

    def cudaMalloc(self, pointer: Any, size: ctypes.c_size_t) -> int:  # noqa: N802
        """Zeroed memory."""
        memory = ctypes.create_string_buffer(size.value)
        self.memory[ctypes.addressof(memory)] = memory
        pointer._obj.value = ctypes.addressof(memory)
        return 0

    def cudaFree(self, pointer: ctypes.c_void_p) -> int:  # noqa: N802
        """Of what was allocated; of all else, 1."""
        return 0 if self.memory.pop(pointer.value or 0, None) is not None else 1

    def cudaMemcpy(  # noqa: N802
        self, target: Any, source: Any, size: ctypes.c_size_t, kind: int
    ) -> int:
        """1 is to the device, 2 from it."""
        on_device = target if kind == 1 else source
        if on_device.value not in self.memory:
            return 1
        ctypes.memmove(target, source, size.value)
        return 0
