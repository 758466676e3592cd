from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.errors import FormatError, UsageError
from nestedge.placement import Operator, Placement, read_log
from nestedge.placement.description import counted

# Printed by trtexec for the network "model_bn" of NVIDIA's tutorial on DLAs, as a reader of
# github.com/NVIDIA-AI-IOT/jetson_dla_tutorial recorded it on an Orin, TensorRT 8.5.
DLA = """\
[08/31/2023-07:07:49] [I] [TRT] ---------- Layers Running on DLA ----------
[08/31/2023-07:07:49] [I] [TRT] [DlaLayer] {ForeignNode[/cnn/cnn.0/Conv.../cnn/cnn.11/Relu]}
[08/31/2023-07:07:49] [I] [TRT] [DlaLayer] {ForeignNode[/linear/Gemm]}
[08/31/2023-07:07:49] [I] [TRT] ---------- Layers Running on GPU ----------
[08/31/2023-07:07:49] [I] [TRT] [GpuLayer] POOLING: /pool/GlobalAveragePool
[08/31/2023-07:07:49] [I] [TRT] [GpuLayer] SHUFFLE: reshape_after_/linear/Gemm
[08/31/2023-07:07:55] [I] \n"""

# The start of what TensorRT 8.5 prints where no DLA is asked for (culane_18, an ONNX file of
# PyTorch 2.0.1).
GPU = """\
[07/14/2023-11:52:13] [I] Finish parsing network model
[07/14/2023-11:52:13] [I] [TRT] ---------- Layers Running on DLA ----------
[07/14/2023-11:52:13] [I] [TRT] ---------- Layers Running on GPU ----------
[07/14/2023-11:52:13] [I] [TRT] [GpuLayer] /model/conv1/Conv + /model/relu/Relu
[07/14/2023-11:52:13] [I] [TRT] [GpuLayer] /model/maxpool/MaxPool
[07/14/2023-11:52:14] [I] [TRT] [MemUsageChange] Init cuBLAS/cuBLASLt: CPU +158, GPU +67
"""

# From github.com/NVIDIA-AI-IOT/jetson_dla_tutorial/issues/3.
FALLBACK = "[W] [TRT] Layer '/model/conv1/Conv' (CONVOLUTION): Unsupported on DLA. Switching this\n"

OPERATORS = (
    Operator("Conv", "/cnn/cnn.0/Conv", 700),
    Operator("Relu", "/cnn/cnn.2/Relu", 0),
    Operator("Conv", "/cnn/cnn.9/Conv", 200),
    Operator("Relu", "/cnn/cnn.11/Relu", 0),
    Operator("GlobalAveragePool", "/pool/GlobalAveragePool", 0),
    Operator("Gemm", "/linear/Gemm", 100),
)


def _read(text: str, *operators: Operator, accelerator: str | None = None) -> Placement:
    return read_log(text, operators, source="build.log", accelerator=accelerator)


def test_pieces_of_a_dla_hold_the_operators_between_their_ends() -> None:
    placement = _read(DLA, *OPERATORS)
    assert (placement.accelerator, placement.partitions) == ("DLA", 2)
    assert (placement.share, placement.unit) == (1.0, "MACs")
    assert counted(placement.elsewhere) == "1 GlobalAveragePool"


def test_a_costly_operator_on_the_gpu_lowers_the_share() -> None:
    text = DLA.replace("POOLING: /pool", "CONVOLUTION: /cnn/cnn.9/Conv, /pool")
    placement = _read(text, *OPERATORS)
    assert placement.share == 0.8
    assert placement.elsewhere[0].name == "/cnn/cnn.9/Conv"


def test_without_operators_layers_are_counted() -> None:
    placement = _read(DLA)
    assert (placement.share, placement.unit) == (0.5, "operators")
    assert counted(placement.elsewhere) == "1 POOLING, 1 SHUFFLE"


def test_operators_that_the_log_does_not_name_leave_the_share_to_layers() -> None:
    assert _read(DLA, Operator("Conv", "/elsewhere", 5)).unit == "operators"


def test_without_a_dla_everything_is_on_the_gpu() -> None:
    placement = _read(GPU, Operator("Conv", "/model/conv1/Conv", 5))
    assert (placement.accelerator, placement.share, placement.partitions) == ("GPU", 1.0, None)


@pytest.mark.parametrize(
    "sign", [FALLBACK, "[I] DLACore: 0(With GPU fallback)\n", "# trtexec --useDLACore=0 --fp16\n"]
)
def test_a_dla_that_was_asked_for_and_took_nothing_has_a_share_of_0(sign: str) -> None:
    placement = _read(sign + GPU, Operator("Conv", "/model/conv1/Conv", 5))
    assert (placement.accelerator, placement.share, placement.partitions) == ("DLA", 0.0, 0)


def test_the_accelerator_may_be_said() -> None:
    placement = _read(DLA, accelerator="GPU")
    assert (placement.accelerator, placement.share) == ("GPU", 0.5)
    with pytest.raises(UsageError, match=r"TensorRT runs on 'DLA' and 'GPU'; asked for 'NPU'"):
        _read(DLA, accelerator="NPU")


def test_of_several_builds_in_a_log_the_last_counts() -> None:
    assert _read(GPU + DLA).partitions == 2


def test_a_log_that_ends_within_its_list_is_refused_wherever_it_ends() -> None:
    body = DLA.rstrip().removesuffix("[08/31/2023-07:07:55] [I]")
    lines = body.splitlines(keepends=True)
    for count in range(1, len(lines)):
        with pytest.raises(FormatError, match=r"build\.log: ends within the list") as caught:
            _read("".join(lines[:count]), *OPERATORS)
        assert "\n" not in str(caught.value)


@given(st.integers(0, len(DLA)))
def test_a_cut_log_gives_the_whole_placement_or_one_clear_error(length: int) -> None:
    try:
        placement = _read(DLA[:length], *OPERATORS)
    except FormatError as error:
        message = str(error)
    else:
        assert placement == _read(DLA, *OPERATORS)
        return
    assert message.startswith("build.log: ")
    assert "\n" not in message
