from __future__ import annotations

import pytest

from nestedge.devices.cpuinfo import architecture, clusters, instruction_sets, parse_cores
from tests.devices.boards import MINI_PC, RASPBERRY_PI_5, arm_core

PHONE = "".join(
    [
        *(arm_core(i, "0xd46", more=" i8mm bf16 sve sve2") for i in range(4)),
        *(arm_core(i, "0xd4d", more=" sve2 i8mm bf16 sve") for i in range(4, 8)),
        arm_core(8, "0xd4e", more=" i8mm bf16 sve2 sve"),
    ]
)
ARMV7 = """\
processor\t: 0
model name\t: ARMv7 Processor rev 4 (v7l)
Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4
CPU implementer\t: 0x41
CPU architecture: 7
CPU part\t: 0xd03

Hardware\t: BCM2835
"""
# Of HiSilicon; the same number is Arm's Neoverse-V1.
KUNPENG = arm_core(0, "0xd40", implementer="0x48")


@pytest.mark.parametrize(
    ("text", "expected_architecture", "expected_clusters", "expected_isa"),
    [
        pytest.param(
            RASPBERRY_PI_5["proc/cpuinfo"],
            "aarch64",
            ("4x Cortex-A76",),
            ("neon", "fp16", "dotprod"),
            id="Raspberry Pi 5",
        ),
        pytest.param(
            PHONE,
            "aarch64",
            ("4x Cortex-A510", "4x Cortex-A715", "1x Cortex-X3"),
            ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2"),
            id="phone of three sorts of cores",
        ),
        pytest.param(
            MINI_PC["proc/cpuinfo"],
            "x86_64",
            ("4x Intel(R) N100",),
            ("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni"),
            id="x86",
        ),
        pytest.param(ARMV7, "armv7l", ("1x Cortex-A53",), ("neon",), id="32-bit Arm"),
        pytest.param(
            KUNPENG,
            "aarch64",
            ("1x part 0xd40 of implementer 0x48",),
            ("neon", "fp16", "dotprod"),
            id="a core of another maker",
        ),
        pytest.param("", None, (), (), id="nothing"),
        pytest.param("no such thing\n\nprocessor\t: x\n", None, (), (), id="something else"),
    ],
)
def test_cores_are_told_by_what_their_kernel_writes(
    text: str,
    expected_architecture: str | None,
    expected_clusters: tuple[str, ...],
    expected_isa: tuple[str, ...],
) -> None:
    cores = parse_cores(text)
    assert architecture(cores) == expected_architecture
    assert clusters(cores) == expected_clusters
    assert instruction_sets(cores) == expected_isa


def test_an_instruction_set_that_one_core_lacks_is_not_there() -> None:
    cores = parse_cores(arm_core(0, "0xd05") + arm_core(1, "0xd4e", more=" i8mm"))
    assert instruction_sets(cores) == ("neon", "fp16", "dotprod")
