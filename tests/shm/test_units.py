"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.units import UNITS, format_size, parse_size

GOOD = [("64MiB", 64 << 20), ("4KiB", 4096), ("512B", 512), ("1GiB", 1 << 30), (" 2 MiB ", 2 << 20), ("1.5KiB", 1536),
        (4096, 4096), (0, 0), ("0B", 0), ("0.5GiB", 1 << 29)]
BAD = ["64", "64MB", "64mib", "MiB", "", "-1MiB", "1e3B", "1.5B", "0.3KiB", "64MiB/s", "1 2MiB", -1, True, None, 1.5,
       []]


@pytest.mark.parametrize(("text", "size"), GOOD)
def test_good(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", BAD, ids=repr)
def test_bad(text):
    with pytest.raises(ValueError, match=r"size|whole number of bytes") as caught:
        parse_size(text)
    assert "\n" not in str(caught.value)
    assert str(text) in str(caught.value)


@given(st.integers(0, 1 << 40), st.sampled_from(sorted(UNITS)))
def test_whole_units_are_exact(number, unit):
    assert parse_size(f"{number}{unit}") == number * UNITS[unit]


SHOWN = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (64 << 20, "64.0 MiB"), (3 << 29, "1.5 GiB"),
         (-(1 << 20), "-1.0 MiB")]


@pytest.mark.parametrize(("size", "text"), SHOWN)
def test_shown(size, text):
    assert format_size(size) == text
