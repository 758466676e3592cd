"""Builds an engine by TensorRT's Python module: `python3 device_build.py job.json`.

This file is copied to devices, and stands alone there: no nestedge, Python 3.8 or later, TensorRT
8.5 or later. The job says all that depends on the version. It prints as trtexec does: errors as
"[date] [TRT] [E] ...", and a last line "&&&& PASSED" or "&&&& FAILED".
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, NoReturn

import tensorrt as trt  # pyright: ignore[reportMissingImports]


def main(path: str) -> None:
    """Builds what the job in a file asks for."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - nothing but json and tensorrt
        job = json.load(file)
    logger = trt.Logger(trt.Logger.INFO)
    trt.init_libnvinfer_plugins(logger, "")
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(job))
    parse(network, logger, job["model"])
    config = configured(builder, job)
    begun = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        # The logger has said why.
        fail("")
    with open(job["engine"], "wb") as file:  # noqa: PTH123
        file.write(plan)
    if job["timing_cache"]:
        with open(job["timing_cache"], "wb") as file:  # noqa: PTH123
            file.write(config.get_timing_cache().serialize())
    print(f"Engine built in {time.monotonic() - begun:.3f} sec.")  # noqa: T201
    print("&&&& PASSED device_build.py")  # noqa: T201


def network_flags(job: dict[str, Any]) -> int:
    """What sort of network it is."""
    flags = 0
    if job["explicit_batch"]:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if job["strongly_typed"]:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def parse(network: trt.INetworkDefinition, logger: trt.Logger, path: str) -> None:
    """Reads the model into the network."""
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(path):
        return
    first = parser.get_error(0).desc() if parser.num_errors else "Failed to parse onnx file"
    fail(first)


def configured(builder: trt.Builder, job: dict[str, Any]) -> trt.IBuilderConfig:
    """The configuration that the job asks for."""
    config = builder.create_builder_config()
    if job["fp16"]:
        config.set_flag(trt.BuilderFlag.FP16)
    if job["int8"]:
        config.set_flag(trt.BuilderFlag.INT8)
    if not job["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    if job["sparsity"]:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if job["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if job["strip_weights"]:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if job["workspace_bytes"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace_bytes"])
    if job["dla_core"] is not None:
        use_dla(builder, config, job["dla_core"])
    if job["timing_cache"]:
        use_timings(config, job["timing_cache"])
    if job["shapes"]:
        profile = builder.create_optimization_profile()
        for name, (least, best, most) in job["shapes"].items():
            profile.set_shape(name, least, best, most)
        config.add_optimization_profile(profile)
    return config


def use_dla(builder: trt.Builder, config: trt.IBuilderConfig, core: int) -> None:
    """Layers run on the DLA where it has them, and on the GPU else."""
    if core >= builder.num_DLA_cores:
        fail(f"no DLA core {core}: this device has {builder.num_DLA_cores}")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def use_timings(config: trt.IBuilderConfig, path: str) -> None:
    """Timings come from a file, where there is one."""
    content = b""
    if os.path.exists(path):  # noqa: PTH110
        with open(path, "rb") as file:  # noqa: PTH123
            content = file.read()
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        fail("the timing cache is of another device or TensorRT: give another file")


def fail(reason: str) -> NoReturn:
    """Says why, and ends."""
    if reason:
        print(f"error: {reason}")  # noqa: T201
    print("&&&& FAILED device_build.py")  # noqa: T201
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
