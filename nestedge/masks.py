"""Element masks of levels as one small code per weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from nestedge.errors import UsageError, did_you_mean
from nestedge.nesting import Nesting
from nestedge.program.graph import Program

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def read_masks(masks: Mapping[str, npt.ArrayLike], level: str, program: Program) -> dict[str, Mask]:
    """The masks that a user gives for a level, checked.

    Raises:
        UsageError: a name is unknown, a shape is wrong, or a value is neither 0 nor 1.
    """
    found = {}
    for name, mask in masks.items():
        if name not in program.tensors:
            known = [n for n, spec in program.tensors.items() if spec.role == "parameter"]
            raise UsageError(
                f"level {level!r}: mask for {name!r}, which the network does not have"
                f"{did_you_mean(name, known)}"
            )
        array, expected = np.asarray(mask), program.tensors[name].shape
        if array.shape != expected:
            raise UsageError(
                f"level {level!r}: mask of {name!r}: expected shape {list(expected)}, "
                f"found {list(array.shape)}"
            )
        if not np.isin(array, (0, 1)).all():
            raise UsageError(f"level {level!r}: mask of {name!r}: expected only 0 and 1")
        found[name] = array.astype(bool)
    return found


def encode_masks(
    nesting: Nesting, codes: Mapping[str, Codes], level: str, masks: Mapping[str, Mask]
) -> tuple[dict[str, tuple[frozenset[str], ...]], dict[str, Codes]]:
    """The codes of all levels' masks once a level is added.

    A level without a mask for a tensor uses all of it. Code 0 stands for weights that no level
    uses; every other code for one set of levels.

    Args:
        nesting: with the new level in it, and the patterns from before.
        codes: the codes from before.
        level: the new level.
        masks: the new level's masks.

    Returns:
        Patterns and codes of every masked tensor.

    Raises:
        UsageError: a tensor would need more than 256 codes.
    """
    others = [name for name in nesting.levels if name != level]
    patterns, encoded = {}, {}
    for tensor in {**dict.fromkeys(codes), **dict.fromkeys(masks)}:
        shape = codes[tensor].shape if tensor in codes else masks[tensor].shape
        before = codes.get(tensor, np.ones(shape, dtype=np.uint8))
        table = nesting.patterns.get(tensor, (frozenset(), frozenset(others)))
        mask = masks.get(tensor, np.ones(shape, dtype=bool))
        combined = before.astype(np.int64) * 2 + mask
        present = sorted(set(np.unique(combined).tolist()) - {0})
        sets = [table[code // 2] | ({level} if code % 2 else frozenset()) for code in present]
        # Codes in the order of how many levels use the weights: the smallest level's come last.
        order = sorted(range(len(sets)), key=lambda i: (len(sets[i]), present[i]))
        if len(order) > 255:
            raise UsageError(f"masks of {tensor!r} differ in more than 255 ways between levels")
        lookup = np.zeros(2 * len(table) + 2, dtype=np.uint8)
        for code, i in enumerate(order, start=1):
            lookup[present[i]] = code
        patterns[tensor] = (frozenset(), *(sets[i] for i in order))
        encoded[tensor] = lookup[combined]
    return patterns, encoded


def check_nested_masks(nesting: Nesting, level: str, codes: Mapping[str, Codes]) -> None:
    """Check the new level's masks against those of levels that it lies in or that lie in it.

    A masked level and one without masks need not be comparable: levels are a partial order.

    Raises:
        UsageError: of two levels of which one has the axes of the other, neither has all the
            weights of the other.
    """
    for other in nesting.levels:
        if other == level or not (nesting.is_masked(level) and nesting.is_masked(other)):
            continue
        pairs = [
            (small, large)
            for small, large in ((level, other), (other, level))
            if nesting.structure_contains(large, small)
        ]
        if not pairs or any(not nesting.stray_codes(large, small) for small, large in pairs):
            continue
        small, large = pairs[0]
        ((tensor, stray), *_) = nesting.stray_codes(large, small).items()
        count = int(np.isin(codes[tensor], stray).sum())
        raise UsageError(
            f"masks of levels {small!r} and {large!r} are not nested: {tensor!r} has {count} "
            f"weights in {small!r} that {large!r} lacks; add them to the mask of {large!r}"
        )
