"""What the agent reads from texts about its host."""

import pytest

from nodeagent.inventory import (
    choose_cpu_mode,
    choose_machine,
    choose_virt_type,
    parse_capabilities,
    parse_cells,
    parse_cpuinfo,
    parse_meminfo,
    parse_pci_device,
    parse_pci_devices,
    version_text,
)
from nodeagent.pieces import MAX_CELLS_REPORTED, MAX_CPUS_REPORTED, MAX_PCI_REPORTED, NumaCell, PciDevice

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


# The form of libvirt 9.0's `virsh capabilities`, of a machine with two sockets; the second has no memory in huge pages.
TOPOLOGY = """\
<capabilities><host><cpu><arch>x86_64</arch></cpu>
  <topology>
    <cells num='2'>
      <cell id='1'>
        <memory unit='KiB'>33554432</memory>
        <pages unit='KiB' size='4'>8388608</pages>
        <pages unit='KiB' size='2048'>0</pages>
        <cpus num='4'>
          <cpu id='2' socket_id='1' die_id='0' core_id='0' siblings='2,6'/>
          <cpu id='3' socket_id='1' die_id='0' core_id='1' siblings='3,7'/>
          <cpu id='6' socket_id='1' die_id='0' core_id='0' siblings='2,6'/>
          <cpu id='7' socket_id='1' die_id='0' core_id='1' siblings='3,7'/>
        </cpus>
      </cell>
      <cell id='0'>
        <memory unit='KiB'>33554432</memory>
        <pages unit='KiB' size='4'>5767168</pages>
        <pages unit='KiB' size='2048'>1024</pages>
        <pages unit='KiB' size='1048576'>8</pages>
        <distances><sibling id='0' value='10'/><sibling id='1' value='21'/></distances>
        <cpus num='3'>
          <cpu id='0' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
          <cpu id='4' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
          <cpu id='1' socket_id='0' die_id='0' core_id='1' siblings='1'/>
        </cpus>
      </cell>
      <cell id='2'><memory unit='KiB'>16777216</memory><cpus num='0'/></cell>
    </cells>
  </topology></host></capabilities>
"""

# What `virsh nodedev-dumpxml` prints (https://libvirt.org/formatnode.html, and libvirt's tests/nodedevschemadata).
VIRTUAL_FUNCTION = """\
<device>
  <name>pci_0000_02_10_7</name>
  <parent>pci_0000_00_04_0</parent>
  <driver><name>igbvf</name></driver>
  <capability type='pci'>
    <class>0x020000</class>
    <domain>0</domain>
    <bus>2</bus>
    <slot>16</slot>
    <function>7</function>
    <product id='0x10ca'>82576 Virtual Function</product>
    <vendor id='0x8086'>Intel Corporation</vendor>
    <capability type='phys_function'>
      <address domain='0x0000' bus='0x02' slot='0x00' function='0x1'/>
    </capability>
    <iommuGroup number='31'>
      <address domain='0x0000' bus='0x02' slot='0x10' function='0x7'/>
    </iommuGroup>
    <numa node='0'/>
    <pci-express>
      <link validity='cap' port='0' speed='2.5' width='4'/>
      <link validity='sta' width='0'/>
    </pci-express>
  </capability>
</device>
"""
BRIDGE = """\
<device>
  <name>pci_0000_00_1c_0</name>
  <parent>computer</parent>
  <driver><name>pcieport</name></driver>
  <capability type='pci'>
    <domain>0</domain><bus>0</bus><slot>28</slot><function>0</function>
    <product id='0x8c10'>8 Series/C220 Series Chipset Family PCI Express Root Port #1</product>
    <vendor id='0x8086'>Intel Corporation</vendor>
    <capability type='pci-bridge'/>
    <iommuGroup number='8'>
      <address domain='0x0000' bus='0x00' slot='0x1c' function='0x0'/>
    </iommuGroup>
  </capability>
</device>
"""
# From a machine without an IOMMU.
NO_GROUP = """\
<device>
  <name>pci_0000_00_02_0</name>
  <path>/sys/devices/pci0000:00/0000:00:02.0</path>
  <parent>computer</parent>
  <driver>
    <name>virtio-pci</name>
  </driver>
  <capability type='pci'>
    <class>0x018000</class>
    <domain>0</domain>
    <bus>0</bus>
    <slot>2</slot>
    <function>0</function>
    <product id='0x1042'/>
    <vendor id='0x1af4'/>
  </capability>
</device>
"""


def device(kind: str = "030200", driver: str = "nvidia", address: tuple[int, ...] = (0, 59, 0, 0), more: str = "") -> str:
    domain, bus, slot, function = address
    held = f"<driver><name>{driver}</name></driver>" if driver else ""
    return f"""<device><name>x</name>{held}<capability type='pci'><class>0x{kind}</class>
      <domain>{domain}</domain><bus>{bus}</bus><slot>{slot}</slot><function>{function}</function>
      <product id='0x1eb8'>TU104GL [Tesla T4]</product><vendor id='0x10de'>NVIDIA Corporation</vendor>{more}
      <iommuGroup number='40'><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></iommuGroup></capability></device>"""


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


def test_cells() -> None:
    """Cells come by id, with the pools of huge pages that hold some and the cores of several threads; one without CPUs is none."""
    assert parse_cells(TOPOLOGY) == (
        NumaCell(0, (0, 1, 4), 32768, ((0, 4),), {"2048": 1024, "1048576": 8}),
        NumaCell(1, (2, 3, 6, 7), 32768, ((2, 6), (3, 7)), {}))
    assert parse_capabilities(TOPOLOGY).cells == parse_cells(TOPOLOGY)
    assert parse_cells(CAPABILITIES) == ()


def test_no_host_makes_a_report_too_large() -> None:
    """Cells, CPUs and devices beyond the bounds are not offered."""
    cpus = "".join(f"<cpu id='{{}}{number:02}' siblings='{{}}{number:02}'/>" for number in range(40))
    many = "".join(
        f"<cell id='{cell}'><memory unit='KiB'>1048576</memory><cpus>{cpus.replace('{}', str(cell))}</cpus></cell>"
        for cell in range(80))
    cells = parse_cells(f"<c><host><topology><cells>{many}</cells></topology></host></c>")
    assert len(cells) <= MAX_CELLS_REPORTED
    assert 0 < sum(len(cell.cpus) for cell in cells) <= MAX_CPUS_REPORTED
    devices = parse_pci_devices(device(address=(0, bus, slot, 0)) for bus in range(20) for slot in range(32))
    assert len(devices) == MAX_PCI_REPORTED
    assert devices[-1].address == "0000:07:1f.0"


def test_pci_device() -> None:
    """A device is its address, its ids and its cell; numbers in the XML are decimal, in the address hexadecimal."""
    assert parse_pci_device(VIRTUAL_FUNCTION) == PciDevice("0000:02:10.7", "8086", "10ca", 0)
    assert parse_pci_device(device()) == PciDevice("0000:3b:00.0", "10de", "1eb8", -1)


@pytest.mark.parametrize(
    ("xml", "given"),
    [
        (NO_GROUP, False),
        (BRIDGE, False),
        (device("060000", ""), False),
        (device("088000", ""), False),
        (device("020000", "ixgbe"), False),
        (device("020000", "vfio-pci"), True),
        (device("020000", ""), True),
        (device("010802", "nvme"), False),
        (device("010802", "vfio-pci"), True),
        (device("030000", "nouveau"), True),
        (device("020000", "", more="<capability type='virt_functions' maxCount='7'/>"), True),
        (device("020000", "", more="<capability type='virt_functions' maxCount='7'><address domain='0x0000'/></capability>"), False),
        (device(address=(0x10000, 0, 0, 0)), False),
        ("<device><name>computer</name><capability type='system'/></device>", False),
    ],
)
def test_what_a_guest_can_be_given(xml: str, given: bool) -> None:
    """Only devices with an IOMMU group, none of the machine's own, no disk or network card that the host's drivers hold, no card
    whose virtual functions are in use."""
    assert (parse_pci_device(xml) is not None) is given
