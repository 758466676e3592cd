from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.errors import FormatError, UsageError
from nestedge.placement import read_log


@pytest.mark.parametrize("text", ["", "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"])
def test_a_log_without_a_word_on_placement_is_refused_with_what_is_expected(text: str) -> None:
    message = r"^x\.log: expected what trtexec prints .*; found nothing about where operators run$"
    with pytest.raises(FormatError, match=message):
        read_log(text, (), source="x.log")


_WORDS = st.sampled_from(
    [
        "Layers Running on DLA",
        "Layers Running on GPU",
        "[DlaLayer] {ForeignNode[a...b]}",
        "[GpuLayer] CONVOLUTION: a",
        "Node placements",
        "VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [X]. Number of nodes: 2",
        "VerifyEachNodeIsAssignedToAnEp]   Conv (a)",
        "All nodes placed on [X]. Number of nodes: 3",
        "Replacing 1 out of 2 node(s) with delegate (A) node, yielding 2 partitions",
        "Replacing 9 node(s) with delegate",
        "Following operations are not supported by GPU delegate:",
        "ADD:",
        "3 operations will run on the GPU, and the remaining 1",
        "\n",
        " ",
    ]
)


@given(st.lists(st.one_of(_WORDS, st.text(max_size=8)), max_size=30).map("".join))
def test_whatever_a_log_holds_it_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        placement = read_log(text, (), source="x.log")
    except (FormatError, UsageError) as error:
        message = str(error)
    else:
        assert 0 <= placement.share <= 1
        return
    assert "\n" not in message
