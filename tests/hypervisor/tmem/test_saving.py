"""The source: every persistent page once, then what changed meanwhile, and a client that is as it was (T85-T88)."""

import numpy as np
import pytest
from stores import EPHEMERAL, OID, PERSISTENT, A, B, a_store, get, new_pool, page, put

from hypervisor.tmem.saving import FEW, LEAST_ROOM, MOST_ROUNDS, Mode, Saving, saveable
from hypervisor.tmem.singles import Window
from hypervisor.tmem.stream import Kind, Reader
from shm.abi import PAGE_SIZE, PoolFlag, Status
from shm.errors import UsageProblem

TOKEN = "5" * 32
ROOM = 1 << 17
UUID = (5, 6)


@pytest.fixture
def store():
    with a_store(budget=512, write_back=False) as made:
        yield made


def begin(store, mode=Mode.TRACK, guest=A):
    assert saveable(store, guest)
    return Saving(store, guest, "mine", 100, TOKEN, mode)


def drain(saving, room=ROOM):
    """Take all that comes before the guest must be held still, and all after it; return the records."""
    reader, found = Reader(), []
    while not saving.done:
        if saving.wants_pause:
            saving.finish()
        found += reader.feed(saving.next(room))
    reader.finish()
    saving.end()
    return found


def of_kind(records, kind):
    return [record.value for record in records if record.kind == kind]


def sent(records):
    """Return {(pool, oid, index): content} after all pages and flushes, and how many pages came."""
    held, count = {}, 0
    for record in records:
        if record.kind in (Kind.PAGES, Kind.GONE):
            value = record.value
            for row, (oid, index) in enumerate(zip(value.oids.tolist(), value.indexes.tolist(), strict=True)):
                held.pop((value.pool, *oid, index), None)
                if record.kind == Kind.PAGES:
                    held[value.pool, *oid, index] = int(value.content[row].view(np.uint64)[0])
                    count += 1
    return held, count


def test_nothing_to_save(store):
    assert not saveable(store, A)
    store.clients.get(A)
    assert not saveable(store, A)
    new_pool(store, A)
    assert saveable(store, A)


def test_every_persistent_page_once_and_no_other(store):
    pools = [new_pool(store, A, PERSISTENT), new_pool(store, A, EPHEMERAL), new_pool(store, A, PERSISTENT)]
    for pool in pools:
        for index in range(40):
            put(store, A, pool, 100 * pool + index, index=index)
    new_pool(store, B, PERSISTENT)
    put(store, B, 0, 9)
    records = drain(begin(store), LEAST_ROOM + PAGE_SIZE)
    held, count = sent(records)
    assert held == {(pool, *OID, index): 100 * pool + index for pool in (0, 2) for index in range(40)}
    assert count == len(held)
    assert [(pool.number, pool.flags, pool.pages) for pool in of_kind(records, Kind.POOL)] == [
        (0, PERSISTENT, 40), (1, EPHEMERAL, 0), (2, PERSISTENT, 40)]
    assert of_kind(records, Kind.END) == [tuple(of_kind(records, Kind.POOL))]


def test_messages_hold_what_there_is_room_for(store):
    new_pool(store, A, PERSISTENT)
    for index in range(100):
        put(store, A, 0, index, index=index)
    saving = begin(store)
    sizes = []
    while not saving.wants_pause:
        sizes.append(len(saving.next(ROOM)))
    assert max(sizes) <= ROOM
    assert len([size for size in sizes if size > ROOM - 2 * LEAST_ROOM]) >= 100 * PAGE_SIZE // ROOM
    with pytest.raises(UsageProblem, match="ENOMEM"):
        saving.next(LEAST_ROOM - 1)
    saving.end()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_client_is_as_it_was_afterwards(store, mode, frozen):
    new_pool(store, A, PERSISTENT)
    client = store.clients.get(A)
    client.frozen = frozen
    saving = begin(store, mode)
    assert client.frozen == (frozen or mode != Mode.TRACK)
    assert client.replacing_flushes == (mode == Mode.LIVE)
    with pytest.raises(UsageProblem, match="already"):
        saveable(store, A)
    records = drain(saving)
    assert (client.frozen, client.replacing_flushes, client.changed) == (frozen, False, None)
    assert [facts.frozen for facts in of_kind(records, Kind.CLIENT)] == [frozen, frozen]


def test_a_shared_persistent_pool_is_not_moved(store):
    store.membership.authorise(A, UUID, True)
    store.create_pool(A, PERSISTENT | PoolFlag.SHARED, UUID)
    with pytest.raises(UsageProblem, match="shared pool that is persistent"):
        saveable(store, A)


def test_a_shared_ephemeral_pool_is_announced_without_pages(store):
    store.membership.authorise(A, UUID, True)
    store.create_pool(A, EPHEMERAL | PoolFlag.SHARED, UUID)
    put(store, A, 0, 1)
    records = drain(begin(store))
    assert sent(records) == ({}, 0)
    assert [(pool.uuid, pool.pages) for pool in of_kind(records, Kind.POOL)] == [(UUID, 0)]


# What changes meanwhile.  Each deed, and what the target holds of handles 0 to 3 after it.
DEEDS = {
    "replaced": (lambda store: put(store, A, 0, 50, index=1), {0: 0, 1: 50, 2: 2, 3: 3}),
    "replaced by many": (lambda store: store.put_many(A, 0, np.array([OID] * 2, np.uint64), np.arange(
        2, dtype=np.uint64), np.stack([page(50), page(51)])), {0: 50, 1: 51, 2: 2, 3: 3}),
    "written in part": (lambda store: store.write(A, 0, OID, 1, Window(0, 0, PAGE_SIZE), page(52)),
                        {0: 0, 1: 52, 2: 2, 3: 3}),
    "flushed": (lambda store: store.flush_page(A, 0, OID, 1), {0: 0, 2: 2, 3: 3}),
    "flushed many": (lambda store: store.flush_many(A, 0, np.array([OID] * 2, np.uint64), np.arange(
        2, dtype=np.uint64)), {2: 2, 3: 3}),
    "object flushed": (lambda store: store.flush_object(A, 0, OID), {}),
    "new": (lambda store: put(store, A, 0, 53, index=9), {0: 0, 1: 1, 2: 2, 3: 3, 9: 53}),
    "new and gone": (lambda store: (put(store, A, 0, 54, index=9), store.flush_page(A, 0, OID, 9)),
                     {0: 0, 1: 1, 2: 2, 3: 3}),
    "gone and new": (lambda store: (store.flush_page(A, 0, OID, 1), put(store, A, 0, 55, index=1)),
                     {0: 0, 1: 55, 2: 2, 3: 3}),
    "failed replacing": (lambda store: store.put(A, 0, OID, 1, None), {0: 0, 2: 2, 3: 3}),
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_changes_while_the_guest_runs_on(store, deed, when):
    """Whether its page was sent before or not."""
    act, outcome = DEEDS[deed]
    new_pool(store, A, PERSISTENT)
    for index in range(4):
        put(store, A, 0, index, index=index)
    saving, reader = begin(store), Reader()
    found = []
    if when == "after":
        while not saving.wants_pause:
            found += reader.feed(saving.next(ROOM))
    act(store)
    found += [record for record in drain_with(reader, saving)]
    assert sent(found)[0] == {(0, *OID, index): content for index, content in outcome.items()}
    if when == "before":
        assert saving.progress.resent == 0 or deed == "new", "sent as it is now, so not again"


def drain_with(reader, saving):
    while not saving.done:
        if saving.wants_pause:
            saving.finish()
        yield from reader.feed(saving.next(ROOM))
    saving.end()


def test_a_pool_made_meanwhile_comes_too(store):
    new_pool(store, A, PERSISTENT)
    saving, reader, found = begin(store), Reader(), []
    while not saving.wants_pause:
        found += reader.feed(saving.next(ROOM))
    new_pool(store, A, PERSISTENT)
    put(store, A, 1, 7)
    found += drain_with(reader, saving)
    assert sent(found)[0] == {(1, *OID, 0): 7}
    assert [pool.number for pool in of_kind(found, Kind.END)[0]] == [0, 1]


@pytest.mark.parametrize(("written", "rounds"), [
    (lambda turn: 200, MOST_ROUNDS), (lambda turn: 200 if turn < 5 else 0, 1), (lambda turn: FEW // 8, 0)])
def test_rounds_go_on_while_much_changes_and_end_all_the_same(store, written, rounds):
    """`written`: how many handles the guest replaces between two messages."""
    new_pool(store, A, PERSISTENT)
    for index in range(200):
        put(store, A, 0, index, index=index)
    saving, turn = begin(store), 0
    while not saving.wants_pause:
        saving.next(ROOM)
        turn += 1
        for index in range(written(turn)):
            put(store, A, 0, 1000 * turn + index, index=index)
    assert saving.progress.rounds == rounds
    while not saving.done:
        saving.finish()
        saving.next(ROOM)
    saving.end()
    assert saving.progress.pages == 200 + saving.progress.resent


def test_few_changes_are_worth_no_round(store):
    new_pool(store, A, PERSISTENT)
    for index in range(4):
        put(store, A, 0, index, index=index)
    saving = begin(store)
    saving.next(ROOM)
    assert saving.wants_pause and saving.progress.rounds == 0
    saving.end()


def test_live_replacing_puts_flush_and_are_told_as_gone(store):
    new_pool(store, A, PERSISTENT)
    for index in range(3):
        put(store, A, 0, index, index=index)
    saving, reader, found = begin(store, Mode.LIVE), Reader(), []
    while not saving.wants_pause:
        found += reader.feed(saving.next(ROOM))
    assert put(store, A, 0, 70, index=1) == Status.ENOSPC
    assert put(store, A, 0, 71, index=9) == Status.EFROZEN
    assert get(store, A, 0, index=1) == Status.NO
    found += drain_with(reader, saving)
    assert [record.indexes.tolist() for record in of_kind(found, Kind.GONE)] == [[1]]
    assert sent(found)[0] == {(0, *OID, 0): 0, (0, *OID, 2): 2}


def test_a_pool_is_not_destroyed_meanwhile(store):
    new_pool(store, A, PERSISTENT)
    saving = begin(store)
    assert store.destroy_pool(A, 0) == Status.EBUSY
    saving.end()
    assert store.destroy_pool(A, 0) == Status.OK


def test_what_was_sent_holds_until_somebody_interferes(store):
    new_pool(store, A, PERSISTENT)
    put(store, A, 0, 1)
    saving = begin(store)
    assert not saving.holds
    while not saving.done:
        saving.finish()
        saving.next(ROOM)
    assert saving.holds
    store.membership.empty(A)
    assert not saving.holds
    saving.end()


def test_a_guest_that_dies_is_not_held(store):
    new_pool(store, A, PERSISTENT)
    saving = begin(store)
    saving.finish()
    saving.next(ROOM)
    store.forget(A)
    assert not saving.holds
    saving.end()
    assert store.clients.known(A) is None
