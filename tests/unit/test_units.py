from __future__ import annotations

import pytest

from novactl.model import units


@pytest.mark.parametrize(("text", "expected"), [
    ("4096", 4096), ("512M", 512), ("4G", 4096), ("4g", 4096), ("4GiB", 4096), ("4 GB", 4096), ("1.5G", 1536), ("1T", 1 << 20),
    ("1024K", 1), ("1048576B", 1), ("0", 0), ("0.5", None), ("1K", None), ("1.3G", None), ("", None), ("G", None), ("-1", None),
    ("4GX", None), ("1e3", None), ("٣", None), ("9999999P", None), ("9" * 400, None), (".5G", None),
])
def test_mib(text: str, expected: int | None) -> None:
    """A memory size is exact in MiB, or refused with the accepted forms."""
    if expected is None:
        with pytest.raises(units.BadSize) as refused:
            units.mib(text)
        assert "'4G'" in refused.value.hint
    else:
        assert units.mib(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("20", 20), ("20G", 20), ("1T", 1024), ("2048M", 2), ("1.5T", 1536), ("512M", None),
])
def test_gib(text: str, expected: int | None) -> None:
    """A disk size is exact in GiB, or refused."""
    if expected is None:
        with pytest.raises(units.BadSize):
            units.gib(text)
    else:
        assert units.gib(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("90", 90.0), ("1.5", 1.5), ("90s", 90.0), ("2m", 120.0), ("1h30m", 5400.0), ("500ms", 0.5), ("1d", 86400.0), (" 5s ", 5.0),
    ("0", 0.0), ("", None), ("s", None), ("5 s", None), ("-1s", None), ("1h30", None), ("5w", None), ("١s", None), ("nan", None),
])
def test_duration_s(text: str, expected: float | None) -> None:
    """A duration is seconds, or refused with the accepted forms."""
    if expected is None:
        with pytest.raises(units.BadDuration) as refused:
            units.duration_s(text)
        assert "'2m'" in refused.value.hint
    else:
        assert units.duration_s(text) == pytest.approx(expected)


@pytest.mark.parametrize(("count", "text"), [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), ((1 << 20) - 1, "1.0 MiB"), (1 << 30, "1.0 GiB"),
    (-1536, "-1.5 KiB"), (5 << 60, "5120.0 PiB"),
])
def test_human_bytes(count: int, text: str) -> None:
    """A byte count is told in the largest unit it fills."""
    assert units.human_bytes(count) == text


@pytest.mark.parametrize(("count", "text"), [(512, "512 MiB"), (8192, "8.0 GiB"), (6042, "5.9 GiB"), (-512, "-512 MiB")])
def test_human_mib(count: int, text: str) -> None:
    """Memory is told in GiB from 1 GiB on."""
    assert units.human_mib(count) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (0.42, "0.4 s"), (5, "5 s"), (42.4, "42 s"), (119.6, "2 min"), (150, "2 min 30 s"), (3700, "61 min"),
    (7500, "2 h 5 min"), (7200, "2 h"), (200_000, "2 d"), (-5, "-5 s"),
])
def test_human_seconds(seconds: float, text: str) -> None:
    """An age is told in at most two units."""
    assert units.human_seconds(seconds) == text
