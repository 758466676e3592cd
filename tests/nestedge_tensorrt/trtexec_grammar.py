"""The command line of NVIDIA's trtexec, as far as these tests need it, version by version.

From samples/common/sampleOptions.cpp of github.com/NVIDIA/TensorRT (Apache-2.0) at 8.2.1, 8.4.1,
8.5.3, release/8.6, release/9.2, v10.0.0, v10.3.0, v10.16 and release/11.1: which options there are,
and what a value may be. An argument is a name, or a name, "=" and a value; what is left over is an
unknown option.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

VERSIONS = ("8.2", "8.4", "8.5", "8.6", "9.2", "10.0", "10.3", "10.16", "11.1")

_PATH = r".+"
_WHOLE = r"\d+"
_SHAPE = r"[^,]+:(scalar|\d+(x\d+)*)"
_SHAPES = rf"{_SHAPE}(,{_SHAPE})*"
_POOL = r"(workspace|dlaSRAM|dlaLocalDRAM|dlaGlobalDRAM):\d+(\.\d+)?"
_PAIR = r"[^,]+:[^,]+"
_TYPE = r"[^,]+:(fp32|fp16|int32|int8)"

# An option without a value is None. trtexec takes any value of a flag, and "--fp16=false" for
# "--fp16"; here a flag has none.
_EVERYWHERE: dict[str, str | None] = {
    **dict.fromkeys(("--onnx", "--saveEngine", "--loadEngine", "--timingCacheFile"), _PATH),
    **dict.fromkeys(("--exportTimes", "--exportOutput", "--exportProfile"), _PATH),
    **dict.fromkeys(("--iterations", "--duration", "--warmUp", "--avgRuns", "--device"), _WHOLE),
    **dict.fromkeys(("--shapes", "--minShapes", "--optShapes", "--maxShapes"), _SHAPES),
    **dict.fromkeys(("--noTF32", "--noDataTransfers", "--useSpinWait", "--verbose"), None),
    **dict.fromkeys(("--useCudaGraph", "--dumpProfile", "--dumpLayerInfo", "--noBuilderCache")),
    "--useDLACore": _WHOLE,
    "--allowGPUFallback": None,
    "--loadInputs": rf"{_PAIR}(,{_PAIR})*",
    "--profilingVerbosity": "layer_names_only|detailed|none",
    "--sparsity": "disable|enable|force",
}

# TensorRT 11 builds strongly typed networks only: precision is the model's.
_WEAKLY_TYPED: dict[str, str | None] = {
    **dict.fromkeys(("--fp16", "--int8", "--best")),
    "--calib": _PATH,
    "--precisionConstraints": "obey|prefer|none",
    "--layerPrecisions": rf"{_TYPE}(,{_TYPE})*",
}

_FROM_8_6: dict[str, str | None] = {
    **dict.fromkeys(("--skipInference", "--versionCompatible")),
    "--builderOptimizationLevel": _WHOLE,
    "--hardwareCompatibilityLevel": "none|ampere[+]",
}

_POOLS: dict[str, str | None] = {"--memPoolSize": rf"{_POOL}(,{_POOL})*"}
_OLD: dict[str, str | None] = {"--buildOnly": None, "--workspace": _WHOLE}
_FROM_10: dict[str, str | None] = {
    **_EVERYWHERE,
    **_POOLS,
    **_FROM_8_6,
    **dict.fromkeys(("--stronglyTyped", "--stripWeights")),
}

_OPTIONS: dict[str, dict[str, str | None]] = {
    "8.2": {**_EVERYWHERE, **_WEAKLY_TYPED, **_OLD},
    "8.4": {**_EVERYWHERE, **_WEAKLY_TYPED, **_POOLS, **_OLD},
    "8.5": {**_EVERYWHERE, **_WEAKLY_TYPED, **_POOLS, **_OLD},
    "8.6": {**_EVERYWHERE, **_WEAKLY_TYPED, **_POOLS, **_FROM_8_6, **_OLD},
    "9.2": {
        **_EVERYWHERE,
        **_WEAKLY_TYPED,
        **_POOLS,
        **_FROM_8_6,
        **_OLD,
        "--stronglyTyped": None,
    },
    "10.0": {**_FROM_10, **_WEAKLY_TYPED},
    "10.3": {**_FROM_10, **_WEAKLY_TYPED},
    "10.16": {**_FROM_10, **_WEAKLY_TYPED},
    "11.1": _FROM_10,
}


def parse(
    arguments: Sequence[str], version: str, *, is_static: bool = True
) -> dict[str, str | None]:
    """The options of a command line that is to build an engine.

    Raises:
        ValueError: this version of trtexec ends with an error, or means something else.
    """
    options = _OPTIONS[version]
    found: dict[str, str | None] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name not in options:
            raise ValueError(f"unknown option: {name}")
        if name in found:
            raise ValueError(f"twice: {name}")
        pattern = options[name]
        if (pattern is None) == bool(equals):
            raise ValueError(f"{name}: {'takes no value' if equals else 'needs a value'}")
        if pattern is not None and not re.fullmatch(pattern, value):
            raise ValueError(f"{name}: not a value: {value!r}")
        found[name] = value if equals else None
    if "--onnx" not in found:
        raise ValueError("model missing")
    if {"--saveEngine", "--loadEngine"} <= found.keys():
        raise ValueError("incompatible load and save engine options")
    if is_static and any(name.lower().endswith("shapes") for name in found):
        raise ValueError("a static model takes no shapes")
    return found
