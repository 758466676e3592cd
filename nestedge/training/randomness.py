"""torch's global generators, while training draws from them.

Dropout, and a DataLoader that shuffles, draw from the global generators and take no other; so those
must be seeded, but only for as long as training lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch


def forked_generators() -> AbstractContextManager[None]:
    """A block after which torch's global generators are as before."""
    return torch.random.fork_rng(_devices())


def generator_states() -> list[torch.Tensor]:
    """The states of torch's global generators: of the CPU, then of every GPU in use."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in _devices())]


def set_generator_states(states: Sequence[torch.Tensor]) -> None:
    """Set the generators to what `generator_states` gave."""
    first, *others = states
    torch.set_rng_state(first)
    for index, state in zip(_devices(), others, strict=False):
        torch.cuda.set_rng_state(state, index)


def _devices() -> Sequence[int]:
    # Asking a CUDA that nobody has used yet for its generators would start it up.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return range(torch.cuda.device_count()) if used else ()
