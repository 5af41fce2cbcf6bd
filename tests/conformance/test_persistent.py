"""T67-T70: persistent pages are kept, and their guest pays for them with its allowance of memory."""

import numpy as np
import pytest
from caller import EP, PP, Caller, noise

from shm.abi import Op, Refusal, Status
from shm.errors import OutOfMemory
from shm.pagestate import Essa

RAM, MOST = 16, 24           # pages of a guest's RAM, and of its max_mem


@pytest.fixture
def small(ample, way) -> Caller:
    """A guest with RAM for 16 pages that may have 24 in all."""
    return Caller(ample, way, RAM, MOST)


def put_until_refused(a: Caller, pool: int, first: int = 0) -> int:
    """Put persistent pages until one is refused; return how many were stored."""
    index = first
    while (status := a.put(pool, noise(index), index=index)) == Status.OK:
        index += 1
        assert index < 1000
    assert status == Status.ENOMEM
    return index - first


def use(guest, pages: int) -> None:
    """Write to the first pages of a guest's RAM."""
    for gfn in range(pages):
        guest.memory.write(gfn, bytes([gfn + 1]) * 4096)


def balloon(a: Caller, pages: int) -> None:
    """Give the first pages of RAM back."""
    gfns = np.arange(pages)
    a.guest.essa(Essa.SET_UNUSED, gfns)
    a.transfer.gfns[:pages] = gfns
    assert a.call(Op.BALLOON, pages) == (a.guest.channel.seq, Status.OK, pages)


@pytest.mark.parametrize("used", [0, 1, 10, RAM])
def test_t67_memory_and_persistent_pages_stay_within_max_mem(small, used):
    use(small.guest, used)
    pool = small.new_pool(PP)
    assert put_until_refused(small, pool) == MOST - used
    assert small.refusal == Refusal.MAX_MEM
    assert small.machine.ledger.held.get(small.number, 0) + small.pool(pool).pages == MOST


@pytest.mark.parametrize("pages", [1, 3, 10])
def test_t67_ballooning_down_makes_room_for_as_many(small, pages):
    use(small.guest, 10)
    pool = small.new_pool(PP)
    stored = put_until_refused(small, pool)
    balloon(small, pages)
    assert put_until_refused(small, pool, stored) == pages


def test_t67_ephemeral_pages_are_charged_to_nobody(small):
    pool = small.new_pool(EP)
    for index in range(4 * MOST):
        assert small.put(pool, noise(index), index=index) == Status.OK
    assert put_until_refused(small, small.new_pool(PP)) == MOST


RETURNS = {
    "flush": lambda a, pool: [a.flush(pool, index=index) for index in range(MOST)],
    "flush object": lambda a, pool: a.flush_object(pool),
    "destroy": lambda a, pool: (a.destroy(pool), a.new_pool(PP)),
}


@pytest.mark.parametrize("give_back", RETURNS.values(), ids=RETURNS)
def test_t68_what_is_dropped_is_allowed_again(small, give_back):
    pool = small.new_pool(PP)
    for _ in range(3):
        assert put_until_refused(small, pool) == MOST
        give_back(small, pool)


def test_t69_one_guests_pages_do_not_go_for_another(still_machine, new_caller, form, way):
    still = still_machine(64, "tmem", 0, form=form)
    a, b = new_caller(still), Caller(still, way, RAM, 64)
    mine = a.new_pool(PP)
    stored = [index for index in range(30) if a.put(mine, noise(index), index=index) == Status.OK]
    theirs, ephemeral = b.new_pool(PP), b.new_pool(EP)
    put_until_refused(b, theirs)
    assert b.refusal == Refusal.RESERVED
    for index in range(100):
        b.put(ephemeral, noise(index), index=index)
    use(b.guest, RAM)
    assert still.machine.ledger.free == 0 or still.machine.store.ephemeral == 0
    assert [a.get(mine, index=index) for index in stored] == [noise(index) for index in stored]


def fill_the_host(running, most: int):
    """Attach a guest and have it store persistent pages until it is refused; return the guest, its pool, how many."""
    guest = running.guest("full", 4, most)
    pool, count = guest.tmem.new_pool(persistent=True), 0
    while pool.put(1, count, np.full(4096, count % 255 + 1, np.uint8)):
        count += 1
    return guest, pool, count


def test_t70_a_host_full_of_persistent_pages_refuses_a_new_guests_memory(machine):
    """It is let in, finds frames as far as there are any, then is told; nothing hangs, and no page is lost."""
    running = machine(64, "tmem", 0)
    _, pool, count = fill_the_host(running, 200)
    new = running.guest("new", 40)
    with pytest.raises(OutOfMemory):
        use(new, 40)
    assert [pool.get(1, index)[0] for index in range(count)] == [index % 255 + 1 for index in range(count)]


@pytest.mark.parametrize("scheme", ["cmm2+tmem", "tmem"])
def test_t70_with_write_back_the_new_guest_gets_its_memory(machine, scheme):
    running = machine(64, scheme, 256, write_back=True)
    _, pool, count = fill_the_host(running, 200)
    assert count > 64
    new = running.guest("new", 40)
    use(new, 40)
    assert [new.memory.read(gfn)[0] for gfn in range(40)] == list(range(1, 41))
    assert [pool.get(1, index)[0] for index in range(count)] == [index % 255 + 1 for index in range(count)]


def test_t67_memory_does_not_grow_past_it_either(small):
    """The other way round: what persistent pages were allowed, RAM that was not yet touched cannot take again."""
    pool = small.new_pool(PP)
    assert put_until_refused(small, pool) == MOST
    with pytest.raises(OutOfMemory):
        use(small.guest, 1)
    small.flush_object(pool)
    use(small.guest, RAM)
