"""What onnxruntime raises when it refuses a file or fails to run it."""

from __future__ import annotations

from onnxruntime.capi import (
    onnxruntime_pybind11_state as ort_errors,  # pyright: ignore[reportAttributeAccessIssue]
)

# onnxruntime's exceptions have no base of their own.
REFUSALS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def first_line(error: Exception) -> str:
    """The first line of a message; what follows is where in onnxruntime's source it was raised."""
    return str(error).strip().partition("\n")[0]
