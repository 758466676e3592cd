"""ONNX: `converter` writes it on the host, `runtime` runs it by onnxruntime anywhere."""

import os

# onnxruntime >= 1.29 sends usage data unless this is set before its import, which the modules of
# this package do.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
