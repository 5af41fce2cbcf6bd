"""The stream: what is written is read, in pieces of any size; whatever else arrives is refused where it goes wrong."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.tmem import stream
from hypervisor.tmem.stream import HANDLE, HEADER, BadStream, ClientFacts, Kind, PoolFacts, Reader, Writer
from shm.abi import PAGE_SIZE

CLIENT = ClientFacts("mine", 3, 100, 1, True, 64, "0123456789abcdef" * 2)
POOLS = (PoolFacts(0, 0x01000001, (0, 0), 2), PoolFacts(3, 0x01000002, (7, 1 << 63), 0))


def handles(*rows):
    return np.array(list(rows), HANDLE)


TWO = handles(((1, 2, 3), 4), ((1 << 63, 0, 0), (1 << 32) - 1))
CONTENT = np.arange(2 * PAGE_SIZE, dtype=np.uint32).astype(np.uint8).reshape(2, PAGE_SIZE)


def records():
    """One record of each kind, as bytes."""
    writer = Writer()
    return [writer.client(CLIENT), writer.pool(POOLS[0]), writer.pool(POOLS[1]), writer.pages(0, TWO, CONTENT),
            writer.gone(0, TWO[:1]), writer.end(POOLS)]


WHOLE = HEADER + b"".join(records())
STARTS = np.cumsum([len(HEADER), *map(len, records())]).tolist()[:-1]


def read(data, step=1 << 20):
    reader, found = Reader(), []
    for at in range(0, len(data), step):
        found += reader.feed(data[at:at + step])
    reader.finish()
    return found


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_what_is_written_is_read(step):
    client, first, second, pages, gone, end = read(WHOLE, step)
    assert [record.offset for record in (client, first, second, pages, gone, end)] == STARTS
    assert (client.value, (first.value, second.value), end.value) == (CLIENT, POOLS, POOLS)
    assert (pages.value.pool, pages.value.oids.tolist(), pages.value.indexes.tolist()) == (
        0, TWO["oid"].tolist(), TWO["index"].tolist())
    assert (pages.value.content == CONTENT).all()
    assert (gone.kind, gone.value.indexes.tolist(), gone.value.content.size) == (Kind.GONE, [4], 0)


@pytest.mark.parametrize("number", range(6), ids=[kind.name for kind in (
    Kind.CLIENT, Kind.POOL, Kind.POOL, Kind.PAGES, Kind.GONE, Kind.END)])
@pytest.mark.parametrize("what", ["kind", "length", "body", "sum"])
def test_damage_in_a_record_is_told_with_its_offset(number, what):
    start, end = STARTS[number], [*STARTS, len(WHOLE)][number + 1]
    at = {"kind": start, "length": start + 4, "body": start + 8, "sum": end - 1}[what]
    damaged = bytearray(WHOLE)
    damaged[at] ^= 0x40
    with pytest.raises(BadStream) as refused:
        read(bytes(damaged))
    assert refused.value.offset == start
    assert f"byte {start}" in str(refused.value)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_no_damage_of_one_byte_goes_unseen(at, flip):
    damaged = bytearray(WHOLE)
    damaged[at] ^= flip
    with pytest.raises(BadStream) as refused:
        read(bytes(damaged), 1000)
    assert refused.value.offset == max([0, *[start for start in STARTS if start <= at]])


@given(st.integers(0, len(WHOLE) - 1))
def test_a_stream_cut_short_has_no_end(length):
    with pytest.raises(BadStream, match="cut short"):
        read(WHOLE[:length])


def test_what_follows_the_end_is_refused():
    with pytest.raises(BadStream, match="more follows") as refused:
        read(WHOLE + b"\0")
    assert refused.value.offset == len(WHOLE)


@pytest.mark.parametrize("order", [(0, 2, 1, 3, 4, 5), (0, 1, 3, 4, 5), (0, 1, 1, 2, 3, 4, 5), (0, 1, 2, 4, 3, 5)])
def test_records_are_good_in_their_order_alone(order):
    made = records()
    with pytest.raises(BadStream, match="checksum"):
        read(HEADER + b"".join(made[number] for number in order))


@given(st.binary(max_size=200))
def test_junk_is_no_stream(junk):
    with pytest.raises(BadStream):
        read(junk)


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers(-1, 1 << 63) | st.text(max_size=5),
                        lambda inner: st.lists(inner, max_size=8))


@given(st.sampled_from(list(Kind)), st.binary(max_size=100) | ANYTHING.map(msgpack.packb))
def test_a_body_with_a_good_sum_may_be_junk_all_the_same(kind, body):
    """Whoever writes the sum may write a lie: it is refused, or says no more than a record may."""
    try:
        found = read(HEADER + Writer()._record(kind, body) + b"")
    except BadStream:
        return
    assert found[0].kind == Kind.END and all(isinstance(pool, PoolFacts) for pool in found[0].value)


@pytest.mark.parametrize(("field", "value"), [
    ("name", ""), ("name", "a\nb"), ("name", "x" * 65), ("name", 5), ("weight", -1), ("weight", True), ("cap", -1),
    ("form", 9), ("frozen", 1), ("max_pages", 1 << 40), ("token", "0" * 31), ("token", "G" * 32), ("token", None)])
def test_a_client_that_none_can_be(field, value):
    record = Writer()._record(Kind.CLIENT, msgpack.packb(CLIENT._replace(**{field: value})))
    with pytest.raises(BadStream, match="CLIENT"):
        read(HEADER + record)


@pytest.mark.parametrize(("pool", "rows", "extra"), [
    (0, handles(((1, 2, 3), 4), ((1, 2, 3), 4)), 0), (16, TWO, 0), (0, TWO[:0], 0), (0, TWO, 1)])
def test_handles_that_none_can_send(pool, rows, extra):
    body = stream._GROUP.pack(pool, len(rows)) + rows.tobytes() + bytes(extra)
    with pytest.raises(BadStream, match="GONE"):
        read(HEADER + Writer()._record(Kind.GONE, body))


def test_as_many_pages_as_are_said_to_fit_do_fit():
    for room in (2 * PAGE_SIZE, 100_000, 1 << 17, 1 << 20):
        count = stream.pages_within(room)
        rows = np.zeros(count, HANDLE)
        rows["index"] = np.arange(count)
        writer = Writer()
        data = writer.pages(0, rows, np.zeros((count, PAGE_SIZE), np.uint8)) + writer.gone(0, rows[:1])
        assert count and len(data) - HANDLE.itemsize <= room
        assert [len(record.value.indexes) for record in without_end(HEADER + data)] == [count, 1]


def without_end(data):
    return list(Reader().feed(data))
