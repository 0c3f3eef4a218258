"""What the agent reads from texts about its host."""

import pytest

from nodeagent.inventory import (
    choose_cpu_mode,
    choose_machine,
    choose_virt_type,
    parse_capabilities,
    parse_cpuinfo,
    parse_meminfo,
    version_text,
)

MEMINFO = """\
MemTotal:       24684092 kB
MemFree:        24432404 kB
MemAvailable:   24389112 kB
Buffers:             144 kB
HugePages_Total:       0
"""
CPUINFO = """\
processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC 9R14
flags		: fpu vme svm lahf_lm

processor	: 1
model name	: AMD EPYC 9R14
flags		: fpu vme svm lahf_lm
"""
ARM = """\
processor	: 0
Features	: fp asimd
CPU part	: 0xd0c
"""
CAPABILITIES = """\
<capabilities>
  <host><cpu><arch>x86_64</arch><model>EPYC-Genoa</model></cpu></host>
  <guest><os_type>hvm</os_type><arch name='i686'><machine>pc</machine><domain type='xen'/></arch></guest>
  <guest><os_type>xen</os_type><arch name='x86_64'><machine>xenpv</machine><domain type='xen'/></arch></guest>
  <guest><os_type>hvm</os_type><arch name='x86_64'>
    <machine maxCpus='255'>pc-i440fx-7.2</machine><machine canonical='pc-i440fx-7.2'>pc</machine><machine>q35</machine>
    <domain type='qemu'/><domain type='kvm'><machine>q35</machine></domain></arch></guest>
</capabilities>
"""


def test_meminfo() -> None:
    """Total and available are MiB; without MemAvailable (old kernels) MemFree stands in."""
    assert parse_meminfo(MEMINFO) == (24105, 23817)
    assert parse_meminfo("MemTotal: 2048 kB\nMemFree: 1024 kB\n") == (2, 1)
    with pytest.raises(ValueError, match="MemTotal"):
        parse_meminfo("")


def test_cpuinfo() -> None:
    """CPUs are counted; the model and flags are the first CPU's; ARM names its flags otherwise."""
    cpu = parse_cpuinfo(CPUINFO)
    assert (cpu.count, cpu.model, cpu.flags) == (2, "AMD EPYC 9R14", ("fpu", "lahf_lm", "svm", "vme"))
    assert parse_cpuinfo(ARM).flags == ("asimd", "fp")


def test_capabilities() -> None:
    """Of the guests only full virtualisation of the host's own architecture counts; a domain type may have its own machines."""
    caps = parse_capabilities(CAPABILITIES)
    assert (caps.architecture, caps.cpu_model) == ("x86_64", "EPYC-Genoa")
    assert caps.guests == {"qemu": ("pc-i440fx-7.2", "pc", "q35"), "kvm": ("q35",)}


@pytest.mark.parametrize(
    ("wanted", "flags", "kvm_opens", "offered", "chosen"),
    [
        ("auto", ["vmx"], True, ["qemu", "kvm"], "kvm"),
        ("auto", ["svm"], True, ["qemu", "kvm"], "kvm"),
        ("auto", ["svm"], False, ["qemu", "kvm"], "qemu"),
        ("auto", ["svm"], True, ["qemu"], "qemu"),
        ("auto", ["fpu"], True, ["qemu", "kvm"], "qemu"),
        ("kvm", ["fpu"], False, ["qemu"], "kvm"),
        ("qemu", ["svm"], True, ["qemu", "kvm"], "qemu"),
    ],
)
def test_virt_type(wanted: str, flags: list[str], kvm_opens: bool, offered: list[str], chosen: str) -> None:
    """`auto` is KVM only with vmx or svm in the flags and a /dev/kvm that opens, where libvirt offers it."""
    assert choose_virt_type(wanted, flags, kvm_opens, offered) == chosen


def test_machine() -> None:
    """q35 before pc before virt before whatever there is."""
    assert choose_machine(["pc", "q35"]) == "q35"
    assert choose_machine(["pc-i440fx-7.2", "pc"]) == "pc"
    assert choose_machine(["virt"]) == "virt"
    assert choose_machine(["odd"]) == "odd"
    assert choose_machine([]) == ""


@pytest.mark.parametrize(
    ("virt_type", "supported", "mode"),
    [
        ("kvm", ["host-passthrough", "host-model", "maximum"], "host-model"),
        ("kvm", ["host-passthrough"], "host-passthrough"),
        ("qemu", ["host-model", "maximum"], "maximum"),
        ("qemu", ["custom"], ""),
    ],
)
def test_cpu_mode(virt_type: str, supported: list[str], mode: str) -> None:
    """KVM: the host's model; emulation: all that QEMU can do, never the host's."""
    modes = "".join(f"<mode name='{name}' supported='yes'/>" for name in supported)
    xml = f"<domainCapabilities><cpu>{modes}<mode name='host-model' supported='no'/></cpu></domainCapabilities>"
    assert choose_cpu_mode(virt_type, xml) == mode


def test_version() -> None:
    """libvirt's number becomes the text people know."""
    assert version_text(9000000) == "9.0.0"
    assert version_text(7002022) == "7.2.22"
