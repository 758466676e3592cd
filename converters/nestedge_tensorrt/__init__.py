"""TensorRT: `converter` writes portable ONNX on the host; `engine` says how a device builds it."""
