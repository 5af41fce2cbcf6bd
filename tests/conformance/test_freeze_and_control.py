"""T39-T54: what the operator may ask, through the hypercalls of guests and the control's own calls."""

import os

import numpy as np
import pytest
from caller import EP, ES, MISS, OID, PP, Caller, noise

from hypervisor.tmem import figures, listing
from hypervisor.tmem.control import EVERYBODY
from hypervisor.tmem.forms import Form
from shm.abi import PAGE_SIZE, Op, Status

KINDS = [EP, ES, PP]
UNKNOWN = 77                 # no guest's number
PAGES_A_MIB = (1 << 20) // PAGE_SIZE


@pytest.fixture(params=KINDS, ids=["EP", "ES", "PP"])
def pool(request, a):
    """A pool that holds page 5 at index 0, of a guest that is frozen."""
    made = a.new_pool(request.param)
    assert a.put(made, 5) == Status.OK
    assert a.control.freeze(a.number) == 0
    return made


def test_t39_new_put_of_the_frozen_is_refused_and_counted(a, pool):
    before = a.counts(pool)
    assert a.put(pool, 6, index=1) == Status.EFROZEN == -1000
    after = a.counts(pool)
    assert (after["pt"] - before["pt"], after["px"]) == (1, 1)
    assert a.held(pool, range(2)) == [0]


def test_t40_duplicate_put_of_the_frozen_replaces(a, pool):
    assert a.put(pool, 7) == Status.OK
    assert a.get(pool) == 7


def test_t41_get_of_the_frozen_works_and_takes_as_ever(a, pool):
    assert a.get(pool) == 5
    assert a.get(pool) == (MISS if a.pool(pool).exclusive else 5)


@pytest.mark.parametrize("flush", [Caller.flush, Caller.flush_object])
def test_t42_flush_of_the_frozen_says_so_and_is_done(a, pool, flush):
    assert flush(a, pool) == Status.EFROZEN
    assert a.get(pool) == MISS


def test_t43_pools_come_and_go_while_frozen(a, pool):
    assert a.new_pool() == 1
    assert [a.destroy(1), a.destroy(pool)] == [Status.OK, Status.OK]


def test_t44_thaw_restores_puts(a, pool):
    assert a.control.thaw(a.number) == 0
    assert a.put(pool, 6, index=1) == Status.OK
    assert a.flush(pool) == Status.OK


def test_t45_freezing_one_leaves_others_and_all_means_all(a, b):
    pools = {caller: caller.new_pool() for caller in (a, b)}
    assert a.control.freeze(a.number) == 0
    assert [caller.put(made, 5) for caller, made in pools.items()] == [Status.EFROZEN, Status.OK]
    assert a.control.freeze(EVERYBODY) == 0
    assert [caller.put(made, 5, index=1) for caller, made in pools.items()] == [Status.EFROZEN] * 2
    assert a.control.thaw(EVERYBODY) == 0
    assert [caller.put(made, 5, index=1) for caller, made in pools.items()] == [Status.OK] * 2
    assert [a.control.freeze(UNKNOWN), a.control.thaw(UNKNOWN)] == [-1, -1]


def test_t46_who_comes_after_freeze_all_is_frozen_too(ample, a, new_caller):
    a.control.freeze(EVERYBODY)
    late = new_caller(ample)
    made = late.new_pool()
    assert late.put(made, 5) == Status.EFROZEN
    a.control.thaw(EVERYBODY)
    assert late.put(made, 5) == Status.OK


def test_t46_who_came_after_freeze_all_was_not_frozen_in_xen(xen, new_caller):
    first = new_caller(xen)
    old = first.new_pool()
    first.control.freeze(EVERYBODY)
    late = new_caller(xen)
    assert [first.put(old, 5), late.put(late.new_pool(), 5)] == [Status.EFROZEN, Status.OK]


def test_t47_frames_do_not_grow_while_all_are_frozen(a, b):
    pools = {caller: [caller.new_pool(kind) for kind in KINDS] for caller in (a, b)}
    rng = np.random.default_rng(47)
    for caller, made in pools.items():
        for index in range(12):
            assert caller.put(made[index % 3], noise(index), index=index) == Status.OK
    a.control.freeze(EVERYBODY)
    frames, pages = a.store.heap.in_use, len(a.store.catalogue)
    for step in range(200):
        caller = (a, b)[rng.integers(2)]
        made, index = pools[caller][rng.integers(3)], int(rng.integers(16))
        if step % 3:
            caller.put(made, noise(int(rng.integers(20))), index=index)
        else:
            caller.get_status(made, index=index)
        assert a.store.heap.in_use <= frames
        assert len(a.store.catalogue) <= pages
    assert a.store.heap.in_use > 0


@pytest.fixture
def wide(still_machine):
    """A machine of 8 MiB, and a guest that may have it all: raw pages, a frame each."""
    still = still_machine(2048, "tmem", 0)
    caller = Caller(still, pages=16, max_pages=2000)
    return caller, caller.new_pool(), caller.new_pool(PP)


def fill(caller, pool, count, start=0):
    for index in range(start, start + count):
        assert caller.put(pool, noise(index), index=index) == Status.OK


def test_t48_freeable_is_free_and_ephemeral_frames_in_whole_mib(wide):
    caller, ephemeral, persistent = wide
    fill(caller, persistent, 600)
    assert caller.control.freeable_mib() == caller.store.heap.spare // PAGES_A_MIB == 0
    fill(caller, ephemeral, PAGES_A_MIB - 1 - caller.store.heap.spare)
    for step in range(200):
        caller.put(ephemeral, noise(step), index=5000 + step)
        expected = (caller.store.heap.spare + caller.store.ephemeral) // PAGES_A_MIB
        assert caller.control.freeable_mib() == expected
    assert expected == 1


@pytest.mark.parametrize("kib", [4, 64, 400, 1 << 20])
def test_t48_and_t49_flush_gives_back_what_was_freeable_in_every_form(ample, form, kib):
    """Pages that share slabs with persistent ones, or hold no frame, are no help; what is answered has gone back."""
    caller, twin = Caller(ample, max_pages=256), Caller(ample, max_pages=256)
    ephemeral, persistent = caller.new_pool(), twin.new_pool(PP)
    for index in range(120):
        assert caller.put(ephemeral, (8, 0, noise(index // 2))[index % 3], index=index) == Status.OK
        assert twin.put(persistent, (8, 10, noise(index))[index % 3], index=index) == Status.OK
    store, ledger = caller.store, ample.machine.ledger
    freeable, free = store.heap.spare + figures.ephemeral_frames(store), ledger.free
    given = caller.control.flush(EVERYBODY, kib) // 4
    assert ledger.free - free == given
    assert min(kib // 4, freeable) <= given <= freeable
    if kib // 4 > freeable:
        assert (given, store.ephemeral) == (freeable, 0)


@pytest.mark.parametrize(("kib", "pages"), [(1, 1), (4, 1), (5, 2), (40, 10), (41, 11)])
def test_t49_flush_rounds_up_and_takes_the_oldest_ephemeral(wide, kib, pages):
    caller, ephemeral, persistent = wide
    fill(caller, persistent, 3)
    fill(caller, ephemeral, 30)
    caller.store.heap.trim(caller.store.heap.spare)
    free = caller.machine.ledger.free
    assert caller.control.flush(EVERYBODY, kib) == pages * 4
    assert caller.machine.ledger.free == free + pages
    assert caller.held(ephemeral, range(40)) == list(range(pages, 30))
    assert caller.held(persistent, range(3)) == [0, 1, 2]


def test_t49_flush_returns_all_there_was_and_is_the_hosts_alone(wide):
    caller, ephemeral, persistent = wide
    fill(caller, persistent, 3)
    fill(caller, ephemeral, 7)
    caller.store.heap.trim(caller.store.heap.spare)
    assert caller.control.flush(caller.number, 4) == -1
    assert caller.held(ephemeral, range(7)) == list(range(7))
    assert caller.control.flush(EVERYBODY, 1 << 20) == 28
    assert (caller.store.ephemeral, caller.store.persistent) == (0, 3)


def bytes_of(heap, frame):
    """Read a frame without touching it: a touch of its mapping would make it resident again."""
    return os.pread(heap.object.fd, PAGE_SIZE, frame * PAGE_SIZE)


def test_t50_frames_handed_back_are_zeroed(wide):
    caller, ephemeral, _ = wide
    fill(caller, ephemeral, 20)
    heap = caller.store.heap
    assert sum(any(bytes_of(heap, frame)) for frame in range(64)) >= 20
    caller.control.flush(EVERYBODY, 80 + heap.spare * 4)
    assert heap.in_use == heap.spare == 0
    assert not any(any(bytes_of(heap, frame)) for frame in range(64))


def test_t51_destroy_drops_all_pools_of_that_guest_alone(a, b):
    for caller in (a, b):
        for kind in (EP, PP):
            assert caller.put(caller.new_pool(kind), 5) == Status.OK
    assert a.control.destroy(a.number) == 0
    assert [a.get(0), a.put(1, 5), b.get(1)] == [Status.ENODEV, Status.ENODEV, 5]
    assert a.new_pool() == 0
    assert a.control.destroy(UNKNOWN) == -1


def test_t51_destroy_only_thawed_in_xen(xen, new_caller):
    caller = new_caller(xen)
    pool = caller.new_pool(PP)
    caller.put(pool, 5)
    caller.control.freeze(caller.number)
    assert caller.control.destroy(caller.number) == 0
    assert [caller.get(pool), caller.put(pool, 6, index=1)] == [5, Status.OK]


def test_t52_weights_sum_up_by_what_is_new_less_what_was(a, b):
    control, clients = a.control, a.store.clients
    assert [control.set_weight(caller.client.number, 0) for caller in (a, b)] == [0, 0]
    assert control.set_weight(a.number, 10) == 0
    first = clients.total_weight
    assert control.set_weight(a.number, 4) == 0
    assert (clients.total_weight - first, a.client.weight) == (-6, 4)
    assert control.set_weight(EVERYBODY, 3) == 0
    assert clients.total_weight == 6
    assert control.set_weight(UNKNOWN, 3) == -1


def test_t52_cap_is_in_the_list_and_holds(a):
    pool = a.new_pool(PP)
    assert a.control.set_cap(a.number, 2) == 0
    assert [a.put(pool, n, index=n) for n in range(3)] == [Status.OK, Status.OK, Status.ENOMEM]
    assert "ca:2," in listing.listed(a.store, False, 1 << 16)


def test_t52_cap_had_no_effect_in_xen(xen, new_caller):
    caller = new_caller(xen)
    pool = caller.new_pool(PP)
    assert caller.control.set_cap(caller.number, 2) == 0
    assert [caller.put(pool, n, index=n) for n in range(3)] == [Status.OK] * 3
    assert "ca:2," in listing.listed(caller.store, False, 1 << 16)


@pytest.mark.parametrize("subop", [4, 9, 99, 1 << 31])
def test_t52_unknown_sub_operation_is_refused(a, subop):
    assert a.control.hypercall(subop, EVERYBODY, 0, 0) == -1


def test_t52_sub_operations_have_xens_numbers(xen, new_caller):
    """In Xen 4.2 a guest could call them; the same through the hypercall."""
    caller = new_caller(xen)
    pool = caller.new_pool()
    assert caller.call(Op.CONTROL, 1, caller.number, 0, 0).status == Status.OK
    assert caller.put(pool, 5) == Status.EFROZEN
    assert caller.call(Op.CONTROL, 0, caller.number, 0, 0).status == Status.OK
    assert caller.call(Op.CONTROL, 5, caller.number, 7, 0).status == Status.OK
    assert caller.call(Op.CONTROL, 6, caller.number, 9, 0).status == Status.OK
    assert (caller.client.weight, caller.client.cap) == (7, 9)
    assert caller.call(Op.CONTROL, 2, caller.number, 4, 0).status == -1
    assert caller.call(Op.CONTROL, 3, UNKNOWN, 0, 0).status == -1
    assert caller.put(pool, 5) == Status.OK
    assert caller.call(Op.CONTROL, 8, EVERYBODY, 0, 0).value == 0


def test_t53_compress_is_refused_with_dedup_and_holds_for_later_puts(a):
    pool, dedup = a.new_pool(PP), a.client.form == Form.DEDUP
    contents = [0, 5, 6, 7, 8, noise(1)]
    for index, data in enumerate(contents):
        assert a.put(pool, data, index=index) == Status.OK
    assert a.control.set_compress(a.number, 1) == (-1 if dedup else 0)
    assert a.client.form == (Form.DEDUP if dedup else Form.LZ4)
    for index, data in enumerate(contents):
        assert a.put(pool, data, index=10 + index) == Status.OK
    assert a.control.set_compress(a.number, 0) == (-1 if dedup else 0)
    assert a.put(pool, 8, index=20) == Status.OK
    read = [a.get(pool, index=start + n) for start in (0, 10) for n in range(len(contents))]
    assert read == contents * 2
    assert a.get(pool, index=20) == 8


def test_t53_what_was_stored_before_the_switch_keeps_its_form(still_machine):
    caller = Caller(still_machine(1024, "tmem", 0), max_pages=256)
    pool = caller.new_pool()
    caller.put(pool, 8)
    assert caller.control.set_compress(caller.number, 1) == 0
    caller.put(pool, 8, index=1)
    found = caller.store.storage.figures()
    assert (found["raw_pages"], found["cp"]) == (1, 1)


GLOBAL = ["Tt", "Te", "Cf", "Af", "Pf", "Ta", "Lm", "Et", "Ea", "Rt", "Ra", "Rx", "Fp"]
GLOBAL_LONG = ["Ec", "Em", "Oc", "Om", "Nc", "Nm", "Pc", "Pm", "Fc", "Fm", "Sc", "Sm", "Ep", "Gd", "Zt", "Gz"]
CLIENT, CLIENT_LONG = ["CI", "ww", "ca", "co", "fr", "Tc", "Ge", "Pp", "Gp"], ["Ec", "Em", "cp", "cb", "cn", "cm"]
POOL_LONG = ["Pc", "Pm", "Oc", "Om", "Nc", "Nm", "ps", "pt", "pd", "pr", "px", "gs", "gt", "fs", "ft", "os", "ot"]


def parsed(text):
    """Read lines as Xen's own tool did: a letter, then keys and values."""
    assert text.endswith("\n")
    found = []
    for each in text.splitlines():
        head, _, rest = each.partition("=")
        found.append((head, [tuple(pair.split(":")) for pair in rest.split(",")]))
    return found


@pytest.mark.parametrize("is_long", [False, True])
def test_t54_list_parses_in_xens_order(a, b, is_long):
    for caller in (a, b):
        for kind in (EP, PP, ES):
            caller.put(caller.new_pool(kind), 5)
    lines = parsed(listing.listed(a.store, is_long, 1 << 16))
    assert [head for head, _ in lines] == ["G", "S", "C", "P", "P", "P", "C", "P", "P", "P"]
    keys = [[key for key, _ in pairs] for _, pairs in lines]
    assert keys[0] == GLOBAL + GLOBAL_LONG * is_long
    assert keys[1] == ["SI", "PT", "U0", "U1", "SC", "SC"] + POOL_LONG * is_long
    assert keys[2] == CLIENT + CLIENT_LONG * is_long
    assert keys[3] == ["CI", "PI", "PT", "U0", "U1"] + POOL_LONG * is_long
    assert [dict(pairs)["PT"] for _, pairs in lines[3:6]] == ["EP", "PP", "ES"]
    assert (dict(lines[5][1])["U0"], dict(lines[5][1])["U1"]) == ("5", "6")


def test_t54_list_says_what_is(a):
    pool = a.new_pool(PP)
    for index in range(3):
        a.put(pool, noise(index), (1, 2, index % 2), index)
    a.get(pool, (1, 2, 0), 0)
    a.control.freeze(a.number)
    a.put(pool, 9, index=9)
    (_, store), (_, client), (_, pages) = parsed(listing.listed(a.store, True, 1 << 16))
    store, client, pages = dict(store), dict(client), dict(pages)
    assert (store["Pc"], store["Oc"], store["Ec"], store["Fc"], store["Te"]) == ("3", "2", "0", "3", "1")
    assert int(store["Tt"]) == 6
    assert (client["CI"], client["fr"], client["Pp"], client["Gp"]) == (str(a.number), "1", "3", "1")
    assert client["co"] == str(int(a.client.form == Form.LZ4))
    assert client["cn"] == ("3" if a.client.form == Form.LZ4 else "0")
    assert [pages[key] for key in ("Pc", "Pm", "Oc", "Om", "ps", "pt", "px", "gs", "gt")] == [
        "3", "3", "2", "2", "3", "4", "1", "1", "1"]


def test_t54_compressed_pages_are_counted_to_their_guest(still_machine):
    still = still_machine(1024, "tmem", 0, form="lz4")
    callers = [Caller(still, max_pages=256) for _ in range(2)]
    for count, caller in enumerate(callers, start=1):
        pool = caller.new_pool()
        for index in range(count):
            caller.put(pool, 8, index=index)
    clients = [dict(pairs) for head, pairs in parsed(listing.listed(still.machine.store, True, 1 << 16)) if head == "C"]
    assert [client["cp"] for client in clients] == ["1", "2"]
    assert 0 < int(clients[0]["cb"]) < PAGE_SIZE
    assert int(clients[1]["cb"]) == 2 * int(clients[0]["cb"])


def test_t54_short_buffer_ends_on_a_line(a, b):
    for caller in (a, b):
        caller.put(caller.new_pool(ES), 5)
    whole = listing.listed(a.store, True, 1 << 16)
    ends = {n + 1 for n, letter in enumerate(whole) if letter == "\n"} | {0}
    assert len(ends) > 5
    for limit in range(len(whole) + 2):
        cut = listing.listed(a.store, True, limit)
        assert whole.startswith(cut)
        assert len(cut) == max(end for end in ends if end <= limit)


def test_control_is_not_a_guests_to_call(a):
    assert a.call(Op.CONTROL, 1, EVERYBODY, 0, 0).status == Status.EPERM
    assert a.put(a.new_pool(), 5, OID) == Status.OK
