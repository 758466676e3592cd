from __future__ import annotations

from pathlib import Path

import pytest
from ai_edge_litert.interpreter import Interpreter

from nestedge.errors import FormatError, UsageError
from nestedge.placement import Placement
from nestedge.placement.description import counted
from nestedge_tflite.placement import macs_of
from nestedge_tflite.runtime import LiteRtRuntime
from tests.nestedge_tflite.chains import Link, dense, write_chain
from tests.nestedge_tflite.handmade import write_model

# XNNPACK has no kernel for it.
NORMALIZE = Link("L2_NORMALIZATION", (1, 8), options="L2NormOptions")
CONV_3D = Link(
    "CONV_3D",
    (1, 2, 4, 4, 5),
    [(1, 1, 1, 3, 5)],
    "Conv3DOptions",
    (
        *(("strideD", 1), ("strideH", 1), ("strideW", 1)),
        *(("dilationDFactor", 1), ("dilationHFactor", 1), ("dilationWFactor", 1)),
    ),
)


def _placement(path: Path, *links: Link, shape: tuple[int, ...] = (1, 4)) -> Placement:
    return LiteRtRuntime().placement(write_chain(path / "model.tflite", links, shape=shape))


def test_xnnpack_runs_a_network_of_what_it_has(tmp_path: Path) -> None:
    placement = _placement(tmp_path, dense(4, 8), dense(8, 2))
    assert placement.accelerator == "XNNPACK"
    assert (placement.share, placement.unit) == (1.0, "MACs")
    assert (placement.partitions, placement.elsewhere) == (1, ())
    assert [operator.macs for operator in placement.operators] == [32, 16]
    assert placement.source.startswith("ai-edge-litert 2.")


def test_an_operator_that_xnnpack_lacks_parts_the_network_in_two(tmp_path: Path) -> None:
    placement = _placement(tmp_path, dense(4, 8), NORMALIZE, dense(8, 2))
    assert (placement.share, placement.unit) == (1.0, "MACs")
    assert placement.partitions == 2
    assert counted(placement.elsewhere) == "1 L2_NORMALIZATION"
    assert placement.elsewhere[0].where == "CPU"
    assert placement.elsewhere[0].name == "l2_normalization1"


def test_macs_that_xnnpack_does_not_run_lower_the_share(tmp_path: Path) -> None:
    relu = Link("RELU", (1, 2, 4, 4, 5))
    placement = _placement(tmp_path, CONV_3D, relu, shape=(1, 2, 4, 4, 3))
    assert [operator.macs for operator in placement.operators] == [480, 0]
    assert placement.share == 0.0
    assert counted(placement.elsewhere) == "1 CONV_3D"


def test_the_operators_of_the_file_are_in_its_order(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "m.tflite", [dense(4, 8), NORMALIZE, dense(8, 2)], shape=(1, 4))
    found = LiteRtRuntime().operators(path)
    assert [(op.kind, op.macs) for op in found] == [
        ("FULLY_CONNECTED", 32),
        ("L2_NORMALIZATION", 0),
        ("FULLY_CONNECTED", 16),
    ]


def test_what_is_said_to_be_delegated_is_what_the_delegate_gives(tmp_path: Path) -> None:
    links = [dense(4, 8), NORMALIZE, dense(8, 8), dense(8, 8), NORMALIZE, dense(8, 2)]
    path = write_chain(tmp_path / "model.tflite", links, shape=(1, 4))
    # Told to keep every tensor, the interpreter makes each result of a piece one of its outputs.
    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    kept = {
        index
        for detail in details
        if detail["op_name"] == "DELEGATE"
        for index in detail["outputs"].tolist()
    }
    own = [detail for detail in details if detail["op_name"] != "DELEGATE"]
    expected = [
        "XNNPACK" if kept.issuperset(detail["outputs"].tolist()) else "CPU" for detail in own
    ]
    placement = LiteRtRuntime().placement(path)
    assert [operator.where for operator in placement.operators] == expected
    assert expected.count("CPU") == 2
    assert placement.partitions == 3


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "macs"),
    [
        ("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3)], (1, 6, 6, 16), 36 * 16 * 27),
        ("CONV_2D", [(1, 8, 8, 8), (16, 3, 3, 2), (16,)], (1, 8, 8, 16), 64 * 16 * 18),
        ("DEPTHWISE_CONV_2D", [(1, 8, 8, 3), (1, 5, 5, 3)], (1, 8, 8, 3), 64 * 3 * 25),
        ("TRANSPOSE_CONV", [(4,), (6, 2, 2, 3), (1, 4, 4, 3)], (1, 8, 8, 6), 16 * 3 * 6 * 4),
        ("FULLY_CONNECTED", [(7, 5), (16, 5), ()], (7, 16), 7 * 16 * 5),
        ("BATCH_MATMUL", [(2, 3, 4, 5), (2, 3, 5, 6)], (2, 3, 4, 6), 6 * 4 * 5 * 6),
        ("BATCH_MATMUL", [(2, 5, 4), (2, 5, 6)], (2, 4, 6), 2 * 4 * 5 * 6),
        ("BATCH_MATMUL", [(1, 0, 4), (1, 4, 6)], (1, 0, 6), 0),
        ("ADD", [(1, 8), (1, 8)], (1, 8), 0),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", [(1, 8)], (1, 8), None),
    ],
)
def test_macs_follow_from_shapes(
    kind: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], macs: int | None
) -> None:
    assert macs_of(kind, inputs, output) == macs


def test_a_file_of_several_levels_has_no_placement_of_its_own(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite", signatures=("small", "full"))
    message = r"model\.tflite: expected one signature, found \['full', 'small'\]: place each level"
    with pytest.raises(FormatError, match=message):
        LiteRtRuntime().placement(path)


def test_another_accelerator_is_to_be_measured_where_it_is(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "model.tflite", [dense(4, 8)], shape=(1, 4))
    message = "has the accelerator 'XNNPACK' only; asked for 'GPU': .* give its log by --log"
    with pytest.raises(UsageError, match=message):
        LiteRtRuntime().placement(path, accelerator="GPU")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with pytest.raises(UsageError, match=r"model\.tflite: no such file"):
        LiteRtRuntime().placement(path)
    path.write_bytes(b"TFL3")
    with pytest.raises(FormatError, match=r"model\.tflite: ai-edge-litert .* refuses it"):
        LiteRtRuntime().operators(path)
