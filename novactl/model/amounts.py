"""What an administrator says of a node's amounts, as text: ratios and inventories. Exact: no float is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from novactl.errors import UsageError
from novactl.model.extra_specs import is_custom
from novactl.model.resources import MAX_INT, STANDARD_CLASSES, Inventory
from novactl.model.units import whole

MAX_RATIO_MILLI = 1_000_000
_RATIO = re.compile(r"(\d{1,6})(?:\.(\d{1,12}))?\Z", re.ASCII)


class BadRatio(UsageError):
    code = "ratio"


class BadInventory(UsageError):
    code = "inventory"


def ratio_milli(text: str) -> int:
    """'2.5' -> 2500. Raises BadRatio: not above 0, above 1000, or finer than thousandths."""
    found = _RATIO.match(text.strip())
    decimals = (found[2] or "").rstrip("0") if found else ""
    milli = int(found[1]) * 1000 + int(decimals.ljust(3, "0")) if found and len(decimals) <= 3 else 0
    if found and len(decimals) > 3:
        raise BadRatio(f"ratio {text} is finer than thousandths", hint="at most three decimals, such as 1.5 or 0.125")
    if not 0 < milli <= MAX_RATIO_MILLI:
        raise BadRatio(f"{text!r} is not a ratio", hint="a number above 0, at most 1000, such as 4 or 1.5")
    return milli


def ratio_text(milli: int) -> str:
    """2500 -> '2.5', 4000 -> '4.0'."""
    ones, rest = divmod(milli, 1000)
    return f"{ones}.{f'{rest:03}'.rstrip('0') or '0'}"


def _whole(name: str, text: str) -> int:
    found = whole(text, MAX_INT)
    if found is None:
        raise BadInventory(f"{name} must be a whole number up to {MAX_INT}, not {text!r}")
    return found


_FIELDS: Mapping[str, tuple[str, Callable[[str, str], int]]] = {
    "reserved": ("reserved", _whole), "ratio": ("ratio_milli", lambda name, text: ratio_milli(text)), "min": ("min_unit", _whole),
    "max": ("max_unit", _whole), "step": ("step_size", _whole),
}
INVENTORY_FORM = "CLASS=TOTAL[,reserved=N][,ratio=R][,min=N][,max=N][,step=N]"


def custom_inventory(text: str) -> Inventory:
    """'CUSTOM_GPU=4,reserved=1,max=2' -> an Inventory; `max` is the total unless it is given.

    Raises BadInventory: for a class that is not custom, numbers that contradict each other, or words that are not known.
    """
    first, *more = text.split(",")
    name, _, total = first.partition("=")
    check_custom_class(name)
    if not total:
        raise BadInventory(f"{text!r} does not say how much {name} there is", hint=f"write {INVENTORY_FORM}")
    given: dict[str, int] = {}
    for word in more:
        key, _, value = word.partition("=")
        if key not in _FIELDS:
            raise BadInventory(f"{text!r}: there is no {key!r} in an inventory", hint=f"write {INVENTORY_FORM}")
        field, read = _FIELDS[key]
        given[field] = read(f"{name}: {key}", value)
    amount = _whole(f"{name}: the total", total)
    if not amount:
        raise BadInventory(f"{name}: a total of 0 is no inventory", command=f"novactl node unset NODE --inventory {name}")
    return checked(Inventory(resource_class=name, total=amount, **{"max_unit": amount, **given}))


def checked(inventory: Inventory) -> Inventory:
    """The inventory, if its numbers agree with each other. Raises BadInventory naming those that do not."""
    name = inventory.resource_class
    if inventory.reserved > inventory.total:
        raise BadInventory(
            f"{name}: {inventory.reserved} reserved is more than the total of {inventory.total}", hint=f"reserve at most {inventory.total}")
    if not 1 <= inventory.min_unit <= inventory.max_unit:
        raise BadInventory(f"{name}: min {inventory.min_unit} and max {inventory.max_unit} leave nothing: 1 <= min <= max")
    if not 1 <= inventory.step_size <= inventory.max_unit:
        raise BadInventory(f"{name}: a step of {inventory.step_size} with a max of {inventory.max_unit} leaves nothing: 1 <= step <= max")
    return inventory


def check_custom_class(name: str) -> str:
    """Raises BadInventory for what is not a custom class, saying how a standard one is set."""
    if name in STANDARD_CLASSES:
        raise BadInventory(
            f"how much {name} a node has is what its agent reports",
            hint="--cpu-ratio, --ram-ratio, --disk-ratio, --reserved-ram, --reserved-disk, --reserved-cpus and --dedicated-cpus change what"
                 " of it may be claimed")
    if not is_custom(name):
        raise BadInventory(f"there is no resource class {name!r}", hint="a custom class: CUSTOM_ and A-Z, 0-9, _",
                           command="novactl resource-class list")
    return name
