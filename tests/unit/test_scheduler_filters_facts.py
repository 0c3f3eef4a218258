"""Filters of a node's kind and of its aggregates: what is asked, what is there, and the sentence."""

from __future__ import annotations

import pytest

from novactl.errors import UsageError
from novactl.model.versions import version_text
from novactl.scheduler.filters import FILTERS, capabilities
from novactl.scheduler.request import NodeView, Request
from tests.unit.scheduler_world import NODE, REQUEST, in_aggregates, kind, node, request, verdict, wanting

SPEC = "aggregate_instance_extra_specs:"


def specs(**asked: str) -> Request:
    return wanting(specs={f"capabilities:{name.replace('__', ':')}": text for name, text in asked.items()})


def image(**properties: str) -> Request:
    return wanting(properties=properties)


TABLE = [
    # ---- traits
    ("traits", REQUEST, NODE, None),
    ("traits", wanting(required=frozenset({"CUSTOM_SSD"})), NODE, None),
    ("traits", wanting(required=frozenset({"CUSTOM_SSD", "CUSTOM_GPU", "HW_CPU_X86_AMX"})), NODE,
     "traits: lacks CUSTOM_GPU, HW_CPU_X86_AMX"),
    ("traits", wanting(forbidden=frozenset({"CUSTOM_GPU"})), NODE, None),
    ("traits", wanting(forbidden=frozenset({"CUSTOM_SSD"})), NODE, "traits: has CUSTOM_SSD, which is forbidden"),
    ("traits", wanting(required=frozenset({"CUSTOM_GPU"}), forbidden=frozenset({"CUSTOM_SSD"})), NODE,
     "traits: lacks CUSTOM_GPU; has CUSTOM_SSD, which is forbidden"),
    # ---- capabilities: of the kind
    ("capabilities", REQUEST, NODE, None),
    ("capabilities", specs(architecture="x86_64"), NODE, None),
    ("capabilities", specs(architecture="<or> aarch64 <or> x86_64"), NODE, None),
    ("capabilities", specs(cpu_arch="s== aarch64"), NODE, "capabilities: needs cpu_arch s== aarch64, is x86_64"),
    ("capabilities", specs(cpu_model="<in> EPYC"), kind(cpu_model="EPYC-Rome"), None),
    ("capabilities", specs(cpu_model="EPYC"), kind(cpu_model=""), "capabilities: needs cpu_model EPYC, the node does not say"),
    ("capabilities", specs(hypervisor_version=">= 7002000"), NODE, None),                       # 7.2.5 is 7002005
    ("capabilities", specs(hypervisor_version=">= 8000000"), NODE, "capabilities: needs hypervisor_version >= 8000000, is 7002005"),
    ("capabilities", specs(hypervisor_version=">= 1"), kind(hypervisor_version=0),
     "capabilities: needs hypervisor_version >= 1, the node does not say"),
    ("capabilities", specs(hypervisor_type="<or> QEMU <or> KVM"), NODE, None),
    ("capabilities", specs(virt_type="qemu"), NODE, "capabilities: needs virt_type qemu, is kvm"),
    ("capabilities", specs(virt_types="<all-in> kvm qemu"), NODE, None),
    ("capabilities", specs(machines="<in> virt"), NODE, "capabilities: needs machines <in> virt, has pc, pc-q35-7.2, q35"),
    ("capabilities", specs(machines="q35"), kind(machines=()), "capabilities: needs machines q35, has none"),
    ("capabilities", specs(traits="<in> CUSTOM_SSD", zone="z1"), NODE, None),
    ("capabilities", specs(zone="s!= z2"), kind(zone=""), "capabilities: needs zone s!= z2, the node does not say"),
    ("capabilities", specs(labels__rack="r1"), NODE, None),
    ("capabilities", specs(labels__tier=">= 3"), NODE, None),                                   # a label that is a number: 3 >= 3
    ("capabilities", specs(labels__tier=">= 4"), NODE, "capabilities: needs labels:tier >= 4, is 3"),
    ("capabilities", specs(labels__row="1"), NODE, "capabilities: needs labels:row 1, the node does not say"),
    ("capabilities", specs(zone="z2", cpu_model="Xeon"), NODE, "capabilities: needs zone z2, is z1; needs cpu_model Xeon, is EPYC"),
    ("capabilities", specs(no_such="1"), NODE, "capabilities: needs no_such 1, the node does not say"),
    ("capabilities", wanting(specs={SPEC + "zone": "z9"}), NODE, None),                         # another filter's
    ("capabilities", specs(free_ram_mb=">= 999999"), NODE, None),                               # another filter's
    # ---- measures: of the one node. Memory 16384 - 512 reserved - 4096 claimed = 11776 MiB: no ratio
    ("measures", REQUEST, NODE, None),
    ("measures", specs(free_ram_mb=">= 11776"), NODE, None),
    ("measures", specs(free_memory_mb=">= 11777"), NODE, "capabilities: needs free_memory_mb >= 11777, is 11776"),
    ("measures", specs(free_disk_gb="== 65"), NODE, None),                                      # 100 - 5 cached - 30 claimed
    ("measures", specs(free_disk_mb="== 66560"), NODE, None),                                   # 65 x 1024
    ("measures", specs(disk_mb_used="== 30720"), NODE, None),                                   # 30 x 1024
    ("measures", specs(total_usable_ram_mb="== 16384", total_usable_disk_gb="== 100"), NODE, None),
    ("measures", specs(vcpus_total="= 8", vcpus_used="== 6"), NODE, None),                      # physical: 8, not 8 x 4
    ("measures", specs(num_instances="<= 3", num_io_ops="<= 2"), NODE, None),
    ("measures", specs(servers="<= 2"), NODE, "capabilities: needs servers <= 2, is 3"),
    ("measures", specs(hypervisor_hostname="n1", host="<or> n1 <or> n2", name="s!= n2"), NODE, None),
    ("measures", specs(failed_builds="== 0"), node(failed_builds=1), "capabilities: needs failed_builds == 0, is 1"),
    ("measures", specs(load_1m="<= 0.5"), node(metrics={"load_1m": 0.25}), None),
    ("measures", specs(load_1m="<= 0.5"), NODE, "capabilities: needs load_1m <= 0.5, the node does not say"),
    ("measures", specs(vcpus_total=">= 1"), node(inventories={}), "capabilities: needs vcpus_total >= 1, is 0"),
    ("measures", specs(free_ram_mb=">= 0"), node(inventories={}), "capabilities: needs free_ram_mb >= 0, is -4096"),
    # ---- image properties
    ("image_properties", REQUEST, NODE, None),
    ("image_properties", image(os_type="linux"), kind(machines=(), virt_types=(), hypervisor_version=0), None),      # nothing for hosts
    ("image_properties", image(hw_architecture="x86_64"), NODE, None),
    ("image_properties", image(hw_architecture="AMD64"), NODE, None),
    ("image_properties", image(hw_architecture="arm64"), NODE, "hw_architecture: needs arm64, is x86_64"),
    ("image_properties", image(hw_architecture="x86_64"), kind(architecture=""), "hw_architecture: needs x86_64, is unknown"),
    ("image_properties", image(img_hv_type="qemu"), NODE, None),
    ("image_properties", image(img_hv_type="kvm"), kind(virt_types=("qemu",)), "img_hv_type: needs kvm, has qemu"),
    ("image_properties", image(img_hv_type="qemu"), kind(virt_types=(), virt_type="qemu"), None),
    ("image_properties", image(img_hv_type="qemu"), kind(virt_types=(), virt_type=""), "img_hv_type: needs qemu, reports none"),
    ("image_properties", image(hw_vm_mode="hvm"), NODE, None),
    ("image_properties", image(hw_vm_mode="xen"), NODE, "hw_vm_mode: needs xen, runs hvm"),
    ("image_properties", image(img_hv_requested_version=">=7.2"), NODE, None),                  # 7.2.5
    ("image_properties", image(img_hv_requested_version=">=7.2, <7.2.5"), NODE, "img_hv_requested_version: needs >=7.2, <7.2.5, is 7.2.5"),
    ("image_properties", image(img_hv_requested_version="==7.2.5"), NODE, None),
    ("image_properties", image(img_hv_requested_version="!=7"), NODE, None),                    # 7.0.0
    ("image_properties", image(img_hv_requested_version=">8"), NODE, "img_hv_requested_version: needs >8, is 7.2.5"),
    ("image_properties", image(img_hv_requested_version="<=7.2.5,>7"), NODE, None),
    ("image_properties", image(img_hv_requested_version=">=1"), kind(hypervisor_version=0),
     "img_hv_requested_version: needs >=1, is unknown"),
    ("image_properties", image(img_hv_requested_version="new"), NODE, "img_hv_requested_version: needs new, is 7.2.5"),
    ("image_properties", image(hw_machine_type="q35"), NODE, None),
    ("image_properties", image(hw_machine_type="virt"), NODE, "hw_machine_type: needs virt, has pc, pc-q35-7.2, q35"),
    ("image_properties", image(hw_machine_type="q35"), kind(machines=()), "hw_machine_type: needs q35, reports none"),
    ("image_properties", image(hw_vm_mode="exe", img_hv_type="xen"), NODE,
     "img_hv_type: needs xen, has kvm, qemu; hw_vm_mode: needs exe, runs hvm"),
    # ---- aggregates: extra specs
    ("aggregate_specs", REQUEST, NODE, None),
    ("aggregate_specs", wanting(specs={SPEC + "ssd": "true"}), in_aggregates({"ssd": "true"}), None),
    ("aggregate_specs", wanting(specs={SPEC + "ssd": "true"}), in_aggregates({"ssd": "false, maybe"}, {"x": "1"}),
     "aggregates: needs ssd true, they say false, maybe"),
    ("aggregate_specs", wanting(specs={SPEC + "ssd": "true"}), in_aggregates({"ssd": "false"}, {"ssd": "true"}), None),   # any value of any
    ("aggregate_specs", wanting(specs={SPEC + "ssd": "true"}), NODE, "aggregates: needs ssd true, none of them names it"),
    ("aggregate_specs", wanting(specs={SPEC + "speed": ">= 10"}), in_aggregates({"speed": "5,10"}), None),
    ("aggregate_specs", wanting(specs={SPEC + "a": "1", SPEC + "b": "2"}), in_aggregates({"a": "2"}),
     "aggregates: needs a 1, they say 2; needs b 2, none of them names it"),
    ("aggregate_specs", wanting(specs={"capabilities:zone": "z9"}), in_aggregates({"zone": "z1"}), None),
    # ---- aggregates: images
    ("aggregate_images", REQUEST, in_aggregates({"os_distro": "windows"}), None),               # the image does not say: passes
    ("aggregate_images", image(os_distro="windows"), in_aggregates({"os_distro": "windows"}), None),
    ("aggregate_images", image(os_distro="debian"), in_aggregates({"os_distro": "windows"}),
     "aggregates: take images of os_distro windows, this one has debian"),
    ("aggregate_images", image(os_distro="debian"), in_aggregates({"os_distro": "windows"}, {"os_distro": "debian,arch"}), None),
    ("aggregate_images", image(os_distro="debian", hw_machine_type="q35"), in_aggregates({"os_distro": "a", "hw_machine_type": "pc"}),
     "aggregates: take images of os_distro a, this one has debian; take images of hw_machine_type pc, this one has q35"),
    ("aggregate_images", image(os_distro="debian"), NODE, None),
    ("aggregate_images", image(**{"trait:CUSTOM_X": "required"}), in_aggregates({"trait:CUSTOM_X": "forbidden"}), None),
    # ---- aggregates: projects
    ("tenancy", REQUEST, NODE, None),
    ("tenancy", REQUEST, in_aggregates({"ssd": "true"}), None),
    ("tenancy", REQUEST, in_aggregates({"filter_tenant_id": "default"}), None),
    ("tenancy", request(project="p2"), in_aggregates({"filter_tenant_id": "p1"}, {"filter_tenant_id_west": "p3, p2"}), None),
    ("tenancy", request(project="p9"), in_aggregates({"filter_tenant_id": "p1"}, {"filter_project_id2": "p3,p2"}),
     "tenancy: kept for project p1, p2, p3, this is p9"),
    ("tenancy", REQUEST, in_aggregates({"filter_tenant_id": " , "}), None),                     # names nobody
    # ---- aggregates: flavors
    ("flavor_affinity", REQUEST, in_aggregates({"ssd": "true"}), None),
    ("flavor_affinity", REQUEST, in_aggregates({"instance_type": "m1.small, m1.large"}), None),
    ("flavor_affinity", request(flavor="m1.tiny"), in_aggregates({"instance_type": "m1.small"}, {"instance_type": "m1.large"}),
     "flavor affinity: kept for flavor m1.large, m1.small, this is m1.tiny"),
    ("flavor_affinity", request(flavor=""), in_aggregates({"instance_type": "m1.small"}),
     "flavor affinity: kept for flavor m1.small, this is none"),
    # ---- aggregates: traits that must be asked for
    ("isolate_aggregates", REQUEST, NODE, None),
    ("isolate_aggregates", REQUEST, in_aggregates({"trait:CUSTOM_WIN": "required"}, {"trait:CUSTOM_SSD": "required"}),
     "aggregates: kept for servers that require CUSTOM_SSD, CUSTOM_WIN"),
    ("isolate_aggregates", wanting(required=frozenset({"CUSTOM_WIN", "X"})), in_aggregates({"trait:CUSTOM_WIN": "required"}), None),
    ("isolate_aggregates", REQUEST, in_aggregates({"trait:CUSTOM_WIN": "forbidden", "other:X": "required"}), None),
]


@pytest.mark.parametrize(("name", "asked", "seen", "text"), TABLE)
def test_filter(name: str, asked: Request, seen: NodeView, text: str | None) -> None:
    """A filter passes a node, or rejects it with this sentence; its column says the same."""
    assert verdict(name, asked, seen) == text


@pytest.mark.parametrize("name", [
    "architecture", "zone", "traits", "capabilities", "image_properties", "aggregate_specs", "aggregate_images", "tenancy",
    "flavor_affinity", "isolate_aggregates"])
def test_filters_of_facts_say_so(name: str) -> None:
    """These rest on the request and the facts alone: two nodes of one kind get one answer."""
    check = FILTERS[name]
    assert check.by_facts  # type: ignore[attr-defined]
    seen = in_aggregates({"trait:CUSTOM_Q": "required", "instance_type": "x", "filter_tenant_id": "y", "os_type": "z"})
    other = node(id="z", name="z", facts=seen.facts, servers=99, used={}, inventories={}, address="", building=9)
    asked = request(zone="q", wants=wanting(
        required=frozenset("Q"), properties={"os_type": "a", "hw_vm_mode": "b"}, specs={"capabilities:zone": "c", SPEC + "d": "e"}).wants)
    assert check(asked, seen) == check(asked, other)


def test_capabilities_are_checked_when_set() -> None:
    """A capability that no node has is refused with those there are; so is a text outside the operator grammar."""
    capabilities.check("capabilities:free_ram_mb", ">= 4096")
    capabilities.check("capabilities:labels:rack", "r1")
    with pytest.raises(UsageError, match="there is no capability 'free_ram'") as refused:
        capabilities.check("capabilities:free_ram", ">= 4096")
    assert "free_ram_mb" in refused.value.hint and "labels:KEY" in refused.value.hint
    with pytest.raises(UsageError, match="there is no capability 'labels:'"):
        capabilities.check("capabilities:labels:", "x")
    with pytest.raises(UsageError, match="'>=4' is no operator"):
        capabilities.check("capabilities:free_ram_mb", ">=4")


@pytest.mark.parametrize("seen", [NODE, node(inventories={}, used={}, facts=kind(labels={}, cpu_model="").facts)])
def test_every_capability_can_be_read(seen: NodeView) -> None:
    """Each row of the table gives its kind of value, or None, for a node that has all and for one that has nothing."""
    kinds = {capabilities.NUMBER: (int, float), capabilities.TEXT: (str,), capabilities.TEXTS: (tuple,)}
    for name, row in capabilities.CAPABILITIES.items():
        value = row.read(seen)
        assert value is None or isinstance(value, kinds[row.kind]), name
        assert row.help


def test_versions_are_spoken() -> None:
    """libvirt's number is told as people write it."""
    assert [version_text(n) for n in (7_002_000, 10_000_012, 999)] == ["7.2.0", "10.0.12", "0.0.999"]
