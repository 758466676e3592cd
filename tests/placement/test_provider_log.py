from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.errors import FormatError, UsageError
from nestedge.placement import Operator, Placement, read_log
from nestedge.placement.description import counted


def _logged(*lines: str) -> str:
    """Lines as the function that lists nodes logs them, below the one that it begins with."""
    head = "2026-11-22 02:24:22.724 [V:onnxruntime:, session_state.cc:1307"
    every = ("Node placements", *lines)
    return "".join(f"{head} VerifyEachNodeIsAssignedToAnEp] {line}\n" for line in every)


OPERATORS = (
    Operator("Conv", "conv", 27648),
    Operator("GlobalAveragePool", "pool", 0),
    Operator("Flatten", "flat", 0),
    Operator("Hardmax", "odd", 0),
    Operator("Gemm", "head", 64),
)

# Logged by onnxruntime-openvino 1.24 for a network of these nodes, of which OpenVINO lacks one.
COMPILED = _logged(
    " Node(s) placed on [OpenVINOExecutionProvider]. Number of nodes: 2",
    "  OpenVINO-EP-subgraph_1 (OpenVINOExecutionProvider_OpenVINO-EP-subgraph_1_0)",
    "  OpenVINO-EP-subgraph_2 (OpenVINOExecutionProvider_OpenVINO-EP-subgraph_2_1)",
    " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1",
    "  Hardmax (odd)",
)

# Logged by onnxruntime 1.31 on a machine without accelerators.
ALONE = _logged(" All nodes placed on [CPUExecutionProvider]. Number of nodes: 5")

# In the form of github.com/k2-fsa/sherpa-onnx/issues/163 and ROCm/AMDMIGraphX/issues/1641, with
# kernels of CUDA, which keep the names of the nodes, one of them fused.
KERNELS = _logged(
    " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 2",
    "  FusedConv (fused conv)",
    "  GlobalAveragePool (pool)",
    " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1",
    "  Gemm (head)",
)


def _read(text: str, *operators: Operator, accelerator: str | None = None) -> Placement:
    return read_log(text, operators, source="verbose.log", accelerator=accelerator)


def test_what_a_provider_compiled_is_all_that_is_not_named_elsewhere() -> None:
    placement = _read(COMPILED, *OPERATORS)
    assert placement.accelerator == "OpenVINOExecutionProvider"
    assert (placement.share, placement.unit) == (1.0, "MACs")
    assert counted(placement.elsewhere) == "1 Hardmax"
    assert len(placement.operators) == len(OPERATORS)


def test_a_costly_node_on_the_cpu_lowers_the_share() -> None:
    placement = _read(COMPILED.replace("Hardmax (odd)", "Gemm (head)"), *OPERATORS)
    assert placement.share == 27648 / 27712


def test_a_costly_node_under_an_unknown_name_leaves_the_share_to_nodes() -> None:
    placement = _read(COMPILED.replace("Hardmax (odd)", "QGemm (other)"), *OPERATORS)
    assert (placement.share, placement.unit) == (2 / 3, "operators")


def test_kernels_that_keep_names_are_found_though_fused_and_among_other_lines() -> None:
    lines = KERNELS.splitlines(keepends=True)
    lines.insert(3, "2026-11-22 02:24:22.724 [I:onnxruntime:, allocator.cc:55 Alloc] other (x)\n")
    kinds = [operator.kind for operator in _read("".join(lines)).operators]
    assert kinds == ["FusedConv", "GlobalAveragePool", "Gemm"]
    placement = _read("".join(lines), *OPERATORS)
    assert placement.accelerator == "CUDAExecutionProvider"
    assert placement.share == 27648 / 27712
    assert counted(placement.elsewhere) == "1 Gemm"


def test_without_operators_nodes_are_counted() -> None:
    placement = _read(KERNELS)
    assert (placement.share, placement.unit) == (2 / 3, "operators")


@pytest.mark.parametrize("operators", [OPERATORS, ()], ids=["named", "counted"])
def test_one_provider_may_have_everything(operators: tuple[Operator, ...]) -> None:
    placement = _read(ALONE, *operators)
    assert (placement.accelerator, placement.share) == ("CPUExecutionProvider", 1.0)
    assert len(placement.operators) == 5


def test_of_several_accelerators_one_must_be_said() -> None:
    text = KERNELS.replace("CPUExecutionProvider", "TensorrtExecutionProvider")
    with pytest.raises(
        UsageError,
        match="nodes run on CUDAExecutionProvider, TensorrtExecutionProvider: say by --accelerator",
    ):
        _read(text, *OPERATORS)
    placement = _read(text, *OPERATORS, accelerator="TensorrtExecutionProvider")
    assert counted(placement.elsewhere) == "1 Conv, 1 GlobalAveragePool"


def test_an_accelerator_that_has_no_node_is_told() -> None:
    message = "no node runs on 'CUDAExecutionProvide'; .* did you mean 'CUDAExecutionProvider'?"
    with pytest.raises(UsageError, match=message):
        _read(KERNELS, accelerator="CUDAExecutionProvide")


def test_the_last_session_in_a_log_counts() -> None:
    assert _read(COMPILED + KERNELS).accelerator == "CUDAExecutionProvider"


@given(st.integers(KERNELS.index("[CUDA") + 60, len(KERNELS) - 2))
def test_a_log_that_ends_early_never_counts_for_whole(length: int) -> None:
    with pytest.raises(FormatError, match=r"^verbose\.log: .*: give the whole log$") as caught:
        _read(KERNELS[:length], *OPERATORS)
    assert "\n" not in str(caught.value)
