"""Consensus levels: which there may be, and their members' programs as one.

NestedNet (Kim, Ahn & Oh, CVPR 2018, arXiv:1712.03781) has two: NestedNet-A averages the outputs of
all levels, NestedNet-L puts one learned fully connected layer on their concatenation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from nestedge.axes.outputs import chosen_names, with_outputs
from nestedge.elastic import Elastic
from nestedge.errors import UsageError, did_you_mean
from nestedge.joining import OF, Consensus, Layer
from nestedge.nesting import Nesting
from nestedge.plan import Plan
from nestedge.program.graph import Node, Program, Ref, Weight, substitute
from nestedge.program.serialization import dtype_name
from nestedge.program.shapes import trace_shapes
from nestedge.stored import layer_specs

_JOINED = "/joined"
"""The value of a consensus: no input of a network and no member is called so."""

_SCOPE = "consensus"


def check_consensus(elastic: Elastic, nesting: Nesting, name: str) -> None:
    """Check that a consensus fits the network and its members.

    Raises:
        UsageError: a member does not give the output, or the output is of another shape or dtype
            than the joining takes.
    """
    consensus = nesting.consensus[name]
    where = f"consensus {name!r}"
    if consensus.of not in OF:
        raise UsageError(f"{where}: expected one of {list(OF)}, found {consensus.of!r}")
    common = common_outputs(elastic, nesting, consensus.members)
    if consensus.output not in common:
        raise UsageError(
            f"{where}: not all of {list(consensus.members)} give {consensus.output!r}; in common "
            f"they give {common}{did_you_mean(consensus.output, common)}"
        )
    shape, dtype = form_of(elastic, consensus.output)
    if not dtype.is_floating_point or (consensus.of == "probabilities" and len(shape) < 2):
        raise UsageError(
            f"{where}: expected {consensus.of} of floating point with the classes along dimension "
            f"1, found shape {list(shape)} of {dtype}"
        )
    if consensus.layer is None:
        return
    if len(shape) != 2 or consensus.layer != Layer(shape[1], dtype_name(dtype)):
        raise UsageError(
            f"{where}: a learned layer takes outputs of shape (batch, classes), here of "
            f"{consensus.layer.classes} classes in {consensus.layer.dtype}; found shape "
            f"{list(shape)} of {dtype_name(dtype)}"
        )


def common_outputs(elastic: Elastic, nesting: Nesting, members: Sequence[str]) -> list[str]:
    """The outputs that all of some levels give, in order."""
    names = [name for name, _ in elastic.program.outputs]
    given = [chosen_names(nesting, member, elastic.outputs, names=names) for member in members]
    return [name for name in names if all(name in some for some in given)]


def form_of(elastic: Elastic, output: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape at a batch of 2 and dtype of an output, which every level has alike."""
    leaf = dict(elastic.program.outputs).get(output)
    if leaf is None:
        return (), torch.float32
    if isinstance(leaf, Weight):
        spec = elastic.program.tensors[leaf.name]
        return spec.shape, spec.dtype
    value = trace_shapes(elastic.program, batch=2)[leaf.name]
    return tuple(value.shape), value.dtype


def join_programs(programs: Mapping[str, Program], consensus: Consensus) -> Program:
    """The programs of the members as one that runs each of them once.

    What is a member's stands behind the member's name: "small/conv1.weight". It returns what the
    members do, of their outputs only the joined one.

    Args:
        programs: for each member, in evaluation or in training.
        consensus: how they are joined.

    Raises:
        UsageError: in training a member does not give the output.
    """
    parts = {}
    for member, program in programs.items():
        if consensus.output not in dict(program.outputs):
            raise UsageError(
                f"level {member!r}: in training the network has no output {consensus.output!r}, "
                f"of which a consensus is made, only {[name for name, _ in program.outputs]}"
            )
        parts[member] = _named_apart(with_outputs(program, [consensus.output]), member)
    first = next(iter(parts.values()))
    leaves = [part.outputs[0][1] for part in parts.values()]
    nodes = [node for part in parts.values() for node in part.nodes]
    specs = {name: spec for part in parts.values() for name, spec in part.tensors.items()}
    return replace(
        first,
        nodes=(*nodes, *_joining(consensus, leaves)),
        outputs=((consensus.output, Ref(_JOINED)),),
        tensors={**specs, **layer_specs(consensus)},
        modules={path: kind for part in parts.values() for path, kind in part.modules.items()},
    )


def join_plans(plans: Mapping[str, Plan], consensus: Consensus) -> Plan:
    """How a consensus runs: its members' programs as one, and what that uses of every tensor.

    Raises:
        UsageError: in training a member does not give the output.
    """
    program = join_programs({member: plan.program for member, plan in plans.items()}, consensus)
    uses = {f"{m}/{name}": used for m, plan in plans.items() for name, used in plan.uses.items()}
    return Plan(program, {name: uses.get(name, ()) for name in program.used_tensors()})


def _named_apart(program: Program, member: str) -> Program:
    """A program whose values, tensors and modules have the member's name in front."""
    inputs = {spec.name for spec in program.inputs}
    used = program.used_tensors()

    def rename(leaf: Ref | Weight) -> Ref | Weight:
        if isinstance(leaf, Ref) and leaf.name in inputs:
            return leaf
        return type(leaf)(f"{member}/{leaf.name}")

    nodes = tuple(
        replace(
            node,
            args=substitute(node.args, rename),
            kwargs={key: substitute(value, rename) for key, value in node.kwargs.items()},
            outputs=tuple(name and f"{member}/{name}" for name in node.outputs),
            scope=_below(member, node.scope),
        )
        for node in program.nodes
    )
    return replace(
        program,
        nodes=nodes,
        outputs=tuple((name, rename(leaf)) for name, leaf in program.outputs),
        tensors={f"{member}/{n}": spec for n, spec in program.tensors.items() if n in used},
        modules={_below(member, path): kind for path, kind in program.modules.items()},
    )


def _below(member: str, path: str) -> str:
    return f"{member}/{path}" if path else member


def _joining(consensus: Consensus, leaves: Sequence[Ref | Weight]) -> Iterator[Node]:
    """The nodes behind those of the members."""

    def node(op: str, *args: object, output: str = _JOINED) -> Node:
        return Node(op, args, {}, (output,), _SCOPE)

    if consensus.of == "probabilities":
        for member, leaf in zip(consensus.members, leaves, strict=True):
            yield node("aten.softmax.int", leaf, 1, output=f"{_JOINED}/{member}")
        leaves = [Ref(f"{_JOINED}/{member}") for member in consensus.members]
    if consensus.layer is not None:
        yield node("aten.cat.default", tuple(leaves), 1, output=f"{_JOINED}.all")
        yield node("aten.linear.default", Ref(f"{_JOINED}.all"), Weight("weight"), Weight("bias"))
        return
    total, *others = leaves
    for number, leaf in enumerate(others, start=2):
        yield node("aten.add.Tensor", total, leaf, output=f"{_JOINED}.sum{number}")
        total = Ref(f"{_JOINED}.sum{number}")
    yield node("aten.div.Tensor", total, len(leaves))
