"""Where a pager finds bytes: each page's own, from the first who knows it, in as few requests as there can be."""

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.pager_sources import Part, Sources, Unrestorable
from shm import paging
from shm.counters import Count
from shm.paging import PAGE

PAGES, BLOCKS = 24, 16
DISKS = range(2)


def block(disk: int, number: int) -> bytes:
    return bytes([1 + disk * BLOCKS + number]) * PAGE


@pytest.fixture(scope="module")
def disks():
    fds = [os.memfd_create(f"disk {disk}") for disk in DISKS]
    for disk, fd in enumerate(fds):
        os.write(fd, b"".join(block(disk, number) for number in range(BLOCKS)))
    yield fds
    for fd in fds:
        os.close(fd)


def entry(disk: int, number: int, tail: int = 0) -> int:
    return (tail << paging.TAIL_SHIFT) | (disk << paging.DISK_SHIFT) + number + paging.FIRST_BLOCK


def sources_of(table, disks) -> tuple[Sources, np.ndarray]:
    words = np.zeros(64, np.int64)
    sources = Sources(memoryview(np.array(table, np.int64)), memoryview(words))
    sources.disks.update(enumerate(disks))
    return sources, words


def read(sources: Sources, gfns, most: int = PAGES) -> dict[int, bytes]:
    """Read pages, up to `most` at once."""
    found = {}
    for whole in sources.parts(gfns):
        for part in (whole.cut(at, most) for at in range(0, len(whole.gfns), most)):
            data = sources.bytes_of(part)
            assert len(data) == len(part.gfns) * PAGE
            found.update({gfn: data[at * PAGE:(at + 1) * PAGE] for at, gfn in enumerate(part.gfns)})
    return found


def test_neighbouring_blocks_are_one_request_wherever_their_pages_lie(disks):
    sources, words = sources_of([entry(0, 3), 1, entry(1, 5), entry(0, 2), entry(0, 4), entry(1, 4)], disks)
    assert sources.parts([0, 2, 3, 4, 5]) == [Part(-3, entry(0, 2), [3, 0, 4]), Part(-3, entry(1, 4), [5, 2])]
    assert read(sources, [0, 2, 3, 4, 5]) == {
        3: block(0, 2), 0: block(0, 3), 4: block(0, 4), 5: block(1, 4), 2: block(1, 5)}
    assert (words[Count.PAGER_DISK_REQUESTS], words[Count.PAGER_DISK_READS]) == (2, 5)


def test_two_pages_of_one_block_both_have_it(disks):
    sources, words = sources_of([entry(0, 1), entry(0, 1), entry(0, 2)], disks)
    assert read(sources, [0, 1, 2]) == {0: block(0, 1), 1: block(0, 1), 2: block(0, 2)}
    assert words[Count.PAGER_DISK_REQUESTS] == 2


def test_of_a_tail_no_more_than_it_counts_is_read(disks):
    sources, _ = sources_of([entry(0, 1), entry(0, 2, tail=10), entry(0, 3, tail=10)], disks)
    found = read(sources, [0, 1, 2])
    assert found == {0: block(0, 1), 1: block(0, 2)[:10].ljust(PAGE, b"\0"), 2: block(0, 3)[:10].ljust(PAGE, b"\0")}


def test_a_function_is_asked_for_neighbours_only(disks):
    sources, _ = sources_of([0] * 8, disks)
    asked = []

    def restore(gfn: int, pages: int) -> bytes:
        asked.append((gfn, pages))
        return bytes(pages * PAGE)

    sources.add(2, 3, restore)
    sources.add(0, 8, restore)                               # of every page: the last resort
    read(sources, [0, 1, 2, 3, 4, 6])
    assert sorted(asked) == [(0, 2), (2, 3), (6, 1)]


@pytest.mark.parametrize(("table", "said"), [
    ([0], "nothing can restore page 0"), ([entry(7, 1)], "page 0 is on disk 7, which was never named"),
    ([entry(0, BLOCKS)], f"disk 0 ends before block {BLOCKS}")])
def test_what_cannot_be_had_is_said(disks, table, said):
    sources, _ = sources_of(table, disks)
    (part,) = sources.parts([0])
    with pytest.raises(Unrestorable, match=said):
        sources.bytes_of(part)


ENTRIES = st.one_of(
    st.just(paging.ZEROS), st.just(paging.NOBODY),
    st.builds(entry, st.sampled_from(DISKS), st.integers(0, BLOCKS - 1), st.sampled_from([0, 0, 0, 100])))
RANGES = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 6)), max_size=3)


def computed(whose: int, gfn: int) -> bytes:
    return bytes([100 + whose, gfn]) * (PAGE // 2)


def expected(table, ranges, gfn: int) -> bytes:
    """What a page is, page by page and without any putting together."""
    for whose, (first, pages) in reversed(list(enumerate(ranges))):
        if first <= gfn < first + pages:
            return computed(whose, gfn)
    if table[gfn] == paging.NOBODY:
        return computed(50, gfn)
    if table[gfn] == paging.ZEROS:
        return bytes(PAGE)
    tail, rest = divmod(table[gfn], 1 << paging.TAIL_SHIFT)
    disk, number = divmod(rest - paging.FIRST_BLOCK, 1 << paging.DISK_SHIFT)
    return block(disk, number)[:tail or PAGE].ljust(PAGE, b"\0")


@given(table=st.lists(ENTRIES, min_size=PAGES, max_size=PAGES), ranges=RANGES, gfns=st.sets(st.integers(0, PAGES - 1)),
       most=st.sampled_from([1, 3, PAGES]))
def test_whatever_is_put_together_each_page_gets_its_own_bytes(disks, table, ranges, gfns, most):
    sources, words = sources_of(table, disks)
    for whose, (first, pages) in enumerate(ranges):
        sources.add(first, pages, lambda gfn, pages, whose=whose: b"".join(
            computed(whose, number) for number in range(gfn, gfn + pages)))
    sources.add(0, PAGES, lambda gfn, pages: b"".join(computed(50, number) for number in range(gfn, gfn + pages)))
    assert read(sources, gfns, most) == {gfn: expected(table, ranges, gfn) for gfn in gfns}
    parts = [part for part in sources.parts(gfns) if part.whose == -3]
    assert all(two.number != one.number + len(one.gfns) for one, two in pairwise(parts)), "two that could have been one"
    assert most < PAGES or words[Count.PAGER_DISK_REQUESTS] == sum(part.whose <= -3 for part in sources.parts(gfns))
