"""Cleancache over a pool that several guests share: two kernels, two page caches, one pool."""

import numpy as np
import pytest
from fakes import ALL, FakeGuest, block_contents

from guests.cleancache import SharedCleancache
from guests.kernel import Kernel
from guests.tmem import secret_words
from shm.abi import PAGE_SIZE, U32
from shm.counters import Count
from shm.errors import TmemRefused

PAGES, SECRET = 40, 0x6BA7B8109DAD11D180B400C04FD430C8
NEW = b"n" * PAGE_SIZE


class Member:
    """A guest with the disk mounted."""

    def __init__(self, disk, others=(), features=ALL, **window) -> None:
        self.guest = FakeGuest(128, features)
        for other in others:
            self.guest.tmem.shares = other.guest.tmem.shares
        self.kernel = Kernel(self.guest)
        self.kernel.mount(disk, shared=SECRET)
        self.disk, self.file = disk, self.kernel.open(disk, **window)

    def evict(self) -> None:
        self.kernel.core.allocator.reclaim(128)
        assert not self.file.inode.cached

    def count(self, which: Count) -> int:
        return int(self.guest.counters[which])

    @property
    def pool(self):
        return next(iter(self.guest.tmem.shares.values()))


@pytest.fixture
def disk(new_disk):
    return new_disk(PAGES, np.zeros(512, np.uint64), content=True)


@pytest.fixture(params=[ALL, {"cleancache"}], ids=["with hints", "without hints"])
def members(disk, request):
    first = Member(disk, features=request.param)
    return first, Member(disk, [first], request.param)


def content(first: int, count: int = 1) -> bytes:
    return block_contents(range(first, first + count)).tobytes()


def reads(member) -> int:
    """Blocks read from the disk since the last question; the disk is both members'."""
    counted = member.disk._counters
    found, counted[Count.GUEST_DISK_READS] = int(counted[Count.GUEST_DISK_READS]), 0
    return found


def test_what_one_has_read_the_other_needs_not_read(members):
    one, other = members
    one.file.map(0, 20)
    one.evict()
    assert reads(one) == 20
    assert other.file.map(0, 20).tobytes() == content(0, 20)
    assert one.file.map(0, 20).tobytes() == content(0, 20)
    assert (reads(one), len(one.pool.pages)) == (0, 20), "the pages are in the pool still, for the next"
    for member in members:
        member.kernel.check()


def test_inode_numbers_are_no_common_names(disk):
    """Files opened in another order are told apart by where they lie."""
    one = Member(disk, start=0, pages=10)
    other = Member(disk, [one], start=10, pages=10)
    assert one.file.inode.number == other.file.inode.number
    one.file.map(0, 10)
    one.evict()
    assert other.file.map(0, 10).tobytes() == content(10, 10)


@pytest.mark.parametrize("window", [{"start": 1}, {"pages": 10}, {"size": 5 * PAGE_SIZE - 7}])
def test_another_window_is_another_file(disk, window):
    """Its last page may be shorter, and reads zero there."""
    one = Member(disk)
    other = Member(disk, [one], **window)
    one.file.map(0, 10)
    one.evict()
    start = window.get("start", 0)
    expected = content(start, 5)[:window.get("size", 5 * PAGE_SIZE)].ljust(5 * PAGE_SIZE, b"\0")
    assert other.file.map(0, 5).tobytes() == expected
    assert other.count(Count.CLEANCACHE_HITS) == 0


def test_a_page_written_back_is_flushed_for_all(members):
    """T103: also of what another member has put while it was dirty here."""
    one, other = members
    one.file.page(3)
    one.evict()
    one.file.overwrite(3, NEW)
    other.file.page(3)
    other.evict()
    one.file.sync()
    assert not one.pool.pages.keys() & {((0, PAGES, PAGES * PAGE_SIZE), 3)}
    one.guest.discard(one.file.inode.cached.values())
    assert one.file.page(3) == NEW
    one.evict()
    assert other.file.page(3) == NEW


def test_an_evicted_dirty_page_is_what_the_pool_has_next(members):
    one, other = members
    one.file.map(0, 10)
    one.evict()
    one.file.write(2 * PAGE_SIZE + 100, b"xyz")
    one.evict()
    expected = content(2)[:100] + b"xyz" + content(2)[103:]
    assert other.file.page(2) == expected and one.file.page(2) == expected


def test_a_file_that_was_cut_has_left_the_pool(members):
    """T104: its holes read zero, though the other puts the old blocks again."""
    one, other = members
    one.file.map(0, 20)
    one.evict()
    one.file.truncate(5 * PAGE_SIZE)
    assert not one.pool.pages
    other.file.map(0, 20)
    other.evict()
    one.file.truncate(20 * PAGE_SIZE)
    assert one.file.map(5, 15).tobytes() == bytes(15 * PAGE_SIZE)
    held = dict(one.pool.pages)
    one.evict()
    assert one.file.map(0, 5).tobytes() == content(0, 5)
    assert dict(one.pool.pages) == held
    one.kernel.check()


def test_one_leaves_and_the_other_goes_on(disk):
    one = Member(disk)
    other = Member(disk, [one])
    one.file.map(0, 5)
    one.evict()
    one.pool.destroy = lambda: None                  # of a shared pool it is a leaving
    one.kernel.close()
    assert not one.file.inode.cleancache.on
    assert one.file.map(0, 5).tobytes() == other.file.map(0, 5).tobytes() == content(0, 5)
    assert other.count(Count.CLEANCACHE_HITS) == 5


def test_a_disk_in_use_cannot_be_mounted(disk):
    kernel = Kernel(FakeGuest(128, ALL))
    kernel.open(disk)
    with pytest.raises(ValueError, match="mount it before its first file is opened"):
        kernel.mount(disk, shared=SECRET)


def test_who_may_not_join_is_told(disk, monkeypatch):
    guest = FakeGuest(128, ALL, pools=0)
    with pytest.raises(TmemRefused):
        Kernel(guest).mount(disk, shared=SECRET)


def test_without_cleancache_it_is_a_disk_like_any_other(disk):
    member = Member(disk, features={"hint-unused"})
    member.file.map(0, 5)
    member.evict()
    assert member.file.map(0, 5).tobytes() == content(0, 5) and reads(member) >= 10
    assert not member.guest.tmem.shares


def test_every_invalidate_is_sent(disk):
    """Another member may have put what this one never did."""
    one = Member(disk)
    calls, pool = [], one.pool
    for name in ("flush_many", "flush_object"):
        setattr(pool, name, lambda *arguments, name=name: calls.append((name, *arguments)))
    cleancache = SharedCleancache(pool, one.guest.counters.data)
    cleancache.opened(1, (7, 8, 9))
    cleancache.invalidate(1, [5, 2, U32 + 1])
    cleancache.written(1, [3])
    cleancache.invalidate(1, [])
    cleancache.invalidate_from(1, 4)
    cleancache.invalidate(1, [1])
    assert calls == [("flush_many", (7, 8, 9), [2, 5]), ("flush_many", (7, 8, 9), [3]), ("flush_object", (7, 8, 9))]
    assert one.count(Count.CLEANCACHE_INVALIDATES) == 4


def test_two_guests_of_a_real_cluster(machine, new_disk):
    """What one has read the other gets; what one has written it reads; who leaves takes nothing that others touched."""
    running = machine(budget=2000, scheme="tmem")
    guests = [running.guest(name, pages=128) for name in ("a", "b")]
    disk = new_disk(PAGES, np.zeros(512, np.uint64), content=True)
    with pytest.raises(TmemRefused, match="tmem-shared-auth"):
        Kernel(guests[0]).mount(disk, shared=SECRET)
    membership = running.machine.store.membership
    for number in (running.domain(guest.name).number for guest in guests):
        running.inside(lambda number=number: membership.authorise(number, secret_words(SECRET), True))
    kernels = [Kernel(guest) for guest in guests]
    for kernel in kernels:
        kernel.mount(disk, shared=SECRET)
    one, other = (kernel.open(disk) for kernel in kernels)
    one.map(0, 20)
    kernels[0].core.allocator.reclaim(128)
    assert other.map(0, 20).tobytes() == content(0, 20)
    assert guests[1].counters[Count.CLEANCACHE_HITS] == 20
    one.overwrite(3, NEW)
    one.sync()
    kernels[1].core.allocator.reclaim(128)           # it puts what it has, the old page among it
    kernels[0].core.allocator.reclaim(128)
    assert one.map(0, 20).tobytes() == content(0, 3) + NEW + content(4, 16)
    kernels[0].close()
    assert other.map(4, 10).tobytes() == content(4, 10)
    kernels[1].close()
