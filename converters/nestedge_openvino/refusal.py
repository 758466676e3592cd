"""What OpenVINO says when it refuses something."""

from __future__ import annotations


def refusal(error: RuntimeError) -> str:
    """The reason in an error of OpenVINO's, which first says where it was thrown, and why last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
