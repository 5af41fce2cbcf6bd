"""A guest whose tmem has moved: the call that learns of it is made again elsewhere, with all that lay in the buffer."""

import numpy as np
import pytest

from guests.tmem import MOST_MOVES, TmemClient
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, Op, Reply, Status
from shm.counters import Count
from shm.errors import BrokenInvariant, TmemRefused
from shm.transfer import TRANSFER_PAGES, Transfer

PAGE = b"\x5a" * PAGE_SIZE


class Host:
    """A hypervisor at the end of the wire: a dictionary of pages behind a transfer buffer of its own.

    `leaves_after` calls it has moved: it answers EMOVED and touches nothing, multicalls by their entries or as a whole.
    """

    def __init__(self, pages: dict, leaves_after: int = 1 << 30, whole: bool = False) -> None:
        self.pages, self.left, self.whole = pages, leaves_after, whole
        self.transfer = Transfer(np.zeros(TRANSFER_PAGES * PAGE_SIZE, np.uint8))
        self.calls: list[Op] = []

    def call(self, op: Op, *arguments: int) -> Reply:
        self.calls.append(op)
        self.left -= 1
        entries = self.transfer.entries[:arguments[0]] if op == Op.MULTICALL else None
        if self.left < 0 and (entries is None or self.whole):
            return Reply(1, Status.EMOVED, 0)
        if self.left < 0:
            entries["status"] = Status.EMOVED
        elif entries is not None:
            for entry in entries:
                handle = (*entry["oid"].tolist(), int(entry["index"]))
                entry["status"] = self._one(entry["op"], handle, self.transfer.pages[entry["slot"]])
        else:
            return Reply(1, self._one(op, arguments[1:], self.transfer.pages[0]), 0)
        return Reply(1, Status.OK, 0)

    def _one(self, op: int, handle: tuple[int, ...], slot: np.ndarray) -> int:
        if op == Op.PUT_PAGE:
            self.pages[handle] = slot.tobytes()
        elif op == Op.FLUSH_PAGE:
            self.pages.pop(handle, None)
        elif op == Op.GET_PAGE:
            if handle not in self.pages:
                return Status.NO
            slot[:] = np.frombuffer(self.pages[handle], np.uint8)
        return Status.OK


class Way:
    """A client that starts at the first of several hosts, and is sent on from each to the next."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts, self.asked = list(hosts), 0
        self.counters = np.zeros(512, np.uint64)
        self.client = TmemClient(hosts[0], hosts[0].transfer, self.counters)
        self.client.moved = self.next
        self.pool = self.client.new_pool(persistent=True)
        for host in hosts:
            host.calls.clear()

    def next(self):
        """Go on; the buffer that is left is given up, and reads 0xEE."""
        left = self.hosts[self.asked].transfer
        left.pages[:], left.entries.view(np.uint8)[:] = 0xEE, 0xEE
        self.asked += 1
        return self.hosts[self.asked], self.hosts[self.asked].transfer


def pages_of(numbers) -> np.ndarray:
    return np.asarray(numbers, np.uint64).reshape(-1, 1).repeat(PAGE_SIZE // 8, axis=1).view(np.uint8)


WHOLE = pytest.mark.parametrize("whole", [False, True], ids=["by entries", "as a whole"])


def two(whole: bool = False, stays: int = 1) -> Way:
    """The pages are at the second host; the first answers `stays` calls, the first of which makes the pool."""
    pages = {(1, 0, 0, n): pages_of([n])[0].tobytes() for n in range(300)}
    return Way(Host(pages, stays, whole), Host(pages))


def test_a_put_arrives_with_its_page():
    way = two()
    assert way.pool.put(7, 3, PAGE) and way.pool.put(7, 4, bytes(PAGE_SIZE))
    assert way.hosts[1].pages[7, 0, 0, 3] == PAGE
    assert (way.asked, way.hosts[0].calls, way.hosts[1].calls) == (1, [Op.PUT_PAGE], [Op.PUT_PAGE] * 2)


def test_a_get_reads_the_new_buffer():
    way = two()
    way.hosts[0].transfer.first[:] = b"\xee" * PAGE_SIZE
    assert way.pool.get(1, 5) == pages_of([5])[0].tobytes()
    assert way.pool.get(1, 999) is None


@WHOLE
@pytest.mark.parametrize("count", [1, 5, MULTICALL_LIMIT])
def test_a_batch_arrives_with_its_entries_and_pages(whole, count):
    way = two(whole)
    assert way.pool.put_many(2, range(count), pages_of(range(1000, 1000 + count))).all()
    stored = [np.frombuffer(way.hosts[1].pages[2, 0, 0, n], np.uint64)[0] for n in range(count)]
    assert stored == list(range(1000, 1000 + count))
    assert way.asked == 1


@WHOLE
def test_a_batch_that_moves_half_way_is_put_together(whole):
    """The first multicall at the old host, the others at the new one; each once."""
    way = two(whole, stays=2)
    hits, pages = way.pool.get_many(1, range(400))
    assert hits.tolist() == [True] * 300 + [False] * 100
    assert (pages[:300] == pages_of(range(300))).all() and not pages[300:].any()
    assert [len(host.calls) for host in way.hosts] == [2, 1]
    way.pool.flush_many(1, range(300))
    assert way.hosts[1].pages == {} and len(way.hosts[1].calls) == 3


def test_every_call_is_counted_where_it_was_made():
    way = two()
    before = way.counters.copy()
    way.pool.put_many(2, range(3), pages_of(range(3)))
    gained = way.counters - before
    assert (gained[Count.HYPERCALLS], gained[Count.MULTICALLS]) == (2, 2)


def test_moved_twice_while_nobody_called():
    pages = {(1, 0, 0, 0): PAGE}
    way = Way(Host(pages, 1), Host(pages, 0), Host(pages))
    assert way.pool.get(1, 0) == PAGE
    assert way.asked == 2
    assert way.client.channel is way.hosts[2] and way.client.transfer is way.hosts[2].transfer


def test_a_circle_ends():
    way = Way(Host({}, 1), *[Host({}, 0) for _ in range(MOST_MOVES)])
    with pytest.raises(TmemRefused, match="was not found"):
        way.pool.get(1, 0)
    assert way.asked == MOST_MOVES


def test_nobody_who_could_follow():
    way = two()
    way.client.moved = None
    with pytest.raises(TmemRefused, match="moved to another cluster, and nothing here can follow"):
        way.pool.put(1, 0, PAGE)


def test_a_way_that_fails_leaves_the_client_where_it_was():
    way = two()
    way.client.moved = lambda: (_ for _ in ()).throw(OSError("no such cluster"))
    with pytest.raises(OSError, match="no such cluster"):
        way.pool.put(1, 0, PAGE)
    assert way.client.channel is way.hosts[0] and way.client.transfer is way.hosts[0].transfer


def test_half_a_batch_cannot_have_moved():
    way = two()
    host, real = way.hosts[0], way.hosts[0].call

    def half(op, *arguments):
        reply = real(op, *arguments)
        host.transfer.entries["status"][0] = Status.OK
        return reply
    host.call = half
    with pytest.raises(BrokenInvariant, match="2 of 3 entries"):
        way.pool.put_many(2, range(3), pages_of(range(3)))


def test_a_real_guest_goes_on_in_another_cluster(still_machine):
    """Pools keep their numbers; memory stays where it is."""
    old, new = (still_machine(budget=512).guest(pages=16, max_pages=300) for _ in range(2))
    pool = old.tmem.new_pool(persistent=True)
    new.tmem.new_pool(persistent=True)
    assert pool.put(1, 0, PAGE)
    old.domain.moved = {"cluster": "elsewhere", "token": "0" * 32}
    old.tmem.moved = lambda: (new.channel, new.transfer)
    assert pool.put_many(1, range(1, 40), pages_of(range(1, 40))).all()
    hits, pages = pool.get_many(1, range(40))
    assert hits.tolist() == [False] + [True] * 39 and (pages[1:] == pages_of(range(1, 40))).all()
    old.memory.write(3, PAGE)
    assert old.memory.read(3) == PAGE
