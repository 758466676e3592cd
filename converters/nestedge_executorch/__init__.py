"""ExecuTorch: `converter` writes .pte files for XNNPACK, `runtime` runs them from Python.

What both read and write of a file's names is in `signature`.
"""
