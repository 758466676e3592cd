"""ONNX: `converter` writes it on the host, `runtime` runs it by onnxruntime anywhere."""
