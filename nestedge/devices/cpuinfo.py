"""What /proc/cpuinfo says, on x86 and on Arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Core = Mapping[str, str]

_X86 = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
)

_ARM = {
    # A 32-bit kernel calls it neon, a 64-bit one asimd.
    "neon": "neon",
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}

# Part numbers as lscpu (util-linux) has them: the cores of boards and phones that networks run on.
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd4f": "Neoverse-V2",
}


def parse_cores(text: str) -> list[Core]:
    r"""The fields of every core that is online.

    >>> parse_cores("processor : 0\nCPU part : 0xd0b\n\nHardware : BCM2835\n")
    [{'processor': '0', 'CPU part': '0xd0b'}]
    """
    blocks = [
        {
            key.strip(): " ".join(value.split())
            for key, _, value in (line.partition(":") for line in block.splitlines())
        }
        for block in text.split("\n\n")
    ]
    return [block for block in blocks if block.get("processor", "").isdigit()]


def architecture(cores: Sequence[Core]) -> str | None:
    """As `uname -m` calls it where system and cores agree; None where the fields do not tell."""
    words = _common_words(cores)
    if "lm" in words:
        return "x86_64"
    if "asimd" in words:
        return "aarch64"
    return "armv7l" if "neon" in words else None


def instruction_sets(cores: Sequence[Core]) -> tuple[str, ...]:
    """The instruction sets that matter to networks and that every core has, by their usual names.

    Usual are the names of x86 flags, and "neon", "fp16", "dotprod", "i8mm", "bf16", "sve" of Arm.
    """
    words = _common_words(cores)
    arm = [name for word, name in _ARM.items() if word in words]
    return (*(name for name in _X86 if name in words), *dict.fromkeys(arm))


def clusters(cores: Sequence[Core]) -> tuple[str, ...]:
    """The sorts of cores and how many there are of each, in the order of the cores.

    >>> clusters([{"CPU implementer": "0x41", "CPU part": "0xd05"}] * 4)
    ('4x Cortex-A55',)
    """
    named = Counter(name for name in map(_core_name, cores) if name)
    return tuple(f"{count}x {name}" for name, count in named.items())


def _common_words(cores: Sequence[Core]) -> set[str]:
    """What stands in the flags of every core: code may be moved from any to any other."""
    listed = [set((core.get("flags") or core.get("Features", "")).split()) for core in cores]
    return set.intersection(*listed) if listed else set()


def _core_name(core: Core) -> str | None:
    if "model name" in core and "CPU part" not in core:
        return core["model name"]
    implementer, part = core.get("CPU implementer", ""), core.get("CPU part", "").lower()
    if implementer == "0x41" and part in _ARM_CORES:
        return _ARM_CORES[part]
    return f"part {part} of implementer {implementer}" if part else None
