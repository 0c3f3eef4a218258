"""What a host can do, as traits: names of the os-traits project, read from the CPU's flags. Pure.

A flag is spelled as Linux shows it in /proc/cpuinfo, or as libvirt names the feature; both are known here. Traits of an
administrator's own begin with CUSTOM_ (novactl.model.extra_specs.is_custom).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_X86 = "HW_CPU_X86_"
_FLAGS: Mapping[str, tuple[str, ...]] = {
    "3DNOW": ("3dnow",), "ABM": ("abm",), "AESNI": ("aes",), "ASF": (), "AVX": ("avx",), "AVX2": ("avx2",),
    "AVX512BITALG": ("avx512_bitalg", "avx512bitalg"), "AVX512BW": ("avx512bw",), "AVX512CD": ("avx512cd",),
    "AVX512DQ": ("avx512dq",), "AVX512ER": ("avx512er",), "AVX512F": ("avx512f",), "AVX512GFNI": ("gfni",),
    "AVX512IFMA": ("avx512ifma",), "AVX512PF": ("avx512pf",), "AVX512VAES": ("vaes",),
    "AVX512VBMI": ("avx512vbmi",), "AVX512VBMI2": ("avx512_vbmi2", "avx512vbmi2"), "AVX512VL": ("avx512vl",),
    "AVX512VNNI": ("avx512_vnni", "avx512vnni"), "AVX512VPCLMULQDQ": ("vpclmulqdq",),
    "AVX512VPOPCNTDQ": ("avx512_vpopcntdq", "avx512-vpopcntdq"), "BMI": ("bmi1",), "BMI2": ("bmi2",),
    "CLMUL": ("pclmulqdq", "pclmuldq"), "F16C": ("f16c",), "FMA3": ("fma",), "FMA4": ("fma4",), "MMX": ("mmx",), "MPX": ("mpx",),
    "PDPE1GB": ("pdpe1gb",), "SGX": ("sgx",), "SHA": ("sha_ni", "sha-ni"), "SSE": ("sse",), "SSE2": ("sse2",),
    "SSE3": ("pni", "sse3"), "SSE41": ("sse4_1", "sse4.1"), "SSE42": ("sse4_2", "sse4.2"), "SSE4A": ("sse4a",), "SSSE3": ("ssse3",),
    "STIBP": ("stibp",), "SVM": ("svm",), "AMD_SVM": ("svm",), "TBM": ("tbm",), "TSX": ("rtm",), "VMX": ("vmx",),
    "INTEL_VMX": ("vmx",), "XOP": ("xop",),
}
CPU_TRAITS: Mapping[str, tuple[str, ...]] = {
    flag: tuple(sorted(_X86 + name for name, flags in _FLAGS.items() if flag in flags))
    for flag in sorted({flag for flags in _FLAGS.values() for flag in flags})
}
"""CPU flag -> the traits it stands for (os_traits/hw/cpu/x86, nova/virt/libvirt/utils.py CPU_TRAITS_MAPPING)."""
ARCHITECTURE_TRAITS: Mapping[str, str] = {
    name: f"HW_ARCH_{name.upper()}" for name in ("x86_64", "i686", "aarch64", "armv7l", "ppc64le", "ppc64", "s390x", "riscv64")
}
VIRT_TRAITS: Mapping[str, str] = {"kvm": "COMPUTE_VIRT_KVM", "qemu": "COMPUTE_VIRT_QEMU"}
"""What kinds of domain the host offers. Names of ours: os-traits has none for them."""
STANDARD_TRAITS: frozenset[str] = frozenset(
    [_X86 + name for name in _FLAGS] + list(ARCHITECTURE_TRAITS.values()) + list(VIRT_TRAITS.values()))
"""Every trait that a node can report."""


def reported_traits(cpu_flags: Iterable[str], architecture: str, virt_types: Iterable[str]) -> frozenset[str]:
    """The traits of a host that reports this; what has no name among them is passed over."""
    found = {trait for flag in cpu_flags for trait in CPU_TRAITS.get(flag, ())}
    found.update(VIRT_TRAITS[kind] for kind in virt_types if kind in VIRT_TRAITS)
    if architecture in ARCHITECTURE_TRAITS:
        found.add(ARCHITECTURE_TRAITS[architecture])
    return frozenset(found)
