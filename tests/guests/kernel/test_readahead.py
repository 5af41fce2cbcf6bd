"""How far to read ahead."""

import pytest

from guests.kernel.readahead import largest_window, next_window

WINDOWS = [
    # last window, wanted, sequential, all to read
    (0,            1,      True,       4),
    (4,            1,      True,       8),
    (8,            1,      True,       16),
    (16,           1,      True,       32),
    (32,           1,      True,       32),
    (0,            1,      False,      1),
    (32,           1,      False,      1),
    (32,           10,     False,      10),
    (4,            20,     True,       20),
    (0,            64,     True,       64),
    (1,            1,      True,       4),
]


@pytest.mark.parametrize(("window", "wanted", "sequential", "expected"), WINDOWS)
def test_next_window(window, wanted, sequential, expected):
    assert next_window(window, wanted, sequential) == expected


def test_a_small_guest_reads_less_ahead():
    assert [largest_window(pages) for pages in (8, 64, 256, 512, 1 << 20)] == [1, 4, 16, 32, 32]
    assert next_window(4, 1, True, limit=1) == 1
