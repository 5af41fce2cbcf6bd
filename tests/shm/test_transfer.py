"""Where things stand in the transfer buffer: both sides compute it, so it is part of the ABI."""

from itertools import pairwise

import numpy as np
import pytest

from shm.abi import ENTRY, MULTICALL_LIMIT, PAGE_SIZE
from shm.transfer import TRANSFER_PAGES, Transfer


@pytest.fixture
def buffer():
    return np.zeros(TRANSFER_PAGES * PAGE_SIZE, np.uint8)


def extent(buffer, view):
    start = view.__array_interface__["data"][0] - buffer.__array_interface__["data"][0]
    return start, start + view.nbytes


def test_layout(buffer):
    transfer = Transfer(buffer)
    assert TRANSFER_PAGES == 262
    assert extent(buffer, transfer.header)[0] == 0
    assert extent(buffer, transfer.states) == (1024, 1024 + 256)
    assert extent(buffer, transfer.gfns) == (2048, 4096)
    assert extent(buffer, transfer.entries) == (4096, 4096 + 256 * 64)
    assert extent(buffer, transfer.pages) == (5 * 4096, 261 * 4096)
    assert extent(buffer, transfer.releases) == (261 * 4096, 262 * 4096)


def test_parts_do_not_overlap_and_hold_the_limit(buffer):
    transfer = Transfer(buffer)
    parts = sorted(extent(buffer, view) for view in (transfer.header, transfer.states, transfer.gfns, transfer.entries,
                                                     transfer.pages, transfer.releases))
    assert all(end <= start for (_, end), (start, _) in pairwise(parts))
    assert len(transfer.gfns) == len(transfer.entries) == len(transfer.pages) == MULTICALL_LIMIT
    assert (transfer.gfns.dtype, transfer.entries.dtype, transfer.pages.shape) == (
        np.dtype("<i8"), ENTRY, (MULTICALL_LIMIT, PAGE_SIZE))


def test_two_views_of_one_buffer_see_one_another(buffer):
    here, there = Transfer(buffer), Transfer(buffer)
    here.first[:] = bytes([7]) * PAGE_SIZE
    here.gfns[255], here.entries["slot"][255] = -1, 9
    here.may_poll = True
    assert (there.pages[0] == 7).all() and not there.pages[1].any()
    assert (there.gfns[255], there.entries["slot"][255], there.may_poll) == (-1, 9, True)
    here.may_poll = False
    assert there.may_poll is False
