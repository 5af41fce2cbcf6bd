"""What forbids make_volatile: each condition alone, and the array form against the scalar one."""

import numpy as np
import pytest

from guests import volatility
from guests.volatility import (
    ACTIVE,
    ANONYMOUS,
    DIRTY,
    DISCARDED,
    FACTS,
    HELD,
    KEPT,
    LISTED,
    LOCKED,
    MAPPED,
    MLOCKED,
    PRIVATE,
    REFERENCED,
    REFUSALS,
    RESERVED,
    RESTORABLE,
    SHARED,
    SWAP_CACHE,
    UPTODATE,
    VOLATILE,
    WRITABLE,
    WRITEBACK,
    refusal,
    terms,
    willing,
)

FILE = MAPPED | UPTODATE | LISTED            # a clean page at rest in the page cache
SWAPPED = FILE | ANONYMOUS | SWAP_CACHE      # a clean page at rest in the swap cache

REFUSING = 14                                # the first so many facts may refuse

PAGES = [
    # what it is,                             facts,                        number in reference 2.3, or None: it may
    ("clean file page",                       FILE,                         None),
    ("the same, active",                      FILE | ACTIVE,                None),
    ("the same, touched",                     FILE | REFERENCED,            None),
    ("volatile already",                      FILE | VOLATILE,              None),
    ("clean page of the swap cache",          SWAPPED,                      None),
    ("that may be stored to",                 FILE | WRITABLE,              None),
    ("that must keep its place",              FILE | KEPT,                  None),
    ("reserved",                              FILE | RESERVED,              1),
    ("dirty",                                 FILE | DIRTY,                 2),
    ("under write-back",                      FILE | WRITEBACK,             3),
    ("dirty and under write-back",            FILE | DIRTY | WRITEBACK,     2),
    ("locked",                                FILE | LOCKED,                4),
    ("anonymous",                             FILE | ANONYMOUS,             5),
    ("of no file any more",                   FILE & ~MAPPED,               6),
    ("being read",                            FILE & ~UPTODATE,             7),
    ("with buffers",                          FILE | PRIVATE,               8),
    ("discarded already",                     FILE | DISCARDED,             9),
    ("isolated by reclaim",                   FILE & ~LISTED,               10),
    ("held",                                  FILE | HELD,                  11),
    ("of a file that was mlocked",            FILE | MLOCKED,               12),
    ("shared memory in the swap cache",       SWAPPED | SHARED,             13),
    ("shared memory",                         FILE | ANONYMOUS | SHARED,    5),
    ("page of the swap cache, held",          SWAPPED | HELD,               11),
    ("free",                                  0,                            6),
]


@pytest.mark.parametrize(("facts", "number"), [row[1:] for row in PAGES], ids=[row[0] for row in PAGES])
def test_refusal(facts, number):
    found = refusal(facts)
    assert (found and found.number) == number


def test_every_condition_has_a_page_that_meets_it_alone():
    alone = {number for _, facts, number in PAGES
             if sum(facts & row.mask == row.value for row in REFUSALS) == 1}
    assert alone == {row.number for row in REFUSALS} == set(range(1, 14))


def test_the_array_form_says_the_same_of_every_page_there_can_be():
    everything = np.arange(1 << REFUSING, dtype=np.uint32)
    assert willing(everything).tolist() == [refusal(facts) is None for facts in range(1 << REFUSING)]


def test_a_willing_page_is_clean_or_has_a_copy():
    """The rule said a second time: what may be lost can be had again, and nobody is at it."""
    for facts in range(1 << REFUSING):
        if refusal(facts) is None:
            assert not facts & (DIRTY | WRITEBACK | LOCKED | HELD | RESERVED | PRIVATE | DISCARDED | MLOCKED)
            assert facts & (MAPPED | UPTODATE | LISTED) == MAPPED | UPTODATE | LISTED
            assert not facts & ANONYMOUS or facts & (SWAP_CACHE | SHARED) == SWAP_CACHE


def test_facts_are_bits_of_their_own():
    bits = [value for name, value in vars(volatility).items() if name.isupper() and isinstance(value, int)
            and name != "FACTS"]
    assert sorted(bits) == [1 << n for n in range(FACTS)]
    assert all(row.mask < 1 << REFUSING for row in REFUSALS)


TERMS = [
    # dirty bits a page,  sources,  facts,                  may it be volatile, or potentially so
    (True,                False,    FILE,                   True),
    (True,                False,    FILE | WRITABLE,        True),
    (False,               False,    FILE,                   True),
    (False,               False,    FILE | WRITABLE,        False),
    (True,                True,     FILE,                   False),
    (True,                True,     FILE | RESTORABLE,      True),
    (False,               True,     FILE | RESTORABLE | WRITABLE,  False),
]


@pytest.mark.parametrize(("page_dirty_bits", "sources", "facts", "may"), TERMS)
def test_what_a_kernel_asks_beside_the_rows(page_dirty_bits, sources, facts, may):
    mask, value = terms(page_dirty_bits, sources)
    assert (facts & mask == value) == may
