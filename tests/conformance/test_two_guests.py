"""Two guests against dictionaries that may forget: invariants I1-I11 of tmem, whatever happens in whatever order.

The model of a pool says of each handle which pages a get may bring; no entry: it must miss.  A persistent handle in it
must hit.  An ephemeral one may miss at any time, and then leaves the model: nothing comes back (I6).  So old data, torn
data and other guests' data are all found at the get that brings them.
"""

import os
import secrets

import numpy as np
import pytest
from caller import BAD_SLOT, EP, ES, PP, Caller, noise, page
from harness.machines import Still
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypervisor.machine import Settings
from hypervisor.tmem.control import EVERYBODY
from hypervisor.tmem.forms import Form
from shm.abi import PAGE_SIZE, Op, Status
from shm.errors import OutOfMemory
from shm.pagestate import Essa

RAM, MOST = 8, 24            # pages of a guest's RAM, and of its max_mem
MOST_POOLS = 5               # of each guest
UUIDS = [(5, 6), (7, 8)]
CONTENTS = [*range(12), *(noise(number) for number in range(12))]
WINDOWS = [(0, 0, PAGE_SIZE), (8, 100, 700), (4000, 0, 96), (100, 4089, 7), (7, 7, 0)]
PUTS = (Op.PUT_PAGE, Op.NEW_PAGE, Op.WRITE)
GETS = (Op.GET_PAGE, Op.READ)
MOVING = (Op.PUT_PAGE, Op.WRITE, *GETS)  # these have a slot
ASKED = [Op.PUT_PAGE] * 5 + [Op.GET_PAGE] * 4 + [Op.NEW_PAGE, Op.READ, Op.WRITE, Op.FLUSH_PAGE, Op.FLUSH_OBJECT]

whose = st.integers(0, 1)
anybody = st.sampled_from([0, 1, EVERYBODY])
asked = st.tuples(st.sampled_from(ASKED), st.integers(0, 2), st.integers(0, 4), st.sampled_from(CONTENTS),
                  st.sampled_from(WINDOWS), st.integers(0, 15).map(lambda bad: bad == 0))


class Model:
    """What is known of one pool."""

    def __init__(self, flags: int, uuid: tuple[int, int] | None) -> None:
        self.persistent, self.exclusive, self.uuid = flags == PP, flags == EP, uuid
        self.members: list[int] = []                         # the owner first
        self.pages: dict[tuple[int, int], set[bytes]] = {}   # (object, index): the pages that a get may bring


def merged(old: bytes, window: tuple[int, int, int], new: bytes) -> bytes:
    offset, at, length = window
    return old[:offset] + new[at:at + length] + old[offset + length:]


class TwoGuests(RuleBasedStateMachine):
    """Callers of one small machine, and the models of their pools."""

    @initialize(budget=st.sampled_from([48, 64, 256]), cap=st.sampled_from([0, 0, 5]), form=st.sampled_from(list(Form)),
                ways=st.tuples(*[st.sampled_from(["single", "multicall"])] * 2))
    def begin(self, budget, cap, form, ways):
        name = f"t-{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}-{secrets.token_hex(6)}"
        self.still = Still(Settings(name, budget, "tmem", ephemeral_pages=cap, form=form.name.lower()))
        self.guests = [Caller(self.still, way, RAM, MOST) for way in ways]
        self.pools: list[dict[int, Model]] = [{}, {}]
        self.frozen, self.all_frozen = [False, False], False
        for number, guest in enumerate(self.guests):
            guest.client.authorised.update(UUIDS)
            for flags in (EP, PP, ES):
                self.create(number, flags, UUIDS[0])

    # pages

    @rule(number=whose, pool=st.integers(0, MOST_POOLS), operation=asked)
    def one(self, number, pool, operation):
        """A call of its own, in the caller's way."""
        self.ask(number, pool, [operation], together=False)

    @rule(number=whose, pool=st.integers(0, MOST_POOLS), operations=st.lists(asked, min_size=1, max_size=10))
    def many(self, number, pool, operations):
        """A multicall of whatever operations, on the same handles too."""
        self.ask(number, pool, operations, together=True)

    @rule(number=whose, pool=st.integers(0, MOST_POOLS), op=st.sampled_from([Op.PUT_PAGE, Op.GET_PAGE, Op.FLUSH_PAGE]),
          first=st.sampled_from(CONTENTS), indexes=st.sets(st.integers(0, 9), min_size=2))
    def bulk(self, number, pool, op, first, indexes):
        """A multicall that the store carries out at once."""
        self.ask(number, pool, [(op, 1, index, CONTENTS[(first + index) % len(CONTENTS)], WINDOWS[0], False)
                                for index in sorted(indexes)], together=True)

    @rule(number=whose, pool=st.integers(0, MOST_POOLS), operations=st.lists(asked, min_size=1, max_size=6))
    def without_frames(self, number, pool, operations):
        """No new data finds a frame, whatever is evicted for it (I9)."""
        heap = self.still.machine.heap
        room, heap.room = heap.room, lambda frames: False
        heap.trim(heap.spare)
        self.ask(number, pool, operations, together=True)
        heap.room = room

    def ask(self, number, pool, operations, together) -> None:
        """Have operations carried out, and hold each answer and what came against the model."""
        guest = self.guests[number]
        pool = sorted(self.pools[number])[pool % len(self.pools[number])] if self.pools[number] else pool
        guest.transfer.pages[:len(operations)] = np.stack([page(content) for _, _, _, content, _, _ in operations])
        for row, (op, oid, index, _, window, bad) in enumerate(operations):
            guest.enter(row, op, pool, (oid, 0, 9), index, BAD_SLOT + row if bad and op in MOVING else row, window)
        if together:
            guest.call(Op.MULTICALL, len(operations))
            statuses = guest.transfer.entries["status"][:len(operations)].tolist()
        else:
            op, oid, index, _, window, _ = operations[0]
            statuses = [guest.one(op, pool, (oid, 0, 9), index, int(guest.transfer.entries["slot"][0]), window)]
        came = [bytes(row) for row in guest.transfer.pages[:len(operations)]]
        guest.transfer.pages[:] = 0xEE                       # I1: what was put is no longer there
        for operation, status, data in zip(operations, statuses, came, strict=True):
            self.settle(number, pool, operation, status, data)

    def settle(self, number, pool, operation, status, data) -> None:
        """Hold one answer against the model, and bring the model up to it."""
        op, oid, index, content, window, bad = operation
        model, handle, sent = self.pools[number].get(pool), (oid, index), page(content).tobytes()
        if model is None:
            assert status == Status.ENODEV
            assert data == sent
        elif op in PUTS:
            self.settle_put(model, handle, self.wanted(model, handle, op, window, sent), status, bad and op in MOVING)
        elif op in GETS:
            self.settle_get(model, handle, window if op == Op.READ else WINDOWS[0], status, (sent, data), bad)
        else:
            gone = [handle] if op == Op.FLUSH_PAGE else [known for known in model.pages if known[0] == oid]
            assert status == (Status.EFROZEN if self.is_frozen(model) else Status.OK)
            for known in gone:
                model.pages.pop(known, None)

    def wanted(self, model, handle, op, window, sent) -> set[bytes]:
        """Return the pages of which one is stored if this put is."""
        if op != Op.WRITE:
            return {sent if op == Op.PUT_PAGE else bytes(PAGE_SIZE)}
        there = set(model.pages.get(handle, ()))
        if not (there and model.persistent):
            there.add(bytes(PAGE_SIZE))                      # an ephemeral one may have gone
        return {merged(old, window, sent) for old in there}

    def settle_put(self, model, handle, pages, status, bad) -> None:
        known, frozen = handle in model.pages, self.is_frozen(model)
        assert not (bad and status == Status.OK)
        if status == Status.OK:
            assert known or not frozen
            model.pages[handle] = pages
            return
        model.pages.pop(handle, None)                        # I9, I10: a put that fails leaves nothing
        assert status in (Status.EFAULT, Status.ENOSPC, Status.EFROZEN, Status.ENOMEM)
        assert status != Status.EFAULT or bad
        assert status != Status.EFROZEN or frozen
        if model.persistent and not bad:
            assert known == (status == Status.ENOSPC)
        if frozen and not known:
            assert status == Status.EFROZEN

    def settle_get(self, model, handle, window, status, crossed, bad) -> None:
        (sent, data), known = crossed, model.pages.get(handle)
        offset, at, length = window
        if status != Status.OK:
            assert data == sent, "a miss touched the destination (T20)"
            assert status == Status.EFAULT if bad else status in (Status.NO, Status.EEMPTY)
            assert bad or not (known and model.persistent), "a persistent page is gone (I3)"
            if not bad:
                model.pages.pop(handle, None)
            return
        assert known, "something came that must not be there (I4-I6)"
        found = {old for old in known if merged(sent, (at, offset, length), old) == data}
        assert found, "not what was put last"
        if model.exclusive:
            del model.pages[handle]
        else:
            model.pages[handle] = found

    def is_frozen(self, model) -> bool:
        return self.all_frozen or self.frozen[model.members[0]]

    # pools

    @rule(number=whose, flags=st.sampled_from([EP, PP, ES, ES]), uuid=st.sampled_from(UUIDS))
    def create(self, number, flags, uuid):
        """Make a pool, or join one."""
        own, guest = self.pools[number], self.guests[number]
        if len(own) == MOST_POOLS:
            return
        shared = next((model for pools in self.pools for model in pools.values() if model.uuid == uuid), None)
        reply = guest.ask_pool(flags, uuid)
        if flags == ES and shared is not None and number in shared.members:
            assert reply.status == Status.EPERM
            return
        assert (reply.status, reply.value) == (Status.OK, min(set(range(MOST_POOLS)) - set(own)))
        joined = shared if flags == ES and shared is not None else Model(flags, uuid if flags == ES else None)
        joined.members.append(number)
        own[reply.value] = joined

    @rule(number=whose, pool=st.integers(0, MOST_POOLS))
    def destroy(self, number, pool):
        model = self.pools[number].pop(pool, None)
        assert self.guests[number].destroy(pool) == (Status.NO if model is None else Status.OK)
        if model is not None:
            model.members.remove(number)

    # the operator, and pressure

    @rule(who=anybody, frozen=st.booleans())
    def freeze(self, who, frozen):
        control = self.still.machine.control
        named = who if who == EVERYBODY else self.guests[who].number
        assert (control.freeze(named) if frozen else control.thaw(named)) == 0
        self.all_frozen = frozen if who == EVERYBODY else self.all_frozen
        self.frozen = [frozen if who in (EVERYBODY, number) else now for number, now in enumerate(self.frozen)]

    @rule()
    def thaw_everybody(self):
        self.freeze(EVERYBODY, False)

    @rule(number=whose, form=st.sampled_from(list(Form)), weight=st.integers(0, 3), cap=st.sampled_from([0, 0, 3, 12]))
    def set(self, number, form, weight, cap):
        control, named = self.still.machine.control, self.guests[number].number
        assert control.set_form(named, form) == control.set_weight(named, weight) == control.set_cap(named, cap) == 0

    @rule(number=whose, pages=st.integers(1, RAM))
    def use_ram(self, number, pages):
        """The guest's own memory takes frames, from the other's ephemeral pages if need be."""
        guest = self.guests[number].guest
        guest.essa(Essa.SET_STABLE, np.arange(pages))
        try:
            for gfn in range(pages):
                guest.memory.write(gfn, page(3))
        except OutOfMemory:
            assert self.still.machine.store.ephemeral == 0 or self.paid_for(number) == MOST

    @rule(number=whose)
    def balloon(self, number):
        guest, gfns = self.guests[number], np.arange(RAM)
        guest.guest.essa(Essa.SET_UNUSED, gfns)
        guest.transfer.gfns[:RAM] = gfns
        assert guest.call(Op.BALLOON, RAM).status == Status.OK

    @rule(frames=st.integers(1, 40))
    def press(self, frames):
        self.still.machine.reclaim.free_up(frames)

    @rule(kib=st.integers(1, 64))
    def flush(self, kib):
        self.still.machine.control.flush(EVERYBODY, kib)

    # always

    def paid_for(self, number) -> int:
        """Return the pages that count against a guest's max_mem (T67)."""
        machine, named = self.still.machine, self.guests[number].number
        return machine.ledger.held.get(named, 0) + machine.store.pages_of(named, persistent=True)

    @invariant()
    def sound(self):
        if not hasattr(self, "still"):
            return
        assert self.still.machine.orders.audit({})["problems"] == []
        for who, (guest, pools) in enumerate(zip(self.guests, self.pools, strict=True)):
            assert self.paid_for(who) <= MOST
            for number, model in pools.items():
                held = guest.pool(number).pages
                assert held == len(model.pages) if model.persistent else held <= len(model.pages)

    def teardown(self):
        if hasattr(self, "still"):
            self.still.stop()


class TwoGuestsForLong(TwoGuests):
    """The same, for minutes."""


TwoGuests.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TwoGuestsForLong.TestCase.settings = settings(max_examples=2000, stateful_step_count=40, deadline=None)
test_two_guests_see_what_they_put = TwoGuests.TestCase
test_two_guests_see_what_they_put_for_long = pytest.mark.timeout(3600)(pytest.mark.soak(TwoGuestsForLong.TestCase))
