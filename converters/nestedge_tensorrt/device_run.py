"""Runs an engine by TensorRT's Python module: `python3 device_run.py job.json`.

This file is copied to devices, and stands alone there: no nestedge, no numpy, no CUDA package for
Python; Python 3.8 or later, TensorRT 8.5 or later. Tensors are bytes, in files: case after case,
and in each case tensor after tensor, in the order of the job.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import tensorrt as trt  # pyright: ignore[reportMissingImports]

LIBRARIES = (
    *("libcudart.so", "/usr/local/cuda/lib64/libcudart.so"),
    *("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"),
)
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind


class Cuda:
    """The few functions of CUDA's runtime library that an engine needs."""

    def __init__(self) -> None:
        self._library = _library()
        self.stream = ctypes.c_void_p()
        self._check("cudaStreamCreate", ctypes.byref(self.stream))

    def allocated(self, size: int) -> int:
        """Address of new memory on the device."""
        pointer = ctypes.c_void_p()
        self._check("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value or 0

    def freed(self, address: int) -> None:
        """Gives memory back."""
        self._check("cudaFree", ctypes.c_void_p(address))

    def copy_to_device(self, address: int, content: bytes) -> None:
        """Writes memory of the device."""
        pointers = ctypes.c_void_p(address), ctypes.c_char_p(content)
        self._check("cudaMemcpy", *pointers, ctypes.c_size_t(len(content)), TO_DEVICE)

    def copied_to_host(self, address: int, size: int) -> bytes:
        """Reads memory of the device, after what the stream has begun."""
        self._check("cudaStreamSynchronize", self.stream)
        content = ctypes.create_string_buffer(size)
        pointers = content, ctypes.c_void_p(address)
        self._check("cudaMemcpy", *pointers, ctypes.c_size_t(size), TO_HOST)
        return content.raw

    def _check(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} failed with CUDA error {code}")


class LoadedEngine:
    """An engine that is ready to run.

    Args:
        plan: content of the engine file.
        model: path of the ONNX file, for an engine without weights; None otherwise.
        has_code: whether it brings code of its own, as a version-compatible engine does.

    Raises:
        RuntimeError: TensorRT or CUDA refuses it; the logger has said why.
    """

    def __init__(self, plan: bytes, *, model: str | None, has_code: bool) -> None:
        self._logger = trt.Logger(trt.Logger.WARNING)
        trt.init_libnvinfer_plugins(self._logger, "")
        self._runtime = trt.Runtime(self._logger)
        if has_code:
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeError("TensorRT refuses the engine: it was not built by this TensorRT")
        if model is not None:
            self._refit(model)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeError("no memory for the engine's activations")
        self._cuda = Cuda()
        self._addresses: dict[str, int] = {}
        count = self._engine.num_io_tensors
        self.names = [self._engine.get_tensor_name(index) for index in range(count)]

    def is_input(self, name: str) -> bool:
        """Whether a tensor is given, not computed."""
        mode = self._engine.get_tensor_mode(name)
        return bool(mode == trt.TensorIOMode.INPUT)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, batch axis included; -1 is any size."""
        return tuple(self._engine.get_tensor_shape(name))

    def fits(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor is there, and may have a shape."""
        found = self.shape(name) if name in self.names else ()
        sizes = zip(found, shape)  # noqa: B905 - Python 3.8 knows no strict=
        return len(found) == len(shape) and all(size in (-1, wanted) for size, wanted in sizes)

    def use_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Says how large an input is, where the engine takes several sizes.

        Raises:
            RuntimeError: the engine was not built for that size.
        """
        if -1 in self.shape(name) and not self._context.set_input_shape(name, shape):
            raise RuntimeError(f"the engine does not take {name} of {shape}")

    def run(self, inputs: dict[str, bytes], sizes: dict[str, int]) -> dict[str, bytes]:
        """The content of the outputs by name.

        Args:
            inputs: content by name.
            sizes: how many bytes each output has.

        Raises:
            RuntimeError: TensorRT or CUDA failed.
        """
        for name, content in inputs.items():
            self._cuda.copy_to_device(self._address(name, len(content)), content)
        for name, size in sizes.items():
            self._address(name, size)
        if not self._context.execute_async_v3(self._cuda.stream.value or 0):
            raise RuntimeError("TensorRT failed to run the engine")
        return {
            name: self._cuda.copied_to_host(self._addresses[name], size)
            for name, size in sizes.items()
        }

    def close(self) -> None:
        """Gives the memory of inputs and outputs back."""
        while self._addresses:
            self._cuda.freed(self._addresses.popitem()[1])

    def _address(self, name: str, size: int) -> int:
        if name not in self._addresses:
            self._addresses[name] = self._cuda.allocated(size)
            self._context.set_tensor_address(name, self._addresses[name])
        return self._addresses[name]

    def _refit(self, model: str) -> None:
        refitter = trt.Refitter(self._engine, self._logger)
        weights = trt.OnnxParserRefitter(refitter, self._logger)
        if not weights.refit_from_file(model) or not refitter.refit_cuda_engine():
            raise RuntimeError("the weights of the model do not fit the engine")


def main(path: str) -> None:
    """Runs the cases of the job in a file."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - nothing but json and tensorrt
        job = json.load(file)
    with open(job["engine"], "rb") as file:  # noqa: PTH123
        engine = LoadedEngine(file.read(), model=job["model"], has_code=job["has_code"])
    for tensor in [*job["inputs"], *job["outputs"]]:
        if not engine.fits(tensor["name"], tuple(tensor["shape"])):
            raise RuntimeError(f"the engine has no tensor {tensor['name']} of {tensor['shape']}")
    for tensor in job["inputs"]:
        engine.use_shape(tensor["name"], tuple(tensor["shape"]))
    sizes = {tensor["name"]: tensor["bytes"] for tensor in job["outputs"]}
    with open(job["given"], "rb") as given, open(job["computed"], "wb") as computed:  # noqa: PTH123
        for _ in range(job["cases"]):
            inputs = {tensor["name"]: given.read(tensor["bytes"]) for tensor in job["inputs"]}
            outputs = engine.run(inputs, sizes)
            for tensor in job["outputs"]:
                computed.write(outputs[tensor["name"]])
    engine.close()
    print(f"ran {job['cases']} cases on TensorRT {trt.__version__}")  # noqa: T201


def _library() -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:  # noqa: PERF203 - of a handful of names
            continue
    raise RuntimeError(f"CUDA's runtime library is missing: looked for {', '.join(LIBRARIES)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except RuntimeError as error:
        sys.exit(f"error: {error}")
