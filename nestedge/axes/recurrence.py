"""The rule of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

from nestedge.axes.call import Call
from nestedge.axes.planes import at
from nestedge.axes.tags import Tags
from nestedge.errors import UsageError

_GATES = {"aten.lstm.input": 4, "aten.gru.input": 3}


def recurrent(call: Call) -> Sequence[Tags]:
    """LSTM, GRU: a unit of the state has a row in each gate, and lives and dies with all of them.

    The states of all layers and directions are one tensor, so they have the same units.
    """
    ties, gates = call.ties, _GATES[call.op]
    value = ties.freeze_dims(call.a["input"], range(len(call.a["input"].shape) - 1))
    given: list[Tags] = call.a["hx"] if isinstance(call.a["hx"], list) else [call.a["hx"]]
    state, *others = (
        ties.along(ties.freeze_dims(part, range(len(part.shape) - 1)), -1) for part in given
    )
    for other in others:
        ties.tie(state, other)
    entering, directions = ties.along(value, -1), 2 if call.a["bidirectional"] else 1
    for position, (by_input, by_state, *biases) in enumerate(_cells(call)):
        ties.tie(ties.along(by_input, 1), entering)
        ties.tie(ties.along(by_state, 1), state)
        for part in (by_input, by_state, *biases):
            ties.tie(ties.along(part, 0).view(gates, -1), state)
        if (position + 1) % directions == 0:
            entering = state.repeat(directions)
    # A result that nothing reads has no shape.
    rows = [entering, *[state] * (len(call.out) - 1)]
    return [
        ties.value(shape, [at(row, len(shape) - 1, shape)] if shape else [])
        for row, shape in zip(rows, call.out, strict=True)
    ]


def _cells(call: Call) -> list[list[Tags]]:
    """The parameters of every layer and direction: two weights, and two biases or none."""
    count = call.a["num_layers"] * (2 if call.a["bidirectional"] else 1)
    each, rest = divmod(len(call.a["params"]), count)
    if rest or each != (4 if call.a["has_biases"] else 2):
        raise UsageError(f"{call.op} with a projection; put a linear layer behind it")
    return [call.a["params"][i * each : (i + 1) * each] for i in range(count)]
