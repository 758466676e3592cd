"""OpenVINO: `converter` writes its two-file format on the host, `runtime` runs it anywhere."""
