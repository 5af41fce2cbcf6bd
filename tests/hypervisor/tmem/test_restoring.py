"""The target: what comes is put as any guest puts, is for good at the commit, and can be taken back until then."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import EPHEMERAL, OID, PERSISTENT, A, B, a_store, get, new_pool, page, prove_sound, put

from hypervisor.tmem.clients import ClientCount
from hypervisor.tmem.forms import Form
from hypervisor.tmem.pools import MAX_SHARED
from hypervisor.tmem.restoring import Restoring
from hypervisor.tmem.saving import Mode, Saving
from hypervisor.tmem.stream import HANDLE, HEADER, BadStream, ClientFacts, PoolFacts, Reader, Writer
from shm.abi import PAGE_SIZE, PoolFlag, Status
from shm.errors import UsageProblem

TOKEN = "5" * 32
UUID = (5, 6)
SHARED = EPHEMERAL | PoolFlag.SHARED
NEW = 7                      # the number of who comes
CLIENT = ClientFacts("mine", 3, 100, int(Form.RAW), False, 64, TOKEN)
POOL = PoolFacts(2, PERSISTENT, (0, 0), 1)


@pytest.fixture
def target():
    with a_store(budget=128, authorise=True) as made:
        yield made


def stream_of(store, guest=A, mode=Mode.TRACK):
    """Save a guest and return the stream."""
    saving, data = Saving(store, guest, "mine", 64, TOKEN, mode), b""
    while not saving.done:
        saving.finish()
        data += saving.next(1 << 17)
    saving.end()
    return data


def restore(store, data, admit=lambda facts: NEW, may_share=False):
    return feed(Restoring(store, admit, may_share), data)


def feed(restoring, data):
    for record in Reader().feed(data):
        restoring.take(record)
    return restoring


def handles(*indexes):
    made = np.zeros(len(indexes), HANDLE)
    made["oid"], made["index"] = OID, indexes
    return made


def lying(*records):
    """A stream with good sums: each record is (name of the writer's method, arguments)."""
    writer = Writer()
    return HEADER + b"".join(getattr(writer, what)(*arguments) for what, *arguments in records)


def one_page(index=0, pool=2):
    return "pages", pool, handles(index), page(9).reshape(1, PAGE_SIZE)


def picture(store):
    return ([(pool.serial, pool.owner, pool.pages, pool.members) for pool in store.pools.all()],
            [client.number for client in store.clients.all()], len(store.catalogue), store.heap.in_use)


def test_pages_pools_and_client_come_over(target):
    with a_store() as source:
        for flags in (PERSISTENT, EPHEMERAL, PERSISTENT):
            new_pool(source, A, flags)
        source.destroy_pool(A, 0)
        for index in range(50):
            put(source, A, 2, 100 + index, index=index)
            put(source, A, 1, 200 + index, index=index)
        client = source.clients.get(A)
        client.weight, client.cap, client.form, client.frozen = 4, 60, Form.TZE, True
        restoring = restore(target, stream_of(source))
        assert restoring.commit() == NEW
    assert [(number, pool.persistent, pool.pages) for number, pool in target.pools.numbered(NEW)] == [
        (1, False, 0), (2, True, 50)]
    assert [get(target, NEW, 2, index=index) for index in range(50)] == list(range(100, 150))
    assert get(target, NEW, 1) == Status.EEMPTY
    client = target.clients.get(NEW)
    assert (client.weight, client.cap, client.form, client.frozen) == (4, 60, Form.TZE, True)
    assert client.counts[ClientCount.PP] == 50


@pytest.mark.parametrize("form", list(Form))
def test_pages_are_stored_in_the_forms_of_their_guest(form):
    with a_store(form=form) as source, a_store() as target:
        new_pool(source, A, PERSISTENT)
        for index in range(20):
            put(source, A, 0, index, index=index)
        restore(target, stream_of(source)).commit()
        assert [get(target, NEW, 0, index=index) for index in range(20)] == list(range(20))
        assert target.heap.in_use == source.heap.in_use
        assert target.clients.get(NEW).form == form


def test_what_was_gone_is_gone_there(target):
    data = lying(("client", CLIENT), ("pool", POOL), one_page(0), one_page(1), ("gone", 2, handles(1, 5)),
                 ("client", CLIENT._replace(weight=9)), ("end", (POOL,)))
    restore(target, data).commit()
    assert (get(target, NEW, 2, index=0), get(target, NEW, 2, index=1)) == (9, Status.NO)
    assert target.clients.get(NEW).weight == 9, "the client as it was at the end"


def test_a_restored_guest_pays_for_nobody_elses_frames_afterwards(target):
    """T62: it asked for room while its pages came, and asks no more."""
    restore(target, lying(("client", CLIENT), ("pool", POOL), one_page()))
    assert len(target.catalogue) == 1
    assert target.shelf.pressure.requester is None


def test_quirk_weight_and_cap_are_forgotten():
    with a_store(quirks=True) as target:
        restore(target, lying(("client", CLIENT), ("end", ()))).commit()
        client = target.clients.get(NEW)
        assert (client.weight, client.cap) == (0, 0)


def test_nothing_is_for_good_before_the_end(target):
    restoring = restore(target, lying(("client", CLIENT), ("pool", POOL), one_page()))
    with pytest.raises(UsageProblem, match="has not come"):
        restoring.commit()
    restoring.undo()


def test_undone_is_as_it_was(target):
    new_pool(target, B, PERSISTENT)
    put(target, B, 0, 1)
    target.create_pool(B, SHARED, UUID)
    before = picture(target)
    restoring = restore(target, lying(
        ("client", CLIENT), ("pool", POOL), ("pool", PoolFacts(0, SHARED, UUID, 0)), one_page()), may_share=True)
    assert picture(target) != before
    restoring.undo()
    restoring.undo()
    assert picture(target) == before


# Records with good sums that must be refused, each with a part of the line that says why.
LIES = {
    "no guest first": ([("pool", POOL)], "begin with a guest"),
    "another guest": ([("client", CLIENT), ("client", CLIENT._replace(name="other"))], "another guest"),
    "another token": ([("client", CLIENT), ("client", CLIENT._replace(token="6" * 32))], "another guest"),
    "a pool twice": ([("client", CLIENT), ("pool", POOL), ("pool", POOL)], "cannot be made"),
    "a pool of no version": ([("client", CLIENT), ("pool", POOL._replace(flags=1))], "cannot be made"),
    "shared without uuid": ([("client", CLIENT), ("pool", POOL._replace(flags=SHARED))], "cannot be made"),
    "shared and persistent": ([("client", CLIENT), ("pool", PoolFacts(0, SHARED | PERSISTENT, UUID, 0))],
                              "cannot be joined"),
    "shared where a pool is": ([("client", CLIENT), ("pool", POOL), ("pool", PoolFacts(2, SHARED, UUID, 0))],
                               "cannot be joined"),
    "shared twice": ([("client", CLIENT), ("pool", PoolFacts(0, SHARED, UUID, 0)),
                      ("pool", PoolFacts(1, SHARED, UUID, 0))], "another of its pools"),
    "a page without pool": ([("client", CLIENT), one_page()], "is none that has pages"),
    "a page of an ephemeral pool": ([("client", CLIENT), ("pool", POOL._replace(flags=EPHEMERAL)), one_page()],
                                    "is none that has pages"),
    "a page of a shared pool": ([("client", CLIENT), ("pool", PoolFacts(2, SHARED, UUID, 0)), one_page()],
                                "is none that has pages"),
    "gone without pool": ([("client", CLIENT), ("gone", 2, handles(0))], "is none that has pages"),
    "pages missing at the end": ([("client", CLIENT), ("pool", POOL), ("end", (POOL,))], "not those that came"),
    "a pool missing at the end": ([("client", CLIENT), ("pool", POOL), one_page(), ("end", ())], "not those that came"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_and_leave_nothing(target, lie):
    records, why = LIES[lie]
    before = picture(target)
    restoring = Restoring(target, lambda facts: NEW, may_share=True)
    with pytest.raises(BadStream, match=why):
        feed(restoring, lying(*records))
    restoring.undo()
    assert picture(target) == before


def test_shared_pools_are_joined_with_the_operators_word_alone(target):
    data = lying(("client", CLIENT), ("pool", PoolFacts(3, SHARED, UUID, 0)), ("end", (PoolFacts(3, SHARED, UUID, 0),)))
    refused = Restoring(target, lambda facts: NEW)
    with pytest.raises(UsageProblem, match="--share"):
        feed(refused, data)
    refused.undo()
    target.membership.authorise(B, UUID, True)
    target.create_pool(B, SHARED, UUID)
    put(target, B, 0, 77)
    restore(target, data, may_share=True).commit()
    assert get(target, NEW, 3) == 77
    assert UUID in target.clients.get(NEW).authorised


def test_a_host_full_of_shared_pools(target):
    for number in range(MAX_SHARED):
        target.pools.create(B, number, persistent=False, uuid=(number + 10, 0))
    restoring = Restoring(target, lambda facts: NEW, may_share=True)
    with pytest.raises(UsageProblem, match=f"{MAX_SHARED} shared pools"):
        feed(restoring, lying(("client", CLIENT), ("pool", PoolFacts(0, SHARED, UUID, 0))))
    restoring.undo()


@pytest.mark.parametrize(("hinder", "reason"), [
    (lambda store: None, "NO_FRAME"), (lambda store: setattr(store.clients, "frozen", True), "all guests are frozen")])
def test_a_target_without_room_refuses_and_is_as_it_was(hinder, reason):
    with a_store() as source, a_store(budget=32) as target:
        new_pool(source, A, PERSISTENT)
        for index in range(64):
            source.put(A, 0, OID, index, np.random.default_rng(index).integers(0, 255, PAGE_SIZE, np.uint8))
        hinder(target)
        before, restoring = picture(target), Restoring(target, lambda facts: NEW)
        with pytest.raises(UsageProblem, match=reason):
            feed(restoring, stream_of(source))
        restoring.undo()
        assert picture(target) == before
        prove_sound(target)


def test_the_limit_of_its_own_holds(target):
    target.shelf.allowance = lambda owner: (1 - target.pages_of(owner, persistent=True), 4)
    restoring = Restoring(target, lambda facts: NEW)
    with pytest.raises(UsageProblem, match="MAX_MEM"):
        feed(restoring, lying(("client", CLIENT), ("pool", POOL), one_page(0), one_page(1)))
    restoring.undo()


@pytest.fixture(scope="module")
def saved():
    """The stream of a guest with two pools."""
    with a_store() as source:
        for flags in (PERSISTENT, EPHEMERAL):
            new_pool(source, A, flags)
        for index in range(5):
            put(source, A, 0, index, index=index)
        return stream_of(source)


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_stream_leaves_the_target_as_it_was(saved, data):
    """Wherever the damage is: a byte changed, cut off, or too much."""
    damaged = bytearray(saved)
    at = data.draw(st.integers(0, len(saved) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "more"]))
    if how == "flip":
        damaged[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del damaged[at:]
    else:
        damaged += b"x" * (at % 50 + 1)
    with a_store(budget=64) as target:
        before, restoring, reader = picture(target), Restoring(target, lambda facts: NEW), Reader()
        with pytest.raises(UsageProblem):
            _all_of(restoring, reader, bytes(damaged))
        restoring.undo()
        assert picture(target) == before


def _all_of(restoring, reader, data):
    for record in reader.feed(data):
        restoring.take(record)
    reader.finish()


DEED = st.sampled_from(["put", "put", "flush", "object", "many", "next", "next"])
DEEDS = st.lists(st.tuples(DEED, st.integers(0, 1), st.integers(0, 40)), max_size=60)


@settings(max_examples=80)
@given(deeds=DEEDS, mode=st.sampled_from(Mode), form=st.sampled_from(Form))
def test_the_target_has_what_the_guest_did_last(deeds, mode, form):
    """Puts, flushes and steps of the save in any order, in every mode, against a dict of what the source answered."""
    with a_store(form=form) as source, a_store() as target:
        model = {}
        for pool in range(2):
            new_pool(source, A, PERSISTENT)
            for index in range(40):
                put(source, A, pool, 1000 + index, index=index)
                model[pool, index] = 1000 + index
        saving, restoring = Saving(source, A, "mine", 64, TOKEN, mode), Restoring(target, lambda _: NEW)
        reader = Reader()
        for value, (deed, pool, index) in enumerate(deeds):
            if deed == "next":
                _carry(saving, restoring, reader, 30_000)
            else:
                _do(source, model, deed, pool, index, value)
        while not saving.done:
            if saving.wants_pause:
                saving.finish()
            _carry(saving, restoring, reader, 30_000)
        saving.end()
        restoring.commit()
        for pool in range(2):
            for index in range(41):
                expected = model.get((pool, index), Status.NO if target.pools.get(NEW, pool).pages else Status.EEMPTY)
                assert get(target, NEW, pool, index=index) == expected


def _carry(saving, restoring, reader, room):
    for record in reader.feed(saving.next(room)):
        restoring.take(record)


def _do(source, model, deed, pool, index, value):
    """Do one thing to the source, and to the model what the source says came of it."""
    if deed == "put":
        _settle(model, pool, index, value, put(source, A, pool, value, index=index))
    elif deed == "many":
        indexes = np.arange(index, min(index + 8, 41), dtype=np.uint64)
        statuses = source.put_many(A, pool, np.array([OID] * len(indexes), np.uint64), indexes,
                                   np.stack([page(value)] * len(indexes)))
        for one, status in zip(indexes.tolist(), statuses.tolist(), strict=True):
            _settle(model, pool, one, value, status)
    elif deed == "flush":
        source.flush_page(A, pool, OID, index)
        model.pop((pool, index), None)
    elif index == 0:
        source.flush_object(A, pool, OID)
        for key in [key for key in model if key[0] == pool]:
            del model[key]


def _settle(model, pool, index, value, status):
    if status == Status.OK:
        model[pool, index] = value
    elif status != Status.EFROZEN:
        model.pop((pool, index), None)
