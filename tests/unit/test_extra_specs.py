"""Extra specs, image properties, aggregate metadata, ratios and inventories as text: what is taken, and what a refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novactl.errors import UsageError
from novactl.model import aggregate_metadata
from novactl.model.amounts import custom_inventory, ratio_milli, ratio_text
from novactl.model.extra_specs import FORBIDDEN, REQUIRED, check_flavor_specs, check_image_properties, topology_specs, traits_of
from novactl.model.resources import Inventory


def checked(**specs: str) -> None:
    check_flavor_specs(specs, 4, 4096, operators=lambda key, text: None)


@pytest.mark.parametrize("key,value", [
    ("resources:CUSTOM_GPU", "2"), ("trait:CUSTOM_NVLINK", "required"), ("trait:HW_CPU_X86_AVX2", "forbidden"),
    ("capabilities:free_ram_mb", ">= 4096"), ("aggregate_instance_extra_specs:ssd", "true"), ("hw:cpu_policy", "dedicated"),
    ("hw:mem_page_size", "2MB"), ("hw:numa_nodes", "2"), ("pci_passthrough:alias", "gpu:1,nic:2"),
])
def test_a_known_extra_spec_is_taken(key: str, value: str) -> None:
    """Each key of the table with a value it takes."""
    checked(**{key: value})


@pytest.mark.parametrize("key,value,said", [
    ("gpu", "1", "capabilities:gpu asks what a node reports, aggregate_instance_extra_specs:gpu what the metadata"),
    ("group_policy", "none", "no numbered groups"),
    ("resources1:CUSTOM_GPU", "1", "no numbered groups"),
    ("hw:cpu_polcy", "dedicated", "did you mean hw:cpu_policy?"),
    ("hw_cpu_policy", "dedicated", "did you mean hw:cpu_policy?"),
    ("quota:cpu_shares", "1", "known: resources:CUSTOM_X"),
    ("resources:GPU", "1", "no resource class 'GPU'"),
    ("resources:VCPU", "8", "the flavor's own --vcpus"),
    ("resources:PCPU", "4", "hw:cpu_policy=dedicated"),
    ("resources:CUSTOM_GPU", "-1", "a whole number from 1"),
    ("resources:CUSTOM_GPU", "1.5", "a whole number from 1"),
    ("resources:CUSTOM_", "1", "no resource class 'CUSTOM_'"),
    ("trait:AVX2", "required", "did you mean HW_CPU_X86_AVX2?"),
    ("trait:HW_CPU_X86_AVX2", "maybe", "required or forbidden"),
    ("hw:cpu_policy", "mixed", "not supported"),
    ("hw:cpu_thread_policy", "require", "hw:cpu_policy=dedicated"),
    ("hw:numa_nodes", "3", "cannot be shared out equally"),
    ("hw:mem_page_size", "3M", "not a page size"),
    ("pci_passthrough:alias", "gpu:x", "alias"),
    ("capabilities:zone", " ", "printable text"),
    ("capabilities:zone", "x" * 256, "printable text"),
    ("capabilities:zo\nne", "x", "printable text"),
])
def test_an_extra_spec_that_nothing_would_hear_is_refused(key: str, value: str, said: str) -> None:
    """An unknown key or value is refused, saying what is accepted."""
    with pytest.raises(UsageError) as refused:
        checked(**{key: value})
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_operators_are_the_schedulers_to_judge() -> None:
    """Only values in the operator grammar are shown to the operators' check, and its refusal is passed on."""
    seen = []

    def judge(key: str, text: str) -> None:
        seen.append((key, text))
        raise UsageError("no such operator")

    with pytest.raises(UsageError, match="no such operator"):
        check_flavor_specs({"trait:CUSTOM_A": REQUIRED, "capabilities:zone": ">> a"}, 1, 1, operators=judge)
    assert seen == [("capabilities:zone", ">> a")]


@pytest.mark.parametrize("key,value", [
    ("hw_architecture", "x86_64"), ("img_hv_type", "kvm"), ("hw_vm_mode", "hvm"), ("img_hv_requested_version", ">=7.2, <9"),
    ("hw_machine_type", "pc-q35-7.2"), ("trait:CUSTOM_A", "required"), ("hw_cpu_policy", "dedicated"), ("os_distro", "debian"),
    ("custom_license", "volume, per seat"),
])
def test_a_known_property_is_taken(key: str, value: str) -> None:
    """Each property of the table with a value it takes."""
    check_image_properties({key: value})


@pytest.mark.parametrize("key,value,said", [
    ("license", "x", "a property of your own begins with custom_"),
    ("custom_", "x", "begins with custom_"),
    ("os_distr", "debian", "did you mean os_distro?"),
    ("hw:cpu_policy", "dedicated", "did you mean hw_cpu_policy?"),
    ("img_hv_type", "xen", "kvm or qemu"),
    ("img_hv_requested_version", "7.2", "comparisons such as >=7.2"),
    ("hw_mem_page_size", "huge", "small, large, any"),
])
def test_an_unknown_property_is_refused(key: str, value: str, said: str) -> None:
    """What a property may be is said where it is refused."""
    with pytest.raises(UsageError) as refused:
        check_image_properties({key: value})
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_flavor_and_image_ask_together() -> None:
    """An image's hw_ properties count as the flavor's hw: specs; where they differ, both are named."""
    assert topology_specs({"hw:cpu_policy": "dedicated", "trait:CUSTOM_A": "required"}, {"hw_numa_nodes": "2", "os_type": "linux"}) == {
        "hw:cpu_policy": "dedicated", "hw:numa_nodes": "2"}
    with pytest.raises(UsageError, match="the image asks hw_cpu_policy=shared, the flavor hw:cpu_policy=dedicated"):
        topology_specs({"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "shared"})
    assert traits_of({"trait:A": REQUIRED, "trait:B": FORBIDDEN}, REQUIRED) == {"A"}


@pytest.mark.parametrize("key,value,said", [
    ("max_instances_per_host", "many", "whole number"), ("max_io_ops_per_host", "-1", "whole number"),
    ("ram_weight_multiplier", "x", "a number"), ("ram_weight_multiplier", "nan", "a number"), ("ram_weight_multiplier", "inf", "a number"),
    ("cpu_allocation_ratio", "4", "a ratio is a node's"), ("availability_zone", "a b", "zone name"),
    ("trait:CUSTOM_A", "forbidden", "takes required"), ("trait:A", "required", "no trait"), ("", "x", "printable"), ("x", "", "printable"),
])
def test_metadata_that_placement_could_not_read_is_refused(key: str, value: str, said: str) -> None:
    """Keys that placement reads have values it can read; others are free."""
    aggregate_metadata.check({"ssd": "true", "max_instances_per_host": "0", "ram_weight_multiplier": "-1.5"})
    with pytest.raises(UsageError) as refused:
        aggregate_metadata.check({key: value})
    assert said in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize("text", ["0", "-1", "0.000", "1.0001", "1e3", "nan", "", "1000.001", "٤", "4x", " "])
def test_what_is_no_ratio(text: str) -> None:
    """A ratio is above 0, at most 1000, and has at most three decimals that say anything."""
    with pytest.raises(UsageError):
        ratio_milli(text)


@given(st.integers(1, 1_000_000))
def test_ratios_are_exact(milli: int) -> None:
    """A ratio's text is read back to the same thousandths, with zeros behind it or not."""
    assert ratio_milli(ratio_text(milli)) == ratio_milli(ratio_text(milli) + "0") == milli


def test_inventories_as_text() -> None:
    """A custom inventory is read whole; its max is its total unless said."""
    assert custom_inventory("CUSTOM_GPU=4") == Inventory("CUSTOM_GPU", 4, max_unit=4)
    assert custom_inventory("CUSTOM_IP=256,reserved=6,ratio=1.5,min=2,max=16,step=2") == Inventory("CUSTOM_IP", 256, 6, 1500, 2, 16, 2)


@pytest.mark.parametrize("text,said", [
    ("VCPU=4", "its agent reports"), ("GPU=4", "CUSTOM_"), ("CUSTOM_GPU", "how much"), ("CUSTOM_GPU=", "how much"),
    ("CUSTOM_GPU=0", "node unset"), ("CUSTOM_GPU=-1", "whole number"),
    ("CUSTOM_GPU=4,reserved=5", "5 reserved is more than the total of 4"),
    ("CUSTOM_GPU=4,min=3,max=2", "min 3 and max 2"), ("CUSTOM_GPU=4,step=5", "step of 5"), ("CUSTOM_GPU=4,ratio=0", "ratio"),
    ("CUSTOM_GPU=4,limit=1", "no 'limit'"), ("CUSTOM_GPU=99999999999", "whole number"),
])
def test_what_is_no_inventory(text: str, said: str) -> None:
    """Numbers that contradict each other are named, and the form is shown."""
    with pytest.raises(UsageError) as refused:
        custom_inventory(text)
    assert said in f"{refused.value.message} {refused.value.hint} {refused.value.command}"
