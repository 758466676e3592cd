from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.errors import FormatError, UsageError
from nestedge.placement import Operator, Placement, read_log
from nestedge.placement.delegate_log import lacking
from nestedge.placement.description import counted

OPERATORS = (
    Operator("CONV_2D", "a", 900),
    Operator("HARD_SWISH", "b", 0),
    Operator("MEAN", "c", 0),
    Operator("FULLY_CONNECTED", "d", 100),
)

# By benchmark_model on Android, in the words of a run with 58 nodes; the number is of OPERATORS.
WHOLE = """\
INFO: Created TensorFlow Lite delegate for GPU.
VERBOSE: Replacing 4 out of 4 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 \
partitions for the whole graph.
INFO: Initialized OpenCL-based API.
INFO: Created 1 GPU delegate kernels.
INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the \
delegate.
"""

# In the form of what LiteRT prints on a Mac, with the Metal delegate and its gaps.
PARTLY = """\
ERROR: Following operations are not supported by GPU delegate:
HARD_SWISH:
MEAN: Max version supported: 1. Requested version 2.
2 operations will run on the GPU, and the remaining 2 operations will run on the CPU.
"""
PARTLY_APPLIED = PARTLY + (
    "VERBOSE: Replacing 2 out of 4 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 "
    "partitions for the whole graph.\n"
)

# github.com/tensorflow/tensorflow/issues/49160
REFUSED = """\
Following operations are not supported by GPU delegate:
    AVERAGE_POOL_2D: OP is supported, but tensor type isn't matched!
    CONV_2D: OP is supported, but tensor type isn't matched!
    No operations will run on the GPU, and all 4 operations will run on the CPU.
"""

# github.com/tensorflow/tensorflow/issues/34679 and /35378: versions before 2.1.
OLD = """\
java.lang.IllegalArgumentException: Internal error: Failed to apply delegate: Next operations \
are not supported by GPU delegate:
    MAXIMUM: Operation is not supported.
    First 1 operations will run on the GPU, and the remaining 3 on the CPU.
"""

# A reader of TensorFlow's samples recorded this on a phone; no number of all nodes in that version.
UNDONE = """\
INFO: Created TensorFlow Lite delegate for GPU.
VERBOSE: Replacing 4 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions.
ERROR: TfLiteGpuDelegate Init: FULLY_CONNECTED: Amount of input data should match weights width
INFO: Created 0 GPU delegate kernels.
ERROR: Node number 2 (TfLiteGpuDelegateV2) failed to prepare.
ERROR: Restored original execution plan after delegate application failure.
"""

LOGCAT = """\
10-08 03:00:00.250  4242  4242 I tflite  : Replacing 3 out of 4 node(s) with delegate \
(TfLiteXNNPackDelegate) node, yielding 2 partitions for subgraph 0.
"""


def _read(text: str, *operators: Operator, accelerator: str | None = None) -> Placement:
    return read_log(text, operators, source="phone.log", accelerator=accelerator)


@pytest.mark.parametrize(
    ("text", "accelerator", "share", "unit", "partitions", "elsewhere"),
    [
        (WHOLE, "GPU", 1.0, "MACs", 1, ""),
        (PARTLY_APPLIED, "GPU", 1.0, "MACs", None, "1 HARD_SWISH, 1 MEAN"),
        (PARTLY, "GPU", 1.0, "MACs", None, "1 HARD_SWISH, 1 MEAN"),
        (REFUSED, "GPU", 0.0, "MACs", 0, "1 CONV_2D, 1 FULLY_CONNECTED, 1 HARD_SWISH, 1 MEAN"),
        (OLD, "GPU", 0.25, "operators", None, "3 not named"),
        (UNDONE, "GPU", 0.0, "MACs", 0, "1 CONV_2D, 1 FULLY_CONNECTED, 1 HARD_SWISH, 1 MEAN"),
        (LOGCAT, "XNNPACK", 0.75, "operators", 1, "1 not named"),
    ],
    ids=["whole", "partly", "not applied yet", "refused", "old", "undone", "logcat"],
)
def test_a_log_tells_how_much_a_delegate_took(
    text: str, accelerator: str, share: float, unit: str, partitions: int | None, elsewhere: str
) -> None:
    placement = _read(text, *OPERATORS)
    assert placement.accelerator == accelerator
    assert (placement.share, placement.unit) == (share, unit)
    assert placement.partitions == partitions
    assert counted(placement.elsewhere) == elsewhere


def test_the_kinds_that_the_gpu_lacks_are_known() -> None:
    assert lacking(PARTLY) == ("HARD_SWISH", "MEAN")
    assert lacking(REFUSED) == ("AVERAGE_POOL_2D", "CONV_2D")
    assert lacking(WHOLE) == ()


def test_kinds_that_are_only_partly_left_leave_the_share_to_operators() -> None:
    text = PARTLY_APPLIED.replace("HARD_SWISH:\n", "")
    assert _read(text, *OPERATORS).unit == "operators"


def test_without_operators_the_numbers_count() -> None:
    placement = _read(LOGCAT)
    assert (placement.share, placement.unit) == (0.75, "operators")


def test_of_several_delegates_the_first_or_the_one_asked_for_counts() -> None:
    assert _read(WHOLE + LOGCAT, *OPERATORS).accelerator == "GPU"
    assert _read(WHOLE + LOGCAT, *OPERATORS, accelerator="XNNPACK").share == 0.75
    with pytest.raises(UsageError, match="no delegate 'NNAPI'; the log has GPU, XNNPACK"):
        _read(WHOLE + LOGCAT, accelerator="NNAPI")


def test_a_log_of_another_model_is_refused() -> None:
    message = r"phone\.log: GPU took 4 of 4 operators; the model has 3: the log is of another"
    with pytest.raises(FormatError, match=message):
        _read(WHOLE, *OPERATORS[:3])


@pytest.mark.parametrize("text", [WHOLE, PARTLY, PARTLY_APPLIED, REFUSED, OLD, UNDONE, LOGCAT])
@given(data=st.data())
def test_a_cut_log_gives_a_placement_or_one_clear_error(text: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(text)))
    try:
        placement = _read(text[:length], *OPERATORS)
    except FormatError as error:
        message = str(error)
    else:
        assert len(placement.operators) == len(OPERATORS)
        return
    assert message.startswith("phone.log: ")
    assert "\n" not in message
