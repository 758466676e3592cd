from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from nestedge_onnx.exporter import OPSET, export_model, strip
from tests.conversions import resnet_case
from tests.nestedge_onnx.graphs import model_of, ramp


def test_a_level_is_a_model_that_onnx_accepts() -> None:
    model = export_model(resnet_case().level, batch=2)
    onnx.checker.check_model(model, full_check=True)
    assert [item.version for item in model.opset_import if not item.domain] == [OPSET]
    (image,) = model.graph.input
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [2, 3, 8, 8]


def test_stripping_leaves_what_computes() -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"], doc_string="/home/me/net.py")
    model = model_of([node], {"w": ramp(2)}, [2])
    model.doc_string = model.graph.doc_string = "/home/me/net.py"
    model.producer_name, model.producer_version = "me", "1.0"
    for item in (model, model.graph, model.graph.node[0], model.graph.initializer[0]):
        item.metadata_props.add(key="source", value="/home/me/net.py")
    model.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]))
    strip(model)
    expected = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"w": ramp(2)}, [2])
    expected.producer_name = "nestedge"
    assert model == expected


def test_stripping_writes_constants_as_plain_bytes() -> None:
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {}, [2])
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.INT8, [2], [1, -1]))
    strip(model)
    assert model.graph.initializer[0].raw_data == b"\x01\xff"
