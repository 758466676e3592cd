"""What onnxruntime runs a network on: execution providers, chosen by name."""

from __future__ import annotations

import onnxruntime

from nestedge.errors import PlacementError, UsageError, did_you_mean

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"


def provider_named(name: str) -> str:
    """The execution provider of a name, as onnxruntime calls it.

    Args:
        name: its own, as in "CUDAExecutionProvider", or without the ending and in any case, as in
            "cuda".

    Raises:
        UsageError: the onnxruntime that is installed here lacks it; the message names those it has.
    """
    names = {provider.removesuffix(_SUFFIX).lower(): provider for provider in _available()}
    found = names.get(name.removesuffix(_SUFFIX).lower())
    if found is None:
        raise UsageError(
            f"onnxruntime {onnxruntime.__version__} has no provider {name!r} here; it has "
            f"{sorted(names)}{did_you_mean(name, names)}; other builds of it have others"
        )
    return found


def check_provider(session: onnxruntime.InferenceSession, provider: str) -> None:
    """Refuses a session without the provider that it was opened for.

    Where a provider cannot be started, for want of a driver or a library, onnxruntime opens the
    model on the CPU and says so in its log alone.

    Raises:
        PlacementError: the session has other providers.
    """
    running = list(session.get_providers())
    if provider not in running:
        raise PlacementError(
            f"onnxruntime could not start {provider} and opened the model on {running}: see that "
            f"its driver and libraries are installed, or ask for provider 'cpu'"
        )


def _available() -> list[str]:
    providers: list[str] = onnxruntime.get_available_providers()
    return providers
