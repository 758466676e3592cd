"""Candidates of which a few numbers are known."""

from __future__ import annotations

from hypothesis import strategies as st

from nestedge.profiling.measurement import Measurement
from nestedge.selection import Candidate


def measured(quantity: str, value: float, width: float, *, data: str = "0" * 64) -> Measurement:
    """A measurement whose interval reaches as far as `width` to both sides."""
    return Measurement(
        cell="x",
        model_sha256="0" * 64,
        quantity=quantity,
        value=value,
        p90=None,
        low=value - width,
        high=value + width,
        samples=1,
        origin="measured",
        device="a test",
        runtime_version="fake 1.0",
        threads=1,
        data_sha256=data if quantity == "accuracy_percent" else None,
    )


def candidate(
    cell: str,
    *,
    ms: float | None = None,
    percent: float | None = None,
    size: int = 1000,
    memory: int = 5000,
    parameters: int = 10,
    width: float = 0.25,
    refusal: str = "",
) -> Candidate:
    """A candidate with the given median latency and accuracy."""
    return Candidate(
        cell,
        size_bytes=size,
        peak_memory_bytes=memory,
        parameters=parameters,
        latency=None if ms is None else measured("latency_ms", ms, width),
        accuracy=None if percent is None else measured("accuracy_percent", percent, width),
        refusal=refusal,
    )


SMALL = candidate("small", ms=2, percent=90, size=1000, memory=2000, parameters=10)
FULL = candidate("full", ms=9, percent=95, size=8000, memory=16000, parameters=80)

MAYBE = st.none() | st.floats(1, 99)


@st.composite
def some_candidates(
    draw: st.DrawFn, ms: st.SearchStrategy[float | None] = MAYBE
) -> list[Candidate]:
    """A few candidates, some of them refused."""
    count = draw(st.integers(1, 6))
    return [
        candidate(
            f"level{index}",
            ms=draw(ms),
            percent=draw(MAYBE),
            size=draw(st.integers(1, 100)),
            memory=draw(st.integers(1, 100)),
            parameters=draw(st.integers(1, 5)),
            width=draw(st.floats(0, 5)),
            refusal=draw(st.sampled_from(["", "", "", "failed"])),
        )
        for index in range(count)
    ]
