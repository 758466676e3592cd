"""Parts of an exported graph under `torch.no_grad` or without autocast, put back where they stand.

torch.export makes each of them a graph of its own, called by one node.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from nestedge.program.places import place_of
from nestedge.reasons import capture_error

_GRADIENTS = "wrap_with_set_grad_enabled"
_AUTOCAST = "wrap_with_autocast"


def inline(exported: ExportedProgram) -> None:
    """Write every such part into the graph itself; what `torch.no_grad` gives is detached.

    Raises:
        CaptureError: a part is computed under autocast, whose types the graph does not say.
    """
    _inline(exported.graph_module)
    exported.graph_module.recompile()


def _inline(module: GraphModule) -> None:
    for fx in list(module.graph.nodes):
        kind = getattr(fx.target, "__name__", "") if fx.op == "call_function" else ""
        if kind not in (_GRADIENTS, _AUTOCAST):
            continue
        position = next(i for i, arg in enumerate(fx.args) if isinstance(arg, FxNode))
        attribute, *operands = fx.args[position:]
        assert isinstance(attribute, FxNode)
        part = getattr(module, str(attribute.target))
        _inline(part)
        if kind == _AUTOCAST and fx.args[position - 2]:
            said = "a part of the network runs under torch.autocast"
            raise capture_error("autocast", said, source=_place_in(part))
        is_detached = kind == _GRADIENTS and not fx.args[0]
        _write(module, fx, part, operands, is_detached=is_detached)
        if not attribute.users:
            module.graph.erase_node(attribute)


def _place_in(part: GraphModule) -> str:
    return next((place for place in map(place_of, part.graph.nodes) if place), "")


def _write(
    module: GraphModule, fx: FxNode, part: GraphModule, operands: list[Any], *, is_detached: bool
) -> None:
    """Write a part in front of the node that calls it, which goes."""
    parameters = [node for node in part.graph.nodes if node.op == "placeholder"]
    known: dict[FxNode, Any] = dict(zip(parameters, operands, strict=True))
    with module.graph.inserting_before(fx):
        for node in part.graph.nodes:
            if node.op not in ("placeholder", "output"):
                known[node] = module.graph.node_copy(node, known.__getitem__)
        (results,) = part.graph.output_node().args
        assert isinstance(results, (list, tuple))
        found = [known[result] if isinstance(result, FxNode) else result for result in results]
        if is_detached:
            found = [_detached(module, result) for result in found]
    for user in list(fx.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(found[user.args[1]])  # type: ignore[index, arg-type]
        module.graph.erase_node(user)
    module.graph.erase_node(fx)


def _detached(module: GraphModule, value: Any) -> Any:
    if not isinstance(value, FxNode) or not isinstance(value.meta.get("val"), torch.Tensor):
        return value
    detached = module.graph.call_function(torch.ops.aten.detach.default, (value,))
    detached.meta.update(value.meta)
    return detached
