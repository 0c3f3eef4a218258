"""The settings of placement, as text, turned into what the scheduler takes. Pure.

Every refusal is a BadConfig that names the setting and says what is accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from novactl.errors import BadConfig
from novactl.model.node import METRICS
from novactl.scheduler.request import Rules

_HEX4 = re.compile(r"[0-9a-f]{4}\Z")


def rules(settings: Mapping[str, Any]) -> Rules:
    """What filters and weighers read of the settings: of equal ones the same object, so that who is asked again knows it.

    `settings` is a Config.
    """
    return _rules(**{name: settings[f"placement.{name}"] for name in Rules.__dataclass_fields__})


@lru_cache(maxsize=16)
def _rules(*, isolated_images: str, isolated_nodes: str, metrics: str, image_properties: str, pci_aliases: str, **plain: Any) -> Rules:
    return Rules(
        isolated_images=frozenset(_words(isolated_images)),
        isolated_nodes=frozenset(_words(isolated_nodes)),
        metrics=_metrics(metrics),
        image_properties=_numbers("placement.image_properties", image_properties),
        pci_aliases=_pci_aliases(pci_aliases),
        **plain,
    )


def filter_names(text: str, base: Sequence[str]) -> list[str]:
    """The filters that `placement.filters` asks for, where the profile has `base`.

    'resources,enabled' is all of them; '+gpu_free,-zone' adds to and takes from the profile's; empty changes nothing.
    """
    words = _words(text)
    if _is_change("placement.filters", words):
        return _changed("placement.filters", "filter", words, base)
    return list(dict.fromkeys(words)) or list(base)


def weigher_multipliers(text: str, base: Mapping[str, float]) -> dict[str, float]:
    """The weighers and multipliers that `placement.weighers` asks for, where the profile has `base`.

    'ram=1.0,balance=2' is all of them; '+ram=1.0,-servers' sets some and takes some away; empty changes nothing.
    """
    words = _words(text)
    if not words:
        return dict(base)
    if not _is_change("placement.weighers", words):
        return _numbers("placement.weighers", text)
    added = _numbers("placement.weighers", ",".join(word[1:] for word in words if word[0] == "+"))
    kept = _changed("placement.weighers", "weigher", [word.partition("=")[0] for word in words], list(base))
    return {name: added.get(name, base.get(name, 0.0)) for name in kept}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _is_change(setting: str, words: Sequence[str]) -> bool:
    signed = sum(word[0] in "+-" for word in words)
    if 0 < signed < len(words):
        raise BadConfig(
            f"{setting} mixes a whole list with changes to the profile's: {', '.join(words)}",
            hint="write every name with + or -, or none of them")
    return bool(signed)


def _changed(setting: str, kind: str, words: Iterable[str], base: Sequence[str]) -> list[str]:
    names = dict.fromkeys(base)
    for word in words:
        sign, name = word[0], word[1:].strip()
        if sign == "+":
            names[name] = None
        elif name in names:
            del names[name]
        else:
            raise BadConfig(
                f"{setting} takes away {kind} {name!r}, which the profile does not have", hint=f"it has {', '.join(base) or 'none'}")
    return list(names)


def _pairs(setting: str, text: str, form: str) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for word in _words(text):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not name or not equals or not value:
            raise BadConfig(f"{setting}: {word!r} is not understood", hint=f"write {form}")
        if name in found:
            raise BadConfig(f"{setting} names {name} twice", hint=f"write {form}")
        found[name] = value
    return list(found.items())


def _numbers(setting: str, text: str) -> dict[str, float]:
    return _parsed(setting, text, "NAME=NUMBER, …, as in 'ram=1.0,servers=-2'", _number)


def _parsed(setting: str, text: str, form: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    found = {}
    for name, value in _pairs(setting, text, form):
        try:
            found[name] = parse(value)
        except ValueError as bad:
            raise BadConfig(f"{setting}: {name}={value}: {bad}", hint=f"write {form}") from None
    return found


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def _metrics(text: str) -> dict[str, float]:
    found = _numbers("placement.metrics", text)
    for name in found:
        if name not in METRICS:
            raise BadConfig(f"placement.metrics: {name!r} is not measured", hint=f"reports have {', '.join(METRICS)}")
    return found


def _pci_aliases(text: str) -> dict[str, tuple[str, str]]:
    return _parsed("placement.pci_aliases", text, "ALIAS=VENDOR:PRODUCT, …, as in 'gpu=10de:1db4'", _pci_id)


def _pci_id(text: str) -> tuple[str, str]:
    vendor, _, product = text.lower().removeprefix("0x").partition(":")
    product = product.removeprefix("0x")
    if not _HEX4.match(vendor) or not _HEX4.match(product):
        raise ValueError("vendor and product are four hexadecimal digits each")
    return vendor, product
