"""Why a network cannot be converted: a code, what it means and what to do about it."""

from nestedge.reasons.codes import capture_error, code_of, conversion_error, diagnosis
from nestedge.reasons.table import REASONS, Reason

__all__ = ["REASONS", "Reason", "capture_error", "code_of", "conversion_error", "diagnosis"]
