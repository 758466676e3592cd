"""The files by which machines tell what they are, in the formats of real ones."""

from __future__ import annotations

from pathlib import Path

_ARM_CORE = """\
processor\t: {index}
BogoMIPS\t: {bogomips}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm \
lrcpc dcpop asimddp{more}
CPU implementer\t: {implementer}
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: {part}
CPU revision\t: 1

"""

_X86_CORE = """\
processor\t: {index}
vendor_id\t: GenuineIntel
model name\t: Intel(R) N100
cpu MHz\t\t: 806.400
flags\t\t: fpu vme lm sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 avx_vnni gfni
bugs\t\t: spectre_v1

"""


def arm_core(
    index: int, part: str, *, bogomips: str = "108.00", implementer: str = "0x41", more: str = ""
) -> str:
    """A core in /proc/cpuinfo of a 64-bit Arm kernel."""
    return _ARM_CORE.format(
        index=index, part=part, bogomips=bogomips, implementer=implementer, more=more
    )


ORIN_NANO = {
    "proc/cpuinfo": "".join(arm_core(i, "0xd42", bogomips="62.50") for i in range(6)),
    "proc/meminfo": "MemTotal:        7650336 kB\nMemFree:         3154320 kB\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": (
        "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
    ),
    "etc/nv_tegra_release": (
        "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, "
        "DATE: Thu Sep 18 22:54:44 UTC 2025\n# KERNEL_VARIANT: oot\n"
    ),
    "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nNAME="Ubuntu"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1510400\n",
    "sys/devices/system/cpu/cpu4/cpufreq/cpuinfo_max_freq": "1510400\n",
}

RASPBERRY_PI_5 = {
    "proc/cpuinfo": "".join(arm_core(i, "0xd0b") for i in range(4))
    + "Hardware\t: BCM2835\nRevision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/meminfo": "MemTotal:        4019200 kB\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
}

MINI_PC = {
    "proc/cpuinfo": "".join(_X86_CORE.format(index=i) for i in range(4)),
    "proc/meminfo": "MemTotal:       16146060 kB\n",
    "etc/os-release": "NAME=Debian\nPRETTY_NAME=Debian\n",
}


def write_board(root: Path, files: dict[str, str]) -> Path:
    """Writes the files of a machine below a folder that stands for /; the folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
